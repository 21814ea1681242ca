//! The agent as a whole: from the folder to the link with the broker, and back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use certs::TrustDomain;
use intake::crypt4gh::SecretKey;
use model::diagnosis::Ends;
use model::{Clock, Entropy};
use sharding::vault::VaultError;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use vitals::{Door, DoorError};
use wire::agent::{BrokerLink, Status};
use wire::message::{Hello, Load, VERSION};

use crate::backends::OpenError;
use crate::config::{Config, HomesConfig};
use crate::diagnosing::{Examined, diagnose};
use crate::enrol::{EnrolError, Office, read_token};
use crate::identity::{Enrolment, KeptError, intake_key};
use crate::leftovers;
use crate::load;
use crate::outlets::Outlets;
use crate::reports::Reports;
use crate::service::{KEEPING, Service, Setup, Workspaces};
use crate::storage::Storage;
use crate::telling::{Enrolled, Telling};
use crate::workspace::{Homes, Place, Runtime, RuntimeError, make_dir};

/// How often the token file is looked for, and a failed enrolment tried again.
const LOOK: Duration = Duration::from_millis(500);
/// How long after a failed enrolment or renewal it is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// How long sessions may take to end when the agent stops.
const DRAIN: Duration = Duration::from_secs(3);
/// Input that may wait unread in a stream. The broker opens as many streams as there may be
/// sessions.
const STREAM_WINDOW: u32 = 1 << 20;
/// How often it is looked whether any broker is there.
const ALONE: Duration = Duration::from_secs(1);
/// Reports that may wait for the broker.
const REPORTS: usize = 4096;

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A folder or a file.
    #[error("{what}")]
    Files {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A backend's credentials, or what else it takes to reach it.
    #[error("the backend {0} cannot be used")]
    Backend(String, #[source] OpenError),
    /// The way shares would lie at institutions.
    #[error("shares may not be placed like this")]
    Placement(#[source] VaultError),
    /// What an earlier agent left could not be removed.
    #[error("what an earlier agent left behind could not be removed")]
    Leftovers(#[source] RuntimeError),
    /// What is kept in the folder.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// Nobody could ask how the agent is.
    #[error("nobody can ask how the agent is")]
    Telling(#[from] DoorError),
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] wire::tls::TlsError),
}

/// What the agent takes from its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// Its folder.
    pub dir: PathBuf,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Keys and shares.
    pub entropy: Arc<dyn Entropy>,
    /// The program that becomes PID 1, unless configured.
    pub init: PathBuf,
}

/// Runs until `stop` is true. `ready` is called whenever the broker has admitted the agent.
pub async fn run(
    config: Config,
    around: Surroundings,
    stop: watch::Receiver<bool>,
    ready: impl Fn() + Send + Sync,
) -> Result<(), AgentError> {
    let place = place(&config, &around)?;
    let ran = run_in(&place, config, around, stop, ready).await;
    // Whether it ran or not, it leaves nothing.
    leftovers::sweep(&place);
    ran
}

async fn run_in(
    place: &Place,
    config: Config,
    around: Surroundings,
    stop: watch::Receiver<bool>,
    ready: impl Fn() + Send + Sync,
) -> Result<(), AgentError> {
    leftovers::reap(place).await.map_err(AgentError::Leftovers)?;
    make_dir(&place.run, 0o711)
        .map_err(|source| files("the folder of running workspaces could not be made", source))?;
    let intake = intake_key(&around.dir, &*around.entropy)?;
    let storage = storage(&config, &around.dir)?;
    let (telling, told) = open_door(&config, &around, storage.clone()).await?;
    tokio::select! {
        () = told.serve(telling.clone()) => Ok(()),
        ran = serve_broker(place, config, &around, &telling, intake, stop, ready) => ran,
    }
}

/// Where it can be asked how the agent is, from now on.
async fn open_door(
    config: &Config,
    around: &Surroundings,
    storage: Storage,
) -> Result<(Arc<Telling>, Door), AgentError> {
    let capacity = config.sessions as usize;
    let telling = Telling {
        me: config.agent.clone(),
        clock: around.clock.clone(),
        storage,
        places: Arc::new(Semaphore::new(capacity)),
        capacity,
        diagnosis: watch::Sender::default(),
        enrolled: OnceLock::new(),
    };
    Ok((Arc::new(telling), Door::open(&around.dir, config.metrics).await?))
}

async fn serve_broker(
    place: &Place,
    config: Config,
    around: &Surroundings,
    telling: &Telling,
    intake: SecretKey,
    stop: watch::Receiver<bool>,
    ready: impl Fn() + Send + Sync,
) -> Result<(), AgentError> {
    let storage = telling.storage.clone();
    let mut stopped = stop.clone();
    let enrolment = tokio::select! {
        enrolment = enrolled(&config, around) => enrolment?,
        _ = stopped.wait_for(|stop| *stop) => return Ok(()),
    };
    let tls = wire::Tls::new(
        enrolment.domain.clone(),
        enrolment.ca.clone(),
        &enrolment.identity,
        around.clock.clone(),
    )?;
    let hello = Hello {
        version: VERSION,
        agent: concat!("sekisho-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
        kernel: kernel(),
        intake_key: intake.public().to_bytes(),
        keeping_key: intake.derived(KEEPING).public().to_bytes(),
        backends: storage.names(),
        near: storage.near(),
        capacity: config.sessions,
        load: Load::default(),
    };
    let limits = wire::Limits {
        streams: config.sessions,
        stream_window: STREAM_WINDOW,
        reports: REPORTS,
        ..wire::Limits::default()
    };
    let dial =
        |broker: &String| wire::agent::connect_with(broker.clone(), &tls, hello.clone(), limits.clone());
    let links = config.brokers().iter().map(dial).collect::<Result<Vec<_>, _>>()?;
    let outlets = Outlets::default();
    outlets.connect(&links);
    let told = reports(&outlets);
    let workspaces = Workspaces::new(Setup {
        place: place.clone(),
        storage,
        cache_bytes: config.cache_mib << 20,
        idle: Duration::from_secs(config.idle_secs),
        clock: around.clock.clone(),
        reports: told.clone(),
    });
    let service = Arc::new(Service {
        me: config.agent.clone(),
        domain: enrolment.domain.clone(),
        ca: enrolment.ca.clone(),
        clock: around.clock.clone(),
        entropy: around.entropy.clone(),
        intake,
        workspaces: workspaces.clone(),
        seen: crate::service::Seen::default(),
        places: telling.places.clone(),
        ordered: {
            let outlets = outlets.clone();
            Box::new(move |by, session, workspace| outlets.ordered(by, session, workspace))
        },
    });
    let tasks = TaskTracker::new();
    let ends = Ends::at(enrolment.until);
    let _ = telling.enrolled.set(Enrolled {
        links: links.clone(),
        outlets: outlets.clone(),
        workspaces: workspaces.clone(),
        ends: ends.clone(),
    });
    let examined = Examined {
        dir: around.dir.clone(),
        config: config.clone(),
        place: place.clone(),
        ends: ends.clone(),
        clock: around.clock.clone(),
        entropy: around.entropy.clone(),
    };
    let mut stopped = stop.clone();
    tokio::select! {
        () = serve(&links, &service, &tasks) => {}
        () = watch_links(&links, &enrolment.domain, &ready) => {}
        () = workspaces.tend() => {}
        () = load::tell(&workspaces, &links, &outlets) => {}
        () = alone(&links, &workspaces, Duration::from_secs(config.alone_secs)) => {}
        () = renew(&config, around, enrolment.clone(), &tls, &ends) => {}
        () = diagnose(examined, told, &telling.diagnosis, accepted(&links)) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    tracing::info!("stopping");
    workspaces.stop_all("the agent stops").await;
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
    // A session that was being opened may have started a workspace meanwhile.
    workspaces.stop_all("the agent stops").await;
    let closing = futures::future::join_all(links.iter().map(BrokerLink::close));
    let _ = tokio::time::timeout(DRAIN, closing).await;
    Ok(())
}

/// Where workspaces run.
fn place(config: &Config, around: &Surroundings) -> Result<Place, AgentError> {
    let tag =
        leftovers::tag(&around.dir).map_err(|source| files("the agent's folder cannot be read", source))?;
    let run = match &config.run {
        Some(run) => std::path::absolute(around.dir.join(run))
            .map_err(|source| files("`run` is not a path", source))?,
        None => Path::new("/run/sekisho").join(&tag),
    };
    if config.run.is_none() {
        make_dir(Path::new("/run/sekisho"), 0o711)
            .map_err(|source| files("/run/sekisho could not be made; is the agent root?", source))?;
    }
    Ok(Place {
        runtime: Runtime { program: config.runtime.clone(), root: run.join("runtime") },
        run,
        homes: Homes {
            folders: around.dir.join("homes"),
            disks: (config.homes == HomesConfig::Disk).then(|| around.dir.join("disks")),
        },
        init: config.init.clone().unwrap_or_else(|| around.init.clone()),
        cgroup: leftovers::cgroup(&tag),
        limits: config.limits.clone(),
        eyes: config.watch.clone(),
    })
}

fn storage(config: &Config, dir: &Path) -> Result<Storage, AgentError> {
    let backends = config
        .backends
        .iter()
        .map(|backend| backend.open(dir).map_err(|error| AgentError::Backend(backend.id.to_string(), error)));
    let storage = Storage::new(backends.collect::<Result<_, _>>()?, config.k);
    let near = config.backends.iter().filter(|backend| backend.near).map(|backend| backend.id.clone());
    let storage = storage.placed(config.placement.placement()).near_to(near.collect());
    for short in storage.check().map_err(AgentError::Placement)? {
        tracing::warn!(institution = %short.institution, "{short}");
    }
    Ok(storage)
}

/// The kept enrolment, or a new one once there is a token.
async fn enrolled(config: &Config, around: &Surroundings) -> Result<Enrolment, AgentError> {
    match Enrolment::load(&around.dir, &config.agent, around.clock.now())? {
        Some(Ok(kept)) => return Ok(kept),
        Some(Err(reason)) => {
            tracing::warn!(%reason, "the kept certificate cannot be used: a new token is needed")
        }
        None => {}
    }
    let path = around.dir.join(&config.enrol_token);
    tracing::info!(token = %path.display(), "waiting for a one-time token");
    loop {
        let token = read_token(&path)
            .map_err(|source| files(format!("{} cannot be read", path.display()), source))?;
        let Some(token) = token.filter(|text| !text.trim().is_empty()) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        match ask(config, around, move |office| office.enrol(&token)).await {
            Ok(enrolment) => {
                enrolment.keep(&around.dir)?;
                let _ = std::fs::remove_file(&path);
                tracing::info!(domain = %enrolment.domain, "enrolled");
                return Ok(enrolment);
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%error, "enrolment failed");
                // The broker may still be starting; a token that is wrong may be replaced.
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Renews the certificate in time, for ever.
async fn renew(config: &Config, around: &Surroundings, mut current: Enrolment, tls: &wire::Tls, ends: &Ends) {
    loop {
        // The wall clock may be set, or the machine sleep: look at it now and then.
        let wait = current.renew_in(around.clock.now());
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(AGAIN)).await;
            continue;
        }
        let old = current.clone();
        let renewed = ask(config, around, move |office| office.renew(&old)).await;
        let kept = renewed.map_err(|error| chain(&error)).and_then(|renewed| {
            tls.replace(&renewed.identity).map_err(|error| chain(&error))?;
            renewed.keep(&around.dir).map_err(|error| chain(&error))?;
            Ok(renewed)
        });
        match kept {
            Ok(renewed) => {
                tracing::info!(until = %renewed.until, "the certificate was renewed");
                ends.move_to(renewed.until);
                current = renewed;
            }
            Err(error) => {
                tracing::error!(%error, until = %current.until, "the certificate could not be renewed");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Asks the broker's office on a thread that may block.
async fn ask<F>(config: &Config, around: &Surroundings, what: F) -> Result<Enrolment, EnrolError>
where
    F: FnOnce(&Office<'_>) -> Result<Enrolment, EnrolError> + Send + 'static,
{
    let (api, me) = (config.api.clone(), config.agent.clone());
    let (clock, entropy) = (around.clock.clone(), around.entropy.clone());
    let asked = tokio::task::spawn_blocking(move || {
        what(&Office { api: &api, me: &me, clock: &*clock, entropy: &*entropy })
    });
    match asked.await {
        Ok(answer) => answer,
        Err(died) => Err(EnrolError::Connect(io::Error::other(died))),
    }
}

/// Carries out the orders of every broker, until one of the links is closed.
async fn serve(links: &[BrokerLink], service: &Arc<Service>, tasks: &TaskTracker) {
    let serving = links.iter().enumerate().map(|(by, link)| {
        Box::pin(async move {
            while let Some(incoming) = link.accept().await {
                service.obey(by, incoming, tasks);
            }
        })
    });
    futures::future::select_all(serving).await;
}

/// Stops what nobody is in when no broker has been there for so long: none can say that it must not
/// run.
async fn alone(links: &[BrokerLink], workspaces: &Workspaces, patience: Duration) {
    let mut since = None::<tokio::time::Instant>;
    loop {
        let connected = links.iter().any(|link| matches!(&*link.status().borrow(), Status::Connected { .. }));
        if connected {
            since = None;
        } else if since.get_or_insert_with(tokio::time::Instant::now).elapsed() >= patience {
            workspaces.stop_unused("no broker was there for too long").await;
        }
        tokio::time::sleep(ALONE).await;
    }
}

/// What any of the brokers says is accepted.
fn accepted(links: &[BrokerLink]) -> watch::Receiver<Option<String>> {
    let (said, heard) = watch::channel(None);
    for link in links {
        let (mut each, said) = (link.accepted(), said.clone());
        tokio::spawn(async move {
            while each.changed().await.is_ok() {
                let state = each.borrow_and_update().clone();
                said.send_replace(state);
            }
        });
    }
    heard
}

/// Says `ready` at every admission.
async fn watch_links(links: &[BrokerLink], domain: &TrustDomain, ready: &(impl Fn() + Send + Sync)) {
    let watching = links.iter().map(|link| Box::pin(watch_link(link, domain, ready)));
    futures::future::select_all(watching).await;
}

async fn watch_link(link: &BrokerLink, domain: &TrustDomain, ready: &(impl Fn() + Send + Sync)) {
    let mut status = link.status();
    loop {
        let now = status.borrow_and_update().clone();
        match now {
            Status::Connected { remote, td } => {
                tracing::info!(%remote, %td, "connected");
                if td != domain.as_str() {
                    tracing::warn!(%td, ours = %domain, "the broker says another trust domain");
                }
                ready();
            }
            Status::Away { .. } => {}
            Status::Closed => return,
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn reports(outlets: &Outlets) -> Reports {
    let (told, asked) = (outlets.clone(), outlets.clone());
    let outlet = move |event| told.tell(&event);
    // Half of what may wait is for what must not be lost.
    let room = move || asked.unacknowledged() < REPORTS / 2;
    Reports::with_room(Box::new(outlet), Box::new(room))
}

fn kernel() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn files(what: impl Into<String>, source: io::Error) -> AgentError {
    AgentError::Files { what: what.into(), source }
}

/// An error with its sources, for the log.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    crate::service::chain(error)
}
