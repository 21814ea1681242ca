//! What a witness has signed, held against the log it lies beside.

use std::fs;
use std::path::Path;

use audit::{LogKey, Reader, VerifyError, VerifyReport, WitnessKey, verify_dir, verify_witnessed};
use model::{SeededEntropy, Timestamp};

use super::{fill, key, open};

const AT: Timestamp = Timestamp::from_secs(1_790_000_007);

fn witness() -> WitnessKey {
    WitnessKey::generate("witness.test/w", &SeededEntropy::new(5)).unwrap()
}

/// A log in `dir` that grows by `counts`, and its checkpoints with the signature of the witness.
async fn grow(dir: &Path, what: &str, counts: &[usize]) -> Vec<String> {
    let mut notes = Vec::new();
    for count in counts {
        let log = open(dir);
        fill(&log, what, *count).await;
        log.close().await;
        let note = Reader::open(dir).unwrap().checkpoint().unwrap().1;
        notes.push(format!("{note}{}", witness().cosign(note.as_bytes(), AT).unwrap()));
    }
    notes
}

fn keep(dir: &Path, note: &str) {
    fs::write(dir.join("checkpoint.witnessed"), note).unwrap();
}

fn known(dir: &Path) -> Result<VerifyReport, VerifyError> {
    verify_witnessed(dir, key().public(), witness().public())
}

#[tokio::test]
async fn a_checkpoint_of_any_size_that_the_log_continues_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let empty = key().empty_checkpoint();
    let empty = format!("{empty}{}", witness().cosign(empty.as_bytes(), AT).unwrap());
    let notes = grow(dir.path(), "a", &[1, 69, 186, 44, 500]).await;
    assert_eq!(verify_dir(dir.path(), key().public()).unwrap().witnessed, None);
    for (note, size) in [empty].iter().chain(&notes).zip([0, 1, 70, 256, 300, 800]) {
        keep(dir.path(), note);
        let unchecked = verify_dir(dir.path(), key().public()).unwrap().witnessed.unwrap();
        assert_eq!((unchecked.size, unchecked.cosignature), (size, None));
        let report = known(dir.path()).unwrap();
        assert_eq!(report.size, 800);
        let seen = report.witnessed.unwrap();
        assert_eq!((seen.size, &seen.note), (size, note));
        assert_eq!(seen.cosignature.unwrap().at, AT);
    }
}

#[tokio::test]
async fn a_signature_that_is_missing_or_not_of_the_witness_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let note = grow(dir.path(), "a", &[300]).await.remove(0);
    let error = known(dir.path()).unwrap_err().to_string();
    assert!(error.contains("checkpoint.witnessed is missing") && error.contains("witness.test/w"), "{error}");

    keep(dir.path(), &note);
    let other = WitnessKey::generate("witness.test/w", &SeededEntropy::new(6)).unwrap();
    let error = verify_witnessed(dir.path(), key().public(), other.public()).unwrap_err().to_string();
    assert!(error.contains("witness.test/w") && error.contains("no signature"), "{error}");
    for at in 0..note.len() {
        let mut bad = note.clone().into_bytes();
        bad[at] ^= 1 << (at % 8);
        fs::write(dir.path().join("checkpoint.witnessed"), bad).unwrap();
        let error = known(dir.path()).expect_err(&format!("byte {at}")).to_string();
        assert!(error.contains("checkpoint.witnessed"), "byte {at}: {error}");
    }
    // What the log has signed must be good even where the witness is not known.
    keep(dir.path(), &note.replacen("\n300\n", "\n299\n", 1));
    assert!(verify_dir(dir.path(), key().public()).is_err());
    keep(dir.path(), &note);
    assert!(verify_dir(dir.path(), key().public()).is_ok());
}

#[tokio::test]
async fn a_log_behind_its_witness_or_of_another_history_is_found_without_asking_it() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let ones = grow(&one, "one", &[100, 200, 300]).await;
    let twos = grow(&two, "two", &[100, 200]).await;
    let both = |dir: &Path| {
        let (unknown, known) = (verify_dir(dir, key().public()).unwrap_err(), known(dir).unwrap_err());
        assert_eq!(unknown, known);
        known
    };
    // Set back: what was witnessed is of a log of 600, the folder one of 300.
    keep(&two, &ones[2]);
    let error = both(&two);
    assert!(error.what.contains("signed 600 entries") && error.what.contains("older copy"), "{error}");
    assert_eq!(error.index, Some(300));
    // Of the same size, and smaller.
    for note in &ones[..2] {
        keep(&two, note);
        let error = both(&two);
        assert!(error.what.contains("another history"), "{error}");
    }
    keep(&two, &twos[0]);
    known(&two).unwrap();
    // Of another log.
    let other = LogKey::generate("other.test/audit", &SeededEntropy::new(8)).unwrap();
    keep(&two, &other.empty_checkpoint());
    assert!(both(&two).what.contains("other.test/audit"));
}
