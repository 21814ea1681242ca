//! OpenSSH certificates. The authority that a certificate names is trusted, so that the checks
//! behind that one are reached; the signature still cannot be forged.
#![no_main]

use certs::ssh_key::{Certificate, PublicKey};
use certs::{SshTrust, check_user_certificate};
use libfuzzer_sys::fuzz_target;
use model::Timestamp;

fn check(certificate: &Certificate) {
    let trust = SshTrust::new(vec![PublicKey::from(certificate.signature_key().clone())]);
    let now = Timestamp::from_secs(1_790_000_000);
    if let Err(refusal) = check_user_certificate(certificate, &trust, now, None) {
        let _ = refusal.to_string();
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(certificate) = Certificate::from_bytes(data) {
        check(&certificate);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(certificate) = Certificate::from_openssh(text) {
            check(&certificate);
        }
        let _ = PublicKey::from_openssh(text);
    }
});
