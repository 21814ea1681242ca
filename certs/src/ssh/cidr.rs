use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses, `192.0.2.0/24` or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address or a range like 192.0.2.0/24")]
pub struct CidrError(String);

/// The most ranges of one list.
const LIST_MAX: usize = 64;

impl Cidr {
    /// Whether `ip` lies in the range; an IPv4 address mapped into IPv6 counts as the former.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                masked(base.to_bits().into(), 32, self.prefix) == masked(ip.to_bits().into(), 32, self.prefix)
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                masked(base.to_bits(), 128, self.prefix) == masked(ip.to_bits(), 128, self.prefix)
            }
            _ => false,
        }
    }

    /// A list separated by commas, as in the critical option `source-address`.
    pub fn parse_list(text: &str) -> Result<Vec<Cidr>, CidrError> {
        let list: Vec<Cidr> = text.split(',').take(LIST_MAX + 1).map(str::parse).collect::<Result<_, _>>()?;
        if list.len() > LIST_MAX { Err(CidrError(crate::name::excerpt(text))) } else { Ok(list) }
    }
}

/// Keeps the first `prefix` of the low `width` bits.
fn masked(bits: u128, width: u32, prefix: u8) -> u128 {
    bits.checked_shr(width - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        let refuse = || CidrError(crate::name::excerpt(text));
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| refuse())?;
        let width: u8 = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // A sign or a leading zero is another spelling than OpenSSH's.
            Some(p) if p.len() > 1 && !p.starts_with(|c: char| ('1'..='9').contains(&c)) => {
                return Err(refuse());
            }
            Some(p) => p.parse().ok().filter(|&p| p <= width).ok_or_else(refuse)?,
            None => width,
        };
        let range = Cidr { base, prefix };
        let low = |bits: u128| {
            let kept = masked(bits, u32::from(width), prefix);
            kept.checked_shl(u32::from(width - prefix)).unwrap_or(0) == bits
        };
        let bits = match base {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        // Bits below the mask mean that something else was intended; OpenSSH refuses them too.
        if low(bits) { Ok(range) } else { Err(refuse()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_hold_what_they_say() {
        let holds = |range: &str, ip: &str| range.parse::<Cidr>().unwrap().contains(ip.parse().unwrap());
        assert!(holds("192.0.2.0/24", "192.0.2.255"));
        assert!(!holds("192.0.2.0/24", "192.0.3.0"));
        assert!(holds("192.0.2.7", "192.0.2.7"));
        assert!(holds("192.0.2.7", "::ffff:192.0.2.7"));
        assert!(holds("0.0.0.0/0", "203.0.113.9"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
    }

    #[test]
    fn sloppy_ranges_are_refused() {
        for bad in
            ["", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+4", "::/129", "x", "192.0.2.0/024"]
        {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert!(Cidr::parse_list("192.0.2.7,").is_err());
        assert_eq!(Cidr::parse_list("192.0.2.7,::1").unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same_range(text in "[0-9a-f:./]{0,24}") {
            if let Ok(range) = text.parse::<Cidr>() {
                prop_assert_eq!(range.to_string().parse::<Cidr>().unwrap(), range);
            }
        }
    }
}
