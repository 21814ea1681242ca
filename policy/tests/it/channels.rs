//! Channels: role, certificate and study must agree, and every cell of that is asked.

use policy::{
    Action, CertificateRules, Channel, ChannelRules, Decision, Facts, PolicySet, Request, StudyFacts, decide,
};

use crate::world::*;

fn ask(channel: Channel, certificate: CertificateRules, channels: ChannelRules) -> Decision {
    let set = PolicySet::build(1, &[member("alice", "brca", "researcher")], &[]).unwrap();
    let study = facts().study.map(|study| StudyFacts { channels, ..study });
    let request = Request { action: Action::Channel(channel), ..open("alice", "brca") };
    decide(&request, &set, &Facts { study, certificate, ..facts() })
}

fn only(channel: Channel) -> ChannelRules {
    let mut rules = ChannelRules::none();
    rules.allow(channel);
    rules.allow(Channel::Export);
    rules
}

fn full() -> CertificateRules {
    CertificateRules { terminal: true, port_forwarding: true, agent_forwarding: true, x11: true }
}

#[test]
fn a_channel_takes_the_gate_the_certificate_and_the_study() {
    for channel in Channel::ALL {
        let expected = if channel.is_offered() { "permit" } else { "channel-not-offered" };
        assert_eq!(code(&ask(channel, full(), only(channel))), expected, "{channel}");
        let expected = if channel.is_offered() { "channel-refused" } else { "channel-not-offered" };
        assert_eq!(code(&ask(channel, full(), ChannelRules::none())), expected, "{channel}");
        let bare = ask(channel, CertificateRules::default(), only(channel));
        let expected = match channel {
            Channel::Terminal | Channel::LocalForward => "channel-not-certified",
            _ if channel.is_offered() => "permit",
            _ => "channel-not-offered",
        };
        assert_eq!(code(&bare), expected, "{channel}");
    }
}

#[test]
fn a_permit_and_a_refusal_name_the_rule_that_matched() {
    let Decision::Permit(basis) = ask(Channel::Exec, full(), ChannelRules::default()) else { panic!() };
    let rules: Vec<&str> = basis.rules.iter().map(policy::RuleId::as_str).collect();
    assert_eq!(rules, ["study:brca/channel/exec/allow", "study/role:researcher/channel-exec"]);
    assert_eq!(basis.until(), at(1_000));
    let Decision::Deny(denial) = ask(Channel::Export, full(), ChannelRules::default()) else { panic!() };
    assert_eq!(denial.rule().unwrap().as_str(), "study:brca/channel/export/refuse");
    assert!(denial.to_string().contains("airlock"), "{denial}");
    let Decision::Deny(denial) = ask(Channel::X11, full(), ChannelRules::default()) else { panic!() };
    assert_eq!(denial.rule().unwrap().as_str(), "gate/channel/x11/refuse");
}

#[test]
fn only_members_of_an_open_study_get_as_far_as_its_channels() {
    let set = PolicySet::build(1, &[member("alice", "brca", "guest")], &[]).unwrap();
    let request = |who| Request { action: Action::Channel(Channel::Shell), ..open(who, "brca") };
    assert_eq!(code(&decide(&request("mallory"), &set, &facts())), "not-a-member");
    assert_eq!(code(&decide(&request("alice"), &set, &facts())), "role-missing");
    let closed = Facts { study: facts().study.map(|s| StudyFacts { active: false, ..s }), ..facts() };
    assert_eq!(code(&decide(&request("alice"), &set, &closed)), "study-closed");
}
