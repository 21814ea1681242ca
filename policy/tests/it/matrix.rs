//! The authorisation matrix, whole, as a file: a change of policy is a change of lines.

use std::fmt::Write as _;

use policy::{Action, AdminAction, Decision, Facts, PolicySet, authorisation_matrix, decide};

use crate::world::*;

#[test]
fn the_matrix_is_the_one_on_file() {
    let mut text = String::from("# resource, action, scope, role, answer; written by this test\n");
    for row in authorisation_matrix().unwrap() {
        let answer = if row.allowed { "allow" } else { "-" };
        writeln!(
            text,
            "{:<12} {:<25} {:<10} {:<16} {answer}",
            row.resource,
            row.action.name(),
            row.scope,
            row.role.as_str(),
        )
        .unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/authorisation.out");
    if std::env::var_os("SEKISHO_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let on_file = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        on_file == text,
        "the matrix changed; if it was meant to, run again with SEKISHO_BLESS=1\n{text}"
    );
}

#[test]
fn every_administrative_action_takes_its_role() {
    let set = PolicySet::build(1, &[], &[]).unwrap();
    for row in authorisation_matrix().unwrap().iter().filter(|row| row.scope == "programme") {
        let dataset = (row.action != Action::OpenSession).then(|| dataset("wgs"));
        let request = policy::Request { action: row.action, dataset, ..read("alice", "brca", "wgs") };
        let facts = Facts { programme_roles: vec![row.role.clone()], ..facts() };
        let decision = decide(&request, &set, &facts);
        match row.action {
            Action::OpenSession | Action::ManageWorkspace | Action::Channel(_) | Action::ReadDataset => {
                assert_eq!(code(&decision), "not-a-member")
            }
            Action::IssueCertificate => assert_eq!(code(&decision), "permit"),
            _ if row.allowed => assert_eq!(code(&decision), "permit", "{row:?}"),
            _ => assert_eq!(code(&decision), "role-missing", "{row:?}"),
        }
    }
}

#[test]
fn roles_of_a_study_count_for_nothing_in_the_programme() {
    let set = PolicySet::build(1, &[member("alice", "brca", "steward")], &[]).unwrap();
    let action = Action::Administer(AdminAction::CreateStudy);
    let request = policy::Request { action, ..read("alice", "brca", "wgs") };
    assert_eq!(code(&decide(&request, &set, &facts())), "role-missing");
    // Nor the other way round.
    let facts = Facts { programme_roles: vec![role("researcher"), role("lead")], ..facts() };
    assert_eq!(code(&decide(&open("alice", "brca"), &set, &facts)), "role-missing");
}

#[test]
fn the_basis_names_the_role_that_counted() {
    let set = PolicySet::build(1, &[], &[]).unwrap();
    let action = Action::Administer(AdminAction::Revoke);
    let request = policy::Request { action, study: None, dataset: None, ..read("alice", "brca", "wgs") };
    let facts =
        Facts { programme_roles: vec![role("operator"), role("security"), role("security")], ..facts() };
    let Decision::Permit(basis) = decide(&request, &set, &facts) else { panic!() };
    let rules: Vec<&str> = basis.rules.iter().map(policy::RuleId::as_str).collect();
    assert_eq!(rules, ["programme/role:security/revoke"]);
}
