//! Addresses that a process hands to connect(2), as they lie in its memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::observed::{ConnectionOutcome, NetworkFamily};

/// The workspace's addresses, which are nobody's: the dummy address (RFC 7600), and one of the prefix
/// whose packets are discarded (RFC 6666).
pub const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// See [`OWN_V4`].
pub const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);
/// The longest address that is read: `struct sockaddr_storage`.
pub const ADDRESS_MAX: usize = 128;
/// The name service that programs look for at every look-up of a user, and that no workspace has.
const NAME_SERVICE: [&str; 2] = ["/var/run/nscd/socket", "/run/nscd/socket"];

/// Where a process wants to connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Its family.
    pub family: NetworkFamily,
    /// An IP address, or the name of a unix socket.
    pub name: String,
    /// The port.
    pub port: Option<u16>,
    /// What comes of it.
    pub outcome: ConnectionOutcome,
}

/// Reads a `struct sockaddr` of any family (`connect(2)`, `unix(7)`, `ip(7)`, `ipv6(7)`); none where
/// nothing is connected to.
pub fn parse(bytes: &[u8]) -> Option<Address> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let rest = &bytes[2..];
    let port = || rest.get(..2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let by_ip =
        |family, ip: IpAddr| Address { family, name: ip.to_string(), port: port(), outcome: fate(ip) };
    match family {
        libc::AF_UNSPEC => None,
        libc::AF_INET => {
            let octets: [u8; 4] = rest.get(2..6)?.try_into().ok()?;
            Some(by_ip(NetworkFamily::Inet, Ipv4Addr::from(octets).into()))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = rest.get(6..22)?.try_into().ok()?;
            Some(by_ip(NetworkFamily::Inet6, Ipv6Addr::from(octets).into()))
        }
        libc::AF_UNIX => {
            let name = unix_name(rest)?;
            let outcome = ConnectionOutcome::Local;
            (!NAME_SERVICE.contains(&name.as_str())).then_some(Address {
                family: NetworkFamily::Unix,
                name,
                port: None,
                outcome,
            })
        }
        other => Some(Address {
            family: NetworkFamily::Other,
            name: format!("family {other}"),
            port: None,
            outcome: ConnectionOutcome::Blocked,
        }),
    }
}

/// Abstract names begin with a zero and may hold anything; others end at one.
fn unix_name(bytes: &[u8]) -> Option<String> {
    let name = match bytes.split_first()? {
        (0, []) => return None,
        (0, name) => return Some(format!("@{}", String::from_utf8_lossy(name))),
        _ => bytes.split(|byte| *byte == 0).next()?,
    };
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Everything but the workspace itself is out of reach. To connect to no address is to connect to
/// oneself.
fn fate(ip: IpAddr) -> ConnectionOutcome {
    let own = match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4 == OWN_V4,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6 == OWN_V6,
    };
    if own { ConnectionOutcome::Loopback } else { ConnectionOutcome::Blocked }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockaddr(family: i32, rest: &[u8]) -> Vec<u8> {
        [&u16::try_from(family).unwrap().to_ne_bytes()[..], rest].concat()
    }

    #[test]
    fn addresses_are_read_and_told_apart() {
        let at = |bytes: &[u8]| parse(bytes).map(|a| (a.name, a.port, a.outcome));
        let (blocked, loopback) = (ConnectionOutcome::Blocked, ConnectionOutcome::Loopback);
        let web = sockaddr(libc::AF_INET, &[1, 187, 203, 0, 113, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(at(&web), Some(("203.0.113.9".into(), Some(443), blocked)));
        let own = sockaddr(libc::AF_INET, &[34, 184, 127, 0, 0, 1]);
        assert_eq!(at(&own), Some(("127.0.0.1".into(), Some(8888), loopback)));
        let mut six = vec![1, 187, 0, 0, 0, 0];
        six.extend("::ffff:127.0.0.1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(at(&sockaddr(libc::AF_INET6, &six)).unwrap().2, loopback);
        six[6..].copy_from_slice(&"2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(at(&sockaddr(libc::AF_INET6, &six)), Some(("2001:db8::9".into(), Some(443), blocked)));
        let unix = sockaddr(libc::AF_UNIX, b"/tmp/a socket\0junk");
        assert_eq!(at(&unix).unwrap().0, "/tmp/a socket");
        assert_eq!(at(&sockaddr(libc::AF_UNIX, b"\0bus")).unwrap().0, "@bus");
        assert_eq!(at(&sockaddr(libc::AF_UNIX, b"/var/run/nscd/socket\0")), None);
        assert_eq!(at(&sockaddr(libc::AF_UNSPEC, &[0; 14])), None);
        assert_eq!(at(&sockaddr(libc::AF_VSOCK, &[0; 14])).unwrap().0, "family 40");
        for cut in 0..8 {
            assert_eq!(at(&web[..cut]), None);
        }
    }
}
