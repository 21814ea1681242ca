//! Everybody who follows a session beside the client that is in it.

use std::sync::Arc;

use super::stage::{Entered, Stage};
use crate::happening::Happening;
use crate::recordings::Recorder;

/// Who follows one session.
#[derive(Debug)]
pub(crate) struct Followers {
    entered: Entered,
    recorder: Option<Recorder>,
}

impl Followers {
    /// Those who look on, and a recorder or nobody.
    pub(crate) fn new(entered: Entered, recorder: Option<Recorder>) -> Followers {
        Followers { entered, recorder }
    }

    /// Tells all of them, before the client or the workspace gets it. Waits while the recorder is
    /// behind, and for nobody else.
    pub(crate) async fn tell(&self, happening: &Happening) {
        self.entered.stage.tell(happening);
        if let Some(recorder) = &self.recorder
            && (recorder.order.input || !matches!(happening, Happening::Input(_)))
        {
            recorder.tell(happening).await;
        }
    }

    /// Where those look on who may.
    pub(crate) fn stage(&self) -> &Arc<Stage> {
        &self.entered.stage
    }

    /// Waits until the session cannot be recorded any further, though it should be: why, and whether
    /// that ends it.
    pub(crate) async fn broken(&self) -> (String, bool) {
        match &self.recorder {
            Some(recorder) => (recorder.broken().await, recorder.order.strict),
            None => std::future::pending().await,
        }
    }

    /// Nobody records any more; whoever did.
    pub(crate) fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }
}
