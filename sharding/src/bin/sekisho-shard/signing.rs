//! The key of whoever deposits.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use zeroize::Zeroizing;

use crate::fault::Failure;
use crate::say;

/// More than a key takes.
const MAX_LEN: u64 = 16 << 10;

/// Reads an Ed25519 key (PKCS#8, RFC 8410, in PEM) from a file that nobody else can read.
pub fn key(path: Option<&Path>) -> Result<Option<Arc<SigningKey>>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let shown = path.display();
    let open = File::open(path)
        .map_err(|error| Failure::failed("key", say!(CannotRead, path = shown)).because(&error))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let exposed = open.metadata().is_ok_and(|meta| meta.mode() & 0o077 != 0);
        if exposed {
            let failure = Failure::failed("key_exposed", say!(Exposed, path = shown));
            return Err(failure.todo(say!(ExposedTodo, path = shown)));
        }
    }
    let bad =
        || Failure::failed("key", say!(NoSigning, path = shown)).todo(say!(NoSigningTodo, path = shown));
    let mut pem = Zeroizing::new(String::with_capacity(MAX_LEN as usize));
    open.take(MAX_LEN).read_to_string(&mut pem).map_err(|error| bad().because(&error))?;
    let key = SigningKey::from_pkcs8_pem(&pem).map_err(|error| bad().because(&error))?;
    Ok(Some(Arc::new(key)))
}
