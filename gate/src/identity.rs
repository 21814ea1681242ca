//! Certificates: for people who log in, for agents that enrol, for services.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use audit::{AuthFault, CertificateKind, Door, Event, EventKind};
use certs::SpiffeId;
use certs::login::{LoginProof, LoginRefusal};
use certs::token::{Token, TokenKind};
use certs::x509::valid_until;
use model::{AgentId, Timestamp};
use policy::{Action, Decision, Denial, Request};
use signer::{IssueX509, SignUser};
use ssh_key::{HashAlg, PublicKey};
use store::{AgentState, DeviceKey, DeviceKeyState, TakeError, TokenSubject};

use crate::refusal::{RefusalKind, sentence};
use crate::{Gate, Refusal, facts};

/// A shorter life than this helps nobody, and the signer refuses it: clocks differ.
const LIFETIME_MIN: Duration = Duration::from_secs(30);

/// A person's device asks for certificates.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// What the device signed: who asks, for which keys, when.
    pub proof: LoginProof,
    /// How long the certificates need to live, when that is less than people's may.
    pub lifetime: Option<Duration>,
    /// The one-time token, when the device is not enrolled yet.
    pub token: Option<String>,
    /// Where the request comes from.
    pub peer: Option<SocketAddr>,
}

/// Certificates of minutes.
#[derive(Debug, Clone)]
pub struct LoginAnswer {
    /// The OpenSSH user certificate, one line.
    pub ssh_certificate: String,
    /// The TLS client certificate (DER).
    pub tls_certificate: Vec<u8>,
    /// When the first of them ends.
    pub expires: Timestamp,
}

/// A certificate for an agent.
#[derive(Debug, Clone)]
pub struct AgentAnswer {
    /// The certificate (DER).
    pub certificate: Vec<u8>,
    /// When it ends.
    pub expires: Timestamp,
}

/// What everybody must trust.
pub type Authorities = signer::Authorities;

impl Gate {
    /// Who signs what here.
    pub async fn authorities(&self) -> Result<Authorities, Refusal> {
        self.inner.signer.authorities().await.map_err(|e| Refusal::signer(&e))
    }

    /// Gives a person's device certificates of minutes, after proof that it holds its enrolled key
    /// (or the one-time token that enrols it now).
    pub async fn login(&self, request: LoginRequest) -> Result<LoginAnswer, Refusal> {
        let kind = match self.check_login(&request).await? {
            Checked::Known => return self.issue_login(&request).await,
            Checked::Refused { denial, epoch } => {
                let kind = EventKind::LoginRefused {
                    code: denial.code().to_owned(),
                    reason: sentence(&denial.to_string()),
                };
                let device = proved_key(&request);
                let event = Event { device, ..self.login_event(&request, kind) };
                return Err(self.refuse(event, Action::IssueCertificate, &denial, epoch).await?);
            }
            Checked::Unknown { code, message } => {
                let kind = EventKind::LoginRefused { code: code.to_owned(), reason: message };
                let device = proved_key(&request);
                return self
                    .turn_away(Event { device, ..self.login_event(&request, kind.clone()) }, kind)
                    .await;
            }
            Checked::Unproved { code, message } => {
                EventKind::LoginRefused { code: code.to_owned(), reason: message }
            }
        };
        self.turn_away(self.login_event(&request, kind.clone()), kind).await
    }

    /// Enrols an agent with its one-time token and gives it a certificate of a day.
    pub async fn enrol_agent(
        &self,
        token: &str,
        agent: &AgentId,
        public_key: Vec<u8>,
        peer: Option<SocketAddr>,
    ) -> Result<AgentAnswer, Refusal> {
        // The signer first: a token must not be used up for nothing.
        self.authorities().await?;
        let about = |kind| Event { peer: peer.map(|p| p.to_string()), ..self.happened(kind) };
        if let Err((code, reason)) =
            self.use_token(token, TokenKind::Agent, &TokenSubject::Agent(agent.clone())).await?
        {
            let kind = EventKind::LoginRefused { code: code.to_owned(), reason };
            return self.turn_away(about(kind.clone()), kind).await;
        }
        self.record(&about(EventKind::AgentEnrolled { agent: agent.clone() })).await?;
        self.inner.store.enrol_agent(agent, self.now()).await.map_err(|e| Refusal::store(&e))?;
        self.issue_agent(agent, public_key).await
    }

    /// Renews the certificate of an agent that proved itself with the old one.
    pub async fn renew_agent(&self, agent: &AgentId, public_key: Vec<u8>) -> Result<AgentAnswer, Refusal> {
        let known = self.inner.store.agent(agent).await.map_err(|e| Refusal::store(&e))?;
        if !known.is_some_and(|known| known.state == AgentState::Active) {
            let kind = EventKind::AuthRefused {
                door: Door::Agents,
                fault: AuthFault::Revoked,
                reason: "This agent has been retired. Enrol it anew.".to_owned(),
                key_fingerprint: None,
                principals: vec![agent.to_string()],
                serial: None,
            };
            return self.turn_away(self.happened(kind.clone()), kind).await;
        }
        self.issue_agent(agent, public_key).await
    }

    async fn issue_agent(&self, agent: &AgentId, public_key: Vec<u8>) -> Result<AgentAnswer, Refusal> {
        let issued = self
            .issue_x509(
                &SpiffeId::Agent(agent.clone()),
                &[],
                &[],
                public_key,
                self.inner.settings.service_lifetime,
            )
            .await?;
        Ok(AgentAnswer { certificate: issued.certificate, expires: issued.expires })
    }

    /// Has the signer issue a certificate for a service or an agent and records it: it does not
    /// leave the gate unrecorded.
    pub(crate) async fn issue_x509(
        &self,
        spiffe: &SpiffeId,
        dns: &[String],
        ips: &[IpAddr],
        public_key: Vec<u8>,
        lifetime: Duration,
    ) -> Result<X509Answer, Refusal> {
        let key_fingerprint = certs::x509::sha256(&public_key).iter().map(|b| format!("{b:02x}")).collect();
        let issued = self
            .inner
            .signer
            .issue_x509(IssueX509 {
                spiffe: spiffe.clone(),
                dns: dns.to_vec(),
                ips: ips.to_vec(),
                spki_der: public_key,
                lifetime_secs: lifetime.as_secs(),
            })
            .await
            .map_err(|e| Refusal::signer(&e))?;
        let expires = valid_until(&issued).map_err(|e| unreadable(&e))?;
        let person = if let SpiffeId::Person(person) = spiffe { Some(person.clone()) } else { None };
        let kind = EventKind::CertificateIssued {
            certificate: CertificateKind::X509,
            subject: spiffe.to_string(),
            serial: certs::x509::sha256(&issued).iter().map(|b| format!("{b:02x}")).collect(),
            key_fingerprint,
            expires,
        };
        self.record(&Event { person, ..self.happened(kind) }).await?;
        Ok(X509Answer { certificate: issued.to_vec(), expires })
    }

    async fn issue_login(&self, request: &LoginRequest) -> Result<LoginAnswer, Refusal> {
        let person = &request.proof.statement.person;
        let fingerprint = fingerprint(&request.proof.statement.ssh_public_key)?;
        let method = if request.token.is_some() { "token" } else { "device-key" };
        let kind =
            EventKind::LoginSucceeded { method: method.to_owned(), key_fingerprint: fingerprint.clone() };
        self.record(&self.login_event(request, kind)).await?;
        let longest = self.inner.settings.person_lifetime;
        let lifetime = request.lifetime.unwrap_or(longest).clamp(LIFETIME_MIN, longest);
        let ssh = self
            .inner
            .signer
            .sign_user(SignUser {
                person: person.clone(),
                public_key: request.proof.statement.ssh_public_key.clone(),
                lifetime_secs: lifetime.as_secs(),
                source_address: None,
                pty: true,
                port_forwarding: true,
                force_command: None,
            })
            .await
            .map_err(|e| Refusal::signer(&e))?;
        let expires = Timestamp::from_secs(i64::try_from(ssh.valid_before()).unwrap_or(i64::MAX));
        let kind = EventKind::CertificateIssued {
            certificate: CertificateKind::SshUser,
            subject: person.to_string(),
            serial: ssh.serial().to_string(),
            key_fingerprint: fingerprint,
            expires,
        };
        self.record(&self.login_event(request, kind)).await?;
        let spiffe = SpiffeId::Person(person.clone());
        let tls = self
            .issue_x509(&spiffe, &[], &[], request.proof.statement.tls_public_key.clone(), lifetime)
            .await?;
        Ok(LoginAnswer {
            ssh_certificate: ssh.to_openssh().map_err(|e| unreadable(&e))?,
            tls_certificate: tls.certificate,
            expires: expires.min(tls.expires),
        })
    }

    fn login_event(&self, request: &LoginRequest, kind: EventKind) -> Event {
        Event {
            person: Some(request.proof.statement.person.clone()),
            peer: request.peer.map(|p| p.to_string()),
            ..self.happened(kind)
        }
    }

    /// Records that somebody was turned away and says so to them.
    async fn turn_away<T>(&self, event: Event, kind: EventKind) -> Result<T, Refusal> {
        let (code, reason) = match kind {
            EventKind::AuthRefused { fault, reason, .. } => (fault.code().to_owned(), reason),
            EventKind::LoginRefused { code, reason } => (code, reason),
            _ => ("refused".to_owned(), "This was refused.".to_owned()),
        };
        Err(Refusal::new(RefusalKind::Denied, &code, reason).recorded_at(self.record(&event).await?))
    }

    async fn check_login(&self, request: &LoginRequest) -> Result<Checked, Refusal> {
        let now = self.now();
        let proof = &request.proof.statement;
        // The signer first: a token must not be used up for nothing.
        let domain = self.authorities().await?.domain;
        let verified = {
            let mut seen = self.inner.logins.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            request.proof.verify(&domain, now, &mut seen)
        };
        // The line that the key itself prints is one spelling of it; a stated one could be another.
        let key = match verified.map(|key| key.to_openssh()) {
            Ok(Ok(line)) => line,
            Ok(Err(_)) => return Err(Refusal::malformed("The public key is not an OpenSSH public key.")),
            Err(error) => {
                let code = if matches!(error, LoginRefusal::Replayed(certs::Replayed::Again)) {
                    "replayed"
                } else {
                    "proof"
                };
                return Ok(Checked::Unproved { code, message: sentence(&error.to_string()) });
            }
        };
        let known = self.inner.store.device_key(&key).await.map_err(|e| Refusal::store(&e))?;
        if let Some(token) = &request.token {
            let subject = TokenSubject::Person(proof.person.clone());
            if let Err((code, message)) = self.use_token(token, TokenKind::Person, &subject).await? {
                return Ok(Checked::Unknown { code, message });
            }
            if known.is_none() {
                let row = DeviceKey {
                    person: proof.person.clone(),
                    public_key: key.clone(),
                    enrolled_at: now,
                    state: DeviceKeyState::Active,
                };
                self.inner.store.add_device_key(&row).await.map_err(|e| Refusal::store(&e))?;
            }
        }
        let known = self.inner.store.device_key(&key).await.map_err(|e| Refusal::store(&e))?;
        let enrolled = known.is_some_and(|k| k.person == proof.person && k.state == DeviceKeyState::Active);
        if !enrolled {
            return Ok(Checked::Unknown {
                code: "device-unknown",
                message: "This device is not enrolled for this person. Ask the programme office for a token and run `sekisho login --token …`.".to_owned(),
            });
        }
        let records =
            facts::of_person(&self.inner.store, &proof.person).await.map_err(|e| Refusal::store(&e))?;
        let ask = Request {
            person: proof.person.clone(),
            study: None,
            dataset: None,
            action: Action::IssueCertificate,
            purpose: None,
            now,
        };
        let policies = self.inner.policies.load_full();
        match policy::decide(&ask, &policies, &records) {
            Decision::Permit(_) => Ok(Checked::Known),
            Decision::Deny(denial) | Decision::Manual(denial) => {
                Ok(Checked::Refused { denial, epoch: policies.epoch() })
            }
        }
    }

    /// Takes a one-time token; the inner error is a refusal in words, which the caller records.
    async fn use_token(
        &self,
        text: &str,
        kind: TokenKind,
        subject: &TokenSubject,
    ) -> Result<Result<(), (&'static str, String)>, Refusal> {
        let refused = |code, why: &str| Ok(Err((code, sentence(why))));
        let token = match text.parse::<Token>() {
            Ok(token) if token.kind() == kind => token,
            Ok(_) => return refused("token-other", "the token is for something else; ask for another one"),
            Err(error) => return refused("token-malformed", &error.to_string()),
        };
        match self.inner.store.take_token(&token.hash(), self.now()).await {
            Ok(taken) if taken == *subject => Ok(Ok(())),
            // It is used up all the same: somebody has it who should not.
            Ok(_) => refused("token-other", "the token was made for someone else; ask for another one"),
            Err(TakeError::Store(error)) => Err(Refusal::store(&error)),
            Err(error @ TakeError::Unknown) => refused("token-unknown", &error.to_string()),
            Err(error @ TakeError::Used) => refused("token-used", &error.to_string()),
            Err(error @ TakeError::Expired) => refused("token-expired", &error.to_string()),
        }
    }
}

/// What a login comes to. The first three have proved that they hold the key.
enum Checked {
    /// Certificates may be issued.
    Known,
    /// Policy says no.
    Refused { denial: Denial, epoch: u64 },
    /// The key is not enrolled, and no token enrols it.
    Unknown { code: &'static str, message: String },
    /// Nothing was proved.
    Unproved { code: &'static str, message: String },
}

/// The fingerprint of the key that a login has proved.
fn proved_key(request: &LoginRequest) -> Option<String> {
    fingerprint(&request.proof.statement.ssh_public_key).ok()
}

/// An X.509 certificate as it leaves the gate.
pub(crate) struct X509Answer {
    pub certificate: Vec<u8>,
    pub expires: Timestamp,
}

/// The signer's own work cannot be read back: it does not leave the gate.
fn unreadable(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "the signer's certificate cannot be read");
    Refusal::new(
        RefusalKind::Unavailable,
        "signer-unavailable",
        "A certificate was issued that cannot be read. Please tell the operators.",
    )
}

fn fingerprint(ssh_public_key: &str) -> Result<String, Refusal> {
    match PublicKey::from_openssh(ssh_public_key) {
        Ok(key) => Ok(key.fingerprint(HashAlg::Sha256).to_string()),
        Err(_) => Err(Refusal::malformed("The public key is not an OpenSSH public key.")),
    }
}
