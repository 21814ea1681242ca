//! Those who watch over sessions, with the stock client and a terminal on both sides.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::command::wait_for;
use tests::node::{Device, Node, binary};

use super::folder;

/// `sekisho` with these words in a terminal of its own.
fn in_terminal(device: &Device, words: &str) -> Result<Child> {
    let line = format!("{} --home {} {words}", binary("sekisho")?.display(), device.home.display());
    Ok(Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("SEKISHO_LANG", "en")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?)
}

fn until(child: &mut Child, text: &str) -> Result<String> {
    let out = child.stdout.as_mut().context("no stdout")?;
    let (mut all, mut piece) = (String::new(), [0; 4096]);
    while !all.contains(text) {
        let n = out.read(&mut piece)?;
        ensure!(n > 0, "it ended before {text}: {all:?}");
        all += &String::from_utf8_lossy(&piece[..n]);
    }
    Ok(all)
}

fn type_into(child: &mut Child, text: &str) -> Result<()> {
    Ok(child.stdin.as_mut().context("no stdin")?.write_all(text.as_bytes())?)
}

fn code(child: &mut Child) -> Result<Option<i32>> {
    let ended = wait_for("it ends", Duration::from_secs(20), || child.try_wait().ok().flatten())?;
    Ok(ended.code())
}

struct House {
    dir: PathBuf,
    node: Node,
    worker: Device,
    guard: Device,
}

impl House {
    fn new(name: &str) -> Result<House> {
        let dir = folder(name)?;
        let (node, worker) = Node::with_a_study(&dir, "stage", &[&tests::data().join("q.fa")])?;
        worker.sekisho("person create carol --role moderator")?.go()?.ok()?;
        let token = worker.sekisho("person token carol")?.go()?.ok()?.text();
        let guard = Device::new(&dir.join("carol"), node.ports);
        guard.enrol("carol", token.trim())?;
        Ok(House { dir, node, worker, guard })
    }

    /// The only session that goes on, once `fits`.
    fn session(&self, fits: impl Fn(&Value) -> bool) -> Result<String> {
        wait_for("a session", Duration::from_secs(20), || {
            let said = self.guard.sekisho("--json sessions").ok()?.go().ok()?.ok().ok()?;
            let answer: Value = serde_json::from_str(&said.text()).ok()?;
            let one = answer["sessions"].as_array()?.iter().find(|one| fits(one))?.clone();
            one["session"].as_str().map(str::to_owned)
        })
    }

    fn recorded(&self, parts: &[&str]) -> Result<Value> {
        self.node.event(&parts.join(", "), |event| {
            let text = event.to_string();
            parts.iter().all(|part| text.contains(part))
        })
    }
}

#[test]
fn a_session_is_watched_joined_spoken_to_and_ended() -> Result<()> {
    let house = House::new("watch")?;
    let mut working = house.worker.ssh("stage", "-tt").command().spawn()?;
    type_into(&mut working, "PS1='> '; echo ready-$((40+2))\n")?;
    until(&mut working, "ready-42")?;
    let session = house.session(|one| one["terminal"] == true)?;

    let mut watching = in_terminal(&house.guard, &format!("sessions watch {session}"))?;
    until(&mut watching, "ready-42")?;
    type_into(&mut working, "echo seen-$((50+1))\n")?;
    until(&mut watching, "seen-51")?;
    type_into(&mut watching, "q")?;
    ensure!(code(&mut watching)? == Some(0), "the watcher did not leave well");
    house.recorded(&["session_watched", &session, "u:carol"])?;

    let mut joining = in_terminal(&house.guard, &format!("sessions join {session}"))?;
    until(&mut joining, "is asked")?;
    type_into(&mut working, "y")?;
    until(&mut joining, "seen-51")?;
    type_into(&mut joining, "echo by-carol-$((60+1))\n")?;
    until(&mut working, "by-carol-61")?;
    type_into(&mut joining, "\u{1d}")?;
    ensure!(code(&mut joining)? == Some(0), "whoever joined did not leave well");
    house.recorded(&["session_joined", &session, "u:carol"])?;

    house.guard.sekisho(&format!("sessions message {session} hello"))?.go()?.ok()?;
    house.recorded(&["session_message", &session, "hello"])?;
    house.guard.sekisho(&format!("sessions kill {session} --reason late"))?.go()?.refused("role")?;
    house.worker.sekisho(&format!("sessions kill {session} --reason late"))?.go()?.ok()?;
    ensure!(code(&mut working)? == Some(77), "it was not ended");
    house.recorded(&["session_killed", &session, "late"])?;

    // A session that takes a second person starts with one, and ends with them.
    house.worker.sekisho("study supervision stage --moderated yes")?.go()?.ok()?;
    let mut working =
        house.worker.ssh("stage", "-tt").arg("echo started-$((70+1)); sleep 60").command().spawn()?;
    let session = house.session(|one| one["waiting"] == true)?;
    let mut watching = in_terminal(&house.guard, &format!("sessions watch {session}"))?;
    until(&mut working, "started-71")?;
    type_into(&mut watching, "q")?;
    ensure!(code(&mut watching)? == Some(0), "the second person did not leave well");
    ensure!(code(&mut working)? == Some(77), "it went on alone");
    house.recorded(&["moderator_left", &session])?;
    house.node.stop()?;
    std::fs::remove_dir_all(&house.dir)?;
    Ok(())
}
