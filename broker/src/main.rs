//! `sekisho-broker --dir D`: configuration, build, serve, drain.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use broker::config::Config;
use broker::node::{Node, Sockets};
use broker::process;
use clap::Parser;
use model::ambient::{OsEntropy, SystemClock};
use tokio::signal::unix::{SignalKind, signal};

/// The broker of a Sekisho node: the front doors for people (SSH), programs (HTTPS) and agents.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The broker's folder; config.toml in it is written when it is missing.
    #[arg(long)]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,russh=warn,quinn=warn,sqlx=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    process::harden()?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    std::env::set_current_dir(&args.dir).with_context(|| format!("cannot enter {}", args.dir.display()))?;
    let dir = PathBuf::from(".");
    let config = Config::load(&dir)?;
    let sockets = Sockets::bind(&config)?;
    if let Some(user) = &config.user {
        process::become_user(user, &dir)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(dir, config, sockets))
}

async fn serve(dir: PathBuf, config: Config, sockets: Sockets) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    let starting = Node::start(&dir, config, sockets, clock, entropy);
    let node = tokio::select! {
        node = Box::pin(starting) => node?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let at = node.endpoints();
    let mut out = std::io::stdout();
    writeln!(out, "ready ssh={} api={} agents={}", at.ssh, at.api, at.agents)?;
    out.flush()?;
    tracing::info!(ssh = %at.ssh, api = %at.api, agents = %at.agents, "the doors are open");
    let failed = tokio::select! {
        // Asked again, or by Ctrl-C, it does not wait for anybody.
        _ = terminate.recv() => tokio::select! {
            () = node.drain() => None,
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            failure = node.log_failed() => Some(failure),
        },
        _ = interrupt.recv() => None,
        () = node.drained() => None,
        failure = node.log_failed() => Some(failure),
    };
    match failed {
        None => {
            node.stop("asked to stop").await;
            Ok(())
        }
        Some(failure) => {
            node.stop("the audit log failed").await;
            anyhow::bail!("the audit log takes no more records, so the doors were shut: {failure}")
        }
    }
}
