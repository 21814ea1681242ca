//! What people and programs are told.

use policy::Denial;

use crate::world::*;

#[test]
fn codes_are_stable_and_sentences_say_what_to_do() {
    let grant = || model::GrantId::from_name("g1").unwrap();
    let all = [
        (Denial::UnknownPerson, "unknown-person", "ask"),
        (Denial::PersonLocked, "person-locked", "contact"),
        (Denial::NotAMember { study: study("brca") }, "not-a-member", "ask"),
        (Denial::StudyClosed { study: study("brca") }, "study-closed", "ask"),
        (Denial::NoGrant { dataset: dataset("wgs") }, "no-grant", "apply"),
        (Denial::GrantExpired { grant: grant(), at: at(200) }, "grant-expired", "apply"),
        (Denial::GrantNotYet { grant: grant(), from: at(300) }, "grant-not-yet", "come back"),
        (Denial::PurposeNotOfStudy { asked: purpose("POA") }, "purpose-not-of-study", "name one"),
        (
            Denial::PurposeNotAllowed {
                dataset: dataset("wgs"),
                asked: purpose("POA"),
                allowed: conditions(&[&["HMB"], &["DS:MONDO:0004992", "NPU"]]),
            },
            "purpose-not-allowed",
            "choose",
        ),
        (Denial::NeedsReview { codes: vec!["IRB".to_owned()] }, "needs-review", "ask"),
        (Denial::RoleMissing { needed: vec![role("steward"), role("security")] }, "role-missing", "ask"),
        (
            Denial::ChannelRefused { study: study("brca"), channel: policy::Channel::Export },
            "channel-refused",
            "airlock",
        ),
        (Denial::ChannelNotCertified { channel: policy::Channel::Terminal }, "channel-not-certified", "ask"),
        (Denial::ChannelNotOffered { channel: policy::Channel::X11 }, "channel-not-offered", "-L"),
        (Denial::ForwardElsewhere, "forward-elsewhere", "name localhost"),
        (
            Denial::OverLimit {
                study: study("brca"),
                limit: policy::Limit::Sessions,
                most: 10,
                have: 10,
                workspace: model::WorkspaceName::default(),
            },
            "over-limit",
            "end one",
        ),
        (
            Denial::WorkspaceHeld {
                study: study("brca"),
                workspace: model::WorkspaceName::default(),
                by: person("lead"),
                reason: "runs wild".to_owned(),
            },
            "workspace-held",
            "sekisho ws resume",
        ),
        (Denial::Malformed("reading takes a dataset"), "malformed", "correct"),
        (Denial::Error("table p_17 burst".to_owned()), "error", "tell"),
    ];
    for (denial, code, advice) in &all {
        let sentence = denial.to_string();
        assert_eq!(denial.code(), *code);
        assert!(sentence.contains(advice), "{sentence}");
        assert!(!sentence.contains("p_17"), "inner workings are shown: {sentence}");
    }
    assert_eq!(
        all[8].0.to_string(),
        "ds:wgs may not be used for POA, only under HMB or DS:MONDO:0004992 with NPU; choose another dataset or purpose"
    );
    assert_eq!(
        all[10].0.to_string(),
        "this takes the role role:steward or role:security, which you do not have; ask someone who has it"
    );
}
