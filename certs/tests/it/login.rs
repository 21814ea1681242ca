use certs::login::{LoginProof, LoginRefusal, LoginStatement, NAMESPACE, SeenLogins};
use certs::ssh::generate_key;
use certs::ssh_key::PrivateKey;
use certs::{Replayed, Seen};
use model::{SeededEntropy, Timestamp};
use std::process::Command;

use crate::{domain, now, secs};

fn device() -> PrivateKey {
    generate_key(&SeededEntropy::new(40), "alice@laptop").unwrap()
}

fn statement() -> LoginStatement {
    LoginStatement {
        domain: domain(),
        person: "u:alice".parse().unwrap(),
        ssh_public_key: device().public_key().to_openssh().unwrap(),
        tls_public_key: vec![1, 2, 3],
        time: now(),
        nonce: [9; 16],
    }
}

fn proof() -> LoginProof {
    LoginProof::make(statement(), &device()).unwrap()
}

fn verify(proof: &LoginProof, at: Timestamp, seen: &mut SeenLogins) -> Result<(), LoginRefusal> {
    proof.verify(&domain(), at, seen).map(|key| {
        assert_eq!(key.key_data(), device().public_key().key_data());
        assert_eq!(key.comment().as_str_lossy(), "");
    })
}

#[test]
fn a_device_proves_itself_once() {
    let mut seen = Seen::new(10);
    assert_eq!(verify(&proof(), now(), &mut seen), Ok(()));
    assert_eq!(verify(&proof(), now(), &mut seen), Err(LoginRefusal::Replayed(Replayed::Again)));
}

#[test]
fn a_clock_may_be_off_by_two_minutes() {
    for (at, good) in [
        (now().plus(secs(120)), true),
        (now().minus(secs(120)), true),
        (now().plus(secs(121)), false),
        (now().minus(secs(121)), false),
    ] {
        let result = verify(&proof(), at, &mut Seen::new(1));
        assert_eq!(result.is_ok(), good, "{at}");
        assert!(good || matches!(result, Err(LoginRefusal::Clock { .. })));
    }
    // A proof that is still in time is also still remembered.
    let mut seen = Seen::new(1);
    assert_eq!(verify(&proof(), now().minus(secs(120)), &mut seen), Ok(()));
    let again = verify(&proof(), now().plus(secs(120)), &mut seen);
    assert_eq!(again, Err(LoginRefusal::Replayed(Replayed::Again)));
}

#[test]
fn every_field_is_signed() {
    let other = generate_key(&SeededEntropy::new(41), "").unwrap();
    let changes: [fn(&mut LoginStatement); 4] = [
        |s| s.person = "u:bob".parse().unwrap(),
        |s| s.tls_public_key.push(0),
        |s| s.time = s.time.plus(secs(1)),
        |s| s.nonce[0] ^= 1,
    ];
    for change in changes {
        let mut proof = proof();
        change(&mut proof.statement);
        assert_eq!(verify(&proof, now(), &mut Seen::new(1)), Err(LoginRefusal::Signature));
    }
    let mut foreign = proof();
    foreign.statement.ssh_public_key = other.public_key().to_openssh().unwrap();
    assert_eq!(verify(&foreign, now(), &mut Seen::new(1)), Err(LoginRefusal::Signature));
    let mut elsewhere = proof();
    elsewhere.statement.domain = "other.test".parse().unwrap();
    assert!(matches!(verify(&elsewhere, now(), &mut Seen::new(1)), Err(LoginRefusal::OtherDomain(_))));
    let borrowed = LoginProof::make(statement(), &other).unwrap();
    assert_eq!(verify(&borrowed, now(), &mut Seen::new(1)), Err(LoginRefusal::Signature));
}

#[test]
fn rubbish_is_refused_and_remembers_nothing() {
    let mut seen = Seen::new(1);
    for (key, signature) in [("", ""), ("ssh-ed25519 AAAA", "x"), (&*"x".repeat(5000), "")] {
        let mut proof = proof();
        proof.statement.ssh_public_key = key.to_owned();
        proof.signature = signature.to_owned();
        assert_eq!(verify(&proof, now(), &mut seen), Err(LoginRefusal::Malformed));
    }
    assert!(seen.is_empty());
}

#[test]
fn the_signature_is_openssh_s_own() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let key = device().to_openssh(certs::ssh_key::LineEnding::LF).unwrap();
    std::fs::write(at("key"), key.as_bytes()).unwrap();
    std::fs::set_permissions(at("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(at("message"), statement().message()).unwrap();
    let status = Command::new("ssh-keygen")
        .current_dir(dir.path())
        .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f", "key", "message"])
        .status()
        .expect("ssh-keygen of OpenSSH is needed for this test");
    assert!(status.success());
    let signature = std::fs::read_to_string(at("message.sig")).unwrap();
    let theirs = LoginProof { statement: statement(), signature };
    assert_eq!(verify(&theirs, now(), &mut Seen::new(1)), Ok(()));
}
