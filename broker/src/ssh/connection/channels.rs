//! What is opened inside a connection, and what is refused there.

use std::net::IpAddr;
use std::sync::Arc;

use gate::{Entry, Wanted};
use policy::command::{Transfer, transfer};
use policy::{CertificateRules, Channel as Kind};
use russh::server::{ChannelOpenHandle, Handle, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf};
use wire::message::Pty;

use super::identity::Standing;
use super::{Connection, RECORDED_REFUSALS};
use crate::ssh::choose::{self, Asked as Meant, Found, Words};
use crate::ssh::input::InputBuffer;
use crate::ssh::screen::Screen;
use crate::ssh::session::{self, Line, Wish};
use crate::ssh::supervise::{self, Visit};

/// Channels in one connection. A browser opens some for each page, an editor one for each task.
const CHANNELS: usize = 64;
/// The longest command line, in bytes.
const COMMAND: usize = 100 << 10;
/// The longest command that a forced one is told of, in bytes.
const ORIGINAL: usize = 20 << 10;
/// What a client is told that asks for ever more that it is refused.
const ENOUGH: &str = "too much was refused in this connection; connect again";

/// A channel of the connection.
pub(super) enum State {
    /// Open, nothing runs yet.
    Waiting(Box<Setup>),
    /// A session runs, or has run.
    Running(Arc<InputBuffer>),
}

/// What a channel has been told before its command.
pub(super) struct Setup {
    write: ChannelWriteHalf<Msg>,
    pub(super) pty: Option<Pty>,
    pub(super) env: Vec<(String, String)>,
    pub(super) purpose: Option<String>,
    pub(super) notes: Vec<String>,
}

/// What a channel asks to run.
pub(super) enum Asked {
    Shell,
    Exec(Vec<u8>),
    Sftp,
}

impl Connection {
    pub(super) async fn open_session(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        if !matches!(self.standing, Standing::Admitted { .. } | Standing::Visitor { .. }) {
            return;
        }
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return;
        }
        // Input comes through the callbacks: the machine must not wait for a reader.
        let (_, write) = channel.split();
        let setup = Setup { write, pty: None, env: Vec::new(), purpose: None, notes: Vec::new() };
        self.channels.insert(setup.write.id(), State::Waiting(Box::new(setup)));
        reply.accept().await;
    }

    /// A connection to a port of the workspace. It is answered when it stands, or does not.
    pub(super) async fn open_forward(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        reply: ChannelOpenHandle,
        handle: Handle,
    ) {
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return;
        }
        let Standing::Admitted { entry, asked, principal } = &self.standing else { return };
        let target = match asked.find(&self.services, &entry.person).await {
            Ok(Found::One(target)) => target,
            Ok(Found::Several(_) | Found::None) => {
                return reject(reply, "name the workspace whose port you mean: ssh STUDY+WORKSPACE@gate")
                    .await;
            }
            Err(refusal) => return reject(reply, &refusal.message).await,
        };
        let port = match u16::try_from(port) {
            Ok(port) if port != 0 && is_loopback(host) => port,
            _ => {
                let detail: String = format!("to {host}:{port}").chars().take(300).collect();
                self.recorded += 1;
                let told = if self.recorded > RECORDED_REFUSALS {
                    ENOUGH.to_owned()
                } else {
                    match self.services.gate.refuse_forward(entry, &target.study, &detail).await {
                        Ok(refusal) | Err(refusal) => refusal.message,
                    }
                };
                reject(reply, &told).await;
                return;
            }
        };
        let wish = Wish {
            entry: entry.clone(),
            target,
            certificate: rules(principal),
            purpose: None,
            wanted: Wanted::Forward(port),
            line: Vec::new(),
            original: None,
            pty: None,
            env: Vec::new(),
            notes: Vec::new(),
        };
        let (_, write) = channel.split();
        let input = Arc::new(InputBuffer::default());
        self.channels.insert(write.id(), State::Running(Arc::clone(&input)));
        let screen = Screen::forward(write, handle.clone(), reply);
        self.run(wish, screen, input, handle);
    }

    /// Starts what is asked for on a channel that waits for it.
    pub(super) fn start(
        &mut self,
        channel: ChannelId,
        asked: Asked,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Standing::Visitor { entry, visit } = &self.standing {
            let (entry, visit) = (entry.clone(), visit.clone());
            return self.visit(channel, &asked, entry, visit, session);
        }
        let Standing::Admitted { entry, asked: meant, principal } = &self.standing else {
            return session.channel_failure(channel);
        };
        let (entry, meant, certificate) = (entry.clone(), meant.clone(), rules(principal));
        let forced = principal.permits.force_command.clone();
        let fits = !matches!(&asked, Asked::Exec(line) if line.len() > COMMAND);
        if !fits || !matches!(self.channels.get(&channel), Some(State::Waiting(_))) {
            return session.channel_failure(channel);
        }
        let input = Arc::new(InputBuffer::default());
        let Some(State::Waiting(setup)) = self.channels.insert(channel, State::Running(Arc::clone(&input)))
        else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        let screen = Screen::new(setup.write, session.handle(), setup.pty.is_some());
        let Some((asked, original)) = with_force(asked, forced) else {
            let text = "Your certificate is for one command only, and what you asked for cannot be handed to it: it is too long, or not in UTF-8.";
            self.services.tasks.spawn(session::deny(screen, text.to_owned(), self.gone.clone()));
            return Ok(());
        };
        let (wanted, line) = match asked {
            Asked::Shell => (Wanted::Shell, Vec::new()),
            Asked::Sftp => (Wanted::Sftp, Vec::new()),
            Asked::Exec(line) => (Wanted::Exec(String::from_utf8_lossy(&line).into_owned()), line),
        };
        let (pty, purpose) = (setup.pty, setup.purpose);
        let words = Words::of(pty.is_some(), &setup.env);
        let (env, notes) = (setup.env, setup.notes);
        let wish = move |target| Wish {
            entry,
            target,
            certificate,
            purpose,
            wanted,
            line,
            original,
            pty,
            env,
            notes,
        };
        let handle = session.handle();
        if let Meant::Named(target) = meant {
            self.run(wish(target), screen, input, handle);
            return Ok(());
        }
        let Standing::Admitted { entry, .. } = &self.standing else {
            return session.channel_failure(channel);
        };
        let (services, line, entry) = (Arc::clone(&self.services), self.line(handle), entry.clone());
        self.services.tasks.spawn(async move {
            let settled = tokio::select! {
                settled = choose::settle(&services, &entry, &meant, &screen, &input, words) => settled,
                () = services.stopping.cancelled() => None,
            };
            match settled {
                Some(target) => session::run(services, wish(target), screen, input, line).await,
                None => input.close(),
            }
        });
        Ok(())
    }

    /// Lets a visitor look, if that is all they ask for.
    fn visit(
        &mut self,
        channel: ChannelId,
        asked: &Asked,
        entry: Entry,
        visit: Visit,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if !matches!(asked, Asked::Shell) || !matches!(self.channels.get(&channel), Some(State::Waiting(_))) {
            return session.channel_failure(channel);
        }
        let input = Arc::new(InputBuffer::default());
        let Some(State::Waiting(setup)) = self.channels.insert(channel, State::Running(Arc::clone(&input)))
        else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        let screen = Screen::new(setup.write, session.handle(), setup.pty.is_some());
        let services = Arc::clone(&self.services);
        self.services.tasks.spawn(supervise::run(services, entry, visit, setup.pty, screen, input));
        Ok(())
    }

    fn run(&self, wish: Wish, screen: Screen, input: Arc<InputBuffer>, handle: Handle) {
        let line = self.line(handle);
        let services = Arc::clone(&self.services);
        self.services.tasks.spawn(session::run(services, wish, screen, input, line));
    }

    fn line(&self, handle: Handle) -> Line {
        Line { handle, knife: self.knife.clone(), gone: self.gone.clone() }
    }

    /// Turns down something that comes with a channel; the person reads why when the command
    /// starts.
    pub(super) async fn turn_down(&mut self, channel: ChannelId, kind: Kind, detail: &str) {
        if let Some(told) = self.turn_away(kind, detail).await
            && let Some(setup) = self.waiting(channel)
        {
            setup.notes.push(told);
        }
    }

    /// Asks the gate for something: the reason, if the answer is no.
    pub(super) async fn turn_away(&mut self, kind: Kind, detail: &str) -> Option<String> {
        let Standing::Admitted { entry, asked, principal } = &self.standing else {
            return Some(String::new());
        };
        if self.recorded >= RECORDED_REFUSALS {
            return Some(ENOUGH.to_owned());
        }
        let detail: String = detail.chars().take(300).collect();
        // What is weighed here is offered to nobody: where it was meant to be does not matter.
        let found = match asked.study() {
            Some(study) => Some(study.clone()),
            None => match self.services.gate.choices(&entry.person).await {
                Ok(choices) => choices.into_iter().next().map(|choice| choice.study),
                Err(refusal) => return Some(refusal.message),
            },
        };
        let Some(study) = found else { return Some("you are a member of no study".to_owned()) };
        let weighed = self.services.gate.weigh_channel(entry, &study, rules(principal), kind, &detail).await;
        let refusal = weighed.err()?;
        self.recorded += 1;
        Some(refusal.message)
    }

    pub(super) async fn refuse_open(&mut self, reply: ChannelOpenHandle, kind: Kind, detail: &str) {
        match self.turn_away(kind, detail).await {
            Some(told) => reject(reply, &told).await,
            // What this gate does not offer, nobody permits; were it so, nothing here could open it.
            None => reply.reject(ChannelOpenFailure::UnknownChannelType).await,
        }
    }

    /// Refused like a session: after a plain "failure" many clients show nothing at all.
    pub(super) async fn refuse_subsystem(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.waiting(channel).is_none() {
            return session.channel_failure(channel);
        }
        let input = Arc::new(InputBuffer::default());
        let Some(State::Waiting(setup)) = self.channels.insert(channel, State::Running(input)) else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        let told = self.turn_away(Kind::Subsystem, name).await.unwrap_or_default();
        let screen = Screen::new(setup.write, session.handle(), false);
        self.services.tasks.spawn(session::deny(screen, told, self.gone.clone()));
        Ok(())
    }

    pub(super) fn waiting(&mut self, channel: ChannelId) -> Option<&mut Setup> {
        match self.channels.get_mut(&channel) {
            Some(State::Waiting(setup)) => Some(setup),
            _ => None,
        }
    }

    pub(super) fn running(&self, channel: ChannelId) -> Option<&Arc<InputBuffer>> {
        match self.channels.get(&channel) {
            Some(State::Running(input)) => Some(input),
            _ => None,
        }
    }

    /// Whether there are too many channels. Those that never came to be do not count: nobody closes
    /// them.
    fn is_full(&mut self) -> bool {
        if self.channels.len() >= CHANNELS {
            self.channels.retain(|_, state| !matches!(state, State::Running(input) if input.is_closed()));
        }
        self.channels.len() >= CHANNELS
    }
}

async fn reject(reply: ChannelOpenHandle, reason: &str) {
    // Code 1 is "administratively prohibited"; the words are ours.
    reply.reject(ChannelOpenFailure::Other { code: 1, reason: format!("sekisho: {reason}") }).await;
}

/// What the certificate permits, as policy asks for it.
fn rules(principal: &certs::Principal) -> CertificateRules {
    let permits = &principal.permits;
    CertificateRules {
        terminal: permits.pty,
        port_forwarding: permits.port_forwarding,
        agent_forwarding: permits.agent_forwarding,
        x11: permits.x11,
    }
}

/// What runs in the end, and what was asked for if a certificate forces something else. Nothing, if
/// that cannot be told to the forced command.
fn with_force(asked: Asked, forced: Option<String>) -> Option<(Asked, Option<String>)> {
    let is_sftp = |line: &[u8]| transfer(line) == Transfer::Sftp;
    let Some(forced) = forced else {
        return Some(match asked {
            Asked::Exec(line) if is_sftp(&line) => (Asked::Sftp, None),
            other => (other, None),
        });
    };
    let original = match asked {
        Asked::Shell => None,
        Asked::Sftp => Some("internal-sftp".to_owned()),
        Asked::Exec(line) if line.len() > ORIGINAL || line.contains(&0) => return None,
        Asked::Exec(line) => Some(String::from_utf8(line).ok()?),
    };
    let only_files = forced.split_whitespace().next() == Some("internal-sftp");
    if only_files || is_sftp(forced.as_bytes()) {
        return Some((Asked::Sftp, None));
    }
    Some((Asked::Exec(forced.into_bytes()), original))
}

/// Whether a name means the machine itself, which here is the workspace.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forced(asked: Asked, forced: Option<&str>) -> String {
        match with_force(asked, forced.map(str::to_owned)) {
            None => "refused".to_owned(),
            Some((Asked::Shell, _)) => "shell".to_owned(),
            Some((Asked::Sftp, _)) => "sftp".to_owned(),
            Some((Asked::Exec(line), original)) => {
                format!("{} ({})", String::from_utf8_lossy(&line), original.unwrap_or_default())
            }
        }
    }

    #[test]
    fn a_forced_command_runs_whatever_is_asked() {
        let exec = |line: &str| Asked::Exec(line.into());
        assert_eq!(forced(exec("id"), None), "id ()");
        assert_eq!(forced(exec("/usr/lib/openssh/sftp-server"), None), "sftp");
        assert_eq!(forced(exec("rm -r 結果"), Some("log")), "log (rm -r 結果)");
        assert_eq!(forced(Asked::Shell, Some("log")), "log ()");
        assert_eq!(forced(Asked::Sftp, Some("log")), "log (internal-sftp)");
        for asked in [Asked::Shell, Asked::Sftp, exec("id")] {
            assert_eq!(forced(asked, Some("internal-sftp -l INFO")), "sftp");
        }
        assert_eq!(forced(Asked::Exec(vec![0xff]), Some("log")), "refused");
        assert_eq!(forced(Asked::Exec(vec![b'x'; ORIGINAL + 1]), Some("log")), "refused");
    }

    #[test]
    fn only_the_workspace_itself_is_near() {
        for near in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"] {
            assert!(is_loopback(near), "{near}");
        }
        for far in ["", "0.0.0.0", "10.0.0.1", "localhost.evil", "::ffff:10.0.0.1", "169.254.169.254"] {
            assert!(!is_loopback(far), "{far}");
        }
    }
}
