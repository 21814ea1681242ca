//! The UDP socket below a link: deep enough that a burst is not dropped, and as many packets to a system
//! call as the kernel takes, whatever their size.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use nix::sys::socket::{setsockopt, sockopt};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

/// Bytes that may wait in the kernel, each way. The kernel gives an unprivileged process at most
/// `net.core.rmem_max` and `wmem_max`, which as Debian has them (208 KiB) hold three bursts: what comes
/// beyond is lost and sent again.
const BUFFER: usize = 4 << 20;
/// The most that one segmented send may measure, headers of IP and UDP left room for (udp(7),
/// `UDP_SEGMENT`): the kernel refuses, or drops, what is more than 64 KiB together.
const SEND_MAX: usize = 65_000;
/// The most segments that Linux takes in one send (`UDP_MAX_SEGMENTS`).
const SEGMENTS_MAX: usize = 64;

/// Binds a socket and makes it fit for a link.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let socket = UdpSocket::bind(addr)?;
    // With privileges beyond the host's bounds, otherwise up to them.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &BUFFER).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &BUFFER)?;
    }
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    Ok(Arc::new(Segmented { inner, segment: AtomicUsize::new(0) }))
}

/// A socket that says how many packets of the present size one send may hold. The transport below us
/// asks for a number alone, and ten large packets are more than a send may measure.
#[derive(Debug)]
struct Segmented {
    inner: Arc<dyn AsyncUdpSocket>,
    /// Bytes of a packet in the last send of several.
    segment: AtomicUsize,
}

impl AsyncUdpSocket for Segmented {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(size) = transmit.segment_size else { return self.inner.try_send(transmit) };
        self.segment.store(size, Ordering::Relaxed);
        if transmit.contents.len() <= SEND_MAX {
            return self.inner.try_send(transmit);
        }
        // It was put together when packets were smaller, or is two of the largest. Should the socket take
        // only a part of it, all of it is sent again: a packet that comes twice is taken once (RFC 9000,
        // 12.3).
        for contents in transmit.contents.chunks(fitting(size) * size) {
            let segment_size = (contents.len() > size).then_some(size);
            self.inner.try_send(&Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn,
                contents,
                segment_size,
                src_ip: transmit.src_ip,
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        // Two at the least, which are sent one by one if they must be: a lone packet does not say what
        // others measure, so that of packets which became smaller nothing would be heard.
        let fitting = fitting(self.segment.load(Ordering::Relaxed)).max(2);
        self.inner.max_transmit_segments().min(fitting)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// How many packets of a size one send may hold.
fn fitting(size: usize) -> usize {
    SEND_MAX.checked_div(size).unwrap_or(SEGMENTS_MAX).clamp(1, SEGMENTS_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Kernel {
        sent: Mutex<Vec<(usize, Option<usize>)>>,
    }

    impl AsyncUdpSocket for Kernel {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nobody waits here")
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            assert!(transmit.contents.len() <= SEND_MAX, "the kernel drops it");
            self.sent.lock().unwrap().push((transmit.contents.len(), transmit.segment_size));
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 0).into())
        }

        fn max_transmit_segments(&self) -> usize {
            SEGMENTS_MAX
        }
    }

    fn send(socket: &Segmented, packets: usize, size: usize, last: usize) {
        let contents = vec![0; (packets - 1) * size + last];
        let segment_size = (packets > 1).then_some(size);
        let destination = ([127, 0, 0, 1], 9).into();
        let transmit = Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None };
        socket.try_send(&transmit).unwrap();
    }

    #[test]
    fn no_send_is_larger_than_the_kernel_takes_and_none_smaller_than_it_must_be() {
        let kernel = Arc::new(Kernel::default());
        let socket = Segmented { inner: kernel.clone(), segment: AtomicUsize::new(0) };
        assert_eq!(socket.max_transmit_segments(), 64);
        send(&socket, 10, 1_200, 7);
        assert_eq!(socket.max_transmit_segments(), 54);
        // The path turned out to carry more; the transport hears of it with the next send.
        send(&socket, 10, 16_000, 500);
        assert_eq!(socket.max_transmit_segments(), 4);
        send(&socket, 4, 16_000, 16_000);
        // A probe or an acknowledgement says nothing of the others.
        send(&socket, 1, 0, 40);
        assert_eq!(socket.max_transmit_segments(), 4);
        send(&socket, 9, 16_000, 1);
        // Of the largest a send holds one, and that they are smaller again is heard of.
        send(&socket, 2, 40_000, 39_000);
        assert_eq!(socket.max_transmit_segments(), 2);
        send(&socket, 2, 1_200, 1_200);
        assert_eq!(socket.max_transmit_segments(), 54);
        let sent = kernel.sent.lock().unwrap();
        let large = Some(16_000);
        assert_eq!(
            *sent,
            [
                (9 * 1_200 + 7, Some(1_200)),
                (64_000, large),
                (64_000, large),
                (16_500, large),
                (64_000, large),
                (40, None),
                (64_000, large),
                (64_000, large),
                (1, None),
                (40_000, None),
                (39_000, None),
                (2_400, Some(1_200)),
            ]
        );
    }
}
