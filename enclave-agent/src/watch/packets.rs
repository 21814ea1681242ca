//! Packets that should not exist: what they are, and how many of each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use model::observed::{Attribution, Observation, Packets, Transport};

use super::processes::Actor;

/// Destinations that are told apart at once; packets to further ones are only counted.
const FLOWS: usize = 64;
/// How long more packets of a flow are counted before they are told.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a flow waits to be told while its sender is looked for.
const SOUGHT: Duration = Duration::from_secs(1);
/// Extension headers of IPv6 that are looked past (RFC 8200, section 4).
const EXTENSIONS: usize = 8;

/// What the head of a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The protocol.
    pub protocol: Transport,
    /// From where.
    pub source: IpAddr,
    /// From which port; none where there are no ports, or they are not in this fragment.
    pub source_port: Option<u16>,
    /// Where to.
    pub destination: IpAddr,
    /// To which port.
    pub destination_port: Option<u16>,
    /// Where the payload of IP begins.
    pub payload: usize,
    /// Whether it is a fragment other than the first.
    pub fragment: bool,
    /// The first byte of the payload, which is the type where the protocol is ICMP.
    pub first: Option<u8>,
}

/// Who sent a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The process.
    pub by: Actor,
    /// The mark of its session.
    pub mark: Option<u32>,
    /// How it is known.
    pub how: Attribution,
}

/// Reads the head of an IP packet (RFC 791, RFC 8200); none if it is no such thing.
pub fn parse(bytes: &[u8]) -> Option<Packet> {
    match bytes.first()? >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        _ => None,
    }
}

fn parse_v4(bytes: &[u8]) -> Option<Packet> {
    let head = bytes.get(..20)?;
    let payload = usize::from(head[0] & 0x0f) * 4;
    if payload < 20 || bytes.len() < payload {
        return None;
    }
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0;
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]));
    Some(finish(bytes, head[9], address(12), address(16), payload, fragment))
}

fn parse_v6(bytes: &[u8]) -> Option<Packet> {
    let head: &[u8; 40] = bytes.get(..40)?.try_into().ok()?;
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&head[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (mut next, mut payload, mut fragment) = (head[6], 40, false);
    for _ in 0..EXTENSIONS {
        let length = match (next, bytes.get(payload..payload + 8)) {
            // Hop-by-hop options, routing, destination options.
            (0 | 43 | 60, Some(extension)) => 8 * (usize::from(extension[1]) + 1),
            (44, Some(extension)) => {
                fragment |= u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0;
                8
            }
            _ => break,
        };
        next = bytes[payload];
        payload += length;
    }
    Some(finish(bytes, next, address(8), address(24), payload.min(bytes.len()), fragment))
}

fn finish(
    bytes: &[u8],
    number: u8,
    source: IpAddr,
    destination: IpAddr,
    payload: usize,
    fragment: bool,
) -> Packet {
    let protocol = match number {
        1 => Transport::Icmp,
        6 => Transport::Tcp,
        17 => Transport::Udp,
        58 => Transport::Icmp6,
        132 => Transport::Sctp,
        _ => Transport::Other,
    };
    let there = if fragment { &[] } else { &bytes[payload..] };
    let port = |at: usize| {
        let has = matches!(protocol, Transport::Tcp | Transport::Udp | Transport::Sctp);
        there.get(at..at + 2).filter(|_| has).map(|two| u16::from_be_bytes([two[0], two[1]]))
    };
    Packet {
        protocol,
        source,
        source_port: port(0),
        destination,
        destination_port: port(2),
        payload,
        fragment,
        first: there.first().copied(),
    }
}

impl Packet {
    /// Whether the kernel sends it by itself when an interface comes up or a group is joined:
    /// neighbour discovery (RFC 4861) and multicast listener reports (RFC 2710, RFC 3810), to
    /// link-local groups. No process of a workspace can: that takes a raw socket.
    pub fn is_of_the_kernel(&self) -> bool {
        let IpAddr::V6(to) = self.destination else { return false };
        let link_local_group = to.segments()[0] == 0xff02;
        link_local_group
            && self.protocol == Transport::Icmp6
            && matches!(self.first, Some(130..=132 | 133..=137 | 143))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    protocol: Transport,
    destination: IpAddr,
    port: Option<u16>,
}

#[derive(Debug)]
struct Seen {
    source: IpAddr,
    source_port: Option<u16>,
    /// Not told yet.
    count: u64,
    bytes: u64,
    told: Option<Instant>,
    last: Instant,
    /// Who sent the first packet that is not told yet.
    sender: Option<Sender>,
    /// Since when that is being found out.
    sought: Option<Instant>,
}

impl Flow {
    fn of(packet: &Packet) -> Flow {
        Flow { protocol: packet.protocol, destination: packet.destination, port: packet.destination_port }
    }
}

/// The packets of one workspace, by where they were to go.
#[derive(Debug, Default)]
pub struct Flows {
    flows: BTreeMap<Flow, Seen>,
    others: u64,
}

impl Flows {
    /// Counts a packet of so many bytes; `announced` is who asked for a connection to there just
    /// before. Says whether its sender is to be looked for, and given to [`Flows::sent`]: it is the
    /// first of those that are not told yet, and an announcement is certain of a stream alone.
    pub fn note(&mut self, packet: &Packet, bytes: usize, announced: Option<Sender>, now: Instant) -> bool {
        let flow = Flow::of(packet);
        if !self.flows.contains_key(&flow) && self.flows.len() >= FLOWS {
            self.others += 1;
            return false;
        }
        let seen = self.flows.entry(flow).or_insert(Seen {
            source: packet.source,
            source_port: None,
            count: 0,
            bytes: 0,
            told: None,
            last: now,
            sender: None,
            sought: None,
        });
        let first = seen.count == 0;
        seen.source_port = packet.source_port;
        seen.count += 1;
        seen.bytes += bytes as u64;
        seen.last = now;
        if !first {
            return false;
        }
        let certain = announced.is_some() && packet.protocol == Transport::Tcp;
        seen.sender = announced;
        seen.sought = (!certain).then_some(now);
        !certain
    }

    /// Who sent the packet of which that was to be found out; `None`: nobody was found.
    pub fn sent(&mut self, packet: &Packet, sender: Option<Sender>) {
        if let Some(seen) = self.flows.get_mut(&Flow::of(packet)) {
            seen.sought = None;
            if sender.is_some() {
                seen.sender = sender;
            }
        }
    }

    /// Counts packets of which nothing else is known.
    pub fn note_others(&mut self, count: u64) {
        self.others += count;
    }

    /// What is to be told now, each with the mark of its sender's session: each flow at its first
    /// packet, once its sender was looked for, and then what came since, now and then.
    pub fn due(&mut self, now: Instant) -> Vec<(Option<u32>, Observation)> {
        let mut told = Vec::new();
        for (flow, seen) in &mut self.flows {
            let due = seen.told.is_none_or(|at| now.duration_since(at) >= AGAIN)
                && seen.sought.is_none_or(|since| now.duration_since(since) >= SOUGHT);
            if seen.count > 0 && due {
                told.push(observation(flow, seen));
                (seen.count, seen.bytes, seen.told) = (0, 0, Some(now));
                (seen.sender, seen.sought) = (None, None);
            }
        }
        self.flows.retain(|_, seen| seen.count > 0 || now.duration_since(seen.last) < AGAIN);
        told
    }

    /// All that was not told yet, and there will be no more.
    pub fn rest(&mut self) -> Vec<(Option<u32>, Observation)> {
        let flows = std::mem::take(&mut self.flows);
        flows.iter().filter(|(_, seen)| seen.count > 0).map(|(flow, seen)| observation(flow, seen)).collect()
    }

    /// How many packets were only counted since this was last asked.
    pub fn take_others(&mut self) -> u64 {
        std::mem::take(&mut self.others)
    }
}

fn observation(flow: &Flow, seen: &Seen) -> (Option<u32>, Observation) {
    let sender = seen.sender.as_ref();
    let what = Packets {
        protocol: flow.protocol,
        source: seen.source.to_string(),
        source_port: seen.source_port,
        destination: flow.destination.to_string(),
        destination_port: flow.port,
        count: seen.count,
        bytes: seen.bytes,
        attribution: sender.map_or(Attribution::Unknown, |sender| sender.how),
        pid: sender.map(|sender| sender.by.pid),
        uid: sender.map(|sender| sender.by.uid),
        program: sender.and_then(|sender| sender.by.program.clone()),
    };
    (sender.and_then(|sender| sender.mark), Observation::Packets(what))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A UDP packet.
    pub fn v4(to: [u8; 4], port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1];
        packet.extend(to);
        packet.extend(40_000u16.to_be_bytes());
        packet.extend(port.to_be_bytes());
        packet.extend([0, 12, 0, 0, b'd', b'a', b't', b'a']);
        packet
    }

    /// A TCP packet behind a header of destination options.
    pub fn v6(port: u16) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 28, 60, 64];
        packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).octets());
        packet.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend(50_000u16.to_be_bytes());
        packet.extend(port.to_be_bytes());
        packet.extend([0; 16]);
        packet
    }

    #[test]
    fn heads_are_read() {
        let packet = parse(&v4([203, 0, 113, 9], 53)).unwrap();
        assert_eq!((packet.protocol, packet.destination_port), (Transport::Udp, Some(53)));
        assert_eq!(packet.destination.to_string(), "203.0.113.9");
        let packet = parse(&v6(443)).unwrap();
        assert_eq!((packet.protocol, packet.destination_port), (Transport::Tcp, Some(443)));
        assert_eq!((packet.source_port, packet.payload), (Some(50_000), 48));
        let mut later = v4([203, 0, 113, 9], 53);
        later[7] = 9;
        assert_eq!(parse(&later).unwrap().destination_port, None, "ports are in the first fragment only");
        let mut wrong = v4([203, 0, 113, 9], 53);
        wrong[0] = 0x44;
        assert_eq!(parse(&wrong), None);
    }

    #[test]
    fn neighbour_discovery_is_the_kernels_own() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 58, 255];
        packet.extend([0; 16]);
        packet.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).octets());
        packet.extend([133, 0, 0, 0, 0, 0, 0, 0]);
        assert!(parse(&packet).unwrap().is_of_the_kernel());
        packet[40] = 128;
        assert!(!parse(&packet).unwrap().is_of_the_kernel(), "an echo request");
        assert!(!parse(&v4([224, 0, 0, 251], 5353)).unwrap().is_of_the_kernel());
    }

    #[test]
    fn a_flood_is_told_in_few_words_and_counted_to_the_last() {
        let (mut flows, start) = (Flows::default(), Instant::now());
        let mut told = Vec::new();
        let mut others = 0;
        for n in 0..100_000u32 {
            let [.., a, b] = n.to_be_bytes();
            let bytes = v4([203, 0, a, b], 53);
            let now = start + Duration::from_micros(u64::from(n) * 100);
            let packet = parse(&bytes).unwrap();
            if flows.note(&packet, bytes.len(), None, now) {
                flows.sent(&packet, None);
            }
            if n % 1000 == 0 {
                told.extend(flows.due(now));
                others += flows.take_others();
            }
        }
        told.extend(flows.rest());
        others += flows.take_others();
        assert!(told.len() <= 2 * FLOWS + 2, "{}", told.len());
        let counted: u64 =
            told.iter().map(|(_, o)| if let Observation::Packets(p) = o { p.count } else { 0 }).sum();
        assert_eq!(counted + others, 100_000);
    }

    #[test]
    fn the_first_packet_is_told_at_once_and_the_next_ones_together() {
        let (mut flows, start) = (Flows::default(), Instant::now());
        let bytes = v4([203, 0, 113, 9], 53);
        let packet = parse(&bytes).unwrap();
        assert!(flows.note(&packet, bytes.len(), None, start));
        flows.sent(&packet, None);
        assert_eq!(flows.due(start).len(), 1);
        for n in 0..7 {
            assert_eq!(flows.note(&packet, bytes.len(), None, start), n == 0);
        }
        flows.sent(&packet, None);
        assert!(flows.due(start + AGAIN / 2).is_empty());
        let told = flows.due(start + AGAIN);
        let [(None, Observation::Packets(packets))] = &told[..] else { panic!("{told:?}") };
        assert_eq!((packets.count, packets.bytes), (7, 224));
        assert!(flows.due(start + AGAIN * 3).is_empty() && flows.flows.is_empty());
    }

    #[test]
    fn a_packet_waits_a_little_for_its_senders_name() {
        let sender = |pid, how| Sender {
            by: Actor { pid, uid: 1000, program: Some("/usr/bin/dig".to_owned()) },
            mark: Some(5),
            how,
        };
        let told = |told: Vec<(Option<u32>, Observation)>| match &told[..] {
            [] => None,
            [(mark, Observation::Packets(packets))] => Some((*mark, packets.attribution, packets.pid)),
            other => panic!("{other:?}"),
        };
        let (udp, tcp) = (parse(&v4([203, 0, 113, 9], 53)).unwrap(), parse(&v6(443)).unwrap());
        let (mut flows, start) = (Flows::default(), Instant::now());
        // A datagram may be another's than whoever connected to there: the socket says it better.
        let announced = Some(sender(1, Attribution::Attempt));
        assert!(flows.note(&udp, 32, announced.clone(), start));
        assert_eq!(told(flows.due(start)), None);
        flows.sent(&udp, Some(sender(2, Attribution::Socket)));
        assert_eq!(told(flows.due(start)), Some((Some(5), Attribution::Socket, Some(2))));
        // The next ones are anybody's.
        assert!(flows.note(&udp, 32, None, start));
        assert_eq!(told(flows.due(start + AGAIN)), Some((None, Attribution::Unknown, None)));
        // A stream begins with whoever asked for it.
        assert!(!flows.note(&tcp, 60, announced.clone(), start));
        assert_eq!(told(flows.due(start)), Some((Some(5), Attribution::Attempt, Some(1))));
        // Nobody is waited for in vain; what was announced still counts.
        let mut flows = Flows::default();
        assert!(flows.note(&udp, 32, announced.clone(), start));
        flows.sent(&udp, None);
        assert_eq!(told(flows.due(start)), Some((Some(5), Attribution::Attempt, Some(1))));
        let mut flows = Flows::default();
        assert!(flows.note(&udp, 32, announced, start));
        assert_eq!(told(flows.due(start + SOUGHT)), Some((Some(5), Attribution::Attempt, Some(1))));
    }
}
