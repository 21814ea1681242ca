//! What tests of the commands stand on.

use std::sync::Arc;

use model::{ManualClock, SeededEntropy, Timestamp};

use crate::Surroundings;
use crate::words::Lang;

/// Surroundings in which nothing moves.
pub(crate) fn around() -> Surroundings {
    Surroundings {
        clock: Arc::new(ManualClock::at(Timestamp::from_secs(1_790_000_000))),
        entropy: Arc::new(SeededEntropy::new(1)),
        lang: Lang::En,
        json: false,
        user_home: None,
        program: None,
    }
}
