//! A full house for a while, with some in it who do everything wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use tests::command::{run, wait_for};
use tests::crowd::{Terminal, people, roomy};
use tests::node::{Device, Node, left_behind};

use super::folder;

/// How many sessions there are unless `SEKISHO_CROWD` says, and for how many seconds unless
/// `SEKISHO_CROWD_SECS` does. What is promised is a thousand for ten minutes (`--profile soak`).
const SESSIONS: usize = 60;
const SECS: u64 = 12;
/// Terminals of one person.
const EACH: usize = 100;
/// One client of so many misbehaves; there is at least one of each manner.
const MISBEHAVE: usize = 100;
const MANNERS: usize = 10;
/// The rest between two keys in a terminal.
const REST: Duration = Duration::from_secs(3);
/// What a session may take of the broker, and what everything that misbehaves may: windows of some MiB for
/// each of the dozens of connections and channels that are there at a time, and what the allocator has
/// between them.
const SESSION_KIB: usize = 200;
const NUISANCE_KIB: usize = 256 << 10;

fn wish(name: &str, otherwise: usize) -> Result<usize> {
    std::env::var(name).map_or(Ok(otherwise), |text| text.parse().with_context(|| format!("{name}: {text}")))
}

/// Nobody who behaves is cut off, or waits long; the broker's memory stays bounded; and in the end every
/// session is closed in the log and nothing is left.
#[test]
fn needs_root_a_full_house_is_not_disturbed_by_who_misbehaves() -> Result<()> {
    let (sessions, secs) = (wish("SEKISHO_CROWD", SESSIONS)?, wish("SEKISHO_CROWD_SECS", SECS as usize)?);
    let dir = folder("crowd")?;
    let (node, admin) = Node::with_a_study(&dir, "full", &[&tests::data().join("q.fa")])?;
    let node = roomy(node, sessions + 200)?;
    let each = EACH.min(sessions.div_ceil(2));
    let mut good = people(&dir, &node, &admin, "full", sessions.div_ceil(each) + 1, each + 20)?;
    let bad = &good.pop().context("nobody")?;
    let broker = node.process("sekisho-broker")?;
    let empty = resident(broker)?;

    let began = Instant::now();
    let mut rooms = open(&good, sessions)?;
    let (opening, full) = (began.elapsed(), resident(broker)?);
    println!("{sessions} terminals in {opening:.1?}; the broker holds {full} KiB, {empty} before");

    let quiet = strike(&mut rooms, Duration::from_secs(secs as u64 / 4).max(REST))?;
    report("undisturbed", quiet);
    let manners = (sessions / MISBEHAVE).max(MANNERS);
    let nuisances = (0..manners).map(|at| misbehave(bad, node.ports.ssh, at)).collect::<Result<Vec<_>>>()?;
    let disturbed = strike(&mut rooms, Duration::from_secs(secs as u64))?;
    let loaded = resident(broker)?;
    let mut manners = BTreeMap::<String, usize>::new();
    for nuisance in nuisances {
        for line in ended(nuisance)?.lines() {
            *manners.entry(line.to_owned()).or_default() += 1;
        }
    }
    report("disturbed", disturbed);
    println!("the broker held {loaded} KiB under it; what was tried:\n{manners:#?}");
    let tried = |name: &str| {
        manners.keys().any(|line| line.starts_with(name) && !line.to_lowercase().contains("authentication"))
    };
    for name in [
        "never_reads",
        "plays_with_windows",
        "sends_nonsense",
        "opens_without_end",
        "breaks_off",
        "speaks_no_ssh",
        "crowds_the_door",
        "lies_about_lengths",
        "ignores_for_ever",
    ] {
        ensure!(tried(name), "{name} was never carried through");
    }
    ensure!(
        loaded < empty + sessions * SESSION_KIB + NUISANCE_KIB,
        "the broker holds {loaded} KiB, {empty} when it was empty"
    );

    // Who has been there the whole time still is, and leaves.
    for terminal in rooms.into_iter().flatten() {
        terminal.close()?;
    }
    let all_closed = wait_for("every session to be closed", Duration::from_secs(60), || {
        let events = node.events().ok()?;
        let count = |kind: &str| {
            let mark = format!("\"{kind}\"");
            events.iter().filter(|event| event.to_string().contains(&mark)).count()
        };
        let opened = count("session_opened");
        (opened >= sessions && opened == count("session_closed")).then_some(opened)
    })?;
    println!("{all_closed} sessions were opened and closed");
    ensure!(node.process("sekisho-broker")? == broker, "the broker was started anew");
    node.stop()?;
    let left = left_behind(&dir)?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Terminals, those of each person together.
fn open(people: &[Device], sessions: usize) -> Result<Vec<Vec<Terminal>>> {
    let left = Mutex::new(sessions);
    let take = || {
        let mut left = left.lock().ok()?;
        *left = left.checked_sub(1)?;
        Some(())
    };
    thread::scope(|scope| {
        let hands: Vec<_> = people
            .iter()
            .map(|person| {
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    while mine.len() < sessions.div_ceil(people.len()) && take().is_some() {
                        mine.push(Terminal::open(&person.ssh("full", "-tt"))?);
                    }
                    Ok(mine)
                })
            })
            .collect();
        hands.into_iter().map(|hand| hand.join().map_err(|_| anyhow::anyhow!("a hand broke"))?).collect()
    })
}

/// Keys in every terminal for so long: the median, the hundredth and the very longest wait, milliseconds.
fn strike(rooms: &mut [Vec<Terminal>], time: Duration) -> Result<[u128; 3]> {
    let took = thread::scope(|scope| {
        let hands: Vec<_> = rooms
            .iter_mut()
            .map(|mine| {
                scope.spawn(move || {
                    let (began, mut took) = (Instant::now(), Vec::new());
                    while began.elapsed() < time {
                        for terminal in mine.iter_mut() {
                            took.push(terminal.strike(b'k')?);
                        }
                        thread::sleep(REST);
                    }
                    Ok(took)
                })
            })
            .collect();
        let each = hands.into_iter().map(|hand| hand.join().map_err(|_| anyhow::anyhow!("a hand broke"))?);
        each.collect::<Result<Vec<Vec<Duration>>>>()
    })?;
    let mut took: Vec<u128> = took.into_iter().flatten().map(|took| took.as_millis()).collect();
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() - 1) * share / 100).copied().context("no key was struck");
    Ok([at(50)?, at(99)?, at(100)?])
}

fn report(how: &str, [median, most, longest]: [u128; 3]) {
    println!(
        "{how}: a key came back after {median} ms (median), {most} ms (99 of 100), {longest} ms (longest)"
    );
}

fn misbehave(device: &Device, port: u16, manner: usize) -> Result<Child> {
    let python = PathBuf::from(std::env::var("HOME")?).join(".cache/sekisho/python/bin/python");
    let child = run(python)
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/misbehave.py"))
        .args(&format!("{manner} 127.0.0.1 {port} full"))
        .arg(device.home.join("id_ed25519"))
        .arg(device.home.join("id_ed25519-cert.pub"))
        .command()
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    Ok(child)
}

/// Ends one that misbehaves; what it says it did.
fn ended(mut child: Child) -> Result<String> {
    child.kill()?;
    let mut said = String::new();
    child.stdout.take().context("no stdout")?.read_to_string(&mut said)?;
    child.wait()?;
    Ok(said)
}

/// KiB resident.
fn resident(pid: Pid) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}
