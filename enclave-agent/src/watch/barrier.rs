//! The end of a workspace's network: an interface whose other side is the agent.
//!
//! A workspace has a network namespace of its own. Every route in it but loopback leads to a TUN
//! interface (Linux, `Documentation/networking/tuntap.rst`) that the agent reads. A packet that
//! arrives is by that a packet that should not exist: it is noted, answered with an error so that
//! its sender need not wait, and goes no further. There is nothing to forward it: the descriptor is
//! the only other end, and no rule of a packet filter can be missing.
//!
//! A flood costs a bounded share of a processor: so many packets are read in a while, the queue of
//! the interface drops the rest, and its own counter says how many those were.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::address::{OWN_V4, OWN_V6};
use super::senders::Sockets;
use super::{Watcher, packets, refusal};

/// The interface's name in the workspace.
const NAME: &str = "barrier0";
/// The longest packet the interface takes.
const MTU: usize = 1500;
/// Packets that are read and answered in one [`PAUSE`].
const PACKETS: u32 = 256;
/// How long the queue is left alone after so many.
const PAUSE: Duration = Duration::from_millis(50);
/// Senders that are looked for at once, in one workspace.
const SEARCHES: usize = 2;

/// The agent's side of a workspace's interface.
#[derive(Debug)]
pub struct Barrier {
    tun: AsyncFd<OwnedFd>,
    /// The same, for answers that are given from elsewhere.
    answers: Arc<OwnedFd>,
    counters: Counters,
    sockets: Arc<Sockets>,
    searches: Arc<Semaphore>,
}

/// A barrier that nobody guards yet.
#[derive(Debug)]
pub struct Raised {
    tun: OwnedFd,
    counters: Counters,
    sockets: Sockets,
}

impl Barrier {
    /// Puts the interface into the network namespace of process `pid`. Blocks for a moment; needs
    /// root and `/dev/net/tun`.
    pub fn raise(pid: i32) -> io::Result<Raised> {
        // A thread changes its namespace and ends; no other work ever runs there.
        let raising = std::thread::Builder::new().name("barrier".to_owned()).spawn(move || {
            let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            let tun = make()?;
            configure()?;
            let mut counters = Counters { file: File::open("/proc/thread-self/net/dev")?, dropped: 0 };
            // What the kernel itself sent while the interface came up.
            counters.more_dropped();
            Ok(Raised { tun, counters, sockets: Sockets::here()? })
        })?;
        raising.join().unwrap_or_else(|_| Err(io::Error::other("the thread that raised the barrier died")))
    }

    /// Takes the agent's side over. Call it inside the runtime that is to read.
    pub fn new(Raised { tun, counters, sockets }: Raised) -> io::Result<Barrier> {
        let flags = OFlag::from_bits_retain(fcntl(&tun, FcntlArg::F_GETFL)?);
        fcntl(&tun, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let answers = Arc::new(tun.try_clone()?);
        let searches = Arc::new(Semaphore::new(SEARCHES));
        let tun = crate::descriptors::register(tun)?;
        Ok(Barrier { tun, answers, counters, sockets: Arc::new(sockets), searches })
    }

    /// Notes and answers packets until the interface is gone.
    pub async fn guard(mut self, watcher: Arc<Watcher>) {
        let mut buffer = vec![0; MTU + 4];
        let mut read = 0;
        loop {
            let Ok(mut ready) = self.tun.readable().await else { return };
            while read < PACKETS {
                match ready
                    .try_io(|tun| nix::unistd::read(tun.get_ref(), &mut buffer).map_err(io::Error::from))
                {
                    Ok(Ok(0)) => return,
                    Ok(Ok(length)) => {
                        read += 1;
                        self.take(&buffer[..length], &watcher);
                    }
                    Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "the barrier of a workspace is gone");
                        return;
                    }
                    Err(_would_block) => break,
                }
            }
            drop(ready);
            if read >= PACKETS {
                tokio::time::sleep(PAUSE).await;
                read = 0;
                watcher.packets_lost(self.counters.more_dropped());
            }
        }
    }

    fn take(&self, bytes: &[u8], watcher: &Arc<Watcher>) {
        let Some(packet) = packets::parse(bytes) else { return watcher.packets_lost(1) };
        if packet.is_of_the_kernel() {
            return;
        }
        let unknown = watcher.packet(&packet, bytes.len(), Instant::now());
        let answer = refusal::answer(&packet, bytes);
        if !unknown {
            return give(&self.answers, answer);
        }
        let Ok(turn) = self.searches.clone().try_acquire_owned() else {
            watcher.sent(&packet, None);
            return give(&self.answers, answer);
        };
        let (sockets, watcher, answers) = (self.sockets.clone(), watcher.clone(), self.answers.clone());
        tokio::task::spawn_blocking(move || {
            let sender = sockets.sender(&packet);
            watcher.sent(&packet, sender);
            // Only now: a socket that was refused is soon closed.
            give(&answers, answer);
            drop(turn);
        });
    }
}

fn give(to: &OwnedFd, answer: Option<Vec<u8>>) {
    // A full queue only means that the sender waits for its own time-out.
    let _ = answer.map(|answer| nix::unistd::write(to, &answer));
}

/// What the interface counts by itself.
#[derive(Debug)]
pub struct Counters {
    file: File,
    dropped: u64,
}

impl Counters {
    /// How many packets its queue has dropped since this was last asked.
    fn more_dropped(&mut self) -> u64 {
        let mut text = String::new();
        let read = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.read_to_string(&mut text));
        let now = read.ok().and_then(|_| dropped(&text)).unwrap_or(self.dropped);
        let more = now.saturating_sub(self.dropped);
        self.dropped = now;
        more
    }
}

/// The number of packets that were not transmitted, from `/proc/net/dev` (proc(5)).
fn dropped(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(NAME)?.strip_prefix(':'))?;
    // Eight columns of what was received come first: bytes, packets, errors, drops, …
    line.split_whitespace().nth(11)?.parse().ok()
}

/// Makes the interface in this thread's namespace.
fn make() -> io::Result<OwnedFd> {
    let tun = open(Path::new("/dev/net/tun"), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut request = request();
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the pointer is to an `ifreq` that lives through the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw const request) })?;
    Ok(tun)
}

/// Gives the interface its addresses and the routes to everywhere.
fn configure() -> io::Result<()> {
    let v4 = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let ask = |call: libc::Ioctl, request: &libc::ifreq| {
        // SAFETY: the pointer is to an `ifreq` that lives through the call.
        check(unsafe { libc::ioctl(v4.as_raw_fd(), call, std::ptr::from_ref(request)) })
    };
    let mut request = request();
    request.ifr_ifru.ifru_addr = sockaddr(OWN_V4);
    ask(libc::SIOCSIFADDR as libc::Ioctl, &request)?;
    request.ifr_ifru.ifru_netmask = sockaddr(Ipv4Addr::BROADCAST);
    ask(libc::SIOCSIFNETMASK as libc::Ioctl, &request)?;
    // The kernel is to send nothing of its own.
    for (key, value) in
        [("addr_gen_mode", "1"), ("accept_dad", "0"), ("accept_ra", "0"), ("router_solicitations", "0")]
    {
        let path = format!("/proc/sys/net/ipv6/conf/{NAME}/{key}");
        if Path::new(&path).exists() {
            std::fs::write(path, value)?;
        }
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ask(libc::SIOCSIFFLAGS as libc::Ioctl, &request)?;
    let mut name = device_name();
    let route = Route { dev: name.as_mut_ptr(), ..Route::to_everywhere() };
    // SAFETY: the pointer is to a route of the kernel's form, and in it one to a name with an end; both
    // live through the call.
    check(unsafe { libc::ioctl(v4.as_raw_fd(), libc::SIOCADDRT as libc::Ioctl, &raw const route) })?;
    configure_v6(&v4)
}

/// The same by IPv6, where the kernel has it.
fn configure_v6(any: &OwnedFd) -> io::Result<()> {
    let Ok(v6) = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) else {
        return Ok(());
    };
    let mut request = request();
    // SAFETY: the pointer is to an `ifreq` that lives through the call.
    check(unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCGIFINDEX as libc::Ioctl, &raw mut request) })?;
    // SAFETY: the call has just filled in this field.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    let address = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: OWN_V6.octets() },
        ifr6_prefixlen: 128,
        ifr6_ifindex: index,
    };
    // SAFETY: the pointer is to an `in6_ifreq` that lives through the call.
    check(unsafe { libc::ioctl(v6.as_raw_fd(), libc::SIOCSIFADDR as libc::Ioctl, &raw const address) })?;
    let any = libc::in6_addr { s6_addr: [0; 16] };
    let route = RouteV6 {
        destination: any,
        source: any,
        gateway: any,
        kind: 0,
        destination_length: 0,
        source_length: 0,
        metric: 1,
        info: 0,
        flags: u32::from(libc::RTF_UP),
        index,
    };
    // SAFETY: the pointer is to a route of the kernel's form that lives through the call.
    check(unsafe { libc::ioctl(v6.as_raw_fd(), libc::SIOCADDRT as libc::Ioctl, &raw const route) })
}

/// `struct rtentry` of `linux/route.h`.
#[repr(C)]
struct Route {
    pad1: libc::c_ulong,
    destination: libc::sockaddr,
    gateway: libc::sockaddr,
    mask: libc::sockaddr,
    flags: libc::c_ushort,
    pad2: libc::c_short,
    pad3: libc::c_ulong,
    pad4: *mut libc::c_void,
    metric: libc::c_short,
    dev: *mut libc::c_char,
    mtu: libc::c_ulong,
    window: libc::c_ulong,
    round_trip: libc::c_ushort,
}

/// `struct in6_rtmsg` of `linux/ipv6_route.h`.
#[repr(C)]
struct RouteV6 {
    destination: libc::in6_addr,
    source: libc::in6_addr,
    gateway: libc::in6_addr,
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: libc::c_int,
}

impl Route {
    fn to_everywhere() -> Route {
        let any = sockaddr(Ipv4Addr::UNSPECIFIED);
        Route {
            pad1: 0,
            destination: any,
            gateway: any,
            mask: any,
            flags: libc::RTF_UP,
            pad2: 0,
            pad3: 0,
            pad4: std::ptr::null_mut(),
            metric: 0,
            dev: std::ptr::null_mut(),
            mtu: 0,
            window: 0,
            round_trip: 0,
        }
    }
}

/// The interface's name with its end.
fn device_name() -> [libc::c_char; libc::IFNAMSIZ] {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(NAME.bytes()) {
        *to = from as libc::c_char;
    }
    name
}

/// A request about the interface.
fn request() -> libc::ifreq {
    // SAFETY: an `ifreq` of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = device_name();
    request
}

/// An IPv4 address in the form that old calls take: port, address, zeros.
fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_kernels_table() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                    lo:     100       1    0    9    0     0          0         0      100       1    0    8    0     0       0          0\n\
                    barrier0:     0       0    0    0    0     0          0         0     4200      70    0   31    0     0       0          0\n";
        assert_eq!(dropped(text), Some(31));
        assert_eq!(dropped("lo: 1 2 3"), None);
    }
}
