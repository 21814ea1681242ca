//! The story with everything it asserts, and what happens to a node whose processes are killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tests::command::{run, wait_for};
use tests::node::{Device, Node, Ports, binary, left_behind};
use tests::story::Story;

#[path = "it/approvals.rs"]
mod approvals;
#[path = "it/crowd.rs"]
mod crowd;
#[path = "it/door.rs"]
mod door;
#[path = "it/kept.rs"]
mod kept;
#[path = "it/page.rs"]
mod page;
#[path = "it/recordings.rs"]
mod recordings;
#[path = "it/sessions.rs"]
mod sessions;
#[path = "it/theatre.rs"]
mod theatre;
#[path = "it/vitals.rs"]
mod vitals;
#[path = "it/workspaces.rs"]
mod workspaces;

fn folder(name: &str) -> Result<std::path::PathBuf> {
    let dir = std::env::temp_dir().join(format!("sekisho-test-{name}"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

#[test]
fn the_story_holds() -> Result<()> {
    let dir = folder("story")?;
    let mut story = Story::new(&dir, &tests::data())?;
    story.tell()?;
    story.end()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Every kind of decoy on a real node: from the event to the end of the ssh client.
#[test]
fn needs_root_a_touched_decoy_ends_the_session_within_a_second() -> Result<()> {
    let dir = folder("decoy")?;
    for mut took in tests::watched::touch_decoys(&dir, &tests::data().join("NA12878.chr22.tiny.bam"))? {
        let millis = &mut took.millis;
        millis.sort_unstable();
        let (median, longest) = (millis[millis.len() / 2], millis[millis.len() - 1]);
        println!("{}: median {median} ms, longest {longest} ms of {}", took.what, millis.len());
        ensure!(longest < 1000, "{}: it took {millis:?} ms", took.what);
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Kills each process in turn, and the whole node, with SIGKILL: nothing acknowledged is lost, and
/// the node goes on.
#[test]
fn a_killed_node_goes_on_where_it_was() -> Result<()> {
    let dir = folder("killed")?;
    let ports = Ports::free()?;
    let mut node = Node::up(&dir.join("node"), ports)?;
    let admin = Device::new(&dir.join("admin"), ports);
    let token = std::fs::read_to_string(dir.join("node/broker/admin.token"))?;
    admin.enrol("admin", token.trim())?;
    let mut people = 0;
    let mut enrol = |admin: &Device| -> Result<()> {
        let name = format!("p{people}");
        wait_for("the door opens again", Duration::from_secs(40), || {
            let made = admin.sekisho(&format!("person create {name}")).ok()?.go().ok()?;
            // A record that was made before the answer was lost is there: that is fine too.
            (made.status.success() || made.complaint().contains("exists")).then_some(())
        })?;
        people += 1;
        Ok(())
    };
    enrol(&admin)?;
    let mut before = node.events()?;
    for process in ["sekisho-signer", "sekisho-broker", "sekisho-agent", "sekisho-broker"] {
        let pid = node.process(process)?;
        kill(pid, Signal::SIGKILL)?;
        wait_for("it is started again", Duration::from_secs(40), || {
            node.process(process).ok().filter(|again| *again != pid)
        })
        .with_context(|| format!("{process}\n{}", node.logs()))?;
        enrol(&admin).with_context(|| node.logs())?;
        before = grown(&before, &node)?;
    }
    node.kill()?;
    let still =
        || left_behind(&dir).map(|left| left.into_iter().filter(|l| l.starts_with("process")).count());
    wait_for("its processes follow it", Duration::from_secs(20), || (still().ok()? == 0).then_some(()))?;
    node = Node::up(&dir.join("node"), ports)?;
    enrol(&admin)?;
    grown(&before, &node)?;
    let verified = run(binary("sekisho")?).args("audit verify --dir").arg(node.audit()).go()?.ok()?;
    ensure!(!verified.text().is_empty(), "verify says nothing");
    let listed: Value = serde_json::from_str(&admin.sekisho("--json person list")?.go()?.ok()?.text())?;
    for person in 0..people {
        ensure!(listed.to_string().contains(&format!("u:p{person}")), "u:p{person} is lost");
    }
    node.stop()?;
    let left = left_behind(&dir)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// What was in the log is still there, unchanged, and the log went on.
fn grown(before: &[Value], node: &Node) -> Result<Vec<Value>> {
    let after = node.events()?;
    ensure!(after.len() >= before.len(), "{} records were lost", before.len() - after.len());
    ensure!(after[..before.len()] == *before, "an earlier record changed");
    Ok(after)
}
