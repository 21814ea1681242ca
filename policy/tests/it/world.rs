//! Short names for the things that tests speak of.

use model::{DatasetId, GrantId, PersonId, RoleId, StudyId, Timestamp};
use policy::duo::{ConditionSet, Purpose};
use policy::{
    Action, CertificateRules, ChannelRules, Decision, Facts, GrantRule, Grantee, Membership, Request,
    StudyFacts,
};

pub fn person(name: &str) -> PersonId {
    PersonId::from_name(name).unwrap()
}

pub fn role(name: &str) -> RoleId {
    RoleId::from_name(name).unwrap()
}

pub fn study(name: &str) -> StudyId {
    StudyId::from_name(name).unwrap()
}

pub fn dataset(name: &str) -> DatasetId {
    DatasetId::from_name(name).unwrap()
}

pub fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

pub fn member(who: &str, of: &str, as_role: &str) -> Membership {
    Membership { person: person(who), study: study(of), role: role(as_role) }
}

/// A grant from second 100 to second 200.
pub fn grant(id: &str, grantee: Grantee, of: &str, on: &str) -> GrantRule {
    GrantRule {
        grant: GrantId::from_name(id).unwrap(),
        grantee,
        study: study(of),
        dataset: dataset(on),
        not_before: at(100),
        not_after: at(200),
    }
}

pub fn researchers() -> Grantee {
    Grantee::Role(role("researcher"))
}

pub fn conditions(codes: &[&[&str]]) -> Vec<ConditionSet> {
    codes.iter().map(|set| ConditionSet::parse(set).unwrap()).collect()
}

pub fn purpose(text: &str) -> Purpose {
    text.parse().unwrap()
}

/// Facts under which nothing but rules and grants can stand in the way.
pub fn facts() -> Facts {
    Facts {
        person: policy::Standing::Active,
        programme_roles: Vec::new(),
        study: Some(StudyFacts {
            active: true,
            until: at(1_000),
            purposes: vec![purpose("HMB")],
            channels: ChannelRules::default(),
            recording: policy::RecordingRule::default(),
            supervision: policy::SupervisionRule::default(),
        }),
        conditions: conditions(&[&["GRU"]]),
        certificate: CertificateRules {
            terminal: true,
            port_forwarding: true,
            ..CertificateRules::default()
        },
    }
}

/// `who` reads `on` within `of` at second 150.
pub fn read(who: &str, of: &str, on: &str) -> Request {
    Request {
        person: person(who),
        study: Some(study(of)),
        dataset: Some(dataset(on)),
        action: Action::ReadDataset,
        purpose: None,
        now: at(150),
    }
}

/// `who` opens a session in `of` at second 150.
pub fn open(who: &str, of: &str) -> Request {
    Request { dataset: None, action: Action::OpenSession, ..read(who, of, "unused") }
}

/// `permit`, or the code of the denial.
pub fn code(decision: &Decision) -> &'static str {
    match decision {
        Decision::Permit(_) => "permit",
        Decision::Deny(denial) | Decision::Manual(denial) => denial.code(),
    }
}
