//! Who may see recordings.

use policy::{Action, Facts, PolicySet, RecordingRule, Request, StudyFacts, decide};

use crate::world::*;

fn play(who: &str, role_there: &str, roles: &[&str], lead: bool, until: i64) -> &'static str {
    let set = PolicySet::build(1, &[member("alice", "brca", role_there)], &[]).unwrap();
    let rule = RecordingRule { lead, ..RecordingRule::default() };
    let study = facts().study.map(|study| StudyFacts { recording: rule, until: at(until), ..study });
    let request = Request { action: Action::PlayRecording, ..open(who, "brca") };
    let facts = Facts { study, programme_roles: roles.iter().map(|r| role(r)).collect(), ..facts() };
    code(&decide(&request, &set, &facts))
}

#[test]
fn security_sees_recordings_and_a_lead_where_the_study_says_so() {
    assert_eq!(play("carol", "lead", &["security"], false, 1_000), "permit");
    assert_eq!(play("alice", "lead", &[], true, 1_000), "permit");
    assert_eq!(play("alice", "lead", &[], false, 1_000), "role-missing");
    assert_eq!(play("alice", "researcher", &[], true, 1_000), "role-missing");
    assert_eq!(play("bob", "lead", &["steward", "operator"], true, 1_000), "role-missing");
    // A study that is over is seen by security alone.
    assert_eq!(play("alice", "lead", &[], true, 100), "role-missing");
    assert_eq!(play("alice", "lead", &["security"], true, 100), "permit");
}
