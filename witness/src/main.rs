//! `sekisho-witness --dir D`: remembers the checkpoints of audit logs and signs what continues them.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use model::ambient::{OsEntropy, SystemClock};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use vitals::Door;
use witness::config::Config;
use witness::{Witness, acceptor, serve};

/// A witness for the audit logs of Sekisho nodes (C2SP tlog-witness). Run it at another institution.
#[derive(Debug, Parser)]
#[command(name = "sekisho-witness", version)]
struct Args {
    /// The witness's folder; config.toml in it is written when it is missing.
    #[arg(long)]
    dir: PathBuf,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    prctl::set_dumpable(false).context("cannot forbid debuggers")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot forbid core dumps")?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    std::env::set_current_dir(&args.dir).with_context(|| format!("cannot enter {}", args.dir.display()))?;
    let dir = PathBuf::from(".");
    let (config, logs) = Config::load(&dir)?;
    let witness = Witness::open(&dir, &config.name, &logs, &OsEntropy)?;
    let tls = match &config.tls {
        Some(tls) => Some(acceptor(&tls.certificate, &tls.key, tls.clients.as_deref())?),
        None => None,
    };
    if logs.is_empty() {
        tracing::warn!("no log is configured: put the key.pub of each into `logs` in config.toml");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let mut out = std::io::stdout();
        writeln!(out, "ready witness={} key={}", listener.local_addr()?, witness.key())?;
        out.flush()?;
        let door = Door::open(&dir, config.metrics).await?;
        let witness = Arc::new(witness);
        tokio::select! {
            served = serve(Arc::clone(&witness), Arc::new(SystemClock), listener, tls) => Ok(served?),
            () = door.serve(witness) => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}
