//! Acts that take a second officer.

use std::time::Duration;

use gate::{ApprovalSettings, NewPerson, RecordingChange, Refusal, Settings, SupervisionChange};
use model::{ApprovalId, RoleId};
use policy::{ApprovalRules, Channel, Matter, RecordingMode};
use serde_json::Value;
use store::{Approval, ApprovalState};

use super::{House, entry, house_with, person, study};

const HOUR: Duration = Duration::from_secs(3600);

/// A house in which these take a second officer, and kei and may are officers of security too.
async fn house(matters: &[Matter]) -> House {
    let rules = ApprovalRules::of(matters.iter().copied());
    let house = house_with(Settings {
        approvals: ApprovalSettings { rules, lifetime: 24 * HOUR },
        ..Settings::default()
    })
    .await;
    for name in ["kei", "may"] {
        let officer = store::Person {
            id: person(name),
            display_name: name.to_owned(),
            roles: vec![RoleId::from_name("security").unwrap()],
            recorded_at: super::NOON,
            state: store::PersonState::Active,
        };
        house.store.create_person(&officer).await.unwrap();
    }
    house
}

impl House {
    async fn export(&self, by: &str) -> Result<(), Refusal> {
        let done = self.gate.set_channels(&entry(by), &study("brca"), &[Channel::Export], &[]).await;
        done.map(drop)
    }

    async fn approve(&self, by: &str, id: &ApprovalId) -> Result<Approval, Refusal> {
        self.gate.approve(&entry(by), id).await
    }

    fn said(&self, code: &str) -> Vec<Value> {
        let all = self.gate.log().read(0, 10_000).unwrap().into_iter();
        let all = all.map(|(_, entry)| serde_json::from_slice::<Value>(&entry).unwrap());
        all.filter(|record| record["metadata"]["event_code"] == code).collect()
    }
}

/// The request that an act was refused with.
fn asked<T: std::fmt::Debug>(result: Result<T, Refusal>) -> ApprovalId {
    let refused = result.unwrap_err();
    assert_eq!(refused.code, "approval-needed", "{refused}");
    let id = refused.message.split([' ', ',']).find(|word| word.starts_with(ApprovalId::PREFIX));
    id.unwrap().parse().unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    result.unwrap_err().code
}

#[tokio::test]
async fn it_is_asked_for_approved_by_somebody_else_and_done_once() {
    let house = house(&[Matter::Export]).await;
    let allowed = async || {
        let study = house.store.study(&study("brca")).await.unwrap().unwrap();
        study.channels.allows(Channel::Export)
    };
    let request = asked(house.export("admin").await);
    let asked = house.gate.approvals(&entry("admin")).await.unwrap().remove(0);
    assert_eq!(asked.id, request);
    assert_eq!(
        (asked.matter, &asked.asked_by, &asked.state),
        (Matter::Export, &person("admin"), &ApprovalState::Asked)
    );
    assert_eq!(asked.what, "study:brca allow export");
    assert!(!allowed().await);
    // To ask again is the same request.
    assert_eq!(code(house.export("admin").await), "approval-needed");
    assert_eq!(house.gate.approvals(&entry("admin")).await.unwrap().len(), 1);
    let requested = house.said("approval_requested");
    assert_eq!(requested.len(), 1);
    assert_eq!(requested[0]["unmapped"]["what"], "study:brca allow export");

    // Neither who asked, nor who may not do it, nor for what is not there.
    assert_eq!(code(house.approve("admin", &asked.id).await), "own-request");
    assert_eq!(code(house.approve("alice", &asked.id).await), "role-missing");
    let unknown = ApprovalId::from_name("none").unwrap();
    assert_eq!(code(house.approve("kei", &unknown).await), "not-found");
    assert_eq!(code(house.export("admin").await), "approval-needed");
    assert!(house.said("admin_refused").iter().any(|r| r["unmapped"]["code"] == "own-request"));

    let approved = house.approve("kei", &asked.id).await.unwrap();
    assert_eq!(approved.state.code(), "approved");
    assert_eq!(code(house.approve("may", &asked.id).await), "conflict");
    assert!(!allowed().await, "to approve it is not to do it");
    // It is that person's, and for that alone.
    assert_eq!(code(house.export("kei").await), "approval-needed");
    let more = [Channel::Export, Channel::ExportData];
    let other = house.gate.set_channels(&entry("admin"), &study("brca"), &more, &[]).await;
    assert_eq!(code(other), "approval-needed");
    let elsewhere = house.gate.set_channels(&entry("admin"), &study("heart"), &[Channel::Export], &[]).await;
    assert_eq!(code(elsewhere), "approval-needed");
    house.export("admin").await.unwrap();
    assert!(allowed().await);
    let done = house.said("record_changed").pop().unwrap();
    assert_eq!(done["actor"]["user"]["uid"], "u:admin");
    assert_eq!(done["unmapped"]["decision"]["second"], "u:kei");
    let decided = house.said("approval_decided");
    assert_eq!((decided.len(), &decided[0]["unmapped"]["asked_by"]), (1, &Value::from("u:admin")));
    assert_eq!(decided[0]["actor"]["user"]["uid"], "u:kei");

    // Once. What lets nothing out takes nobody.
    house.gate.set_channels(&entry("admin"), &study("brca"), &[], &[Channel::Export]).await.unwrap();
    assert_eq!(code(house.export("admin").await), "approval-needed");
    assert!(!allowed().await);
}

#[tokio::test]
async fn of_two_who_use_an_approval_at_once_one_does() {
    let house = house(&[Matter::Unlock]).await;
    house.gate.lock_person(&entry("admin"), &person("alice"), "lost her key").await.unwrap();
    let request = asked(house.gate.unlock_person(&entry("admin"), &person("alice")).await);
    house.approve("kei", &request).await.unwrap();
    let (entry_1, entry_2, alice) = (entry("admin"), entry("admin"), person("alice"));
    let (one, two) =
        tokio::join!(house.gate.unlock_person(&entry_1, &alice), house.gate.unlock_person(&entry_2, &alice));
    assert_eq!(u32::from(one.is_ok()) + u32::from(two.is_ok()), 1, "{one:?} {two:?}");
    assert_eq!(house.said("person_unlocked").len(), 1);
}

#[tokio::test]
async fn it_expires_is_refused_and_is_void_when_the_second_officer_is_none_any_more() {
    let house = house(&[Matter::Export]).await;
    let ask = async || asked(house.export("admin").await);
    // Nobody answered in time; or nobody did it in time.
    let late = ask().await;
    house.clock.advance(24 * HOUR);
    assert_eq!(code(house.approve("kei", &late).await), "conflict");
    let unused = ask().await;
    assert_ne!(late, unused);
    house.approve("kei", &unused).await.unwrap();
    house.clock.advance(24 * HOUR);
    let asked = ask().await;
    assert_ne!(unused, asked);

    // Refused, also after it was approved, and taken back.
    let no = house.gate.refuse_approval(&entry("kei"), &asked, " ").await;
    assert_eq!(code(no), "malformed");
    let no = house.gate.refuse_approval(&entry("alice"), &asked, "no").await;
    assert_eq!(code(no), "role-missing");
    house.approve("kei", &asked).await.unwrap();
    house.gate.refuse_approval(&entry("may"), &asked, "not before the audit").await.unwrap();
    let asked = ask().await;
    house.gate.refuse_approval(&entry("admin"), &asked, "a mistake").await.unwrap();
    assert_eq!(code(house.approve("kei", &asked).await), "conflict");
    let decided = house.said("approval_decided");
    let last = decided.last().unwrap();
    assert_eq!(
        (&last["unmapped"]["approved"], &last["unmapped"]["reason"]),
        (&Value::from(false), &Value::from("a mistake"))
    );

    // Who approved it is locked out before it is done.
    let asked = ask().await;
    house.approve("kei", &asked).await.unwrap();
    house.gate.lock_person(&entry("admin"), &person("kei"), "left").await.unwrap();
    assert_eq!(code(house.export("admin").await), "approval-void");
    let next = ask().await;
    assert_ne!(asked, next);
    house.approve("may", &next).await.unwrap();
    house.export("admin").await.unwrap();
}

#[tokio::test]
async fn what_makes_it_stricter_takes_nobody_and_who_may_not_does_not_ask() {
    let house = house(&[Matter::RecordLess, Matter::SuperviseLess]).await;
    let (admin, brca) = (entry("admin"), study("brca"));
    let record = async |by: &str, mode, commands| {
        let change = RecordingChange { mode, commands, ..RecordingChange::default() };
        house.gate.set_recording(&entry(by), &brca, change).await
    };
    record("admin", None, Some(true)).await.unwrap();
    assert_eq!(code(record("admin", Some(RecordingMode::Off), None).await), "approval-needed");
    assert_eq!(code(record("admin", None, Some(false)).await), "approval-needed");
    assert_eq!(code(record("alice", Some(RecordingMode::Off), None).await), "role-missing");
    assert_eq!(house.gate.approvals(&admin).await.unwrap().len(), 2);
    let supervise = async |moderated| {
        let change = SupervisionChange { moderated: Some(moderated), ..SupervisionChange::default() };
        house.gate.set_supervision(&admin, &brca, change).await
    };
    supervise(true).await.unwrap();
    house.approve("kei", &asked(supervise(false).await)).await.unwrap();
    assert!(!supervise(false).await.unwrap().moderated);

    // Officers come with any of them: nobody makes the second one alone.
    let enrol = async |name: &str, role: Option<&str>| {
        let roles = role.map(|role| RoleId::from_name(role).unwrap()).into_iter().collect();
        house
            .gate
            .enrol_person(&admin, NewPerson { person: person(name), name: name.to_owned(), roles })
            .await
    };
    enrol("ren", None).await.unwrap();
    let officer = asked(enrol("eve", Some("security")).await);
    assert_eq!(code(house.gate.person_token(&admin, &person("kei")).await), "approval-needed");
    // That takes a steward: security alone does not make officers either.
    assert_eq!(code(house.approve("kei", &officer).await), "role-missing");
    assert!(house.store.person(&person("eve")).await.unwrap().is_none());
}

#[tokio::test]
async fn nobody_floods_the_others_with_requests() {
    let house = house(&[Matter::Unlock]).await;
    let mut codes = Vec::new();
    for i in 0..51 {
        codes.push(code(house.gate.unlock_person(&entry("admin"), &person(&format!("p{i}"))).await));
    }
    assert!(codes[..50].iter().all(|code| code == "approval-needed"), "{codes:?}");
    assert_eq!(codes[50], "conflict");
    // Somebody else still may, and so may they again when some have expired.
    assert_eq!(code(house.gate.unlock_person(&entry("kei"), &person("p0")).await), "approval-needed");
    house.clock.advance(24 * HOUR);
    assert_eq!(code(house.gate.unlock_person(&entry("admin"), &person("p50")).await), "approval-needed");
}
