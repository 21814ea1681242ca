//! How a witness is, for whoever looks after it.

use model::metrics::{Exposition, Health, Kind, State};
use vitals::Vitals;

use crate::state::Witness;

impl Vitals for Witness {
    fn health(&self) -> Health {
        let mut health = Health::new("witness", env!("CARGO_PKG_VERSION"));
        let counted = self.counted();
        let (state, detail) = match counted.not_kept {
            None => (State::Ok, None),
            Some(cause) => (State::Failed, Some(format!("nothing is signed: {cause}"))),
        };
        health.check("state", state, detail);
        let (state, detail) = match self.sizes().len() {
            0 => (State::Degraded, "no log is configured".to_owned()),
            logs => (State::Ok, format!("{logs} known")),
        };
        health.check("logs", state, Some(detail));
        let of = |word| counted.decisions.get(word).copied().unwrap_or_default();
        let (state, detail) = match of("other-root") + of("not-proven") {
            0 => (State::Ok, None),
            // They stand whole in this process's own log.
            some => {
                (State::Degraded, Some(format!("{some} requests since the start contradict what was signed")))
            }
        };
        health.check("histories", state, detail);
        health
    }

    fn figures(&self, to: &mut Exposition) {
        let help = "Requests for signatures since the start, by what they came to.";
        let mut requests = to.family("sekisho_witness_requests_total", Kind::Counter, help);
        for (word, count) in self.counted().decisions {
            requests.sample(&[("outcome", word)], count as f64);
        }
        let help = "Entries under the last checkpoint that was signed.";
        let mut signed = to.family("sekisho_witness_signed_entries", Kind::Gauge, help);
        for (origin, size) in self.sizes() {
            signed.sample(&[("log", &origin)], size as f64);
        }
    }
}
