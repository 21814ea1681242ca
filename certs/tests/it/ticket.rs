use certs::ticket::{
    DatasetOrder, DepositOrder, FetchOrder, KeepOrder, ObjectOrder, Order, RuleBroken, SEALED_MAX, SealError,
    SeenTickets, SessionOrder, Ticket, TicketKey, TicketRefusal, is_file_name, open,
};
use certs::x509::{ChainRefusal, KeyPair};
use certs::{Replayed, SpiffeId};
use model::{AgentId, SeededEntropy, Timestamp};
use proptest::prelude::*;

use crate::{authority, domain, leaf, now, secs};

fn key_of(name: &str) -> TicketKey {
    let key = KeyPair::generate(&SeededEntropy::new(20)).unwrap();
    let certificate = leaf(&authority(1), name, &key);
    TicketKey::new(key, certificate)
}

fn me() -> AgentId {
    "agent:hall-1".parse().unwrap()
}

fn ticket() -> Ticket {
    let object = |n: u8| ObjectOrder {
        object: format!("obj:{n}").parse().unwrap(),
        name: format!("NA12878.{n}.bam"),
        size: 1 << 35,
        manifest_root: [n; 32],
    };
    Ticket {
        id: "tick:1".parse().unwrap(),
        issued: now(),
        expires: now().plus(secs(60)),
        agent: me(),
        order: Order::Session(SessionOrder {
            session: "sess:1".parse().unwrap(),
            person: "u:alice".parse().unwrap(),
            study: "study:brca".parse().unwrap(),
            workspace: "ws:brca".parse().unwrap(),
            name: model::WorkspaceName::default(),
            limits: model::WorkspaceLimits::default(),
            datasets: vec![DatasetOrder {
                dataset: "ds:na12878".parse().unwrap(),
                objects: vec![object(1), object(2)],
            }],
            access_until: now().plus(secs(86_400)),
        }),
    }
}

fn deposit(name: &str) -> Ticket {
    let order = DepositOrder {
        object: "obj:9".parse().unwrap(),
        dataset: "ds:na12878".parse().unwrap(),
        name: name.to_owned(),
        person: "u:vendor".parse().unwrap(),
    };
    Ticket { order: Order::Deposit(order), ..ticket() }
}

#[test]
fn what_people_bring_and_the_houses_own_records_never_pass_for_one_another() {
    let (kept, other) = ("obj:kept-1", "obj:1");
    let keep = |object: &str| Order::Keep(KeepOrder { object: object.parse().unwrap() });
    let fetch = |object: &str| {
        Order::Fetch(FetchOrder { object: object.parse().unwrap(), size: 1, manifest_root: [1; 32] })
    };
    let bring = |object: &str| match deposit("a.bam").order {
        Order::Deposit(order) => Order::Deposit(DepositOrder { object: object.parse().unwrap(), ..order }),
        other => other,
    };
    let read = |object: &str| match ticket().order {
        Order::Session(mut order) => {
            order.datasets[0].objects[0].object = object.parse().unwrap();
            Order::Session(order)
        }
        other => other,
    };
    let key = key_of("ticket/main");
    for (order, fits) in [
        (keep(kept), true),
        (keep(other), false),
        (fetch(kept), true),
        (fetch(other), false),
        (bring(kept), false),
        (bring(other), true),
        (read(kept), false),
        (read(other), true),
    ] {
        let sealed = key.seal(&Ticket { order: order.clone(), ..ticket() });
        match sealed {
            Ok(sealed) => assert!(fits && opened(&sealed, now()).unwrap().order == order, "{order:?}"),
            Err(SealError::Rule(RuleBroken::Object(_))) => assert!(!fits, "{order:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn opened(sealed: &[u8], at: Timestamp) -> Result<Ticket, TicketRefusal> {
    open(sealed, authority(1).certificate(), &domain(), &me(), at)
}

#[test]
fn what_was_sealed_opens_for_its_agent() {
    for ticket in [ticket(), deposit("x.vcf.gz")] {
        let sealed = key_of("ticket/main").seal(&ticket).unwrap();
        assert_eq!(opened(&sealed, now()), Ok(ticket));
    }
}

#[test]
fn time_is_kept() {
    let sealed = key_of("ticket/main").seal(&ticket()).unwrap();
    let expires = now().plus(secs(60));
    assert!(opened(&sealed, Timestamp::from_millis(expires.as_millis() - 1)).is_ok());
    assert_eq!(opened(&sealed, expires), Err(TicketRefusal::Expired(expires)));
    assert!(opened(&sealed, now().minus(secs(5))).is_ok(), "clocks may differ a little");
    assert_eq!(opened(&sealed, now().minus(secs(6))), Err(TicketRefusal::NotYet(now())));
    let late = now().plus(secs(3700));
    assert_eq!(opened(&sealed, late), Err(TicketRefusal::Chain(ChainRefusal::Time)));
}

#[test]
fn another_agent_does_not_obey() {
    let sealed = key_of("ticket/main").seal(&ticket()).unwrap();
    let other = "agent:hall-2".parse().unwrap();
    let result = open(&sealed, authority(1).certificate(), &domain(), &other, now());
    assert_eq!(result, Err(TicketRefusal::OtherAgent(me())));
}

#[test]
fn only_the_ticket_key_of_our_authority_seals() {
    for name in ["broker/main", "agent/hall-1", "person/alice", "siem/main", "service/x"] {
        let sealed = key_of(name).seal(&ticket()).unwrap();
        let id: SpiffeId = name.parse().unwrap();
        assert_eq!(opened(&sealed, now()), Err(TicketRefusal::Signer(id)));
    }
    let sealed = key_of("ticket/main").seal(&ticket()).unwrap();
    let result = open(&sealed, authority(2).certificate(), &domain(), &me(), now());
    assert!(matches!(result, Err(TicketRefusal::Chain(ChainRefusal::Untrusted(_)))));
    // A good certificate with another key's signature.
    let stolen = key_of("ticket/main").certificate().clone();
    let forger = TicketKey::new(KeyPair::generate(&SeededEntropy::new(66)).unwrap(), stolen);
    assert_eq!(opened(&forger.seal(&ticket()).unwrap(), now()), Err(TicketRefusal::Signature));
}

#[test]
fn every_flipped_bit_is_refused() {
    let sealed = key_of("ticket/main").seal(&ticket()).unwrap();
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(opened(&bad, now()).is_err(), "byte {at}");
    }
    for end in 0..sealed.len() {
        assert!(opened(&sealed[..end], now()).is_err(), "cut at {end}");
    }
    assert!(opened(&[&sealed[..], &[0]].concat(), now()).is_err(), "something behind");
}

#[test]
fn rules_hold_at_both_ends() {
    let key = key_of("ticket/main");
    let long = Ticket { expires: now().plus(secs(61)), ..ticket() };
    assert_eq!(key.seal(&long), Err(SealError::Rule(RuleBroken::Lifetime)));
    let backwards = Ticket { expires: now(), ..ticket() };
    assert_eq!(key.seal(&backwards), Err(SealError::Rule(RuleBroken::Lifetime)));
    for bad in ["", ".", "..", "a/b", "../x", "a\0b", "a\nb", &"x".repeat(256)] {
        assert!(!is_file_name(bad));
        assert!(matches!(key.seal(&deposit(bad)), Err(SealError::Rule(RuleBroken::FileName(_)))), "{bad:?}");
    }
    let mut twice = ticket();
    let Order::Session(order) = &mut twice.order else { unreachable!() };
    order.datasets[0].objects[1].name = order.datasets[0].objects[0].name.clone();
    assert!(matches!(key.seal(&twice), Err(SealError::Rule(RuleBroken::FileName(_)))));
    let mut twice = ticket();
    let Order::Session(order) = &mut twice.order else { unreachable!() };
    order.datasets.push(order.datasets[0].clone());
    assert!(matches!(key.seal(&twice), Err(SealError::Rule(RuleBroken::Duplicate(_)))));
}

#[test]
fn size_is_bounded_at_both_ends() {
    let mut large = ticket();
    let Order::Session(order) = &mut large.order else { unreachable!() };
    order.datasets[0].objects = (0..40_000)
        .map(|n| ObjectOrder {
            object: format!("obj:{n}").parse().unwrap(),
            name: format!("{n}"),
            size: 1,
            manifest_root: [0; 32],
        })
        .collect();
    assert!(matches!(key_of("ticket/main").seal(&large), Err(SealError::TooLarge(_))));
    assert_eq!(opened(&vec![1; SEALED_MAX + 1], now()), Err(TicketRefusal::Malformed));
}

#[test]
fn a_ticket_is_obeyed_once() {
    let mut seen = SeenTickets::new(2);
    let named = |n: u8| Ticket { id: format!("tick:{n}").parse().unwrap(), ..ticket() };
    assert_eq!(seen.admit(&named(1), now()), Ok(()));
    assert_eq!(seen.admit(&named(1), now()), Err(TicketRefusal::Replayed(Replayed::Again)));
    assert_eq!(seen.admit(&named(2), now()), Ok(()));
    assert_eq!(seen.admit(&named(3), now()), Err(TicketRefusal::Replayed(Replayed::Full)));
}

proptest! {
    #[test]
    fn no_bytes_open(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(opened(&bytes, now()).is_err());
    }
}
