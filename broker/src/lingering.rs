//! What lets a workspace run while nobody is in it.
//!
//! For each workspace that an agent says it runs, a permit is held. When it ends, or is refused, the
//! agent is ordered to stop the workspace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gate::{Gate, RefusalKind};
use model::{AgentId, WorkspaceId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::broker::AgentLink;
use wire::message::Load;

/// How long to wait when the gate cannot answer.
const AGAIN: Duration = Duration::from_secs(1);
/// What stops a workspace that nobody can say anything of any more.
const PATIENCE: u32 = 30;

/// The permits of what runs. Clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keeping(Arc<Mutex<HashMap<(AgentId, WorkspaceId), Keeper>>>);

#[derive(Debug)]
struct Keeper {
    renew: Arc<Notify>,
    end: CancellationToken,
    /// Whether the agent has said that it runs.
    seen: bool,
}

impl Keeping {
    /// Holds a permit for a workspace from now on, or looks again whether the one that is held is
    /// still all there is.
    pub(crate) fn hold(&self, gate: &Gate, link: &AgentLink, workspace: &WorkspaceId, seen: bool) {
        let key = (link.agent().clone(), workspace.clone());
        let mut keepers = self.lock();
        if let Some(keeper) = keepers.get_mut(&key)
            && !keeper.end.is_cancelled()
        {
            if !seen {
                keeper.renew.notify_one();
            }
            keeper.seen |= seen;
            return;
        }
        let keeper = Keeper { renew: Arc::default(), end: CancellationToken::new(), seen };
        let (renew, end) = (Arc::clone(&keeper.renew), keeper.end.clone());
        keepers.insert(key.clone(), keeper);
        drop(keepers);
        let (gate, link, all) = (gate.clone(), link.clone(), self.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = keep(&gate, &link, &key.1, &renew) => {}
                () = end.cancelled() => {}
                _ = link.closed() => {}
            }
            end.cancel();
            all.lock().retain(|_, keeper| !keeper.end.is_cancelled());
        });
    }

    /// An agent has said what it runs.
    pub(crate) fn settle(&self, gate: &Gate, link: &AgentLink, load: &Load) {
        for running in &load.running {
            self.hold(gate, link, &running.workspace, true);
        }
        // One that has only just been ordered is not among them yet.
        self.lock().retain(|(agent, workspace), keeper| {
            let gone = agent == link.agent()
                && keeper.seen
                && !load.running.iter().any(|running| running.workspace == *workspace);
            if gone {
                keeper.end.cancel();
            }
            !gone
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(AgentId, WorkspaceId), Keeper>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds permits until there is none to be had; then the workspace is stopped.
async fn keep(gate: &Gate, link: &AgentLink, workspace: &WorkspaceId, renew: &Notify) {
    let (mut held, mut failures) = (None, 0);
    let why = loop {
        match gate.keep_workspace(link.agent(), workspace, held.as_ref()).await {
            Ok(fresh) => {
                held = fresh.or(held);
                failures = 0;
            }
            Err(refusal) if refusal.kind == RefusalKind::Unavailable && failures < PATIENCE => {
                failures += 1;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(refusal) => break refusal.message,
        }
        let Some(permit) = &held else { break "it is not known here".to_owned() };
        tokio::select! {
            cause = permit.ended() => break cause.message,
            () = renew.notified() => {}
        }
    };
    stop(gate, link, workspace, &why).await;
}

/// Orders an agent to stop a workspace.
pub(crate) async fn stop(gate: &Gate, link: &AgentLink, workspace: &WorkspaceId, why: &str) {
    tracing::info!(%workspace, agent = %link.agent(), why, "a workspace is stopped");
    match gate.stop_order(link.agent(), workspace, why) {
        Ok(errand) => {
            if let Err(error) = link.order(errand.ticket).await {
                tracing::warn!(%workspace, %error, "an agent could not be told to stop a workspace");
            }
        }
        Err(refusal) => tracing::error!(%workspace, code = %refusal.code, "no order to stop a workspace"),
    }
}
