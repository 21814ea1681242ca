//! Login proofs as they come in JSON.
#![no_main]

use certs::TrustDomain;
use certs::login::{LoginProof, SeenLogins};
use libfuzzer_sys::fuzz_target;
use model::Timestamp;

fuzz_target!(|data: &[u8]| {
    let Ok(proof) = serde_json::from_slice::<LoginProof>(data) else { return };
    let domain: TrustDomain = proof.statement.domain.clone();
    let mut seen = SeenLogins::new(8);
    let _ = proof.verify(&domain, Timestamp::from_secs(1_790_000_000), &mut seen);
});
