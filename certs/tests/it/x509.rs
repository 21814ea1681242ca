use std::net::IpAddr;
use std::process::Command;

use certs::x509::{
    CaCertificate, CertificateAuthority, ChainRefusal, Identity, IssueError, KeyPair, LeafRequest, Usage,
    spiffe_id, valid_until, verify_chain,
};
use model::SeededEntropy;
use proptest::prelude::*;
use rustls_pki_types::CertificateDer;

use crate::{authority, domain, leaf, now, request, secs};

fn key(seed: u64) -> KeyPair {
    KeyPair::generate(&SeededEntropy::new(seed)).unwrap()
}

#[test]
fn a_leaf_names_its_holder_within_its_window() {
    let ca = authority(1);
    let chain = [leaf(&ca, "agent/hall-1", &key(2))];
    let verify = |at| verify_chain(&chain, ca.certificate(), &domain(), at, Usage::Client);
    assert_eq!(verify(now()).unwrap().to_string(), "agent/hall-1");
    assert_eq!(verify(now().minus(secs(60))).unwrap().to_string(), "agent/hall-1");
    assert_eq!(verify(now().minus(secs(61))), Err(ChainRefusal::Time));
    assert_eq!(valid_until(&chain[0]).unwrap(), now().plus(secs(3600)));
    assert!(verify(now().plus(secs(3600))).is_ok());
    assert_eq!(verify(now().plus(secs(3601))), Err(ChainRefusal::Time));
}

#[test]
fn foreign_chains_are_refused() {
    let (ca, other) = (authority(1), authority(3));
    let chain = [leaf(&other, "agent/hall-1", &key(2))];
    let verify =
        |chain: &[CertificateDer<'_>], usage| verify_chain(chain, ca.certificate(), &domain(), now(), usage);
    assert!(matches!(verify(&chain, Usage::Client), Err(ChainRefusal::Untrusted(_))));
    assert_eq!(verify(&[], Usage::Client), Err(ChainRefusal::Empty));
    assert_eq!(verify(&[CertificateDer::from(vec![1, 2])], Usage::Client), Err(ChainRefusal::Malformed));
    // The same authority, but an installation of another name.
    let elsewhere = "other.test".parse().unwrap();
    let ours = [leaf(&ca, "agent/hall-1", &key(2))];
    let result = verify_chain(&ours, ca.certificate(), &elsewhere, now(), Usage::Client);
    assert!(matches!(result, Err(ChainRefusal::Name(_))));
    // The CA's certificate is no leaf.
    assert!(verify(&[ca.certificate().der().clone()], Usage::Client).is_err());
}

#[test]
fn a_leaf_cannot_issue() {
    let ca = authority(1);
    let middle_key = key(4);
    let middle = leaf(&ca, "agent/hall-1", &middle_key);
    assert!(matches!(CaCertificate::from_der(&middle), Err(IssueError::NotAnAuthority)));
    let rogue = CertificateAuthority::create(domain(), middle_key, now(), &SeededEntropy::new(5)).unwrap();
    let chain = [leaf(&rogue, "broker/main", &key(6)), middle];
    assert!(verify_chain(&chain, ca.certificate(), &domain(), now(), Usage::Client).is_err());
}

#[test]
fn only_brokers_and_services_serve() {
    let ca = authority(1);
    for (name, serves) in [
        ("broker/main", true),
        ("service/siem", true),
        ("agent/a", false),
        ("person/alice", false),
        ("ticket/main", false),
        ("siem/main", false),
    ] {
        let chain = [leaf(&ca, name, &key(2))];
        let verify = |usage| verify_chain(&chain, ca.certificate(), &domain(), now(), usage);
        assert_eq!(verify(Usage::Server).is_ok(), serves, "{name}");
        assert!(verify(Usage::Client).is_ok(), "{name}");
    }
}

#[test]
fn the_authority_keeps_its_rules() {
    let ca = authority(1);
    let issue = |request: &LeafRequest| ca.issue(request, now(), &SeededEntropy::new(8));
    assert!(issue(&request("person/alice", &key(2), secs(3600))).is_ok());
    let long = issue(&request("person/alice", &key(2), secs(3601)));
    assert!(matches!(long, Err(IssueError::Lifetime { max: 3600, asked: 3601, .. })));
    assert!(issue(&request("agent/a", &key(2), secs(86_400))).is_ok());
    assert!(matches!(issue(&request("agent/a", &key(2), secs(86_401))), Err(IssueError::Lifetime { .. })));
    let named = |spiffe, dns: &[&str]| LeafRequest {
        dns: dns.iter().map(ToString::to_string).collect(),
        ..request(spiffe, &key(2), secs(60))
    };
    assert!(issue(&named("broker/main", &["localhost"])).is_ok());
    for name in ["person/alice", "agent/a", "ticket/main", "siem/main"] {
        assert!(matches!(issue(&named(name, &["localhost"])), Err(IssueError::NamesNotAllowed)), "{name}");
    }
    assert!(matches!(issue(&named("broker/main", &["*.example"])), Err(IssueError::Name(_))));
    assert!(matches!(issue(&named("broker/main", &["x"; 17])), Err(IssueError::NamesNotAllowed)));
    let keyless = LeafRequest { public_key: vec![0; 91], ..request("agent/a", &key(2), secs(60)) };
    assert!(matches!(issue(&keyless), Err(IssueError::Key(_))));
}

#[test]
fn an_authority_loads_with_its_own_key_only() {
    let ca = authority(1);
    let certificate = CaCertificate::from_pem(&ca.certificate().pem()).unwrap();
    assert_eq!(certificate.fingerprint(), ca.certificate().fingerprint());
    assert!(CertificateAuthority::load(domain(), certificate.clone(), key(77)).is_err());
    let entropy = SeededEntropy::new(1);
    let again = KeyPair::generate(&entropy).unwrap();
    let again = CertificateAuthority::load(domain(), certificate, again).unwrap();
    let chain = [leaf(&again, "agent/a", &key(2))];
    assert!(verify_chain(&chain, ca.certificate(), &domain(), now(), Usage::Client).is_ok());
}

#[test]
fn every_flipped_byte_is_refused() {
    let ca = authority(1);
    let good = leaf(&ca, "agent/hall-1", &key(2));
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x01;
        let chain = [CertificateDer::from(bad)];
        let result = verify_chain(&chain, ca.certificate(), &domain(), now(), Usage::Client);
        assert!(result.is_err(), "byte {at}");
    }
}

#[test]
fn openssl_verifies_what_we_issue() {
    let ca = authority(1);
    let server = key(2);
    let request = LeafRequest {
        dns: vec!["localhost".to_owned()],
        ip: vec![IpAddr::from([127, 0, 0, 1])],
        ..request("broker/main", &server, secs(3600))
    };
    let der = ca.issue(&request, now(), &SeededEntropy::new(8)).unwrap();
    let identity = Identity { chain: vec![der], key: server.to_private_key_der().unwrap() };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("ca.pem"), ca.certificate().pem()).unwrap();
    std::fs::write(at("leaf.pem"), identity.chain_pem()).unwrap();
    std::fs::write(at("key.pem"), identity.key_pem().as_bytes()).unwrap();
    let time = now().as_secs().to_string();
    for purpose in ["sslserver", "sslclient"] {
        let args = ["verify", "-x509_strict", "-attime", &time, "-purpose", purpose];
        openssl(
            dir.path(),
            &[&args[..], &["-verify_hostname", "localhost", "-CAfile", "ca.pem", "leaf.pem"]].concat(),
        );
    }
    let text = openssl(dir.path(), &["x509", "-in", "leaf.pem", "-noout", "-ext", "subjectAltName"]);
    let names = "URI:spiffe://sekisho.test/broker/main, DNS:localhost, IP Address:127.0.0.1";
    assert!(text.contains(names), "{text}");
    let from_key = openssl(dir.path(), &["pkey", "-in", "key.pem", "-pubout"]);
    let from_leaf = openssl(dir.path(), &["x509", "-in", "leaf.pem", "-noout", "-pubkey"]);
    assert_eq!(from_key, from_leaf);
}

fn openssl(dir: &std::path::Path, args: &[&str]) -> String {
    let output = Command::new("openssl")
        .current_dir(dir)
        .args(args)
        .output()
        .expect("the openssl command is needed for this test");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

proptest! {
    #[test]
    fn no_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let der = CertificateDer::from(bytes.clone());
        prop_assert!(spiffe_id(&der, &domain()).is_err());
        prop_assert!(CaCertificate::from_der(&bytes).is_err());
        let _ = valid_until(&der);
        let _ = Identity::from_pem(&String::from_utf8_lossy(&bytes), "");
    }
}
