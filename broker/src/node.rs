//! One broker from its configuration to its end: build, serve, drain.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use audit::{Event, EventKind, Log, LogKey};
use certs::x509::Identity;
use gate::{Foundations, Gate, Recorded, Settings};
use model::diagnosis::Ends;
use model::{AgentId, Clock, Entropy, PersonId, SessionId};
use serde::Serialize;
use signer::SignerClient;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vitals::Door;
use wire::broker::AgentListener;

use crate::api::{Api, ApiDoor, SshEndpoint};
use crate::config::Config;
use crate::credentials::{Credentials, Issuer};
use crate::diagnosing::{Examined, diagnose};
use crate::drain::{Drain, Stage};
use crate::feed::{Feeds, Sinks};
use crate::hub::Hub;
use crate::keeping::Keeping;
use crate::keeping::segments::{Followers, Segments};
use crate::private;
use crate::recordings::Recordings;
use crate::recordings::keeper::Keeper;
use crate::ssh::admission::AdmissionLimits;
use crate::ssh::rate::Rates;
use crate::ssh::stage::Stages;
use crate::ssh::{IssuedBook, OPENINGS, Services, SshDoor};
use crate::telling::Telling;
use crate::tls::{Presented, api_config};
use crate::watch::Watch;
use crate::witnessing::Witnessing;

/// The first administrator and the first agent of an empty house.
const FIRST_ADMIN: &str = "admin";
const FIRST_AGENT: &str = "main";

/// Sockets that may need root, bound before it is given up.
pub struct Sockets {
    ssh: StdListener,
    api: StdListener,
}

impl Sockets {
    /// Binds what `config` names.
    pub fn bind(config: &Config) -> anyhow::Result<Sockets> {
        let bind = |addr: SocketAddr, what: &str| {
            let listener =
                StdListener::bind(addr).with_context(|| format!("cannot listen for {what} on {addr}"))?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(listener)
        };
        Ok(Sockets { ssh: bind(config.ssh, "SSH")?, api: bind(config.api, "HTTPS")? })
    }
}

/// Where the doors really are.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Endpoints {
    /// SSH.
    pub ssh: SocketAddr,
    /// HTTPS.
    pub api: SocketAddr,
    /// QUIC, for agents.
    pub agents: SocketAddr,
}

/// A broker that serves.
pub struct Node {
    services: Arc<Services>,
    agents: Arc<AgentListener>,
    endpoints: Endpoints,
    drain: Duration,
    grace: Duration,
    sessions: usize,
}

impl Node {
    /// Builds everything in `dir` and begins to serve.
    pub async fn start(
        dir: &Path,
        config: Config,
        sockets: Sockets,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> anyhow::Result<Node> {
        let signer = SignerClient::new(dir.join(&config.signer));
        let issuer = Issuer {
            signer: signer.clone(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            domain: config.trust_domain.clone(),
            names: config.names.clone(),
            addresses: config.addresses.clone(),
        };
        let trust = issuer.trust().await.context("cannot learn from the signer whom to trust")?;
        let own =
            issuer.credentials(dir).await.context("cannot get this broker's certificates from the signer")?;
        let until = own.until;
        let ends = Ends::at(until);
        let examined = Examined::new(dir, &config, &ends, &clock, &entropy);
        let diagnose_every = Duration::from_secs(config.diagnose_secs);

        let (log, witnessing) = open_log(dir, &config, &clock, &*entropy).await?;
        let store = Store::open(&dir.join("records.sqlite")).await.context("cannot open the records")?;
        let tasks = TaskTracker::new();
        let (recordings, left_open) = open_recordings(dir, &clock, &entropy, &tasks).await?;
        let sessions: Vec<_> = left_open.iter().map(|(session, _)| session.clone()).collect();
        let gate = Gate::new(Foundations {
            store,
            log,
            signer,
            ticket_key: own.tickets,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            settings: Settings { approvals: config.approvals.settings(), ..Settings::default() },
            left_open,
        })
        .await
        .context("cannot open the gate")?;
        sessions.iter().for_each(|session| recordings.keep(session));
        record(
            &gate,
            EventKind::Started {
                process: "broker".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        )
        .await?;
        if config.detection.enabled {
            Watch::make_up(&gate, dir).await.context("cannot carry out what was found before this start")?;
        }
        found(dir, &gate).await?;

        let (hub, stopping) = (Hub::new(), CancellationToken::new());
        let keeping = Keeping::new(gate.clone(), hub.clone(), Arc::clone(&entropy), stopping.clone());
        let services = Arc::new(Services {
            gate: gate.clone(),
            hub,
            keeping: keeping.clone(),
            trust: ArcSwap::from_pointee(trust.ssh),
            issued: IssuedBook::default(),
            openings: Rates::new(OPENINGS),
            slots: Arc::new(Semaphore::new(config.max_sessions)),
            sinks: Sinks::new(&config.siem.sink),
            watch: Watch::new(&config.detection),
            recordings,
            stages: Stages::default(),
            drain: Drain::default(),
            stopping,
            tasks,
        });

        let agent_tls =
            wire::Tls::new(config.trust_domain.clone(), trust.ca.clone(), &own.broker, Arc::clone(&clock))
                .context("cannot set up TLS for agents")?;
        let agents =
            Arc::new(AgentListener::bind(config.agents, &agent_tls).context("cannot listen for agents")?);
        let (ssh, api) = (TcpListener::from_std(sockets.ssh)?, TcpListener::from_std(sockets.api)?);
        let endpoints =
            Endpoints { ssh: ssh.local_addr()?, api: api.local_addr()?, agents: agents.local_addr() };

        let ssh_door = Arc::new(SshDoor::new(Arc::clone(&services), own.host, AdmissionLimits::default()));
        let presented = Presented::new(&own.broker).context("cannot set up TLS for the API")?;
        let house = Api {
            services: Arc::clone(&services),
            domain: config.trust_domain.clone(),
            ca: trust.ca.clone(),
            host_ca: trust.host_ca.clone(),
            ssh: SshEndpoint { host: config.public_host(), port: endpoints.ssh.port() },
        };
        let api_tls = api_config(Arc::clone(&presented)).context("cannot set up TLS for the API")?;
        let api_door = ApiDoor::new(house, api_tls, AdmissionLimits::default());

        let siem_identity = Arc::new(ArcSwap::from_pointee(own.siem));
        let feeds = Feeds {
            gate: gate.clone(),
            identity: Arc::clone(&siem_identity),
            ca: trust.ca.clone(),
            hostname: config.names.first().cloned().unwrap_or_else(|| "broker".to_owned()),
            entropy: Arc::clone(&entropy),
        };
        for feed in feeds.start(&services.sinks, dir, &services.stopping) {
            services.tasks.spawn(feed);
        }

        services.tasks.spawn({
            let (gate, hub, stopping) = (gate.clone(), services.hub.clone(), services.stopping.clone());
            async move {
                let accepted = hub.accepted();
                tokio::select! {
                    () = diagnose(examined, gate, hub.diagnoses, accepted, diagnose_every) => {}
                    () = stopping.cancelled() => {}
                }
            }
        });

        if config.detection.enabled {
            let watch = services.watch.clone();
            let watching =
                watch.run(config.detection.clone(), gate.clone(), dir.to_owned(), services.stopping.clone());
            services.tasks.spawn(watching);
        }

        if config.retention.keep {
            let (sinks, judged) = (Arc::clone(&services), services.watch.clone());
            let delivered = move || {
                sinks.sinks.states().map(|(name, status, _)| (name.to_owned(), status.delivered)).collect()
            };
            let segments = Segments {
                keeping,
                retention: config.retention.clone(),
                witnessed: config.witness.is_some(),
                followers: Followers {
                    sinks: Box::new(delivered),
                    judged: Box::new(move || judged.judged()),
                },
            };
            services.tasks.spawn(segments.run());
        }

        if config.recordings.keep {
            let keeper = Keeper {
                recordings: services.recordings.clone(),
                keeping: services.keeping.clone(),
                gate: gate.clone(),
                rule: config.recordings.clone(),
                stopping: services.stopping.clone(),
            };
            services.tasks.spawn(keeper.run());
        }

        let door = Door::open(dir, config.metrics).await.context("nobody can ask how the broker is")?;
        services.tasks.spawn({
            let (telling, stopping) = (Arc::new(Telling(Arc::clone(&services))), services.stopping.clone());
            async move {
                tokio::select! {
                    () = door.serve(telling) => {}
                    () = stopping.cancelled() => {}
                }
            }
        });

        if let Some(witnessing) = witnessing {
            services.tasks.spawn(witnessing.run(gate.clone(), services.stopping.clone()));
        }

        tokio::spawn({
            let door = Arc::clone(&ssh_door);
            async move { door.serve(ssh).await }
        });
        tokio::spawn(async move { api_door.serve(api).await });
        tokio::spawn({
            let (services, agents) = (Arc::clone(&services), Arc::clone(&agents));
            async move {
                let (gate, stopping, tasks) =
                    (services.gate.clone(), services.stopping.clone(), services.tasks.clone());
                services.hub.serve(&agents, gate, stopping, tasks).await;
            }
        });
        tokio::spawn({
            let (dir, stopping) = (dir.to_owned(), services.stopping.clone());
            let install = move |fresh: Credentials| {
                ends.move_to(fresh.until);
                install(fresh, &gate, &ssh_door, &presented, &agent_tls, &siem_identity)
            };
            async move {
                tokio::select! {
                    () = issuer.keep_fresh(&dir, until, install) => {}
                    () = stopping.cancelled() => {}
                }
            }
        });

        let json = serde_json::to_vec(&endpoints)?;
        private::write_public(&dir.join("endpoints.json"), &json).context("cannot write endpoints.json")?;
        let (drain, grace) = (Duration::from_secs(config.drain_secs), Duration::from_secs(config.grace_secs));
        Ok(Node { services, agents, endpoints, drain, grace, sessions: config.max_sessions })
    }

    /// Where the doors are.
    pub fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// What the doors work with.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Waits until the log takes no more records; then nothing may happen here any more.
    pub async fn log_failed(&self) -> String {
        self.services.gate.log().failed().await.to_string()
    }

    /// Lets nothing new begin, tells everybody, and waits until all have left or the time that the
    /// configuration gives them is over.
    pub async fn drain(&self) {
        if self.services.drain.stage() == Stage::Open {
            self.services.drain.close(self.grace);
        }
        self.drained().await;
    }

    /// Waits until nobody is left of those that were told to finish, or their time is over; for ever,
    /// unless they are told.
    pub async fn drained(&self) {
        let drain = &self.services.drain;
        let mut stage = drain.stage();
        loop {
            match stage {
                Stage::Open => stage = drain.after(stage).await,
                Stage::Over => return,
                Stage::Closing(within) => {
                    let all = u32::try_from(self.sessions).unwrap_or(u32::MAX);
                    tokio::select! {
                        // All slots at once: nobody is in.
                        _ = self.services.slots.acquire_many(all) => return,
                        () = tokio::time::sleep(within) => return drain.finish(),
                        next = drain.after(stage) => stage = next,
                    }
                }
            }
        }
    }

    /// Shuts the doors, ends what runs behind them, and closes the log.
    pub async fn stop(self, reason: &str) {
        let services = &self.services;
        services.stopping.cancel();
        services.tasks.close();
        if timeout(self.drain, services.tasks.wait()).await.is_err() {
            tracing::warn!(left = services.tasks.len(), "not everything ended in time");
        }
        let _ = timeout(Duration::from_secs(1), self.agents.close("the broker stops")).await;
        let stopped = EventKind::Stopped { process: "broker".to_owned(), reason: reason.to_owned() };
        if let Err(error) = record(&services.gate, stopped).await {
            tracing::error!(%error, "the end of this process could not be recorded");
        }
        services.gate.log().close().await;
    }
}

fn install(
    fresh: Credentials,
    gate: &Gate,
    ssh: &SshDoor,
    presented: &Presented,
    agents: &wire::Tls,
    siem: &ArcSwap<Identity>,
) -> Result<(), String> {
    presented.renew(&fresh.broker).map_err(|e| e.to_string())?;
    agents.replace(&fresh.broker).map_err(|e| e.to_string())?;
    ssh.renew(fresh.host);
    siem.store(Arc::new(fresh.siem));
    gate.renew_ticket_key(fresh.tickets);
    Ok(())
}

/// Opens the log, once its witness has agreed.
async fn open_log(
    dir: &Path,
    config: &Config,
    clock: &Arc<dyn Clock>,
    entropy: &dyn Entropy,
) -> anyhow::Result<(Log, Option<Witnessing>)> {
    let origin = format!("{}/audit", config.trust_domain);
    let text = private::read_or_make(&dir.join("audit.key"), || {
        LogKey::generate(&origin, entropy).map(|key| key.to_secret_text()).map_err(std::io::Error::other)
    })
    .context("cannot read or make the key of the audit log, audit.key")?;
    let key = LogKey::from_secret_text(text.trim()).context("audit.key is not the key of an audit log")?;
    let audit = dir.join("audit");
    let witnessing = match &config.witness {
        Some(witness) => Some(Witnessing::begin(witness, dir, &audit, &key).await?),
        None => None,
    };
    let log = Log::open(&audit, key, Arc::clone(clock), audit::Options::default())
        .context("cannot open the audit log")?;
    Ok((log, witnessing))
}

/// Opens the recordings, and reads what an earlier process left open of them.
async fn open_recordings(
    dir: &Path,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    tasks: &TaskTracker,
) -> anyhow::Result<(Recordings, Vec<(SessionId, Recorded)>)> {
    let recordings = Recordings::open(dir, Arc::clone(clock), Arc::clone(entropy), tasks.clone())
        .context("cannot open the folder of recordings, or recordings.key")?;
    let here = recordings.clone();
    let left_open = tokio::task::spawn_blocking(move || here.left_open())
        .await?
        .context("cannot read what was left open in the folder of recordings")?;
    Ok((recordings, left_open))
}

/// Leaves the one-time tokens of a house that is being founded where its owner finds them.
async fn found(dir: &Path, gate: &Gate) -> anyhow::Result<()> {
    let (admin, agent) = (PersonId::from_name(FIRST_ADMIN)?, AgentId::from_name(FIRST_AGENT)?);
    let first = gate.found(&admin, &agent).await.context("cannot make the first tokens")?;
    for (name, token) in [("agent.token", first.agent), ("admin.token", first.person)] {
        if let Some(token) = token {
            private::write(&dir.join(name), token.as_bytes())
                .with_context(|| format!("cannot write {name}"))?;
        }
    }
    Ok(())
}

async fn record(gate: &Gate, kind: EventKind) -> Result<u64, gate::Refusal> {
    gate.record(&Event::new(gate.now(), kind)).await
}
