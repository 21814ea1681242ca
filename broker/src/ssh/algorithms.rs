//! Which cryptography the SSH door speaks.
//!
//! Only what has no known weakness and a constant-time implementation: a hybrid post-quantum key
//! exchange first, X25519 for clients that do not have it yet, authenticated ciphers, and the
//! countermeasure to prefix truncation ("strict kex", CVE-2023-48795). There is no SHA-1, no
//! Diffie–Hellman over finite fields, no CBC, no compression.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::ssh_key::{Algorithm, Certificate, PrivateKey};
use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use super::input::WIDE;

/// After how much data in one direction keys are changed, in bytes (RFC 4253, section 9).
const REKEY_BYTES: usize = 1 << 30;
/// After how long keys are changed.
const REKEY_TIME: Duration = Duration::from_secs(3600);

/// The configuration of the SSH machine for a host key and its certificate.
pub(crate) fn server_config(host_key: PrivateKey, certificate: Option<Certificate>) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Sekisho")),
        // Keyboard-interactive never admits anyone: it is how a client whose certificate was not
        // even looked at learns what to do.
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
        // There are no passwords to guess; the delay only slows a loop of a broken client.
        auth_rejection_time: Duration::from_millis(50),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        certificates: certificate.into_iter().collect(),
        limits: Limits::new(REKEY_BYTES, REKEY_BYTES, REKEY_TIME),
        window_size: WIDE,
        maximum_packet_size: 65_535,
        channel_buffer_size: 16,
        event_buffer_size: 16,
        preferred: preferred(),
        max_auth_attempts: 10,
        inactivity_timeout: Some(Duration::from_secs(600)),
        keepalive_interval: Some(Duration::from_secs(30)),
        keepalive_max: 4,
        nodelay: true,
    }
}

fn preferred() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]),
        key: Cow::Borrowed(&[Algorithm::Ed25519]),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(&[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305]),
        // Used by none of these ciphers, but a list may not be empty.
        mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}
