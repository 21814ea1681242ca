//! Sealed tickets, and the content that a valid seal would protect.
#![no_main]

use std::sync::LazyLock;

use certs::TrustDomain;
use certs::ticket::{Ticket, open};
use certs::x509::{CertificateAuthority, KeyPair};
use libfuzzer_sys::fuzz_target;
use model::{AgentId, SeededEntropy, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

static CA: LazyLock<CertificateAuthority> = LazyLock::new(|| {
    let entropy = SeededEntropy::new(1);
    let domain: TrustDomain = "sekisho.test".parse().expect("a domain");
    let key = KeyPair::generate(&entropy).expect("a key");
    CertificateAuthority::create(domain, key, NOW, &entropy).expect("an authority")
});

fuzz_target!(|data: &[u8]| {
    let me: AgentId = "agent:a".parse().expect("an id");
    assert!(open(data, CA.certificate(), CA.domain(), &me, NOW).is_err(), "nobody can forge a seal");
    if let Ok((ticket, _)) = postcard::take_from_bytes::<Ticket>(data) {
        let again = postcard::to_stdvec(&ticket).expect("what was read can be written");
        assert_eq!(postcard::from_bytes::<Ticket>(&again).expect("own words"), ticket);
    }
});
