//! A session of `sftp`: the bytes go through [`wire::sftp::Mediator`], and what it tells goes into
//! the log before the client sees the answer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use audit::{Direction, EventKind, TransferOutcome};
use bytes::Bytes;
use gate::{FileRights, OpenSession, Permit, Refusal};
use policy::{Channel, Denial};
use tokio::sync::Notify;
use wire::sftp::{Broken, FileEvent, Mediator, Moved, Outcome, Refusals, Right, Rights};

use super::Services;
use super::screen::Screen;

/// The mediator of one session, between the two directions.
#[derive(Debug)]
pub(crate) struct Files {
    mediator: Mutex<Told>,
    /// There may be something for the client that no answer of the server brought.
    answers: Notify,
    /// There may be room for more requests.
    room: Notify,
}

#[derive(Debug)]
struct Told {
    mediator: Mediator,
    /// What the person was told once already.
    rights: Vec<Right>,
}

impl Files {
    /// For a session with these rights.
    pub(crate) fn new(access: &OpenSession) -> Files {
        let FileRights { upload, export, export_data } = access.files;
        let refusal = |channel| {
            let denial = Denial::ChannelRefused { study: access.study.clone(), channel };
            denial.to_string()
        };
        let refusals = Refusals {
            upload: refusal(Channel::Upload),
            export: refusal(Channel::Export),
            export_data: refusal(Channel::ExportData),
        };
        let home = format!("/home/{}", access.person.name());
        let mediator = Mediator::new(Rights { upload, export, export_data }, refusals, home);
        Files {
            mediator: Mutex::new(Told { mediator, rights: Vec::new() }),
            answers: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Puts in what the client sent, once there is room for its requests; what goes to the server.
    pub(crate) async fn asked(&self, data: Bytes) -> Result<Vec<Bytes>, Broken> {
        loop {
            let room = self.room.notified();
            if self.told().mediator.takes() {
                break;
            }
            room.await;
        }
        let mut told = self.told();
        told.mediator.client(data)?;
        let pieces = std::iter::from_fn(|| told.mediator.next_for_server()).collect();
        self.answers.notify_one();
        Ok(pieces)
    }

    /// Puts in what the server answered.
    pub(crate) fn answered(&self, data: Bytes) -> Result<(), Broken> {
        self.told().mediator.server(data)
    }

    /// Waits until there may be something for the client.
    pub(crate) async fn answers(&self) {
        self.answers.notified().await;
    }

    /// Records what is to be recorded; then gives what the client may see.
    pub(crate) async fn deliver(
        &self,
        services: &Services,
        permit: &Permit<OpenSession>,
        screen: &Screen,
    ) -> Result<Vec<Bytes>, Refusal> {
        let (events, pieces) = {
            let mut told = self.told();
            let events: Vec<_> = std::iter::from_fn(|| told.mediator.next_event()).collect();
            let pieces: Vec<_> = std::iter::from_fn(|| told.mediator.next_for_client()).collect();
            (events, pieces)
        };
        self.room.notify_one();
        for event in events {
            match event {
                FileEvent::Moved(moved) => {
                    services.gate.record_in(permit, transferred(moved)).await?;
                }
                FileEvent::Refused { right, path } => {
                    let refusal = services.gate.refuse_file(permit, channel(right), &path).await?;
                    let first = {
                        let mut told = self.told();
                        let first = !told.rights.contains(&right);
                        if first {
                            told.rights.push(right);
                        }
                        first
                    };
                    // Clients show the status of an answer and not its words.
                    if first {
                        screen.say(&refusal.message).await.ok();
                    }
                }
            }
        }
        Ok(pieces)
    }

    /// The session is over: records what was left open.
    pub(crate) async fn end(&self, services: &Services, permit: &Permit<OpenSession>) {
        self.told().mediator.end();
        let events: Vec<_> = {
            let mut told = self.told();
            std::iter::from_fn(|| told.mediator.next_event()).collect()
        };
        for event in events {
            let recorded = match event {
                FileEvent::Moved(moved) => services.gate.record_in(permit, transferred(moved)).await,
                FileEvent::Refused { right, path } => {
                    services.gate.refuse_file(permit, channel(right), &path).await.map(drop)
                }
            };
            if let Err(refusal) = recorded {
                tracing::error!(code = %refusal.code, "the transfer of a file could not be recorded");
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.mediator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn channel(right: Right) -> Channel {
    match right {
        Right::Upload => Channel::Upload,
        Right::Export => Channel::Export,
        Right::ExportData => Channel::ExportData,
    }
}

fn transferred(moved: Moved) -> EventKind {
    let (up, down) = (moved.up.unwrap_or(0), moved.down.unwrap_or(0));
    let direction = match (moved.up, moved.down) {
        (Some(_), Some(0) | None) => Direction::Upload,
        (Some(0) | None, _) => Direction::Download,
        (Some(_), Some(_)) => Direction::Both,
    };
    EventKind::FileTransferred {
        direction,
        path: moved.path,
        bytes: up.saturating_add(down),
        sha256: moved.sha256.map(|hash| data_encoding::HEXLOWER.encode(&hash)),
        outcome: match moved.outcome {
            Outcome::Completed => TransferOutcome::Completed,
            Outcome::Failed => TransferOutcome::Failed,
            Outcome::Aborted => TransferOutcome::Aborted,
        },
    }
}
