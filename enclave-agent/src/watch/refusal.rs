//! The answer to a packet that goes nowhere, so that whoever sent it hears at once: "administratively
//! prohibited", by ICMP (RFC 1812, section 5.2.7.1) or ICMPv6 (RFC 4443, section 3.1).

use std::net::IpAddr;

use model::observed::Transport;

use super::packets::Packet;

/// The longest answer: the most that every path of IPv6 carries.
const ANSWER_MAX: usize = 1280;
/// Bytes of the packet that an answer by IPv4 repeats (RFC 1812 allows up to 576 in all).
const REPEATED_V4: usize = 500;

/// The answer, as an IP packet; none to what must not be answered (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4): errors, groups and broadcasts, and fragments but the first.
pub fn answer(packet: &Packet, bytes: &[u8]) -> Option<Vec<u8>> {
    if packet.fragment || packet.source.is_unspecified() || packet.source.is_multicast() {
        return None;
    }
    let is_error = match (packet.protocol, packet.first) {
        (Transport::Icmp, Some(kind)) => !matches!(kind, 8 | 13 | 15 | 17),
        (Transport::Icmp6, Some(kind)) => kind < 128,
        (Transport::Icmp | Transport::Icmp6, None) => true,
        _ => false,
    };
    if is_error {
        return None;
    }
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            if destination.is_multicast() || destination.is_broadcast() {
                return None;
            }
            Some(answer_v4(source.octets(), destination.octets(), bytes))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let group = destination.is_multicast();
            (!group).then(|| answer_v6(source.octets(), destination.octets(), bytes))
        }
        _ => None,
    }
}

fn answer_v4(to: [u8; 4], from: [u8; 4], bytes: &[u8]) -> Vec<u8> {
    let repeated = &bytes[..bytes.len().min(REPEATED_V4)];
    // Destination unreachable, communication administratively prohibited.
    let mut message = vec![3, 13, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(repeated);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum);
    let length = u16::try_from(20 + message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut head = [0x45, 0xc0, length[0], length[1], 0, 0, 0x40, 0, 64, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    head[12..16].copy_from_slice(&from);
    head[16..20].copy_from_slice(&to);
    let sum = checksum(&[&head]);
    head[10..12].copy_from_slice(&sum);
    [&head[..], &message].concat()
}

fn answer_v6(to: [u8; 16], from: [u8; 16], bytes: &[u8]) -> Vec<u8> {
    let repeated = &bytes[..bytes.len().min(ANSWER_MAX - 48)];
    // Destination unreachable, communication administratively prohibited.
    let mut message = vec![1, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(repeated);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let pseudo = [0, 0, length[0], length[1], 0, 0, 0, 58];
    let sum = checksum(&[&from, &to, &pseudo, &message]);
    message[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 58, 64];
    packet.extend_from_slice(&from);
    packet.extend_from_slice(&to);
    packet.extend_from_slice(&message);
    packet
}

/// The checksum of the internet (RFC 1071) over parts of an even length but for the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u16::try_from(sum).unwrap_or(u16::MAX);
    (!sum).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::{parse, tests as sample};

    #[test]
    fn the_sender_hears_that_it_is_prohibited() {
        let asked = sample::v4([203, 0, 113, 9], 53);
        let heard = answer(&parse(&asked).unwrap(), &asked).unwrap();
        let packet = parse(&heard).unwrap();
        assert_eq!(
            (packet.protocol, packet.destination.to_string().as_str()),
            (Transport::Icmp, "192.0.2.1")
        );
        assert_eq!((heard[20], heard[21]), (3, 13));
        assert_eq!(heard[28..], asked);
        assert_eq!((checksum(&[&heard[..20]]), checksum(&[&heard[20..]])), ([0, 0], [0, 0]));

        let asked = sample::v6(443);
        let heard = answer(&parse(&asked).unwrap(), &asked).unwrap();
        assert_eq!((heard[6], heard[40], heard[41]), (58, 1, 1));
        assert_eq!(heard[48..], asked);
        let length = u32::try_from(heard.len() - 40).unwrap().to_be_bytes();
        let sum = checksum(&[&heard[8..24], &heard[24..40], &length, &[0, 0, 0, 58], &heard[40..]]);
        assert_eq!(sum, [0, 0]);
    }

    #[test]
    fn no_bytes_make_it_stumble_or_answer_an_answer() {
        let random = model::SeededEntropy::new(3);
        let mut answered = 0;
        for round in 0..100_000usize {
            let mut bytes = vec![0; round % 90];
            model::Entropy::fill(&random, &mut bytes).unwrap();
            if let Some(first) = bytes.first_mut() {
                *first = if round % 2 == 0 { 0x40 | *first & 0x07 } else { 0x60 };
            }
            let Some(packet) = parse(&bytes) else { continue };
            assert!(packet.payload <= bytes.len());
            let Some(answer) = answer(&packet, &bytes) else { continue };
            answered += 1;
            let back = parse(&answer).unwrap();
            assert_eq!((back.source, back.destination), (packet.destination, packet.source));
            assert!(answer.len() <= ANSWER_MAX && super::answer(&back, &answer).is_none());
        }
        assert!(answered > 10_000, "{answered}");
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        for to in [[224, 0, 0, 251], [255, 255, 255, 255]] {
            let asked = sample::v4(to, 5353);
            assert_eq!(answer(&parse(&asked).unwrap(), &asked), None);
        }
        let mut error = sample::v4([203, 0, 113, 9], 0);
        (error[9], error[20]) = (1, 3);
        assert_eq!(answer(&parse(&error).unwrap(), &error), None);
        error[20] = 8;
        assert!(answer(&parse(&error).unwrap(), &error).is_some(), "an echo request");
    }
}
