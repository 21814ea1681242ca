//! `sekisho-shard`: splits a file into share folders and reads it back from any `k` of them,
//! without network, node or records. The last resort, and therefore small.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use model::ambient::OsEntropy;
use model::{BackendId, ObjectId};
use serde_json::{Value, json};
use sharding::format::{File, HEADER, Header, Kind, Root};
use sharding::vault::{Backend, Fault, ObjectReader, Options, ReadError, Vault};

/// Split a file into share folders, any k of which rebuild it.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, \
    3 too few good shares, 4 readable but some shares are damaged or missing (verify)."
)]
struct Cli {
    /// Print one JSON object instead of words.
    #[arg(long, global = true)]
    json: bool,
    /// Show no progress.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Share FILE out to n folders.
    Split {
        /// What to split; `-` is standard input.
        file: PathBuf,
        /// How many folders shall rebuild it.
        #[arg(long, short)]
        k: u8,
        /// How many folders there are; the number of --out if left out.
        #[arg(long, short)]
        n: Option<u8>,
        /// The folders, one per share; a single one gets subfolders 1 to n.
        #[arg(long, visible_alias = "backends", num_args = 1.., required = true, value_name = "DIR")]
        out: Vec<PathBuf>,
        /// What to call it; a random name if left out.
        #[arg(long)]
        object: Option<ObjectId>,
    },
    /// Rebuild the file.
    Combine {
        #[command(flatten)]
        from: From,
        /// Where to; `-` is standard output.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Write a part of the file to standard output.
    Read {
        #[command(flatten)]
        from: From,
        /// First byte.
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// How many bytes; up to the end if left out.
        #[arg(long)]
        len: Option<u64>,
    },
    /// Check every byte of every share.
    Verify {
        #[command(flatten)]
        from: From,
    },
    /// Tell what share files or folders say of themselves, believing them.
    Inspect {
        /// Share files or folders.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

#[derive(Args)]
struct From {
    /// The share folders, at least k of them, in any order.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Which object; may be left out if the folders hold one only.
    #[arg(long)]
    object: Option<ObjectId>,
    /// The root noted at the deposit. Without it, what the folders agree on is believed.
    #[arg(long)]
    root: Option<Root>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(cli.json, &error.into()),
    };
    let code = runtime.block_on(run(&cli)).unwrap_or_else(|error| fail(cli.json, &error));
    // A folder on a dead mount must not keep this process.
    runtime.shutdown_background();
    code
}

fn fail(json: bool, error: &anyhow::Error) -> ExitCode {
    let too_few =
        matches!(error.downcast_ref(), Some(ReadError::TooFew { .. } | ReadError::NoManifest { .. }));
    if json {
        let needed = match error.downcast_ref() {
            Some(ReadError::TooFew { needed, good, .. }) => json!({"needed": needed, "good": good}),
            _ => Value::Null,
        };
        println!("{}", json!({"error": format!("{error:#}"), "shares": needed}));
    } else {
        eprintln!("sekisho-shard: {error:#}");
    }
    ExitCode::from(if too_few { 3 } else { 1 })
}

async fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Split { file, k, n, out, object } => {
            split(cli, file, *k, *n, out, object.as_ref()).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Combine { from, output } => combine(cli, from, output).await.map(|()| ExitCode::SUCCESS),
        Command::Read { from, offset, len } => {
            let (reader, ..) = open(cli, from).await?;
            let len = len.unwrap_or(u64::MAX).min(reader.size().saturating_sub(*offset));
            copy(&reader, *offset, len, &mut io::stdout().lock(), &ProgressBar::hidden()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { from } => verify(cli, from).await,
        Command::Inspect { paths } => inspect(cli, paths).await.map(|()| ExitCode::SUCCESS),
    }
}

async fn split(
    cli: &Cli,
    file: &Path,
    k: u8,
    n: Option<u8>,
    out: &[PathBuf],
    object: Option<&ObjectId>,
) -> Result<()> {
    let folders: Vec<PathBuf> = match (out, n) {
        ([one], Some(n)) if n > 1 => (1..=n).map(|x| one.join(x.to_string())).collect(),
        _ => out.to_vec(),
    };
    if let Some(n) = n {
        ensure!(folders.len() == usize::from(n), "{n} shares need {n} folders, not {}", folders.len());
    }
    for folder in &folders {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let object = object.cloned().map_or_else(|| ObjectId::random(&OsEntropy), Ok)?;
    let vault = Vault::new(backends(&folders)?, k, Options::default())?;
    let (source, size): (Box<dyn tokio::io::AsyncRead + Unpin + Send>, u64) = if file == Path::new("-") {
        (Box::new(tokio::io::stdin()), 0)
    } else {
        let open = tokio::fs::File::open(file).await;
        let open = open.with_context(|| format!("cannot open {}", file.display()))?;
        let size = open.metadata().await?.len();
        (Box::new(open), size)
    };
    let bar = bar(cli, size, "splitting");
    let deposited = vault.deposit(&object, source, &OsEntropy, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    let root = Root(deposited.root);
    if cli.json {
        println!(
            "{}",
            json!({"object": object.as_str(), "size": deposited.size, "root": root.to_string(),
            "k": k, "n": folders.len()})
        );
    } else {
        println!(
            "object {object}\nroot   {root}\n{} bytes, {k} of {} folders rebuild it",
            deposited.size,
            folders.len()
        );
    }
    Ok(())
}

async fn combine(cli: &Cli, from: &From, output: &Path) -> Result<()> {
    let (reader, object, root) = open(cli, from).await?;
    let bar = bar(cli, reader.size(), "combining");
    if output == Path::new("-") {
        copy(&reader, 0, reader.size(), &mut io::stdout().lock(), &bar).await?;
        return Ok(());
    }
    // Under its own name there is the whole file or none.
    let mut partial = output.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = async {
        let mut file = private_file(&partial)?;
        copy(&reader, 0, reader.size(), &mut file, &bar).await?;
        file.sync_all()?;
        fs::rename(&partial, output)?;
        Ok(())
    };
    let written: Result<()> = written.await;
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    bar.finish_and_clear();
    written.with_context(|| format!("{} was not made", output.display()))?;
    if cli.json {
        println!("{}", json!({"object": object.as_str(), "size": reader.size(), "root": root.to_string()}));
    } else if !cli.quiet {
        eprintln!("{}: {} bytes of {object}", output.display(), reader.size());
    }
    Ok(())
}

async fn verify(cli: &Cli, from: &From) -> Result<ExitCode> {
    let vault = vault(cli, &from.folders)?;
    let (object, root) = choose(&vault, from).await?;
    let bar = bar(cli, 0, "verifying");
    let found = vault.verify(&object, &root.0, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    if cli.json {
        let folders: Vec<Value> = found.backends.iter().map(|state| json!({
            "folder": state.institution, "share": state.share.map(|x| x.x()), "good": state.good,
            "faults": state.faults,
            "first": state.first.iter().map(|fault| json!({"kind": fault.kind.code(), "block": fault.block,
                "detail": fault.detail})).collect::<Vec<_>>(),
        })).collect();
        println!(
            "{}",
            json!({"object": object.as_str(), "root": root.to_string(), "size": found.size,
            "k": found.scheme.threshold.k(), "n": found.scheme.threshold.n(), "extents": found.extents,
            "weakest": found.weakest, "readable": found.readable(), "whole": found.whole(), "folders": folders})
        );
    } else {
        println!("{object}: {} bytes, {}", found.size, found.scheme);
        for state in &found.backends {
            let share = state.share.map_or("no share".to_owned(), |x| format!("share {x}"));
            let good = state.good;
            println!(
                "  {}: {share}, {good} of {} extents good, {} faults",
                state.institution, found.extents, state.faults
            );
            state.first.iter().for_each(|fault| println!("    {fault}"));
        }
        println!(
            "  at least {} shares of everything are good; {} are needed",
            found.weakest,
            found.scheme.threshold.k()
        );
    }
    Ok(ExitCode::from(match (found.whole(), found.readable()) {
        (true, _) => 0,
        // Folders left out on purpose are no damage.
        (false, true) if found.backends.iter().all(|state| state.faults == 0) => 0,
        (false, true) => 4,
        (false, false) => 3,
    }))
}

async fn inspect(cli: &Cli, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        if path.is_dir() {
            let vault = vault(cli, std::slice::from_ref(path))?;
            for found in vault.manifests(None).await {
                let file = path.join(File::Manifest(found.root).name(&found.object));
                describe(cli, &file)?;
            }
        } else {
            describe(cli, path)?;
        }
    }
    Ok(())
}

fn describe(cli: &Cli, file: &Path) -> Result<()> {
    let mut bytes = Vec::with_capacity(HEADER);
    let read = fs::File::open(file)
        .and_then(|open| io::Read::read_to_end(&mut io::Read::take(open, HEADER as u64), &mut bytes));
    read.with_context(|| format!("cannot read {}", file.display()))?;
    let Header { deposit, share, kind } =
        Header::parse(&bytes).with_context(|| format!("{} is no share", file.display()))?;
    let (what, extent, len) = match kind {
        Kind::Extent { extent, len, .. } => ("extent", Some(extent), len),
        Kind::Manifest { len } => ("manifest", None, len),
        Kind::Key => ("key", None, 0),
    };
    if cli.json {
        println!(
            "{}",
            json!({"file": file.display().to_string(), "kind": what, "extent": extent, "len": len,
            "object": deposit.object.as_str(), "epoch": deposit.epoch, "set": deposit.set.to_string(),
            "mode": deposit.scheme.mode.to_string(), "share": share.x(),
            "k": deposit.scheme.threshold.k(), "n": deposit.scheme.threshold.n()})
        );
    } else {
        let extent = extent.map(|extent| format!(" {extent}")).unwrap_or_default();
        println!(
            "{}: {what}{extent} of {}, {len} bytes, share {share} ({}), set {}, epoch {}",
            file.display(),
            deposit.object,
            deposit.scheme,
            deposit.set,
            deposit.epoch
        );
    }
    Ok(())
}

async fn open(cli: &Cli, from: &From) -> Result<(ObjectReader, ObjectId, Root)> {
    let vault = vault(cli, &from.folders)?;
    let (object, root) = choose(&vault, from).await?;
    let reader = vault.open(&object, &root.0).await?;
    Ok((reader, object, root))
}

/// The object and root that were asked for, or the one that the folders agree on.
async fn choose(vault: &Vault, from: &From) -> Result<(ObjectId, Root)> {
    if let (Some(object), Some(root)) = (&from.object, from.root) {
        return Ok((object.clone(), root));
    }
    let mut found = vault.manifests(from.object.as_ref()).await;
    found.retain(|found| from.root.is_none_or(|root| root == found.root));
    let most = found.iter().map(|found| found.held_by).max().unwrap_or(0);
    found.retain(|found| found.held_by == most);
    match found.as_slice() {
        [] => bail!("these folders hold no such object"),
        [one] => Ok((one.object.clone(), one.root)),
        several => {
            let list: String = several
                .iter()
                .map(|found| format!("\n  --object {} --root {}", found.object, found.root))
                .collect();
            bail!("these folders hold several objects; say which:{list}")
        }
    }
}

/// Copies in pieces of whole extents.
async fn copy(
    reader: &ObjectReader,
    offset: u64,
    len: u64,
    to: &mut impl Write,
    bar: &ProgressBar,
) -> Result<()> {
    let (mut at, end) = (offset, offset.saturating_add(len));
    while at < end {
        let part = (end - at).min(8 << 20);
        let bytes = reader.read_at(at, part as usize).await?;
        to.write_all(&bytes)?;
        at += part;
        bar.set_position(at - offset);
    }
    to.flush()?;
    Ok(())
}

fn vault(cli: &Cli, folders: &[PathBuf]) -> Result<Vault> {
    let json = cli.json;
    let told = move |fault: Fault| {
        if !json {
            eprintln!("sekisho-shard: {fault}")
        }
    };
    Ok(Vault::reading(backends(folders)?, Options { faults: Arc::new(told), ..Options::default() }))
}

fn backends(folders: &[PathBuf]) -> Result<Vec<Backend>> {
    let mut backends = Vec::new();
    for (at, folder) in folders.iter().enumerate() {
        let id = BackendId::from_name(&format!("folder-{}", at + 1))?;
        ensure!(!folders[..at].contains(folder), "{} is named twice", folder.display());
        backends.push(Backend::local(id, folder.display().to_string(), folder)?);
    }
    Ok(backends)
}

/// Plaintext is nobody else's to read.
fn private_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn bar(cli: &Cli, size: u64, what: &'static str) -> ProgressBar {
    if cli.quiet || cli.json {
        return ProgressBar::hidden();
    }
    let bar = if size == 0 { ProgressBar::no_length() } else { ProgressBar::new(size) };
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what)
}
