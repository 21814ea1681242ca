//! Files coming in.
//!
//! The broker relays ciphertext: what arrives is a Crypt4GH stream that only the intake of an agent
//! can open. It goes from the client's connection to the agent's stream piece by piece, as fast as
//! the agent takes it; nothing is kept here. The answer is a stream of JSON lines that tells how far
//! it is, and last how it ended.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::StreamExt;
use gate::{Deposit, Permit};
use model::{BackendId, DatasetId};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::message::{DepositInput, DepositOutput, OpenDeposit};

use super::Api;
use super::answer::Fault;
use super::caller::ThePerson;

/// Lines that may wait for the client.
const LINES: usize = 16;
/// How long a client may send nothing.
const STALLED: Duration = Duration::from_secs(60);
/// How long an agent may take to say that it is ready, and to make the shares durable at the end.
const AGENT: Duration = Duration::from_secs(120);
/// The largest piece sent to the agent.
const PIECE: usize = 128 << 10;

/// How a deposit ended.
enum Ended {
    Done { size: u64, root: [u8; 32] },
    Failed { code: String, message: String },
}

impl Ended {
    fn failed(code: &str, message: impl Into<String>) -> Ended {
        Ended::Failed { code: code.to_owned(), message: message.into() }
    }
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    ThePerson(by): ThePerson,
    Path((dataset, name)): Path<(DatasetId, String)>,
    body: Body,
) -> Result<Response, Fault> {
    let link = api.services.hub.choose().ok_or_else(super::no_agent)?;
    let permit = api.services.gate.deposit(&by, &dataset, &name, link.agent()).await?;
    let (lines, told) = mpsc::channel(LINES);
    // A task of its own: how it ended is recorded also when the client hangs up.
    api.services.tasks.clone().spawn(async move {
        let ended = run(&api, &link, &permit, body.into_data_stream(), &lines).await;
        let backends = link.hello().backends.iter().map(|(backend, _)| backend.clone()).collect();
        let last = settle(&api, permit, ended, backends).await;
        let _ = lines.send(last).await;
    });
    let stream = futures::stream::unfold(told, |mut told| async move {
        let line: Value = told.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(format!("{line}\n"))), told))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::OK, headers, Body::from_stream(stream)).into_response())
}

async fn run(
    api: &Api,
    link: &wire::broker::AgentLink,
    permit: &Permit<Deposit>,
    body: BodyDataStream,
    lines: &mpsc::Sender<Value>,
) -> Ended {
    tokio::select! {
        ended = relay(api, link, permit, body, lines) => ended,
        cause = permit.ended() => Ended::failed(cause.cause.code(), cause.message),
        () = api.services.stopping.cancelled() => Ended::failed("stopping", "The broker is being stopped. Send the file again in a few minutes."),
        () = lines.closed() => Ended::failed("client_left", "The client hung up before the file was complete."),
    }
}

async fn relay(
    api: &Api,
    link: &wire::broker::AgentLink,
    permit: &Permit<Deposit>,
    body: BodyDataStream,
    lines: &mpsc::Sender<Value>,
) -> Ended {
    let ticket = match api.services.gate.deposit_ticket(permit, link.agent()) {
        Ok(ticket) => ticket,
        Err(refusal) => return Ended::failed(&refusal.code, refusal.message),
    };
    let lost = || Ended::failed("agent_lost", "The host that takes files in was lost. Send the file again.");
    let Ok(stream) = link.open_deposit(OpenDeposit { ticket }).await else { return lost() };
    let (mut sender, mut receiver) = (stream.sender, stream.receiver);
    match timeout(AGENT, receiver.next()).await {
        Ok(Ok(Some(DepositOutput::Ready))) => {}
        Ok(Ok(Some(DepositOutput::Refused(refused)))) => {
            return Ended::failed(&refused.code, refused.message);
        }
        _ => return lost(),
    }
    let forward = forward(body, &mut sender);
    let listen = async {
        loop {
            match receiver.next().await {
                // A client that does not read its progress does not slow its own upload.
                Ok(Some(DepositOutput::Progress { bytes })) => {
                    let _ = lines.try_send(json!({ "progress": bytes }));
                }
                Ok(Some(DepositOutput::Deposited { size, root })) => return Ended::Done { size, root },
                Ok(Some(DepositOutput::Refused(refused))) => {
                    return Ended::failed(&refused.code, refused.message);
                }
                Ok(Some(DepositOutput::Ready)) | Ok(None) | Err(_) => return lost(),
            }
        }
    };
    tokio::pin!(listen);
    tokio::select! {
        ended = &mut listen => ended,
        sent = forward => match sent {
            Ok(()) => timeout(AGENT, listen).await.unwrap_or_else(|_| lost()),
            // The agent stopped taking bytes: it says why.
            Err(Stop::Agent) => timeout(Duration::from_secs(5), listen).await.unwrap_or_else(|_| lost()),
            Err(Stop::Client(message)) => Ended::failed("upload_broken", message),
        },
    }
}

enum Stop {
    Agent,
    Client(&'static str),
}

async fn forward(mut body: BodyDataStream, sender: &mut wire::broker::DepositSender) -> Result<(), Stop> {
    loop {
        match timeout(STALLED, body.next()).await {
            Ok(Some(Ok(data))) => {
                let mut data = data;
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(PIECE));
                    sender.send(DepositInput::Data(piece)).await.map_err(|_| Stop::Agent)?;
                }
            }
            Ok(Some(Err(_))) => return Err(Stop::Client("The upload broke off. Send the file again.")),
            Ok(None) => return sender.send(DepositInput::DataEof).await.map_err(|_| Stop::Agent),
            Err(_) => return Err(Stop::Client("Nothing arrived for a minute, so the upload was given up.")),
        }
    }
}

/// Records how it ended; returns the last line for the client.
async fn settle(api: &Api, permit: Permit<Deposit>, ended: Ended, backends: Vec<BackendId>) -> Value {
    let object = permit.action().object.clone();
    match ended {
        Ended::Done { size, root } => {
            match api.services.gate.deposit_completed(permit, size, root, backends).await {
                Ok(_) => json!({ "object": object, "size": size, "root": HEXLOWER.encode(&root) }),
                Err(refusal) => Fault::from(refusal).line(),
            }
        }
        Ended::Failed { code, message } => {
            if let Err(refusal) = api.services.gate.deposit_failed(permit, &code, &message).await {
                tracing::error!(%object, code = %refusal.code, "a failed deposit could not be recorded");
            }
            Fault::new(StatusCode::BAD_GATEWAY, &code, message).line()
        }
    }
}
