//! The rules of certificates, tickets, tokens and custody, tried from outside.

mod custody;
mod login;
mod ssh;
mod ticket;
mod token;
mod x509;

use std::time::Duration;

use certs::TrustDomain;
use certs::x509::{CertificateAuthority, KeyPair, LeafRequest};
use model::{SeededEntropy, Timestamp};
use rustls_pki_types::CertificateDer;

/// 2026-09-21T14:13:20Z.
fn now() -> Timestamp {
    Timestamp::from_secs(1_790_000_000)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn domain() -> TrustDomain {
    "sekisho.test".parse().unwrap()
}

fn authority(seed: u64) -> CertificateAuthority {
    let entropy = SeededEntropy::new(seed);
    let key = KeyPair::generate(&entropy).unwrap();
    CertificateAuthority::create(domain(), key, now(), &entropy).unwrap()
}

fn request(spiffe: &str, key: &KeyPair, lifetime: Duration) -> LeafRequest {
    LeafRequest {
        spiffe: spiffe.parse().unwrap(),
        dns: vec![],
        ip: vec![],
        public_key: key.spki().unwrap(),
        lifetime,
    }
}

fn leaf(ca: &CertificateAuthority, spiffe: &str, key: &KeyPair) -> CertificateDer<'static> {
    ca.issue(&request(spiffe, key, secs(3600)), now(), &SeededEntropy::new(99)).unwrap()
}
