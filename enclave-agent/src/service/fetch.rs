//! A fetch: a record of the house out of its shares, back to the broker.
//!
//! Only what came in as such a record goes out like this: the ticket's rules, which are checked here
//! again, refuse every other object, and its name is bound into its shares.

use std::time::Duration;

use bytes::Bytes;
use certs::ticket::Order;
use futures::StreamExt;
use sharding::vault::Fault;
use wire::agent::{FetchSender, FetchStream};
use wire::message::{FetchOutput, OpenFetch, Refused};

use super::session::chain;
use super::{Service, full, refused};

/// The largest piece sent.
const PIECE: usize = 128 << 10;
/// How long the broker may take no piece.
const SILENCE: Duration = Duration::from_secs(60);
/// How long finding the record may take.
const FINDING: Duration = Duration::from_secs(30);
/// How long the broker may take to hear the last word.
const FAREWELL: Duration = Duration::from_secs(5);

impl Service {
    pub(super) async fn fetch(&self, open: OpenFetch, stream: FetchStream, has_place: bool) {
        let FetchStream { mut sender, mut receiver } = stream;
        let gone = sender.gone();
        let last = tokio::select! {
            last = self.hand_out(&open, &mut sender, has_place) => last,
            // Nobody is left to be told.
            () = gone => return,
        };
        let last = last.map_or_else(FetchOutput::Refused, |()| FetchOutput::PieceEof);
        let _ = tokio::time::timeout(FAREWELL, sender.send(last)).await;
        // What is on its way is lost when the stream goes: until the broker has it, it stays.
        let _ = tokio::time::timeout(SILENCE, receiver.next()).await;
    }

    async fn hand_out(
        &self,
        open: &OpenFetch,
        sender: &mut FetchSender,
        has_place: bool,
    ) -> Result<(), Refused> {
        let Order::Fetch(order) = self.open(&open.ticket)?.order else {
            return Err(refused("ticket.other_order", "The gate's order is not one for a fetch. Try again."));
        };
        if !has_place {
            return Err(full());
        }
        let reports = self.workspaces.reports().clone();
        let faults = move |fault: Fault| reports.of_backend(fault);
        let vault = self.workspaces.storage().reading(std::sync::Arc::new(faults));
        let failed = |error: &(dyn std::error::Error + 'static)| {
            tracing::error!(object = %order.object, error = %chain(error), "a record cannot be read");
            refused("fetch.failed", format!("{} cannot be read from its shares: {error}.", order.object))
        };
        let opening = vault.open(&order.object, &order.manifest_root);
        let reader = match tokio::time::timeout(FINDING, opening).await {
            Ok(opened) => opened.map_err(|error| failed(&error))?,
            Err(late) => return Err(failed(&late)),
        };
        if reader.size() != order.size {
            return Err(refused("fetch.size", format!("{} is not as long as it should be.", order.object)));
        }
        self.say(sender, FetchOutput::Found { size: order.size }).await?;
        // It fetches a few extents ahead and waits while the broker takes nothing.
        let stream = reader.stream(0..order.size);
        tokio::pin!(stream);
        while let Some(plain) = stream.next().await {
            let plain = plain.map_err(|error| failed(&error))?;
            for piece in plain.chunks(PIECE) {
                self.say(sender, FetchOutput::Piece(Bytes::copy_from_slice(piece))).await?;
            }
        }
        tracing::info!(object = %order.object, size = order.size, "a record was handed out");
        Ok(())
    }

    async fn say(&self, sender: &mut FetchSender, word: FetchOutput) -> Result<(), Refused> {
        match tokio::time::timeout(SILENCE, sender.send(word)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(refused("fetch.abandoned", "Nobody took the record.")),
        }
    }
}
