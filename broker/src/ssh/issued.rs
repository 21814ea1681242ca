//! Which certificates were issued lately, by key.
//!
//! The SSH machine turns away an expired certificate before this program sees it, and the client
//! then offers the bare key. Knowing when that key's last certificate ended is what lets the door
//! say "expired" instead of nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use model::{PersonId, Timestamp};

/// How many keys are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 10_000;

/// The last certificate of each key.
#[derive(Debug, Default)]
pub struct IssuedBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    last: HashMap<String, (PersonId, Timestamp)>,
    order: VecDeque<String>,
}

impl IssuedBook {
    /// Remembers that the key with this fingerprint got a certificate until `expires`.
    pub fn note(&self, fingerprint: &str, person: &PersonId, expires: Timestamp) {
        let mut book = self.book();
        if book.last.insert(fingerprint.to_owned(), (person.clone(), expires)).is_none() {
            book.order.push_back(fingerprint.to_owned());
        }
        while book.order.len() > REMEMBERED {
            if let Some(oldest) = book.order.pop_front() {
                book.last.remove(&oldest);
            }
        }
    }

    /// Whose key this is and when its last certificate ended, if it has.
    pub fn expired(&self, fingerprint: &str, now: Timestamp) -> Option<(PersonId, Timestamp)> {
        self.book().last.get(fingerprint).filter(|(_, expires)| *expires <= now).cloned()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_certificate_counts_and_memory_is_bounded() {
        let book = IssuedBook::default();
        let alice = PersonId::from_name("alice").unwrap();
        let at = Timestamp::from_secs;
        book.note("k", &alice, at(100));
        book.note("k", &alice, at(200));
        assert_eq!(book.expired("k", at(150)), None);
        assert_eq!(book.expired("k", at(200)), Some((alice.clone(), at(200))));
        for i in 0..REMEMBERED + 5 {
            book.note(&i.to_string(), &alice, at(1));
        }
        assert_eq!(book.expired("k", at(999)), None);
        assert_eq!(book.book().last.len(), REMEMBERED);
    }
}
