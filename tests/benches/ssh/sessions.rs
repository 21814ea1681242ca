//! Sessions as people feel them: how long until one stands, how long a key takes to come back, and what
//! hundreds of them cost.

use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use tests::command::Run;
use tests::crowd::Terminal;
use tests::measure::{Figure, median};

use crate::Bench;

const SETUPS: usize = 25;
/// Studies whose workspace nobody has entered yet.
const COLD: usize = 9;
/// Keys in a round, and rounds.
const KEYS: usize = 300;
const KEY_ROUNDS: usize = 4;
/// Terminals that are open at once, and how many hands open them.
pub const CROWD: usize = 500;
const HANDS: usize = 8;
/// Whose they are.
pub const PEOPLE: usize = 5;
/// How long an idle crowd rests before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

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
                let mut terminal = Terminal::open(&run)?;
                for at in 0..KEYS {
                    let took = terminal.strike(b'a' + (at % 26) as u8)?;
                    all.push(took.as_secs_f64() * 1e6);
                }
                terminal.close()?;
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
        // As many people as it takes that nobody opens more at once than one person may.
        let ours = |at: usize| self.people[at % self.people.len()].ssh("bench", "-tt");
        let (our_rate, our_size) = crowd(ours, || resident(broker))?;
        let (their_rate, their_size) = crowd(|_| self.theirs("-tt"), || proportional(sshd))?;
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
fn crowd(run: impl Fn(usize) -> Run + Sync, size: impl Fn() -> Result<f64>) -> Result<(f64, f64)> {
    // One that stays: what the first session sets up is not counted to the others.
    let first = Terminal::open(&run(0))?;
    let before = size()?;
    let (began, left) = (Instant::now(), Mutex::new(CROWD));
    let opened: Vec<Result<Vec<Terminal>>> = std::thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    while let Some(at) = take(&left) {
                        mine.push(Terminal::open(&run(at))?);
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
    for terminal in &mut open {
        terminal.strike(b'k')?;
    }
    for terminal in open {
        terminal.close()?;
    }
    Ok((CROWD as f64 / took, each))
}

fn take(left: &Mutex<usize>) -> Option<usize> {
    let mut left = left.lock().ok()?;
    *left = left.checked_sub(1)?;
    Some(*left)
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
