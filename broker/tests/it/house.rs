//! A whole broker in this process, with an authority that signs in memory and a peer that speaks
//! the agent's side of the wire and runs commands with `sh`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certs::login::{LoginProof, LoginStatement};
use certs::ssh::{HostCertificateRequest, UserCertificateRequest, generate_key};
use certs::ssh::{issue_host_certificate, issue_user_certificate};
use certs::ticket::{FetchOrder, Order};
use certs::x509::{CertificateAuthority, Identity, KeyPair, LeafRequest};
use certs::{SpiffeId, TrustDomain};
use data_encoding::BASE64;
use intake::crypt4gh::{Decryptor, SecretKey};
use model::ambient::{OsEntropy, SystemClock};
use model::{AgentId, BackendId, Clock, Entropy, ObjectId, PersonId, Timestamp};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use signer::{Answer, Authorities, Request, read_frame, write_frame};
use ssh_key::{LineEnding, PrivateKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use wire::agent::{BrokerLink, DepositStream, FetchStream, Incoming, SessionStream};
use wire::message::{
    Command, DepositInput, DepositOutput, Exited, FetchOutput, Hello, Load, Refused, SessionInput,
    SessionOutput, VERSION,
};

use broker::config::Config;
use broker::node::{Node, Sockets};

pub struct Ca {
    pub user: PrivateKey,
    host: PrivateKey,
    x509: CertificateAuthority,
    pub domain: TrustDomain,
}

pub struct House {
    pub node: Option<Node>,
    pub dir: tempfile::TempDir,
    pub ca: Arc<Ca>,
    pub agent: Option<BrokerLink>,
    /// What the peer has of the house's own records.
    pub vault: Vault,
    pub grant: String,
    pub admin: Identity,
}

/// Records, each with how often it was taken in.
pub type Kept = BTreeMap<ObjectId, (Vec<u8>, usize)>;

/// Where the peer puts the house's own records, and how it behaves while it does.
#[derive(Clone, Default)]
pub struct Vault {
    /// Each with how often it was taken in.
    pub kept: Arc<Mutex<Kept>>,
    /// One for each order that is to come; it is well-behaved after them.
    pub moods: Arc<Mutex<Vec<Mood>>>,
}

/// What the peer does to an order about such a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Nothing special.
    Good,
    /// It says no.
    Refuse,
    /// It gives up in the middle.
    Vanish,
    /// It hands out other bytes than it took in.
    Lie,
}

impl Vault {
    fn mood(&self) -> Mood {
        let mut moods = self.moods.lock().unwrap();
        if moods.is_empty() { Mood::Good } else { moods.remove(0) }
    }

    /// What it takes records in with.
    fn key() -> SecretKey {
        SecretKey::from_bytes(&[8; 32])
    }

    async fn take_in(&self, object: ObjectId, mut stream: DepositStream) {
        let mood = self.mood();
        if mood == Mood::Refuse {
            let no = Refused { code: "agent.full".to_owned(), message: "Not now.".to_owned() };
            stream.sender.send(DepositOutput::Refused(no)).await.unwrap();
            return stream.sender.gone().await;
        }
        stream.sender.send(DepositOutput::Ready).await.unwrap();
        let (mut decryptor, mut plain) = (Decryptor::new(Vault::key()), Vec::new());
        loop {
            match stream.receiver.next().await {
                Ok(Some(DepositInput::Data(data))) => {
                    plain.extend_from_slice(&decryptor.push(&data).unwrap());
                    if mood == Mood::Vanish {
                        return;
                    }
                }
                Ok(Some(DepositInput::DataEof)) => break,
                Ok(None) | Err(_) => return,
            }
        }
        plain.extend_from_slice(&decryptor.finish().unwrap());
        let size = plain.len() as u64;
        {
            let mut kept = self.kept.lock().unwrap();
            let attempts = kept.get(&object).map_or(0, |(_, attempts)| *attempts);
            kept.insert(object, (plain, attempts + 1));
        }
        let _ = stream.sender.send(DepositOutput::Deposited { size, root: [9; 32] }).await;
        stream.sender.gone().await;
    }

    async fn hand_out(&self, order: FetchOrder, mut stream: FetchStream) {
        let mood = self.mood();
        let found = self.kept.lock().unwrap().get(&order.object).map(|(plain, _)| plain.clone());
        let Some(mut plain) = found.filter(|_| mood != Mood::Refuse) else {
            let no = Refused { code: "fetch.failed".to_owned(), message: "Too few shares.".to_owned() };
            stream.sender.send(FetchOutput::Refused(no)).await.unwrap();
            return stream.sender.gone().await;
        };
        assert_eq!((order.size, order.manifest_root), (plain.len() as u64, [9; 32]));
        let middle = plain.len() / 2;
        if mood == Mood::Lie {
            plain[middle] ^= 1;
        }
        if stream.sender.send(FetchOutput::Found { size: order.size }).await.is_err() {
            return;
        }
        if mood == Mood::Vanish {
            let _ = stream.sender.send(FetchOutput::Piece(plain[..middle].to_vec().into())).await;
            return;
        }
        for piece in plain.chunks(100_000) {
            if stream.sender.send(FetchOutput::Piece(piece.to_vec().into())).await.is_err() {
                return;
            }
        }
        let _ = stream.sender.send(FetchOutput::PieceEof).await;
        let _ = stream.receiver.next().await;
    }
}

/// Somebody with a key, certificates and a folder for them.
pub struct Person {
    pub dir: PathBuf,
    pub tls: Identity,
    port: u16,
}

fn now() -> Timestamp {
    SystemClock.now()
}

impl Ca {
    fn new() -> Ca {
        let domain: TrustDomain = "gate.test".parse().unwrap();
        let key = KeyPair::generate(&OsEntropy).unwrap();
        Ca {
            user: generate_key(&OsEntropy, "user-ca").unwrap(),
            host: generate_key(&OsEntropy, "host-ca").unwrap(),
            x509: CertificateAuthority::create(domain.clone(), key, now(), &OsEntropy).unwrap(),
            domain,
        }
    }

    pub fn leaf(&self, spiffe: SpiffeId) -> Identity {
        let key = KeyPair::generate(&OsEntropy).unwrap();
        let request = LeafRequest {
            spiffe,
            dns: Vec::new(),
            ip: Vec::new(),
            public_key: key.spki().unwrap(),
            lifetime: Duration::from_secs(1800),
        };
        let leaf = self.x509.issue(&request, now(), &OsEntropy).unwrap();
        Identity { chain: vec![leaf], key: key.to_private_key_der().unwrap() }
    }

    fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Authorities => Answer::Authorities(Authorities {
                domain: self.domain.clone(),
                user_ca: self.user.public_key().to_openssh().unwrap(),
                host_ca: self.host.public_key().to_openssh().unwrap(),
                x509_ca_der: self.x509.certificate().der().to_vec(),
            }),
            Request::SignUser(asked) => {
                let request = UserCertificateRequest {
                    person: asked.person,
                    public_key: asked.public_key.parse().unwrap(),
                    lifetime: Duration::from_secs(asked.lifetime_secs),
                    source_addresses: Vec::new(),
                    pty: asked.pty,
                    port_forwarding: asked.port_forwarding,
                    force_command: asked.force_command,
                };
                let cert = issue_user_certificate(&request, &self.user, now(), &OsEntropy).unwrap();
                Answer::Ssh(cert.to_openssh().unwrap())
            }
            Request::SignHost(asked) => {
                let request = HostCertificateRequest {
                    principals: asked.principals,
                    public_key: asked.public_key.parse().unwrap(),
                    lifetime: Duration::from_secs(asked.lifetime_secs),
                };
                let cert = issue_host_certificate(&request, &self.host, now(), &OsEntropy).unwrap();
                Answer::Ssh(cert.to_openssh().unwrap())
            }
            Request::IssueX509(asked) => {
                let request = LeafRequest {
                    spiffe: asked.spiffe,
                    dns: asked.dns,
                    ip: asked.ips,
                    public_key: asked.spki_der,
                    lifetime: Duration::from_secs(asked.lifetime_secs),
                };
                Answer::X509(self.x509.issue(&request, now(), &OsEntropy).unwrap().to_vec())
            }
        }
    }

    fn serve(self: &Arc<Self>, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let ca = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let ca = Arc::clone(&ca);
                tokio::spawn(async move {
                    let request: Request = read_frame(&mut stream).await.unwrap();
                    write_frame(&mut stream, &ca.answer(request)).await.unwrap();
                });
            }
        });
    }
}

impl House {
    /// A house with an administrator, and with alice in the study `brca`, which may use the
    /// dataset `cancer`.
    pub async fn new() -> House {
        House::prepared(|_| String::new()).await
    }

    /// The same, after `prepare` has put something into the broker's folder; it returns what is
    /// added to the configuration.
    pub async fn prepared(prepare: impl FnOnce(&Path) -> String) -> House {
        let dir = tempfile::tempdir().unwrap();
        let more = prepare(dir.path());
        let ca = Arc::new(Ca::new());
        ca.serve(&dir.path().join("signer.sock"));
        let text = "trust_domain = \"gate.test\"\nssh = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"\nagents = \"127.0.0.1:0\"\nsigner = \"signer.sock\"\n";
        std::fs::write(dir.path().join("config.toml"), format!("{text}{more}")).unwrap();
        let node = start(dir.path()).await.unwrap();
        let admin = ca.leaf("person/admin".parse().unwrap());
        let mut house = House {
            node: Some(node),
            dir,
            ca,
            agent: None,
            vault: Vault::default(),
            grant: String::new(),
            admin,
        };
        let until = now().plus(Duration::from_secs(3600));
        house.made("/v1/people", json!({"person": "u:alice", "name": "Alice"})).await;
        house.made("/v1/studies", json!({"study": "study:brca", "title": "BRCA", "purposes": ["DS:MONDO:0007254"], "until": until})).await;
        house
            .made("/v1/studies/study:brca/members", json!({"person": "u:alice", "role": "role:researcher"}))
            .await;
        house
            .made("/v1/datasets", json!({"dataset": "ds:cancer", "title": "Cancer", "conditions": [["HMB"]]}))
            .await;
        let grant = json!({"study": "study:brca", "dataset": "ds:cancer", "grantee": "role:researcher", "until": until});
        house.grant = house.made("/v1/grants", grant).await["grant"].as_str().unwrap().to_owned();
        house
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    /// A peer that runs commands dials in.
    pub async fn agent_comes(&mut self) {
        let token = std::fs::read_to_string(self.dir.path().join("agent.token")).unwrap();
        let key = KeyPair::generate(&OsEntropy).unwrap();
        let asked = json!({"token": token, "agent": agent(), "spki": BASE64.encode(&key.spki().unwrap())});
        let (status, answer) =
            self.call(None, "POST", "/v1/agents/enrol", asked.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{answer}");
        let key = Identity { chain: Vec::new(), key: key.to_private_key_der().unwrap() };
        let identity =
            Identity::from_pem(answer["certificate_pem"].as_str().unwrap(), &key.key_pem()).unwrap();
        let tls = wire::Tls::new(
            self.ca.domain.clone(),
            self.ca.x509.certificate().clone(),
            &identity,
            Arc::new(SystemClock),
        )
        .unwrap();
        let hello = Hello {
            version: VERSION,
            agent: "test".to_owned(),
            kernel: "test".to_owned(),
            intake_key: [7; 32],
            keeping_key: Vault::key().public().to_bytes(),
            backends: vec![(BackendId::from_name("b1").unwrap(), "test".to_owned())],
            near: Vec::new(),
            capacity: 8,
            load: Load::default(),
        };
        let link = wire::agent::connect(self.node().endpoints().agents.to_string(), &tls, hello).unwrap();
        assert!(link.connected().await);
        tokio::spawn(obey(link.clone(), Arc::clone(&self.ca), self.vault.clone()));
        self.agent = Some(link);
        while self.node().services().hub.choose().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Alice, logged in through the API with a one-time token.
    pub async fn alice(&self, lifetime: Option<u64>) -> Person {
        let token =
            self.made("/v1/people/u:alice/token", json!({})).await["token"].as_str().unwrap().to_owned();
        let dir = self
            .dir
            .path()
            .join(format!("alice-{}", OsEntropy.array::<4>().unwrap().map(|b| b.to_string()).concat()));
        std::fs::create_dir(&dir).unwrap();
        let key = generate_key(&OsEntropy, "alice").unwrap();
        let tls_key = KeyPair::generate(&OsEntropy).unwrap();
        let statement = LoginStatement {
            domain: self.ca.domain.clone(),
            person: PersonId::from_name("alice").unwrap(),
            ssh_public_key: key.public_key().to_openssh().unwrap(),
            tls_public_key: tls_key.spki().unwrap(),
            time: now(),
            nonce: OsEntropy.array().unwrap(),
        };
        let proof = LoginProof::make(statement.clone(), &key).unwrap();
        let mut asked = json!({
            "person": statement.person, "ssh_public_key": statement.ssh_public_key, "time": statement.time,
            "nonce": BASE64.encode(&statement.nonce), "signature": proof.signature, "token": token,
            "tls_public_key": BASE64.encode(&statement.tls_public_key),
        });
        if let Some(lifetime) = lifetime {
            asked["lifetime"] = lifetime.into();
        }
        let (status, answer) = self.call(None, "POST", "/v1/login", asked.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{answer}");
        let private = key.to_openssh(LineEnding::LF).unwrap();
        broker::private::write(&dir.join("key"), private.as_bytes()).unwrap();
        std::fs::write(dir.join("cert.pub"), answer["ssh_certificate"].as_str().unwrap()).unwrap();
        let endpoint = &answer["ssh"];
        let port = u16::try_from(endpoint["port"].as_u64().unwrap()).unwrap();
        let host_ca = answer["host_ca"].as_str().unwrap();
        std::fs::write(dir.join("known_hosts"), format!("@cert-authority [127.0.0.1]:{port} {host_ca}\n"))
            .unwrap();
        let pem = answer["tls_certificate_pem"].as_str().unwrap();
        let tls_key = Identity { chain: Vec::new(), key: tls_key.to_private_key_der().unwrap() };
        let tls = Identity::from_pem(pem, &tls_key.key_pem()).unwrap();
        Person { dir, tls, port }
    }

    /// Somebody else with a certificate for SSH and one for TLS, on a device beside another's.
    pub fn beside(&self, other: &Person, name: &str) -> Person {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let key = generate_key(&OsEntropy, name).unwrap();
        let request = UserCertificateRequest {
            person: PersonId::from_name(name).unwrap(),
            public_key: key.public_key().clone(),
            lifetime: Duration::from_secs(900),
            source_addresses: Vec::new(),
            pty: true,
            port_forwarding: false,
            force_command: None,
        };
        let cert = issue_user_certificate(&request, &self.ca.user, now(), &OsEntropy).unwrap();
        broker::private::write(&dir.join("key"), key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        std::fs::write(dir.join("cert.pub"), cert.to_openssh().unwrap()).unwrap();
        std::fs::copy(other.dir.join("known_hosts"), dir.join("known_hosts")).unwrap();
        Person { dir, tls: self.ca.leaf(format!("person/{name}").parse().unwrap()), port: other.port }
    }

    async fn made(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Some(&self.admin), "POST", path, body.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// What lies at `path`: the status, the head, the bytes.
    pub async fn fetch(&self, identity: Option<&Identity>, path: &str) -> (u16, String, Vec<u8>) {
        let mut stream = self.tls(self.node().endpoints().api, identity).await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, head, answer[end + 4..].to_vec())
    }

    /// One request; the last line of the answer as JSON.
    pub async fn call(
        &self,
        identity: Option<&Identity>,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> (u16, Value) {
        let api = self.node().endpoints().api;
        let mut stream = self.tls(api, identity).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A refusal may come before the whole body is read.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let last = answer.lines().rfind(|line| line.starts_with(['{', '['])).unwrap_or("null");
        (status, serde_json::from_str(last).unwrap_or(Value::Null))
    }

    pub async fn tls(
        &self,
        api: SocketAddr,
        identity: Option<&Identity>,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(self.ca.x509.certificate().der().to_vec())).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(broker::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let tcp = TcpStream::connect(api).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    pub async fn revoke(&self) -> Value {
        self.made(&format!("/v1/grants/{}/revoke", self.grant), json!({"reason": "consent withdrawn"})).await
    }

    /// Changes what the study permits inside a connection.
    pub async fn channels(&self, allow: &[&str], refuse: &[&str]) -> Value {
        self.made("/v1/studies/study:brca/channels", json!({"allow": allow, "refuse": refuse})).await
    }

    /// Every record of the log, as text.
    pub fn records(&self) -> Vec<String> {
        let log = self.node().services().gate.log().clone();
        log.read(0, 100_000)
            .unwrap()
            .into_iter()
            .map(|(_, entry)| String::from_utf8(entry).unwrap())
            .collect()
    }

    /// Whether a record has all these words; waits a little for it.
    pub async fn recorded(&self, words: &[&str]) -> bool {
        for _ in 0..100 {
            if self.records().iter().any(|record| words.iter().all(|word| record.contains(word))) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

/// A signer of another authority at `socket`, in this process.
pub fn signer(socket: &Path) {
    Arc::new(Ca::new()).serve(socket);
}

/// A broker in `dir`, as its configuration says.
pub async fn start(dir: &Path) -> anyhow::Result<Node> {
    let config = Config::load(dir)?;
    let sockets = Sockets::bind(&config)?;
    Node::start(dir, config, sockets, Arc::new(SystemClock), Arc::new(OsEntropy)).await
}

impl Person {
    /// `ssh` with these arguments, as this person.
    pub fn ssh(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("ssh");
        command.arg("-F").arg("none").args(["-p", &self.port.to_string(), "-o", "BatchMode=yes"]);
        command.args([
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
            "-o",
            "StrictHostKeyChecking=yes",
        ]);
        command.args([
            "-o",
            "HostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com",
            "-o",
            "GlobalKnownHostsFile=/dev/null",
        ]);
        command.args(["-o", "ExitOnForwardFailure=yes"]);
        let option = |name: &str, file: &str| format!("{name}={}", self.dir.join(file).display());
        command.arg("-o").arg(option("UserKnownHostsFile", "known_hosts"));
        command.arg("-o").arg(option("CertificateFile", "cert.pub")).arg("-i").arg(self.dir.join("key"));
        command.args(args).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The outcome of `sftp` with these commands: exit status, standard output, standard error.
    pub async fn sftp(&self, commands: &[&str]) -> (i32, Vec<u8>, String) {
        let ssh = self.ssh(&[]);
        let mut command = tokio::process::Command::new("sftp");
        for arg in ssh.as_std().get_args() {
            // The same options; `sftp` has another word for the port.
            command.arg(if arg == "-p" { std::ffi::OsStr::new("-P") } else { arg });
        }
        command.args(["-b", "-", "brca@127.0.0.1"]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all((commands.join("\n") + "\n").as_bytes()).await;
        drop(stdin);
        let output =
            tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), output.stdout, said)
    }

    /// The outcome of `ssh`: exit status, standard output, standard error.
    pub async fn run(&self, args: &[&str]) -> (i32, Vec<u8>, String) {
        let output =
            tokio::time::timeout(Duration::from_secs(60), self.ssh(args).output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), output.stdout, said)
    }
}

/// Does what the broker orders, with `sh`.
async fn obey(link: BrokerLink, ca: Arc<Ca>, vault: Vault) {
    let order_of = |ticket: &[u8]| {
        certs::ticket::open(ticket, ca.x509.certificate(), &ca.domain, &agent(), now()).unwrap().order
    };
    while let Some(order) = link.accept().await {
        match order {
            Incoming::Fetch(open, stream) => {
                let Order::Fetch(order) = order_of(&open.ticket) else { panic!("another order") };
                let vault = vault.clone();
                tokio::spawn(async move { vault.hand_out(order, stream).await });
            }
            Incoming::Deposit(open, stream) if matches!(order_of(&open.ticket), Order::Keep(_)) => {
                let Order::Keep(order) = order_of(&open.ticket) else { panic!("another order") };
                let vault = vault.clone();
                tokio::spawn(async move { vault.take_in(order.object, stream).await });
            }
            Incoming::Session(open, stream) => drop(tokio::spawn(perform(open, stream))),
            Incoming::Workspace(_) => {}
            Incoming::Deposit(_, mut stream) => drop(tokio::spawn(async move {
                stream.sender.send(DepositOutput::Ready).await.unwrap();
                let mut size = 0;
                while let Ok(Some(DepositInput::Data(data))) = stream.receiver.next().await {
                    size += data.len() as u64;
                    stream.sender.send(DepositOutput::Progress { bytes: size }).await.unwrap();
                }
                stream.sender.send(DepositOutput::Deposited { size, root: [9; 32] }).await.unwrap();
                stream.sender.gone().await;
            })),
        }
    }
}

async fn perform(open: wire::message::OpenSession, stream: SessionStream) {
    let (mut sender, mut receiver) = (stream.sender, stream.receiver);
    let workspace = model::WorkspaceId::from_name("w1").unwrap();
    if let Command::Connect { port } = open.command {
        return connect(port, sender, receiver).await;
    }
    sender.send(SessionOutput::Opened { workspace, cold: false, notices: Vec::new() }).await.unwrap();
    let line = match open.command {
        Command::Shell => "cat".to_owned(),
        Command::Exec(line) => String::from_utf8(line).unwrap(),
        // A server of another make: what the broker says of files must hold for it too.
        Command::Sftp { .. } => "exec /usr/lib/openssh/sftp-server".to_owned(),
        Command::Connect { .. } => unreachable!(),
    };
    let mut child = tokio::process::Command::new("sh")
        .arg("-c")
        .arg(line)
        .envs(open.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout, mut stderr) =
        (child.stdin.take(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let input = async move {
        loop {
            match receiver.next().await {
                Ok(Some(SessionInput::Stdin(data))) => {
                    if let Some(pipe) = &mut stdin {
                        let _ = pipe.write_all(&data).await;
                    }
                }
                Ok(Some(SessionInput::StdinEof)) => stdin = None,
                Ok(Some(SessionInput::Kill { .. } | SessionInput::Leave { .. })) | Ok(None) | Err(_) => {
                    return;
                }
                Ok(Some(_)) => {}
            }
        }
    };
    let output = async {
        let (mut out, mut err) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        let (mut more_out, mut more_err) = (true, true);
        while more_out || more_err {
            let message = tokio::select! {
                n = stdout.read(&mut out), if more_out => match n.unwrap() {
                    0 => { more_out = false; continue }
                    n => SessionOutput::Stdout(Bytes::copy_from_slice(&out[..n])),
                },
                n = stderr.read(&mut err), if more_err => match n.unwrap() {
                    0 => { more_err = false; continue }
                    n => SessionOutput::Stderr(Bytes::copy_from_slice(&err[..n])),
                },
            };
            if sender.send(message).await.is_err() {
                return;
            }
        }
        let status = child.wait().await.unwrap();
        let exited = match status.code() {
            Some(code) => Exited::Code(u8::try_from(code).unwrap()),
            None => Exited::Signal { name: "TERM".to_owned(), core: false },
        };
        let _ = sender.send(SessionOutput::Exit(exited)).await;
        sender.gone().await;
    };
    tokio::select! {
        () = output => {}
        () = input => {}
    }
}

async fn connect(
    port: u16,
    mut sender: wire::agent::SessionSender,
    mut receiver: wire::agent::SessionReceiver,
) {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        let message = format!("Nothing in your workspace answers on port {port}.");
        let refused = wire::message::Refused { code: "connect.refused".to_owned(), message };
        return sender.send(SessionOutput::Refused(refused)).await.unwrap();
    };
    let workspace = model::WorkspaceId::from_name("w1").unwrap();
    sender.send(SessionOutput::Opened { workspace, cold: false, notices: Vec::new() }).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let input = async move {
        loop {
            match receiver.next().await {
                Ok(Some(SessionInput::Stdin(data))) => to.write_all(&data).await.unwrap(),
                Ok(Some(SessionInput::StdinEof)) => to.shutdown().await.unwrap(),
                Ok(Some(SessionInput::Kill { .. } | SessionInput::Leave { .. })) | Ok(None) | Err(_) => {
                    return;
                }
                Ok(Some(_)) => {}
            }
        }
    };
    let output = async {
        let mut out = vec![0; 64 << 10];
        loop {
            match from.read(&mut out).await.unwrap() {
                0 => break,
                n => {
                    let piece = Bytes::copy_from_slice(&out[..n]);
                    sender.send(SessionOutput::Stdout(piece)).await.unwrap();
                }
            }
        }
        sender.send(SessionOutput::StdoutEof).await.unwrap();
        sender.send(SessionOutput::Exit(Exited::Code(0))).await.unwrap();
        sender.gone().await;
    };
    tokio::select! {
        () = output => {}
        () = input => {}
    }
}

/// The agent's name in these stories.
pub fn agent() -> AgentId {
    AgentId::from_name("main").unwrap()
}
