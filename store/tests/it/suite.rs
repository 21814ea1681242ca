//! What every database behind the records must do.

use std::collections::BTreeSet;

use model::{
    AgentId, BackendId, DatasetId, GrantId, ObjectId, PersonId, RoleId, SessionId, StudyId, Timestamp,
    WorkspaceId,
};
use policy::{Grantee, Limit, Membership, RecordingMode, RecordingRule, StudyLimits};
use store::{
    Agent, AgentState, Claim, Dataset, DeviceKey, DeviceKeyState, EnrolmentToken, Grant, GrantState,
    KeptFile, KeptRecord, KeptState, KeptSubject, Object, ObjectState, Person, PersonState, Recording,
    RecordingFilter, RecordingOutcome, Session, SessionState, Store, StoreError, Study, StudyState,
    TakeError, TokenSubject, Workspace, WorkspaceState,
};

/// Runs every check on every database: a name and how to open an empty store in a folder.
macro_rules! suite {
    ($($database:ident($folder:ident) => $open:expr;)*) => {$(
        mod $database {
            use super::Store;

            async fn open($folder: &std::path::Path) -> Store {
                let _ = $folder;
                $open.await.unwrap()
            }

            suite! { @checks
                people_are_recorded_locked_and_unlocked, device_keys_belong_to_one_person_and_retire,
                a_token_is_taken_once, of_many_takers_one_wins, studies_and_members, datasets_and_conditions,
                grants_and_their_revocation, objects_go_through_their_states, names_of_objects_are_unique,
                agents_are_enrolled_seen_and_retired, sessions_open_and_close,
                the_epoch_grows_with_whatever_policy_depends_on, a_failed_change_leaves_no_trace,
                a_snapshot_is_of_one_instant, workspaces_are_claimed_within_a_number_held_and_removed,
                studies_keep_their_limits, references_must_exist, odd_text_survives,
                recordings_are_found_by_what_is_asked_for,
                records_of_the_house_are_kept_once, parts_of_the_log_are_found_by_their_entries,
            }
        }
    )*};
    (@checks $($check:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $check() {
            let folder = tempfile::tempdir().unwrap();
            super::$check(open(folder.path()).await).await;
        }
    )*};
}

suite! {
    sqlite_file(folder) => Store::open(&folder.join("records.sqlite"));
    sqlite_memory(folder) => Store::in_memory();
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn who(name: &str) -> PersonId {
    PersonId::from_name(name).unwrap()
}

fn role(name: &str) -> RoleId {
    RoleId::from_name(name).unwrap()
}

fn person(name: &str) -> Person {
    Person {
        id: who(name),
        display_name: name.to_uppercase(),
        roles: vec![role("steward")],
        recorded_at: at(1),
        state: PersonState::Active,
    }
}

fn study(name: &str) -> Study {
    Study {
        id: StudyId::from_name(name).unwrap(),
        title: format!("Study {name}"),
        purposes: vec!["DS:MONDO:0007254".to_owned()],
        until: at(1_000),
        state: StudyState::Active,
        channels: policy::ChannelRules::default(),
        recording: policy::RecordingRule::default(),
        supervision: policy::SupervisionRule::default(),
        limits: StudyLimits::default(),
    }
}

fn backend(name: &str) -> BackendId {
    BackendId::from_name(name).unwrap()
}

fn workspace(id: &str, of: &str, name: &str) -> Workspace {
    Workspace {
        id: WorkspaceId::from_name(id).unwrap(),
        study: StudyId::from_name("brca").unwrap(),
        person: who(of),
        name: name.parse().unwrap(),
        agent: AgentId::from_name("main").unwrap(),
        created_at: at(5),
        used_at: at(5),
        state: WorkspaceState::Open,
    }
}

fn dataset(name: &str) -> Dataset {
    Dataset {
        id: DatasetId::from_name(name).unwrap(),
        title: format!("Dataset {name}"),
        conditions: vec![vec!["GRU".to_owned(), "NPU".to_owned()], vec!["HMB".to_owned()]],
    }
}

fn member(name: &str, of: &str) -> Membership {
    Membership { person: who(name), study: StudyId::from_name(of).unwrap(), role: role("researcher") }
}

fn grant(id: &str, of: &str, on: &str) -> Grant {
    Grant {
        id: GrantId::from_name(id).unwrap(),
        study: StudyId::from_name(of).unwrap(),
        dataset: DatasetId::from_name(on).unwrap(),
        grantee: Grantee::Role(role("researcher")),
        not_before: at(10),
        not_after: at(20),
        granted_by: who("alice"),
        state: GrantState::Active,
    }
}

fn object(id: &str, on: &str, name: &str) -> Object {
    Object {
        id: ObjectId::from_name(id).unwrap(),
        dataset: DatasetId::from_name(on).unwrap(),
        name: name.to_owned(),
        deposited_by: who("alice"),
        begun_at: at(5),
        backends: Vec::new(),
        state: ObjectState::Pending,
    }
}

/// alice, bob; brca, heart; wgs.
async fn furnished(store: Store) -> Store {
    store.create_person(&person("alice")).await.unwrap();
    store.create_person(&person("bob")).await.unwrap();
    store.create_study(&study("brca")).await.unwrap();
    store.create_study(&study("heart")).await.unwrap();
    store.create_dataset(&dataset("wgs")).await.unwrap();
    store
}

async fn people_are_recorded_locked_and_unlocked(store: Store) {
    let (alice, bob) = (who("alice"), who("bob"));
    assert_eq!(store.person(&alice).await.unwrap(), None);
    store.create_person(&person("alice")).await.unwrap();
    store.create_person(&person("bob")).await.unwrap();
    assert_eq!(store.person(&alice).await.unwrap(), Some(person("alice")));
    assert_eq!(store.people().await.unwrap(), [person("alice"), person("bob")]);
    assert!(matches!(store.create_person(&person("alice")).await, Err(StoreError::Conflict(_))));

    store.lock_person(&alice, at(7), &bob, "key lost").await.unwrap();
    let locked = PersonState::Locked { at: at(7), by: bob.clone(), reason: "key lost".to_owned() };
    assert_eq!(store.person(&alice).await.unwrap().unwrap().state, locked);
    let again = store.lock_person(&alice, at(8), &bob, "again").await;
    assert!(matches!(again, Err(StoreError::Transition { .. })));
    assert_eq!(store.person(&alice).await.unwrap().unwrap().state, locked);
    store.unlock_person(&alice).await.unwrap();
    assert_eq!(store.person(&alice).await.unwrap(), Some(person("alice")));
    assert!(matches!(store.unlock_person(&alice).await, Err(StoreError::Transition { .. })));
    assert!(matches!(store.unlock_person(&who("nobody")).await, Err(StoreError::NotFound(_))));

    store.set_roles(&alice, &[role("security"), role("operator")]).await.unwrap();
    assert_eq!(store.person(&alice).await.unwrap().unwrap().roles, [role("security"), role("operator")]);
    store.set_roles(&alice, &[]).await.unwrap();
    assert_eq!(store.person(&alice).await.unwrap().unwrap().roles, []);
}

async fn device_keys_belong_to_one_person_and_retire(store: Store) {
    let store = furnished(store).await;
    let key = |name: &str, text: &str, secs| DeviceKey {
        person: who(name),
        public_key: text.to_owned(),
        enrolled_at: at(secs),
        state: DeviceKeyState::Active,
    };
    let (first, second) = (key("alice", "ssh-ed25519 AAAA1", 9), key("alice", "ssh-ed25519 AAAA0", 8));
    store.add_device_key(&first).await.unwrap();
    store.add_device_key(&second).await.unwrap();
    assert_eq!(store.device_keys(&who("alice")).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(store.device_keys(&who("bob")).await.unwrap(), []);
    let stolen = store.add_device_key(&key("bob", "ssh-ed25519 AAAA1", 10)).await;
    assert!(matches!(stolen, Err(StoreError::Conflict(_))));

    store.retire_device_key(&first.public_key, at(11)).await.unwrap();
    let found = store.device_key(&first.public_key).await.unwrap().unwrap();
    assert_eq!(found.state, DeviceKeyState::Retired { at: at(11) });
    let again = store.retire_device_key(&first.public_key, at(12)).await;
    assert!(matches!(again, Err(StoreError::Transition { .. })));
    assert!(matches!(store.retire_device_key("x", at(12)).await, Err(StoreError::NotFound(_))));
    assert_eq!(store.device_key("x").await.unwrap(), None);
}

fn token(hash: u8) -> EnrolmentToken {
    EnrolmentToken { hash: [hash; 32], subject: TokenSubject::Person(who("alice")), expires: at(100) }
}

async fn a_token_is_taken_once(store: Store) {
    store.create_token(&token(1)).await.unwrap();
    assert!(matches!(store.create_token(&token(1)).await, Err(StoreError::Conflict(_))));
    assert!(matches!(store.take_token(&[9; 32], at(50)).await, Err(TakeError::Unknown)));
    let taken = store.take_token(&[1; 32], Timestamp::from_millis(99_999)).await.unwrap();
    assert_eq!(taken, TokenSubject::Person(who("alice")));
    assert!(matches!(store.take_token(&[1; 32], at(50)).await, Err(TakeError::Used)));
    assert!(matches!(store.take_token(&[1; 32], at(500)).await, Err(TakeError::Used)));

    store.create_token(&token(2)).await.unwrap();
    assert!(matches!(store.take_token(&[2; 32], at(100)).await, Err(TakeError::Expired)));

    let agent = AgentId::from_name("tokyo").unwrap();
    let subject = TokenSubject::Agent(agent);
    store.create_token(&EnrolmentToken { subject: subject.clone(), ..token(3) }).await.unwrap();
    assert_eq!(store.take_token(&[3; 32], at(50)).await.unwrap(), subject);
}

async fn of_many_takers_one_wins(store: Store) {
    for round in 0..8 {
        store.create_token(&token(round)).await.unwrap();
        let takers: Vec<_> = (0..16)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.take_token(&[round; 32], at(50)).await })
            })
            .collect();
        let mut won = 0;
        for taker in takers {
            match taker.await.unwrap() {
                Ok(_) => won += 1,
                Err(TakeError::Used) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(won, 1);
    }
}

async fn studies_and_members(store: Store) {
    let store = furnished(store).await;
    let id = study("brca").id;
    assert_eq!(store.study(&id).await.unwrap(), Some(study("brca")));
    assert_eq!(store.studies().await.unwrap(), [study("brca"), study("heart")]);
    assert!(matches!(store.create_study(&study("brca")).await, Err(StoreError::Conflict(_))));

    store.add_member(&member("alice", "brca")).await.unwrap();
    store.add_member(&member("alice", "heart")).await.unwrap();
    store.add_member(&member("bob", "brca")).await.unwrap();
    assert!(matches!(store.add_member(&member("bob", "brca")).await, Err(StoreError::Conflict(_))));
    let members = store.members(&id).await.unwrap();
    assert_eq!(members, [member("alice", "brca"), member("bob", "brca")]);
    let mine = store.memberships_of(&who("alice")).await.unwrap();
    assert_eq!(mine, [member("alice", "brca"), member("alice", "heart")]);
    store.remove_member(&member("alice", "brca")).await.unwrap();
    assert_eq!(store.members(&id).await.unwrap(), [member("bob", "brca")]);
    assert!(matches!(store.remove_member(&member("alice", "brca")).await, Err(StoreError::NotFound(_))));

    let rule = RecordingRule { mode: RecordingMode::BestEffort, input: true, ..RecordingRule::default() };
    store.set_recording(&id, rule).await.unwrap();
    let watched = policy::SupervisionRule { moderated: true, ..policy::SupervisionRule::default() };
    store.set_supervision(&id, watched).await.unwrap();
    assert_eq!(store.study(&id).await.unwrap().unwrap().supervision, watched);
    assert_eq!(store.study(&id).await.unwrap().unwrap().recording, rule);

    store.set_study_until(&id, at(2_000)).await.unwrap();
    assert_eq!(store.study(&id).await.unwrap().unwrap().until, at(2_000));
    store.close_study(&id, at(30)).await.unwrap();
    assert_eq!(store.study(&id).await.unwrap().unwrap().state, StudyState::Closed { at: at(30) });
    assert!(matches!(store.close_study(&id, at(31)).await, Err(StoreError::Transition { .. })));
}

async fn datasets_and_conditions(store: Store) {
    let store = furnished(store).await;
    let id = dataset("wgs").id;
    assert_eq!(store.dataset(&id).await.unwrap(), Some(dataset("wgs")));
    assert_eq!(store.datasets().await.unwrap(), [dataset("wgs")]);
    let changed = vec![vec!["POA".to_owned()]];
    store.set_conditions(&id, &changed).await.unwrap();
    assert_eq!(store.dataset(&id).await.unwrap().unwrap().conditions, changed);
    let unknown = DatasetId::from_name("nothing").unwrap();
    assert!(matches!(store.set_conditions(&unknown, &changed).await, Err(StoreError::NotFound(_))));
}

async fn grants_and_their_revocation(store: Store) {
    let store = furnished(store).await;
    let mine = Grant { grantee: Grantee::Person(who("bob")), ..grant("g2", "brca", "wgs") };
    store.create_grant(&grant("g1", "brca", "wgs")).await.unwrap();
    store.create_grant(&mine).await.unwrap();
    assert_eq!(store.grants().await.unwrap(), [grant("g1", "brca", "wgs"), mine.clone()]);
    assert_eq!(store.grant(&mine.id).await.unwrap(), Some(mine.clone()));

    store.revoke_grant(&mine.id, at(15), &who("bob"), "left").await.unwrap();
    let state = GrantState::Revoked { at: at(15), by: who("bob"), reason: "left".to_owned() };
    assert_eq!(store.grant(&mine.id).await.unwrap().unwrap().state, state);
    let again = store.revoke_grant(&mine.id, at(16), &who("bob"), "again").await;
    assert!(matches!(again, Err(StoreError::Transition { .. })));
    let none = GrantId::from_name("none").unwrap();
    let unknown = store.revoke_grant(&none, at(16), &who("bob"), "x").await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
}

async fn objects_go_through_their_states(store: Store) {
    let store = furnished(store).await;
    let (one, two) = (object("o1", "wgs", "a.cram"), object("o2", "wgs", "b.cram"));
    store.create_object(&one).await.unwrap();
    store.create_object(&two).await.unwrap();
    assert_eq!(store.objects(&one.dataset).await.unwrap(), [one.clone(), two.clone()]);
    let done = store.complete_object(&one.id, u64::MAX >> 1, [7; 32], &[backend("a")], at(9)).await.unwrap();
    let stored = ObjectState::Stored { size: u64::MAX >> 1, manifest_root: [7; 32], at: at(9) };
    assert_eq!((&done.state, done.backends.as_slice()), (&stored, &[backend("a")][..]));
    assert_eq!(store.object(&one.id).await.unwrap(), Some(done));
    let again = store.complete_object(&one.id, 1, [8; 32], &[], at(10)).await;
    assert!(matches!(again, Err(StoreError::Transition { .. })));
    assert!(matches!(store.abandon_object(&one.id, at(10)).await, Err(StoreError::Transition { .. })));
    let huge = store.complete_object(&two.id, u64::MAX, [8; 32], &[], at(10)).await;
    assert!(matches!(huge, Err(StoreError::Conflict(_))));

    assert_eq!(store.abandon_pending(at(11)).await.unwrap(), 1);
    assert_eq!(store.abandon_pending(at(12)).await.unwrap(), 0);
    assert_eq!(store.object(&two.id).await.unwrap().unwrap().state, ObjectState::Abandoned { at: at(11) });
    assert_eq!(store.objects(&one.dataset).await.unwrap().len(), 1);
}

fn kept(object: &str, subject: KeptSubject) -> KeptRecord {
    let object = ObjectId::from_name(object).unwrap();
    KeptRecord { object, subject, begun_at: at(1), state: KeptState::Pending, since: 3 }
}

fn segment(first: u64, count: u64) -> KeptSubject {
    KeptSubject::AuditSegment { first, count }
}

fn file(content_root: Option<[u8; 32]>) -> KeptFile {
    KeptFile { size: u64::MAX >> 1, sha256: [5; 32], content_root, manifest_root: [7; 32] }
}

async fn records_of_the_house_are_kept_once(store: Store) {
    let session = SessionId::from_name("s1").unwrap();
    let recording = kept("kept-r", KeptSubject::SessionRecording { session });
    let part = kept("kept-1", segment(0, 256));
    store.begin_kept(&recording).await.unwrap();
    store.begin_kept(&part).await.unwrap();
    let twice = store.begin_kept(&kept("kept-2", segment(0, 256))).await;
    assert!(matches!(twice, Err(StoreError::Conflict(_))), "{twice:?}");
    assert_eq!(store.kept_of(&part.subject).await.unwrap().as_ref(), Some(&part));
    assert_eq!(store.kept_in(None, "pending", 9).await.unwrap().len(), 2);
    assert_eq!(store.kept_in(None, "pending", 1).await.unwrap().len(), 1);
    let recordings = store.kept_in(Some("session-recording"), "pending", 9).await.unwrap();
    assert_eq!(recordings.as_slice(), std::slice::from_ref(&recording));

    let early = store.change_kept(&part.object, 9, |state| state.keep(1, at(2))).await;
    assert!(matches!(early, Err(StoreError::Transition { .. })));
    let stored = store.change_kept(&part.object, 9, |s| s.store(file(Some([6; 32])))).await.unwrap();
    assert_eq!((stored.since, stored.state.kept()), (9, None));
    assert_eq!(store.kept(&part.object).await.unwrap().as_ref(), Some(&stored));
    let again = store.change_kept(&part.object, 10, |s| s.store(file(None))).await;
    assert!(matches!(again, Err(StoreError::Transition { .. })));
    let done = store.change_kept(&part.object, 11, |s| s.keep(10, at(2))).await.unwrap();
    assert_eq!(done.state, KeptState::Kept { file: file(Some([6; 32])), record: 10, at: at(2) });
    let moving = store.change_kept(&part.object, 12, KeptState::begin_move).await.unwrap();
    assert_eq!((moving.since, moving.state.code()), (12, "moving"));
    let begun_again = store.change_kept(&part.object, 20, KeptState::begin_move).await.unwrap();
    assert_eq!(begun_again.since, 12, "what is looked for in the log may stand there since");
    let moved = store.change_kept(&part.object, 21, KeptState::end_move).await.unwrap();
    assert_eq!(store.kept_in(Some("audit-segment"), "moved", 9).await.unwrap(), [moved]);
    let recorded = store.change_kept(&recording.object, 9, |s| s.store(file(None))).await.unwrap();
    assert_eq!(recorded.state.file(), Some(&file(None)));
    assert_eq!(store.kept_recordings().await.unwrap(), [recorded]);
    let unknown = ObjectId::from_name("kept-9").unwrap();
    let unknown = store.change_kept(&unknown, 9, KeptState::end_move).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
}

async fn parts_of_the_log_are_found_by_their_entries(store: Store) {
    assert_eq!(store.last_segment().await.unwrap(), None);
    let parts = [
        kept("kept-0", segment(0, 256)),
        kept("kept-1", segment(256, 256)),
        kept("kept-2", segment(512, 512)),
    ];
    for part in [&parts[1], &parts[0], &parts[2]] {
        store.begin_kept(part).await.unwrap();
    }
    assert_eq!(store.last_segment().await.unwrap().as_ref(), Some(&parts[2]));
    for (from, to, found) in [
        (0, 1, &parts[..1]),
        (255, 257, &parts[..2]),
        (256, 512, &parts[1..2]),
        (512, u64::MAX, &parts[2..]),
        (1024, 2000, &[]),
    ] {
        assert_eq!(store.kept_segments(from, to).await.unwrap(), found, "{from} to {to}");
    }
}

async fn names_of_objects_are_unique(store: Store) {
    let store = furnished(store).await;
    store.create_object(&object("o1", "wgs", "a.cram")).await.unwrap();
    let taken = store.create_object(&object("o2", "wgs", "a.cram")).await;
    assert!(matches!(taken, Err(StoreError::Conflict(_))));
    store.abandon_object(&object("o1", "wgs", "a.cram").id, at(6)).await.unwrap();
    store.create_object(&object("o2", "wgs", "a.cram")).await.unwrap();
}

async fn agents_are_enrolled_seen_and_retired(store: Store) {
    let id = AgentId::from_name("tokyo").unwrap();
    assert!(matches!(store.agent_seen(&id, at(1)).await, Err(StoreError::NotFound(_))));
    store.enrol_agent(&id, at(5)).await.unwrap();
    store.agent_seen(&id, at(9)).await.unwrap();
    store.agent_seen(&id, at(8)).await.unwrap();
    let seen = |enrolled, state| Agent {
        id: id.clone(),
        enrolled_at: at(enrolled),
        last_seen: Some(at(9)),
        draining_since: None,
        state,
    };
    assert_eq!(store.agents().await.unwrap(), [seen(5, AgentState::Active)]);
    store.retire_agent(&id, at(10)).await.unwrap();
    assert_eq!(store.agent(&id).await.unwrap(), Some(seen(5, AgentState::Retired { at: at(10) })));
    assert!(matches!(store.retire_agent(&id, at(11)).await, Err(StoreError::Transition { .. })));
    store.enrol_agent(&id, at(12)).await.unwrap();
    assert_eq!(store.agent(&id).await.unwrap(), Some(seen(12, AgentState::Active)));
}

async fn sessions_open_and_close(store: Store) {
    let store = furnished(store).await;
    let agent = AgentId::from_name("tokyo").unwrap();
    store.enrol_agent(&agent, at(5)).await.unwrap();
    let session = |id: &str, secs| Session {
        id: SessionId::from_name(id).unwrap(),
        person: who("alice"),
        study: study("brca").id,
        agent: agent.clone(),
        opened: at(secs),
        state: SessionState::Open,
    };
    let (one, two, three) = (session("s1", 10), session("s2", 11), session("s3", 12));
    for session in [&one, &two, &three] {
        store.open_session(session).await.unwrap();
    }
    assert_eq!(store.session(&two.id).await.unwrap(), Some(two.clone()));
    assert_eq!(store.sessions(2).await.unwrap(), [three.clone(), two.clone()]);
    store.close_session(&one.id, at(20), "exit 0").await.unwrap();
    let closed = SessionState::Closed { at: at(20), outcome: "exit 0".to_owned() };
    assert_eq!(store.session(&one.id).await.unwrap().unwrap().state, closed);
    let again = store.close_session(&one.id, at(21), "x").await;
    assert!(matches!(again, Err(StoreError::Transition { .. })));
    assert_eq!(store.open_sessions().await.unwrap(), [two, three]);
    assert_eq!(store.close_open_sessions(at(30), "broker restarted").await.unwrap(), 2);
    assert_eq!(store.open_sessions().await.unwrap(), []);
    assert_eq!(store.session(&one.id).await.unwrap().unwrap().state, closed);
}

async fn recordings_are_found_by_what_is_asked_for(store: Store) {
    let store = furnished(store).await;
    let agent = AgentId::from_name("tokyo").unwrap();
    store.enrol_agent(&agent, at(5)).await.unwrap();
    let mut made = Vec::new();
    for (id, person, secs) in [("s1", "alice", 10_i64), ("s2", "bob", 20), ("s3", "alice", 30)] {
        let record = 40 + secs.unsigned_abs();
        let session = Session {
            id: SessionId::from_name(id).unwrap(),
            person: who(person),
            study: study("brca").id,
            agent: agent.clone(),
            opened: at(secs),
            state: SessionState::Open,
        };
        store.open_session(&session).await.unwrap();
        let recording = Recording {
            session: session.id,
            person: session.person,
            study: session.study,
            command: (id == "s2").then(|| "samtools view 研究".to_owned()),
            begun: at(secs),
            millis: 1_500,
            events: 7,
            bytes: u64::from(u32::MAX) + 1,
            sha256: [1; 32],
            stored_bytes: 9,
            stored_sha256: [255; 32],
            elided: 3,
            outcome: RecordingOutcome::Interrupted,
            record,
            entry: "{\"message\": \"研究\"}".to_owned(),
        };
        store.add_recording(&recording).await.unwrap();
        made.push(recording);
    }
    assert_eq!(store.recording(&made[1].session).await.unwrap(), Some(made[1].clone()));
    assert!(matches!(store.add_recording(&made[1]).await, Err(StoreError::Conflict(_))));
    let found = async |filter: RecordingFilter, limit| store.recordings(&filter, limit).await.unwrap();
    let all = RecordingFilter::default();
    assert_eq!(found(all.clone(), 2).await, [made[2].clone(), made[1].clone()]);
    let hers = RecordingFilter { person: Some(who("alice")), ..all.clone() };
    assert_eq!(found(hers.clone(), 9).await, [made[2].clone(), made[0].clone()]);
    let late = RecordingFilter { from: Some(at(20)), to: Some(at(29)), ..all.clone() };
    assert_eq!(found(late, 9).await, [made[1].clone()]);
    let elsewhere = RecordingFilter { study: Some(study("heart").id), ..hers };
    assert_eq!(found(elsewhere, 9).await, []);
    let stranger = Recording { session: SessionId::from_name("s9").unwrap(), ..made[0].clone() };
    assert!(store.add_recording(&stranger).await.is_err(), "of no session");

    // What is to be kept: what is whole, of sessions that are over, in the order of the log.
    let due = async |from| store.recordings_due(from, 9).await.unwrap();
    assert_eq!(due(0).await, []);
    for recording in &made {
        store.close_session(&recording.session, at(40), "code 0").await.unwrap();
    }
    assert_eq!(due(0).await, made);
    assert_eq!(due(made[1].record).await, made[1..]);
    assert_eq!(store.recordings_due(0, 1).await.unwrap(), made[..1]);
    let subject =
        |recording: &Recording| KeptSubject::SessionRecording { session: recording.session.clone() };
    let row = kept("kept-s2", subject(&made[1]));
    store.begin_kept(&row).await.unwrap();
    let stored = store.change_kept(&row.object, 3, |s| s.store(file(None))).await.unwrap();
    assert_eq!(store.recordings_due_count(0).await.unwrap(), 3, "the log does not say so yet");
    let kept_now = store.change_kept(&stored.object, 4, |s| s.keep(70, at(50))).await.unwrap();
    assert_eq!(due(0).await, [made[0].clone(), made[2].clone()]);
    assert_eq!(store.recordings_due_count(made[1].record).await.unwrap(), 1);
    let subjects: Vec<_> = made.iter().map(subject).collect();
    assert_eq!(store.kept_among(&subjects).await.unwrap(), [kept_now]);
}

async fn the_epoch_grows_with_whatever_policy_depends_on(store: Store) {
    let mut seen = store.policy_epoch().await.unwrap();
    let (alice, brca, wgs) = (who("alice"), study("brca").id, dataset("wgs").id);
    macro_rules! grows {
        ($($change:expr),* $(,)?) => {$(
            let told = $change.await.unwrap();
            assert_eq!(told, seen + 1, stringify!($change));
            seen = store.policy_epoch().await.unwrap();
            assert_eq!(told, seen);
        )*};
    }
    grows! {
        store.create_person(&person("alice")), store.create_study(&study("brca")),
        store.create_dataset(&dataset("wgs")), store.add_member(&member("alice", "brca")),
        store.create_grant(&grant("g1", "brca", "wgs")), store.set_conditions(&wgs, &[]),
        store.revoke_grant(&grant("g1", "brca", "wgs").id, at(9), &alice, "x"),
        store.lock_person(&alice, at(9), &alice, "x"), store.unlock_person(&alice),
        store.set_recording(&brca, RecordingRule::default()),
        store.set_supervision(&brca, policy::SupervisionRule::default()),
        store.set_roles(&alice, &[]), store.set_study_until(&brca, at(9)),
        store.remove_member(&member("alice", "brca")), store.close_study(&brca, at(9)),
    }
    store.create_object(&object("o1", "wgs", "a")).await.unwrap();
    store.create_token(&token(1)).await.unwrap();
    assert_eq!(store.policy_epoch().await.unwrap(), seen);
}

async fn a_failed_change_leaves_no_trace(store: Store) {
    let store = furnished(store).await;
    let before = store.policy_snapshot().await.unwrap();
    assert!(store.create_person(&person("alice")).await.is_err());
    assert!(store.create_grant(&grant("g1", "brca", "nothing")).await.is_err());
    assert!(store.remove_member(&member("alice", "brca")).await.is_err());
    assert_eq!(store.policy_snapshot().await.unwrap(), before);
    // The connection that failed serves the next call.
    store.add_member(&member("alice", "brca")).await.unwrap();
    assert_eq!(store.policy_epoch().await.unwrap(), before.epoch + 1);
}

async fn a_snapshot_is_of_one_instant(store: Store) {
    let store = furnished(store).await;
    store.add_member(&member("alice", "brca")).await.unwrap();
    store.add_member(&member("bob", "heart")).await.unwrap();
    store.create_grant(&grant("gone", "brca", "wgs")).await.unwrap();
    store.revoke_grant(&grant("gone", "brca", "wgs").id, at(9), &who("alice"), "x").await.unwrap();
    let base = store.policy_epoch().await.unwrap();

    // Every change from here on adds one grant, so an honest snapshot has as many as its epoch says.
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..40 {
                let of = if i % 2 == 0 { "brca" } else { "heart" };
                store.create_grant(&grant(&format!("g{i}"), of, "wgs")).await.unwrap();
            }
        })
    };
    let mut epochs = BTreeSet::new();
    while !writer.is_finished() {
        let snapshot = store.policy_snapshot().await.unwrap();
        assert_eq!(snapshot.grants.len() as u64, snapshot.epoch - base);
        epochs.insert(snapshot.epoch);
    }
    writer.await.unwrap();
    let last = store.policy_snapshot().await.unwrap();
    assert_eq!((last.grants.len(), last.memberships.len()), (40, 2));
    let brca = store.study_policy(&study("brca").id).await.unwrap();
    assert_eq!((brca.epoch, brca.grants.len()), (last.epoch, 20));
    assert_eq!(brca.memberships, [member("alice", "brca")]);
    policy::PolicySet::build(last.epoch, &last.memberships, &last.grants).unwrap();
}

async fn workspaces_are_claimed_within_a_number_held_and_removed(store: Store) {
    let store = furnished(store).await;
    store.enrol_agent(&AgentId::from_name("main").unwrap(), at(1)).await.unwrap();
    let main = workspace("w1", "alice", "main");
    assert_eq!(store.claim_workspace(&main, 2).await.unwrap(), Claim::Made);
    let later = Workspace { used_at: at(9), agent: AgentId::from_name("other").unwrap(), ..main.clone() };
    assert_eq!(store.claim_workspace(&later, 2).await.unwrap(), Claim::Known(main.clone()));
    let used = Workspace { used_at: at(9), ..main.clone() };
    assert_eq!(store.workspace(&main.id).await.unwrap(), Some(used), "it stays where it lies");
    assert_eq!(store.claim_workspace(&workspace("w2", "alice", "big"), 2).await.unwrap(), Claim::Made);
    let third = workspace("w3", "alice", "third");
    assert_eq!(store.claim_workspace(&third, 2).await.unwrap(), Claim::TooMany(2));
    assert_eq!(store.workspace(&third.id).await.unwrap(), None);
    assert_eq!(store.claim_workspace(&workspace("w4", "bob", "main"), 2).await.unwrap(), Claim::Made);
    let names = |all: Vec<Workspace>| all.into_iter().map(|w| w.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.workspaces_of(&who("alice")).await.unwrap()), ["big", "main"]);
    assert_eq!(store.workspaces_in(&main.study).await.unwrap().len(), 3);
    assert_eq!(store.workspaces().await.unwrap().len(), 3);
    let twice = Workspace { id: WorkspaceId::from_name("w5").unwrap(), ..main.clone() };
    assert!(matches!(store.claim_workspace(&twice, 9).await, Err(StoreError::Conflict(_))));

    store.hold_workspace(&main.id, at(11), &who("bob"), "runs wild").await.unwrap();
    let held = WorkspaceState::Held { at: at(11), by: who("bob"), reason: "runs wild".to_owned() };
    assert_eq!(store.workspace(&main.id).await.unwrap().unwrap().state, held);
    store.release_workspace(&main.id).await.unwrap();
    assert_eq!(store.workspace(&main.id).await.unwrap().unwrap().state, WorkspaceState::Open);
    store.remove_workspace(&main.id).await.unwrap();
    assert!(matches!(store.remove_workspace(&main.id).await, Err(StoreError::NotFound(_))));
    assert_eq!(store.claim_workspace(&third, 2).await.unwrap(), Claim::Made);
}

async fn studies_keep_their_limits(store: Store) {
    let store = furnished(store).await;
    let id = study("brca").id;
    let before = store.policy_epoch().await.unwrap();
    let mut limits = StudyLimits::default();
    limits.set(Limit::Sessions, 10).unwrap();
    limits.set(Limit::Disk, 1024).unwrap();
    assert_eq!(store.set_limits(&id, &limits).await.unwrap(), before + 1);
    assert_eq!(store.study(&id).await.unwrap().unwrap().limits, limits);
    assert_eq!(store.study(&study("heart").id).await.unwrap().unwrap().limits, StudyLimits::default());
}

async fn references_must_exist(store: Store) {
    let store = furnished(store).await;
    let conflict = |result: Result<u64, StoreError>| matches!(result, Err(StoreError::Conflict(_)));
    assert!(conflict(store.add_member(&member("nobody", "brca")).await));
    assert!(conflict(store.add_member(&member("alice", "nothing")).await));
    assert!(conflict(store.create_grant(&grant("g1", "brca", "nothing")).await));
    assert!(conflict(store.create_grant(&grant("g1", "nothing", "wgs")).await));
    let orphan = store.create_object(&object("o1", "nothing", "a")).await;
    assert!(matches!(orphan, Err(StoreError::Conflict(_))));
}

async fn odd_text_survives(store: Store) {
    let odd = "関所 \u{0} '; DROP TABLE person; -- \" \\ \n \u{1F9EC}";
    let odd = odd.replace('\u{0}', "");
    let titled = Study { title: odd.clone(), purposes: vec![odd.clone(), String::new()], ..study("brca") };
    store.create_study(&titled).await.unwrap();
    assert_eq!(store.study(&titled.id).await.unwrap(), Some(titled));
    let named = Person { display_name: odd, ..person("alice") };
    store.create_person(&named).await.unwrap();
    assert_eq!(store.person(&named.id).await.unwrap(), Some(named));
}
