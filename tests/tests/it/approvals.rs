//! A second officer, at the command line of a real node.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::command::wait_for;

use super::theatre::Theatre;

/// What takes a second officer is asked for, approved by somebody else, done; the log names both.
#[test]
fn a_study_is_recorded_no_more_only_when_two_say_so() -> Result<()> {
    let theatre = Theatre::new("approvals")?;
    let guard = theatre.person("carol", "security")?;
    let worker = theatre.person("dave", "moderator")?;
    let config = theatre.node.dir.join("broker/config.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text + "\n[approvals]\nmatters = [\"record-less\"]\n")?;
    theatre.kill_broker()?;
    wait_for("the door opens again", Duration::from_secs(40), || theatre.json("approvals list").ok())?;

    let off = || theatre.device.sekisho("study recording stage --mode off")?.go();
    let refused = off()?.refused("second officer")?;
    ensure!(refused.code() == 77, "{refused:?}");
    let listed = theatre.json("approvals list")?;
    let request = &listed["approvals"][0];
    let id = request["id"].as_str().unwrap_or_default().to_owned();
    ensure!(refused.complaint().contains(&id) && request["what"] == "study:stage recording off", "{listed}");
    ensure!(listed["matters"] == serde_json::json!(["record-less", "officers"]), "{listed}");
    ensure!(theatre.sekisho("approvals list")?.contains(&id), "it is not in the table");
    theatre.device.sekisho(&format!("approvals approve {id}"))?.go()?.refused("asked for this yourself")?;
    worker.sekisho(&format!("approvals approve {id}"))?.go()?.refused("role")?;
    off()?.refused("second officer")?;

    let said = guard.sekisho(&format!("approvals approve {id}"))?.go()?.ok()?.text();
    ensure!(said.contains("u:admin") && said.contains("recording off"), "{said}");
    off()?.ok()?;
    theatre.recorded(&[
        "record_changed",
        "study:stage recording off",
        "\"second\":\"u:carol\"",
        "u:admin",
    ])?;
    theatre.recorded(&["approval_decided", &id, "u:carol", "u:admin"])?;
    ensure!(theatre.sekisho("approvals list")?.contains("nothing waits"), "something waits");
    ensure!(theatre.sekisho("approvals list --all")?.contains("used"), "it is not kept");

    // To record more takes nobody; what one asked for oneself one takes back.
    theatre.sekisho("study recording stage --mode strict")?;
    off()?.refused("second officer")?;
    let id = theatre.json("approvals list")?["approvals"][0]["id"].as_str().unwrap_or_default().to_owned();
    theatre.sekisho(&format!("approvals refuse {id} --reason mistake"))?;
    theatre.recorded(&["approval_decided", &id, "mistake"])?;
    guard.sekisho(&format!("approvals approve {id}"))?.go()?.refused("refused already")?;
    theatre.end()
}
