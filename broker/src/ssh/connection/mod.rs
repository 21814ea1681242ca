//! One SSH connection: proof of identity, channels, requests.
//!
//! The SSH machine verifies that the client holds the key, that the certificate is well-formed and
//! that its time has not run out, and nothing else; everything else about a certificate is checked
//! here. A proven key whose certificate is refused is *condemned*: authentication succeeds in the
//! protocol, because only then can a client be told why, and the connection is closed with the
//! reason before anything can be opened in it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use audit::{ChannelKind, Event, EventKind};
use certs::Principal;
use gate::{Entry, Via};
use model::StudyId;
use russh::keys::ssh_key::{Certificate, HashAlg};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, MethodKind, MethodSet, Sig,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::message::{Command, Pty, WindowSize};

use super::Services;
use super::admission::Pass;
use super::input::{Flow, InputBuffer, NARROW, WIDE};
use super::refusals::{Refused, certificate_refused};
use super::screen::{Screen, signal_name};
use super::session::{self, Line, Wish};
use super::sever::Knife;

/// Channels in one connection.
const CHANNELS: usize = 10;
/// Environment variables in one channel.
const VARIABLES: usize = 32;
/// The longest value of an environment variable, in bytes.
const VALUE: usize = 512;
/// The longest command line, in bytes.
const COMMAND: usize = 128 << 10;
/// Refusals recorded for one connection; what comes after is refused all the same.
const RECORDED_REFUSALS: u32 = 64;
/// How long a condemned client may take to close its side.
const FAREWELL: Duration = Duration::from_secs(2);
/// What holds the machine back while a workspace takes no input.
const PAUSE: Duration = Duration::from_millis(5);
/// The environment variable that names the purpose of a session.
const PURPOSE: &str = "SEKISHO_PURPOSE";

/// One connection, as the SSH machine calls it.
pub(crate) struct Connection {
    services: Arc<Services>,
    peer: SocketAddr,
    knife: Knife,
    pass: Pass,
    standing: Standing,
    channels: HashMap<ChannelId, State>,
    recorded: u32,
    /// Fires when the person is in, or is to be sent away.
    proved: CancellationToken,
    gone: CancellationToken,
    _bell: DropGuard,
}

/// How far somebody has come.
enum Standing {
    /// Nothing is proved.
    Stranger { tried: Option<String>, bare: Option<String> },
    /// A key is proved, and it opens nothing.
    Condemned { reason: String },
    /// In.
    Admitted { entry: Entry, study: StudyId, principal: Box<Principal> },
}

enum State {
    /// Open, nothing runs yet.
    Waiting(Box<Setup>),
    /// A session runs, or has run.
    Running(Arc<InputBuffer>),
}

/// What a channel has been told before its command.
struct Setup {
    write: ChannelWriteHalf<Msg>,
    pty: Option<Pty>,
    env: Vec<(String, String)>,
    purpose: Option<String>,
    notes: Vec<String>,
}

impl Connection {
    pub(crate) fn new(
        services: Arc<Services>,
        peer: SocketAddr,
        knife: Knife,
        pass: Pass,
        proved: CancellationToken,
    ) -> Connection {
        let gone = CancellationToken::new();
        Connection {
            services,
            peer,
            knife,
            pass,
            standing: Standing::Stranger { tried: None, bare: None },
            channels: HashMap::new(),
            recorded: 0,
            proved,
            _bell: gone.clone().drop_guard(),
            gone,
        }
    }

    fn condemn(&mut self, reason: String) -> Auth {
        self.standing = Standing::Condemned { reason };
        Auth::Accept
    }

    fn tried(&mut self, user: &str) {
        if let Standing::Stranger { tried, .. } = &mut self.standing {
            *tried = Some(user.chars().take(64).collect());
        }
    }

    /// Records that somebody was turned away.
    async fn record_refused(&mut self, refused: Refused) {
        self.recorded += 1;
        if self.recorded > RECORDED_REFUSALS {
            return;
        }
        let event = refused.event(self.services.gate.now(), self.peer);
        if let Err(failed) = self.services.gate.record(&event).await {
            tracing::error!(code = %failed.code, "a refusal could not be recorded");
        }
    }

    /// Records that something inside the connection was refused.
    async fn record_channel(&mut self, what: ChannelKind, detail: &str) {
        let Standing::Admitted { entry, study, .. } = &self.standing else { return };
        self.recorded += 1;
        if self.recorded > RECORDED_REFUSALS {
            return;
        }
        let kind = EventKind::ChannelRefused { what, detail: detail.to_owned() };
        let mut event = Event::new(self.services.gate.now(), kind);
        event.person = Some(entry.person.clone());
        event.study = Some(study.clone());
        event.peer = Some(self.peer.to_string());
        if let Err(failed) = self.services.gate.record(&event).await {
            tracing::error!(code = %failed.code, "a refusal could not be recorded");
        }
    }

    fn waiting(&mut self, channel: ChannelId) -> Option<&mut Setup> {
        match self.channels.get_mut(&channel) {
            Some(State::Waiting(setup)) => Some(setup),
            _ => None,
        }
    }

    fn running(&self, channel: ChannelId) -> Option<&Arc<InputBuffer>> {
        match self.channels.get(&channel) {
            Some(State::Running(input)) => Some(input),
            _ => None,
        }
    }

    /// Starts a session on a channel that waits for its command; `false` if none does.
    fn start(&mut self, channel: ChannelId, command: Command, session: &Session) -> bool {
        let Standing::Admitted { entry, study, principal } = &self.standing else { return false };
        if !matches!(self.channels.get(&channel), Some(State::Waiting(_))) {
            return false;
        }
        let input = Arc::new(InputBuffer::default());
        let Some(State::Waiting(setup)) = self.channels.insert(channel, State::Running(Arc::clone(&input)))
        else {
            return false;
        };
        let command = match &principal.permits.force_command {
            Some(forced) => Command::Exec(forced.clone().into_bytes()),
            None => command,
        };
        let screen = Screen::new(setup.write, session.handle(), setup.pty.is_some());
        let wish = Wish {
            entry: entry.clone(),
            study: study.clone(),
            purpose: setup.purpose,
            command,
            pty: setup.pty,
            env: setup.env,
            notes: setup.notes,
        };
        let line = Line { handle: session.handle(), knife: self.knife.clone(), gone: self.gone.clone() };
        let services = Arc::clone(&self.services);
        self.services.tasks.spawn(session::run(services, wish, screen, input, line));
        true
    }

    /// Answers a request for something that is not offered: on the terminal, and in the log.
    async fn turn_down(
        &mut self,
        channel: ChannelId,
        what: ChannelKind,
        detail: &str,
        note: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)?;
        if let Some(setup) = self.waiting(channel) {
            setup.notes.push(note.to_owned());
        }
        self.record_channel(what, detail).await;
        Ok(())
    }

    async fn refuse_open(&mut self, reply: ChannelOpenHandle, what: ChannelKind, detail: &str, reason: &str) {
        // Code 1 is "administratively prohibited"; the words are ours.
        reply.reject(ChannelOpenFailure::Other { code: 1, reason: format!("sekisho: {reason}") }).await;
        self.record_channel(what, detail).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for state in self.channels.values() {
            if let State::Running(input) = state {
                input.close();
            }
        }
        if let Standing::Stranger { tried: Some(user), bare } = &self.standing {
            let event =
                Refused::nothing_proved(user, bare.clone()).event(self.services.gate.now(), self.peer);
            let services = Arc::clone(&self.services);
            self.services.tasks.spawn(async move {
                if let Err(failed) = services.gate.record(&event).await {
                    tracing::error!(code = %failed.code, "a refusal could not be recorded");
                }
            });
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        self.tried(user);
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        _: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        // The key of a certificate and a bare key look the same here: both may go on to prove
        // themselves, and then they are told apart.
        self.tried(user);
        Ok(if matches!(self.standing, Standing::Stranger { .. }) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        self.tried(user);
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
        if let Some((person, at)) = self.services.issued.expired(&fingerprint, self.services.gate.now()) {
            let refused = Refused::expired(person, fingerprint, at);
            let reason = refused.reason.clone();
            self.record_refused(refused).await;
            return Ok(self.condemn(reason));
        }
        // A client may well offer a bare key first and its certificate next: what is recorded is how
        // it ends.
        if let Standing::Stranger { bare, .. } = &mut self.standing {
            *bare = Some(fingerprint);
        }
        Ok(Auth::reject())
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        cert: &Certificate,
    ) -> Result<Auth, Self::Error> {
        self.tried(user);
        if !matches!(self.standing, Standing::Stranger { .. }) {
            return Ok(Auth::reject());
        }
        let trust = self.services.trust.load();
        let now = self.services.gate.now();
        let checked = certs::check_user_certificate(cert, &trust, now, Some(self.peer.ip()));
        let refused = match checked {
            Ok(principal) => match StudyId::from_name(user) {
                Ok(study) => {
                    let entry = Entry {
                        person: principal.person.clone(),
                        peer: Some(self.peer),
                        via: Via::Ssh,
                        key_fingerprint: principal.key_fingerprint.clone(),
                    };
                    self.standing = Standing::Admitted { entry, study, principal: Box::new(principal) };
                    return Ok(Auth::Accept);
                }
                Err(_) => Refused::no_study(user, &principal),
            },
            Err(refusal) => certificate_refused(cert, &refusal),
        };
        let reason = refused.reason.clone();
        self.record_refused(refused).await;
        Ok(self.condemn(reason))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        if response.is_some() {
            // Once is enough: the method is taken off the list.
            return Ok(Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
                partial_success: false,
            });
        }
        Ok(Auth::Partial {
            name: "".into(),
            instructions: "sekisho: this gate opens to a valid certificate only, and none was presented. If you have one it has expired: run `sekisho login`, then connect again.".into(),
            prompts: (&[][..]).into(),
        })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        self.proved.cancel();
        if let Standing::Admitted { .. } = &self.standing
            && let Err(full) = self.pass.establish()
        {
            self.standing = Standing::Condemned { reason: full.to_string() };
        }
        if let Standing::Condemned { reason } = &self.standing {
            session.disconnect(Disconnect::ByApplication, &format!("sekisho: {reason}"), "en")?;
            self.knife.cut_after(FAREWELL, self.gone.clone());
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if !matches!(self.standing, Standing::Admitted { .. }) {
            return Ok(());
        }
        if self.channels.len() >= CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // Input comes through the callbacks below: the machine must not wait for a reader.
        let (_, write) = channel.split();
        let setup = Setup { write, pty: None, env: Vec::new(), purpose: None, notes: Vec::new() };
        self.channels.insert(setup.write.id(), State::Waiting(Box::new(setup)));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_open(reply, ChannelKind::X11, "x11", "X11 is not passed on here").await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let detail = format!("to {host}:{port}");
        let reason = "connections out of the enclave are not open here";
        self.refuse_open(reply, ChannelKind::PortForwarding, &detail, reason).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let detail = format!("from {host}:{port}");
        self.refuse_open(reply, ChannelKind::RemoteForwarding, &detail, "ports are not forwarded here").await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_open(reply, ChannelKind::StreamLocal, path, "sockets are not forwarded here").await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        let detail = format!("on {address}:{port}");
        self.record_channel(ChannelKind::RemoteForwarding, &detail).await;
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Self::Error> {
        self.record_channel(ChannelKind::StreamLocal, path).await;
        Ok(false)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        width_px: u32,
        height_px: u32,
        modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let permitted =
            matches!(&self.standing, Standing::Admitted { principal, .. } if principal.permits.pty);
        if !permitted {
            let note = "This certificate does not permit a terminal; the session has none.";
            return self.turn_down(channel, ChannelKind::Unknown, "pty-req", note, session).await;
        }
        let Some(setup) = self.waiting(channel) else { return session.channel_failure(channel) };
        setup.pty = Some(Pty {
            term: term.chars().filter(|c| c.is_ascii_graphic()).take(64).collect(),
            cols: cols.min(10_000),
            rows: rows.min(10_000),
            width_px: width_px.min(100_000),
            height_px: height_px.min(100_000),
            modes: modes
                .iter()
                .map(|&(code, value)| (code as u8, value))
                .filter(|&(code, _)| code != 0)
                .collect(),
        });
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let fits = value.len() <= VALUE && !value.contains('\0');
        let Some(setup) = self.waiting(channel) else { return session.channel_failure(channel) };
        if name == PURPOSE && fits {
            setup.purpose = Some(value.to_owned());
            return session.channel_success(channel);
        }
        if fits && may_pass(name) && setup.env.len() < VARIABLES {
            setup.env.push((name.to_owned(), value.to_owned()));
            return session.channel_success(channel);
        }
        // Clients send what they are configured to send; a word about each would be noise.
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let note = "X11 is not passed on here. Work in the terminal, or ask for a desktop.";
        self.turn_down(channel, ChannelKind::X11, "x11-req", note, session).await
    }

    async fn agent_request(&mut self, channel: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        if let Some(setup) = self.waiting(channel) {
            setup.notes.push("Your key agent is not passed on into a workspace.".to_owned());
        }
        self.record_channel(ChannelKind::AgentForwarding, "auth-agent-req@openssh.com").await;
        Ok(false)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        if self.start(channel, Command::Shell, session) {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if line.len() <= COMMAND && self.start(channel, Command::Exec(line.to_vec()), session) {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(State::Waiting(_)) = self.channels.get(&channel) else {
            return session.channel_failure(channel);
        };
        // Refused like a session: after a plain "failure" many clients show nothing at all.
        let input = Arc::new(InputBuffer::default());
        let Some(State::Waiting(setup)) = self.channels.insert(channel, State::Running(input)) else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        let text = if name == "sftp" {
            "File transfer is not open yet. Files come in with `sekisho put`; nothing leaves the enclave this way."
        } else {
            "This subsystem is not offered here."
        };
        let screen = Screen::new(setup.write, session.handle(), false);
        self.services.tasks.spawn(session::deny(screen, text, self.gone.clone()));
        self.record_channel(ChannelKind::Subsystem, name).await;
        Ok(())
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        cols: u32,
        rows: u32,
        width_px: u32,
        height_px: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(input) = self.running(channel) {
            input.resize(WindowSize { cols, rows, width_px, height_px });
        }
        session.channel_success(channel)
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _: &mut Session) -> Result<(), Self::Error> {
        if let (Some(input), Some(name)) = (self.running(channel), signal_name(&signal)) {
            input.signal(name);
        }
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(input) = self.running(channel) else { return Ok(()) };
        match input.push(data) {
            Flow::Wide => {}
            // With a narrow window these are packets of a byte or two: the pause bounds how many
            // of them there can be, and is too short to be felt in the other direction.
            Flow::Narrow if data.len() <= NARROW as usize => tokio::time::sleep(PAUSE).await,
            Flow::Narrow => {}
            Flow::Flooded => {
                let reason =
                    "sekisho: more input was sent than the workspace takes; the connection is closed";
                session.disconnect(Disconnect::ProtocolError, reason, "en")?;
                self.knife.cut_after(FAREWELL, self.gone.clone());
            }
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        // One width for all channels: a stalled one must not be re-opened on account of another.
        let stalled = self.channels.values().any(|state| match state {
            State::Running(input) => input.flow() == Flow::Narrow,
            State::Waiting(_) => false,
        });
        if stalled { NARROW } else { WIDE }
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(input) = self.running(channel) {
            input.eof();
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(State::Running(input)) = self.channels.remove(&channel) {
            input.close();
        }
        Ok(())
    }
}

/// Whether a variable of the person's environment may reach the workspace: language only. `TERM`
/// travels with the terminal.
fn may_pass(name: &str) -> bool {
    let short = name.len() <= 32;
    short && (name == "LANG" || name == "TERM" || name == "LANGUAGE" || locale(name))
}

fn locale(name: &str) -> bool {
    name.strip_prefix("LC_")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::may_pass;

    #[test]
    fn only_language_comes_along() {
        for good in ["LANG", "LC_ALL", "LC_CTYPE", "TERM"] {
            assert!(may_pass(good), "{good}");
        }
        for bad in ["PATH", "LD_PRELOAD", "LC_", "LC_evil", "BASH_ENV", "SEKISHO_PURPOSE", &"LC_".repeat(20)]
        {
            assert!(!may_pass(bad), "{bad}");
        }
    }
}
