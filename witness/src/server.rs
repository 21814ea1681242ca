//! The door of a witness: HTTP/1.1, plain or under TLS.
//!
//! `POST /add-checkpoint` asks for a signature. `GET /<SHA-256 of the origin>/checkpoint` shows the
//! last checkpoint that was signed, for whoever wants to compare. Nobody proves who they are: what
//! counts is the log's signature. Everything is bounded, so that nobody needs to be trusted.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::protocol::{AddCheckpoint, REQUEST_MAX, SIZE_TYPE};
use crate::state::{Decision, Witness};

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long a handshake, the head of a request, and its body may each take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may live.
const LIFE: Duration = Duration::from_secs(600);

#[derive(Clone)]
struct House {
    witness: Arc<Witness>,
    clock: Arc<dyn Clock>,
}

/// Serves until the listener fails.
pub async fn serve(
    witness: Arc<Witness>,
    clock: Arc<dyn Clock>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(last))
        .with_state(House { witness, clock });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            let talk = async {
                match tls {
                    None => converse(stream, router).await,
                    Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => converse(stream, router).await,
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                        Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
                    },
                }
            };
            let _ = timeout(LIFE, talk).await;
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(16 << 10)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn add_checkpoint(State(house): State<House>, body: Body) -> Response {
    let body = match timeout(PATIENCE, to_bytes(body, REQUEST_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return said(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long or broke off"),
        Err(_) => return said(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    };
    let request = match AddCheckpoint::parse(&body) {
        Ok(request) => request,
        Err(fault) => return said(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    let deciding = tokio::task::spawn_blocking(move || {
        let decision = house.witness.add_checkpoint(&request, &*house.clock);
        log(&request, &decision);
        decision
    });
    match deciding.await {
        Ok(decision) => answer(decision),
        Err(error) => {
            tracing::error!(%error, "a request could not be decided");
            said(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed")
        }
    }
}

/// What may be proof of misbehaviour is kept in the witness's own log, whole.
fn log(request: &AddCheckpoint, decision: &Decision) {
    match decision {
        Decision::Signed(_) => {}
        Decision::OtherRoot | Decision::NotProven => {
            tracing::error!(?decision, request = %request, "the log signed what does not fit its past");
        }
        Decision::NotKept(cause) => {
            tracing::error!(%cause, "nothing can be signed: the state cannot be written")
        }
        other => tracing::info!(decision = ?other, "a request was refused"),
    }
}

fn answer(decision: Decision) -> Response {
    match decision {
        Decision::Signed(line) => text(StatusCode::OK, line),
        Decision::Malformed(why) => said(StatusCode::BAD_REQUEST, &why),
        Decision::UnknownLog => said(StatusCode::NOT_FOUND, "this witness does not know the log"),
        Decision::NotSigned(why) => said(StatusCode::FORBIDDEN, &why),
        Decision::OtherSize(size) => {
            (StatusCode::CONFLICT, [(header::CONTENT_TYPE, SIZE_TYPE)], format!("{size}\n")).into_response()
        }
        Decision::OtherRoot => {
            said(StatusCode::CONFLICT, "another checkpoint of this size was signed before, with another root")
        }
        Decision::NotProven => said(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the proof does not show that this checkpoint continues the last one",
        ),
        Decision::NotKept(_) => {
            said(StatusCode::INTERNAL_SERVER_ERROR, "the witness cannot write its state and signs nothing")
        }
    }
}

async fn last(State(house): State<House>, Path(origin): Path<String>) -> Response {
    match house.witness.last(&origin) {
        Some(note) => text(StatusCode::OK, note),
        None => said(StatusCode::NOT_FOUND, "nothing was signed under this name"),
    }
}

fn said(status: StatusCode, what: &str) -> Response {
    text(status, format!("{what}\n"))
}

fn text(status: StatusCode, body: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}
