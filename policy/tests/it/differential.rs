//! Random policies and requests, decided twice: by the product, and by an evaluator that reads the
//! raw lists from top to bottom and knows neither Casbin nor an index.

use std::collections::BTreeSet;

use model::{GrantId, Timestamp};
use policy::Standing;
use policy::duo::Purpose;
use policy::{
    Action, AdminAction, CertificateRules, Channel, ChannelRules, Decision, Facts, GrantRule, Grantee,
    Membership, PolicySet, Request, StudyFacts, decide,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::world::*;

/// Names that mean something elsewhere: of roles, of Casbin's own words, of each other.
const NAMES: [&str; 8] = ["alice", "researcher", "lead", "steward", "default", "open", "p", "r.sub"];
const ROLES: [&str; 6] = ["researcher", "lead", "observer", "steward", "alice", "open-session"];
const CONDITIONS: [&[&[&str]]; 6] = [
    &[&["GRU"]],
    &[&["HMB", "IRB"]],
    &[&["POA"]],
    &[&["DS:MONDO:0004992"]],
    &[&["POA"], &["DS:MONDO:0007254"]],
    &[],
];
const PURPOSES: [&str; 4] = ["HMB", "POA", "DS:MONDO:0007254", "MDS"];

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Permit(BTreeSet<GrantId>),
    Deny,
    Manual,
}

fn product(request: &Request, set: &PolicySet, facts: &Facts) -> Answer {
    match decide(request, set, facts) {
        Decision::Permit(basis) => Answer::Permit(basis.grants.into_iter().collect()),
        Decision::Deny(denial) => {
            assert_ne!(denial.code(), "error", "the two evaluations disagree: {denial:?}");
            Answer::Deny
        }
        Decision::Manual(_) => Answer::Manual,
    }
}

fn reference(request: &Request, members: &[Membership], grants: &[GrantRule], facts: &Facts) -> Answer {
    if facts.person != Standing::Active {
        return Answer::Deny;
    }
    let programme = |wanted: &[&str]| {
        if facts.programme_roles.iter().any(|held| wanted.contains(&held.name())) {
            Answer::Permit(BTreeSet::new())
        } else {
            Answer::Deny
        }
    };
    match request.action {
        Action::IssueCertificate => return Answer::Permit(BTreeSet::new()),
        Action::Deposit if request.dataset.is_none() => return Answer::Deny,
        Action::Deposit => return programme(&["steward", "depositor"]),
        Action::KeepRecord => return programme(&["house"]),
        Action::FetchRecord => return programme(&["security"]),
        Action::Administer(AdminAction::Revoke) => return programme(&["steward", "security"]),
        Action::Administer(AdminAction::CreateStudy) => return programme(&["steward"]),
        Action::Administer(_) => unreachable!("not generated"),
        Action::PlayRecording => {
            let leads = |m: &Membership| {
                m.person == request.person
                    && Some(&m.study) == request.study.as_ref()
                    && m.role.name() == "lead"
            };
            let open = facts
                .study
                .as_ref()
                .is_some_and(|stands| stands.active && request.now < stands.until && stands.recording.lead);
            if open && members.iter().any(leads) {
                return Answer::Permit(BTreeSet::new());
            }
            return programme(&["security"]);
        }
        Action::OpenSession | Action::Channel(_) | Action::ReadDataset | Action::ManageWorkspace => {}
    }
    let Some(study) = &request.study else { return Answer::Deny };
    let Some(stands) = &facts.study else { return Answer::Deny };
    let mine: Vec<&Membership> =
        members.iter().filter(|m| m.person == request.person && m.study == *study).collect();
    if !mine.iter().any(|m| ["researcher", "lead"].contains(&m.role.name())) {
        return Answer::Deny;
    }
    if !stands.active || stands.until <= request.now {
        return Answer::Deny;
    }
    if request.action == Action::ManageWorkspace {
        let leads = mine.iter().any(|m| m.role.name() == "lead");
        return if leads { Answer::Permit(BTreeSet::new()) } else { Answer::Deny };
    }
    if let Action::Channel(channel) = request.action {
        let open = stands.channels.names();
        let certified = match channel {
            Channel::Terminal => facts.certificate.terminal,
            Channel::LocalForward => facts.certificate.port_forwarding,
            _ => true,
        };
        let offered = CHANNELS[..CHANNELS.len() - 1].contains(&channel);
        let data = channel != Channel::ExportData || open.contains(&"export");
        let permitted = offered && certified && data && open.contains(&channel.name());
        return if permitted { Answer::Permit(BTreeSet::new()) } else { Answer::Deny };
    }
    let purposes = match &request.purpose {
        Some(asked) if !stands.purposes.contains(asked) => return Answer::Deny,
        Some(asked) => vec![asked.clone()],
        None => stands.purposes.clone(),
    };
    if request.action == Action::OpenSession {
        return if request.dataset.is_none() { Answer::Permit(BTreeSet::new()) } else { Answer::Deny };
    }
    let Some(dataset) = &request.dataset else { return Answer::Deny };
    let mut covering = BTreeSet::new();
    for grant in grants {
        let names_me = match &grant.grantee {
            Grantee::Person(person) => *person == request.person,
            Grantee::Role(role) => mine.iter().any(|m| m.role == *role),
        };
        let holds = grant.not_before <= request.now && request.now < grant.not_after;
        if grant.study == *study && grant.dataset == *dataset && names_me && holds {
            covering.insert(grant.grant.clone());
        }
    }
    if covering.is_empty() {
        return Answer::Deny;
    }
    allowed(facts, &purposes, covering)
}

/// The six sets of conditions against the four purposes, looked up in a table filled in by hand:
/// y permitted, p for people, n refused.
fn allowed(facts: &Facts, purposes: &[Purpose], covering: BTreeSet<GrantId>) -> Answer {
    let table = ["yyyy", "pnpp", "nyny", "nnyy", "nyyy", "pppp"];
    let row = CONDITIONS.iter().position(|sets| conditions(sets) == facts.conditions).unwrap();
    let cell = |asked: &Purpose| {
        let column = PURPOSES.iter().position(|p| purpose(p) == *asked).unwrap();
        table[row].as_bytes()[column]
    };
    let cells: Vec<u8> = purposes.iter().map(cell).collect();
    if cells.contains(&b'n') {
        Answer::Deny
    } else if cells.is_empty() || cells.contains(&b'p') {
        Answer::Manual
    } else {
        Answer::Permit(covering)
    }
}

fn instant() -> impl Strategy<Value = Timestamp> {
    select(vec![-1, 0, 99, 100, 101, 199, 200, 201]).prop_map(Timestamp::from_secs)
}

fn grantee() -> impl Strategy<Value = Grantee> {
    prop_oneof![
        select(&NAMES[..]).prop_map(|n| Grantee::Person(person(n))),
        select(&ROLES[..]).prop_map(|n| Grantee::Role(role(n))),
    ]
}

fn membership() -> impl Strategy<Value = Membership> {
    (select(&NAMES[..4]), select(&NAMES[..3]), select(&ROLES[..])).prop_map(|(p, s, r)| member(p, s, r))
}

/// The identifier is given later, so that each is there once.
fn window() -> impl Strategy<Value = GrantRule> {
    (grantee(), select(&NAMES[..3]), select(&NAMES[..3]), instant(), instant()).prop_map(
        |(to, s, d, not_before, not_after)| GrantRule { not_before, not_after, ..grant("x", to, s, d) },
    )
}

fn some_purposes() -> impl Strategy<Value = Vec<Purpose>> {
    proptest::sample::subsequence(&PURPOSES[..], 0..=2)
        .prop_map(|names| names.into_iter().map(purpose).collect())
}

/// The last of them is not offered, whatever anybody permits.
const CHANNELS: [Channel; 6] = [
    Channel::Shell,
    Channel::Terminal,
    Channel::Export,
    Channel::ExportData,
    Channel::LocalForward,
    Channel::X11,
];

fn channel_rules() -> impl Strategy<Value = ChannelRules> {
    proptest::sample::subsequence(&CHANNELS[..], 0..=6)
        .prop_map(|open| ChannelRules::parse(&open.iter().map(|c| c.name()).collect::<Vec<_>>()).unwrap())
}

fn certificate() -> impl Strategy<Value = CertificateRules> {
    (any::<bool>(), any::<bool>()).prop_map(|(terminal, port_forwarding)| CertificateRules {
        terminal,
        port_forwarding,
        x11: true,
        ..CertificateRules::default()
    })
}

fn asked() -> impl Strategy<Value = (Request, Facts)> {
    let actions = vec![
        Action::OpenSession,
        Action::ReadDataset,
        Action::ReadDataset,
        Action::ReadDataset,
        Action::ManageWorkspace,
        Action::Deposit,
        Action::IssueCertificate,
        Action::PlayRecording,
        Action::KeepRecord,
        Action::FetchRecord,
        Action::Administer(AdminAction::CreateStudy),
        Action::Administer(AdminAction::Revoke),
    ];
    let channels = CHANNELS.map(Action::Channel);
    let actions: Vec<Action> = actions.into_iter().chain(channels).collect();
    let request = (
        select(&NAMES[..4]),
        proptest::option::weighted(0.95, select(&NAMES[..3])),
        proptest::option::weighted(0.8, select(&NAMES[..3])),
        select(actions),
        proptest::option::weighted(0.3, select(&PURPOSES[..])),
        instant(),
    )
        .prop_map(|(who, of, on, action, why, now)| Request {
            person: person(who),
            study: of.map(study),
            dataset: on.map(dataset),
            action,
            purpose: why.map(purpose),
            now,
        });
    let stands = (prop::bool::weighted(0.9), instant(), some_purposes(), channel_rules(), any::<bool>());
    let facts = (
        prop_oneof![
            18 => Just(Standing::Active),
            1 => Just(Standing::Locked),
            1 => Just(Standing::Unknown),
        ],
        proptest::sample::subsequence(&["steward", "security", "researcher", "operator"][..], 0..=2),
        proptest::option::weighted(0.95, stands),
        select(&CONDITIONS[..]),
        certificate(),
    )
        .prop_map(|(person, roles, stands, sets, certificate)| Facts {
            person,
            programme_roles: roles.into_iter().map(role).collect(),
            study: stands.map(|(active, until, purposes, channels, lead)| StudyFacts {
                active,
                until,
                purposes,
                channels,
                recording: policy::RecordingRule { lead, ..policy::RecordingRule::default() },
                supervision: policy::SupervisionRule::default(),
            }),
            conditions: conditions(sets),
            certificate,
        });
    (request, facts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_product_decides_like_the_reference(
        members in proptest::collection::vec(membership(), 0..12),
        windows in proptest::collection::vec(window(), 0..60),
        asked in proptest::collection::vec(asked(), 40),
    ) {
        let grants: Vec<GrantRule> = windows
            .into_iter()
            .enumerate()
            .map(|(i, window)| GrantRule { grant: GrantId::from_name(&format!("g{i}")).unwrap(), ..window })
            .collect();
        let built = PolicySet::build(1, &members, &grants).unwrap();
        // The same policy, reached study by study.
        let mut stepped = PolicySet::build(1, &[], &[]).unwrap();
        for name in &NAMES[..3] {
            let of = study(name);
            let members: Vec<_> = members.iter().filter(|m| m.study == of).cloned().collect();
            let grants: Vec<_> = grants.iter().filter(|g| g.study == of).cloned().collect();
            stepped = stepped.with_study(2, &of, &members, &grants).unwrap();
        }
        for (request, facts) in &asked {
            let expected = reference(request, &members, &grants, facts);
            prop_assert_eq!(&product(request, &built, facts), &expected, "{:?} {:?}", request, facts);
            prop_assert_eq!(&product(request, &stepped, facts), &expected);
        }
    }
}
