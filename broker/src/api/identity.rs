//! Certificates: logins of people, enrolment and renewal of agents.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use certs::login::{LoginProof, LoginStatement};
use data_encoding::BASE64;
use gate::LoginRequest;
use model::{AgentId, PersonId, Timestamp};
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::{Answer, Asked, Fault};
use super::caller::{Caller, TheAgent};

/// `POST /v1/login`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    person: PersonId,
    ssh_public_key: String,
    time: Timestamp,
    nonce: String,
    signature: String,
    token: Option<String>,
    tls_public_key: String,
    /// Seconds that the certificates need to live, when that is less than they may.
    lifetime: Option<u64>,
}

/// Certificates of minutes, and whom to trust.
#[derive(Debug, Serialize)]
pub struct LoggedIn {
    ssh_certificate: String,
    tls_certificate_pem: String,
    ca_pem: String,
    host_ca: String,
    ssh: SshEndpoint,
    expires: Timestamp,
}

/// Where the SSH door is.
#[derive(Debug, Clone, Serialize)]
pub struct SshEndpoint {
    /// The name to connect to; it stands in the host certificate.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `POST /v1/agents/enrol`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    token: String,
    agent: AgentId,
    spki: String,
}

/// `POST /v1/agents/renew`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    spki: String,
}

/// A certificate for an agent, and whom to trust.
#[derive(Debug, Serialize)]
pub struct Enrolled {
    certificate_pem: String,
    ca_pem: String,
    expires: Timestamp,
}

pub(super) async fn login(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Asked(asked): Asked<Login>,
) -> Result<Answer<LoggedIn>, Fault> {
    let nonce: [u8; 16] =
        base64(&asked.nonce, "nonce")?.try_into().map_err(|_| Fault::malformed("The nonce has 16 bytes."))?;
    let statement = LoginStatement {
        domain: api.domain.clone(),
        person: asked.person,
        ssh_public_key: asked.ssh_public_key,
        tls_public_key: base64(&asked.tls_public_key, "TLS public key")?,
        time: asked.time,
        nonce,
    };
    let person = statement.person.clone();
    let proof = LoginProof { statement, signature: asked.signature };
    let request = LoginRequest {
        proof,
        lifetime: asked.lifetime.map(Duration::from_secs),
        token: asked.token,
        peer: Some(caller.peer),
    };
    let answer = api.services.gate.login(request).await?;
    if let Ok(key) = ssh_key::Certificate::from_openssh(&answer.ssh_certificate) {
        let fingerprint = key.public_key().fingerprint(ssh_key::HashAlg::Sha256).to_string();
        api.services.issued.note(&fingerprint, &person, answer.expires);
    }
    Ok(Answer(LoggedIn {
        ssh_certificate: answer.ssh_certificate,
        tls_certificate_pem: pem(&answer.tls_certificate),
        ca_pem: pem(api.ca.der()),
        host_ca: api.host_ca.clone(),
        ssh: api.ssh.clone(),
        expires: answer.expires,
    }))
}

pub(super) async fn enrol(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Asked(asked): Asked<Enrol>,
) -> Result<Answer<Enrolled>, Fault> {
    let spki = base64(&asked.spki, "public key")?;
    let answer = api.services.gate.enrol_agent(&asked.token, &asked.agent, spki, Some(caller.peer)).await?;
    Ok(Answer(enrolled(&api, &answer)))
}

pub(super) async fn renew(
    State(api): State<Arc<Api>>,
    TheAgent(agent): TheAgent,
    Asked(asked): Asked<Renew>,
) -> Result<Answer<Enrolled>, Fault> {
    let spki = base64(&asked.spki, "public key")?;
    let answer = api.services.gate.renew_agent(&agent, spki).await?;
    Ok(Answer(enrolled(&api, &answer)))
}

fn enrolled(api: &Api, answer: &gate::AgentAnswer) -> Enrolled {
    Enrolled { certificate_pem: pem(&answer.certificate), ca_pem: pem(api.ca.der()), expires: answer.expires }
}

pub(super) fn base64(text: &str, what: &str) -> Result<Vec<u8>, Fault> {
    BASE64.decode(text.as_bytes()).map_err(|_| Fault::malformed(format!("The {what} is not base64.")))
}

/// A certificate as PEM (RFC 7468).
pub(super) fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let body = BASE64.encode(der);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
