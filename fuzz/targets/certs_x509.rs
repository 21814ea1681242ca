//! X.509: certificates, chains, public keys.
#![no_main]

use certs::TrustDomain;
use certs::x509::{CaCertificate, Usage, check_public_key, spiffe_id, valid_until, verify_chain};
use libfuzzer_sys::fuzz_target;
use model::Timestamp;
use rustls_pki_types::CertificateDer;

fuzz_target!(|data: &[u8]| {
    let domain: TrustDomain = "sekisho.test".parse().expect("a domain");
    let leaf = CertificateDer::from(data.to_vec());
    let _ = spiffe_id(&leaf, &domain);
    let _ = valid_until(&leaf);
    let _ = check_public_key(data);
    if let Ok(ca) = CaCertificate::from_der(data) {
        let now = Timestamp::from_secs(1_790_000_000);
        let _ = verify_chain(&[leaf], &ca, &domain, now, Usage::Client);
    }
});
