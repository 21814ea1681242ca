use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use certs::ssh::{
    Cidr, HostCertificateRequest, UserCertificateRequest, issue_host_certificate, issue_user_certificate,
};
use certs::ssh_key::{HashAlg, PublicKey};
use certs::x509::{LeafRequest, sha256, valid_until};
use model::metrics::{Exposition, Health, Kind, State};
use model::{Clock, Entropy};
use signer::{Answer, Authorities, IssueX509, Request, SignHost, SignUser, TIMEOUT, read_frame, write_frame};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use vitals::{Door, Vitals};

use crate::authority::Authority;
use crate::config::Config;
use crate::counts::Counts;
use crate::journal::{Journal, Line};

/// How long requests under way may take to end once a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// So long before the certificate of the authority ends somebody should look: a new one must reach
/// everybody who trusts it.
const REPLACE: Duration = Duration::from_secs(90 * 86_400);

/// How much of a subject the journal keeps, characters.
const SUBJECT_MAX: usize = 300;

/// Where requests are decided, one at a time.
pub(crate) struct Desk {
    authority: Authority,
    journal: Mutex<Journal>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    host_names: Vec<String>,
    counts: Counts,
}

impl Vitals for Desk {
    fn health(&self) -> Health {
        let mut health = Health::new("signer", env!("CARGO_PKG_VERSION"));
        // A signer without its keys does not serve.
        health.check("keys", State::Ok, Some("unsealed".to_owned()));
        let (state, detail) = match self.counts.journal_works() {
            true => (State::Ok, None),
            false => (State::Failed, Some("it cannot be written, so nothing is issued".to_owned())),
        };
        health.check("journal", state, detail);
        let left = self.authority_left();
        let (state, detail) = match left {
            Some(left) if left.is_zero() => (State::Failed, Some("its certificate has ended".to_owned())),
            Some(left) if left < REPLACE => {
                let days = left.as_secs() / 86_400;
                (State::Degraded, Some(format!("its certificate ends in {days} days")))
            }
            _ => (State::Ok, None),
        };
        health.check("authority", state, detail);
        health
    }

    fn figures(&self, to: &mut Exposition) {
        self.counts.expose(to);
        if let Some(left) = self.authority_left() {
            let help = "How long the certificate of the X.509 authority is still valid.";
            to.single("sekisho_signer_authority_left_seconds", Kind::Gauge, help, left.as_secs_f64());
        }
    }
}

/// What a request came to, before it is written down.
struct Outcome {
    answer: Answer,
    fingerprint: Option<String>,
    serial: Option<u64>,
}

impl Desk {
    pub(crate) fn new(
        authority: Authority,
        journal: Journal,
        host_names: Vec<String>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Desk {
        let journal = Mutex::new(journal);
        Desk { authority, journal, clock, entropy, host_names, counts: Counts::default() }
    }

    fn authority_left(&self) -> Option<Duration> {
        let until = valid_until(self.authority.x509.certificate().der()).ok()?;
        Some(until.since(self.clock.now()))
    }

    /// Decides one request, writes it down, and only then lets the answer go.
    fn answer(&self, request: &Request, uid: u32) -> Answer {
        let (what, subject, lifetime_secs, outcome) = match request {
            Request::Authorities => return self.authorities(),
            Request::SignUser(r) => ("ssh_user", r.person.to_string(), r.lifetime_secs, self.sign_user(r)),
            Request::SignHost(r) => ("ssh_host", r.principals.join(","), r.lifetime_secs, self.sign_host(r)),
            Request::IssueX509(r) => ("x509", r.spiffe.to_string(), r.lifetime_secs, self.issue_x509(r)),
        };
        let (outcome, refused) = match outcome {
            Ok(outcome) => (Some(outcome), None),
            Err(reason) => (None, Some(reason)),
        };
        let subject: String = subject.chars().take(SUBJECT_MAX).collect();
        let line = Line {
            at: self.clock.now(),
            uid,
            what,
            subject: &subject,
            fingerprint: outcome.as_ref().and_then(|o| o.fingerprint.clone()),
            serial: outcome.as_ref().and_then(|o| o.serial),
            lifetime_secs,
            refused: refused.as_deref(),
        };
        let written = match self.journal.lock() {
            Ok(mut journal) => journal.append(&line),
            Err(_) => Err(std::io::Error::other("an earlier entry failed half-way")),
        };
        self.counts.journal(written.is_ok());
        self.counts.answered(what, written.is_ok() && outcome.is_some());
        if let Err(error) = written {
            tracing::error!("the journal cannot be written, so nothing is issued: {error}");
            return Answer::Refused(
                "the signer cannot write its journal; see its log, and check the disk".to_owned(),
            );
        }
        match (outcome, refused) {
            (Some(outcome), _) => outcome.answer,
            (None, reason) => Answer::Refused(reason.unwrap_or_default()),
        }
    }

    fn authorities(&self) -> Answer {
        let line = |key: &PublicKey| key.to_openssh().map_err(|e| e.to_string());
        let authorities = line(self.authority.user_ca.public_key()).and_then(|user_ca| {
            Ok(Authorities {
                domain: self.authority.x509.domain().clone(),
                user_ca,
                host_ca: line(self.authority.host_ca.public_key())?,
                x509_ca_der: self.authority.x509.certificate().der().to_vec(),
            })
        });
        authorities.map_or_else(Answer::Refused, Answer::Authorities)
    }

    fn sign_user(&self, request: &SignUser) -> Result<Outcome, String> {
        let source_addresses = match &request.source_address {
            Some(list) => Cidr::parse_list(list).map_err(|e| e.to_string())?,
            None => Vec::new(),
        };
        let asked = UserCertificateRequest {
            person: request.person.clone(),
            public_key: public_key(&request.public_key)?,
            lifetime: Duration::from_secs(request.lifetime_secs),
            source_addresses,
            pty: request.pty,
            port_forwarding: request.port_forwarding,
            force_command: request.force_command.clone(),
        };
        let ca = &self.authority.user_ca;
        let certificate = issue_user_certificate(&asked, ca, self.clock.now(), &*self.entropy);
        ssh_outcome(&asked.public_key, certificate)
    }

    fn sign_host(&self, request: &SignHost) -> Result<Outcome, String> {
        self.check_host_names(request.principals.iter())?;
        let asked = HostCertificateRequest {
            principals: request.principals.clone(),
            public_key: public_key(&request.public_key)?,
            lifetime: Duration::from_secs(request.lifetime_secs),
        };
        let ca = &self.authority.host_ca;
        let certificate = issue_host_certificate(&asked, ca, self.clock.now(), &*self.entropy);
        ssh_outcome(&asked.public_key, certificate)
    }

    fn issue_x509(&self, request: &IssueX509) -> Result<Outcome, String> {
        let addresses: Vec<String> = request.ips.iter().map(ToString::to_string).collect();
        self.check_host_names(request.dns.iter().chain(&addresses))?;
        let asked = LeafRequest {
            spiffe: request.spiffe.clone(),
            dns: request.dns.clone(),
            ip: request.ips.clone(),
            public_key: request.spki_der.clone(),
            lifetime: Duration::from_secs(request.lifetime_secs),
        };
        let der =
            self.authority.x509.issue(&asked, self.clock.now(), &*self.entropy).map_err(|e| e.to_string())?;
        let fingerprint: String = sha256(&der).iter().map(|b| format!("{b:02x}")).collect();
        Ok(Outcome { answer: Answer::X509(der.to_vec()), fingerprint: Some(fingerprint), serial: None })
    }

    fn check_host_names<'a>(&self, mut names: impl Iterator<Item = &'a String>) -> Result<(), String> {
        match names.find(|name| !self.host_names.is_empty() && !self.host_names.contains(name)) {
            Some(name) => Err(format!("{name:.80} is not among the host_names of the signer's config.toml")),
            None => Ok(()),
        }
    }
}

fn public_key(line: &str) -> Result<PublicKey, String> {
    PublicKey::from_openssh(line).map_err(|_| "the public key is not a line as in id_ed25519.pub".to_owned())
}

fn ssh_outcome(
    key: &PublicKey,
    certificate: Result<certs::ssh_key::Certificate, certs::ssh::SshIssueError>,
) -> Result<Outcome, String> {
    let certificate = certificate.map_err(|e| e.to_string())?;
    let line = certificate.to_openssh().map_err(|e| e.to_string())?;
    Ok(Outcome {
        answer: Answer::Ssh(line),
        fingerprint: Some(key.fingerprint(HashAlg::Sha256).to_string()),
        serial: Some(certificate.serial()),
    })
}

/// Binds the socket, mode 0660; one that a dead signer left is replaced, which is safe because
/// the folder is locked.
pub(crate) fn bind(config: &Config) -> anyhow::Result<StdListener> {
    let path = &config.socket;
    let cannot = || format!("the socket {} cannot be made", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.as_os_str().is_empty() && !folder.try_exists().with_context(cannot)? {
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::set_permissions(folder, Permissions::from_mode(0o711)))
            .with_context(cannot)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(cannot),
        _ => {}
    }
    let listener = StdListener::bind(path).with_context(cannot)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).with_context(cannot)?;
    listener.set_nonblocking(true).with_context(cannot)?;
    Ok(listener)
}

/// Serves until SIGTERM or SIGINT, then lets what is under way end.
pub(crate) async fn serve(listener: StdListener, config: &Config, desk: Arc<Desk>) -> anyhow::Result<()> {
    let listener = UnixListener::from_std(listener).context("the socket cannot be used")?;
    let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    let mut int = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    let capacity = u32::from(config.connections);
    let places = Arc::new(Semaphore::new(usize::from(config.connections)));
    let own = nix::unistd::geteuid().as_raw();
    let allowed: Arc<[u32]> = config.allow_uids.iter().copied().chain([own]).collect();
    let door = Door::open(".".as_ref(), config.metrics).await.context("nobody can ask how the signer is")?;
    let telling = door.serve(Arc::clone(&desk) as Arc<dyn Vitals>);
    tokio::pin!(telling);
    announce(&config.socket)?;
    loop {
        let connection = async {
            // The semaphore is never closed. Waiting here leaves further callers in the backlog.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            () = &mut telling => break,
            (place, accepted) = connection => match accepted {
                Ok((stream, _)) => {
                    let (desk, allowed) = (Arc::clone(&desk), Arc::clone(&allowed));
                    tokio::spawn(async move {
                        serve_one(stream, &desk, &allowed).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: others must end first.
                    tracing::warn!("a connection could not be accepted: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let drained = timeout(DRAIN, places.acquire_many(capacity)).await;
    if drained.is_err() {
        tracing::warn!("stopped with requests under way");
    }
    // Leave no name behind that nobody answers at.
    let _ = std::fs::remove_file(&config.socket);
    tracing::info!("stopped");
    Ok(())
}

/// The one line on standard output: whoever started us waits for it.
fn announce(socket: &Path) -> anyhow::Result<()> {
    let socket = std::path::absolute(socket).context("the socket's path cannot be told")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready signer={}", socket.display())
        .and_then(|()| out.flush())
        .context("the ready line cannot be written")
}

async fn serve_one(mut stream: UnixStream, desk: &Arc<Desk>, allowed: &[u32]) {
    let uid = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => return tracing::warn!("a caller without a user was turned away: {error}"),
    };
    if !allowed.contains(&uid) {
        desk.counts.turned_away();
        tracing::warn!("user {uid} was turned away: not in allow_uids");
        return;
    }
    let exchange = async {
        let request: Request = read_frame(&mut stream).await?;
        let desk = Arc::clone(desk);
        let answer = tokio::task::spawn_blocking(move || desk.answer(&request, uid))
            .await
            .unwrap_or_else(|_| Answer::Refused("the signer failed; see its log".to_owned()));
        write_frame(&mut stream, &answer).await
    };
    match timeout(TIMEOUT, exchange).await {
        Err(_) => tracing::warn!("user {uid} took longer than {} s", TIMEOUT.as_secs()),
        Ok(Err(error)) => tracing::warn!("a request of user {uid} failed: {error}"),
        Ok(Ok(())) => {}
    }
}
