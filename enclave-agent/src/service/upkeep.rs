//! What is done with a workspace itself, whoever is in it.

use certs::ticket::{Fate, Order};

use super::Service;
use crate::workspace::Owner;

impl Service {
    /// Stops a workspace, or gives it up. What came of it is told by a report.
    pub(super) async fn upkeep(&self, ticket: &[u8]) {
        let order = match self.open(ticket).map(|ticket| ticket.order) {
            Ok(Order::Workspace(order)) => order,
            Ok(_) => {
                tracing::warn!("an order for a session or a deposit came without its stream");
                return;
            }
            // It was logged where it was opened.
            Err(_) => return,
        };
        match order.fate {
            Fate::Stop => self.workspaces.condemn(&order.workspace, &order.reason).await,
            Fate::Remove { person, study, name } => {
                let owner = Owner { study, person, workspace: name };
                if let Err(error) = self.workspaces.remove(&order.workspace, &owner, &order.reason).await {
                    tracing::error!(workspace = %order.workspace, %error, "a home could not be destroyed");
                }
            }
        }
    }
}
