use std::sync::Arc;
use std::time::Duration;

use quinn::{
    AckFrequencyConfig, Connection, ConnectionError, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};

use crate::congestion::{self, Opening};

/// How much of everything one connection may use. Both sides may differ.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions and deposits at once, per connection.
    pub streams: u32,
    /// Bytes that may wait unread in one stream. Every stream may fill its share without another
    /// one standing still, so a connection whose readers all stall holds `streams` times this.
    pub stream_window: u32,
    /// Bytes sent and not yet acknowledged, per connection.
    pub send_window: u64,
    /// Handshakes under way at once; more are turned away.
    pub handshakes: usize,
    /// How long a connection may take until the agent is admitted, and a stream until its order
    /// is read.
    pub patience: Duration,
    /// How often a silent peer is asked whether it is there.
    pub keep_alive: Duration,
    /// How long a peer may be silent until it counts as gone.
    pub idle: Duration,
    /// Unacknowledged reports an agent keeps.
    pub reports: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            streams: 64,
            stream_window: 4 * 1024 * 1024,
            send_window: 16 * 1024 * 1024,
            handshakes: 64,
            patience: Duration::from_secs(10),
            keep_alive: Duration::from_secs(2),
            // Each keep-alive that is sent begins the count anew once: silence is noticed after
            // this and a keep-alive's time.
            idle: Duration::from_secs(8),
            reports: 1024,
        }
    }
}

/// The largest packet tried, in bytes, where the path carries it (a machine's own loopback does, over IPv6
/// up to 65 488); it is probed, so elsewhere it costs a few lost probes. One holds what two packets of
/// SSH carry.
const PACKET_MAX: u16 = 65_400;
/// Packets that may come before the peer says what it has: a burst of sends, not every second packet.
const UNACKNOWLEDGED: u32 = 16;
/// Bytes that may be on their way before the first acknowledgement: four of the largest packets.
const OPENING_WINDOW: u64 = 4 * PACKET_MAX as u64;

impl Limits {
    /// `streams`: how many the peer may open.
    pub(crate) fn transport(&self, streams: u32) -> Arc<TransportConfig> {
        // The control stream has a window of its own.
        let all = u64::from(self.stream_window) * (u64::from(self.streams) + 1);
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u64(all).unwrap_or(VarInt::MAX))
            .send_window(self.send_window)
            .keep_alive_interval(Some(self.keep_alive));
        config.max_idle_timeout(IdleTimeout::try_from(self.idle).ok());
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED));
        config.ack_frequency_config(Some(acks));
        config.congestion_controller_factory(Arc::new(Opening { window: OPENING_WINDOW }));
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(PACKET_MAX);
        config.mtu_discovery_config(Some(mtu));
        Arc::new(config)
    }

    pub(crate) fn endpoint() -> EndpointConfig {
        let mut config = EndpointConfig::default();
        // The constant lies within what the call allows; else the default stays.
        let _ = config.max_udp_payload_size(PACKET_MAX);
        config
    }
}

/// Why one side closes a connection, as the other reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing is wrong; the process stops or has no more use for the connection.
    Done = 0,
    /// The peer left the protocol.
    Protocol = 1,
    /// The agent was not admitted.
    Rejected = 2,
    /// Another connection of the same agent took its place.
    Replaced = 3,
    /// The agent is locked, or the broker wants it gone.
    Expelled = 4,
}

impl CloseCode {
    /// Ends a connection with this code, so that the peer learns of it now.
    pub(crate) fn end(self, connection: &Connection, reason: &[u8]) {
        congestion::close(connection, self.var(), reason);
    }

    pub(crate) fn var(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    fn from_var(code: VarInt) -> Option<CloseCode> {
        [CloseCode::Done, CloseCode::Protocol, CloseCode::Rejected, CloseCode::Replaced, CloseCode::Expelled]
            .into_iter()
            .find(|known| known.var() == code)
    }
}

/// Codes with which a stream is reset or stopped.
pub(crate) const ABANDONED: VarInt = VarInt::from_u32(1);
pub(crate) const BROKEN: VarInt = VarInt::from_u32(2);

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// The peer fell silent.
    #[error("the peer fell silent")]
    Silent,
    /// The peer closed the connection.
    #[error("the peer closed the connection ({code:?}): {reason}")]
    ByPeer {
        /// Its code, if it is a known one.
        code: Option<CloseCode>,
        /// Its words.
        reason: String,
    },
    /// This side closed the connection.
    #[error("the connection was closed here")]
    Here,
    /// The transport failed; among others when TLS refuses a certificate.
    #[error("the connection failed: {0}")]
    Failed(String),
}

impl From<ConnectionError> for LinkEnd {
    fn from(error: ConnectionError) -> LinkEnd {
        match error {
            ConnectionError::TimedOut => LinkEnd::Silent,
            ConnectionError::LocallyClosed => LinkEnd::Here,
            ConnectionError::ApplicationClosed(close) => {
                LinkEnd::ByPeer { code: CloseCode::from_var(close.error_code), reason: words(&close.reason) }
            }
            ConnectionError::Reset => {
                LinkEnd::ByPeer { code: None, reason: "it no longer knows this connection".to_owned() }
            }
            other => LinkEnd::Failed(other.to_string()),
        }
    }
}

/// A peer's words, fit for a log.
fn words(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(256)];
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}
