//! `sekisho-agent`: runs workspaces on this host.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Parser;
use enclave_agent::agent::{Surroundings, run};
use enclave_agent::config::Config;
use model::ambient::{OsEntropy, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Threads that serve sessions, reads and the link.
const WORKERS: usize = 4;
/// Threads for what blocks: unmounting, asking for certificates, files.
const BLOCKING: usize = 16;

/// Runs workspaces with the datasets that tickets of the broker's gate grant.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The agent's folder; config.toml in it is written at the first start.
    #[arg(long)]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,fuser=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sekisho-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    harden()?;
    let beside = std::env::current_exe().context("this program's own path")?.with_file_name("sekisho-init");
    std::fs::create_dir_all(&args.dir).with_context(|| format!("{} cannot be made", args.dir.display()))?;
    let dir = args.dir.canonicalize()?;
    std::env::set_current_dir(&dir).with_context(|| format!("{} cannot be entered", dir.display()))?;
    let config = Config::load(&dir)?;
    let around =
        Surroundings { dir, clock: Arc::new(SystemClock), entropy: Arc::new(OsEntropy), init: beside };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            let _ = stop.send(true);
        });
        let agent = config.agent.clone();
        let said = AtomicBool::new(false);
        run(config, around, stopped, || {
            if !said.swap(true, Ordering::Relaxed) {
                println!("ready agent={}", agent.name());
                let _ = std::io::stdout().flush();
            }
        })
        .await
        .map_err(anyhow::Error::from)
    })
}

/// Nobody looks into this process, and nothing of it lands in a core dump. Containers whose
/// starter is gone become its children, so that it can tell when they have ended.
fn harden() -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, most) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most.min(1 << 20), most)?;
    Ok(())
}
