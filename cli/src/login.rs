use std::sync::Arc;
use std::time::Duration;

use certs::login::{LoginProof, LoginStatement};
use certs::token::{Token, TokenKind};
use certs::x509::{CaCertificate, Identity, KeyPair};
use data_encoding::BASE64;
use model::{PersonId, Timestamp};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{Certificate, LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::api::{Api, LoginAnswer, LoginBody, Url};
use crate::fault::{Exit, Fault};
use crate::home::{Home, Mode, Profile, bad_file};
use crate::sshconf::{self, Door, is_plain_host};
use crate::{Surroundings, args, say, tls};

/// Certificates that end sooner than this are renewed before they are used.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// `sekisho login`: the first time on a device with a token, later with the device's key alone.
pub async fn login(around: &Surroundings, home: &Home, args: &args::Login) -> Result<(), Fault> {
    let last = home.profile()?;
    let api = args.api.clone().or_else(|| last.as_ref().map(|p| p.api.clone()));
    let person = match &args.person {
        Some(text) => Some(person_id(text)?),
        None => last.map(|p| p.person),
    };
    let (Some(api), Some(person)) = (api, person) else { return Err(not_logged_in()) };
    let url = Url::parse(&api)?;
    let token = args.token.as_deref().map(parse_token).transpose()?;

    let profile = prove(around, home, &url, &person, token.as_ref(), args.lifetime).await?;
    let lang = around.lang;
    if around.json {
        around.print_json(&serde_json::json!({
            "person": profile.person, "expires": profile.expires, "api": profile.api,
            "ssh": {"host": profile.ssh_host, "port": profile.ssh_port},
            "ssh_config": home.path(Home::SSH_CONFIG),
        }));
        return Ok(());
    }
    if token.is_some() {
        around.print(&say!(Enrolled, path = home.path(Home::SSH_KEY).display()));
    }
    around.print(&say!(LoggedIn, person = profile.person.name(), expires = profile.expires));
    let config = home.path(Home::SSH_CONFIG);
    let stock = say!(TryStock, config = config.display(), host = "gate").text(lang);
    around.line(&format!("  {}\n  {stock}", say!(TryShell).text(lang)));
    Ok(())
}

/// The last login, renewed first when its certificates end soon.
pub async fn fresh(around: &Surroundings, home: &Home) -> Result<Profile, Fault> {
    let profile = home.profile()?.ok_or_else(not_logged_in)?;
    if profile.expires > around.clock.now().plus(RENEW_BEFORE) {
        return Ok(profile);
    }
    let url = Url::parse(&profile.api)?;
    prove(around, home, &url, &profile.person, None, None).await
}

/// The API as the person who is logged in, with fresh certificates.
pub async fn authenticated(around: &Surroundings, home: &Home) -> Result<Api, Fault> {
    let profile = fresh(around, home).await?;
    let chain = home.read(Home::TLS_CERTIFICATE)?.ok_or_else(not_logged_in)?;
    let key = home.read(Home::TLS_KEY)?.ok_or_else(not_logged_in)?;
    let identity =
        Identity::from_pem(&chain, &key).map_err(|e| bad_file(&home.path(Home::TLS_KEY)).because(&e))?;
    let ca = authority(home)?.ok_or_else(not_logged_in)?;
    let config =
        tls::trusting(&ca, Some(identity)).map_err(|e| bad_file(&home.path(Home::TLS_KEY)).because(&e))?;
    Ok(Api::new(Url::parse(&profile.api)?, config))
}

/// The authority that this device was enrolled with.
pub fn authority(home: &Home) -> Result<Option<CaCertificate>, Fault> {
    let Some(pem) = home.read(Home::CA)? else { return Ok(None) };
    CaCertificate::from_pem(&pem).map(Some).map_err(|e| bad_file(&home.path(Home::CA)).because(&e))
}

/// A person's identifier from what people type: `alice` or `u:alice`.
pub fn person_id(text: &str) -> Result<PersonId, Fault> {
    let bare = text.strip_prefix(PersonId::PREFIX).unwrap_or(text);
    PersonId::from_name(bare).map_err(|e| Fault::usage(say!(BadName, text = text)).because(&e))
}

/// Proves possession of the device's key and keeps the certificates that come of it.
async fn prove(
    around: &Surroundings,
    home: &Home,
    url: &Url,
    person: &PersonId,
    token: Option<&Token>,
    lifetime: Option<Duration>,
) -> Result<Profile, Fault> {
    let (api, ca) = reach(home, url, token).await?;
    let device = device_key(around, home, token.is_some())?;
    let tls_key = tls_key(around, home)?;
    let unusable = |e: certs::x509::KeyError| bad_file(&home.path(Home::TLS_KEY)).because(&e);
    let spki = tls_key.spki().map_err(unusable)?;

    let mut nonce = [0; 16];
    around.entropy.fill(&mut nonce).map_err(|e| no_entropy(&e))?;
    let statement = LoginStatement {
        domain: api.domain().await.map_err(|e| e.into_fault(url))?,
        person: person.clone(),
        ssh_public_key: public_line(&device)?,
        tls_public_key: spki.clone(),
        time: around.clock.now(),
        nonce,
    };
    let proof =
        LoginProof::make(statement, &device).map_err(|e| bad_file(&home.path(Home::SSH_KEY)).because(&e))?;
    let body = LoginBody {
        person: person.to_string(),
        ssh_public_key: proof.statement.ssh_public_key.clone(),
        time: proof.statement.time,
        nonce: BASE64.encode(&nonce),
        signature: proof.signature.clone(),
        token: token.map(|t| t.to_text().to_string()),
        lifetime: lifetime.map(|l| l.as_secs()),
        tls_public_key: BASE64.encode(&spki),
    };
    let answer: LoginAnswer = api.post("/v1/login", &body).await.map_err(|e| e.into_fault(url))?;

    let checked = check(&answer, person, &device, &tls_key, &ca, around.clock.now());
    checked.map_err(|why| Fault::failed("bad_answer", say!(BadAnswer)).why(why))?;
    keep(home, url, person, &answer, &ca)
}

/// The broker, checked against the authority on this device, or against the token's pin when a
/// token is given: a new token may name a new authority.
async fn reach(home: &Home, url: &Url, token: Option<&Token>) -> Result<(Api, CaCertificate), Fault> {
    let not_usable = |e: rustls::Error| Fault::failed("tls", say!(BadAnswer)).because(&e);
    let Some(token) = token else {
        let ca = authority(home)?
            .ok_or_else(|| Fault::failed("no_token", say!(NeedToken)).todo(say!(NeedTokenTodo)))?;
        return Ok((Api::new(url.clone(), tls::trusting(&ca, None).map_err(not_usable)?), ca));
    };
    let pin = token.clone();
    let recognise = Arc::new(move |der: &[u8]| pin.pinned_authority(&[der.into()]).is_ok());
    let (config, contact) = tls::first_contact(recognise).map_err(not_usable)?;
    let api = Api::new(url.clone(), config);
    api.domain().await.map_err(|e| e.into_fault(url))?;
    let ca = contact.authority().and_then(|der| CaCertificate::from_der(der).ok());
    let ca = ca.ok_or_else(|| {
        Fault::new(Exit::Refused, "untrusted", say!(Untrusted, at = url)).todo(say!(UntrustedTodo))
    })?;
    Ok((Api::new(url.clone(), tls::trusting(&ca, None).map_err(not_usable)?), ca))
}

/// Whether the certificates are for this person, these keys and now. Foreign bytes.
fn check(
    answer: &LoginAnswer,
    person: &PersonId,
    device: &PrivateKey,
    tls_key: &KeyPair,
    ca: &CaCertificate,
    now: Timestamp,
) -> Result<(), String> {
    let ssh: Certificate =
        answer.ssh_certificate.trim().parse().map_err(|e| format!("SSH certificate: {e}"))?;
    if ssh.public_key() != device.public_key().key_data() {
        return Err("the SSH certificate is for another key".to_owned());
    }
    if !ssh.valid_principals().iter().any(|p| p == person.as_str()) {
        return Err("the SSH certificate is for someone else".to_owned());
    }
    let shown = CaCertificate::from_pem(&answer.ca_pem).map_err(|e| e.to_string())?;
    if shown != *ca {
        return Err("the authority in the answer is not the broker's own".to_owned());
    }
    let key = Zeroizing::new(key_pem(tls_key).map_err(|e| e.to_string())?);
    let identity = Identity::from_pem(&answer.tls_certificate_pem, &key).map_err(|e| e.to_string())?;
    tls::trusting(ca, Some(identity)).map_err(|e| format!("TLS certificate: {e}"))?;
    let keys = [Some(&answer.host_ca), answer.host_key.as_ref()];
    if keys
        .into_iter()
        .flatten()
        .any(|line| line.trim().contains('\n') || PublicKey::from_openssh(line.trim()).is_err())
    {
        return Err("a host key in the answer is not an OpenSSH public key".to_owned());
    }
    if !is_plain_host(&answer.ssh.host) {
        return Err("the SSH door's host is not a host name".to_owned());
    }
    if answer.expires <= now {
        return Err(format!("the certificates ended at {}: is this machine's clock right?", answer.expires));
    }
    Ok(())
}

fn keep(
    home: &Home,
    url: &Url,
    person: &PersonId,
    answer: &LoginAnswer,
    ca: &CaCertificate,
) -> Result<Profile, Fault> {
    // A broker that listens everywhere does not know by which name it is reached.
    let everywhere = matches!(answer.ssh.host.as_str(), "0.0.0.0" | "::");
    let host = if everywhere { url.host() } else { &answer.ssh.host };
    let door = Door {
        person: person.name(),
        host,
        port: answer.ssh.port,
        host_ca: &answer.host_ca,
        host_key: answer.host_key.as_deref(),
    };
    home.write(Home::CA, &ca.pem(), Mode::Public)?;
    home.write(Home::SSH_CERTIFICATE, &format!("{}\n", answer.ssh_certificate.trim()), Mode::Public)?;
    home.write(Home::TLS_CERTIFICATE, &answer.tls_certificate_pem, Mode::Public)?;
    home.write(Home::KNOWN_HOSTS, &sshconf::known_hosts(&door), Mode::Public)?;
    home.write(Home::SSH_CONFIG, &sshconf::config(home.dir(), &door), Mode::Public)?;
    let profile = Profile {
        api: url.to_string(),
        person: person.clone(),
        ssh_host: host.to_owned(),
        ssh_port: answer.ssh.port,
        expires: answer.expires,
    };
    home.keep_profile(&profile)?;
    Ok(profile)
}

/// The device's key; a new one only when this is the first login, for a key that the programme
/// does not know proves nothing.
fn device_key(around: &Surroundings, home: &Home, enrolling: bool) -> Result<PrivateKey, Fault> {
    let damaged = |e: ssh_key::Error| bad_file(&home.path(Home::SSH_KEY)).because(&e);
    if let Some(text) = home.read(Home::SSH_KEY)? {
        return PrivateKey::from_openssh(text.as_bytes()).map_err(damaged);
    }
    if !enrolling {
        return Err(Fault::failed("no_token", say!(NeedToken)).todo(say!(NeedTokenTodo)));
    }
    let mut seed = Zeroizing::new([0; 32]);
    around.entropy.fill(&mut *seed).map_err(|e| no_entropy(&e))?;
    let key =
        PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&seed)), "sekisho").map_err(damaged)?;
    home.write(Home::SSH_KEY, &key.to_openssh(LineEnding::LF).map_err(damaged)?, Mode::Private)?;
    home.write(Home::SSH_PUBLIC, &format!("{}\n", public_line(&key)?), Mode::Public)?;
    Ok(key)
}

fn tls_key(around: &Surroundings, home: &Home) -> Result<KeyPair, Fault> {
    let path = home.path(Home::TLS_KEY);
    if let Some(text) = home.read(Home::TLS_KEY)? {
        use rustls_pki_types::pem::PemObject;
        let der = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes());
        let der = der.map_err(|e| bad_file(&path).because(&e))?;
        return KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|e| bad_file(&path).because(&e));
    }
    let key = KeyPair::generate(&*around.entropy).map_err(|e| bad_file(&path).because(&e))?;
    home.write(Home::TLS_KEY, &key_pem(&key).map_err(|e| bad_file(&path).because(&e))?, Mode::Private)?;
    Ok(key)
}

/// A private key as PKCS #8 PEM.
pub fn key_pem(key: &KeyPair) -> Result<Zeroizing<String>, certs::x509::KeyError> {
    let key = key.to_private_key_der()?;
    Ok(Identity { chain: Vec::new(), key }.key_pem())
}

fn public_line(key: &PrivateKey) -> Result<String, Fault> {
    key.public_key().to_openssh().map_err(|e| Fault::failed("damaged", say!(BadAnswer)).because(&e))
}

fn parse_token(text: &str) -> Result<Token, Fault> {
    let bad = || Fault::usage(say!(BadToken)).todo(say!(BadTokenTodo));
    let token: Token = text.parse().map_err(|e: certs::token::TokenError| bad().because(&e))?;
    if token.kind() == TokenKind::Person { Ok(token) } else { Err(bad()) }
}

fn no_entropy(error: &model::EntropyError) -> Fault {
    Fault::new(Exit::Unavailable, "entropy", say!(NoEntropy)).because(error)
}

fn not_logged_in() -> Fault {
    Fault::new(Exit::Refused, "not_logged_in", say!(NotLoggedIn)).todo(say!(NotLoggedInTodo))
}
