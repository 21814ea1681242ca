//! Sessions as people feel them: how long until one stands, how long a key takes to come back, and what
//! hundreds of them cost.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use tests::command::Run;
use tests::measure::{Figure, median};
use tests::node::Node;

use crate::Bench;

const SETUPS: usize = 25;
/// Studies whose workspace nobody has entered yet.
const COLD: usize = 9;
/// Keys in a round, and rounds.
const KEYS: usize = 300;
const KEY_ROUNDS: usize = 4;
/// Terminals that are open at once, and how many hands open them.
const CROWD: usize = 500;
const HANDS: usize = 8;
/// How long an idle crowd rests before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

/// A far side that gives back what it gets; its own command line does not hold the word it says first.
const MIRROR: &str = "stty raw -echo; printf '@@%s@@' READY; exec cat";
const READY: &[u8] = b"@@READY@@";

/// The same node with room for the crowd.
pub fn roomy(node: Node) -> Result<Node> {
    let (dir, ports) = (node.dir.clone(), node.ports);
    node.stop()?;
    for (room, wishes) in [
        ("broker", vec![("#: max_sessions = 256", "max_sessions = 600")]),
        (
            "agent",
            vec![("#: sessions = 256", "sessions = 600"), ("#: [limits]", "[limits]\nprocesses = 4000")],
        ),
    ] {
        let path = dir.join(room).join("config.toml");
        let mut text = fs::read_to_string(&path)?;
        for (default, wish) in wishes {
            ensure!(text.contains(default), "{} has no {default:?}", path.display());
            text = text.replacen(default, wish, 1);
        }
        fs::write(&path, text)?;
    }
    Node::up(&dir, ports)
}

impl Bench {
    /// Milliseconds from nothing to the end of `true`, with the workspace running.
    pub fn setup(&self) -> Result<Figure> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..=SETUPS {
            let mine = ended(self.ours(SAME_EXCHANGE))?;
            let other = ended(self.theirs(SAME_EXCHANGE))?;
            // The first round starts the workspace.
            if round > 0 {
                ours.push(mine);
                theirs.push(other);
            }
        }
        Ok(Figure::less_is_better("ssh/setup/warm", "ms", median(&mut ours), "sshd", median(&mut theirs)))
    }

    /// The same where the workspace has to be started.
    pub fn cold(&self) -> Result<Figure> {
        for at in 0..COLD {
            for words in [
                format!("study create cold{at} --purpose HMB --until 2035-03-31 --title cold"),
                format!("member add cold{at} admin"),
                format!("grant create --study cold{at} --dataset tiny --until 2035-03-31"),
            ] {
                self.device.sekisho(&words)?.go()?.ok()?;
            }
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for at in 0..COLD {
            ours.push(ended(self.device.ssh(&format!("cold{at}"), SAME_EXCHANGE))?);
            theirs.push(ended(self.theirs(SAME_EXCHANGE))?);
        }
        Ok(Figure::less_is_better("ssh/setup/cold", "ms", median(&mut ours), "sshd", median(&mut theirs)))
    }

    /// Microseconds until a key comes back through a terminal that does nothing else.
    pub fn echo(&self) -> Result<Vec<Figure>> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..KEY_ROUNDS {
            for (run, all) in [(self.ours("-tt"), &mut ours), (self.theirs("-tt"), &mut theirs)] {
                let mut mirror = Mirror::open(&run)?;
                let mut took = mirror.strike(KEYS)?;
                all.append(&mut took);
                mirror.close()?;
            }
        }
        let at = |values: &mut Vec<f64>, share: f64| {
            values.sort_by(f64::total_cmp);
            values[((values.len() - 1) as f64 * share) as usize]
        };
        let figure = |name: &str, share: f64, ours: &mut Vec<f64>, theirs: &mut Vec<f64>| {
            Figure::less_is_better(name, "us", at(ours, share), "sshd", at(theirs, share))
        };
        Ok(vec![
            figure("ssh/echo/p50", 0.5, &mut ours, &mut theirs),
            figure("ssh/echo/p99", 0.99, &mut ours, &mut theirs),
        ])
    }

    /// Terminals opened each second, and the memory that each takes of the broker (of `sshd`: of its
    /// processes, what they share counted once) while nothing happens in it.
    pub fn crowd(&self) -> Result<Vec<Figure>> {
        let broker = self.node.process("sekisho-broker")?;
        let sshd = Pid::from_raw(self.sshd.0.id().cast_signed());
        let (our_rate, our_size) = crowd(|| self.ours("-tt"), || resident(broker))?;
        let (their_rate, their_size) = crowd(|| self.theirs("-tt"), || proportional(sshd))?;
        Ok(vec![
            Figure::more_is_better("ssh/rate", "/s", our_rate, "sshd", their_rate),
            Figure::less_is_better("ssh/idle/rss", "KiB", our_size, "sshd", their_size),
        ])
    }
}

/// The same key exchange on both sides: what the broker adds is what is measured.
const SAME_EXCHANGE: &str = "-o KexAlgorithms=curve25519-sha256";

/// Milliseconds.
fn ended(run: Run) -> Result<f64> {
    Ok(run.arg("true").go()?.ok()?.took.as_secs_f64() * 1e3)
}

/// Opens the crowd: how many a second, and KiB that each takes.
fn crowd(run: impl Fn() -> Run + Sync, size: impl Fn() -> Result<f64>) -> Result<(f64, f64)> {
    // One that stays: what the first session sets up is not counted to the others.
    let first = Mirror::open(&run())?;
    let before = size()?;
    let (began, left) = (Instant::now(), Mutex::new(CROWD));
    let opened: Vec<Result<Vec<Mirror>>> = std::thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    while take(&left) {
                        mine.push(Mirror::open(&run())?);
                    }
                    Ok(mine)
                })
            })
            .collect();
        hands
            .into_iter()
            .map(|hand| hand.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a hand panicked"))))
            .collect()
    });
    let took = began.elapsed().as_secs_f64();
    let mut open = vec![first];
    for mine in opened {
        open.extend(mine?);
    }
    std::thread::sleep(REST);
    let each = (size()? - before) / CROWD as f64;
    // One that does not answer any more was not idle but dead.
    for mirror in &mut open {
        mirror.strike(1)?;
    }
    for mirror in open {
        mirror.close()?;
    }
    Ok((CROWD as f64 / took, each))
}

fn take(left: &Mutex<usize>) -> bool {
    let Ok(mut left) = left.lock() else { return false };
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

/// A terminal at whose far end every key comes back.
struct Mirror {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
}

impl Mirror {
    fn open(run: &Run) -> Result<Mirror> {
        let mut child = run
            .command()
            .arg(MIRROR)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (keys, screen) =
            (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
        let mut mirror = Mirror { child, keys, screen };
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(READY) {
            mirror.screen.read_exact(&mut byte).with_context(|| {
                format!("{}: it ended after {:?}", run.line(), String::from_utf8_lossy(&seen))
            })?;
            seen.push(byte[0]);
        }
        Ok(mirror)
    }

    /// Microseconds for each of `count` keys.
    fn strike(&mut self, count: usize) -> Result<Vec<f64>> {
        let mut took = Vec::with_capacity(count);
        let mut back = [0];
        for at in 0..count {
            let key = [b'a' + (at % 26) as u8];
            let began = Instant::now();
            self.keys.write_all(&key)?;
            self.screen.read_exact(&mut back)?;
            took.push(began.elapsed().as_secs_f64() * 1e6);
            ensure!(back == key, "another key came back");
        }
        Ok(took)
    }

    fn close(mut self) -> Result<()> {
        drop(self.keys);
        // The terminal is raw: the end of input is no end there.
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

/// KiB resident of one process.
fn resident(pid: Pid) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kib(&status, "VmRSS:").context("no VmRSS")
}

/// KiB of a process and its descendants, what is shared counted once.
fn proportional(root: Pid) -> Result<f64> {
    let listed = Command::new("ps").args(["-e", "-o", "pid=,ppid="]).output()?;
    let pairs: Vec<(i32, i32)> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(|word| word.parse().ok());
            Some((words.next()??, words.next()??))
        })
        .collect();
    let mut family = vec![root.as_raw()];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        // Terminals' shells and what runs in them are the work, not the door.
        family.extend(pairs.iter().filter(|(pid, of)| *of == parent && is_sshd(*pid)).map(|(pid, _)| *pid));
        at += 1;
    }
    let each = family.iter().map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        kib(&text, "Pss:").unwrap_or(0.0)
    });
    Ok(each.sum())
}

fn is_sshd(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("sshd"))
}

fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
