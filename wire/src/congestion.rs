//! How much may be on its way unacknowledged, and that a last word always may.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn::{Connection, VarInt};
use quinn_proto::RttEstimator;

/// Ends a connection so that the peer learns of it now.
///
/// The transport holds its last packet to the congestion window like any other (quinn issue 2785), and
/// once closed it reads no acknowledgement that would open the window: the peer would be left to find out
/// by silence. So the window opens before the connection closes.
pub(crate) fn close(connection: &Connection, code: VarInt, reason: &[u8]) {
    if let Ok(window) = connection.congestion_state().into_any().downcast::<Closable>() {
        window.closing.store(true, Ordering::Relaxed);
    }
    connection.close(code, reason);
}

/// Makes the controllers of new connections.
pub(crate) struct Opening {
    /// Bytes that may be on their way before the first acknowledgement.
    pub window: u64,
}

impl ControllerFactory for Opening {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let mut config = CubicConfig::default();
        config.initial_window(self.window);
        let cubic = Cubic::new(Arc::new(config), now, mtu);
        Box::new(Closable { cubic, closing: Arc::default() })
    }
}

/// CUBIC (RFC 9438) until the connection is to close.
#[derive(Clone)]
struct Closable {
    cubic: Cubic,
    /// Shared by the copies that the transport hands out.
    closing: Arc<AtomicBool>,
}

impl Controller for Closable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.cubic.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.closing.load(Ordering::Relaxed) { u64::MAX } else { self.cubic.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
