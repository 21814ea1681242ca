//! One SSH connection: proof of identity, channels, requests.
//!
//! The SSH machine verifies that the client holds the key, that the certificate is well-formed and
//! that its time has not run out, and nothing else; everything else about a certificate is checked
//! in [`identity`]. A proven key whose certificate is refused is *condemned*: authentication
//! succeeds in the protocol, because only then can a client be told why, and the connection is
//! closed with the reason before anything can be opened in it.
//!
//! What is asked for inside ([`channels`], [`setup`]) goes to the gate, channel by channel.

mod channels;
mod identity;
mod setup;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::Channel as Kind;
use russh::keys::ssh_key::Certificate;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, Disconnect, Sig};
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::message::WindowSize;

use super::Services;
use super::admission::Pass;
use super::input::{Flow, NARROW, WIDE};
use super::refusals::Refused;
use super::screen::signal_name;
use super::sever::Knife;
use channels::{Asked, State};
use identity::Standing;

/// Refusals recorded for one connection; what comes after is refused all the same.
const RECORDED_REFUSALS: u32 = 64;
/// How long a condemned client may take to close its side.
const FAREWELL: Duration = Duration::from_secs(2);
/// What holds the machine back while a workspace takes no input.
const PAUSE: Duration = Duration::from_millis(5);

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
        Ok(self.bare_key(user, key).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        cert: &Certificate,
    ) -> Result<Auth, Self::Error> {
        Ok(self.certificate(user, cert).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        Ok(Connection::advise(response.is_some()))
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        self.admitted(session)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open_session(channel, reply).await;
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
        self.refuse_open(reply, Kind::X11, "x11").await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open_forward(channel, host, port, reply, session.handle()).await;
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
        self.refuse_open(reply, Kind::RemoteForward, &format!("from {host}:{port}")).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_open(reply, Kind::StreamLocal, path).await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        let detail = format!("on {address}:{port}");
        self.turn_away(Kind::RemoteForward, &detail).await;
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Self::Error> {
        self.turn_away(Kind::StreamLocal, path).await;
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
        let size = WindowSize { cols, rows, width_px, height_px };
        self.set_terminal(channel, term, size, modes, session)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.set_variable(channel, name, value, session)
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
        session.channel_failure(channel)?;
        self.turn_down(channel, Kind::X11, "x11-req").await;
        Ok(())
    }

    async fn agent_request(&mut self, channel: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        self.turn_down(channel, Kind::AgentForward, "auth-agent-req@openssh.com").await;
        Ok(false)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, Asked::Shell, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, Asked::Exec(line.to_vec()), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == "sftp" {
            return self.start(channel, Asked::Sftp, session);
        }
        self.refuse_subsystem(channel, name, session).await
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
