//! Who may stand at the door at once.
//!
//! A connection costs little until it has proved who it is, but thousands of little things are
//! much. The book holds a bounded number of connections that have not proved anything yet. When it
//! is full the *oldest* of the busiest address gives way: a flood pushes itself out, while someone
//! who logs in without dawdling is through long before their turn to be pushed comes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::sever::Knife;

/// How many connections are held.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionLimits {
    /// Connections that have proved nothing yet, in total.
    pub half_open: usize,
    /// Connections that have proved nothing yet, from one address (an IPv6 /64 counts as one).
    pub half_open_per_address: usize,
    /// Connections of people who are in. When they are this many, nobody else is let in.
    pub established: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        AdmissionLimits { half_open: 1024, half_open_per_address: 512, established: 1024 }
    }
}

/// The book of connections.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: AdmissionLimits,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    half_open: HashMap<IpAddr, BTreeMap<u64, Knife>>,
    count: usize,
    established: usize,
}

/// A place in the book, given back when it is dropped.
#[derive(Debug)]
pub struct Pass {
    admission: Admission,
    number: u64,
    address: IpAddr,
    established: bool,
}

/// So many people are in that nobody else can be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("This gate is full at the moment. Try again in a few minutes.")]
pub struct Full;

impl Admission {
    /// An empty book.
    pub fn new(limits: AdmissionLimits) -> Admission {
        Admission(Arc::new(Inner { limits, book: Mutex::default() }))
    }

    /// Enters a new connection from `peer` that `knife` cuts, cutting an older one if there are too
    /// many.
    pub fn enter(&self, peer: IpAddr, knife: &Knife) -> Pass {
        let address = network(peer);
        let mut book = self.book();
        let here = book.half_open.get(&address).map_or(0, BTreeMap::len);
        if here >= self.0.limits.half_open_per_address.max(1) {
            book.push_out_oldest(address);
        } else if book.count >= self.0.limits.half_open.max(1) {
            // At most as many addresses as half-open connections: a bounded search.
            let busiest = book.half_open.iter().max_by_key(|(_, all)| all.len()).map(|(a, _)| *a);
            if let Some(busiest) = busiest {
                book.push_out_oldest(busiest);
            }
        }
        let number = book.next;
        book.next += 1;
        book.count += 1;
        book.half_open.entry(address).or_default().insert(number, knife.clone());
        Pass { admission: self.clone(), number, address, established: false }
    }

    /// How many connections have proved nothing yet.
    pub fn half_open(&self) -> usize {
        self.book().count
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The connection has proved who it is.
    pub fn establish(&mut self) -> Result<(), Full> {
        let mut book = self.admission.book();
        book.forget(self.address, self.number);
        if !self.established {
            if book.established >= self.admission.0.limits.established {
                return Err(Full);
            }
            book.established += 1;
            self.established = true;
        }
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut book = self.admission.book();
        book.forget(self.address, self.number);
        if self.established {
            book.established -= 1;
        }
    }
}

impl Book {
    fn push_out_oldest(&mut self, address: IpAddr) {
        let oldest = self.half_open.get(&address).and_then(|all| all.first_key_value());
        if let Some((&number, knife)) = oldest {
            knife.cut();
            self.forget(address, number);
        }
    }

    fn forget(&mut self, address: IpAddr, number: u64) {
        if let Some(all) = self.half_open.get_mut(&address) {
            if all.remove(&number).is_some() {
                self.count -= 1;
            }
            if all.is_empty() {
                self.half_open.remove(&address);
            }
        }
    }
}

/// What counts as one address: whoever has an IPv6 address has its /64.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(half_open: usize, per_address: usize, established: usize) -> Admission {
        Admission::new(AdmissionLimits { half_open, half_open_per_address: per_address, established })
    }

    fn from(admission: &Admission, address: &str) -> (Pass, Knife) {
        let knife = Knife::new();
        (admission.enter(address.parse().unwrap(), &knife), knife)
    }

    #[test]
    fn a_flood_pushes_itself_out_oldest_first() {
        let admission = book(100, 3, 10);
        let held: Vec<_> = (0..5).map(|_| from(&admission, "192.0.2.1")).collect();
        let cut: Vec<bool> = held.iter().map(|(_, knife)| knife.is_cut()).collect();
        assert_eq!(cut, [true, true, false, false, false]);
        assert_eq!(admission.half_open(), 3);
        drop(held);
        assert_eq!(admission.half_open(), 0);
    }

    #[test]
    fn the_busiest_address_gives_way_to_the_others() {
        let admission = book(4, 4, 10);
        let (_quiet, quiet) = from(&admission, "198.51.100.7");
        let busy: Vec<_> = (0..3).map(|_| from(&admission, "192.0.2.1")).collect();
        let (_new, new) = from(&admission, "203.0.113.9");
        assert!(!quiet.is_cut() && !new.is_cut());
        assert!(busy[0].1.is_cut());
    }

    #[test]
    fn who_is_in_is_not_pushed_out_and_counts_apart() {
        let admission = book(2, 2, 1);
        let (mut first, knife) = from(&admission, "2001:db8::1");
        first.establish().unwrap();
        let others: Vec<_> = (0..8).map(|i| from(&admission, &format!("2001:db8::{i}"))).collect();
        assert!(!knife.is_cut());
        let mut last = others.into_iter().last().unwrap().0;
        assert_eq!(last.establish(), Err(Full));
        drop(first);
        assert_eq!(last.establish(), Ok(()));
    }
}
