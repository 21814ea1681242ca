//! `sekisho-shard` as people run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{EXTENT, content};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sekisho-shard")).args(args).output().unwrap()
}

struct Case {
    _scratch: tempfile::TempDir,
    at: PathBuf,
    bytes: Vec<u8>,
    root: String,
}

impl Case {
    /// Splits a file 3 of 5.
    fn new() -> Case {
        let scratch = tempfile::tempdir().unwrap();
        let at = scratch.path().to_owned();
        let bytes = content(EXTENT + 100_000);
        fs::write(at.join("genome.vcf"), &bytes).unwrap();
        let out = run(&[
            "split",
            &path(&at.join("genome.vcf")),
            "--k=3",
            "--n=5",
            "--out",
            &path(&at.join("s")),
            "--object=obj:genome",
            "--json",
        ]);
        assert!(out.status.success(), "{out:?}");
        let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(
            (said["object"].as_str(), said["size"].as_u64()),
            (Some("obj:genome"), Some(bytes.len() as u64))
        );
        let root = said["root"].as_str().unwrap().to_owned();
        Case { _scratch: scratch, at, bytes, root }
    }

    fn folder(&self, share: usize) -> String {
        path(&self.at.join("s").join(share.to_string()))
    }

    fn combine(&self, shares: &[usize], more: &[&str]) -> (Output, PathBuf) {
        let folders: Vec<String> = shares.iter().map(|&share| self.folder(share)).collect();
        let to = self.at.join("back");
        let target = path(&to);
        let mut args = vec!["combine", "-o", &target];
        args.extend(folders.iter().map(String::as_str));
        args.extend(more);
        (run(&args), to)
    }
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn any_three_folders_in_any_order_rebuild_the_file() {
    let case = Case::new();
    for (shares, more) in
        [(&[1, 2, 3][..], &[][..]), (&[5, 1, 4], &["--root", &case.root]), (&[2, 4, 3, 5], &["--json"])]
    {
        let (out, to) = case.combine(shares, more);
        assert!(out.status.success(), "{out:?}");
        assert!(fs::read(&to).unwrap() == case.bytes);
        fs::remove_file(to).unwrap();
    }
}

#[test]
fn two_folders_are_too_few_and_it_says_so() {
    let case = Case::new();
    let (out, to) = case.combine(&[2, 5], &[]);
    assert_eq!(out.status.code(), Some(3));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("3 backends must give their shares") && said.contains("2 did"), "{said}");
    assert!(!to.exists() && !to.with_extension("partial").exists());
    let (out, _) = case.combine(&[2, 5], &["--json"]);
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(said["shares"]["needed"], 3);
}

#[test]
fn another_root_rebuilds_nothing() {
    let case = Case::new();
    let (out, to) = case.combine(&[1, 2, 3], &["--object=obj:genome", "--root", &"0".repeat(64)]);
    assert_eq!(out.status.code(), Some(3));
    assert!(!to.exists());
}

#[test]
fn a_range_comes_out_alone() {
    let case = Case::new();
    let at = EXTENT - 5;
    let out = run(&[
        "read",
        &case.folder(1),
        &case.folder(3),
        &case.folder(4),
        &format!("--offset={at}"),
        "--len=10",
    ]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(out.stdout, &case.bytes[at..at + 10]);
}

#[test]
fn verify_tells_whole_from_damaged_from_lost() {
    let case = Case::new();
    let folders: Vec<String> = (1..=5).map(|share| case.folder(share)).collect();
    let verify = || {
        let mut args = vec!["verify"];
        args.extend(folders.iter().map(String::as_str));
        run(&args).status.code()
    };
    assert_eq!(verify(), Some(0));
    let extent = |share: usize| {
        let object = PathBuf::from(&folders[share - 1]).join("genome");
        let set = fs::read_dir(object).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
        let mut files = fs::read_dir(set.unwrap()).unwrap().map(|entry| entry.unwrap().path());
        files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("00000001.")).unwrap()
    };
    let mut bytes = fs::read(extent(2)).unwrap();
    bytes[9000] ^= 1;
    fs::write(extent(2), bytes).unwrap();
    assert_eq!(verify(), Some(4));
    // Damaged, it is read around.
    assert!(case.combine(&[1, 2, 3, 4], &[]).0.status.success());
    fs::remove_file(extent(3)).unwrap();
    fs::write(extent(4), b"").unwrap();
    assert_eq!(verify(), Some(3));
}

#[test]
fn inspect_tells_what_a_folder_holds_without_its_key() {
    let case = Case::new();
    let out = run(&["inspect", "--json", &case.folder(4)]);
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (said["share"].as_u64(), said["k"].as_u64(), said["kind"].as_str()),
        (Some(4), Some(3), Some("manifest"))
    );
}

#[test]
fn an_empty_file_is_a_file() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&scratch.path().join(name));
    fs::write(at("empty"), b"").unwrap();
    let out = run(&["split", &at("empty"), "--k=2", "--out", &at("a"), &at("b"), &at("c")]);
    assert!(out.status.success(), "{out:?}");
    assert!(run(&["combine", &at("c"), &at("a"), "-o", &at("back")]).status.success());
    assert_eq!(fs::read(at("back")).unwrap(), b"");
}

#[test]
fn killed_while_splitting_nothing_reads_and_acknowledged_nothing_is_lost() {
    use std::io::{Read as _, Write as _};
    use std::process::Stdio;
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&scratch.path().join(name));
    let split = |object: &str| {
        Command::new(env!("CARGO_BIN_EXE_sekisho-shard"))
            .args(["split", "-", "--quiet", "--json", "--k=2", "--object", object])
            .args(["--out", &at("a"), &at("b"), &at("c")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let bytes = content(2 * EXTENT + 1);
    // One that waits for more when it dies, with extents already written.
    let mut killed = split("obj:killed");
    killed.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !scratch.path().join("a/killed").exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    // One that dies the moment it has acknowledged.
    let mut done = split("obj:done");
    done.stdin.take().unwrap().write_all(&bytes).unwrap();
    let mut said = [0; 1];
    done.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    done.kill().unwrap();
    done.wait().unwrap();

    assert!(run(&["combine", &at("b"), &at("c"), "--object=obj:done", "-o", &at("back")]).status.success());
    assert!(fs::read(at("back")).unwrap() == bytes);
    let out = run(&["combine", &at("a"), &at("b"), "--object=obj:killed", "-o", &at("back2")]);
    assert!(!out.status.success() && !scratch.path().join("back2").exists());
}

#[test]
fn wrong_usage_is_told_apart() {
    assert_eq!(run(&["split"]).status.code(), Some(2));
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&scratch.path().join(name));
    let out = run(&["split", "/dev/null", "--k=1", "--out", &at("a"), &at("b")]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
}
