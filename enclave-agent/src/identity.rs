//! What the agent keeps in its folder: its key and certificate, and the key that deposits are
//! encrypted to. Every file is readable by its owner alone and replaced whole.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::TrustDomain;
use certs::x509::{CaCertificate, ChainRefusal, Identity, Usage, valid_until, verify_chain};
use intake::crypt4gh::SecretKey;
use model::{AgentId, Entropy, EntropyError, Timestamp};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Certificate and key in one file: they change together or not at all.
const IDENTITY: &str = "identity.pem";
const CA: &str = "ca.pem";
const INTAKE: &str = "intake.key";
/// A certificate is renewed when less than this is left of its day.
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(12 * 3600);

/// Why something kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is damaged.
    #[error("{path} is damaged; restore it, or remove it and enrol this agent anew")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// There is no randomness for a key.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Why a certificate is not this agent's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// It names nobody, or another agent.
    #[error("the certificate is not {0}'s")]
    Name(AgentId),
    /// It is not good.
    #[error(transparent)]
    Chain(#[from] ChainRefusal),
}

/// An enrolled agent.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Certificate and key.
    pub identity: Identity,
    /// The authority.
    pub ca: CaCertificate,
    /// The trust domain, as the certificate has it.
    pub domain: TrustDomain,
    /// When the certificate ends.
    pub until: Timestamp,
}

impl Enrolment {
    /// Checks that the certificate is `me`'s, good now, and made by `ca`.
    pub fn check(
        identity: Identity,
        ca: CaCertificate,
        me: &AgentId,
        now: Timestamp,
    ) -> Result<Enrolment, NotOurs> {
        let leaf = identity.chain.first().ok_or(ChainRefusal::Empty)?;
        let domain = trust_domain(leaf).ok_or_else(|| NotOurs::Name(me.clone()))?;
        let holder = verify_chain(&identity.chain, &ca, &domain, now, Usage::Client)?;
        if holder != certs::SpiffeId::Agent(me.clone()) {
            return Err(NotOurs::Name(me.clone()));
        }
        let until = valid_until(leaf)?;
        Ok(Enrolment { identity, ca, domain, until })
    }

    /// How long until it should be renewed.
    pub fn renew_in(&self, now: Timestamp) -> Duration {
        self.until.minus(RENEW_BEFORE).since(now)
    }

    /// What was kept, if anything was.
    pub fn load(
        dir: &Path,
        me: &AgentId,
        now: Timestamp,
    ) -> Result<Option<Result<Enrolment, NotOurs>>, KeptError> {
        let read = |name: &str| read(&dir.join(name));
        let (Some(identity), Some(ca)) = (read(IDENTITY)?, read(CA)?) else { return Ok(None) };
        let damaged = |name: &str| KeptError::Damaged { path: dir.join(name) };
        let identity = Identity::from_pem(&identity, &identity).map_err(|_| damaged(IDENTITY))?;
        let ca = CaCertificate::from_pem(&ca).map_err(|_| damaged(CA))?;
        Ok(Some(Enrolment::check(identity, ca, me, now)))
    }

    /// Keeps it. The identity goes last: without it nothing counts as kept.
    pub fn keep(&self, dir: &Path) -> Result<(), KeptError> {
        write(&dir.join(CA), &self.ca.pem())?;
        let mut both = self.identity.key_pem();
        both.push_str(&self.identity.chain_pem());
        write(&dir.join(IDENTITY), &both)
    }
}

/// The key that deposits are encrypted to; made at the first start.
pub fn intake_key(dir: &Path, entropy: &dyn Entropy) -> Result<SecretKey, KeptError> {
    let path = dir.join(INTAKE);
    if let Some(text) = read(&path)? {
        let bytes = unhex(text.trim()).ok_or(KeptError::Damaged { path })?;
        return Ok(SecretKey::from_bytes(&bytes));
    }
    let key = SecretKey::generate(entropy)?;
    let bytes = key.to_bytes();
    let text: Zeroizing<String> = Zeroizing::new(bytes.iter().map(|b| format!("{b:02x}")).collect());
    write(&path, &text)?;
    Ok(key)
}

fn trust_domain(leaf: &[u8]) -> Option<TrustDomain> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })?;
    uri.strip_prefix("spiffe://")?.split('/').next()?.parse().ok()
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, KeptError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeptError::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), KeptError> {
    replace(path, text.as_bytes()).map_err(|source| KeptError::File { path: path.to_owned(), source })
}

/// A crash leaves the old content or the new.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use certs::SpiffeId;
    use certs::x509::{CertificateAuthority, KeyPair, LeafRequest};
    use model::SeededEntropy;

    use super::*;

    fn enrolment(now: Timestamp, agent: &str) -> (Identity, CaCertificate) {
        let entropy = SeededEntropy::new(3);
        let domain: TrustDomain = "sekisho.test".parse().unwrap();
        let key = KeyPair::generate(&entropy).unwrap();
        let authority = CertificateAuthority::create(domain, key, now, &entropy).unwrap();
        let key = KeyPair::generate(&entropy).unwrap();
        let request = LeafRequest {
            spiffe: SpiffeId::Agent(AgentId::from_name(agent).unwrap()),
            dns: Vec::new(),
            ip: Vec::new(),
            public_key: key.spki().unwrap(),
            lifetime: Duration::from_secs(24 * 3600),
        };
        let leaf = authority.issue(&request, now, &entropy).unwrap();
        let identity = Identity { chain: vec![leaf], key: key.to_private_key_der().unwrap() };
        (identity, authority.certificate().clone())
    }

    #[test]
    fn what_is_kept_comes_back_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(1_790_000_000);
        let me = AgentId::from_name("main").unwrap();
        assert!(Enrolment::load(dir.path(), &me, now).unwrap().is_none());
        let (identity, ca) = enrolment(now, "main");
        let made = Enrolment::check(identity, ca, &me, now).unwrap();
        assert_eq!(made.domain.as_str(), "sekisho.test");
        made.keep(dir.path()).unwrap();
        let kept = Enrolment::load(dir.path(), &me, now).unwrap().unwrap().unwrap();
        assert_eq!((kept.until, &kept.identity.chain), (made.until, &made.identity.chain));
        for entry in fs::read_dir(dir.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let half_a_day = Duration::from_secs(12 * 3600);
        assert!(made.renew_in(now) <= half_a_day && made.renew_in(now) > half_a_day / 2);
        assert_eq!(made.renew_in(now.plus(half_a_day)), Duration::ZERO);
        let later = now.plus(Duration::from_secs(25 * 3600));
        let late = Enrolment::load(dir.path(), &me, later).unwrap().unwrap();
        assert_eq!(late.unwrap_err(), NotOurs::Chain(ChainRefusal::Time));
    }

    #[test]
    fn another_agents_certificate_is_not_ours() {
        let now = Timestamp::from_secs(1_790_000_000);
        let (identity, ca) = enrolment(now, "other");
        let me = AgentId::from_name("main").unwrap();
        assert_eq!(Enrolment::check(identity, ca, &me, now).unwrap_err(), NotOurs::Name(me));
    }

    #[test]
    fn the_intake_key_stays_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let first = intake_key(dir.path(), &SeededEntropy::new(1)).unwrap();
        let second = intake_key(dir.path(), &SeededEntropy::new(2)).unwrap();
        assert_eq!(first.public(), second.public());
        fs::write(dir.path().join(INTAKE), "zz").unwrap();
        assert!(matches!(intake_key(dir.path(), &SeededEntropy::new(1)), Err(KeptError::Damaged { .. })));
    }
}
