//! Those who watch over sessions, with the stock client and a terminal on both sides.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::command::wait_for;
use tests::node::Device;

use super::theatre::{Theatre, code, in_terminal, type_into, until};

/// The only session that goes on, once it `fits`, as somebody sees it.
fn the_session(guard: &Device, fits: impl Fn(&Value) -> bool) -> Result<String> {
    wait_for("a session", Duration::from_secs(20), || {
        let said = guard.sekisho("--json sessions").ok()?.go().ok()?.ok().ok()?;
        let answer: Value = serde_json::from_str(&said.text()).ok()?;
        let one = answer["sessions"].as_array()?.iter().find(|one| fits(one))?.clone();
        one["session"].as_str().map(str::to_owned)
    })
}

#[test]
fn a_session_is_watched_joined_spoken_to_and_ended() -> Result<()> {
    let house = Theatre::new("watch")?;
    let guard = house.person("carol", "moderator")?;
    let mut working = house.device.ssh("stage", "-tt").command().spawn()?;
    type_into(&mut working, "PS1='> '; echo ready-$((40+2))\n")?;
    until(&mut working, "ready-42")?;
    let session = the_session(&guard, |one| one["terminal"] == true)?;

    let mut watching = in_terminal(&guard, &format!("sessions watch {session}"))?;
    until(&mut watching, "ready-42")?;
    type_into(&mut working, "echo seen-$((50+1))\n")?;
    until(&mut watching, "seen-51")?;
    type_into(&mut watching, "q")?;
    ensure!(code(&mut watching)? == Some(0), "the watcher did not leave well");
    house.recorded(&["session_watched", &session, "u:carol"])?;

    let mut joining = in_terminal(&guard, &format!("sessions join {session}"))?;
    until(&mut joining, "is asked")?;
    type_into(&mut working, "y")?;
    until(&mut joining, "seen-51")?;
    type_into(&mut joining, "echo by-carol-$((60+1))\n")?;
    until(&mut working, "by-carol-61")?;
    type_into(&mut joining, "\u{1d}")?;
    ensure!(code(&mut joining)? == Some(0), "whoever joined did not leave well");
    house.recorded(&["session_joined", &session, "u:carol"])?;

    guard.sekisho(&format!("sessions message {session} hello"))?.go()?.ok()?;
    house.recorded(&["session_message", &session, "hello"])?;
    guard.sekisho(&format!("sessions kill {session} --reason late"))?.go()?.refused("role")?;
    house.device.sekisho(&format!("sessions kill {session} --reason late"))?.go()?.ok()?;
    ensure!(code(&mut working)? == Some(77), "it was not ended");
    house.recorded(&["session_killed", &session, "late"])?;

    // A session that takes a second person starts with one, and ends with them.
    house.device.sekisho("study supervision stage --moderated yes")?.go()?.ok()?;
    let mut working =
        house.device.ssh("stage", "-tt").arg("echo started-$((70+1)); sleep 60").command().spawn()?;
    let session = the_session(&guard, |one| one["waiting"] == true)?;
    let mut watching = in_terminal(&guard, &format!("sessions watch {session}"))?;
    until(&mut working, "started-71")?;
    type_into(&mut watching, "q")?;
    ensure!(code(&mut watching)? == Some(0), "the second person did not leave well");
    ensure!(code(&mut working)? == Some(77), "it went on alone");
    house.recorded(&["moderator_left", &session])?;
    house.end()
}
