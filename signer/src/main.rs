//! `sekisho-signer`: the one process that holds the keys of the certificate authorities.
//!
//! It answers requests for certificates on a unix socket, to the users it is told, under rules of
//! its own: a fallen broker gets no certificate that lives longer, or names others, than an honest
//! one could. What it issues it first writes to its journal.
//!
//! The keys lie on disk sealed, and the sealing key in three shares of which two are needed
//! (`custody/1` to `custody/3`). As delivered the signer finds the shares beside it and unseals
//! by itself; that guards against the loss of single files only. For custody in earnest give the
//! shares to three people and keep two of them in reach while the signer starts.

mod authority;
mod config;
mod counts;
mod files;
mod harden;
mod journal;
mod serve;

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use model::ambient::{OsEntropy, SystemClock};

#[derive(Parser)]
#[command(name = "sekisho-signer", version, about = "Holds the keys of the certificate authorities.")]
struct Arguments {
    /// The folder of its state; made if it does not exist.
    #[arg(long)]
    dir: PathBuf,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let dir = &arguments.dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| std::env::set_current_dir(dir))
        .with_context(|| format!("the folder {} cannot be used", dir.display()))?;
    harden::protect_memory()?;
    let config = config::Config::load_or_create()?;
    let _lock = files::lock_folder()?;
    let listener = serve::bind(&config)?;
    if let Some(user) = &config.user {
        harden::become_user(
            user,
            &[".".as_ref(), "config.toml".as_ref(), "lock".as_ref(), config.socket.as_path()],
        )?;
    }
    let entropy = OsEntropy;
    let authority = authority::Authority::load_or_create(&config.trust_domain, &SystemClock, &entropy)?;
    let journal = journal::Journal::open()?;
    let desk = serve::Desk::new(
        authority,
        journal,
        config.host_names.clone(),
        Arc::new(SystemClock),
        Arc::new(entropy),
    );
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime did not start")?
        .block_on(serve::serve(listener, &config, Arc::new(desk)))
}
