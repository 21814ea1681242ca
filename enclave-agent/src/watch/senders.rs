//! Who sent a packet: whoever asked for a connection to there just before, or whoever has the socket
//! open from which it came.
//!
//! Neither is always there: a datagram's sender may be gone before anybody looks, and what is looked
//! at takes a bounded share of the machine. Then it is said that the sender is not known.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::observed::{Attribution, NetworkFamily, Transport};

use super::address::Address;
use super::packets::{Packet, Sender};
use super::processes::{self, Actor};

/// How long after it was asked for a packet may belong to a connection. The kernel sends at once.
const WINDOW: Duration = Duration::from_secs(2);
/// Connections that are remembered for that.
const ANNOUNCED: usize = 128;
/// Bytes of a table of sockets that are read.
const TABLE_MAX: u64 = 1 << 20;
/// Processes of the host, and descriptors of one of them, that are looked at for one packet.
const PROCESSES_MAX: usize = 8192;
const DESCRIPTORS_MAX: usize = 1024;

/// Connections that processes of one workspace asked for a moment ago.
#[derive(Debug, Default)]
pub struct Announced(VecDeque<Announcement>);

#[derive(Debug)]
struct Announcement {
    by: Actor,
    mark: Option<u32>,
    protocol: Transport,
    to: (IpAddr, Option<u16>),
    at: Instant,
}

impl Announced {
    /// Takes note of an attempt to connect, before the kernel is let to send.
    pub fn note(&mut self, by: &Actor, mark: Option<u32>, to: &Address, protocol: Transport, at: Instant) {
        let ip = matches!(to.family, NetworkFamily::Inet | NetworkFamily::Inet6);
        let Some(address) = to.name.parse::<IpAddr>().ok().filter(|_| ip) else { return };
        if self.0.len() >= ANNOUNCED {
            self.0.pop_front();
        }
        self.0.push_back(Announcement {
            by: by.clone(),
            mark,
            protocol,
            to: (address.to_canonical(), to.port),
            at,
        });
    }

    /// Who asked for the connection that a packet begins. A stream begins once: what is taken for it
    /// is forgotten.
    pub fn take(&mut self, packet: &Packet, now: Instant) -> Option<Sender> {
        while self.0.front().is_some_and(|first| now.saturating_duration_since(first.at) > WINDOW) {
            self.0.pop_front();
        }
        let to = (packet.destination.to_canonical(), packet.destination_port);
        let fits = |known: &Announcement| {
            known.to == to && (known.protocol == packet.protocol || known.protocol == Transport::Other)
        };
        let found = self.0.iter().rposition(fits)?;
        let known = &self.0[found];
        let sender = Sender { by: known.by.clone(), mark: known.mark, how: Attribution::Attempt };
        if matches!(packet.protocol, Transport::Tcp | Transport::Sctp) {
            self.0.remove(found);
        }
        Some(sender)
    }
}

/// The sockets of a workspace's network, and the processes that may have them open.
#[derive(Debug)]
pub struct Sockets {
    tables: Mutex<Vec<(Transport, File)>>,
    /// The number of the network namespace.
    namespace: u64,
}

impl Sockets {
    /// Those of the network namespace that the calling thread is in. They can be read from anywhere.
    pub fn here() -> io::Result<Sockets> {
        let mut tables = Vec::new();
        for (name, protocol) in [
            ("tcp", Transport::Tcp),
            ("tcp6", Transport::Tcp),
            ("udp", Transport::Udp),
            ("udp6", Transport::Udp),
        ] {
            // A kernel without IPv6 has no tables of it.
            match File::open(format!("/proc/thread-self/net/{name}")) {
                Ok(table) => tables.push((protocol, table)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        Ok(Sockets { tables: Mutex::new(tables), namespace })
    }

    /// The process that has the socket open from which a packet came. Blocks for some milliseconds.
    pub fn sender(&self, packet: &Packet) -> Option<Sender> {
        let inode = self.inode(packet)?;
        let (by, status) = processes::actor(holder(self.namespace, inode)?)?;
        Some(Sender { by, mark: status.mark, how: Attribution::Socket })
    }

    fn inode(&self, packet: &Packet) -> Option<u64> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter_mut().filter(|(protocol, _)| *protocol == packet.protocol).find_map(|(_, table)| {
            let mut text = String::new();
            table.seek(SeekFrom::Start(0)).ok()?;
            table.take(TABLE_MAX).read_to_string(&mut text).ok()?;
            inode(&text, packet)
        })
    }
}

/// The inode of the socket from which a packet came, by the table of its protocol (`/proc/net/tcp`,
/// `/proc/net/udp` and their like, proc_pid_net(5)). One that is connected to where the packet goes is
/// preferred to one that is connected to nothing.
pub fn inode(table: &str, packet: &Packet) -> Option<u64> {
    let (port, to) = (packet.source_port?, (packet.destination.to_canonical(), packet.destination_port?));
    let mut unconnected = None;
    for line in table.lines().skip(1) {
        let mut columns = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(inode)) = (columns.next(), columns.next(), columns.nth(6))
        else {
            continue;
        };
        let (Some(local), Some(remote)) = (socket_address(local), socket_address(remote)) else { continue };
        let Some(inode) = inode.parse::<u64>().ok().filter(|inode| *inode != 0) else { continue };
        if local.1 != port {
            continue;
        }
        if remote == to {
            return Some(inode);
        }
        if remote.1 == 0 && remote.0.is_unspecified() {
            unconnected = unconnected.or(Some(inode));
        }
    }
    unconnected
}

/// An address and a port as the kernel prints them: words of 32 bits in its own order, the port plain.
fn socket_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for at in 0..4 {
                octets[4 * at..4 * at + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::from(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some((ip.to_canonical(), port))
}

/// The process in a network namespace that has a socket open.
fn holder(namespace: u64, socket: u64) -> Option<u32> {
    let socket = format!("socket:[{socket}]");
    let processes = fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut inside =
        pids.filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns.ino() == namespace));
    inside.find(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.take(DESCRIPTORS_MAX)
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::address;
    use super::*;

    fn packet(protocol: Transport, from: u16, to: (IpAddr, u16)) -> Packet {
        Packet {
            protocol,
            source: "192.0.0.8".parse().unwrap(),
            source_port: Some(from),
            destination: to.0,
            destination_port: Some(to.1),
            payload: 20,
            fragment: false,
            first: None,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_packet_is_of_whoever_asked_for_the_connection_just_before() {
        let (mut announced, start) = (Announced::default(), Instant::now());
        let by = |pid| Actor { pid, uid: 1000, program: Some("/usr/bin/curl".to_owned()) };
        let web = address::parse(&[2, 0, 1, 187, 203, 0, 113, 9]).unwrap();
        announced.note(&by(7), Some(3), &web, Transport::Tcp, start);
        announced.note(&by(8), None, &web, Transport::Udp, start);
        let to = (ip("203.0.113.9"), 443);
        let tcp = packet(Transport::Tcp, 40_000, to);
        let pid = |sender: Option<Sender>| sender.map(|sender| (sender.by.pid, sender.mark));
        assert_eq!(pid(announced.take(&packet(Transport::Tcp, 1, (to.0, 80)), start)), None);
        assert_eq!(pid(announced.take(&tcp, start)), Some((7, Some(3))));
        assert_eq!(pid(announced.take(&tcp, start)), None, "a connection begins once");
        let udp = packet(Transport::Udp, 40_000, to);
        assert_eq!(pid(announced.take(&udp, start)), Some((8, None)));
        assert_eq!(pid(announced.take(&udp, start + WINDOW)), Some((8, None)));
        assert_eq!(pid(announced.take(&udp, start + WINDOW * 2)), None, "long ago");
        // The last of several, and of unix sockets none.
        let unix = address::parse(b"\x01\x00/tmp/x").unwrap();
        for pid in 0..1000 {
            announced.note(&by(pid), None, &web, Transport::Tcp, start);
            announced.note(&by(pid), None, &unix, Transport::Stream, start);
        }
        assert_eq!(announced.0.len(), ANNOUNCED);
        assert_eq!(pid(announced.take(&tcp, start)), Some((999, None)));
    }

    #[test]
    fn a_socket_is_found_in_the_kernels_table() {
        // As a little-endian machine prints them.
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \x20 1: 00000000:9C40 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 11 2 x 0\n\
             \x20 2: 080000C0:9C40 0971 00CB:01BB junk\n\
             \x20 3: 080000C0:9C40 097100CB:01BB 01 00000000:00000000 00:00000000 00000000  1000        0 22 2 x 0\n\
             \x20 4: 080000C0:9C41 097100CB:01BB 01 00000000:00000000 00:00000000 00000000  1000        0 0 2 x 0\n";
        let at = |port, to| inode(table, &packet(Transport::Udp, port, (ip(to), 443)));
        if cfg!(target_endian = "little") {
            assert_eq!(at(40_000, "203.0.113.9"), Some(22), "what is connected to there comes first");
            assert_eq!(
                socket_address("0000000000000000FFFF0000097100CB:01BB"),
                Some((ip("203.0.113.9"), 443))
            );
        }
        assert_eq!(at(40_000, "203.0.113.8"), Some(11));
        assert_eq!((at(40_001, "203.0.113.9"), at(40_002, "203.0.113.9")), (None, None));
        let six = format!("head\n0: {0}:9C40 {0}:0000 07 0 0 0 1000 0 33 x\n", "0".repeat(32));
        assert_eq!(inode(&six, &packet(Transport::Udp, 40_000, (ip("2001:db8::9"), 53))), Some(33));
        for wrong in ["", "0: 1 2 3 4 5 6 7 8 9", "00000000:9C40", "0: ::::"] {
            assert_eq!(
                inode(&format!("head\n{wrong}"), &packet(Transport::Udp, 40_000, (ip("1.2.3.4"), 5))),
                None
            );
        }
    }

    #[test]
    fn ones_own_socket_is_found_and_its_holder_named() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = packet(Transport::Udp, socket.local_addr().unwrap().port(), (ip("203.0.113.9"), 53));
        let sockets = Sockets::here().unwrap();
        let sender = sockets.sender(&from).unwrap();
        assert_eq!((sender.by.pid, sender.how), (std::process::id(), Attribution::Socket));
        drop(socket);
        assert_eq!(sockets.sender(&from), None);
    }
}
