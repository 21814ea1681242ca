//! Each way in which a rule engine is known to fail open, tried.

use model::Timestamp;
use policy::{Action, Basis, Decision, Denial, Facts, Grantee, Obligation, PolicyError, PolicySet, decide};

use crate::world::*;

fn set() -> PolicySet {
    PolicySet::build(
        1,
        &[member("alice", "brca", "researcher")],
        &[grant("g1", researchers(), "brca", "wgs")],
    )
    .unwrap()
}

fn decide_read(set: &PolicySet, who: &str, of: &str, on: &str) -> &'static str {
    code(&decide(&read(who, of, on), set, &facts()))
}

#[test]
fn a_permit_names_what_it_rests_on_and_when_it_ends() {
    let Decision::Permit(basis) = decide(&read("alice", "brca", "wgs"), &set(), &facts()) else {
        panic!("not permitted")
    };
    let rules: Vec<&str> = basis.rules.iter().map(policy::RuleId::as_str).collect();
    assert_eq!(rules, ["grant:g1", "study/role:researcher/read-dataset"]);
    assert_eq!(basis.grants.len(), 1);
    assert_eq!(basis.obligations, [Obligation::EndBy(at(200))]);
    let Decision::Permit(basis) = decide(&open("alice", "brca"), &set(), &facts()) else {
        panic!("not permitted")
    };
    assert_eq!(basis.until(), at(1_000));
    assert_eq!(Basis::default().until(), Timestamp::MAX);
}

#[test]
fn an_empty_policy_permits_nothing() {
    let empty = PolicySet::build(1, &[], &[]).unwrap();
    assert_eq!(decide_read(&empty, "alice", "brca", "wgs"), "not-a-member");
    assert_eq!(code(&decide(&open("alice", "brca"), &empty, &facts())), "not-a-member");
}

#[test]
fn a_study_without_grants_permits_no_reading() {
    let set = PolicySet::build(1, &[member("alice", "brca", "researcher")], &[]).unwrap();
    assert_eq!(decide_read(&set, "alice", "brca", "wgs"), "no-grant");
    assert_eq!(code(&decide(&open("alice", "brca"), &set, &facts())), "permit");
}

#[test]
fn revocation_takes_effect_in_the_next_set_and_leaves_the_one_before_alone() {
    let before = set();
    assert_eq!(decide_read(&before, "alice", "brca", "wgs"), "permit");
    let members = [member("alice", "brca", "researcher")];
    let after = before.with_study(2, &study("brca"), &members, &[]).unwrap();
    assert_eq!(decide_read(&after, "alice", "brca", "wgs"), "no-grant");
    assert_eq!(decide_read(&before, "alice", "brca", "wgs"), "permit");
    assert_eq!((before.epoch(), after.epoch()), (1, 2));
    let gone = after.with_study(3, &study("brca"), &[], &[]).unwrap();
    assert_eq!(code(&decide(&open("alice", "brca"), &gone, &facts())), "not-a-member");
}

#[test]
fn a_change_of_one_study_leaves_the_others() {
    let both = set()
        .with_study(
            2,
            &study("heart"),
            &[member("bob", "heart", "lead")],
            &[grant("g2", Grantee::Role(role("lead")), "heart", "ecg")],
        )
        .unwrap();
    assert_eq!(decide_read(&both, "alice", "brca", "wgs"), "permit");
    assert_eq!(decide_read(&both, "bob", "heart", "ecg"), "permit");
}

#[test]
fn nothing_leaks_from_study_to_study() {
    let set = PolicySet::build(
        1,
        &[member("alice", "brca", "researcher"), member("bob", "heart", "researcher")],
        &[grant("g1", researchers(), "brca", "wgs"), grant("g2", researchers(), "heart", "ecg")],
    )
    .unwrap();
    assert_eq!(decide_read(&set, "alice", "heart", "ecg"), "not-a-member");
    assert_eq!(decide_read(&set, "alice", "brca", "ecg"), "no-grant");
    assert_eq!(decide_read(&set, "bob", "brca", "wgs"), "not-a-member");
    assert_eq!(decide_read(&set, "alice", "elsewhere", "wgs"), "not-a-member");
}

#[test]
fn a_person_is_never_taken_for_a_role_or_the_other_way_round() {
    // A person whose name is that of a role, and a grant to a person of that name.
    let set = PolicySet::build(
        1,
        &[
            member("researcher", "brca", "observer"),
            member("alice", "brca", "researcher"),
            member("mallory", "brca", "alice"),
        ],
        &[
            grant("g1", researchers(), "brca", "wgs"),
            grant("g2", Grantee::Person(person("researcher")), "brca", "rna"),
            grant("g3", Grantee::Person(person("alice")), "brca", "exome"),
        ],
    )
    .unwrap();
    assert_eq!(decide_read(&set, "researcher", "brca", "wgs"), "role-missing");
    assert_eq!(decide_read(&set, "researcher", "brca", "rna"), "role-missing");
    assert_eq!(decide_read(&set, "alice", "brca", "rna"), "no-grant");
    assert_eq!(decide_read(&set, "mallory", "brca", "exome"), "role-missing");
    assert_eq!(decide_read(&set, "alice", "brca", "exome"), "permit");
    assert!("alice".parse::<Grantee>().is_err() && "study:brca".parse::<Grantee>().is_err());
}

#[test]
fn a_grant_to_someone_who_is_no_member_permits_nothing() {
    let set = PolicySet::build(
        1,
        &[member("alice", "brca", "researcher")],
        &[grant("g1", Grantee::Person(person("mallory")), "brca", "wgs")],
    )
    .unwrap();
    assert_eq!(decide_read(&set, "mallory", "brca", "wgs"), "not-a-member");
    assert_eq!(decide_read(&set, "alice", "brca", "wgs"), "no-grant");
}

#[test]
fn a_window_begins_at_its_first_instant_and_ends_before_its_last() {
    let ask = |millis| {
        let now = Timestamp::from_millis(millis);
        code(&decide(&policy::Request { now, ..read("alice", "brca", "wgs") }, &set(), &facts()))
    };
    assert_eq!(ask(99_999), "grant-not-yet");
    assert_eq!(ask(100_000), "permit");
    assert_eq!(ask(199_999), "permit");
    assert_eq!(ask(200_000), "grant-expired");
    assert_eq!(ask(-1), "grant-not-yet");
}

#[test]
fn the_ends_of_time_are_instants_like_others() {
    let mut always = grant("g1", researchers(), "brca", "wgs");
    (always.not_before, always.not_after) = (Timestamp::MIN, Timestamp::MAX);
    let set = PolicySet::build(1, &[member("alice", "brca", "researcher")], &[always]).unwrap();
    let mut facts = facts();
    facts.study.as_mut().unwrap().until = Timestamp::MAX;
    for (now, expected) in [
        (Timestamp::MIN, "permit"),
        (Timestamp::MAX.minus(std::time::Duration::from_millis(1)), "permit"),
        (Timestamp::MAX, "study-closed"),
    ] {
        let request = policy::Request { now, ..read("alice", "brca", "wgs") };
        assert_eq!(code(&decide(&request, &set, &facts)), expected, "{now}");
    }
}

#[test]
fn the_next_window_is_told_before_the_last_one() {
    let early = grant("g1", researchers(), "brca", "wgs");
    let mut late = grant("g2", researchers(), "brca", "wgs");
    (late.not_before, late.not_after) = (at(300), at(400));
    let set = PolicySet::build(1, &[member("alice", "brca", "researcher")], &[early, late]).unwrap();
    let ask = |now| decide(&policy::Request { now: at(now), ..read("alice", "brca", "wgs") }, &set, &facts());
    let Decision::Deny(Denial::GrantNotYet { grant, from }) = ask(250) else { panic!() };
    assert_eq!((grant.name(), from), ("g2", at(300)));
    let Decision::Deny(Denial::GrantExpired { grant, at: ended }) = ask(400) else { panic!() };
    assert_eq!((grant.name(), ended), ("g2", at(400)));
}

#[test]
fn two_grants_that_say_the_same_are_both_named() {
    let twins = [grant("g1", researchers(), "brca", "wgs"), grant("g2", researchers(), "brca", "wgs")];
    let set = PolicySet::build(1, &[member("alice", "brca", "researcher")], &twins).unwrap();
    let Decision::Permit(basis) = decide(&read("alice", "brca", "wgs"), &set, &facts()) else { panic!() };
    assert_eq!(basis.grants.len(), 2);
}

#[test]
fn a_study_with_many_grants_is_decided_like_one_with_few() {
    let grants: Vec<_> =
        (0..100).map(|i| grant(&format!("g{i}"), researchers(), "brca", &format!("set{}", i % 50))).collect();
    let set = PolicySet::build(1, &[member("alice", "brca", "researcher")], &grants).unwrap();
    for i in 0..50 {
        let name = format!("set{i}");
        let Decision::Permit(basis) = decide(&read("alice", "brca", &name), &set, &facts()) else {
            panic!("{name}")
        };
        assert_eq!(basis.grants.len(), 2);
    }
    assert_eq!(decide_read(&set, "alice", "brca", "set50"), "no-grant");
}

#[test]
fn incomplete_requests_are_refused() {
    let ask = |request: policy::Request| code(&decide(&request, &set(), &facts()));
    assert_eq!(ask(policy::Request { study: None, ..read("alice", "brca", "wgs") }), "malformed");
    assert_eq!(ask(policy::Request { dataset: None, ..read("alice", "brca", "wgs") }), "malformed");
    assert_eq!(ask(policy::Request { study: None, ..open("alice", "brca") }), "malformed");
    let both = policy::Request { dataset: Some(dataset("wgs")), ..open("alice", "brca") };
    assert_eq!(ask(both), "malformed");
    let nowhere = policy::Request { action: Action::Deposit, ..open("alice", "brca") };
    assert_eq!(ask(nowhere), "malformed");
}

#[test]
fn facts_that_nobody_gathered_permit_nothing() {
    for action in Action::all() {
        let request = policy::Request { action, ..read("alice", "brca", "wgs") };
        assert_eq!(code(&decide(&request, &set(), &Facts::default())), "unknown-person", "{action}");
        let locked = Facts { person: policy::Standing::Locked, ..facts() };
        assert_eq!(code(&decide(&request, &set(), &locked)), "person-locked", "{action}");
    }
    let no_study = Facts { study: None, ..facts() };
    assert_eq!(code(&decide(&read("alice", "brca", "wgs"), &set(), &no_study)), "not-a-member");
    let no_conditions = Facts { conditions: Vec::new(), ..facts() };
    let decision = decide(&read("alice", "brca", "wgs"), &set(), &no_conditions);
    assert!(matches!(decision, Decision::Manual(Denial::NeedsReview { .. })), "{decision:?}");
}

#[test]
fn a_study_that_is_over_permits_nothing() {
    for (active, until, expected) in
        [(true, at(151), "permit"), (true, at(150), "study-closed"), (false, at(1_000), "study-closed")]
    {
        let mut facts = facts();
        let stands = facts.study.as_mut().unwrap();
        (stands.active, stands.until) = (active, until);
        assert_eq!(code(&decide(&read("alice", "brca", "wgs"), &set(), &facts)), expected);
        assert_eq!(code(&decide(&open("alice", "brca"), &set(), &facts)), expected);
    }
}

#[test]
fn rules_that_do_not_belong_are_refused_and_nothing_is_half_built() {
    let twice = [grant("g1", researchers(), "brca", "wgs"), grant("g1", researchers(), "brca", "rna")];
    let built = PolicySet::build(1, &[], &twice);
    assert!(matches!(built, Err(PolicyError::DuplicateGrant(_))));
    assert!(matches!(set().with_study(2, &study("brca"), &[], &twice), Err(PolicyError::DuplicateGrant(_))));
    let foreign = [member("alice", "heart", "lead")];
    let built = set().with_study(2, &study("brca"), &foreign, &[]);
    assert!(matches!(built, Err(PolicyError::WrongStudy { .. })));
}

#[test]
fn a_set_is_built_inside_and_outside_a_runtime_and_crosses_threads() {
    let set = std::thread::spawn(set).join().unwrap();
    let decided = std::thread::spawn(move || decide_read(&set, "alice", "brca", "wgs")).join().unwrap();
    assert_eq!(decided, "permit");
}
