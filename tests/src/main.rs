//! `make demo`: tells the story, every step asserted, and leaves the node running until Ctrl-C.
//! With `DEMO=once` in the environment it stops at the end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use signer::{SignUser, SignerClient};
use tests::command::INTERRUPTED;
use tests::node::SIGN;
use tests::story::Story;

extern "C" fn stop(_signal: i32) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, socket, person, key] = words.as_slice()
        && first == SIGN
    {
        return sign(socket, person, key);
    }
    match tell() {
        Ok(()) => {
            println!("\ndemo: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\ndemo: FAILED\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the signer for a certificate, as only the broker's account may. The story uses it to bring
/// about what the door must refuse.
fn sign(socket: &str, person: &str, key: &str) -> ExitCode {
    let asked = async {
        let request = SignUser {
            person: person.parse()?,
            public_key: key.to_owned(),
            lifetime_secs: 300,
            source_address: None,
            pty: true,
            port_forwarding: true,
            force_command: None,
        };
        anyhow::Ok(SignerClient::new(socket).sign_user(request).await?.to_openssh()?)
    };
    match tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(asked)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tell() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the demo runs workspaces, mounts and cgroups: start it as root (sudo make demo)"
    );
    let action = SigAction::new(SigHandler::Handler(stop), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler stores to an atomic and does nothing else, which is allowed in a signal handler.
        unsafe { sigaction(signal, &action) }?;
    }
    let dir = std::env::var_os("SEKISHO_DEMO_DIR")
        .map_or_else(|| std::env::temp_dir().join("sekisho-demo"), PathBuf::from);
    if dir.exists() {
        let left = tests::node::left_behind(&dir)?;
        ensure!(left.is_empty(), "an earlier demo still runs in {}:\n{}", dir.display(), left.join("\n"));
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let began = Instant::now();
    println!("Sekisho: one researcher reads one real genome through one brokered session.");
    println!("Everything lies in {}.", dir.display());
    let mut story = Story::new(&dir, &tests::data())?;
    story.tell()?;
    println!("\nEvery step held, after {:.0} s.", began.elapsed().as_secs_f64());
    if std::env::var("DEMO").as_deref() != Ok("once") {
        println!("\n{}", story.commands()?);
        while !INTERRUPTED.swap(false, Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    story.end()
}
