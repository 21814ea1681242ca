//! The house's records in the vault: which there are, and parts of the audit log back.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use audit::{LogPublicKey, SegmentFault, SegmentHeader, SegmentReader};
use http_body_util::BodyExt;
use hyper::{Method, Request};
use model::ObjectId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{self, Api, ApiError};
use crate::args::{Fetch, Unpack};
use crate::fault::{Exit, Fault};
use crate::home::Home;
use crate::{Surroundings, login, say, table};

/// A transfer in which nothing moves for this long has broken off.
const STALL: Duration = Duration::from_secs(150);

/// What the broker says of the vault.
#[derive(Debug, Deserialize)]
struct Listing {
    segments: Vec<Segment>,
    kept: u64,
}

/// A part of the log in the vault, or on its way there.
#[derive(Debug, Deserialize)]
struct Segment {
    object: ObjectId,
    first: u64,
    count: u64,
    state: String,
    #[serde(default)]
    file: Option<Stored>,
}

#[derive(Debug, Deserialize)]
struct Stored {
    size: u64,
}

/// `sekisho audit kept`: what lies in the vault.
pub async fn kept(around: &Surroundings, home: &Home) -> Result<(), Fault> {
    let api = login::authenticated(around, home).await?;
    let listing: Value = api.get("/v1/kept").await.map_err(|e| e.into_fault(api.url()))?;
    if around.json {
        around.print_json(&listing);
        return Ok(());
    }
    let rows = |name: &str| listing[name].as_array().cloned().unwrap_or_default();
    let all: Vec<Value> = rows("segments").into_iter().chain(rows("recordings")).collect();
    if all.is_empty() {
        around.print(&say!(Nothing));
    } else {
        let rows: Vec<Value> = all.into_iter().map(flat).collect();
        around.line(table::render(&rows).trim_end());
    }
    let number = |name: &str| listing[name].as_u64().unwrap_or_default();
    around.print(&say!(
        LogKept,
        kept = number("kept"),
        waiting = number("waiting"),
        local = number("local_from")
    ));
    Ok(())
}

/// What was deposited, beside the rest.
fn flat(mut row: Value) -> Value {
    let file = row.get_mut("file").map(Value::take);
    if let (Some(fields), Some(Value::Object(file))) = (row.as_object_mut(), file) {
        fields.remove("file");
        fields.extend(file);
    }
    row
}

/// `sekisho audit fetch`: parts of the log out of the vault, checked here again, into a folder that
/// `audit verify --kept`, `audit search` and `audit tail` read.
pub async fn fetch(around: &Surroundings, home: &Home, asked: &Fetch) -> Result<(), Fault> {
    let key = key_in(&asked.key)?;
    let to = asked.to.map_or(u64::MAX, |to| to.saturating_add(1));
    if to <= asked.from {
        return Err(Fault::usage(say!(BadEntries)));
    }
    let api = login::authenticated(around, home).await?;
    let path = format!("/v1/kept?from={}&to={to}", asked.from);
    let listing: Listing = api.get(&path).await.map_err(|e| e.into_fault(api.url()))?;
    std::fs::create_dir_all(&asked.out).map_err(|e| cannot_write(&asked.out, &e))?;
    if asked.out.join("lock").exists() {
        return Err(Fault::usage(say!(LogNotOverIt, path = asked.out.display())));
    }
    let mut next = asked.from;
    for segment in listing.segments {
        let Some(file) = segment.file.filter(|_| segment.state != "stored") else { continue };
        // A gap would go unnoticed otherwise.
        if segment.first > next {
            break;
        }
        let whole = asked.out.join(format!("entries-{}-{}.jsonl.gz", segment.first, segment.count));
        if !whole.exists() {
            // Long transfers may outlive the certificates.
            let api = login::authenticated(around, home).await?;
            let part = whole.with_extension("part");
            download(&api, &segment.object, file.size, &part).await?;
            let range = (segment.first, segment.count);
            unpack_to(&part, &key, &asked.out, Some(range))
                .inspect_err(|_| drop(std::fs::remove_file(&part)))?;
            std::fs::rename(&part, &whole).map_err(|e| cannot_write(&whole, &e))?;
        } else {
            unpack_to(&whole, &key, &asked.out, Some((segment.first, segment.count)))?;
        }
        next = segment.first + segment.count;
        if around.json {
            around.print_json(&json!({
                "object": segment.object, "first": segment.first, "count": segment.count, "file": whole,
            }));
        } else {
            let last = next - 1;
            around.print(&say!(LogFetched, first = segment.first, last = last, object = segment.object));
        }
    }
    if next < to.min(listing.kept) || next == asked.from {
        return Err(Fault::failed("not_kept", say!(LogNotKept, index = next)));
    }
    if !around.json {
        around.print(&say!(LogFetchedTodo, path = asked.out.display()));
    }
    Ok(())
}

/// `sekisho audit unpack`: a part of the log that `sekisho-shard` has rebuilt, without a broker.
pub fn unpack(around: &Surroundings, asked: &Unpack) -> Result<(), Fault> {
    let key = key_in(&asked.key)?;
    if asked.out.join("lock").exists() {
        return Err(Fault::usage(say!(LogNotOverIt, path = asked.out.display())));
    }
    for file in &asked.files {
        let header = unpack_to(file, &key, &asked.out, None)?;
        let (first, last) = (header.range.first(), header.range.end() - 1);
        if around.json {
            around.print_json(&json!({
                "file": file, "first": first, "count": header.range.count(), "checkpoint": header.note,
            }));
        } else {
            around.print(&say!(LogUnpacked, first = first, last = last, path = file.display()));
        }
    }
    if !around.json {
        around.print(&say!(LogFetchedTodo, path = asked.out.display()));
    }
    Ok(())
}

/// Checks a part of the log, and only then writes its bundles.
fn unpack_to(
    file: &Path,
    key: &LogPublicKey,
    out: &Path,
    range: Option<(u64, u64)>,
) -> Result<SegmentHeader, Fault> {
    let unreadable =
        |e: &std::io::Error| Fault::failed("io", say!(CannotRead, path = file.display())).because(e);
    let bad = |fault: SegmentFault| {
        Fault::failed("not_the_log", say!(LogNotASegment, path = file.display()))
            .because(&fault)
            .todo(say!(LogBadTodo))
    };
    let open = || -> Result<SegmentReader<File>, Fault> {
        let bytes = File::open(file).map_err(|e| unreadable(&e))?;
        SegmentReader::open(bytes, key).map_err(bad)
    };
    // One root stands for all of it: it is read through before anything is believed.
    let mut reader = open()?;
    let header = reader.header().clone();
    let (first, count) = (header.range.first(), header.range.count());
    if range.is_some_and(|range| range != (first, count)) {
        return Err(bad(SegmentFault::OtherRange { first, found: count }));
    }
    while reader.next_bundle().map_err(bad)?.is_some() {}
    audit::prepare_folder(out, &header).map_err(|e| cannot_write(out, &e))?;
    let mut reader = open()?;
    while let Some(bundle) = reader.next_bundle().map_err(bad)? {
        audit::write_bundle(out, &bundle).map_err(|e| cannot_write(out, &e))?;
    }
    Ok(header)
}

async fn download(api: &Api, object: &ObjectId, size: u64, to: &Path) -> Result<(), Fault> {
    let request = Request::builder().method(Method::GET).uri(format!("/v1/kept/{object}"));
    let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    let fault = |e: ApiError| e.into_fault(api.url());
    let response = api.send(request, empty).await.map_err(fault)?;
    if !response.status().is_success() {
        let status = response.status();
        let body = api::collect(response).await.map_err(fault)?;
        return Err(fault(api::refusal(status, &body)));
    }
    let mut file = File::create(to).map_err(|e| cannot_write(to, &e))?;
    let mut body = response.into_body();
    let broken = |why: String| Fault::failed("broken_off", say!(LogBrokenOff, object = object)).why(why);
    let mut got = 0_u64;
    loop {
        let frame = tokio::time::timeout(STALL, body.frame()).await;
        let frame = frame.map_err(|_| broken("nothing came any more".to_owned()))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| broken(e.to_string()))?;
        if let Some(bytes) = frame.data_ref() {
            got += bytes.len() as u64;
            if got > size {
                return Err(broken("more came than was kept".to_owned()));
            }
            file.write_all(bytes).map_err(|e| cannot_write(to, &e))?;
        }
    }
    if got < size {
        return Err(broken(format!("{got} of {size} bytes came")));
    }
    file.sync_all().map_err(|e| cannot_write(to, &e))
}

fn key_in(path: &PathBuf) -> Result<LogPublicKey, Fault> {
    let cannot_read = || Fault::failed("io", say!(CannotRead, path = path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| cannot_read().because(&e))?;
    text.trim_end().parse().map_err(|e: audit::KeyError| cannot_read().because(&e))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(Exit::Failed, "io", say!(CannotWrite, path = path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use audit::{Event, EventKind, Log, LogKey, Options, Reader, SegmentRange};

    use super::*;
    use crate::testing::around;

    /// A log of 600 entries, the first 512 of which lie in a file instead.
    async fn moved(dir: &Path) -> PathBuf {
        let around = around();
        let key = LogKey::generate("sekisho.test/audit", &*around.entropy).unwrap();
        let open =
            || Log::open(&dir.join("log"), key.clone(), around.clock.clone(), Options::default()).unwrap();
        let log = open();
        let kind = EventKind::Stopped { process: "broker".to_owned(), reason: "test".to_owned() };
        let event = Event::new(around.clock.now(), kind);
        let entries: Vec<_> = (0..600)
            .map(|_| {
                let (log, event) = (log.clone(), event.clone());
                tokio::spawn(async move { log.append(&event).await.unwrap() })
            })
            .collect();
        for entry in entries {
            entry.await.unwrap();
        }
        log.close().await;
        let (log, part) = (open(), dir.join("part.jsonl.gz"));
        let range = SegmentRange::new(0, 512).unwrap();
        let note = log.checkpoint();
        log.reader().pack(range, &note, &mut File::create(&part).unwrap()).unwrap();
        log.remove_local(range).unwrap();
        log.close().await;
        part
    }

    #[tokio::test]
    async fn what_was_moved_is_passed_over_and_what_was_unpacked_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let part = moved(dir.path()).await;
        let (around, out, log) = (around(), dir.path().join("out"), dir.path().join("log"));
        let key = log.join("key.pub");
        let asked = |words: &str| {
            let line = format!("sekisho audit {words}");
            let cli = <crate::args::Cli as clap::Parser>::try_parse_from(line.split_whitespace()).unwrap();
            match cli.command {
                crate::args::Command::Audit(command) => command,
                _ => unreachable!(),
            }
        };
        let show = |path: &Path| path.display().to_string();
        let audit = async |words: String| crate::trail::audit(&around, &asked(&words)).await;
        audit(format!("search --dir {} --kind stopped -n 1", show(&log))).await.unwrap();
        audit(format!("tail --dir {} -n 600", show(&log))).await.unwrap();
        audit(format!("verify --dir {}", show(&log))).await.unwrap();
        assert!(audit(format!("proof --dir {} 3", show(&log))).await.is_err());
        audit(format!("proof --dir {} 555", show(&log))).await.unwrap();

        let crate::args::Audit::Unpack(unpacking) =
            asked(&format!("unpack --key {} --out {} {}", show(&key), show(&out), show(&part)))
        else {
            unreachable!()
        };
        unpack(&around, &unpacking).unwrap();
        unpack(&around, &unpacking).unwrap();
        let reader = Reader::open(&out).unwrap();
        assert_eq!(reader.read(0, 1000).unwrap().len(), 512);
        audit(format!("search --dir {} --kind stopped", show(&out))).await.unwrap();
        let beside = format!("--dir {} --kept {}", show(&log), show(&out));
        audit(format!("verify {beside}")).await.unwrap();
        // What was moved is read with the rest, and proven by the hashes that stayed.
        audit(format!("search {beside} --kind stopped")).await.unwrap();
        audit(format!("tail {beside} -n 600")).await.unwrap();
        audit(format!("proof {beside} 3")).await.unwrap();
        let whole = Reader::open(&log).unwrap().beside(&out);
        let mut next = 0;
        while let Some((last, _)) = whole.read(next, 100).unwrap().last() {
            next = last + 1;
        }
        assert_eq!(next, 600);

        // One changed byte, another key: nothing is written.
        let mut bytes = std::fs::read(&part).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&part, &bytes).unwrap();
        std::fs::remove_dir_all(&out).unwrap();
        assert_eq!(unpack(&around, &unpacking).unwrap_err().code, "not_the_log");
        assert!(!out.exists());
    }
}
