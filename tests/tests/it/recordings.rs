//! What a terminal showed, recorded by a real node and seen again.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tests::command::{run, wait_for};
use tests::node::{Device, Node, binary};

use super::folder;

struct Theatre {
    dir: PathBuf,
    node: Node,
    device: Device,
}

impl Theatre {
    fn new(name: &str) -> Result<Theatre> {
        let dir = folder(name)?;
        let (node, device) = Node::with_a_study(&dir, "stage", &[&tests::data().join("q.fa")])?;
        Ok(Theatre { dir, node, device })
    }

    fn sekisho(&self, words: &str) -> Result<String> {
        Ok(self.device.sekisho(words)?.go()?.ok()?.text())
    }

    fn folder(&self) -> PathBuf {
        self.node.dir.join("broker/recordings")
    }

    /// The recordings in which a text was to be read, once there are so many.
    fn found(&self, text: &str, count: usize) -> Result<Vec<Value>> {
        wait_for(text, Duration::from_secs(20), || {
            let said =
                self.device.sekisho("--json recordings --text").ok()?.arg(text).go().ok()?.ok().ok()?;
            let answer: Value = serde_json::from_str(&said.text()).ok()?;
            let found = answer["recordings"].as_array()?.clone();
            (found.len() == count).then_some(found)
        })
    }

    fn recorded(&self, parts: &[&str]) -> Result<Value> {
        self.node.event(&parts.join(", "), |event| {
            let text = event.to_string();
            parts.iter().all(|part| text.contains(part))
        })
    }

    fn end(self) -> Result<()> {
        self.node.stop()?;
        fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

fn id(recording: &Value) -> Result<String> {
    Ok(recording["session"].as_str().context("no session")?.to_owned())
}

fn sum(path: &std::path::Path) -> Result<String> {
    let said = run("sha256sum").arg(path).go()?.ok()?.text();
    Ok(said.split(' ').next().context("no sum")?.to_owned())
}

/// A shell with a terminal: recorded, sealed, found by its text, played in a terminal, as text, as a
/// page, as a file. Then the broker is killed in the middle of another, and what was seen is there.
#[test]
fn a_terminal_is_seen_again_also_after_the_broker_was_killed() -> Result<()> {
    let theatre = Theatre::new("recordings")?;
    let typed = "stty size; printf '\\033]0;title\\007\\033]52;c;ZXZpbA==\\007'; echo \"seen-$((40+2))\"; sleep 4; exit 5\n";
    let ran = theatre.device.ssh("stage", "-tt").stdin(typed).go()?;
    ensure!(ran.code() == 5, "{ran:?}");
    ensure!(
        ran.text().contains("What this terminal shows is recorded") || ran.complaint().contains("recorded"),
        "{ran:?}"
    );
    let recording = theatre.found("seen-42", 1)?.remove(0);
    let session = id(&recording)?;
    let sealed = theatre.recorded(&["session_recorded", &session, "\"outcome\":\"whole\""])?;
    let hash = sealed["unmapped"]["sha256"].as_str().context("no hash")?.to_owned();

    let text = theatre.sekisho(&format!("play {session} --text"))?;
    ensure!(text.contains("seen-42") && !text.contains('\u{1b}'), "{text:?}");
    let (cast, page) = (theatre.dir.join("s.cast"), theatre.dir.join("s.html"));
    theatre.device.sekisho(&format!("play {session} --cast"))?.arg(&cast).go()?.ok()?;
    ensure!(sum(&cast)? == hash, "another recording than the log has sealed");
    theatre.device.sekisho(&format!("play {session} --idle 1 --out"))?.arg(&page).go()?.ok()?;
    let page = fs::read_to_string(&page)?;
    ensure!(page.contains(&hash) && page.contains("Content-Security-Policy"), "no page");
    // In a terminal: four seconds of nothing are played in less, and q ends it.
    let line = format!(
        "{} --home {} play {session} --idle 0.2 --speed 4",
        binary("sekisho")?.display(),
        theatre.device.home.display()
    );
    let mut player = Command::new("script")
        .args(["-q", "-c", &line, "/dev/null"])
        .env("SEKISHO_LANG", "en")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let shown = read_until(&mut player, "seen-42")?;
    player.stdin.as_mut().context("no stdin")?.write_all(b"\x1b[Dq")?;
    let ended = wait_for("the player ends", Duration::from_secs(10), || player.try_wait().ok().flatten())?;
    ensure!(ended.success(), "{ended}");
    // The line that was typed is there, as letters; what it wrote is not.
    ensure!(!shown.contains("\u{1b}]") && !shown.contains('\u{7}'), "a command came through: {shown:?}");
    theatre.recorded(&["recording_played", &session, &hash, "u:admin"])?;

    // The broker is killed while a terminal goes on.
    let mut ticking =
        theatre.device.ssh("stage", "-tt").arg("while :; do echo tick-$((6*7)); sleep 0.1; done");
    ticking = ticking.within(Duration::from_secs(60));
    let mut client = ticking.command().spawn()?;
    wait_for("something is on the disk", Duration::from_secs(20), || {
        let mut open = fs::read_dir(theatre.folder()).ok()?.flatten();
        open.find(|file| {
            file.path().extension().is_some_and(|e| e == "open")
                && file.metadata().is_ok_and(|m| m.len() > 1_000)
        })
    })?;
    let broker = theatre.node.process("sekisho-broker")?;
    kill(broker, Signal::SIGKILL)?;
    wait_for("the broker is started again", Duration::from_secs(40), || {
        theatre.node.process("sekisho-broker").ok().filter(|again| *again != broker)
    })?;
    client.kill().ok();
    client.wait()?;
    let left = theatre.found("tick-42", 1)?.remove(0);
    ensure!(left["outcome"] == "interrupted", "{left}");
    let session = id(&left)?;
    let text = theatre.sekisho(&format!("play {session} --text"))?;
    ensure!(text.contains("tick-42"), "{text}");
    theatre.recorded(&["session_recorded", &session, "interrupted"])?;
    theatre.end()
}

/// In strict mode a session ends when the disk of recordings is full, and is told why.
#[test]
fn needs_root_a_full_disk_of_recordings_ends_a_strict_session() -> Result<()> {
    let theatre = Theatre::new("recordings-full")?;
    let folder = theatre.folder();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&folder)?);
    let options = format!("size=256k,mode=0700,uid={owner}");
    mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?;
    let told = (|| {
        // What is left of a full disk may hold a few words more: only a flood is sure to find it full.
        let flood = "head -c 4000000 /dev/urandom | base64";
        let ran = theatre.device.ssh("stage", "-tt").arg(format!("{flood}; sleep 30")).go()?;
        ensure!(ran.code() == 69 || ran.code() == 255, "{}", ran.code());
        let said = format!("{}{}", ran.text(), ran.complaint());
        ensure!(
            said.contains("Sessions of this study are recorded"),
            "{:?}",
            &said[said.len().saturating_sub(500)..]
        );
        theatre.recorded(&["recording_degraded", "strict"])?;
        theatre.recorded(&["session_ended", "recording-failed"])?;
        // Where the study says so, it goes on, and that is on record.
        theatre.sekisho("study recording stage --mode best-effort")?;
        let ran = theatre.device.ssh("stage", "-tt").arg(format!("{flood}; echo on-$((1+1))")).go()?;
        let said = ran.text();
        ensure!(said.contains("on-2"), "{:?}", &said[said.len().saturating_sub(500)..]);
        theatre.recorded(&["recording_degraded", "best-effort"])?;
        Ok(())
    })();
    umount2(&folder, MntFlags::MNT_DETACH)?;
    told?;
    theatre.end()
}

/// What a program writes until `text` is among it.
fn read_until(child: &mut Child, text: &str) -> Result<String> {
    let out = child.stdout.as_mut().context("no stdout")?;
    let (mut all, mut piece) = (String::new(), [0; 4096]);
    while !all.contains(text) {
        let n = out.read(&mut piece)?;
        ensure!(n > 0, "it ended before {text}: {all:?}");
        all += &String::from_utf8_lossy(&piece[..n]);
    }
    Ok(all)
}
