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
    assert!(said.contains("\n  do: "), "{said}");
    assert!(!to.exists() && !to.with_file_name("back.partial").exists());
    let (out, _) = case.combine(&[2, 5], &["--json"]);
    let error = &json(&out)["error"];
    assert_eq!((error["code"].as_str(), error["needed"].as_u64()), (Some("too_few"), Some(3)));
    let (out, _) = case.combine(&[2, 5], &["--lang=ja"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("分散片は 3 個必要") && said.contains("対処"), "{said}");
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
    let said = json(&run(&["inspect", "--json", &case.folder(4)]));
    let files = said["files"].as_array().unwrap();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(
            (file["share"].as_u64(), file["k"].as_u64(), &file["mode"]),
            (Some(4), Some(3), &"shamir".into())
        );
    }
    let manifest = files.iter().find(|file| file["kind"] == "manifest").unwrap();
    assert_eq!((manifest["root"].as_str(), manifest["signer"].as_str()), (Some(case.root.as_str()), None));
    assert!(files.iter().any(|file| file["kind"] == "key"));
    let out = run(&["inspect", &path(&case.at.join("genome.vcf"))]);
    assert_eq!(out.status.code(), Some(1));
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
    let out = run(&["split", "/dev/null", "--k=1", "--json", "--out", &at("a"), &at("b")]);
    assert_eq!((out.status.code(), &json(&out)["error"]["code"]), (Some(2), &"usage".into()), "{out:?}");
    assert_eq!(json(&run(&["split", "--json"]))["error"]["code"], "usage");
    assert!(!scratch.path().join("a").exists());
}

fn json(out: &Output) -> serde_json::Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"))
}

impl Case {
    fn folders(&self) -> Vec<String> {
        (1..=5).map(|share| self.folder(share)).collect()
    }

    /// Runs a verb on all five folders.
    fn verb(&self, words: &[&str]) -> Output {
        let folders = self.folders();
        run(&words.iter().copied().chain(folders.iter().map(String::as_str)).collect::<Vec<_>>())
    }

    fn key(&self, name: &str) -> (String, String) {
        use ed25519_dalek::pkcs8::EncodePrivateKey;
        let key = ed25519_dalek::SigningKey::from_bytes(&[name.len() as u8; 32]);
        let at = self.at.join(name);
        fs::write(&at, key.to_pkcs8_pem(Default::default()).unwrap().as_bytes()).unwrap();
        mode(&at, 0o600);
        let public = key.verifying_key().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        (path(&at), public)
    }
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_written_is_its_owners_alone_and_replaces_nothing_unasked() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new();
    let (out, to) = case.combine(&[1, 2, 3], &[]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let (out, _) = case.combine(&[1, 2, 3], &["--json"]);
    assert_eq!((out.status.code(), &json(&out)["error"]["code"]), (Some(5), &"exists".into()));
    // A link in the place of the temporary file leads nowhere.
    let victim = case.at.join("victim");
    fs::write(&victim, b"mine").unwrap();
    std::os::unix::fs::symlink(&victim, to.with_file_name("back.partial")).unwrap();
    assert!(case.combine(&[1, 2, 3], &["--force"]).0.status.success());
    assert!(fs::read(&to).unwrap() == case.bytes && fs::read(&victim).unwrap() == b"mine");
}

#[test]
fn a_replaced_folder_is_given_its_share_but_a_mistyped_one_is_not_made() {
    let case = Case::new();
    fs::remove_dir_all(case.folder(2)).unwrap();
    let out = case.verb(&["repair", "--root", &case.root, "--json"]);
    assert_eq!((out.status.code(), &json(&out)["error"]["code"]), (Some(1), &"no_folder".into()));
    assert!(!Path::new(&case.folder(2)).exists());
    fs::create_dir(case.folder(2)).unwrap();
    let said = json(&case.verb(&["repair", "--root", &case.root, "--json"]));
    assert_eq!((&said["whole"], &said["folders"][1]["share"]), (&true.into(), &2.into()));
    assert_eq!(case.verb(&["verify", "--root", &case.root]).status.code(), Some(0));
}

#[test]
fn a_refresh_loses_nothing_until_it_is_told_to() {
    let case = Case::new();
    let said = json(&case.verb(&["refresh", "--root", &case.root, "--json"]));
    let new = said["root"].as_str().unwrap().to_owned();
    assert_eq!((&said["old_root"], &said["epoch"]), (&case.root.as_str().into(), &2.into()));
    // Which of the two is meant has to be said.
    assert_eq!(case.verb(&["verify"]).status.code(), Some(2));
    for root in [&case.root, &new] {
        assert_eq!(case.verb(&["verify", "--root", root]).status.code(), Some(0));
    }
    // Without a root, and without --yes, nothing goes.
    for words in [&["collect", "--yes", "--json"][..], &["collect", "--root", &new, "--json"]] {
        let said = json(&case.verb(words));
        assert_eq!(said["files"].as_u64().unwrap() > 0, said["dry_run"].as_bool().unwrap(), "{said}");
        assert_eq!(case.verb(&["verify", "--root", &case.root]).status.code(), Some(0));
    }
    // The old one does not go while the new one is damaged, or is not there at all.
    let key = walk(Path::new(&case.folder(1)));
    let key = key.iter().find(|path| path.to_str().unwrap().ends_with("02.key")).unwrap();
    let kept = fs::read(key).unwrap();
    fs::write(key, b"").unwrap();
    let out = case.verb(&["collect", "--root", &new, "--yes", "--json"]);
    assert_eq!((out.status.code(), &json(&out)["error"]["code"]), (Some(5), &"kept_damaged".into()));
    let out = case.verb(&["collect", "--object=obj:genome", "--root", &"0".repeat(64), "--yes"]);
    assert_eq!(out.status.code(), Some(3));
    assert_eq!(case.verb(&["verify", "--root", &case.root]).status.code(), Some(0));
    fs::write(key, kept).unwrap();
    // Retiring writes the root down first.
    let noted = case.at.join("root.txt");
    let said = json(&case.verb(&["refresh", "--root", &new, "--retire", &path(&noted), "--json"]));
    assert_eq!(said["retired"], true);
    let noted = fs::read_to_string(noted).unwrap();
    assert_eq!(noted.trim(), said["root"]);
    let (out, to) = case.combine(&[5, 3, 1], &["--root", noted.trim()]);
    assert!(out.status.success() && fs::read(to).unwrap() == case.bytes);
    assert_eq!(
        case.combine(&[5, 3, 1], &["--force", "--object=obj:genome", "--root", &new]).0.status.code(),
        Some(3)
    );
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_signed_object_is_known_by_its_signer() {
    let case = Case::new();
    let (key, public) = case.key("signer.pem");
    let plain = path(&case.at.join("genome.vcf"));
    let all = path(&case.at.join("t"));
    let words =
        ["split", &plain, "--k=2", "--n=3", "--mode=compact", "--object=obj:signed", "--sign-key", &key];
    let said = json(&run(&[&words[..], &["--json", "--out", &all]].concat()));
    assert_eq!(said["signer"], public.as_str());
    let folders = ["1", "2", "3"].map(|x| format!("{all}/{x}"));
    let [a, b, c] = folders.each_ref().map(String::as_str);
    assert!(run(&["verify", a, b, c, "--signer", &public]).status.success());
    let out = run(&["verify", a, b, c, "--signer", &"1".repeat(64), "--json"]);
    assert_eq!(json(&out)["error"]["code"], "wrong_signer");
    // A refresh does not lose the signature by accident.
    let out = run(&["refresh", "--keys", a, b, c, "--json"]);
    assert_eq!((out.status.code(), &json(&out)["error"]["code"]), (Some(5), &"was_signed".into()));
    let said = json(&run(&["refresh", "--keys", a, b, c, "--sign-key", &key, "--json"]));
    assert_eq!(said["signer"], public.as_str());
    // A key that others can read is none.
    mode(Path::new(&key), 0o644);
    let out = run(&["refresh", "--keys", a, b, c, "--sign-key", &key, "--json"]);
    assert_eq!(json(&out)["error"]["code"], "key_exposed");
}

#[test]
fn destroying_wants_the_name_and_all_folders() {
    let case = Case::new();
    let (key, public) = case.key("destroyer");
    let left = |case: &Case| case.folders().iter().map(|at| walk(Path::new(at)).len()).sum::<usize>();
    let before = left(&case);
    for (words, code) in [
        (&["destroy", "--object=obj:genome"][..], "not_confirmed"),
        (&["destroy", "--object=obj:genome", "--yes-destroy=obj:other"], "not_confirmed"),
    ] {
        let out = case.verb(&[words, &["--json"]].concat());
        assert_eq!((out.status.code(), &json(&out)["error"]["code"]), (Some(5), &code.into()));
    }
    let some = [case.folder(1), case.folder(2)];
    let words = ["destroy", "--object=obj:genome", "--yes-destroy=obj:genome", "--json", &some[0], &some[1]];
    assert_eq!(json(&run(&words))["error"]["code"], "not_all_folders");
    assert_eq!(left(&case), before);
    // Three of five are left: whoever holds them can still read it, and the statement says so.
    let said = json(&run(&[&words[..], &["--only-these"]].concat()));
    assert_eq!((&said["beyond_recovery"], &said["complete"]), (&false.into(), &false.into()));
    assert!(said["statement"].as_str().unwrap().contains("STILL RECOVERABLE"), "{said}");
    // A part of a share that a killed writer left goes too.
    fs::write(Path::new(&case.folder(4)).join("genome").join(format!("{}.manifest#1", case.root)), b"x")
        .unwrap();
    let out = case.verb(&["destroy", "--object=obj:genome", "--yes-destroy=obj:genome", "--sign-key", &key]);
    assert!(out.status.success(), "{out:?}");
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(
        said.contains("verdict beyond recovery: 5 of 5 gone") && said.contains(&format!("signed {public}")),
        "{said}"
    );
    assert_eq!(left(&case), 0);
}

#[test]
fn a_split_that_died_is_listed_taken_up_or_removed() {
    use std::io::Write as _;
    use std::process::Stdio;
    let case = Case::new();
    let folders = case.folders();
    let begin = |object: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sekisho-shard"))
            .args(["split", "-", "--quiet", "--k=3", "--object", object, "--out"])
            .args(&folders)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.as_mut().unwrap().write_all(&case.bytes[..EXTENT]).unwrap();
        let object = Path::new(&folders[0]).join(object.trim_start_matches("obj:"));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !(object.exists() && walk(&object).len() > 1) && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    };
    begin("obj:died");
    let said = json(&case.verb(&["unfinished", "--json"]));
    let found = &said["unfinished"][0];
    assert_eq!((&found["object"], &found["resumable"]), (&"obj:died".into(), &true.into()));
    let set = found["set"].as_str().unwrap().to_owned();
    // It is young: it may still be written.
    let said = json(&case.verb(&["collect", "--object=obj:died", "--yes", "--json"]));
    assert_eq!((&said["kept_sets"][0], &said["files"]), (&set.as_str().into(), &0.into()));
    // The object is found by its set, whatever the order of the folders, and the settings in its files.
    let plain = path(&case.at.join("genome.vcf"));
    let mut words = vec!["split", &plain, "--resume", &set, "--json", "--out"];
    words.extend(folders.iter().rev().map(String::as_str));
    let said = json(&run(&words));
    assert_eq!((&said["object"], &said["k"]), (&"obj:died".into(), &3.into()));
    let root = said["root"].as_str().unwrap();
    let (out, to) = case.combine(&[2, 3, 4], &["--object=obj:died", "--root", root]);
    assert!(out.status.success() && fs::read(to).unwrap() == case.bytes);
    begin("obj:gone");
    let said = json(&case.verb(&["collect", "--object=obj:gone", "--older-than=0s", "--yes", "--json"]));
    assert!(said["files"].as_u64().unwrap() >= 5, "{said}");
    assert!(folders.iter().all(|folder| !Path::new(folder).join("gone").exists()));
    assert_eq!(case.verb(&["verify", "--object=obj:genome"]).status.code(), Some(0));
    // Nobody deposits over an object by accident.
    let words = ["split", &plain, "--k=3", "--object=obj:genome", "--json", "--out"];
    let out = run(&words.into_iter().chain(folders.iter().map(String::as_str)).collect::<Vec<_>>());
    assert_eq!((out.status.code(), &json(&out)["error"]["code"]), (Some(5), &"there_already".into()));
}

#[test]
fn it_measures_this_machine_and_prints_its_manual() {
    let said = json(&run(&["bench", "--k=2", "--n=3", "--json"]));
    let rows = said["rows"].as_array().unwrap();
    assert!(rows.len() >= 7 && rows.iter().all(|row| row["mb_per_s"].as_f64().unwrap() > 0.0), "{said}");
    let page = String::from_utf8(run(&["man"]).stdout).unwrap();
    let verbs =
        ["split", "combine", "read", "verify", "repair", "refresh", "inspect", "collect", "destroy", "bench"];
    assert!(page.contains(".TH") && verbs.iter().all(|verb| page.contains(verb)), "{page}");
    assert!(String::from_utf8(run(&["man", "refresh"]).stdout).unwrap().contains("retire"));
}
