//! `sekisho up`: one node in one folder.
//!
//! The supervisor holds no key and opens no port. It writes first configurations, hands the agent
//! the one-time token that the broker made for it, starts the three processes and keeps them
//! running. Each child asks the kernel to be ended with it, and notes of their numbers let the next
//! start end what a kill left behind all the same.

mod config;
mod node;
mod process;
mod supervise;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User, chown, fchownat};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::fault::{Exit, Fault, Message};
use crate::home::{Mode, write_file};
use crate::{Surroundings, args, say};
use config::{ENROL_TOKEN, Plan};
pub use node::Node;
use node::cannot_write;
use process::{Handle, Report};
pub use supervise::{Action, Ending, Input, Room, Supervisor, Timing};

/// Who broker and signer become when nothing else is said.
const USER: &str = "sekisho";
/// The broker's first tokens, in its folder.
const ADMIN_TOKEN: &str = "admin.token";
const AGENT_TOKEN: &str = "agent.token";
/// The first person, who may do everything in the programme.
const FIRST_PERSON: &str = "admin";

/// Runs a node until it is told to stop.
pub async fn up(around: &Surroundings, args: &args::Up) -> Result<(), Fault> {
    let node = Node::at(&args.dir)?;
    let programs = Programs::find(around)?;
    let user = drop_to(around, args)?;
    let plan = Plan::new(
        args,
        node.dir(),
        user.as_ref().map(|u| (u.name.clone(), u.uid.as_raw())),
        Uid::effective().as_raw(),
    )?;
    node.make()?;
    let _held = node.lock()?;
    say_line(around, &say!(UpStarting, dir = node.dir().display()));
    write_configs(around, &node, args, &plan)?;
    hand_over_folders(&node, user.as_ref())?;
    for room in Room::ALL.into_iter().rev() {
        let (pid, program) = (pid_file(&node, room), programs.path(room));
        if let Some(number) = process::end_leftover(&pid, program, Timing::default().stop).await {
            say_line(around, &say!(UpLeftover, room = room.name(), pid = number));
        }
    }
    let mut driver = Driver::new(around, &node, programs);
    driver.run().await
}

/// The programs of the three processes, beside this one.
struct Programs(BTreeMap<Room, PathBuf>);

impl Programs {
    fn find(around: &Surroundings) -> Result<Programs, Fault> {
        let beside = around.program.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
        let mut all = BTreeMap::new();
        for room in Room::ALL {
            let path = beside.join(format!("sekisho-{}", room.name()));
            if !path.is_file() {
                let fault = Fault::failed("no_program", say!(UpNoProgram, path = path.display()));
                return Err(fault.todo(say!(UpNoProgramTodo)));
            }
            all.insert(room, path);
        }
        Ok(Programs(all))
    }

    fn path(&self, room: Room) -> &Path {
        &self.0[&room]
    }
}

/// The user that broker and signer become; nobody else when not started as root.
fn drop_to(around: &Surroundings, args: &args::Up) -> Result<Option<User>, Fault> {
    if !Uid::effective().is_root() {
        say_line(around, &say!(UpNotRoot));
        return Ok(None);
    }
    let name = args.user.as_deref().unwrap_or(USER);
    match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => Ok(None),
        Ok(Some(user)) => Ok(Some(user)),
        Ok(None) => Err(Fault::failed("no_user", say!(UpNoUser, user = name)).todo(say!(UpNoUserTodo))),
        Err(e) => {
            Err(Fault::failed("no_user", say!(UpNoUser, user = name)).because(&e).todo(say!(UpNoUserTodo)))
        }
    }
}

/// Writes what is missing and leaves the rest as it is: from the first start on, the files are the
/// operator's.
fn write_configs(around: &Surroundings, node: &Node, args: &args::Up, plan: &Plan) -> Result<(), Fault> {
    for room in Room::ALL {
        let path = node.room(room).join("config.toml");
        if path.exists() {
            let ignored = given(args, room);
            if !ignored.is_empty() && !config_says(&path, plan, room) {
                say_line(around, &say!(UpFixed, path = path.display(), options = ignored.join(" ")));
            }
            continue;
        }
        if room == Room::Agent {
            for backend in plan.backends() {
                let path = node.room(room).join(&backend.path);
                fs::create_dir_all(&path).map_err(|e| cannot_write(&path, &e))?;
            }
        }
        let text = plan
            .config(room)
            .map_err(|e| Fault::failed("config", say!(CannotWrite, path = path.display())).because(&e))?;
        write_file(&path, text.as_bytes(), Mode::Private)?;
        say_line(around, &say!(UpMade, path = path.display()));
    }
    Ok(())
}

/// Whether a configuration that is there is what these options would have written.
fn config_says(path: &Path, plan: &Plan, room: Room) -> bool {
    let there: Option<toml::Table> = fs::read_to_string(path).ok().and_then(|t| t.parse().ok());
    let wanted: Option<toml::Table> = plan.config(room).ok().and_then(|t| t.parse().ok());
    there.is_some() && there == wanted
}

/// The options that stand in the configuration of a process.
fn given(args: &args::Up, room: Room) -> Vec<&'static str> {
    let mut all = Vec::new();
    let mut add = |is: bool, name| {
        if is {
            all.push(name)
        }
    };
    match room {
        Room::Signer => {}
        Room::Broker => {
            add(args.ssh.is_some(), "--ssh");
            add(args.api.is_some(), "--api");
            add(args.agents.is_some(), "--agents");
            add(!args.hosts.is_empty(), "--host");
            add(args.siem.is_some(), "--siem");
        }
        Room::Agent => {
            add(args.k.is_some(), "--k");
            add(!args.backends.is_empty(), "--backend");
        }
    }
    all
}

/// Gives broker and signer their folders, when they run as another user.
fn hand_over_folders(node: &Node, user: Option<&User>) -> Result<(), Fault> {
    let Some(user) = user else { return Ok(()) };
    for dir in [node.room(Room::Signer), node.room(Room::Broker)] {
        for path in [dir.join("config.toml"), dir] {
            // A link that they put there themselves is given to them, not what it leads to.
            fchownat(AT_FDCWD, &path, Some(user.uid), Some(user.gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(|e| cannot_write(&path, &e.into()))?;
        }
    }
    // They reach the socket here through their group, and may change nothing: the numbers noted
    // here are signalled as root.
    let run = node.run();
    chown(&run, None, Some(user.gid)).map_err(|e| cannot_write(&run, &e.into()))
}

fn pid_file(node: &Node, room: Room) -> PathBuf {
    node.run().join(format!("{}.pid", room.name()))
}

/// Does what the supervision says, and tells it what happened.
struct Driver<'a> {
    around: &'a Surroundings,
    node: &'a Node,
    programs: Programs,
    began: Instant,
    handles: BTreeMap<Room, Handle>,
    reports: mpsc::Sender<Report>,
    incoming: mpsc::Receiver<Report>,
    ready: BTreeMap<Room, String>,
}

impl<'a> Driver<'a> {
    fn new(around: &'a Surroundings, node: &'a Node, programs: Programs) -> Driver<'a> {
        let (reports, incoming) = mpsc::channel(32);
        let (handles, ready) = (BTreeMap::new(), BTreeMap::new());
        Driver { around, node, programs, began: Instant::now(), handles, reports, incoming, ready }
    }

    async fn run(&mut self) -> Result<(), Fault> {
        let no_signals = |e: std::io::Error| Fault::failed("signals", say!(UpStopped)).because(&e);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;

        let (mut supervisor, mut actions) = Supervisor::start(Timing::default());
        loop {
            if let Some(ending) = self.act(&mut supervisor, actions) {
                return self.end(ending);
            }
            let due = supervisor.timeout().map(|at| self.began + at);
            let input = tokio::select! {
                report = self.incoming.recv() => report.map(|r| self.told(&supervisor, r)),
                _ = interrupt.recv() => Some(Input::Stop),
                _ = terminate.recv() => Some(Input::Stop),
                _ = hangup.recv() => Some(Input::Stop),
                () = sleep_until(due) => None,
            };
            if input == Some(Input::Stop) && !supervisor.is_stopping() {
                self.say(&say!(UpStopping));
            }
            let now = self.began.elapsed();
            actions = match &input {
                Some(input) => supervisor.handle(now, input),
                None => supervisor.handle_timeout(now),
            };
        }
    }

    /// Does everything that is to be done, and what follows from it at once.
    fn act(&mut self, supervisor: &mut Supervisor, actions: Vec<Action>) -> Option<Ending> {
        let mut todo = std::collections::VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            match action {
                Action::Spawn(room) => {
                    let input = self.spawn(room);
                    todo.extend(supervisor.handle(self.began.elapsed(), &input));
                }
                Action::Terminate(room) => self.send(room, Signal::SIGTERM),
                Action::Kill(room) => {
                    self.say(&say!(UpKilled, room = room.name()));
                    self.send(room, Signal::SIGKILL);
                }
                Action::SayLate(room) => {
                    let (secs, log) = (Timing::default().ready.as_secs(), self.node.log(room));
                    self.say(&say!(UpLate, room = room.name(), secs = secs, log = log.display()));
                }
                Action::SayAgain(room, wait) => {
                    self.say(&say!(UpAgain, room = room.name(), secs = wait.as_secs_f64()));
                }
                Action::SayServing => self.serving(),
                Action::Finish(ending) => return Some(ending),
            }
        }
        None
    }

    fn spawn(&mut self, room: Room) -> Input {
        if let Err(fault) = self.prepare(room) {
            eprintln!("{}", fault.text(self.around.lang));
            return Input::NotSpawned(room);
        }
        let (program, dir) = (self.programs.path(room), self.node.room(room));
        let pid = pid_file(self.node, room);
        match process::start(room, program, &dir, &self.node.log(room), pid, self.reports.clone()) {
            Ok(handle) => {
                self.handles.insert(room, handle);
                Input::Spawned(room)
            }
            Err(error) => {
                let fault =
                    Fault::failed("spawn", say!(UpNoProgram, path = program.display())).because(&error);
                eprintln!("{}", fault.text(self.around.lang));
                Input::NotSpawned(room)
            }
        }
    }

    /// What must be there before a process starts: for the agent, its token from the broker.
    fn prepare(&self, room: Room) -> Result<(), Fault> {
        if room != Room::Agent {
            return Ok(());
        }
        let (from, to) =
            (self.node.room(Room::Broker).join(AGENT_TOKEN), self.node.room(room).join(ENROL_TOKEN));
        // A link in the broker's folder leads nowhere: what is read here is read as root.
        let token = fs::File::options().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&from);
        let token = match token.and_then(std::io::read_to_string) {
            Ok(token) => zeroize::Zeroizing::new(token),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Fault::failed("token", say!(UpToken)).because(&e)),
        };
        write_file(&to, token.as_bytes(), Mode::Private)?;
        fs::remove_file(&from).map_err(|e| cannot_write(&from, &e))
    }

    fn send(&self, room: Room, signal: Signal) {
        if let Some(handle) = self.handles.get(&room) {
            handle.signal(signal);
        }
    }

    fn told(&mut self, supervisor: &Supervisor, report: Report) -> Input {
        match report {
            Report::Ready(room, line) => {
                self.say(&say!(UpReady, room = room.name(), line = line));
                self.ready.insert(room, line);
                Input::Ready(room)
            }
            Report::Exited(room, how) => {
                self.handles.remove(&room);
                if !supervisor.is_stopping() {
                    let log = self.node.log(room);
                    self.say(&say!(UpExited, room = room.name(), how = how, log = log.display()));
                }
                Input::Exited(room)
            }
        }
    }

    /// Everything is ready for the first time: says what to try.
    fn serving(&self) {
        let api = self.node.api_url().map(|url| url.to_string()).unwrap_or_default();
        let token = self.node.room(Room::Broker).join(ADMIN_TOKEN);
        let first = token.exists();
        if self.around.json {
            let token = first.then_some(&token);
            self.around.print_json(&serde_json::json!({
                "serving": true, "api": api, "first_token": token, "ready": self.words(),
            }));
            return;
        }
        self.say(&say!(UpServing));
        self.say(&say!(UpTry));
        let dir = self.node.dir().display().to_string();
        if first {
            self.say(&say!(UpFirst, person = FIRST_PERSON));
            let token = shell_word(&token.display().to_string());
            self.around.line(&format!(
                "  sekisho login --api {api} --person {FIRST_PERSON} --token \"$(cat {token})\""
            ));
        }
        let dir = shell_word(&dir);
        self.around.line(&format!(
            "  sekisho status --dir {dir}\n  sekisho audit tail --follow --dir {dir}\n  sekisho --help\n  ssh -F ~/.sekisho/ssh_config STUDY@gate"
        ));
    }

    fn words(&self) -> BTreeMap<&'static str, &str> {
        self.ready.iter().map(|(room, line)| (room.name(), line.as_str())).collect()
    }

    fn end(&self, ending: Ending) -> Result<(), Fault> {
        match ending {
            Ending::Stopped => {
                self.say(&say!(UpStopped));
                Ok(())
            }
            Ending::Failed(room) => {
                let log = self.node.log(room);
                let fault = Fault::new(Exit::Failed, "not_started", say!(UpFailed, room = room.name()));
                let fault = match last_words(&log) {
                    Some(words) => fault.why(words),
                    None => fault,
                };
                Err(fault.todo(say!(UpFailedTodo, log = log.display())))
            }
        }
    }

    fn say(&self, message: &Message) {
        say_line(self.around, message);
    }
}

/// Status lines are for people; programs get one line of JSON when all is ready.
fn say_line(around: &Surroundings, message: &Message) {
    if around.json {
        eprintln!("{}", message.text(around.lang));
    } else {
        around.print(message);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The last line of a log, as far as a terminal may show it.
fn last_words(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(4096))).ok()?;
    let mut text = Vec::new();
    file.take(4096).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let last = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(crate::api::printable(last))
}

/// A word that a shell takes as it is.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        assert_eq!(shell_word("/srv/node-1"), "/srv/node-1");
        assert_eq!(shell_word("/a b/it's"), r"'/a b/it'\''s'");
    }

    #[test]
    fn the_last_words_are_the_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_words(&log), None);
        fs::write(&log, format!("{}\nERROR no \u{1b}[31msocket\n\n", "x".repeat(9000))).unwrap();
        assert_eq!(last_words(&log).unwrap(), "ERROR no  [31msocket");
    }
}
