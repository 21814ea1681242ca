//! A decoy touched in a live session: how long until the session is over.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use model::Clock;
use model::ambient::SystemClock;
use serde_json::Value;

use crate::command::wait_for;
use crate::node::{Device, Node};

/// How often it is tried.
const TRIES: usize = 10;

/// A node on which alice works in a study whose dataset has an ordinary file and a decoy. Touches
/// the decoy again and again, and returns from event to the end of the client, in milliseconds.
pub fn touch_decoys(dir: &Path, file: &Path) -> Result<Vec<u64>> {
    let (node, admin) = Node::with_a_study(dir, "brca", &[file])?;
    admin.sekisho("put --dataset tiny --name celebrity.bam")?.arg(file).go()?.ok()?;
    let listed: Value = serde_json::from_str(&admin.sekisho("--json object list")?.go()?.ok()?.text())?;
    let objects = listed.as_array().cloned().or_else(|| listed["objects"].as_array().cloned());
    let objects = objects.context("object list is no list")?;
    let decoy = objects.iter().find(|object| object["name"] == "celebrity.bam").context("no such object")?;
    let object = decoy["id"].as_str().context("no id")?;

    let alice = Device::new(&dir.join("alice"), node.ports);
    admin.sekisho("person create alice")?.go()?.ok()?;
    let made: Value = serde_json::from_str(&admin.sekisho("--json person token alice")?.go()?.ok()?.text())?;
    alice.enrol("alice", made["token"].as_str().context("no token")?)?;
    admin.sekisho("member add brca alice")?.go()?.ok()?;

    // Before it is a decoy, it is a file like any other.
    let name = file.file_name().context("no name")?.to_string_lossy().into_owned();
    alice.ssh("brca", "").arg("head -c 100 /data/tiny/celebrity.bam | wc -c").go()?.ok()?;
    // What was opened then is reported by the time it is a decoy.
    std::thread::sleep(Duration::from_secs(1));
    alice.sekisho("decoy list")?.go()?.refused("")?;
    admin.sekisho(&format!("decoy add object {object} --note celebrity"))?.go()?.ok()?;
    let added = node.event("the decoy is recorded", |event| event["unmapped"]["record"] == "decoy")?;
    ensure!(!added.to_string().contains(object), "the log tells what the decoy is: {added}");

    let mut took = Vec::new();
    for _ in 0..TRIES {
        let before = node.events()?.len();
        let script = format!(
            "head -c 100 /data/tiny/{name} > /dev/null; echo works; sleep 1; head -c 1 /data/tiny/celebrity.bam > /dev/null; sleep 60"
        );
        let mut command = alice.ssh("brca", "").arg(script).command();
        let mut running = command.spawn()?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = running.try_wait()? {
                break status;
            }
            ensure!(began.elapsed() < Duration::from_secs(40), "the session goes on:\n{}", node.logs());
            std::thread::sleep(Duration::from_millis(1));
        };
        let ended = SystemClock.now().as_millis();
        let mut words = String::new();
        std::io::Read::read_to_string(&mut running.stderr.take().context("no stderr")?, &mut words)?;
        ensure!(!status.success() && words.contains("security watch"), "{status}: {words}\n{}", node.logs());
        ensure!(
            !words.contains("decoy") && !words.contains("finding"),
            "the person learns too much: {words}"
        );
        node.event("the lock is recorded", |event| {
            event["unmapped"]["kind"] == "person_locked"
                && event["metadata"]["sequence"].as_u64() > Some(before as u64)
        })?;
        let events = node.events()?;
        let finding = events[before..]
            .iter()
            .find(|event| event["unmapped"]["name"] == "decoy_touched")
            .context("no finding")?;
        ensure!(finding["unmapped"]["reaction"] == "lock-person", "{finding}");
        ensure!(finding["actor"]["user"]["uid"] == "u:alice", "{finding}");
        let trigger = finding["unmapped"]["evidence"][0].as_u64().context("no evidence")?;
        let touched = &events[usize::try_from(trigger)?];
        ensure!(touched["unmapped"]["object"] == object, "{touched}");
        let at = touched["time"].as_u64().context("no time")?;
        took.push(u64::try_from(ended)?.saturating_sub(at));

        // Locked, she does not come in; unlocked, she does.
        alice.ssh("brca", "").arg("true").go()?.refused("")?;
        admin.sekisho("person unlock alice")?.go()?.ok()?;
        wait_for("she is let in again", Duration::from_secs(10), || {
            alice.ssh("brca", "").arg("true").go().ok()?.ok().ok()
        })?;
    }
    let kinds: Vec<String> = node
        .events()?
        .iter()
        .filter(|event| {
            event["unmapped"]["kind"] == "finding" && event["unmapped"]["name"] != "decoy_touched"
        })
        .map(|event| event["unmapped"]["title"].to_string())
        .collect();
    println!("other findings: {kinds:?}");
    node.stop()?;
    Ok(took)
}
