use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use model::{ManualClock, SeededEntropy, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{Log, LogKey, Options, ReadError, Reader, VerifyError, verify_dir};

fn entry(index: u64) -> Vec<u8> {
    format!("{{\"message\":\"entry {index} of Tōkyō\",\"time\":{index}}}").into_bytes()
}

/// A log with `count` entries, all under a checkpoint.
async fn log_in(dir: &Path, count: u64) -> LogKey {
    let key = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(3)).unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1)));
    let log = Log::open(dir, key.clone(), clock, Options::default()).unwrap();
    fill(&log, count).await;
    log.close().await;
    key
}

async fn fill(log: &Log, count: u64) {
    let from = log.durable_size();
    let entries = (from..from + count).map(|index| {
        let log = log.clone();
        tokio::spawn(async move { assert_eq!(log.append_entry(entry(index), false).await.unwrap(), index) })
    });
    let entries: Vec<_> = entries.collect();
    for entry in entries {
        entry.await.unwrap();
    }
}

fn packed(dir: &Path, range: SegmentRange) -> (Vec<u8>, SegmentHeader) {
    let reader = Reader::open(dir).unwrap();
    let note = reader.checkpoint().unwrap().1;
    let mut bytes = Vec::new();
    let header = reader.pack(range, &note, &mut bytes).unwrap();
    (bytes, header)
}

fn unpacked(bytes: &[u8], key: &LogPublicKey) -> Result<Vec<SegmentBundle>, SegmentFault> {
    let mut reader = SegmentReader::open(bytes, key)?;
    let mut bundles = Vec::new();
    while let Some(bundle) = reader.next_bundle()? {
        bundles.push(bundle);
    }
    Ok(bundles)
}

fn zipped(text: &[u8]) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(text).unwrap();
    to.finish().unwrap()
}

fn text_of(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut text).unwrap();
    text
}

#[test]
fn a_segment_is_a_whole_subtree() {
    let at = |first, bundles| SegmentRange::at(first, bundles).map(|r| (r.first(), r.count()));
    assert_eq!(at(0, 256), Some((0, 65_536)));
    assert_eq!(at(65_536, 256), Some((65_536, 65_536)));
    // After a change of the setting the segments grow to it as their places allow.
    assert_eq!(at(256, 256), Some((256, 256)));
    assert_eq!(at(512, 256), Some((512, 512)));
    assert_eq!(at(0, 3), Some((0, 512)));
    assert_eq!(at(0, u64::MAX), Some((0, 4096 * 256)));
    assert_eq!((at(1, 1), at(256, 0), at(u64::MAX - 255, 1)), (None, None, None));
    for (first, count) in [(0, 0), (0, 255), (0, 768), (256, 512), (0, 1 << 40)] {
        assert_eq!(SegmentRange::new(first, count), None, "{first} {count}");
    }
}

#[tokio::test]
async fn a_segment_proves_itself_with_the_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let key = log_in(dir.path(), 5 * 256 + 40).await;
    for (first, count) in [(0, 1024), (0, 256), (512, 512), (1024, 256)] {
        let range = SegmentRange::new(first, count).unwrap();
        let (bytes, header) = packed(dir.path(), range);
        assert_eq!(SegmentReader::open(&bytes[..], key.public()).unwrap().header(), &header);
        assert_eq!((header.checkpoint.size, header.range), (1320, range));
        let bundles = unpacked(&bytes, key.public()).unwrap();
        let entries: Vec<Vec<u8>> = bundles.iter().flat_map(|b| b.entries.clone()).collect();
        assert_eq!(entries, (first..range.end()).map(entry).collect::<Vec<_>>());
        // Whoever has no program of ours finds lines.
        let text = String::from_utf8(text_of(&bytes)).unwrap();
        assert!(text.starts_with("sekisho audit segment v1\nkey sekisho.test/audit+"));
        assert_eq!(text.lines().rev().take(count as usize).count(), count as usize);
        assert!(text.ends_with(&format!("entry {} of Tōkyō\",\"time\":{0}}}\n", range.end() - 1)));
    }
}

#[tokio::test]
async fn a_segment_stands_under_an_older_checkpoint_too() {
    let dir = tempfile::tempdir().unwrap();
    let key = log_in(dir.path(), 700).await;
    let older = Reader::open(dir.path()).unwrap().checkpoint().unwrap().1;
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1)));
    let log = Log::open(dir.path(), key.clone(), clock, Options::default()).unwrap();
    fill(&log, 900).await;
    log.close().await;
    let reader = Reader::open(dir.path()).unwrap();
    let range = SegmentRange::new(0, 512).unwrap();
    let mut bytes = Vec::new();
    let header = reader.pack(range, &older, &mut bytes).unwrap();
    assert_eq!(header.checkpoint.size, 700);
    assert_eq!(unpacked(&bytes, key.public()).unwrap().len(), 2);
    let beyond = reader.pack(SegmentRange::new(512, 512).unwrap(), &older, &mut Vec::new());
    assert!(matches!(beyond, Err(PackError::NotCovered { size: 700, end: 1024 })), "{beyond:?}");
    let other = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(4)).unwrap();
    let foreign = reader.pack(range, &other.sign(600, &[0; 32]), &mut Vec::new());
    assert!(matches!(foreign, Err(PackError::Checkpoint(_))), "{foreign:?}");
    let forged = reader.pack(range, &key.sign(600, &[0; 32]), &mut Vec::new());
    assert!(matches!(forged, Err(PackError::Inconsistent)), "{forged:?}");
}

#[tokio::test]
async fn a_damaged_bundle_is_never_packed() {
    let dir = tempfile::tempdir().unwrap();
    log_in(dir.path(), 600).await;
    let path = dir.path().join("tile/entries/001");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    let note = reader.checkpoint().unwrap().1;
    let range = SegmentRange::new(0, 512).unwrap();
    assert!(matches!(reader.pack(range, &note, &mut Vec::new()), Err(PackError::Changed(511))));
    std::fs::write(&path, b"x").unwrap();
    let refused = reader.pack(range, &note, &mut Vec::new());
    assert!(matches!(refused, Err(PackError::Read(ReadError::Damaged { .. }))), "{refused:?}");
}

/// Puts `with` in the place of `what` in the text of a segment.
fn changed(text: &[u8], what: &str, with: &str) -> Vec<u8> {
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains(what), "{what}");
    zipped(text.replacen(what, with, 1).as_bytes())
}

#[tokio::test]
async fn every_part_that_is_changed_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let key = log_in(dir.path(), 1000).await;
    let (bytes, header) = packed(dir.path(), SegmentRange::new(256, 256).unwrap());
    let text = text_of(&bytes);
    let other = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(4)).unwrap();
    let refused = |bytes: &[u8]| unpacked(bytes, key.public()).unwrap_err();
    let line = |name: &str| {
        let text = String::from_utf8(text.clone()).unwrap();
        text.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
    };
    use SegmentFault as F;
    macro_rules! refuses {
        ($what:expr, $with:expr, $fault:pat) => {
            let fault = refused(&changed(&text, $what, $with));
            assert!(matches!(fault, $fault), "{} → {}: {fault:?}", $what, $with);
        };
    }
    refuses!("segment v1", "segment v2", F::NotASegment);
    refuses!("sekisho audit", "something", F::NotASegment);
    refuses!("\nkey ", "\nkei ", F::Line("key"));
    refuses!(&line("key "), "key nonsense", F::Key(_));
    refuses!(&line("key "), &format!("key {}", other.public()), F::OtherLog { .. });
    refuses!("range 256 256", "range 256", F::Line("range"));
    refuses!("range 256 256", "range 256 0256", F::Line("range"));
    refuses!("range 256 256", "range 128 256", F::Range);
    refuses!("range 256 256", "range 256 768", F::Range);
    refuses!("range 256 256", "range 512 256", F::NotCovered);
    refuses!("range 256 256", "range 1024 256", F::NotCovered);
    refuses!(&line("root "), "root AAAA", F::Line("root"));
    refuses!(&line("root "), &format!("root {}", BASE64.encode(&[7; 32])), F::NotCovered);
    refuses!(&line("proof "), "proof", F::NotCovered);
    refuses!(&line("proof "), "proof x", F::Line("proof"));
    refuses!(&line("proof "), &format!("{}  ", line("proof ")), F::Line("proof"));
    let first = BASE64.encode(&header.proof[0]);
    refuses!(&first, &BASE64.encode(&[9; 32]), F::NotCovered);
    refuses!(&line("checkpoint "), "checkpoint 100000", F::Line("checkpoint"));
    refuses!(&line("checkpoint "), "checkpoint 60000", F::Short("its checkpoint"));
    refuses!(&line("checkpoint "), "checkpoint 10", F::Checkpoint(NoteError::Malformed(_)));
    refuses!("\n1000\n", "\n1001\n", F::Checkpoint(NoteError::BadSignature));
    refuses!(&header.note, &other.sign(1000, &header.checkpoint.root), F::Checkpoint(_));
    refuses!("\nentries\n", "\nentry\n", F::Line("entries"));
    refuses!("entry 300 ", "entry 301 ", F::OtherRoot);
    refuses!("{\"message\":\"entry 300 of Tōkyō\",\"time\":300}\n", "", F::Short("its entries"));
    refuses!(
        "{\"message\":\"entry 300 ",
        "{\"message\":\"entry 299\"}\n{\"message\":\"entry 300 ",
        F::Trailing
    );
    refuses!("entry 300 of", &"x".repeat(70_000), F::EntryTooLong(300));
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(refused(&longer), F::Trailing), "bytes after the end");
    let twice = [bytes.clone(), bytes.clone()].concat();
    assert!(matches!(refused(&twice), F::Trailing), "a second segment behind the first");
    assert!(matches!(refused(&text), F::NotASegment), "not compressed");
    assert!(matches!(refused(b""), F::Io(_) | F::NotASegment), "nothing");
    assert!(matches!(refused(&zipped(b"")), F::NotASegment), "nothing, compressed");
    for end in (0..bytes.len()).step_by(97) {
        refused(&bytes[..end]);
    }
    // Of the compressed form, the ten bytes of its head say what was on which system when it was made.
    for at in (10..bytes.len()).step_by(31) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        refused(&bad);
    }
}

#[tokio::test]
async fn what_was_removed_is_said_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let key = log_in(dir.path(), 1100).await;
    let range = SegmentRange::new(0, 512).unwrap();
    let (bytes, _) = packed(dir.path(), range);
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1)));
    let log = Log::open(dir.path(), key.clone(), clock.clone(), Options::default()).unwrap();
    let root = verify_dir(dir.path(), key.public()).unwrap().root;
    log.remove_local(range).unwrap();
    log.remove_local(range).unwrap();
    let beyond = SegmentRange::new(1024, 256).unwrap();
    assert!(matches!(log.remove_local(beyond), Err(ReadError::Outside { .. })));
    assert_eq!(log.local_from().unwrap(), 512);
    // The hashes still tell what was there.
    for (index, other, is) in [(3, 3, true), (511, 511, true), (3, 4, false), (1099, 1099, true)] {
        assert_eq!(log.is_entry(index, &entry(other)).unwrap(), is, "{index}");
    }
    assert!(matches!(log.is_entry(1100, &entry(1100)), Err(ReadError::Outside { asked: 1100, .. })));
    assert!(!dir.path().join("tile/entries/000").exists());
    let missing = |found: Result<Vec<(u64, Vec<u8>)>, ReadError>| {
        matches!(found, Err(ReadError::Removed { index: 3, from: 512 }))
    };
    let reader = Reader::open(dir.path()).unwrap();
    assert!(missing(reader.read(3, 10)), "the folder's reader");
    assert_eq!(reader.read(512, 1).unwrap()[0].1, entry(512));
    assert!(matches!(reader.proof(3), Err(ReadError::Removed { index: 3, .. })));
    assert!(reader.proof(600).unwrap().verify(key.public()).is_ok());
    let report = verify_dir(dir.path(), key.public()).unwrap();
    assert_eq!((report.root, report.removed), (root, 512));
    log.close().await;

    // The log goes on and opens again; nothing of it needs what was removed.
    let log = Log::open(dir.path(), key.clone(), clock, Options::default()).unwrap();
    fill(&log, 300).await;
    assert!(
        matches!(log.read(3, 1), Err(ReadError::Removed { .. })) || log.read(3, 1).unwrap()[0].1 == entry(3)
    );
    let mut bundles = unpacked(&bytes, key.public()).unwrap();
    log.restore_local(&bundles[0]).unwrap();
    assert_eq!(Reader::open(dir.path()).unwrap().read(3, 1).unwrap()[0].1, entry(3));
    assert_eq!(verify_dir(dir.path(), key.public()).unwrap().removed, 256);
    bundles[1].n = 3;
    assert!(matches!(log.restore_local(&bundles[1]), Err(ReadError::Damaged { .. })));
    bundles[1].n = 1 << 60;
    assert!(matches!(log.restore_local(&bundles[1]), Err(ReadError::Outside { .. })));
    log.close().await;

    // One that is missing where nothing was removed is missing.
    std::fs::remove_file(dir.path().join("tile/entries/002")).unwrap();
    let VerifyError { what, index } = verify_dir(dir.path(), key.public()).unwrap_err();
    assert!(what.contains("tile/entries/002 is missing"), "{what}");
    assert_eq!(index, Some(512 + 255));
}

#[tokio::test]
async fn fetched_bundles_are_verified_with_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let key = log_in(dir.path(), 1100).await;
    let range = SegmentRange::new(0, 512).unwrap();
    let (bytes, _) = packed(dir.path(), range);
    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1)));
    let log = Log::open(dir.path(), key.clone(), clock, Options::default()).unwrap();
    log.remove_local(range).unwrap();
    log.close().await;
    let kept = tempfile::tempdir().unwrap();
    for bundle in unpacked(&bytes, key.public()).unwrap() {
        write_bundle(kept.path(), &bundle).unwrap();
    }
    let verify = || crate::verify_with(dir.path(), Some(kept.path()), key.public(), None);
    let report = verify().unwrap();
    assert_eq!((report.removed, report.fetched), (0, 512));
    let path = kept.path().join("tile/entries/001");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let VerifyError { what, index } = verify().unwrap_err();
    assert!(what.contains("entry 256 in tile/entries/001") && index == Some(256), "{what}");
    // A tile that is gone, too, leaves nothing that could say what the entries were.
    std::fs::remove_file(dir.path().join("tile/0/001")).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(verify().unwrap_err().what.contains("tile/0/001 is missing"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any entries of one line survive: packed from a log's folder, read back.
    #[test]
    fn whatever_is_on_a_line_survives(
        lines in prop::collection::vec("[^\n]{0,60}", 256..=256),
        more in 0_u64..300,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let key = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(3)).unwrap();
            let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1)));
            let log = Log::open(dir.path(), key.clone(), clock, Options::default()).unwrap();
            for line in &lines {
                log.append_entry(line.clone().into_bytes(), false).await.unwrap();
            }
            fill(&log, more).await;
            log.close().await;
            let (bytes, _) = packed(dir.path(), SegmentRange::new(0, 256).unwrap());
            let bundles = unpacked(&bytes, key.public()).unwrap();
            let found: Vec<String> =
                bundles[0].entries.iter().map(|e| String::from_utf8(e.clone()).unwrap()).collect();
            assert_eq!(found, lines);
        });
    }

    #[test]
    fn foreign_bytes_never_panic(bytes: Vec<u8>, text: String) {
        let key = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(3)).unwrap();
        let _ = unpacked(&bytes, key.public());
        let _ = unpacked(&zipped(format!("{FIRST_LINE}\nkey {}\n{text}", key.public()).as_bytes()), key.public());
    }
}
