use std::path::{Path, PathBuf};
use std::time::Duration;

use audit::{LogPublicKey, Proof, ReadError, Reader, VerifyError, VerifyReport, WitnessPublicKey};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::api::printable;
use crate::args::{Audit, AuditLog, Search};
use crate::fault::{Exit, Fault};
use crate::search::Wanted;
use crate::{Surroundings, say};

/// Entries read at a time.
const BATCH: usize = 256;
/// How often a log that is followed is looked at.
const FOLLOW: Duration = Duration::from_millis(250);

/// `sekisho audit`: reads a log offline, without the process that writes it. What is not covered
/// by a signed checkpoint yet is not shown: it follows within a second.
pub async fn audit(around: &Surroundings, command: &Audit) -> Result<(), Fault> {
    match command {
        Audit::Verify { log, witness_key } => verify(around, log, witness_key.as_deref()),
        Audit::Tail { log, count, follow } => tail(around, log, *count, *follow).await,
        Audit::Search(search) => find(around, search),
        Audit::Proof { log, index } => proof(around, log, *index),
        // These need more than a log, and are seen to where it is.
        Audit::Kept | Audit::Fetch(_) | Audit::Unpack(_) => Ok(()),
    }
}

fn verify(around: &Surroundings, log: &AuditLog, witness_key: Option<&str>) -> Result<(), Fault> {
    let dir = folder(&log.dir);
    let key = trusted_key(&dir, log)?;
    let witness = witness_key.map(key_of_witness).transpose()?;
    let report = audit::verify_with(&dir, log.kept.as_deref(), &key, witness.as_ref());
    let report = report.map_err(|e| damaged(&dir, &e))?;
    let root = HEXLOWER.encode(&report.root);
    if around.json {
        around.print_json(&json!({
            "whole": true, "entries": report.entries, "size": report.size, "root": root,
            "bytes": report.bytes, "unfinished": report.unfinished, "live": report.live,
            "key": key.to_string(), "checkpoint": report.checkpoint,
            "witnessed": witnessed_json(&report, witness.as_ref()),
            "removed": report.removed, "fetched": report.fetched,
        }));
        return Ok(());
    }
    around.print(&say!(LogGood, entries = report.entries, root = root));
    around.print(&say!(LogSigned, size = report.size, bytes = report.bytes, key = key));
    if report.fetched > 0 {
        around.print(&say!(LogFetchedChecked, fetched = report.fetched));
    }
    if report.removed > 0 {
        around.print(&say!(LogRemoved, removed = report.removed));
    }
    if log.key.is_none() {
        around.print(&say!(LogKeyBeside));
    }
    match (&report.witnessed, &witness) {
        (Some(seen), Some(witness)) => {
            let at = seen.cosignature.as_ref().map_or_else(String::new, |c| c.at.to_string());
            around.print(&say!(LogWitnessed, witness = witness.name(), size = seen.size, at = at));
        }
        (Some(seen), None) => around.print(&say!(LogWitnessUnknown, size = seen.size)),
        (None, _) => around.print(&say!(LogUnwitnessed)),
    }
    Ok(())
}

/// What a program is told of the witness: whether its signature was checked, and how far it has come.
fn witnessed_json(report: &VerifyReport, witness: Option<&WitnessPublicKey>) -> Value {
    report.witnessed.as_ref().map_or(Value::Null, |seen| {
        json!({
            "size": seen.size, "behind": report.size.saturating_sub(seen.size),
            "verified": seen.cosignature.is_some(), "witness": witness.map(WitnessPublicKey::name),
            "at": seen.cosignature.as_ref().map(|c| c.at.to_string()), "note": seen.note,
        })
    })
}

async fn tail(around: &Surroundings, log: &AuditLog, count: u64, follow: bool) -> Result<(), Fault> {
    let dir = folder(&log.dir);
    let reader = open(&dir, log)?;
    let fault = |e: ReadError| unreadable(&dir, &e);
    let origin = reader.key().origin().to_owned();
    let mut next = reader.checkpoint().map_err(fault)?.0.size.saturating_sub(count);
    loop {
        let entries = read(around, &reader, &mut next).map_err(fault)?;
        for (index, entry) in &entries {
            // An entry is JSON unless it was damaged, and damage is found by `verify`.
            let value = audit::export(&origin, *index, entry).unwrap_or_else(|| json!({"index": index}));
            if around.json {
                around.print_json(&value);
            } else {
                around.line(&line(*index, &value));
            }
            next = index + 1;
        }
        match (entries.is_empty(), follow) {
            (false, _) => {}
            (true, false) => return Ok(()),
            (true, true) => tokio::time::sleep(FOLLOW).await,
        }
    }
}

/// Goes through the log from its beginning, a few entries at a time: clocks jump, so the order of
/// times is not that of entries.
fn find(around: &Surroundings, search: &Search) -> Result<(), Fault> {
    let wanted = Wanted::new(search)?;
    let dir = folder(&search.log.dir);
    let reader = open(&dir, &search.log)?;
    let fault = |e: ReadError| unreadable(&dir, &e);
    let origin = reader.key().origin().to_owned();
    let most = search.count.unwrap_or(u64::MAX);
    let (mut next, mut found) = (0, 0);
    while found < most {
        let entries = read(around, &reader, &mut next).map_err(fault)?;
        let Some((last, _)) = entries.last() else { break };
        next = last + 1;
        for (index, entry) in entries.iter().filter(|(_, entry)| wanted.may_fit(entry)) {
            let Some(value) = audit::export(&origin, *index, entry) else { continue };
            if !wanted.fits(&value) {
                continue;
            }
            if around.json {
                around.print_json(&value);
            } else {
                around.line(&line(*index, &value));
            }
            found += 1;
            if found == most {
                next = index + 1;
                break;
            }
        }
    }
    if !around.json {
        around.print(&say!(LogSearched, found = found, read = next));
    }
    Ok(())
}

/// The entries from `next` on. What was moved to the vault is passed over, and said where people read.
fn read(around: &Surroundings, reader: &Reader, next: &mut u64) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    loop {
        match reader.read(*next, BATCH) {
            Err(ReadError::Removed { index, .. }) => {
                let here = reader.next_local(index)?;
                if !around.json {
                    around.print(&say!(LogMoved, first = index, last = here - 1));
                }
                *next = here;
            }
            other => return other,
        }
    }
}

fn proof(around: &Surroundings, log: &AuditLog, index: u64) -> Result<(), Fault> {
    let dir = folder(&log.dir);
    let reader = open(&dir, log)?;
    let no_proof = || Fault::failed("no_proof", say!(NoProof, index = index));
    let proof: Proof = reader.proof(index).map_err(|e| no_proof().because(&e))?;
    // What is handed out has been checked as its receiver would.
    proof.verify(reader.key()).map_err(|e| no_proof().because(&e).todo(say!(LogBadTodo)))?;
    if around.json {
        let entry = serde_json::from_slice::<Value>(&proof.entry).ok();
        around.print_json(&json!({
            "index": proof.index, "entry": entry, "proof": proof.to_string(), "key": reader.key().to_string(),
        }));
    } else {
        around.line(proof.to_string().trim_end());
    }
    Ok(())
}

/// One entry for people: when, what, who, where, and the sentence.
fn line(index: u64, entry: &Value) -> String {
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).map(printable);
    let at = text("/time_dt").unwrap_or_default();
    let code = text("/metadata/event_code").unwrap_or_else(|| "?".to_owned());
    let mut line = format!("{index:>6}  {at}  {code:<20}");
    for pointer in ["/actor/user/uid", "/unmapped/study", "/actor/session/uid"] {
        if let Some(word) = text(pointer) {
            line += &format!(" {word}");
        }
    }
    if let Some(message) = text("/message") {
        line += &format!("  {message}");
    }
    line
}

/// The log's folder, also when the node's is named.
fn folder(named: &Path) -> PathBuf {
    let inside = named.join("broker").join("audit");
    if inside.is_dir() { inside } else { named.to_owned() }
}

/// The key that is named, or the one in the folder, which proves only that the folder fits itself.
fn trusted_key(dir: &Path, log: &AuditLog) -> Result<LogPublicKey, Fault> {
    let path = log.key.clone().unwrap_or_else(|| dir.join("key.pub"));
    let cannot_read = || Fault::failed("io", say!(CannotRead, path = path.display()));
    let text = std::fs::read_to_string(&path).map_err(|e| cannot_read().because(&e))?;
    text.trim_end().parse().map_err(|e: audit::KeyError| cannot_read().because(&e))
}

/// The key of a witness: the line itself, or a file with it.
fn key_of_witness(named: &str) -> Result<WitnessPublicKey, Fault> {
    if let Ok(key) = named.trim().parse() {
        return Ok(key);
    }
    let cannot_read = || Fault::failed("io", say!(CannotRead, path = named)).todo(say!(WitnessKeyTodo));
    let text = std::fs::read_to_string(named).map_err(|e| cannot_read().because(&e))?;
    text.trim().parse().map_err(|_| cannot_read())
}

fn open(dir: &Path, log: &AuditLog) -> Result<Reader, Fault> {
    let mut reader = Reader::open(dir).map_err(|e| unreadable(dir, &e))?;
    if let Some(kept) = &log.kept {
        reader = reader.beside(kept);
    }
    if *reader.key() == trusted_key(dir, log)? {
        Ok(reader)
    } else {
        Err(Fault::new(Exit::Refused, "other_key", say!(LogBad, path = dir.display())).todo(say!(LogBadTodo)))
    }
}

fn damaged(dir: &Path, error: &VerifyError) -> Fault {
    let fault = Fault::failed("log_damaged", say!(LogBad, path = dir.display())).todo(say!(LogBadTodo));
    match error.index {
        Some(index) => fault.why(format!("{error} (entry {index})")),
        None => fault.because(error),
    }
}

fn unreadable(dir: &Path, error: &ReadError) -> Fault {
    match error {
        ReadError::Damaged { .. } => Fault::failed("log_damaged", say!(LogBad, path = dir.display()))
            .because(error)
            .todo(say!(LogBadTodo)),
        ReadError::Io { .. } | ReadError::Outside { .. } | ReadError::Removed { .. } => {
            Fault::failed("io", say!(CannotRead, path = dir.display())).because(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use audit::{Event, EventKind, Log, LogKey, Options, WitnessKey};
    use model::{SeededEntropy, Timestamp};

    use super::*;
    use crate::testing::around;
    use crate::words::Lang;

    async fn log_of(dir: &Path, entries: usize) {
        let around = around();
        let key = LogKey::generate("sekisho.test/audit", &*around.entropy).unwrap();
        let log = Log::open(dir, key, around.clock.clone(), Options::default()).unwrap();
        for _ in 0..entries {
            log.append(&Event::new(
                around.clock.now(),
                EventKind::Stopped { process: "broker".to_owned(), reason: "test".to_owned() },
            ))
            .await
            .unwrap();
        }
        log.close().await;
    }

    #[tokio::test]
    async fn a_log_is_verified_read_and_proved_without_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog { dir: dir.path().to_owned(), key: None, kept: None };
        log_of(&dir.path().join("broker/audit"), 5).await;
        let around = around();
        verify(&around, &log, None).unwrap();
        tail(&around, &log, 3, false).await.unwrap();
        proof(&around, &log, 4).unwrap();
        assert!(proof(&around, &log, 5).is_err());

        let other = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(2)).unwrap();
        let key = dir.path().join("other.pub");
        std::fs::write(&key, format!("{}\n", other.public())).unwrap();
        let log = AuditLog { key: Some(key), ..log };
        assert!(verify(&around, &log, None).is_err() && proof(&around, &log, 1).is_err());
        assert!(tail(&around, &log, 1, false).await.is_err());
    }

    #[tokio::test]
    async fn what_a_witness_has_signed_is_verified_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog { dir: dir.path().to_owned(), key: None, kept: None };
        let folder = dir.path().join("broker/audit");
        log_of(&folder, 5).await;
        let around = around();
        let witness = WitnessKey::generate("witness.test/w", &SeededEntropy::new(3)).unwrap();
        let line = witness.public().to_string();
        let file = dir.path().join("witness.pub");
        std::fs::write(&file, format!("{line}\n")).unwrap();
        let file = file.display().to_string();
        // It has signed nothing yet.
        verify(&around, &log, None).unwrap();
        let missing = verify(&around, &log, Some(&line)).unwrap_err();
        assert_eq!((missing.exit, missing.code.as_str()), (Exit::Failed, "log_damaged"));
        assert!(missing.text(Lang::En).contains("nothing here was signed by witness.test/w"));

        let note = Reader::open(&folder).unwrap().checkpoint().unwrap().1;
        let at = Timestamp::from_secs(1_790_000_009);
        let signed = format!("{note}{}", witness.cosign(note.as_bytes(), at).unwrap());
        std::fs::write(folder.join("checkpoint.witnessed"), &signed).unwrap();
        for key in [&line, &file] {
            verify(&around, &log, Some(key)).unwrap();
        }
        log_of(&folder, 2).await;
        let key = trusted_key(&folder, &log).unwrap();
        let report = audit::verify_witnessed(&folder, &key, witness.public()).unwrap();
        assert_eq!(
            witnessed_json(&report, Some(witness.public())),
            json!({
                "size": 5, "behind": 2, "verified": true, "witness": "witness.test/w",
                "at": at.to_string(), "note": signed,
            })
        );
        let report = audit::verify_dir(&folder, &key).unwrap();
        assert_eq!(witnessed_json(&report, None)["verified"], json!(false));

        let other = WitnessKey::generate("witness.test/w", &SeededEntropy::new(4)).unwrap();
        assert!(verify(&around, &log, Some(&other.public().to_string())).is_err());
        assert_eq!(verify(&around, &log, Some("no/such/file")).unwrap_err().code, "io");
    }

    #[tokio::test]
    async fn a_search_reads_a_log_from_end_to_end() {
        let dir = tempfile::tempdir().unwrap();
        log_of(&dir.path().join("broker/audit"), 700).await;
        let around = around();
        let asked = |words: &str| {
            let line = format!("sekisho audit search --dir {} {words}", dir.path().display());
            let cli = <crate::args::Cli as clap::Parser>::try_parse_from(line.split_whitespace()).unwrap();
            match cli.command {
                crate::args::Command::Audit(Audit::Search(search)) => find(&around, &search),
                _ => unreachable!(),
            }
        };
        asked("--kind stopped -n 2").unwrap();
        asked("--text nowhere").unwrap();
        assert!(asked("--from yesterday").is_err());
        assert!(asked("--person Not/AName").is_err());
    }

    #[test]
    fn an_entry_is_a_line() {
        let entry = json!({
            "time_dt": "2026-11-23T00:00:00.000Z", "message": "Session\nopened",
            "metadata": {"event_code": "session_opened"},
            "actor": {"user": {"uid": "u:alice"}}, "unmapped": {"study": "study:brca"},
        });
        let text = line(7, &entry);
        assert_eq!(
            text,
            "     7  2026-11-23T00:00:00.000Z  session_opened       u:alice study:brca  Session opened"
        );
        assert!(line(0, &json!({})).contains('?'));
    }
}
