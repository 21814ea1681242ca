//! Proof by strangers: Go's own verifier reads a log that we wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use audit::Reader;

use super::{files, fill, key, open};

/// The checker, built once; its sources are Go's and the one file here.
fn build(into: &Path) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stranger/main.go");
    let program = into.join("stranger");
    let built = Command::new("go")
        .args(["build", "-o"])
        .args([&program, &source])
        // Debian's package of the module lies there; nothing is fetched.
        .envs([
            ("GO111MODULE", "off"),
            ("GOPATH", "/usr/share/gocode"),
            ("GOFLAGS", ""),
            ("CGO_ENABLED", "0"),
        ])
        .env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"))
        .output()
        .expect("Go is needed: infra/setup installs it");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

#[tokio::test]
async fn gos_own_verifier_accepts_the_log_and_refuses_a_changed_record() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (dir, other) = (at("log"), at("other"));
    for (dir, what) in [(&dir, "one"), (&other, "two")] {
        let log = open(dir);
        fill(&log, what, 300).await;
        log.close().await;
        fs::copy(dir.join("checkpoint"), dir.with_extension("older")).unwrap();
    }
    let log = open(&dir);
    fill(&log, "more", 467).await;
    log.close().await;
    fs::write(at("proof"), Reader::open(&dir).unwrap().proof(511).unwrap().to_string()).unwrap();

    let program = build(place.path());
    let judge = |older: &str| {
        let arguments = [dir.clone(), key().public().to_string().into(), at(older), at("proof")];
        let out = Command::new(&program).args(arguments).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    assert_eq!(judge("log.older"), (true, "ok size=767 older=300 records=767".to_owned()));

    // The same key has signed another history.
    let (good, said) = judge("other.older");
    assert!(!good && said.contains("not a continuation"), "{said}");

    // A changed byte in any sort of file.
    let mut refused = 0;
    for path in files(&dir).into_iter().chain([at("proof"), at("log.older")]) {
        let name = path.display().to_string();
        let bytes = fs::read(&path).unwrap();
        let read = ["checkpoint", "tile", "proof", "older"].iter().any(|part| name.contains(part));
        // What only older checkpoints needed is read by nobody.
        let stale = name.contains(".p/") && !["/255", "/2"].iter().any(|end| name.ends_with(end));
        if !read || stale || bytes.is_empty() {
            continue;
        }
        let mut bad = bytes.clone();
        let place = bad.len() / 2;
        bad[place] ^= 1;
        fs::write(&path, &bad).unwrap();
        let (good, said) = judge("log.older");
        assert!(!good && said.starts_with("refused:"), "{name}: {said}");
        if name.contains("entries") {
            assert!(said.contains("record "), "{said}");
        }
        fs::write(&path, bytes).unwrap();
        refused += 1;
    }
    assert!(refused >= 9, "{refused}");
    assert!(judge("log.older").0);
}
