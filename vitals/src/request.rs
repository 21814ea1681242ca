//! The little of HTTP/1.1 (RFC 9112) that is spoken here, without I/O: one question, one answer, the end.

use model::metrics::CONTENT_TYPE;

/// The longest head of a request that is read.
pub const HEAD_MAX: usize = 4096;
/// The most fields in it.
const FIELDS: usize = 32;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `/health`.
    Health,
    /// `/metrics`.
    Metrics,
    /// Something that is not here.
    Nothing,
}

/// A request whose head was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub asked: Asked,
    /// Whether it wants the head of the answer alone.
    pub head_only: bool,
}

/// A request that is answered with its fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no HTTP/1.
    #[error("this is no request of HTTP/1.1")]
    Malformed,
    /// Its head is longer than anybody needs.
    #[error("the head of a request has at most {HEAD_MAX} bytes and {FIELDS} fields")]
    TooLong,
    /// It wants to change something.
    #[error("only GET and HEAD are answered")]
    Method,
}

/// Reads a request from the bytes that have come so far; none if its head has not ended yet.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLong),
        Err(_) => return Err(Fault::Malformed),
    }
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Fault::Method),
    };
    let path = head.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let asked = match path {
        "/health" => Asked::Health,
        "/metrics" => Asked::Metrics,
        _ => Asked::Nothing,
    };
    Ok(Some(Request { asked, head_only }))
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    form: &'static str,
    body: String,
}

impl Answer {
    /// The health of a process, as JSON.
    pub fn health(status: u16, json: String) -> Answer {
        Answer { status, form: "application/json", body: json }
    }

    /// Figures in the text format of Prometheus.
    pub fn metrics(text: String) -> Answer {
        Answer { status: 200, form: CONTENT_TYPE, body: text }
    }

    /// There is nothing at that place.
    pub fn nothing() -> Answer {
        Answer::said(404, "there are /health and /metrics")
    }

    fn said(status: u16, what: &str) -> Answer {
        Answer { status, form: "text/plain; charset=utf-8", body: format!("{what}\n") }
    }

    /// Its bytes; the head alone if no more is wanted.
    pub fn to_bytes(&self, head_only: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let allow = if self.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            self.status,
            self.form,
            self.body.len()
        );
        if !head_only {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Answer {
        let status = match fault {
            Fault::Malformed => 400,
            Fault::Method => 405,
            Fault::TooLong => 431,
        };
        Answer::said(status, &fault.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n").into_bytes()
    }

    #[test]
    fn what_is_asked_for_is_found_and_nothing_else_is() {
        let asked = |path| parse(&get(path)).unwrap().unwrap().asked;
        assert_eq!(asked("/health"), Asked::Health);
        assert_eq!(asked("/metrics?name[]=up"), Asked::Metrics);
        for path in ["/", "/health/", "/metrics/../health", "//health", "*"] {
            assert_eq!(asked(path), Asked::Nothing, "{path}");
        }
        let head = b"HEAD /health HTTP/1.1\r\n\r\n";
        assert_eq!(parse(head), Ok(Some(Request { asked: Asked::Health, head_only: true })));
    }

    #[test]
    fn what_is_no_question_is_told_why() {
        assert_eq!(parse(b"POST /metrics HTTP/1.1\r\n\r\n"), Err(Fault::Method));
        assert_eq!(parse(b"\x16\x03\x01\x02\x00\x01\x00"), Err(Fault::Malformed));
        let fields: String = (0..=FIELDS).map(|n| format!("x-{n}: 1\r\n")).collect();
        assert_eq!(parse(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()), Err(Fault::TooLong));
        let long = [&b"GET /"[..], &[b'a'; HEAD_MAX]].concat();
        assert_eq!(parse(&long), Err(Fault::TooLong));
    }

    #[test]
    fn an_answer_reads_like_this() {
        let text = |answer: Answer| String::from_utf8(answer.to_bytes(false)).unwrap();
        assert_eq!(
            text(Answer::health(503, "{}".to_owned())),
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{}"
        );
        assert!(text(Fault::Method.into()).contains("\r\nAllow: GET, HEAD\r\n"));
        let head = Answer::metrics("up 1\n".to_owned()).to_bytes(true);
        assert!(
            head.ends_with(b"Connection: close\r\n\r\n")
                && head.windows(17).any(|w| w == b"Content-Length: 5".as_slice())
        );
    }

    proptest! {
        #[test]
        fn a_request_is_the_same_however_it_is_cut(path in "/[a-z?=]{0,20}", cut in 0_usize..60) {
            let bytes = get(&path);
            let cut = cut.min(bytes.len() - 1);
            prop_assert_eq!(parse(&bytes[..cut]), Ok(None));
            prop_assert!(parse(&bytes).unwrap().is_some());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>, text in "(GET|HEAD|PUT) [ -~]{0,40}( HTTP/1.1)?(\r\n){0,2}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
