//! The door with real records and a real log behind it. Certificates need the signer's process and
//! are left to the end-to-end stories.

#[path = "it/approvals.rs"]
mod approvals;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use audit::{EventKind, FindingReaction, Log, LogKey, SessionExit};
use certs::TrustDomain;
use certs::ticket::{Order, TicketKey, open};
use certs::x509::{CaCertificate, CertificateAuthority, KeyPair, LeafRequest};
use gate::{
    Entry, Foundations, Gate, NewDataset, NewGrant, NewPerson, NewStudy, Outcome, RefusalKind,
    SessionRequest, Settings, Target, Via, Wanted,
};
use model::{
    AgentId, BackendId, Clock, DatasetId, GrantId, ManualClock, PersonId, RoleId, SeededEntropy, StudyId,
    Timestamp, WorkspaceName,
};
use policy::{CertificateRules, Channel, Grantee, Limit};
use store::{KeptFile, KeptState, KeptSubject, Store};

const NOON: Timestamp = Timestamp::from_secs(1_790_000_000);

struct House {
    gate: Gate,
    store: Store,
    clock: Arc<ManualClock>,
    ca: CaCertificate,
    domain: TrustDomain,
    dir: tempfile::TempDir,
}

fn person(name: &str) -> PersonId {
    PersonId::from_name(name).unwrap()
}

fn study(name: &str) -> StudyId {
    StudyId::from_name(name).unwrap()
}

fn dataset(name: &str) -> DatasetId {
    DatasetId::from_name(name).unwrap()
}

fn agent() -> AgentId {
    AgentId::from_name("hall-1").unwrap()
}

fn entry(name: &str) -> Entry {
    Entry {
        person: person(name),
        peer: Some(SocketAddr::from(([127, 0, 0, 1], 50_000))),
        via: Via::Ssh,
        key_fingerprint: "SHA256:test".to_owned(),
    }
}

fn knock(study_name: &str) -> SessionRequest {
    SessionRequest {
        study: study(study_name),
        workspace: WorkspaceName::default(),
        purpose: None,
        agent: agent(),
        pty: false,
        wanted: Wanted::Shell,
        certificate: CertificateRules {
            terminal: true,
            port_forwarding: true,
            ..CertificateRules::default()
        },
    }
}

fn ended() -> Outcome {
    Outcome { exit: SessionExit::Code { code: 0 }, ended: None, bytes_in: 1, bytes_out: 2 }
}

fn log(dir: &Path, clock: Arc<dyn Clock>) -> Log {
    let key = LogKey::from_seed("gate.test/log", &[7; 32]).unwrap();
    Log::open(dir, key, clock, audit::Options::default()).unwrap()
}

/// A house in which alice may use the dataset `cancer` (HMB) in the study `brca`.
async fn house() -> House {
    house_with(Settings::default()).await
}

async fn house_with(settings: Settings) -> House {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOON));
    let entropy = SeededEntropy::new(1);
    let domain: TrustDomain = "gate.test".parse().unwrap();
    let key = KeyPair::generate(&entropy).unwrap();
    let ca = CertificateAuthority::create(domain.clone(), key, NOON, &entropy).unwrap();
    let ticket = KeyPair::generate(&entropy).unwrap();
    let request = LeafRequest {
        spiffe: "ticket/main".parse().unwrap(),
        dns: Vec::new(),
        ip: Vec::new(),
        public_key: ticket.spki().unwrap(),
        lifetime: Duration::from_secs(3600),
    };
    let certificate = ca.issue(&request, NOON, &entropy).unwrap();
    let store = Store::in_memory().await.unwrap();
    let gate = Gate::new(Foundations {
        store: store.clone(),
        log: log(&dir.path().join("audit"), Arc::clone(&clock) as Arc<dyn Clock>),
        signer: signer::SignerClient::new("/nonexistent/signer.sock"),
        ticket_key: TicketKey::new(ticket, certificate),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        entropy: Arc::new(SeededEntropy::new(2)),
        settings,
        left_open: Vec::new(),
    })
    .await
    .unwrap();
    let roles = ["steward", "security", "operator"].map(|r| RoleId::from_name(r).unwrap()).to_vec();
    store.enrol_agent(&agent(), NOON).await.unwrap();
    let admin = store::Person {
        id: person("admin"),
        display_name: "admin".to_owned(),
        roles,
        recorded_at: NOON,
        state: store::PersonState::Active,
    };
    store.create_person(&admin).await.unwrap();
    let house = House { gate, store, clock, ca: ca.certificate().clone(), domain, dir };
    let admin = entry("admin");
    for name in ["alice", "bob"] {
        let new = NewPerson { person: person(name), name: name.to_owned(), roles: Vec::new() };
        house.gate.enrol_person(&admin, new).await.unwrap();
    }
    for (name, purposes) in [("brca", vec!["DS:MONDO:0007254", "POA"]), ("heart", vec!["HMB"])] {
        let new = NewStudy {
            study: study(name),
            title: name.to_owned(),
            purposes: purposes.into_iter().map(str::to_owned).collect(),
            until: NOON.plus(Duration::from_secs(1_000_000)),
        };
        house.gate.create_study(&admin, new).await.unwrap();
    }
    let conditions = vec![vec!["HMB".to_owned()]];
    let new = NewDataset { dataset: dataset("cancer"), title: "cancer".to_owned(), conditions };
    house.gate.create_dataset(&admin, new).await.unwrap();
    house.gate.add_member(&admin, &study("brca"), &person("alice"), &researcher()).await.unwrap();
    house
}

fn researcher() -> RoleId {
    RoleId::from_name("researcher").unwrap()
}

impl House {
    async fn grant(&self, seconds: u64) -> GrantId {
        let new = NewGrant {
            study: study("brca"),
            dataset: dataset("cancer"),
            grantee: Grantee::Role(researcher()),
            from: None,
            until: self.clock.now().plus(Duration::from_secs(seconds)),
        };
        self.gate.grant(&entry("admin"), new).await.unwrap()
    }

    fn entries(&self) -> Vec<String> {
        let entries = self.gate.log().read(0, 100_000).unwrap();
        entries.into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_permit_has_a_record_and_its_ticket_says_no_more_than_policy() {
    let house = house().await;
    house.grant(600).await;
    let deposit =
        house.gate.deposit(&entry("admin"), &dataset("cancer"), "reads.bam", &agent()).await.unwrap();
    // While it is pending, nobody sees it.
    let early = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    assert!(early.action().datasets[0].objects.is_empty());
    house
        .gate
        .deposit_completed(deposit, 42, [9; 32], vec![BackendId::from_name("north").unwrap()])
        .await
        .unwrap();

    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    let record = &house.entries()[usize::try_from(permit.record()).unwrap()];
    assert!(record.contains("session_opened") && record.contains("u:alice"), "{record}");
    let sealed = house.gate.session_ticket(&permit, &agent()).unwrap();
    let ticket = open(&sealed, &house.ca, &house.domain, &agent(), NOON).unwrap();
    let Order::Session(order) = ticket.order else { panic!("not a session") };
    assert_eq!((order.person, order.study), (person("alice"), study("brca")));
    assert_eq!(order.access_until, NOON.plus(Duration::from_secs(600)));
    assert_eq!(order.datasets.len(), 1);
    assert_eq!(order.datasets[0].objects[0].manifest_root, [9; 32]);
    house.gate.close_session(permit, ended()).await.unwrap();
    assert_eq!(house.store.open_sessions().await.unwrap().len(), 1, "the early one");
}

#[tokio::test]
async fn whoever_may_not_is_refused_with_the_reason_and_a_record() {
    let house = house().await;
    let refused = async |who: &str, request: SessionRequest| {
        let refusal = house.gate.open_session(&entry(who), &request).await.unwrap_err();
        let record = &house.entries()[usize::try_from(refusal.record.unwrap()).unwrap()];
        assert!(record.contains("session_refused") && record.contains(&refusal.code), "{record}");
        assert_eq!(refusal.kind, RefusalKind::Denied);
        refusal.code
    };
    assert_eq!(refused("alice", knock("brca")).await, "nothing-granted");
    house.grant(600).await;
    assert_eq!(refused("alice", knock("heart")).await, "not-a-member");
    assert_eq!(refused("alice", knock("nowhere")).await, "not-a-member");
    assert_eq!(refused("bob", knock("brca")).await, "not-a-member");
    let ancestry = SessionRequest { purpose: Some("POA".to_owned()), ..knock("brca") };
    assert_eq!(refused("alice", ancestry).await, "purpose-not-allowed");
    let general = SessionRequest { purpose: Some("GRU".to_owned()), ..knock("brca") };
    assert_eq!(refused("alice", general).await, "purpose-not-of-study");
    let nonsense = SessionRequest { purpose: Some("because".to_owned()), ..knock("brca") };
    assert_eq!(refused("alice", nonsense).await, "malformed");
    house.clock.advance(Duration::from_secs(601));
    assert_eq!(refused("alice", knock("brca")).await, "grant-expired");
}

#[tokio::test]
async fn a_revocation_ends_what_runs_and_shuts_the_door() {
    let house = house().await;
    let grant = house.grant(600).await;
    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    assert_eq!(house.gate.revoke_grant(&entry("admin"), &grant, "withdrawn").await.unwrap(), 1);
    let cause = tokio::time::timeout(Duration::from_secs(1), permit.ended()).await.unwrap();
    assert_eq!((cause.cause, cause.grant.as_ref()), (audit::EndCause::GrantRevoked, Some(&grant)));
    assert!(cause.message.contains("withdrawn"), "{}", cause.message);
    let again = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap_err();
    assert_eq!(again.code, "nothing-granted");
    let outcome = Outcome { ended: Some(cause), ..ended() };
    let closed = house.gate.close_session(permit, outcome).await.unwrap();
    let records = house.entries();
    assert!(records[usize::try_from(closed).unwrap()].contains("session_closed"));
    assert!(records.iter().any(|r| r.contains("session_ended") && r.contains("grant-revoked")));
    let twice = house.gate.revoke_grant(&entry("admin"), &grant, "again").await.unwrap_err();
    assert_eq!(twice.kind, RefusalKind::Conflict);
}

/// However a revocation and many openings interleave, nobody keeps a permit that does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_slips_past_a_revocation() {
    let house = house().await;
    for _ in 0..20 {
        let grant = house.grant(600).await;
        let knocking: Vec<_> = (0..12)
            .map(|_| {
                let gate = house.gate.clone();
                tokio::spawn(async move { gate.open_session(&entry("alice"), &knock("brca")).await })
            })
            .collect();
        let gate = house.gate.clone();
        let revoking =
            tokio::spawn(async move { gate.revoke_grant(&entry("admin"), &grant, "race").await.map(|_| ()) });
        revoking.await.unwrap().unwrap();
        for knocked in knocking {
            if let Ok(permit) = knocked.await.unwrap() {
                let end = tokio::time::timeout(Duration::from_secs(5), permit.ended()).await;
                assert_eq!(end.expect("the permit outlived its grant").cause, audit::EndCause::GrantRevoked);
            }
        }
    }
}

#[tokio::test]
async fn locking_a_person_ends_their_sessions_and_refuses_new_ones() {
    let house = house().await;
    house.grant(600).await;
    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    assert_eq!(house.gate.lock_person(&entry("admin"), &person("alice"), "stolen laptop").await.unwrap(), 1);
    assert_eq!(permit.ended().await.cause, audit::EndCause::PersonLocked);
    let refusal = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap_err();
    assert_eq!(refusal.code, "person-locked");
}

#[tokio::test]
async fn administration_takes_its_role() {
    let house = house().await;
    let new = NewDataset {
        dataset: dataset("mine"),
        title: "mine".to_owned(),
        conditions: vec![vec!["GRU".to_owned()]],
    };
    let refusal = house.gate.create_dataset(&entry("alice"), new).await.unwrap_err();
    assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Denied, "role-missing"));
    assert!(house.entries()[usize::try_from(refusal.record.unwrap()).unwrap()].contains("admin_refused"));
    let refusal =
        house.gate.deposit(&entry("alice"), &dataset("cancer"), "x.bam", &agent()).await.unwrap_err();
    assert_eq!(refusal.code, "role-missing");
    let refusal = house.gate.revoke_grant(&entry("alice"), &house.grant(60).await, "mine").await.unwrap_err();
    assert_eq!(refusal.code, "role-missing");
}

#[tokio::test]
async fn without_a_log_there_is_no_permit() {
    let house = house().await;
    house.grant(600).await;
    house.gate.log().close().await;
    let refusal = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap_err();
    assert_eq!((refusal.kind, refusal.code.as_str()), (RefusalKind::Unavailable, "audit-unavailable"));
    assert!(house.store.open_sessions().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_last_record_of_a_session_counts_the_others() {
    let house = house().await;
    house.grant(600).await;
    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    let session = permit.action().session.clone();
    for _ in 0..3 {
        let kind = EventKind::ChannelRefused { what: audit::ChannelKind::X11, detail: String::new() };
        let event =
            audit::Event { session: Some(session.clone()), ..audit::Event::new(house.gate.now(), kind) };
        house.gate.record(&event).await.unwrap();
    }
    let (first, last) = (permit.record(), permit.record() + 4);
    let closed = house.gate.close_session(permit, ended()).await.unwrap();
    let records = house.entries();
    let own: Vec<_> = records.iter().enumerate().filter(|(_, r)| r.contains(session.as_str())).collect();
    let indexes: HashSet<u64> = own.iter().map(|(i, _)| *i as u64).collect();
    assert_eq!(indexes, (first..=last).chain([closed]).collect());
    let text = &records[usize::try_from(closed).unwrap()];
    for part in
        [format!("\"events_first\":{first}"), format!("\"events_last\":{last}"), "\"count\":5".to_owned()]
    {
        assert!(text.contains(&part), "{part} in {text}");
    }
}

/// A broker that was killed left a session open: the next one says so in the log.
#[tokio::test]
async fn what_an_agent_reports_names_the_person_but_never_anothers() {
    let house = house().await;
    house.grant(600).await;
    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    let (session, workspace) = (permit.action().session.clone(), permit.action().workspace.clone());
    let report = |session: Option<&model::SessionId>| audit::Event {
        session: session.cloned(),
        ..audit::Event::new(
            NOON,
            audit::EventKind::WorkspaceStarted { workspace: workspace.clone(), agent: agent(), cold_ms: 1 },
        )
    };
    let seen = house.gate.attribute(report(Some(&session)), &agent(), Some(&workspace));
    assert_eq!((seen.person, seen.study), (Some(person("alice")), Some(study("brca"))));
    assert_eq!((seen.session.as_ref(), seen.device.is_some()), (Some(&session), true));
    let seen = house.gate.attribute(report(None), &agent(), Some(&workspace));
    assert_eq!((seen.session, seen.person), (None, Some(person("alice"))));
    // Another agent, another workspace, a session that never was: nobody is named.
    let other = AgentId::from_name("other").unwrap();
    let seen = house.gate.attribute(report(Some(&session)), &other, Some(&workspace));
    assert_eq!((seen.session, seen.person), (None, None));
    let elsewhere = model::WorkspaceId::from_name("brca.bob").unwrap();
    let seen = house.gate.attribute(report(Some(&session)), &agent(), Some(&elsewhere));
    assert_eq!((seen.session, seen.person), (None, None));
    // What is reported a moment after the end is still the person's.
    house.gate.close_session(permit, ended()).await.unwrap();
    let seen = house.gate.attribute(report(Some(&session)), &agent(), Some(&workspace));
    assert_eq!((seen.session, seen.person), (Some(session), Some(person("alice"))));
}

#[tokio::test]
async fn what_was_left_open_is_closed_at_the_next_start() {
    let house = house().await;
    house.grant(600).await;
    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    let deposit =
        house.gate.deposit(&entry("admin"), &dataset("cancer"), "half.bam", &agent()).await.unwrap();
    let opened = permit.record();
    for _ in 0..2 {
        let kind = EventKind::ChannelRefused { what: audit::ChannelKind::X11, detail: String::new() };
        let session = Some(permit.action().session.clone());
        house
            .gate
            .record(&audit::Event { session, ..audit::Event::new(house.gate.now(), kind) })
            .await
            .unwrap();
    }
    let last_of_session = house.gate.log().durable_size() - 1;
    std::mem::drop((permit, deposit));
    house.gate.log().close().await;
    let clock = Arc::clone(&house.clock) as Arc<dyn Clock>;
    let entropy = SeededEntropy::new(3);
    let spare = KeyPair::generate(&entropy).unwrap();
    let again = Gate::new(Foundations {
        store: house.store.clone(),
        log: log(&house.dir.path().join("audit"), Arc::clone(&clock)),
        signer: signer::SignerClient::new("/nonexistent/signer.sock"),
        ticket_key: TicketKey::new(spare, house.ca.der().clone()),
        clock,
        entropy: Arc::new(entropy),
        settings: Settings::default(),
        left_open: Vec::new(),
    })
    .await
    .unwrap();
    assert!(house.store.open_sessions().await.unwrap().is_empty());
    let last = again.log().read(0, 100_000).unwrap().pop().unwrap();
    assert!(String::from_utf8(last.1.clone()).unwrap().contains("the broker was restarted"));
    // It still counts what the session has.
    let text = String::from_utf8(last.1).unwrap();
    for part in [
        format!("\"events_first\":{opened}"),
        format!("\"events_last\":{last_of_session}"),
        "\"count\":4".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} in {text}");
    }
    // The name of the deposit that was never finished is free again.
    again.deposit(&entry("admin"), &dataset("cancer"), "half.bam", &agent()).await.unwrap();
}

/// A finding about `name`, in this session.
fn finding(name: &str, session: Option<&model::SessionId>, reaction: FindingReaction) -> audit::Event {
    let kind = EventKind::Finding {
        rule: "r".to_owned(),
        name: None,
        title: "t".to_owned(),
        title_ja: None,
        level: audit::FindingLevel::Critical,
        tags: Vec::new(),
        evidence: vec![1],
        observed: NOON,
        proven: true,
        decoy: None,
        repeated: 0,
        reaction,
    };
    audit::Event {
        person: Some(person(name)),
        session: session.cloned(),
        study: Some(study("brca")),
        ..audit::Event::new(NOON, kind)
    }
}

#[tokio::test]
async fn a_finding_ends_and_locks_only_whom_it_is_about() {
    let house = house().await;
    house.grant(600).await;
    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    let session = permit.action().session.clone();
    let locked = async |name: &str| {
        let found = house.store.person(&person(name)).await.unwrap().unwrap();
        matches!(found.state, store::PersonState::Locked { .. })
    };
    let answer = async |event: audit::Event| {
        let recorded = house.gate.record_finding(event).await.unwrap();
        house.gate.carry_out(&recorded).await.unwrap()
    };

    // Somebody else's session, or a finding that does not prove who acted: recorded, and that is all.
    assert_eq!(answer(finding("admin", Some(&session), FindingReaction::LockPerson)).await, 0);
    let mut unproven = finding("alice", Some(&session), FindingReaction::LockPerson);
    let EventKind::Finding { proven, .. } = &mut unproven.kind else { unreachable!() };
    *proven = false;
    assert_eq!(answer(unproven).await, 0);
    assert_eq!(answer(finding("alice", Some(&session), FindingReaction::None)).await, 0);
    assert!(!locked("admin").await && !locked("alice").await);

    assert_eq!(answer(finding("alice", Some(&session), FindingReaction::EndSession)).await, 1);
    let end = permit.ended().await;
    assert_eq!(end.cause, audit::EndCause::Finding);
    assert!(!locked("alice").await);

    let again = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    let session = again.action().session.clone();
    assert_eq!(answer(finding("alice", Some(&session), FindingReaction::LockPerson)).await, 2);
    assert!(locked("alice").await);
    assert!(house.gate.open_session(&entry("alice"), &knock("brca")).await.is_err());
    // A second finding finds her locked already.
    answer(finding("alice", Some(&session), FindingReaction::LockPerson)).await;

    assert!(house.gate.unlock_person(&entry("alice"), &person("alice")).await.is_err());
    house.gate.unlock_person(&entry("admin"), &person("alice")).await.unwrap();
    assert!(!locked("alice").await);
    house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();

    let reserved = NewPerson { person: person("sekisho-detection"), name: String::new(), roles: Vec::new() };
    assert!(house.gate.enrol_person(&entry("admin"), reserved).await.is_err());
}

/// Detection may come to an event long after it happened.
#[tokio::test]
async fn what_came_after_an_event_is_known_when_it_is_answered() {
    let house = house().await;
    house.grant(600).await;
    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    let session = permit.action().session.clone();
    let event = house.gate.log().durable_size() - 1;
    let stands = async |name: &str, session: Option<&model::SessionId>, index| {
        let found = house.gate.aftermath(&person(name), session, index).await.unwrap();
        (found.session_open, found.let_in_since)
    };
    assert_eq!(stands("alice", Some(&session), event).await, (true, false));
    assert_eq!(stands("alice", None, event).await, (false, false));

    house.gate.lock_person(&entry("admin"), &person("alice"), "a touch").await.unwrap();
    assert_eq!(stands("alice", Some(&session), event).await, (false, false), "the lock ended it");
    house.gate.unlock_person(&entry("admin"), &person("alice")).await.unwrap();
    assert_eq!(stands("alice", Some(&session), event).await, (false, true));
    assert_eq!(stands("bob", None, event).await, (false, false), "nobody let bob in");
    let unlocked = house.gate.log().durable_size() - 1;
    assert_eq!(stands("alice", None, unlocked).await, (false, false), "what happens from now on counts anew");
}

/// A process may die between the finding, the lock in the records, and the record of the lock.
#[tokio::test]
async fn what_a_finding_calls_for_is_made_up_for_once() {
    let house = house().await;
    let state = async |name: &str| house.store.person(&person(name)).await.unwrap().unwrap().state;
    let locked = async |name: &str| matches!(state(name).await, store::PersonState::Locked { .. });
    let told = |name: &str| {
        let of =
            |entry: &&String| entry.contains("\"person_locked\"") && entry.contains(&format!("u:{name}"));
        house.entries().iter().filter(of).count()
    };
    let find = async |name: &str, reaction| {
        let _owed = house.gate.record_finding(finding(name, None, reaction)).await.unwrap();
        house.gate.log().durable_size() - 1
    };
    let make_up = async |from| house.gate.make_up(from).await.unwrap();
    assert_eq!(make_up(0).await, 0);

    // Neither locked nor recorded.
    let index = find("alice", FindingReaction::LockPerson).await;
    find("alice", FindingReaction::LockPerson).await;
    find("bob", FindingReaction::EndSession).await;
    find("bob", FindingReaction::None).await;
    assert!(!locked("alice").await);
    assert_eq!(make_up(house.gate.log().durable_size()).await, 0, "what was answered long ago is not read");
    assert_eq!(make_up(index).await, 1);
    assert!(locked("alice").await && !locked("bob").await);
    assert!(house.entries().last().unwrap().contains(&format!("the finding recorded at {index}")));
    assert_eq!((make_up(0).await, told("alice")), (0, 1));
    // Whoever was let in again stays so.
    house.gate.unlock_person(&entry("admin"), &person("alice")).await.unwrap();
    assert_eq!(make_up(0).await, 0);
    assert!(!locked("alice").await);

    // Locked, and not recorded.
    let index = find("bob", FindingReaction::LockPerson).await;
    let (by, reason) = (person("sekisho-detection"), format!("the finding recorded at {index}"));
    house.store.lock_person(&person("bob"), NOON, &by, &reason).await.unwrap();
    assert_eq!((make_up(0).await, told("bob")), (1, 1));
    assert_eq!((make_up(0).await, told("bob")), (0, 1));

    // Locked by somebody who was faster: their lock stays, and none is told that was not made.
    house.gate.lock_person(&entry("admin"), &person("alice"), "stolen laptop").await.unwrap();
    find("alice", FindingReaction::LockPerson).await;
    for _ in 0..2 {
        assert_eq!((make_up(0).await, told("alice")), (1, 2));
    }
    let store::PersonState::Locked { reason, .. } = state("alice").await else { panic!("not locked") };
    assert_eq!(reason, "stolen laptop");
    // Nobody of that name: there is nobody to let in either.
    find("ghost", FindingReaction::LockPerson).await;
    make_up(0).await;
}

#[tokio::test]
async fn decoys_are_for_security_staff_and_the_log_does_not_tell_them() {
    let house = house().await;
    house.grant(600).await;
    let decoy = |what: &str| gate::NewDecoy {
        kind: if what.starts_with("ds:") { store::DecoyKind::Object } else { store::DecoyKind::Address },
        what: what.to_owned(),
        note: "in the image".to_owned(),
    };
    let mut force = house.gate.decoys_in_force();
    assert!(house.gate.add_decoy(&entry("alice"), decoy("192.0.2.66")).await.is_err());
    assert!(house.gate.decoys(&entry("alice")).await.is_err());
    let id = house.gate.add_decoy(&entry("admin"), decoy("192.0.2.66")).await.unwrap();
    assert!(force.has_changed().unwrap());
    assert_eq!(force.borrow_and_update()[0].what, "192.0.2.66");
    // The same thing twice, and a dataset that is not there.
    assert!(house.gate.add_decoy(&entry("admin"), decoy("192.0.2.66")).await.is_err());
    assert!(house.gate.add_decoy(&entry("admin"), decoy("ds:nowhere")).await.is_err());
    assert_eq!(house.gate.decoys(&entry("admin")).await.unwrap().len(), 1);
    let log = house.gate.log();
    let entries = log.read(0, 10_000).unwrap();
    let told: Vec<String> =
        entries.iter().map(|(_, entry)| String::from_utf8_lossy(entry).into_owned()).collect();
    assert!(told.iter().any(|entry| entry.contains(id.as_str())));
    assert!(!told.iter().any(|entry| entry.contains("192.0.2.66") || entry.contains("in the image")));
    house.gate.remove_decoy(&entry("admin"), &id).await.unwrap();
    assert!(force.borrow_and_update().is_empty());
    assert!(house.gate.remove_decoy(&entry("admin"), &id).await.is_err());
}

fn open_as(wanted: Wanted) -> SessionRequest {
    SessionRequest { wanted, ..knock("brca") }
}

/// Every kind of channel: what the default rules say, and which record tells.
#[tokio::test]
async fn each_channel_is_decided_and_recorded_with_its_rule() {
    let house = house().await;
    house.grant(600).await;
    let alice = entry("alice");
    for (wanted, permitted, told, rule) in [
        (Wanted::Shell, true, "shell", "study:brca/channel/shell/allow"),
        (Wanted::Exec("id".to_owned()), true, "exec", "study:brca/channel/exec/allow"),
        (Wanted::Exec("scp -t .".to_owned()), true, "exec", "study:brca/channel/upload/allow"),
        (Wanted::Exec("scp -f x".to_owned()), false, "export", "study:brca/channel/export/refuse"),
        (
            Wanted::Exec("rsync --server --sender . x".to_owned()),
            false,
            "export",
            "study:brca/channel/export/refuse",
        ),
        (Wanted::Sftp, true, "sftp", "study:brca/channel/upload/allow"),
        (Wanted::Forward(8888), false, "port-forwarding", "study:brca/channel/port-forwarding/refuse"),
    ] {
        let answer = house.gate.open_session(&alice, &open_as(wanted.clone())).await;
        assert_eq!(answer.is_ok(), permitted, "{wanted:?}");
        let event = if permitted { "channel_opened" } else { "channel_refused" };
        let last = house.entries().pop().unwrap();
        for part in [event, &format!("\"what\":\"{told}\""), rule] {
            assert!(last.contains(part), "{wanted:?}: {part} in {last}");
        }
    }
    let sftp = house.gate.open_session(&alice, &open_as(Wanted::Sftp)).await.unwrap();
    let files = sftp.action().files;
    assert_eq!((files.upload, files.export, files.export_data), (true, false, false));
    for (channel, code) in [
        (Channel::Terminal, None),
        (Channel::X11, Some("channel-not-offered")),
        (Channel::AgentForward, Some("channel-not-offered")),
        (Channel::RemoteForward, Some("channel-not-offered")),
    ] {
        let certificate = knock("brca").certificate;
        let weighed = house.gate.weigh_channel(&alice, &study("brca"), certificate, channel, "x").await;
        assert_eq!(weighed.err().map(|refusal| refusal.code).as_deref(), code, "{channel}");
    }
    let bare = CertificateRules::default();
    let asked = SessionRequest { pty: true, certificate: bare, ..knock("brca") };
    let refusal = house.gate.open_session(&alice, &asked).await.unwrap_err();
    assert_eq!(refusal.code, "channel-not-certified");
    assert!(house.entries().pop().unwrap().contains("certificate/channel/terminal/refuse"));
}

#[tokio::test]
async fn changed_rules_hold_at_once_and_end_what_no_longer_may_be() {
    let house = house().await;
    house.grant(600).await;
    let (alice, admin, brca) = (entry("alice"), entry("admin"), study("brca"));
    let shell = house.gate.open_session(&alice, &knock("brca")).await.unwrap();
    let upload = house.gate.open_session(&alice, &open_as(Wanted::Sftp)).await.unwrap();
    let refused = house.gate.set_channels(&alice, &brca, &[Channel::Export], &[]).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Denied);
    let refused = house.gate.set_channels(&admin, &brca, &[Channel::X11], &[]).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Malformed);
    let allow = [Channel::Export, Channel::LocalForward];
    let (rules, ended) = house.gate.set_channels(&admin, &brca, &allow, &[Channel::Upload]).await.unwrap();
    assert_eq!(ended, 1);
    assert_eq!(rules.names(), ["shell", "exec", "terminal", "environment", "export", "port-forwarding"]);
    assert_eq!(house.gate.channels(&admin, &brca).await.unwrap(), rules);
    assert_eq!(upload.ended().await.cause, audit::EndCause::ChannelRefused);
    let still = tokio::time::timeout(Duration::from_millis(20), shell.ended()).await;
    assert!(still.is_err(), "a shell does not rest on uploads");
    house.gate.open_session(&alice, &open_as(Wanted::Forward(8888))).await.unwrap();
    let files = house.gate.open_session(&alice, &open_as(Wanted::Sftp)).await.unwrap().action().files;
    assert_eq!((files.upload, files.export, files.export_data), (false, true, false));
    // A command that takes files away could take those below /data: it needs both words.
    let scp = open_as(Wanted::Exec("scp -f x".to_owned()));
    assert_eq!(house.gate.open_session(&alice, &scp).await.unwrap_err().code, "channel-refused");
    house.gate.set_channels(&admin, &brca, &[Channel::ExportData], &[]).await.unwrap();
    house.gate.open_session(&alice, &scp).await.unwrap();
}

fn part() -> KeptSubject {
    KeptSubject::AuditSegment { first: 0, count: 256 }
}

fn file() -> KeptFile {
    KeptFile { size: 9, sha256: [1; 32], content_root: Some([2; 32]), manifest_root: [3; 32] }
}

impl House {
    fn count(&self, code: &str) -> usize {
        let code = format!("\"event_code\":\"{code}\"");
        self.entries().iter().filter(|entry| entry.contains(&code)).count()
    }

    /// The house of a process that comes after one that was killed: records and log are as it left them.
    async fn killed_and_started(self) -> House {
        self.gate.log().close().await;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let entropy = SeededEntropy::new(5);
        let spare = KeyPair::generate(&entropy).unwrap();
        let gate = Gate::new(Foundations {
            store: self.store.clone(),
            log: log(&self.dir.path().join("audit"), Arc::clone(&clock)),
            signer: signer::SignerClient::new("/nonexistent/signer.sock"),
            ticket_key: TicketKey::new(spare, self.ca.der().clone()),
            clock,
            entropy: Arc::new(entropy),
            settings: Settings::default(),
            left_open: Vec::new(),
        });
        House { gate: gate.await.unwrap(), ..self }
    }
}

#[tokio::test]
async fn the_house_keeps_its_records_under_a_permit_of_its_own() {
    let house = house().await;
    let permit = house.gate.keep_record(&part()).await.unwrap();
    let object = permit.action().object.clone();
    assert!(object.is_kept());
    let record = house.entries()[permit.record() as usize].clone();
    assert!(record.contains("record_keeping") && record.contains("programme/role:house/keep-record"));
    let sealed = house.gate.keep_ticket(&permit, &agent()).unwrap();
    let ticket = open(&sealed, &house.ca, &house.domain, &agent(), house.clock.now()).unwrap();
    assert!(matches!(ticket.order, Order::Keep(order) if order.object == object));

    // Nobody has it back before the log says that it is kept, and then only who may.
    let admin = entry("admin");
    let early = house.gate.fetch_record(&admin, &object).await.unwrap_err();
    assert_eq!(early.kind, RefusalKind::Conflict);
    let kept = house.gate.record_kept(permit, &agent(), file()).await.unwrap();
    assert!(matches!(kept.state, KeptState::Kept { .. }));
    let refused = house.gate.fetch_record(&entry("alice"), &object).await.unwrap_err();
    assert_eq!((refused.kind, refused.code.as_str()), (RefusalKind::Denied, "role-missing"));
    let permit = house.gate.fetch_record(&admin, &object).await.unwrap();
    let sealed = house.gate.fetch_ticket(&permit, &agent()).unwrap();
    let ticket = open(&sealed, &house.ca, &house.domain, &agent(), house.clock.now()).unwrap();
    assert!(matches!(ticket.order, Order::Fetch(order) if order.size == 9 && order.manifest_root == [3; 32]));

    // One thing is kept once, and nobody is given the role of the house, or its name.
    assert_eq!(house.gate.keep_record(&part()).await.unwrap_err().kind, RefusalKind::Conflict);
    let new = |name: &str, role: &str| NewPerson {
        person: person(name),
        name: name.to_owned(),
        roles: vec![RoleId::from_name(role).unwrap()],
    };
    for new in [new("mallory", "house"), new("sekisho", "steward")] {
        assert_eq!(house.gate.enrol_person(&admin, new).await.unwrap_err().kind, RefusalKind::Malformed);
    }
}

#[tokio::test]
async fn what_was_kept_is_said_once_however_the_process_ends() {
    let mut house = house().await;
    let permit = house.gate.keep_record(&part()).await.unwrap();
    let object = permit.action().object.clone();

    // Killed while it was being deposited: the same object goes on.
    std::mem::drop(permit);
    house = house.killed_and_started().await;
    let permit = house.gate.keep_record(&part()).await.unwrap();
    assert_eq!(permit.action().object, object);

    // Killed when it was read back, before the log said so: it says so now, once.
    let since = house.gate.log().durable_size();
    house.store.change_kept(&object, since, |state| state.store(file())).await.unwrap();
    std::mem::drop(permit);
    house = house.killed_and_started().await;
    assert_eq!(house.count("record_kept"), 1);
    assert_eq!(house.store.kept(&object).await.unwrap().unwrap().state.code(), "kept");
    house = house.killed_and_started().await;
    assert_eq!(house.count("record_kept"), 1);

    // Killed when the log said so, before the records did.
    let second = KeptSubject::AuditSegment { first: 256, count: 256 };
    let permit = house.gate.keep_record(&second).await.unwrap();
    let object = permit.action().object.clone();
    let since = house.gate.log().durable_size();
    house.store.change_kept(&object, since, |state| state.store(file())).await.unwrap();
    let said = EventKind::RecordKept {
        object: object.clone(),
        what: audit::KeptKind::AuditSegment,
        first: Some(256),
        count: Some(256),
        agent: Some(agent()),
        size: 9,
        sha256: String::new(),
        root: None,
        manifest_root: String::new(),
    };
    let index = house.gate.record(&audit::Event::new(NOON, said)).await.unwrap();
    std::mem::drop(permit);
    house = house.killed_and_started().await;
    assert_eq!(house.count("record_kept"), 2);
    let state = house.store.kept(&object).await.unwrap().unwrap().state;
    assert!(matches!(state, KeptState::Kept { record, .. } if record == index), "{state:?}");

    // Killed while its copy was going: that is on record once, and goes on.
    let first = house.gate.move_record(&object).await.unwrap();
    let said = first.record();
    std::mem::drop(first);
    house = house.killed_and_started().await;
    let again = house.gate.move_record(&object).await.unwrap();
    assert_eq!((again.record(), house.count("record_moved")), (said, 1));
    house.gate.record_moved(again).await.unwrap();
    assert_eq!(house.gate.move_record(&object).await.unwrap_err().kind, RefusalKind::Conflict);
}

fn workspace(name: &str) -> Target {
    Target { study: study("brca"), workspace: name.parse().unwrap() }
}

fn knock_at(name: &str) -> SessionRequest {
    SessionRequest { workspace: name.parse().unwrap(), ..knock("brca") }
}

#[tokio::test]
async fn a_study_gives_so_many_workspaces_and_sessions_and_no_more() {
    let house = house().await;
    house.grant(600).await;
    let (alice, admin) = (entry("alice"), entry("admin"));
    let few = [(Limit::Workspaces, 2), (Limit::Sessions, 2), (Limit::Memory, 512)];
    let refused = house.gate.set_limits(&alice, &study("brca"), &few).await.unwrap_err();
    assert_eq!(refused.code, "role-missing");
    let none = house.gate.set_limits(&admin, &study("brca"), &[(Limit::Sessions, 0)]).await.unwrap_err();
    assert_eq!(
        (none.kind, none.message.as_str()),
        (RefusalKind::Malformed, "Sessions is from 1 to 1024, not 0.")
    );
    house.gate.set_limits(&admin, &study("brca"), &few).await.unwrap();

    let main = house.gate.open_session(&alice, &knock("brca")).await.unwrap();
    assert_eq!((main.action().workspace.as_str(), main.action().limits.memory_mib), ("ws:brca.alice", 512));
    let big = house.gate.open_session(&alice, &knock_at("big")).await.unwrap();
    assert_eq!(big.action().workspace.as_str(), "ws:brca.alice.big");
    let sealed = house.gate.session_ticket(&big, &agent()).unwrap();
    let Order::Session(order) = open(&sealed, &house.ca, &house.domain, &agent(), NOON).unwrap().order else {
        panic!("not a session")
    };
    assert_eq!((order.name.as_str(), order.limits.memory_mib), ("big", 512));

    let third = house.gate.open_session(&alice, &knock_at("third")).await.unwrap_err();
    assert!(third.message.contains("2 workspaces, and you have 2"), "{}", third.message);
    let record = house.entries()[usize::try_from(third.record.unwrap()).unwrap()].clone();
    assert!(record.contains("over-limit") && record.contains("study:brca/limits/workspaces"), "{record}");
    let more = house.gate.open_session(&alice, &knock("brca")).await.unwrap_err();
    assert!(more.message.contains("2 sessions at once, and you have 2"), "{}", more.message);
    // A forwarded port does not count.
    house.gate.set_channels(&admin, &study("brca"), &[Channel::LocalForward], &[]).await.unwrap();
    house.gate.open_session(&alice, &open_as(Wanted::Forward(8888))).await.unwrap();
    house.gate.close_session(main, ended()).await.unwrap();
    house.gate.open_session(&alice, &knock("brca")).await.unwrap();
    let choices = house.gate.choices(&person("alice")).await.unwrap();
    assert_eq!(choices, [workspace("big"), workspace("main")]);
}

/// However many knock at once, a study's number holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_as_many_sessions_as_there_are() {
    let house = house().await;
    house.grant(600).await;
    house.gate.set_limits(&entry("admin"), &study("brca"), &[(Limit::Sessions, 5)]).await.unwrap();
    let knocking: Vec<_> = (0..20)
        .map(|_| {
            let gate = house.gate.clone();
            tokio::spawn(async move { gate.open_session(&entry("alice"), &knock("brca")).await })
        })
        .collect();
    let mut open = Vec::new();
    for knocked in knocking {
        match knocked.await.unwrap() {
            Ok(permit) => open.push(permit),
            Err(refusal) => assert_eq!(refusal.code, "over-limit"),
        }
    }
    assert_eq!(open.len(), 5);
}

#[tokio::test]
async fn a_workspace_runs_on_as_long_as_its_person_may_and_not_longer() {
    let house = house().await;
    let grant = house.grant(600).await;
    let permit = house.gate.open_session(&entry("alice"), &knock("brca")).await.unwrap();
    let id = permit.action().workspace.clone();
    house.gate.close_session(permit, ended()).await.unwrap();
    let keep = house.gate.keep_workspace(&agent(), &id, None).await.unwrap().unwrap();
    let record = &house.entries()[usize::try_from(keep.record()).unwrap()];
    assert!(record.contains("ws:brca.alice runs on agent:hall-1") && record.contains("permit"), "{record}");
    assert!(house.gate.keep_workspace(&agent(), &id, Some(&keep)).await.unwrap().is_none(), "nothing new");
    let elsewhere = AgentId::from_name("hall-2").unwrap();
    let refused = house.gate.keep_workspace(&elsewhere, &id, None).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::NotFound);

    // It is ended like a session, and is none.
    assert_eq!(house.gate.revoke_grant(&entry("admin"), &grant, "withdrawn").await.unwrap(), 0);
    assert_eq!(keep.ended().await.cause, audit::EndCause::GrantRevoked);
    let refused = house.gate.keep_workspace(&agent(), &id, None).await.unwrap_err();
    assert_eq!((refused.kind, refused.code.as_str()), (RefusalKind::Denied, "nothing-granted"));
    let errand = house.gate.stop_order(&agent(), &id, "nothing is granted").unwrap();
    let ticket = open(&errand.ticket, &house.ca, &house.domain, &agent(), NOON).unwrap();
    assert!(matches!(ticket.order, Order::Workspace(order) if order.workspace == id));
}

#[tokio::test]
async fn whoever_leads_a_study_may_stop_its_workspaces_and_let_them_go_on() {
    let house = house().await;
    house.grant(600).await;
    let (admin, alice, bob) = (entry("admin"), entry("alice"), entry("bob"));
    house.gate.add_member(&admin, &study("brca"), &person("bob"), &researcher()).await.unwrap();
    let open = house.gate.open_session(&alice, &knock("brca")).await.unwrap();
    house.gate.close_session(open, ended()).await.unwrap();
    let stop = async |by: &Entry| {
        house.gate.stop_workspace(by, &person("alice"), &workspace("main"), "runs hot").await
    };
    assert_eq!(stop(&bob).await.unwrap_err().kind, RefusalKind::Denied);
    let lead = RoleId::from_name("lead").unwrap();
    house.gate.add_member(&admin, &study("brca"), &person("bob"), &lead).await.unwrap();
    assert_eq!(house.gate.workspaces(&bob, Some(&study("brca"))).await.unwrap().len(), 1);
    assert!(house.gate.workspaces(&alice, Some(&study("brca"))).await.is_err());
    stop(&bob).await.unwrap();
    let held = house.gate.open_session(&alice, &knock("brca")).await.unwrap_err();
    assert_eq!(held.code, "workspace-held");
    assert!(held.message.contains("u:bob (runs hot)"), "{}", held.message);
    let resume =
        async |by: &Entry| house.gate.resume_workspace(by, &person("alice"), &workspace("main")).await;
    assert_eq!(resume(&alice).await.unwrap_err().kind, RefusalKind::Denied, "not by whoever is held");
    resume(&bob).await.unwrap();
    let again = house.gate.open_session(&alice, &knock("brca")).await.unwrap();
    // One's own starts again when it is entered; security staff may stop anybody's.
    stop(&alice).await.unwrap();
    house.gate.open_session(&alice, &knock("brca")).await.unwrap();
    stop(&admin).await.unwrap();
    assert_eq!(house.gate.open_session(&alice, &knock("brca")).await.unwrap_err().code, "workspace-held");
    let used = house.gate.remove_workspace(&alice, &person("alice"), &workspace("main")).await.unwrap_err();
    assert_eq!(used.code, "in-use");
    drop(again);
    assert_eq!(house.gate.workspaces(&alice, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_workspace_stays_where_it_lies_and_a_new_one_asks_where_its_data_is() {
    let house = house().await;
    house.grant(600).await;
    let (alice, admin) = (entry("alice"), entry("admin"));
    let deposit = house.gate.deposit(&admin, &dataset("cancer"), "reads.bam", &agent()).await.unwrap();
    let north = BackendId::from_name("north").unwrap();
    house.gate.deposit_completed(deposit, 42, [9; 32], vec![north.clone()]).await.unwrap();
    let at = house.gate.whereabouts(&alice.person, &workspace("main")).await.unwrap();
    assert_eq!((at.home, at.backends), (None, [north].into()));
    let first = house.gate.open_session(&alice, &knock("brca")).await.unwrap();
    let at = house.gate.whereabouts(&alice.person, &workspace("main")).await.unwrap();
    assert_eq!((at.workspace, at.home), (first.action().workspace.clone(), Some(agent())));
    let elsewhere = AgentId::from_name("hall-2").unwrap();
    house.store.enrol_agent(&elsewhere, NOON).await.unwrap();
    let moved = SessionRequest { agent: elsewhere.clone(), ..knock("brca") };
    let refused = house.gate.open_session(&alice, &moved).await.unwrap_err();
    assert_eq!(refused.code, "workspace-moved");
    assert!(house.gate.drain_agent(&alice, &elsewhere, true).await.is_err());
    house.gate.drain_agent(&admin, &elsewhere, true).await.unwrap();
    let at = house.gate.whereabouts(&alice.person, &workspace("main")).await.unwrap();
    assert_eq!(at.draining, [elsewhere.clone()].into());
    house.gate.drain_agent(&admin, &elsewhere, false).await.unwrap();
    let at = house.gate.whereabouts(&alice.person, &workspace("main")).await.unwrap();
    assert!(at.draining.is_empty());
}
