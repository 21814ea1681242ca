//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use model::ObjectId;
use sharding::format::{Mode, Root, SetId};
use sharding::vault::Pace;

use crate::units;
use crate::words::Lang;

/// Split a file into shares, any k of which rebuild it; read it back; look after the shares.
///
/// For custodians without a broker: it needs no network, node or records, only the folders (or
/// buckets) in which the shares lie.
///
/// Messages are in Japanese when --lang, SEKISHO_LANG, LC_ALL or LANG says so.
#[derive(Parser)]
#[command(name = "sekisho-shard", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done · 1 failed · 2 wrong usage · 3 too few good shares · \
    4 readable, but shares are damaged or missing · 5 not done, because it was not confirmed or would harm.")]
pub struct Cli {
    /// Print one JSON object instead of words, errors too.
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress and no advice; results and errors only.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Language of messages [default: from the environment].
    #[arg(long, global = true, value_name = "LANG")]
    pub lang: Option<Lang>,
    /// How to reach backends by URL: a JSON file with an object for each URL, whose fields are
    /// endpoint, region, account, ca and credentials (a file of mode 0600).
    #[arg(long, global = true, value_name = "FILE")]
    pub access: Option<PathBuf>,
    /// How long one request to a backend may take.
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    pub timeout: Duration,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Share FILE out to n folders; print the root, which is to be kept.
    Split(Split),
    /// Rebuild the file.
    Combine(Combine),
    /// Write a part of the file to standard output.
    Read(Read),
    /// Check every byte of every share.
    Verify(Verify),
    /// Write anew what is lost or damaged; an empty folder gets the share that is missing.
    Repair(Repair),
    /// Share the object anew, so that shares stolen before are worth nothing.
    ///
    /// The old epoch stays readable under its root until it is collected: nothing is lost if the new
    /// root is not noted. --retire FILE writes the new root to FILE durably and then removes the old.
    Refresh(Refresh),
    /// Tell what share files or folders say of themselves, believing them.
    Inspect(Inspect),
    /// Remove what no root needs. Shows what would go; --yes does it.
    ///
    /// With --root everything of the object goes that those roots do not need: earlier epochs and
    /// what was left behind by what failed or was killed. Without it only unfinished share sets go.
    Collect(Collect),
    /// List splits that died, or are still under way.
    Unfinished(Unfinished),
    /// Remove an object for good, keys first, and state what was seen.
    Destroy(Destroy),
    /// Measure how fast this machine splits, combines and checks.
    Bench(Bench),
    /// Print the manual page of this program, or of one verb of it.
    #[command(hide = true)]
    Man {
        /// Which verb.
        verb: Option<String>,
        /// Write all pages into this folder instead.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
}

/// Options of `split`.
#[derive(Args)]
pub struct Split {
    /// What to split; `-` is standard input.
    pub file: PathBuf,
    /// How many folders shall rebuild it.
    #[arg(long, short, required_unless_present = "resume")]
    pub k: Option<u8>,
    /// How many folders there are; the number of --out if left out.
    #[arg(long, short)]
    pub n: Option<u8>,
    /// shamir shares every byte and takes n times the space; compact encrypts, shares the key and
    /// takes n/k times the space [default: shamir].
    #[arg(long)]
    pub mode: Option<Mode>,
    /// The folders (or URLs), one per share; a single one gets subfolders 1 to n.
    #[arg(long, visible_alias = "backends", num_args = 1.., required = true, value_name = "FOLDER")]
    pub out: Vec<String>,
    /// What to call it; a random name if left out.
    #[arg(long)]
    pub object: Option<ObjectId>,
    /// Sign the root with this Ed25519 key (PKCS#8, PEM, mode 0600).
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Take up this unfinished share set, with the same FILE.
    #[arg(long, value_name = "SET")]
    pub resume: Option<SetId>,
    /// Deposit it although the folders hold an object of this name.
    #[arg(long)]
    pub beside: bool,
}

/// Which object, and where its shares are.
#[derive(Args)]
pub struct From {
    /// The share folders (or URLs), at least k of them, in any order.
    #[arg(required = true, value_name = "FOLDER")]
    pub folders: Vec<String>,
    /// Which object; may be left out if the folders hold one only.
    #[arg(long)]
    pub object: Option<ObjectId>,
    /// The root noted at the split. Without it, what most folders hold is believed.
    #[arg(long)]
    pub root: Option<Root>,
    /// Refuse the object unless this key signed it (64 hexadecimal digits).
    #[arg(long, value_name = "KEY", value_parser = units::public_key)]
    pub signer: Option<[u8; 32]>,
}

/// Options of `combine`.
#[derive(Args)]
pub struct Combine {
    /// Which.
    #[command(flatten)]
    pub from: From,
    /// Where to; `-` is standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace FILE if it is there.
    #[arg(long)]
    pub force: bool,
}

/// Options of `read`.
#[derive(Args)]
pub struct Read {
    /// Which.
    #[command(flatten)]
    pub from: From,
    /// First byte.
    #[arg(long, default_value_t = 0)]
    pub offset: u64,
    /// How many bytes; up to the end if left out.
    #[arg(long)]
    pub len: Option<u64>,
}

/// Options of `verify`.
#[derive(Args)]
pub struct Verify {
    /// Which.
    #[command(flatten)]
    pub from: From,
    /// Read no faster than this over all folders together, such as 50MB/s: others use the disks too.
    #[arg(long, value_name = "BYTES/S", value_parser = units::pace)]
    pub pace: Option<Pace>,
}

/// Options of `repair`.
#[derive(Args)]
pub struct Repair {
    /// Which.
    #[command(flatten)]
    pub from: From,
    /// Read no faster than this over all folders together, such as 50MB/s: others use the disks too.
    #[arg(long, value_name = "BYTES/S", value_parser = units::pace)]
    pub pace: Option<Pace>,
}

/// Options of `refresh`.
#[derive(Args)]
pub struct Refresh {
    /// Which.
    #[command(flatten)]
    pub from: From,
    /// Read, share and write everything anew [default].
    #[arg(long, conflicts_with = "keys")]
    pub everything: bool,
    /// Only share the key anew (mode compact): enough unless k key shares may have leaked.
    #[arg(long)]
    pub keys: bool,
    /// Write the new root to FILE, durably, and then remove the old epoch.
    #[arg(long, value_name = "FILE")]
    pub retire: Option<PathBuf>,
    /// Sign the new root with this Ed25519 key (PKCS#8, PEM, mode 0600).
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Leave the new root unsigned although the old one is signed.
    #[arg(long, conflicts_with = "sign_key")]
    pub unsigned: bool,
}

/// Options of `inspect`.
#[derive(Args)]
pub struct Inspect {
    /// Share files or folders.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// Options of `collect`.
#[derive(Args)]
pub struct Collect {
    /// All share folders (or URLs) of the object.
    #[arg(required = true, value_name = "FOLDER")]
    pub folders: Vec<String>,
    /// Which object; may be left out if the folders hold one only.
    #[arg(long)]
    pub object: Option<ObjectId>,
    /// A root to keep; may be repeated.
    #[arg(long)]
    pub root: Vec<Root>,
    /// An unfinished share set to keep, because it is still being written; may be repeated.
    #[arg(long, value_name = "SET")]
    pub keep: Vec<SetId>,
    /// Keep unfinished share sets that were written to less than so long ago.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::duration)]
    pub older_than: Duration,
    /// Remove; without it nothing is changed.
    #[arg(long)]
    pub yes: bool,
    /// Remove although the roots to keep are readable but not whole.
    #[arg(long)]
    pub accept_damage: bool,
}

/// Options of `unfinished`.
#[derive(Args)]
pub struct Unfinished {
    /// All share folders (or URLs).
    #[arg(required = true, value_name = "FOLDER")]
    pub folders: Vec<String>,
    /// Of which object; of all if left out.
    #[arg(long)]
    pub object: Option<ObjectId>,
}

/// Options of `destroy`.
#[derive(Args)]
pub struct Destroy {
    /// All share folders (or URLs) of the object.
    #[arg(required = true, value_name = "FOLDER")]
    pub folders: Vec<String>,
    /// Which object.
    #[arg(long, required = true)]
    pub object: ObjectId,
    /// Do not ask for the object's name: this is it.
    #[arg(long, value_name = "OBJECT")]
    pub yes_destroy: Option<ObjectId>,
    /// Go on although not all shares are in the folders named.
    #[arg(long)]
    pub only_these: bool,
    /// Sign the statement with this Ed25519 key (PKCS#8, PEM, mode 0600).
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
}

/// Options of `bench`.
#[derive(Args)]
pub struct Bench {
    /// How many shares rebuild.
    #[arg(long, short, default_value_t = 3)]
    pub k: u8,
    /// How many shares there are.
    #[arg(long, short, default_value_t = 5)]
    pub n: u8,
}
