use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;
use certs::TrustDomain;
use certs::custody::{self, Quorum, SealedBox, Share};
use certs::ssh_key::PrivateKey;
use certs::ssh_key::private::Ed25519Keypair;
use certs::x509::{CaCertificate, CertificateAuthority, KeyPair};
use model::{Clock, Entropy};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::files;

const FILE: &str = "authority.json";
const CUSTODY: &str = "custody";
const SHARES: (u8, u8) = (2, 3);
/// Room for the encoded secrets: a buffer that grows would leave copies behind.
const SECRETS_MAX: usize = 1024;
/// The largest file that is read at the start, bytes.
const FILE_MAX: u64 = 1 << 20;

/// The three certificate authorities, unsealed.
#[derive(Debug)]
pub(crate) struct Authority {
    pub user_ca: PrivateKey,
    pub host_ca: PrivateKey,
    pub x509: CertificateAuthority,
}

/// What lies on disk: public halves, and the secret ones sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u8,
    trust_domain: TrustDomain,
    x509_ca_pem: String,
    sealed: SealedBox,
}

/// The secret halves.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Secrets {
    /// Again inside the seal, so that the outside cannot be changed unnoticed.
    trust_domain: String,
    user_ca_seed: [u8; 32],
    host_ca_seed: [u8; 32],
    x509_pkcs8: Vec<u8>,
}

impl Authority {
    /// Unseals the keys in the current folder; makes them on the first start.
    ///
    /// `authority.json` is written last and whole, so that a start that was cut off before left
    /// nothing that counts, and the next one begins anew.
    pub(crate) fn load_or_create(
        domain: &TrustDomain,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> anyhow::Result<Authority> {
        match read_bounded(Path::new(FILE))? {
            Some(text) => Authority::load(&text, domain),
            None => Authority::create(domain, clock, entropy),
        }
    }

    fn load(text: &str, domain: &TrustDomain) -> anyhow::Result<Authority> {
        let stored: Stored =
            serde_json::from_str(text).context("authority.json is damaged; restore it from a copy")?;
        anyhow::ensure!(
            stored.version == 1,
            "authority.json has version {}; this release reads 1",
            stored.version
        );
        anyhow::ensure!(
            stored.trust_domain == *domain,
            "config.toml says trust_domain = \"{domain}\", but the keys were made for \"{}\"; \
             set it back, or start over with an empty folder",
            stored.trust_domain
        );
        let secret = stored
            .sealed
            .unseal(&read_shares(&stored.sealed)?)
            .context("the keys cannot be unsealed with the shares in custody/")?;
        let secrets: Secrets = postcard::from_bytes(&secret).context("the sealed keys cannot be read")?;
        anyhow::ensure!(
            secrets.trust_domain == domain.as_str(),
            "authority.json was changed; restore it from a copy"
        );
        let certificate = CaCertificate::from_pem(&stored.x509_ca_pem)?;
        let key = KeyPair::from_pkcs8(&secrets.x509_pkcs8)?;
        let x509 = CertificateAuthority::load(domain.clone(), certificate, key)
            .context("authority.json holds another certificate than that of the sealed key")?;
        Ok(Authority::assemble(&secrets, x509))
    }

    fn create(domain: &TrustDomain, clock: &dyn Clock, entropy: &dyn Entropy) -> anyhow::Result<Authority> {
        let key = KeyPair::generate(entropy)?;
        let mut secrets = Secrets {
            trust_domain: domain.as_str().to_owned(),
            user_ca_seed: [0; 32],
            host_ca_seed: [0; 32],
            x509_pkcs8: key.to_pkcs8()?.to_vec(),
        };
        entropy.fill(&mut secrets.user_ca_seed)?;
        entropy.fill(&mut secrets.host_ca_seed)?;
        let x509 = CertificateAuthority::create(domain.clone(), key, clock.now(), entropy)?;
        let mut plain = Zeroizing::new([0; SECRETS_MAX]);
        let plain = postcard::to_slice(&secrets, plain.as_mut_slice())?;
        let (k, n) = SHARES;
        let (sealed, shares) = custody::seal(plain, Quorum::new(k, n)?, entropy)?;
        let stored = Stored {
            version: 1,
            trust_domain: domain.clone(),
            x509_ca_pem: x509.certificate().pem(),
            sealed,
        };
        write_shares(&shares).context("the custodians' shares cannot be written")?;
        files::write_whole(Path::new(FILE), &serde_json::to_vec_pretty(&stored)?, 0o600)
            .context("authority.json cannot be written")?;
        tracing::info!("made the certificate authorities of {domain}");
        Ok(Authority::assemble(&secrets, x509))
    }

    fn assemble(secrets: &Secrets, x509: CertificateAuthority) -> Authority {
        let key = |seed: &[u8; 32], comment: String| {
            let mut key = PrivateKey::from(Ed25519Keypair::from_seed(seed));
            key.set_comment(comment);
            key
        };
        let domain = x509.domain();
        Authority {
            user_ca: key(&secrets.user_ca_seed, format!("user-ca@{domain}")),
            host_ca: key(&secrets.host_ca_seed, format!("host-ca@{domain}")),
            x509,
        }
    }
}

fn write_shares(shares: &[Share]) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(CUSTODY)?;
    for share in shares {
        let path = Path::new(CUSTODY).join(share.index().to_string());
        files::write_whole(&path, share.to_text().as_bytes(), 0o600)?;
    }
    files::sync_folder(".".as_ref())
}

/// The shares within reach; a bad one is named in the log and left out.
fn read_shares(sealed: &SealedBox) -> anyhow::Result<Vec<Share>> {
    let mut shares = Vec::new();
    for index in 1..=sealed.quorum().n() {
        let path = Path::new(CUSTODY).join(index.to_string());
        let Some(text) = read_bounded(&path)?.map(Zeroizing::new) else { continue };
        match text.parse::<Share>().and_then(|share| sealed.check(&share).map(|()| share)) {
            Ok(share) => shares.push(share),
            Err(error) => tracing::warn!("{}: {error}", path.display()),
        }
    }
    Ok(shares)
}

/// The text of a file of reasonable size; none if there is no such file.
fn read_bounded(path: &Path) -> anyhow::Result<Option<String>> {
    let context = || format!("{} cannot be read", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
        Ok(meta) => anyhow::ensure!(meta.len() <= FILE_MAX, "{} is too large", path.display()),
    }
    std::fs::read_to_string(path).map(Some).with_context(context)
}
