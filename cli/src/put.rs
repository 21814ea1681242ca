use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, header};
use indicatif::{ProgressBar, ProgressStyle};
use intake::crypt4gh::{Encryptor, PublicKey};
use model::DatasetId;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::{self, Api, ApiError, FailureBody, IntakeKey, printable};
use crate::fault::{Exit, Fault};
use crate::home::Home;
use crate::{Surroundings, args, login, say};

/// How much of a file is read and encrypted at a time.
const PIECE: usize = 1 << 20;
/// Pieces between reading and sending.
const AHEAD: usize = 4;
/// A transfer in which nothing moves for this long has broken off.
const STALL: Duration = Duration::from_secs(150);
/// The longest line of the answer.
const LINE_MAX: usize = 64 << 10;
/// How often progress is told where there is no bar.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// `sekisho put`: deposits files. Each is encrypted here for the intake enclave; what passes the
/// broker is ciphertext.
pub async fn put(around: &Surroundings, home: &Home, args: &args::Put) -> Result<(), Fault> {
    if args.name.is_some() && args.files.len() > 1 {
        return Err(Fault::usage(say!(OneName)));
    }
    let bare = args.dataset.strip_prefix(DatasetId::PREFIX).unwrap_or(&args.dataset);
    let dataset = DatasetId::from_name(bare)
        .map_err(|e| Fault::usage(say!(BadName, text = args.dataset)).because(&e))?;
    // Every name first: half of a batch is worse than none.
    let names: Vec<String> =
        args.files.iter().map(|f| object_name(f, args.name.as_deref())).collect::<Result<_, _>>()?;
    for (file, name) in args.files.iter().zip(&names) {
        // A long batch may outlive the certificates.
        let api = login::authenticated(around, home).await?;
        let stored = upload(around, &api, file, &dataset, name).await?;
        if around.json {
            around.print_json(&serde_json::json!({
                "file": file, "name": name, "dataset": dataset,
                "object": stored.object, "size": stored.size, "root": stored.root,
            }));
        } else {
            let (object, size, root) = (printable(&stored.object), stored.size, printable(&stored.root));
            around.print(&say!(Stored, name = name, object = object, size = size, root = root));
        }
    }
    Ok(())
}

/// What the enclave says it stored.
#[derive(Debug, PartialEq, Eq)]
struct StoredObject {
    object: String,
    size: u64,
    root: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Stored { object: String, size: u64, root: String },
    Error { error: FailureBody },
    Progress { progress: u64 },
}

async fn upload(
    around: &Surroundings,
    api: &Api,
    path: &Path,
    dataset: &DatasetId,
    name: &str,
) -> Result<StoredObject, Fault> {
    let cannot_read =
        |e: std::io::Error| Fault::failed("io", say!(CannotRead, path = path.display())).because(&e);
    let file = File::open(path).await.map_err(cannot_read)?;
    let metadata = file.metadata().await.map_err(cannot_read)?;
    if !metadata.is_file() {
        return Err(Fault::usage(say!(NotAFile, path = path.display())));
    }
    let size = metadata.len();
    let key: IntakeKey = api.get("/v1/intake-key").await.map_err(|e| e.into_fault(api.url()))?;
    let cannot_encrypt =
        |why: String| Fault::failed("encrypt", say!(CannotEncrypt, name = name)).why(printable(&why));
    let key = intake_key(&key.key).map_err(cannot_encrypt)?;
    let sealer = Encryptor::new(&key, &*around.entropy).map_err(|e| cannot_encrypt(e.to_string()))?;

    let (sender, receiver) = mpsc::channel(AHEAD);
    let body = StreamBody::new(stream::unfold(receiver, |mut receiver| async {
        let piece: std::io::Result<Bytes> = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    }));
    let request = Request::builder()
        .method(Method::PUT)
        .uri(format!("/v1/datasets/{dataset}/objects/{name}"))
        .header(header::CONTENT_TYPE, "application/octet-stream");

    let meter = Meter::new(around, name, size);
    let answered = async {
        let response = api.send(request, body.boxed_unsync()).await.map_err(|e| e.into_fault(api.url()))?;
        read_answer(api, response, name, &meter).await
    };
    // The sender must go when its work is done, for the body to end; a refusal ends both.
    let sent = async {
        let result = seal_file(file, sealer, &sender, &meter).await;
        drop(sender);
        match result {
            Ok(()) => Ok(()),
            Err(error) => Err(cannot_read(error)),
        }
    };
    let result = tokio::try_join!(sent, answered);
    meter.done();
    let ((), stored) = result?;
    if stored.size != size {
        let fault = Fault::failed("size", say!(SizeDiffers, name = name, stored = stored.size, size = size));
        return Err(fault.todo(say!(SizeDiffersTodo)));
    }
    Ok(stored)
}

async fn seal_file(
    mut file: File,
    mut sealer: Encryptor,
    to: &mpsc::Sender<std::io::Result<Bytes>>,
    meter: &Meter,
) -> std::io::Result<()> {
    let mut sealed = sealer.header().to_vec();
    let mut piece = vec![0; PIECE];
    loop {
        // Nobody listens any more: the answer says why.
        if !sealed.is_empty() && to.send(Ok(Bytes::from(sealed))).await.is_err() {
            return Ok(());
        }
        match file.read(&mut piece).await {
            Ok(0) => {
                let _ = to.send(Ok(Bytes::from(sealer.finish()))).await;
                return Ok(());
            }
            Ok(count) => {
                sealed = sealer.push(&piece[..count]);
                meter.sent(count as u64);
            }
            Err(error) => {
                // The body must break, not end: an end would look like a whole file.
                let _ = to.send(Err(std::io::Error::other("the file could not be read to its end"))).await;
                return Err(error);
            }
        }
    }
}

async fn read_answer(
    api: &Api,
    response: Response<Incoming>,
    name: &str,
    meter: &Meter,
) -> Result<StoredObject, Fault> {
    let status = response.status();
    let fault = |e: ApiError| e.into_fault(api.url());
    if !status.is_success() {
        let body = api::collect(response).await.map_err(fault)?;
        return Err(fault(api::refusal(status, &body)));
    }
    let broken = || {
        Fault::new(Exit::Unavailable, "broken", say!(UploadBroken, name = name)).todo(say!(UploadBrokenTodo))
    };
    let mut body = response.into_body();
    let mut lines = Lines::default();
    loop {
        let before = meter.moved();
        let frame = match tokio::time::timeout(STALL, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(|e| broken().because(&e))?,
            Ok(None) => return Err(broken()),
            Err(_) if meter.moved() != before => continue,
            Err(_) => return Err(broken().why(format!("nothing moved for {} s", STALL.as_secs()))),
        };
        let Ok(data) = frame.into_data() else { continue };
        for line in lines.push(&data).map_err(|why| fault(ApiError::NotUnderstood(why)))? {
            match line {
                Line::Progress { progress } => meter.confirmed(progress),
                Line::Stored { object, size, root } => return Ok(StoredObject { object, size, root }),
                Line::Error { error } => {
                    let message = printable(&error.message);
                    return Err(Fault::failed(
                        &printable(&error.code),
                        say!(FailedAtBroker, message = message),
                    ));
                }
            }
        }
    }
}

/// Cuts foreign bytes into lines of JSON.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<Line>, String> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if !line.trim_ascii().is_empty() {
                lines.push(serde_json::from_slice(&line).map_err(|e| e.to_string())?);
            }
        }
        if self.rest.len() > LINE_MAX { Err("a line without end".to_owned()) } else { Ok(lines) }
    }
}

/// The answer to an upload, as it arrives; for fuzzing. Returns how many lines were understood.
pub fn parse_upload_answer(bytes: &[u8]) -> Result<usize, String> {
    Lines::default().push(bytes).map(|lines| lines.len())
}

/// Tells how far it has come: a bar on a terminal, a line now and then elsewhere.
struct Meter {
    name: String,
    size: u64,
    sent: AtomicU64,
    confirmed: AtomicU64,
    show: Show,
}

enum Show {
    Bar(ProgressBar),
    Lines { lang: crate::words::Lang, last: std::sync::Mutex<Instant> },
    Nothing,
}

impl Meter {
    fn new(around: &Surroundings, name: &str, size: u64) -> Meter {
        let show = if around.json {
            Show::Nothing
        } else if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(
                "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
            );
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            Show::Bar(ProgressBar::new(size).with_style(style).with_message(name.to_owned()))
        } else {
            Show::Lines { lang: around.lang, last: std::sync::Mutex::new(Instant::now()) }
        };
        Meter { name: name.to_owned(), size, sent: AtomicU64::new(0), confirmed: AtomicU64::new(0), show }
    }

    fn sent(&self, more: u64) {
        let sent = self.sent.fetch_add(more, Ordering::Relaxed) + more;
        match &self.show {
            Show::Bar(bar) => bar.set_position(sent),
            Show::Lines { lang, last } => {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.elapsed() >= TELL_EVERY {
                    *last = Instant::now();
                    let (done, size) = (indicatif::HumanBytes(sent), indicatif::HumanBytes(self.size));
                    eprintln!("{}", say!(Sending, name = self.name, done = done, size = size).text(*lang));
                }
            }
            Show::Nothing => {}
        }
    }

    fn confirmed(&self, bytes: u64) {
        self.confirmed.store(bytes, Ordering::Relaxed);
    }

    /// Changes whenever anything has moved in either direction.
    fn moved(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.confirmed.load(Ordering::Relaxed))
    }

    fn done(&self) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
    }
}

/// The intake enclave's key, as the broker passes it on: base64 of its 32 bytes.
fn intake_key(text: &str) -> Result<PublicKey, String> {
    let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|e| e.to_string())?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| "the intake key does not have 32 bytes".to_owned())?;
    Ok(PublicKey::from_bytes(bytes))
}

/// A name that the broker takes: a file name without anything that means something in a path or
/// an address.
fn object_name(path: &Path, given: Option<&str>) -> Result<String, Fault> {
    let name = given.or_else(|| path.file_name().and_then(|n| n.to_str())).unwrap_or_default();
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'+');
    if name.is_empty() || name.len() > 200 || name.starts_with(['.', '-']) || !name.bytes().all(plain) {
        let fault = Fault::usage(say!(NoFileName, path = path.display()));
        return Err(fault.todo(say!(NoFileNameTodo)));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_pieces() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"progress\":1}\n{\"prog").unwrap().len() == 1);
        let got = lines
            .push(b"ress\":2}\n\n{\"object\":\"obj:1\",\"size\":3,\"root\":\"ab\",\"new\":true}\n")
            .unwrap();
        assert!(matches!(got[..], [Line::Progress { progress: 2 }, Line::Stored { size: 3, .. }]), "{got:?}");
        let got = lines.push(b"{\"error\":{\"code\":\"c\",\"message\":\"m\"}}\n").unwrap();
        assert!(matches!(&got[..], [Line::Error { error }] if error.code == "c"));
        assert!(lines.push(b"<html>\n").is_err());
        assert!(Lines::default().push(&vec![b' '; LINE_MAX + 1]).is_err());
    }

    #[test]
    fn names_are_those_of_files() {
        assert_eq!(object_name(Path::new("/a/NA12878.chr20.bam"), None).unwrap(), "NA12878.chr20.bam");
        assert_eq!(object_name(Path::new("/a/x y"), Some("xy.bam")).unwrap(), "xy.bam");
        for bad in ["/a/x y", "/a/.hidden", "/", "/a/患者.bam", "/a/-x"] {
            assert!(object_name(Path::new(bad), None).is_err(), "{bad}");
        }
        assert!(object_name(Path::new("a"), Some("../b")).is_err());
    }
}
