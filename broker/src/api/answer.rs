//! What the API answers, and how it reads what it is asked.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use gate::{Refusal, RefusalKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest body of a request that is not an upload, in bytes.
const BODY: usize = 64 << 10;
/// How long a client may take to send it.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A "no", with its status.
#[derive(Debug)]
pub struct Fault {
    status: StatusCode,
    body: FaultBody,
}

#[derive(Debug, Serialize)]
struct FaultBody {
    code: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<u64>,
}

impl Fault {
    /// A "no" of the API itself.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Fault {
        Fault { status, body: FaultBody { code: code.to_owned(), message: message.into(), record: None } }
    }

    /// The request makes no sense.
    pub fn malformed(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// The error as a line of a progress stream.
    pub fn line(&self) -> serde_json::Value {
        serde_json::json!({ "error": self.body })
    }

    /// The stable word.
    pub fn code(&self) -> &str {
        &self.body.code
    }

    /// The sentence for the person.
    pub fn message(&self) -> &str {
        &self.body.message
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        let status = match refusal.kind {
            RefusalKind::Denied => StatusCode::FORBIDDEN,
            RefusalKind::Malformed => StatusCode::BAD_REQUEST,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Fault {
            status,
            body: FaultBody { code: refusal.code, message: refusal.message, record: refusal.record },
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        json(self.status, &self.line())
    }
}

/// A good answer.
#[derive(Debug)]
pub struct Answer<T>(pub T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    match serde_json::to_vec(value) {
        Ok(body) => (status, headers, body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What is asked, from a JSON body: bounded in size and time, unknown fields refused.
#[derive(Debug)]
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Asked<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Result<Self, Fault> {
        let body = small_body(request.into_body()).await?;
        read(&body).map(Asked)
    }
}

/// Reads what is asked.
///
/// `bytes` are foreign; whatever they are, the result is the value or a sentence about the first
/// thing wrong with them.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|e| Fault::malformed(format!("The request cannot be read: {e}.")))
}

async fn small_body(body: Body) -> Result<bytes::Bytes, Fault> {
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let message = format!("The body broke off, or has more than {BODY} bytes.");
            Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "body", message))
        }
        Err(_) => Err(Fault::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "The body of the request took too long to arrive.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ask {
        person: model::PersonId,
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        assert_eq!(read::<Ask>(br#"{"person":"u:alice"}"#).unwrap().person.name(), "alice");
        for bad in [&b""[..], b"{", br#"{"person":"alice"}"#, br#"{"person":"u:a","admin":true}"#, b"\xff"] {
            let fault = read::<Ask>(bad).unwrap_err();
            assert_eq!((fault.status, fault.code()), (StatusCode::BAD_REQUEST, "malformed"));
        }
        let long = axum::body::Body::from(vec![b' '; BODY + 1]);
        let fault = futures::executor::block_on(async {
            // A body that is all there needs no clock.
            axum::body::to_bytes(long, BODY).await.map_err(|_| ())
        });
        assert!(fault.is_err());
    }
}
