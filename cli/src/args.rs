use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use crate::sizes::{Limits, WorkspaceOf};

/// Sekisho: the gate of the genome enclave.
///
/// Researchers: `login`, then `ssh` and `put`. Programme staff: `person`, `study`, `member`,
/// `dataset`, `grant`, `agent`, `service`. Auditors: `audit`. Operators: `up`, `status`, `diagnostics`.
///
/// Messages are in Japanese when LANG, LC_ALL or SEKISHO_LANG says so.
#[derive(Debug, Parser)]
#[command(name = "sekisho", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done · 1 failed · 2 usage · 69 something did not answer, try later · 77 refused.\n\
    `sekisho ssh` ends with the exit code of the remote command, or 255 as OpenSSH does."
)]
pub struct Cli {
    /// Folder of this device's keys and certificates [default: ~/.sekisho].
    #[arg(long, env = "SEKISHO_HOME", global = true, value_name = "FOLDER")]
    pub home: Option<PathBuf>,
    /// Print results (and errors) as JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one node: signer, broker and agent, in one folder.
    Up(Up),
    /// Prove who you are; get certificates of minutes for SSH and the API.
    ///
    /// The first login on a device takes a one-time token and enrols the key that is made here.
    /// Later ones prove possession of that key; `sekisho login` alone then repeats the last one.
    Login(Login),
    /// Open a shell in a study's workspace, or run a command there, with the stock OpenSSH client.
    Ssh(Ssh),
    /// Deposit files in a dataset, encrypted on this device for the intake enclave (Crypt4GH).
    Put(Put),
    /// Sessions that go on: list them, look at one, type in it, say something there, end it.
    Sessions(Sessions),
    /// List recordings of sessions, or find those in which a text was to be read.
    ///
    /// For security staff, and for the lead of a study whose rules say so.
    Recordings(Recordings),
    /// Show the recording of a session: here, as text, or as a page. That it was shown is on record.
    ///
    /// Keys: space pauses, ← and → go back and on, ↑ and ↓ play faster and slower, `.` goes to the
    /// next change, Home and End to the beginning and the end, q quits.
    Play(Play),
    /// People of the programme.
    #[command(subcommand)]
    Person(Person),
    /// Studies that the committee approved.
    #[command(subcommand)]
    Study(Study),
    /// Workspaces: your own, or those of a study that you lead or watch over.
    #[command(subcommand)]
    Ws(Workspace),
    /// Members of a study.
    #[command(subcommand)]
    Member(Member),
    /// Datasets and their conditions of use.
    #[command(subcommand)]
    Dataset(Dataset),
    /// Grants: which study may use which dataset, and until when.
    #[command(subcommand)]
    Grant(Grant),
    /// Stored files.
    #[command(subcommand)]
    Object(Object),
    /// Agents: the processes that run workspaces.
    #[command(subcommand)]
    Agent(Agent),
    /// Services that need a certificate, such as the SIEM collector.
    #[command(subcommand)]
    Service(Service),
    /// Decoys: things laid out to be touched by whoever should not.
    #[command(subcommand)]
    Decoy(Decoy),
    /// Acts that take a second officer: what is asked for, and the answer to it.
    ///
    /// Which acts do is in the configuration of the broker (`[approvals]`). Such an act is asked for by
    /// doing it: it is refused for now, with the identifier of the request. Once somebody else who may do
    /// it has approved that, the same person does the same again.
    #[command(subcommand)]
    Approvals(Approvals),
    /// Rules of detection: check a folder of them, list them.
    #[command(subcommand)]
    Rules(Rules),
    /// Read an audit log offline: verify it, follow it, prove an entry; have parts of it back from the
    /// vault.
    #[command(subcommand)]
    Audit(Audit),
    /// Take the broker out of service: nothing new begins, everybody is told, and it ends when they have
    /// left or the time is over. Whatever started it starts it again (`sekisho up` does).
    Drain(Drain),
    /// How the node is.
    Status(Status),
    /// How the broker, the agents and their hosts are, in detail. Takes the role that reads the log.
    #[command(args_conflicts_with_subcommands = true)]
    Diagnostics {
        /// What to do with it, if not only to show it.
        #[command(subcommand)]
        what: Option<Diagnostics>,
    },
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// The node's folder; made when absent, continued when it is a node's.
    #[arg(long, value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Address of the SSH door [default at first: 127.0.0.1:2222; port 0 takes a free one].
    #[arg(long, value_name = "ADDRESS")]
    pub ssh: Option<std::net::SocketAddr>,
    /// Address of the HTTPS API [default at first: 127.0.0.1:8443].
    #[arg(long, value_name = "ADDRESS")]
    pub api: Option<std::net::SocketAddr>,
    /// Address for agents, QUIC over UDP [default at first: 127.0.0.1:8444].
    #[arg(long, value_name = "ADDRESS")]
    pub agents: Option<std::net::SocketAddr>,
    /// A name by which people reach this node; may be given several times [default at first: localhost].
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// Trust domain of the certificates [default at first: sekisho.test].
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<String>,
    /// How many shares a file is rebuilt from [default at first: 3].
    #[arg(long)]
    pub k: Option<u8>,
    /// Where shares lie, NAME=FOLDER, several times
    /// [default at first: hokkaido, tohoku, kanto, kansai and kyushu under DIR/backends].
    #[arg(long = "backend", value_name = "NAME=FOLDER", value_parser = backend)]
    pub backends: Vec<(String, PathBuf)>,
    /// SIEM collector (RFC 5424 over TLS) [default: none].
    #[arg(long, value_name = "HOST:PORT", requires = "siem_name")]
    pub siem: Option<String>,
    /// Name in the collector's certificate.
    #[arg(long, value_name = "NAME", requires = "siem")]
    pub siem_name: Option<String>,
    /// User that broker and signer become when started as root [default at first: sekisho].
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

fn backend(text: &str) -> Result<(String, PathBuf), String> {
    let (name, folder) = text.split_once('=').ok_or("write NAME=FOLDER")?;
    model::BackendId::from_name(name).map_err(|e| e.to_string())?;
    if folder.is_empty() {
        return Err("the folder is missing after '='".to_owned());
    }
    Ok((name.to_owned(), PathBuf::from(folder)))
}

/// Options of `login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The broker, such as https://gate.example.org:8443.
    #[arg(long, env = "SEKISHO_API", value_name = "URL")]
    pub api: Option<String>,
    /// Your name in the programme.
    #[arg(long, value_name = "NAME")]
    pub person: Option<String>,
    /// One-time token from the programme office; enrols this device.
    #[arg(long, env = "SEKISHO_TOKEN", hide_env_values = true, value_name = "skt1…")]
    pub token: Option<String>,
    /// How long the certificates should live, when that is less than they may: 90s, 10m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub lifetime: Option<std::time::Duration>,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u32 =
        number.parse().map_err(|_| "write a number of seconds or minutes, such as 90s or 10m".to_owned())?;
    Ok(std::time::Duration::from_secs(u64::from(number) * unit))
}

/// Options of `ssh`.
#[derive(Debug, Args)]
pub struct Ssh {
    /// The study, or STUDY+WORKSPACE for another than the workspace `main`; when you have but one
    /// workspace, or want to choose, your own name.
    pub study: String,
    /// The command to run there; a shell when none is given.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Options of `put`.
#[derive(Debug, Args)]
pub struct Put {
    /// The files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The dataset.
    #[arg(long)]
    pub dataset: String,
    /// Name in the dataset [default: the file's own].
    #[arg(long)]
    pub name: Option<String>,
}

/// `sessions …`
#[derive(Debug, Args)]
pub struct Sessions {
    /// What to do; lists them when left away.
    #[command(subcommand)]
    pub command: Option<Supervise>,
}

/// What to do about sessions that go on.
#[derive(Debug, Clone, Subcommand)]
pub enum Supervise {
    /// List them.
    List,
    /// Look at one in this terminal, as it is drawn; q leaves. Its person is told, unless their study
    /// says otherwise. Where a study wants a second person, whoever looks is that.
    Watch {
        /// The session, sess:… as `sessions` lists it.
        session: String,
    },
    /// Type in one too, if its person lets you or their study does; Ctrl-] leaves.
    Join {
        /// The session.
        session: String,
    },
    /// Say something on the terminal of one.
    Message {
        /// The session.
        session: String,
        /// What.
        text: String,
    },
    /// End one at once.
    Kill {
        /// The session.
        session: String,
        /// Why; it is recorded, and shown to the person.
        #[arg(long)]
        reason: String,
    },
}

/// Options of `recordings`.
#[derive(Debug, Args)]
pub struct Recordings {
    /// Of this person.
    #[arg(long)]
    pub person: Option<String>,
    /// In this study.
    #[arg(long)]
    pub study: Option<String>,
    /// Begun not before: a date (its beginning, UTC) or an instant such as 2027-03-31T15:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Begun not after: a date (its end, UTC) or an instant.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Words that were to be read on the terminal, upper and lower case alike. That they were looked
    /// for is on record.
    #[arg(long)]
    pub text: Option<String>,
}

/// Options of `play`.
#[derive(Debug, Args)]
pub struct Play {
    /// The session, sess:… as `recordings` lists it.
    #[arg(required_unless_present = "sealed", conflicts_with = "sealed")]
    pub session: Option<String>,
    /// A sealed recording that `sekisho-shard combine` has rebuilt, instead: no broker is asked.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub sealed: Option<PathBuf>,
    /// The broker's recordings.key, or a copy of it.
    #[arg(long, value_name = "FILE", requires = "sealed")]
    pub key: Option<PathBuf>,
    /// Where to begin: seconds, or minutes and seconds such as 1:30.
    #[arg(long, value_name = "TIME", value_parser = position)]
    pub at: Option<u64>,
    /// How fast.
    #[arg(long, default_value_t = 1.0, value_parser = times)]
    pub speed: f64,
    /// No pause longer than so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = times)]
    pub idle: Option<f64>,
    /// Print what was to be read on the terminal, line by line.
    #[arg(long, conflicts_with_all = ["out", "cast"])]
    pub text: bool,
    /// Write a page that plays it in any browser, without a network.
    #[arg(long, value_name = "FILE.html", conflicts_with = "cast")]
    pub out: Option<PathBuf>,
    /// Write the recording itself, in the format asciicast v3.
    #[arg(long, value_name = "FILE.cast")]
    pub cast: Option<PathBuf>,
}

/// A position in a recording, as people write it; milliseconds.
fn position(text: &str) -> Result<u64, String> {
    let bad = || "write seconds, or minutes and seconds such as 1:30".to_owned();
    let mut seconds = 0u64;
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 {
        return Err(bad());
    }
    for part in parts {
        let number: u32 = part.parse().map_err(|_| bad())?;
        seconds = seconds * 60 + u64::from(number);
    }
    Ok(seconds * 1000)
}

fn times(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "write a number, such as 2 or 0.5".to_owned())?;
    if (0.1..=100.0).contains(&number) { Ok(number) } else { Err("it lies between 0.1 and 100".to_owned()) }
}

/// `diagnostics …`
#[derive(Debug, Subcommand)]
pub enum Diagnostics {
    /// Accept how a process and its host are now as how they are meant to be, after an upgrade or a
    /// change of its configuration. The check `declared` says what is another than it was.
    Accept {
        /// The process, as `sekisho diagnostics` calls it: broker, or an agent:….
        process: String,
        /// The state that was looked at, in the digits that the check `declared` gives. If it is
        /// another by now, nothing is accepted.
        state: String,
    },
}

/// `decoy …`
#[derive(Debug, Subcommand)]
pub enum Decoy {
    /// Make something a decoy. Touching it is a finding, and locks whoever does, as configured.
    Add {
        /// What sort of thing it is.
        kind: DecoyKind,
        /// An IP address; a public key file, or a fingerprint SHA256:…; a stored file obj:… or a
        /// dataset ds:….
        what: String,
        /// Where it was laid out, for those who will have to find it again.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// List decoys. Only security staff may know of them.
    List,
    /// Make a decoy an ordinary thing again.
    Remove {
        /// Its identifier, decoy:….
        decoy: String,
    },
}

/// `approvals …`
#[derive(Debug, Subcommand)]
pub enum Approvals {
    /// List what waits for an answer, or to be done.
    List {
        /// What was refused, done or has expired too.
        #[arg(long)]
        all: bool,
    },
    /// Approve what somebody else asked for; they do it then. Nobody approves their own.
    Approve {
        /// Its identifier, appr:….
        approval: String,
    },
    /// Refuse what somebody asked for, or take back what you asked for.
    Refuse {
        /// Its identifier, appr:….
        approval: String,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

/// What sort of thing a decoy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DecoyKind {
    /// An IP address to which nothing connects.
    Address,
    /// A key with which nobody comes.
    Key,
    /// A stored file or a dataset that nobody needs to open.
    Object,
}

/// `rules …`
#[derive(Debug, Subcommand)]
pub enum Rules {
    /// Read a folder of Sigma rules as a node would, together with those that Sekisho comes with.
    ///
    /// Exit code 0: they can be used. 1: they would be refused, with the file, the line and the reason.
    Check {
        /// The folder.
        folder: PathBuf,
    },
    /// List the rules that Sekisho comes with, and those of a folder.
    List {
        /// A folder of one's own.
        folder: Option<PathBuf>,
    },
}

/// `person …`
#[derive(Debug, Subcommand)]
pub enum Person {
    /// Make a person known.
    Create {
        /// Short name, such as alice.
        person: String,
        /// The name people know them by [default: the short name].
        #[arg(long)]
        name: Option<String>,
        /// Role in the programme: steward, security or operator; may be given several times.
        #[arg(long = "role")]
        roles: Vec<String>,
    },
    /// Make a one-time token with which their device enrols.
    Token {
        /// Who.
        person: String,
    },
    /// Lock out: no certificate, no session, and every running session ends.
    Lock {
        /// Who.
        person: String,
        /// Why; it is recorded, and shown to the person.
        #[arg(long)]
        reason: String,
    },
    /// Let a locked person in again.
    Unlock {
        /// Who.
        person: String,
    },
    /// List people.
    List,
}

/// `study …`
#[derive(Debug, Subcommand)]
pub enum Study {
    /// Register an approved study.
    Create {
        /// Short name, such as brca; it is also the SSH user name.
        study: String,
        /// Its title.
        #[arg(long)]
        title: String,
        /// What it was approved for: DS:MONDO:0007254, HMB, POA, GRU, MDS …; may be given several times.
        #[arg(long = "purpose", required = true)]
        purposes: Vec<String>,
        /// End of the approval: a date (its end, UTC) or an instant such as 2027-03-31T15:00:00Z.
        #[arg(long)]
        until: String,
    },
    /// Say what may be opened inside a connection to a study, or show it; sessions that rest on
    /// what is refused end at once.
    Channels {
        /// The study.
        study: String,
        /// Allow: shell, exec, terminal, environment, upload, export, export-data or
        /// port-forwarding; may be given several times.
        #[arg(long = "allow", value_name = "CHANNEL")]
        allow: Vec<String>,
        /// Refuse; may be given several times.
        #[arg(long = "refuse", value_name = "CHANNEL")]
        refuse: Vec<String>,
    },
    /// Say how sessions of a study are recorded, or show it; it holds for sessions opened from then on.
    Recording {
        /// The study.
        study: String,
        /// off, best-effort (a session that cannot be recorded goes on, and that is recorded) or
        /// strict (it ends).
        #[arg(long, value_enum)]
        mode: Option<RecordingMode>,
        /// Whether what people type is recorded too: none or all. What is typed is recorded as it is,
        /// passwords that are not shown among it.
        #[arg(long, value_enum)]
        input: Option<RecordingInput>,
        /// Whether commands without a terminal are recorded too: yes or no.
        #[arg(long, value_enum)]
        commands: Option<YesNo>,
        /// How many MiB the recording of each minute's output may take; 0 keeps all.
        #[arg(long, value_name = "MIB")]
        limit: Option<u32>,
        /// Whether the lead of the study may see recordings of it: yes or no.
        #[arg(long, value_enum)]
        lead: Option<YesNo>,
    },
    /// Say how sessions of a study are supervised, or show it.
    Supervision {
        /// The study.
        study: String,
        /// Whether a person is told that they are watched: yes or no.
        #[arg(long, value_enum)]
        told: Option<YesNo>,
        /// Who may type in somebody else's session: never, consent (whom that person lets) or always.
        #[arg(long, value_enum)]
        join: Option<Join>,
        /// Whether sessions start only when a second person watches, and end when they leave: yes or no.
        #[arg(long, value_enum)]
        moderated: Option<YesNo>,
    },
    /// Say what a study lets each of its people use, or show it. A workspace that runs keeps what it has
    /// until it starts again.
    Limits {
        /// The study.
        study: String,
        /// What to change.
        #[command(flatten)]
        limits: Limits,
    },
    /// List studies.
    List,
}

/// What happens when a session cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RecordingMode {
    /// Nothing is recorded.
    Off,
    /// It goes on, and that is recorded.
    BestEffort,
    /// It ends.
    Strict,
}

/// Whether what people type is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RecordingInput {
    /// It is not.
    None,
    /// All of it is.
    All,
}

/// Who may type in somebody else's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Join {
    /// Nobody.
    Never,
    /// Whom that person lets.
    Consent,
    /// Whoever may join at all.
    Always,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum YesNo {
    /// Yes.
    Yes,
    /// No.
    No,
}

/// `ws …`
#[derive(Debug, Subcommand)]
pub enum Workspace {
    /// List workspaces: your own, or with --study those of a study.
    List {
        /// The study; takes the role lead in it, or security in the programme.
        #[arg(long)]
        study: Option<String>,
    },
    /// Stop a workspace, with everything that runs in it. Your own starts again when you enter it;
    /// somebody else's does when it is resumed.
    Stop {
        /// Which.
        #[command(flatten)]
        which: WorkspaceOf,
        /// Why; it is recorded, and shown to whoever is in it.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a workspace that was stopped go on.
    Resume {
        /// Which.
        #[command(flatten)]
        which: WorkspaceOf,
    },
    /// Give a workspace up for good, with its home and everything in it.
    Remove {
        /// Which.
        #[command(flatten)]
        which: WorkspaceOf,
    },
}

/// Options of `drain`.
#[derive(Debug, Args)]
#[group(id = "leaving")]
pub struct Drain {
    /// How long those who are in may take to leave: 90s, 10m.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub within: std::time::Duration,
    /// Take it back into service.
    #[arg(long)]
    pub undo: bool,
}

/// `member …`
#[derive(Debug, Subcommand)]
pub enum Member {
    /// Give a person a role in a study.
    Add {
        /// The study.
        study: String,
        /// The person.
        person: String,
        /// The role: researcher or lead.
        #[arg(long, default_value = "researcher")]
        role: String,
    },
}

/// `dataset …`
#[derive(Debug, Subcommand)]
pub enum Dataset {
    /// Register a dataset.
    Create {
        /// Short name.
        dataset: String,
        /// Its title.
        #[arg(long)]
        title: String,
        /// Conditions of use, DUO codes joined by commas, such as DS:MONDO:0007254,NPU; given
        /// several times, one of the sets must fit.
        #[arg(long = "condition", required = true)]
        conditions: Vec<String>,
    },
    /// List datasets.
    List,
}

/// `grant …`
#[derive(Debug, Subcommand)]
pub enum Grant {
    /// Let a study use a dataset.
    Create {
        /// The study.
        #[arg(long)]
        study: String,
        /// The dataset.
        #[arg(long)]
        dataset: String,
        /// Who in the study: role:researcher, role:lead, or a person (u:alice).
        #[arg(long = "to", default_value = "role:researcher")]
        grantee: String,
        /// Until when: a date (its end, UTC) or an instant.
        #[arg(long)]
        until: String,
    },
    /// Take a grant back; every session that rests on it ends at once.
    Revoke {
        /// The grant.
        grant: String,
        /// Why; it is recorded, and shown to those whose sessions end.
        #[arg(long)]
        reason: String,
    },
    /// List grants.
    List,
}

/// `object …`
#[derive(Debug, Subcommand)]
pub enum Object {
    /// List stored files.
    List,
}

/// `agent …`
#[derive(Debug, Subcommand)]
pub enum Agent {
    /// Make a one-time token with which an agent enrols.
    Token {
        /// The agent.
        agent: String,
    },
    /// Take an agent out of service: no workspace starts there, everybody who is on it is told, and what
    /// is left there after a while is stopped. It can be stopped or upgraded then.
    Drain {
        /// The agent.
        agent: String,
        /// How long, and whether to undo it.
        #[command(flatten)]
        drain: Drain,
    },
    /// List agents.
    List,
}

/// `service …`
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Make a key here and have a certificate for it issued; writes key.pem, cert.pem and ca.pem.
    Certificate {
        /// The service.
        service: String,
        /// Host name in the certificate; may be given several times.
        #[arg(long = "dns", required = true)]
        dns: Vec<String>,
        /// Folder for the three files.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

/// `audit …`
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Read every byte of a log and check it against its signed checkpoint, and that against what a
    /// witness has signed.
    Verify {
        /// The log.
        #[command(flatten)]
        log: AuditLog,
        /// Public key of the witness, the line itself or a file with it, from where you trust it: the
        /// log must bear its signature.
        #[arg(long, value_name = "FILE|LINE")]
        witness_key: Option<String>,
    },
    /// Print the last entries.
    Tail {
        /// The log.
        #[command(flatten)]
        log: AuditLog,
        /// How many.
        #[arg(short = 'n', long, default_value_t = 10)]
        count: u64,
        /// Go on printing as entries arrive, until interrupted.
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the entries that fit everything that is asked for.
    Search(Box<Search>),
    /// Print a proof that an entry is in the log (C2SP tlog-proof).
    Proof {
        /// The log.
        #[command(flatten)]
        log: AuditLog,
        /// The entry's index.
        index: u64,
    },
    /// List the parts of the log, and the recordings, that lie in the vault as secret shares.
    Kept,
    /// Have entries back from the vault, through the broker, and check them.
    Fetch(Fetch),
    /// Check and unpack parts of the log that `sekisho-shard combine` has rebuilt, without a broker.
    Unpack(Unpack),
}

/// Options of `audit fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// File of the log's public key, from where you trust it.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The first entry that is wanted; whole parts of the log come.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub from: u64,
    /// The last entry that is wanted [default: the last that is kept].
    #[arg(long, value_name = "INDEX")]
    pub to: Option<u64>,
    /// Folder for them, for `--kept` of the commands that read a log (or `--dir`, for these alone). It is
    /// never that of a log itself.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
}

/// Options of `audit unpack`.
#[derive(Debug, Args)]
pub struct Unpack {
    /// File of the log's public key, from where you trust it.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Folder for the entries.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Options of `audit search`.
#[derive(Debug, Args)]
pub struct Search {
    /// The log.
    #[command(flatten)]
    pub log: AuditLog,
    /// Not before: a date (its beginning, UTC) or an instant such as 2027-03-31T15:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Not after: a date (its end, UTC) or an instant.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Kind of entry, such as session_opened; given several times, any of them.
    #[arg(long = "kind", value_name = "KIND")]
    pub kinds: Vec<String>,
    /// Who did it, or to whom.
    #[arg(long)]
    pub person: Option<String>,
    /// In which study.
    #[arg(long)]
    pub study: Option<String>,
    /// In which session.
    #[arg(long)]
    pub session: Option<String>,
    /// Words that stand in it somewhere, upper and lower case alike.
    #[arg(long)]
    pub text: Option<String>,
    /// At most so many, the first ones.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub count: Option<u64>,
}

/// Where a log is.
#[derive(Debug, Args)]
pub struct AuditLog {
    /// The log's folder, such as NODE/broker/audit (the node's folder is understood too).
    #[arg(long, value_name = "FOLDER")]
    pub dir: PathBuf,
    /// File of the log's public key, from where you trust it [default: key.pub in the folder].
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Folder with entries that were fetched from the vault: they are checked against the log, and read
    /// and verified with the rest.
    #[arg(long, value_name = "FOLDER")]
    pub kept: Option<PathBuf>,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The broker [default: that of the last login].
    #[arg(long, env = "SEKISHO_API", value_name = "URL")]
    pub api: Option<String>,
    /// The folder of a node on this machine; its address is read from there.
    #[arg(long, value_name = "FOLDER", conflicts_with = "api")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_remote_command_keeps_its_options() {
        let cli = Cli::try_parse_from(["sekisho", "ssh", "brca", "ls", "-l", "--", "x"]).unwrap();
        let Command::Ssh(ssh) = cli.command else { panic!("not ssh") };
        assert_eq!((ssh.study.as_str(), ssh.command.join(" ").as_str()), ("brca", "ls -l -- x"));
    }

    #[test]
    fn a_backend_is_a_name_and_a_folder() {
        assert_eq!(backend("kanto=/mnt/a=b").unwrap(), ("kanto".to_owned(), PathBuf::from("/mnt/a=b")));
        assert!(backend("kanto").is_err() && backend("kanto=").is_err() && backend("K=/x").is_err());
    }

    #[test]
    fn positions_are_read_as_people_write_them() {
        assert_eq!(
            (position("90"), position("1:30"), position("1:00:01")),
            (Ok(90_000), Ok(90_000), Ok(3_601_000))
        );
        for bad in ["", "1:", "-1", "1:2:3:4", "1.5"] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        let secs = |text: &str| duration(text).map(|d| d.as_secs());
        assert_eq!((secs("2s"), secs("10m"), secs("7")), (Ok(2), Ok(600), Ok(7)));
        assert!(secs("1h").is_err() && secs("-1").is_err() && secs("").is_err());
    }

    #[test]
    fn siem_needs_its_name() {
        assert!(Cli::try_parse_from(["sekisho", "up", "--dir", "d", "--siem", "h:6514"]).is_err());
        assert!(
            Cli::try_parse_from(["sekisho", "up", "--dir", "d", "--siem", "h:6514", "--siem-name", "h"])
                .is_ok()
        );
    }
}
