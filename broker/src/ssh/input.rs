//! What a client sends into one session, on its way to the workspace.
//!
//! The SSH machine must never wait for the workspace: while it waits it processes neither the
//! client's window adjustments nor output, and `cat` with a large input would stand still for ever.
//! So input is taken into a bounded buffer at once. The machine re-opens the client's window as
//! soon as data arrives, not when the workspace has taken it; what bounds the buffer is therefore
//! [`Flow`]: once it holds [`HIGH`] bytes the window is re-opened by [`NARROW`] bytes at a time, until
//! the workspace has caught up. A client that ignores its window runs into [`MOST`] and is cut off.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use wire::message::WindowSize;

/// The client's window when the workspace keeps up, in bytes.
pub(crate) const WIDE: u32 = 4 << 20;
/// The client's window when it does not, in bytes. (One byte would never be re-opened.)
pub(crate) const NARROW: u32 = 2;
/// From how many held bytes on the window is narrow.
pub(crate) const HIGH: usize = 1 << 20;
/// The most bytes held for one session. A client that respects its window reaches [`HIGH`] plus
/// [`WIDE`], and then trickles.
pub(crate) const MOST: usize = 2 * (HIGH + WIDE as usize);
/// The largest piece handed on at once.
const PIECE: usize = 64 << 10;
/// Room for small pieces to gather in.
const GATHER: usize = 4 << 10;
/// Signals waiting at once; more are dropped.
const SIGNALS: usize = 16;

/// How the client's window is to be re-opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The workspace keeps up.
    Wide,
    /// It does not: slow the client down.
    Narrow,
    /// The client ignores its window: end it.
    Flooded,
}

/// One thing for the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Bytes for standard input.
    Data(Bytes),
    /// Standard input ends.
    Eof,
    /// The terminal changed its size.
    Resize(WindowSize),
    /// A signal for the command.
    Signal(String),
    /// The client closed the channel, or is gone.
    Closed,
}

/// The buffer between the SSH machine and the workspace.
#[derive(Debug, Default)]
pub(crate) struct InputBuffer {
    held: Mutex<Held>,
    changed: Notify,
    closing: tokio_util::sync::CancellationToken,
}

#[derive(Debug, Default)]
struct Held {
    pieces: VecDeque<BytesMut>,
    bytes: usize,
    eof: Option<Eof>,
    resize: Option<WindowSize>,
    /// A size that came before anything ran.
    early: Option<WindowSize>,
    signals: VecDeque<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Eof {
    Pending,
    Told,
}

impl InputBuffer {
    /// Takes bytes from the client; never waits.
    pub(crate) fn push(&self, data: &[u8]) -> Flow {
        let mut held = self.held();
        if held.bytes + data.len() > MOST {
            return Flow::Flooded;
        }
        if held.eof.is_none() {
            held.bytes += data.len();
            match held.pieces.back_mut() {
                Some(last) if last.capacity() - last.len() >= data.len() => last.extend_from_slice(data),
                _ => {
                    let mut piece = BytesMut::with_capacity(data.len().max(GATHER));
                    piece.extend_from_slice(data);
                    held.pieces.push_back(piece);
                }
            }
        }
        let flow = held.flow();
        drop(held);
        self.changed.notify_one();
        flow
    }

    /// How the client's window is to be re-opened now.
    pub(crate) fn flow(&self) -> Flow {
        self.held().flow()
    }

    /// The client sends no more.
    pub(crate) fn eof(&self) {
        self.held().eof.get_or_insert(Eof::Pending);
        self.changed.notify_one();
    }

    /// The terminal has another size. Only the last size matters.
    pub(crate) fn resize(&self, size: WindowSize) {
        self.held().resize = Some(size);
        self.changed.notify_one();
    }

    /// Keeps a size that came too early, unless a later one is there.
    pub(crate) fn resize_later(&self, size: WindowSize) {
        self.held().early.get_or_insert(size);
    }

    /// What was taken too much of comes first again.
    pub(crate) fn put_back(&self, data: Bytes) {
        let mut held = self.held();
        if !data.is_empty() {
            held.bytes += data.len();
            held.pieces.push_front(BytesMut::from(&data[..]));
        }
        if let Some(size) = held.early.take() {
            held.resize.get_or_insert(size);
        }
        drop(held);
        self.changed.notify_one();
    }

    /// Keeps a signal; `false` if too many wait already.
    pub(crate) fn signal(&self, name: &str) -> bool {
        let mut held = self.held();
        let room = held.signals.len() < SIGNALS;
        if room {
            held.signals.push_back(name.to_owned());
        }
        drop(held);
        self.changed.notify_one();
        room
    }

    /// The client is gone; whoever waits learns it at once.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Whether the client is gone, or the session over.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Waits until the client is gone.
    pub(crate) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// The next thing for the workspace. Loses nothing when it is dropped while waiting.
    pub(crate) async fn next(&self) -> Input {
        loop {
            if self.closing.is_cancelled() {
                return Input::Closed;
            }
            if let Some(input) = self.held().take() {
                return input;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn flow(&self) -> Flow {
        if self.bytes > HIGH { Flow::Narrow } else { Flow::Wide }
    }

    fn take(&mut self) -> Option<Input> {
        // Signals and sizes overtake data: an interrupt must not wait for what it interrupts.
        if let Some(name) = self.signals.pop_front() {
            return Some(Input::Signal(name));
        }
        if let Some(size) = self.resize.take() {
            return Some(Input::Resize(size));
        }
        if let Some(first) = self.pieces.front_mut() {
            let piece = first.split_to(first.len().min(PIECE)).freeze();
            if first.is_empty() {
                self.pieces.pop_front();
            }
            self.bytes -= piece.len();
            return Some(Input::Data(piece));
        }
        if self.eof == Some(Eof::Pending) {
            self.eof = Some(Eof::Told);
            return Some(Input::Eof);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_comes_out_once_and_in_order(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9_000), 0..40),
            take_every in 1usize..5,
        ) {
            let buffer = InputBuffer::default();
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            let drain = |got: &mut Vec<u8>| {
                if let Some(Input::Data(data)) = buffer.held().take() {
                    assert!(data.len() <= PIECE && !data.is_empty());
                    got.extend_from_slice(&data);
                }
            };
            for (i, piece) in pieces.iter().enumerate() {
                buffer.push(piece);
                sent.extend_from_slice(piece);
                if i % take_every == 0 {
                    drain(&mut got);
                }
            }
            while buffer.held().bytes > 0 {
                drain(&mut got);
            }
            prop_assert_eq!(sent, got);
        }
    }

    #[tokio::test]
    async fn the_window_narrows_and_widens_with_what_is_held() {
        let buffer = InputBuffer::default();
        assert_eq!(buffer.push(&vec![0; HIGH]), Flow::Wide);
        assert_eq!(buffer.push(b"x"), Flow::Narrow);
        while buffer.flow() == Flow::Narrow {
            assert!(matches!(buffer.next().await, Input::Data(_)));
        }
        assert_eq!(buffer.flow(), Flow::Wide);
    }

    #[test]
    fn who_ignores_the_window_is_found_out_before_memory_is() {
        let buffer = InputBuffer::default();
        let packet = vec![0; 32 << 10];
        let taken = (0..).take_while(|_| buffer.push(&packet) != Flow::Flooded).count() * packet.len();
        assert!(taken <= MOST, "{taken}");
        assert!(buffer.held().bytes <= MOST);
    }

    #[tokio::test]
    async fn an_interrupt_overtakes_data_and_eof_comes_last_and_once() {
        let buffer = InputBuffer::default();
        buffer.push(b"typed");
        buffer.eof();
        assert!(buffer.signal("INT"));
        assert_eq!(buffer.next().await, Input::Signal("INT".to_owned()));
        assert_eq!(buffer.next().await, Input::Data(Bytes::from_static(b"typed")));
        assert_eq!(buffer.next().await, Input::Eof);
        buffer.push(b"after the end");
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), buffer.next()).await.is_err());
        buffer.close();
        assert_eq!(buffer.next().await, Input::Closed);
    }
}
