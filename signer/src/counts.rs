use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use model::metrics::{Exposition, Kind};

/// What the signer was asked for and what it did since its start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Issued and refused, by what was asked for.
    answered: Mutex<BTreeMap<&'static str, (u64, u64)>>,
    turned_away: AtomicU64,
    journal_fails: AtomicBool,
}

impl Counts {
    /// A request was answered.
    pub(crate) fn answered(&self, what: &'static str, issued: bool) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let (yes, no) = answered.entry(what).or_default();
        *(if issued { yes } else { no }) += 1;
    }

    /// Somebody came who may not ask.
    pub(crate) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// The journal was written, or could not be.
    pub(crate) fn journal(&self, works: bool) {
        self.journal_fails.store(!works, Ordering::Relaxed);
    }

    /// Whether the last line of the journal could be written.
    pub(crate) fn journal_works(&self) -> bool {
        !self.journal_fails.load(Ordering::Relaxed)
    }

    pub(crate) fn expose(&self, to: &mut Exposition) {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let help = "Requests for certificates since the start, by what was asked for and what it came to.";
        let mut requests = to.family("sekisho_signer_requests_total", Kind::Counter, help);
        for (what, (issued, refused)) in answered {
            requests.sample(&[("what", what), ("outcome", "issued")], issued as f64);
            requests.sample(&[("what", what), ("outcome", "refused")], refused as f64);
        }
        to.single(
            "sekisho_signer_turned_away_total",
            Kind::Counter,
            "Callers since the start who may not ask.",
            self.turned_away.load(Ordering::Relaxed) as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_like_this() {
        let counts = Counts::default();
        counts.answered("x509", true);
        counts.answered("x509", false);
        counts.answered("x509", true);
        counts.turned_away();
        let mut figures = Exposition::default();
        counts.expose(&mut figures);
        let text = figures.finish();
        for part in [
            "sekisho_signer_requests_total{what=\"x509\",outcome=\"issued\"} 2\n",
            "sekisho_signer_requests_total{what=\"x509\",outcome=\"refused\"} 1\n",
            "sekisho_signer_turned_away_total 1\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        counts.journal(false);
        assert!(!counts.journal_works());
        counts.journal(true);
        assert!(counts.journal_works());
    }
}
