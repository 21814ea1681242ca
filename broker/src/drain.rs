//! Going out of service without throwing people out: nothing new begins, who is in is told, and what is
//! still there after a while is ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How far something is on its way out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// In service.
    #[default]
    Open,
    /// Nothing new begins; what goes on ends within this time from when it was said.
    Closing(Duration),
    /// What goes on ends now.
    Over,
}

/// Something that can be taken out of service. Clones share the state.
#[derive(Debug, Clone)]
pub struct Drain(Arc<watch::Sender<Stage>>);

impl Default for Drain {
    fn default() -> Drain {
        Drain(Arc::new(watch::Sender::new(Stage::Open)))
    }
}

impl Drain {
    /// How far it is.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Lets nothing new begin, and what goes on end within a time.
    pub fn close(&self, within: Duration) {
        self.0.send_replace(Stage::Closing(within));
    }

    /// Ends what goes on, unless it was taken back into service meanwhile.
    pub fn finish(&self) {
        self.0.send_if_modified(|stage| {
            let closing = matches!(stage, Stage::Closing(_));
            if closing {
                *stage = Stage::Over;
            }
            closing
        });
    }

    /// Takes it back into service.
    pub fn open(&self) {
        self.0.send_replace(Stage::Open);
    }

    /// Waits for the next stage after `known`.
    pub async fn after(&self, known: Stage) -> Stage {
        let mut stages = self.0.subscribe();
        // The sender lives as long as this.
        let next = stages.wait_for(|stage| *stage != known).await.ok().map(|stage| *stage);
        next.unwrap_or(known)
    }
}

/// A duration as people say it.
pub fn in_words(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..=119 => format!("{secs} s"),
        secs => format!("{} min", secs / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_taken_back_is_not_ended() {
        let drain = Drain::default();
        drain.finish();
        assert_eq!(drain.stage(), Stage::Open, "nothing ends that was not closed");
        let soon = Stage::Closing(Duration::from_secs(60));
        drain.close(Duration::from_secs(60));
        assert_eq!(drain.after(Stage::Open).await, soon);
        drain.open();
        drain.finish();
        assert_eq!(drain.stage(), Stage::Open);
        drain.close(Duration::ZERO);
        drain.finish();
        assert_eq!(drain.after(soon).await, Stage::Over);
        assert_eq!(
            (in_words(Duration::from_secs(90)), in_words(Duration::from_secs(600))),
            ("90 s".into(), "10 min".into())
        );
    }
}
