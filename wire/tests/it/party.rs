//! Brokers and agents to test with.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use certs::x509::{CertificateAuthority, Identity, KeyPair, LeafRequest};
use certs::{SpiffeId, TrustDomain};
use model::ambient::OsEntropy;
use model::{Clock, ManualClock, Timestamp};
use wire::agent::BrokerLink;
use wire::broker::{AgentLink, AgentListener};
use wire::message::{Command, Hello, Load, OpenSession, VERSION};
use wire::{Limits, Tls};

/// When the tests take place.
pub fn now() -> Timestamp {
    Timestamp::from_secs(1_790_000_000)
}

/// One authority and the clock everybody goes by.
pub struct World {
    pub ca: CertificateAuthority,
    pub clock: Arc<ManualClock>,
}

impl World {
    pub fn new() -> World {
        let domain: TrustDomain = "sekisho.test".parse().unwrap();
        let key = KeyPair::generate(&OsEntropy).unwrap();
        let ca = CertificateAuthority::create(domain, key, now(), &OsEntropy).unwrap();
        World { ca, clock: Arc::new(ManualClock::at(now())) }
    }

    pub fn identity(&self, id: SpiffeId) -> Identity {
        let key = KeyPair::generate(&OsEntropy).unwrap();
        let request = LeafRequest {
            spiffe: id,
            dns: Vec::new(),
            ip: Vec::new(),
            public_key: key.spki().unwrap(),
            lifetime: Duration::from_secs(600),
        };
        let leaf = self.ca.issue(&request, self.clock.now(), &OsEntropy).unwrap();
        Identity { chain: vec![leaf], key: key.to_private_key_der().unwrap() }
    }

    /// Presents a certificate of this world for `id` and trusts this world.
    pub fn tls(&self, id: SpiffeId) -> Tls {
        self.tls_with(&self.identity(id))
    }

    /// Presents `identity`, whosever it is, and trusts this world.
    pub fn tls_with(&self, identity: &Identity) -> Tls {
        Tls::new(self.ca.domain().clone(), self.ca.certificate().clone(), identity, self.clock.clone())
            .unwrap()
    }

    pub fn listen(&self, limits: Limits) -> AgentListener {
        let tls = self.tls(SpiffeId::Broker("main".into()));
        AgentListener::bind_with((Ipv4Addr::LOCALHOST, 0).into(), &tls, limits).unwrap()
    }

    /// A broker and an agent that found each other.
    pub async fn pair(&self, limits: Limits) -> (AgentListener, AgentLink, BrokerLink) {
        let listener = self.listen(limits.clone());
        let agent = self.dial(listener.local_addr(), limits);
        let link = soon(listener.accept()).await.unwrap();
        assert!(soon(agent.connected()).await);
        (listener, link, agent)
    }

    pub fn dial(&self, addr: SocketAddr, limits: Limits) -> BrokerLink {
        let tls = self.tls(agent("hall-1"));
        wire::agent::connect_with(addr.to_string(), &tls, hello(), limits).unwrap()
    }
}

pub fn agent(name: &str) -> SpiffeId {
    SpiffeId::Agent(model::AgentId::from_name(name).unwrap())
}

pub fn hello() -> Hello {
    Hello {
        version: VERSION,
        agent: "test".into(),
        kernel: "6".into(),
        intake_key: [9; 32],
        keeping_key: [8; 32],
        backends: Vec::new(),
        near: Vec::new(),
        capacity: 4,
        load: Load::default(),
    }
}

pub fn order() -> OpenSession {
    OpenSession { ticket: vec![1; 300], command: Command::Shell, pty: None, env: Vec::new() }
}

/// Limits for tests of stalling: small windows.
pub fn narrow() -> Limits {
    Limits { streams: 4, stream_window: 256 * 1024, ..Limits::default() }
}

/// What must not take long.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it takes too long")
}
