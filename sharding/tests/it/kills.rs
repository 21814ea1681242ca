//! `sekisho-shard` killed (SIGKILL) at random moments of everything that writes.
//!
//! Afterwards: what was acknowledged reads back whole; what was not is absent, or can be taken up and
//! then reads back whole; a repair or refresh that died leaves the object as readable as it was and can
//! be repeated; and after a collection nothing lies on any folder but what the manifest names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use model::{BackendId, Entropy, ObjectId, SeededEntropy};
use serde_json::Value;
use sharding::format::{File, HEADER, Manifest, Mode, Root};
use sharding::vault::{Backend, Options, Vault};
use tokio::runtime::Runtime;

use crate::support::{EXTENT, content};

const K: u8 = 2;
const N: usize = 3;
/// For each verb and mode; with eight of them, more than 300.
const KILLS: usize = 38;

struct Place {
    _scratch: tempfile::TempDir,
    at: PathBuf,
    folders: Vec<String>,
    mode: Mode,
    vault: Vault,
    runtime: Runtime,
    random: SeededEntropy,
}

/// What a run that was to be killed came to.
struct Run {
    /// What it printed, if it printed all of it.
    said: Option<Value>,
    killed: bool,
}

/// Where the kills went.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    early: usize,
    middle: usize,
    late: usize,
}

/// When to kill: somewhere in the time that the verb takes, as far as that is known by now.
struct Window {
    from: f64,
    to: f64,
}

impl Window {
    fn pick(&self, random: &SeededEntropy) -> Duration {
        let mut bytes = [0; 4];
        random.fill(&mut bytes).unwrap();
        let part = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
        Duration::from_secs_f64(self.from + part * (self.to - self.from))
    }

    /// Learns whether a kill meant for `delay`, which is in here, came before anything or after
    /// everything: not when it came, which on a busy machine is far outside.
    fn learn(&mut self, delay: Duration, early: bool, late: bool) {
        let delay = delay.as_secs_f64();
        if early {
            self.from += (delay - self.from) * 0.3;
        } else if late {
            self.to -= (self.to - delay) * 0.3;
        } else {
            // Lest it closes on one moment.
            self.from *= 0.97;
            self.to *= 1.03;
        }
        self.to = self.to.max(self.from + 0.002);
    }
}

impl Tally {
    fn count(&mut self, run: &Run, changed: bool) -> (bool, bool) {
        let (early, late) = (!changed && run.said.is_none(), run.said.is_some());
        if run.killed {
            self.kills += 1;
            self.early += usize::from(early);
            self.late += usize::from(late);
            self.middle += usize::from(!early && !late);
        }
        (early, late)
    }

    fn check(&self, what: &str) {
        eprintln!("{what}: {self:?}");
        assert!(self.kills >= KILLS && self.middle * 3 >= self.kills, "{what}: {self:?}");
    }
}

impl Place {
    fn new(mode: Mode, seed: u64) -> Place {
        // In memory where there is such a place: what is tested is order, not the disk.
        let memory = Path::new("/dev/shm");
        let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let scratch = scratch.unwrap();
        let at = scratch.path().to_owned();
        let folders: Vec<String> =
            (1..=N).map(|x| at.join(format!("s{x}")).to_str().unwrap().to_owned()).collect();
        let backends = folders.iter().enumerate().map(|(at, folder)| {
            let id = BackendId::from_name(&format!("b{at}")).unwrap();
            Backend::local(id, folder, Path::new(folder)).unwrap()
        });
        let vault = Vault::new(backends.collect(), K, Options { mode, ..patient() }).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Place { _scratch: scratch, at, folders, mode, vault, runtime, random: SeededEntropy::new(seed) }
    }

    fn file(&self, bytes: &[u8]) -> String {
        let path = self.at.join("plain");
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sekisho-shard"));
        command.arg("--json").args(words);
        command
    }

    /// Lets it end.
    fn run(&self, words: &[&str]) -> Value {
        let out = self.command(words).output().unwrap();
        let said: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert!(out.status.success(), "{words:?}: {said}");
        said
    }

    fn run_killed(&self, words: &[&str], delay: Duration) -> Run {
        let mut child = self.command(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        let out = child.wait_with_output().unwrap();
        let said = serde_json::from_slice::<Value>(&out.stdout).ok();
        let killed = out.status.code().is_none();
        assert!(killed || out.status.success(), "{words:?}: {said:?}");
        Run { said, killed }
    }

    /// How long something takes, from the shorter of two runs.
    fn window(&self, mut work: impl FnMut(&Place)) -> Window {
        let mut time = || {
            let start = Instant::now();
            work(self);
            start.elapsed().as_secs_f64()
        };
        let took = time().min(time());
        Window { from: took * 0.1, to: took }
    }

    fn split(&self, file: &str, object: &ObjectId) -> Root {
        let mode = self.mode.to_string();
        let words = ["split", file, "--k=2", "--mode", &mode, "--object", object.as_str(), "--out"];
        root(&self.run(&[&words[..], &self.folders()].concat()))
    }

    fn folders(&self) -> Vec<&str> {
        self.folders.iter().map(String::as_str).collect()
    }

    fn reads(&self, object: &ObjectId, root: Root) -> Vec<u8> {
        self.runtime.block_on(async {
            let reader = self.vault.open(object, &root.0).await.unwrap();
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < reader.size() {
                bytes.extend_from_slice(&reader.read_at(bytes.len() as u64, 8 << 20).await.unwrap());
            }
            bytes
        })
    }

    /// Every file of an object, with its length, however it is called.
    fn files(&self, object: &ObjectId) -> BTreeSet<(PathBuf, u64)> {
        let mut found = BTreeSet::new();
        let mut folders: Vec<PathBuf> =
            self.folders.iter().map(|folder| Path::new(folder).join(object.name())).collect();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.unwrap();
                match entry.metadata().unwrap() {
                    meta if meta.is_dir() => folders.push(entry.path()),
                    meta => drop(found.insert((entry.path(), meta.len()))),
                }
            }
        }
        found
    }

    /// Collects, and looks whether exactly that is left which the manifest names.
    fn collects(&self, object: &ObjectId, root: Option<Root>) {
        let root_text = root.map(|root| root.to_string());
        let mut words = vec!["collect", "--yes", "--older-than=0s", "--object", object.as_str()];
        if let Some(root) = &root_text {
            words.extend(["--root", root]);
        }
        self.run(&[words, self.folders()].concat());
        let left: BTreeSet<PathBuf> = self.files(object).into_iter().map(|(path, _)| path).collect();
        let expected: BTreeSet<PathBuf> = root.map_or_else(BTreeSet::new, |root| self.named(object, root));
        assert_eq!(left, expected);
    }

    fn named(&self, object: &ObjectId, root: Root) -> BTreeSet<PathBuf> {
        let manifest = Path::new(&self.folders[0]).join(File::Manifest(root).name(object));
        let manifest = Manifest::parse(&fs::read(manifest).unwrap()[HEADER..]).unwrap();
        let (set, epoch) = (manifest.deposit.set, manifest.deposit.epoch);
        let extents = (0..).zip(&manifest.extents);
        let files: Vec<File> = extents
            .map(|(number, entry)| File::Extent(set, number, entry.attempt))
            .chain([File::Manifest(root), File::Key(set, epoch)])
            .collect();
        let of = |folder: &String| {
            let folder = PathBuf::from(folder);
            files.iter().map(move |file| folder.join(file.name(object))).collect::<Vec<_>>()
        };
        self.folders.iter().flat_map(of).collect()
    }

    /// Takes up what is not finished, if that is possible, under whatever order of folders.
    fn finish(&self, object: &ObjectId, file: &str) -> Option<Root> {
        let found = self.runtime.block_on(async {
            let unfinished = self.vault.unfinished(object).await;
            let mut sets: Vec<_> = unfinished.iter().map(|found| found.set).collect();
            for found in self.vault.manifests(Some(object)).await {
                // Written whole, though nobody was told.
                sets.push(self.vault.open(object, &found.root.0).await.unwrap().set());
            }
            sets
        });
        let set = match found.as_slice() {
            [] => return None,
            [set] => set.to_string(),
            several => panic!("{several:?}"),
        };
        let words = ["split", file, "--object", object.as_str(), "--resume", &set, "--out"];
        let folders = self.folders();
        let out = self.command(&words).args(folders.iter().rev()).output().unwrap();
        let said: Value = serde_json::from_slice(&out.stdout).unwrap();
        if out.status.success() {
            return Some(root(&said));
        }
        assert_eq!(said["error"]["code"], "nothing_to_resume", "{said}");
        let files = self.files(object);
        let ending = |end: &str| {
            files.iter().filter(|(path, _)| path.to_str().is_some_and(|path| path.ends_with(end))).count()
        };
        assert!(ending(".key") < usize::from(K) && ending(".manifest") == 0, "{files:?}");
        None
    }

    fn forget(&self, object: &ObjectId) {
        for folder in &self.folders {
            let _ = fs::remove_dir_all(Path::new(folder).join(object.name()));
        }
    }
}

/// Two busy cores are no fault of a folder's.
fn patient() -> Options {
    Options { read_timeout: Duration::from_secs(30), ..Options::default() }
}

fn root(said: &Value) -> Root {
    said["root"].as_str().unwrap().parse().unwrap()
}

fn object(name: &str) -> ObjectId {
    ObjectId::from_name(name).unwrap()
}

fn split(mode: Mode, seed: u64) {
    let place = Place::new(mode, seed);
    let bytes = content(2 * EXTENT + EXTENT / 2 + 77);
    let file = place.file(&bytes);
    let mut window = place.window(|place| {
        place.split(&file, &object("timing"));
        place.forget(&object("timing"));
    });
    let mut tally = Tally::default();
    let (mode, mut tries) = (mode.to_string(), 0);
    while tally.kills < KILLS && tries < 3 * KILLS {
        tries += 1;
        let object = object(&format!("k{tries}"));
        let words = ["split", &file, "--k=2", "--mode", &mode, "--object", object.as_str(), "--out"];
        let delay = window.pick(&place.random);
        let run = place.run_killed(&[&words[..], &place.folders()].concat(), delay);
        let (early, late) = tally.count(&run, !place.files(&object).is_empty());
        window.learn(delay, early, late);
        let root = match &run.said {
            Some(said) => Some(root(said)),
            None => place.finish(&object, &file),
        };
        if let Some(root) = root {
            assert!(place.reads(&object, root) == bytes);
        }
        place.collects(&object, root);
        if let Some(root) = root {
            assert!(place.reads(&object, root) == bytes);
        }
        place.forget(&object);
    }
    tally.check(&format!("split {mode}"));
}

fn resume(mode: Mode, seed: u64) {
    let place = Place::new(mode, seed);
    let bytes = content(3 * EXTENT + 5);
    let file = place.file(&bytes);
    // Dies when the first extent is there.
    let begin = |place: &Place, object: &ObjectId, seed| {
        place.runtime.block_on(async {
            let entropy = SeededEntropy::new(seed);
            let depositing = place.vault.begin(object, &entropy).await.unwrap();
            let set = depositing.set();
            let broken = tokio::io::AsyncReadExt::chain(&bytes[..EXTENT], crate::lifecycle::Broken);
            assert!(depositing.run(broken, &entropy, |_| {}).await.is_err());
            set.to_string()
        })
    };
    let words = |object: &ObjectId, set: &str| {
        ["split", &file, "--object", object.as_str(), "--resume", set, "--out"].map(str::to_owned)
    };
    let mut window = {
        let mut at = 1_000_000;
        place.window(|place| {
            at += 1;
            let object = object("timing");
            let set = begin(place, &object, at);
            let words = words(&object, &set);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            place.run(&[words, place.folders()].concat());
            place.forget(&object);
        })
    };
    let mut tally = Tally::default();
    let mut tries = 0;
    while tally.kills < KILLS && tries < 3 * KILLS {
        tries += 1;
        let object = object(&format!("k{tries}"));
        let set = begin(&place, &object, tries as u64);
        let before = place.files(&object);
        let words = words(&object, &set);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let delay = window.pick(&place.random);
        let run = place.run_killed(&[words, place.folders()].concat(), delay);
        let (early, late) = tally.count(&run, place.files(&object) != before);
        window.learn(delay, early, late);
        let root = match &run.said {
            Some(said) => root(said),
            None => place.finish(&object, &file).unwrap(),
        };
        assert!(place.reads(&object, root) == bytes);
        place.collects(&object, Some(root));
        assert!(place.reads(&object, root) == bytes);
        place.forget(&object);
    }
    tally.check(&format!("resume {mode}"));
}

fn repair(mode: Mode, seed: u64) {
    let place = Place::new(mode, seed);
    let bytes = content(3 * EXTENT + 5);
    let file = place.file(&bytes);
    let object = object("genome");
    let root = place.split(&file, &object);
    let root_text = root.to_string();
    let words = ["repair", "--object", object.as_str(), "--root", &root_text];
    let words = [&words[..], &place.folders()].concat();
    let lose = |place: &Place, which: usize| {
        fs::remove_dir_all(Path::new(&place.folders[which % N]).join(object.name())).unwrap();
    };
    let mut window = place.window(|place| {
        lose(place, 0);
        place.run(&words);
    });
    let mut tally = Tally::default();
    let mut tries = 0;
    while tally.kills < KILLS && tries < 3 * KILLS {
        tries += 1;
        lose(&place, tries);
        let before = place.files(&object);
        let delay = window.pick(&place.random);
        let run = place.run_killed(&words, delay);
        let (early, late) = tally.count(&run, place.files(&object) != before);
        window.learn(delay, early, late);
        assert!(place.reads(&object, root) == bytes);
        if run.said.is_none() {
            assert_eq!(place.run(&words)["whole"], true);
        }
        place.collects(&object, Some(root));
        assert!(place.runtime.block_on(place.vault.verify(&object, &root.0, |_| {})).unwrap().whole());
    }
    tally.check(&format!("repair {mode}"));
}

fn refresh(mode: Mode, seed: u64) {
    let place = Place::new(mode, seed);
    let bytes = content(2 * EXTENT + 5);
    let file = place.file(&bytes);
    let object = &object("genome");
    let mut root = place.split(&file, object);
    let words = |old: Root, what: &str| {
        let words = ["refresh", "--object", object.as_str(), "--root", &old.to_string(), what];
        let words = words.iter().map(|word| (*word).to_owned());
        words.chain(place.folders.clone()).collect::<Vec<_>>()
    };
    let kinds = match mode {
        Mode::Shamir => &["--everything"][..],
        Mode::Compact => &["--everything", "--keys"],
    };
    let mut windows: Vec<Window> = kinds
        .iter()
        .map(|what| {
            let root = &mut root;
            place.window(move |place| {
                let words = words(*root, what);
                let said = place.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
                *root = self::root(&said);
                place.collects(object, Some(*root));
            })
        })
        .collect();
    let mut tally = Tally::default();
    let mut tries = 0;
    while tally.kills < KILLS && tries < 3 * KILLS {
        tries += 1;
        let (what, window) = (kinds[tries % kinds.len()], &mut windows[tries % kinds.len()]);
        let before = place.files(object);
        let words = words(root, what);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let delay = window.pick(&place.random);
        let run = place.run_killed(&words, delay);
        let (early, late) = tally.count(&run, place.files(object) != before);
        window.learn(delay, early, late);
        // The root that was noted holds, whatever happened.
        assert!(place.reads(object, root) == bytes);
        let next = match &run.said {
            Some(said) => Some(self::root(said)),
            // Now and then it is repeated over what is left of it.
            None => tries.is_multiple_of(3).then(|| self::root(&place.run(&words))),
        };
        if let Some(next) = next {
            assert!(next != root && place.reads(object, next) == bytes);
            root = next;
        }
        place.collects(object, Some(root));
        assert!(place.reads(object, root) == bytes);
    }
    tally.check(&format!("refresh {mode}"));
}

#[test]
fn a_killed_split_shamir() {
    split(Mode::Shamir, 1);
}

#[test]
fn a_killed_split_compact() {
    split(Mode::Compact, 2);
}

#[test]
fn a_killed_resumption_shamir() {
    resume(Mode::Shamir, 3);
}

#[test]
fn a_killed_resumption_compact() {
    resume(Mode::Compact, 4);
}

#[test]
fn a_killed_repair_shamir() {
    repair(Mode::Shamir, 5);
}

#[test]
fn a_killed_repair_compact() {
    repair(Mode::Compact, 6);
}

#[test]
fn a_killed_refresh_shamir() {
    refresh(Mode::Shamir, 7);
}

#[test]
fn a_killed_refresh_compact() {
    refresh(Mode::Compact, 8);
}
