//! `sekisho`, the program that people type.
//!
//! Researchers log in and open shells; programme staff keep the records; auditors read logs
//! offline; operators run a node. It holds one device's keys and never a genome: files are
//! encrypted here for the intake enclave, and rebuilt only there.
//!
//! Nothing here is a rule. Every "no" is the gate's, and its words are passed on as they come.

pub mod api;
mod approvals;
/// The command line.
pub mod args;
/// What goes wrong, and how it is told.
pub mod fault;
mod home;
mod kept;
mod login;
mod play;
mod put;
mod recordings;
mod records;
mod rules;
mod search;
mod sessions;
mod shell;
mod sizes;
mod sshconf;
mod status;
mod table;
#[cfg(test)]
mod testing;
mod tls;
mod trail;
mod up;
pub mod words;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use model::{Clock, Entropy};

use args::{Audit, Cli, Command};
use fault::{Fault, Message};
use home::Home;
pub use put::parse_upload_answer;
use words::Lang;

/// What the program finds around it; only `main` takes these from the air.
#[derive(Clone)]
pub struct Surroundings {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The language of messages.
    pub lang: Lang,
    /// Results as JSON.
    pub json: bool,
    /// The user's home directory.
    pub user_home: Option<PathBuf>,
    /// Where this program's file is: the others of a node are beside it.
    pub program: Option<PathBuf>,
}

impl Surroundings {
    /// Prints a sentence.
    pub fn print(&self, message: &Message) {
        self.line(&message.text(self.lang));
    }

    /// Prints a result for programs.
    pub fn print_json(&self, value: &serde_json::Value) {
        self.line(&value.to_string());
    }

    /// Prints a line. That nobody reads it any more (`… | head`) is no fault of what was done.
    pub fn line(&self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// Does what the command line says.
pub async fn run(around: &Surroundings, cli: Cli) -> Result<(), Fault> {
    let home = || Home::locate(cli.home.clone(), around.user_home.clone());
    match &cli.command {
        Command::Up(args) => up::up(around, args).await,
        Command::Login(args) => login::login(around, &home()?, args).await,
        Command::Ssh(args) => shell::ssh(around, &home()?, args).await,
        Command::Put(args) => put::put(around, &home()?, args).await,
        Command::Play(args) => play::play(around, &home()?, args).await,
        Command::Sessions(args) => sessions::sessions(around, &home()?, args).await,
        Command::Recordings(args) => recordings::recordings(around, &home()?, args).await,
        Command::Approvals(asked) => approvals::approvals(around, &home()?, asked).await,
        Command::Rules(command) => rules::rules(around, command),
        Command::Audit(Audit::Kept) => kept::kept(around, &home()?).await,
        Command::Audit(Audit::Fetch(asked)) => kept::fetch(around, &home()?, asked).await,
        Command::Audit(Audit::Unpack(asked)) => kept::unpack(around, asked),
        Command::Audit(command) => trail::audit(around, command).await,
        Command::Status(args) => status::status(around, &home, args).await,
        command => records::records(around, &home()?, command).await,
    }
}
