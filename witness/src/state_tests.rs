use audit::LogKey;
use model::metrics::{Exposition, State};
use model::{ManualClock, SeededEntropy, Timestamp};
use vitals::Vitals;

use super::*;

fn key() -> LogKey {
    LogKey::generate("sekisho.test/audit", &SeededEntropy::new(1)).unwrap()
}

fn witness(dir: &Path) -> Witness {
    Witness::open(dir, "witness.test/w", &[key().public().clone()], &SeededEntropy::new(2)).unwrap()
}

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_secs(1_790_000_000))
}

#[test]
fn an_unknown_or_unsigned_checkpoint_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    let witness = witness(dir.path());
    let ask =
        |old, note: String| witness.add_checkpoint(&AddCheckpoint { old, proof: Vec::new(), note }, &clock());
    let other = LogKey::generate("other.test/audit", &SeededEntropy::new(3)).unwrap();
    assert_eq!(ask(0, other.empty_checkpoint()), Decision::UnknownLog);
    let forged = LogKey::generate("sekisho.test/audit", &SeededEntropy::new(3)).unwrap();
    assert!(matches!(ask(0, forged.empty_checkpoint()), Decision::NotSigned(_)));
    assert!(matches!(ask(1, key().empty_checkpoint()), Decision::Malformed(_)));
    assert!(matches!(ask(0, "nothing".to_owned()), Decision::Malformed(_)));
    assert!(matches!(ask(0, key().empty_checkpoint()), Decision::Signed(_)));
    let mut figures = Exposition::default();
    witness.figures(&mut figures);
    let text = figures.finish();
    for part in [
        "sekisho_witness_requests_total{outcome=\"malformed\"} 2\n",
        "sekisho_witness_requests_total{outcome=\"signed\"} 1\n",
        "sekisho_witness_signed_entries{log=\"sekisho.test/audit\"} 0\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_witness_without_its_memory_does_not_begin() {
    let dir = tempfile::tempdir().unwrap();
    drop(witness(dir.path()));
    let again = |name| Witness::open(dir.path(), name, &[key().public().clone()], &SeededEntropy::new(9));
    assert!(matches!(again("another.test/w"), Err(OpenError::OtherName { .. })));
    let held = again("witness.test/w").unwrap();
    assert!(matches!(again("witness.test/w"), Err(OpenError::Busy(_))));
    drop(held);
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    assert!(matches!(again("witness.test/w"), Err(OpenError::Lost(_))));
}

#[test]
fn what_cannot_be_kept_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    let witness = witness(dir.path());
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    let request = AddCheckpoint { old: 0, proof: Vec::new(), note: key().empty_checkpoint() };
    assert!(matches!(witness.add_checkpoint(&request, &clock()), Decision::NotKept(_)));
    let health = Vitals::health(&witness);
    assert_eq!((health.http_status(), health.checks["state"].state), (503, State::Failed));
    assert_eq!(witness.last(&file_of("sekisho.test/audit")), None);
    fs::create_dir(dir.path().join("state")).unwrap();
    assert!(matches!(witness.add_checkpoint(&request, &clock()), Decision::Signed(_)));
    assert_eq!(witness.last(&file_of("sekisho.test/audit")), Some(request.note));
    assert_eq!(Vitals::health(&witness).status, State::Ok);
}
