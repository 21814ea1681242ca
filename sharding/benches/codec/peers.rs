//! Peers written in C, behind `infra/bench-peers.c`: compiled here, run beside us on the same core,
//! one turn at a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::contest::Contestant;

/// The program, if it could be had.
pub struct Peers(Option<Mutex<Running>>);

struct Running {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peers {
    /// Compiles and starts it; says so if that fails, and does without.
    pub fn start() -> Peers {
        Peers(match start() {
            Ok(running) => Some(Mutex::new(running)),
            Err(why) => {
                println!("without the peers in C (infra/setup --bench installs them): {why}");
                None
            }
        })
    }

    /// The contestant called `name`, at `task` on `len` bytes of secret; nothing if it is not here.
    pub fn contestant(&self, name: &str, task: &str, len: usize) -> Option<Contestant<'_>> {
        let running = self.0.as_ref()?;
        let ask = format!("{task} {len}\n");
        if let Err(why) = turn(running, &ask) {
            println!("without {name}: {why}");
            return None;
        }
        let measured = move || turn(running, &ask).unwrap_or(f64::NAN);
        Some(Contestant::timed(name, measured))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends when its input does, but it is to be gone when we are.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Result<Running, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/bench-peers.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-peers");
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(["-O3", "-march=native", "-Wall", "-Wextra", "-o"]).arg(&program).arg(&source);
    for (header, library) in [("libgfshare.h", "-lgfshare"), ("isa-l.h", "-lisal")] {
        if Path::new("/usr/include").join(header).exists() {
            cc.arg(library);
        }
    }
    let status = cc.status().map_err(|error| format!("no C compiler: {error}"))?;
    if !status.success() {
        return Err(format!("{} did not compile", source.display()));
    }
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let (to, from) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
    Ok(Running { child, to, from: BufReader::new(from) })
}

/// Megabytes per second of one turn, or why there is none.
fn turn(running: &Mutex<Running>, ask: &str) -> Result<f64, String> {
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    running.to.write_all(ask.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    running.from.read_line(&mut answer).map_err(|error| error.to_string())?;
    answer.trim().parse().map_err(|_| answer.trim().to_owned())
}
