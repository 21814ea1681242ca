//! Every pair of five backends misbehaves in every pair of ways at once: what is read is right, and
//! both are named. Three of five are a clear error in time. While depositing, one is enough for one.
//!
//! Time is paused: limits are waited for, but not lived through.

use std::collections::HashMap;

use model::{ObjectId, SeededEntropy};
use object_store::path::Path;
use sharding::format::{File, Mode};
use sharding::vault::{DepositError, FaultKind, ReadError, Vault};
use tokio::time::{Duration, Instant, sleep};

use crate::support::{BLOCK, EXTENT, Mood, World, content};

/// The vault's limit for one request in these tests.
const LIMIT: Duration = Duration::from_millis(400);

/// Ways to misbehave while reading.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Mood(Mood),
    /// Gives another object's files.
    OtherObject,
    /// Gives the files of an earlier deposit of the same object.
    OldAttempt,
}

const WAYS: [Way; 10] = [
    Way::Mood(Mood::Hangs),
    Way::Mood(Mood::Crawls),
    Way::Mood(Mood::Refuses),
    Way::Mood(Mood::Vanished),
    Way::Mood(Mood::Short),
    Way::Mood(Mood::Long),
    Way::Mood(Mood::BreaksOff),
    Way::Mood(Mood::Flips),
    Way::OtherObject,
    Way::OldAttempt,
];

/// What whoever reads is told of it.
fn told(way: Way) -> FaultKind {
    match way {
        Way::Mood(Mood::Hangs | Mood::Crawls) => FaultKind::Timeout,
        Way::Mood(Mood::Refuses | Mood::BreaksOff) => FaultKind::Unreachable,
        Way::Mood(Mood::Vanished) => FaultKind::Missing,
        Way::Mood(Mood::Short) => FaultKind::Short,
        Way::Mood(_) | Way::OtherObject | Way::OldAttempt => FaultKind::Corrupt,
    }
}

/// An object on five backends, beside another object and an older deposit of its own.
struct Stage {
    world: World,
    content: Vec<u8>,
    root: [u8; 32],
    other: Vec<HashMap<String, Path>>,
    old: Vec<HashMap<String, Path>>,
}

impl Stage {
    async fn new(mode: Mode) -> Stage {
        let world = World::with(3, 5, |options| options.mode = mode);
        let content = content(2 * BLOCK + 9);
        let deposit = async |name: &str, content: &[u8], seed| {
            let object = ObjectId::from_name(name).unwrap();
            world.vault.deposit(&object, content, &SeededEntropy::new(seed), |_| {}).await.unwrap().root
        };
        let other: Vec<u8> = content.iter().map(|byte| !byte).collect();
        deposit("genome-2", &other, 1).await;
        let others = files(&world).await;
        deposit("genome-1", &other, 2).await;
        let olds = files(&world).await;
        let root = deposit("genome-1", &content, 3).await;
        let all = files(&world).await;
        let only = |at: usize, before: &[Vec<String>]| -> Vec<String> {
            all[at].iter().filter(|file| !before[at].contains(*file)).cloned().collect()
        };
        let swap = |to: &dyn Fn(usize) -> Vec<String>| {
            let pairs = |at: usize| {
                let twins = only(at, &olds).into_iter().filter_map(|file| {
                    let twin = to(at).into_iter().find(|twin| kind(twin) == kind(&file))?;
                    Some((file, Path::from(twin)))
                });
                twins.collect::<HashMap<_, _>>()
            };
            (0..5).map(pairs).collect::<Vec<_>>()
        };
        let other = swap(&|at| others[at].clone());
        let old = swap(&|at| olds[at].iter().filter(|file| !others[at].contains(*file)).cloned().collect());
        assert!(other.iter().chain(&old).all(|twins| twins.len() >= 2), "nothing to swap");
        Stage { world, content, root, other, old }
    }

    /// Every backend behaves but these.
    fn cast(&self, liars: &[(usize, Way)]) {
        self.world.stores.iter().for_each(|store| store.is(Mood::Fine));
        for (at, way) in liars {
            let store = &self.world.stores[*at];
            let (mood, instead) = match way {
                Way::Mood(mood) => (*mood, None),
                Way::OtherObject => (Mood::Swaps, Some(&self.other[*at])),
                Way::OldAttempt => (Mood::Swaps, Some(&self.old[*at])),
            };
            *store.instead.lock().unwrap() = instead.cloned().unwrap_or_default();
            store.is(mood);
        }
    }

    /// A vault that asks the liars first: being asked later must not hide them.
    fn vault(&self, liars: &[(usize, Way)]) -> Vault {
        self.world.faults.lock().unwrap().clear();
        let mut order: Vec<usize> = (0..5).collect();
        order.sort_by_key(|at| liars.iter().all(|(liar, _)| liar != at));
        self.world.reading(&order)
    }

    async fn read(&self, vault: &Vault, between: impl FnOnce()) -> Result<(), ReadError> {
        let reader = vault.open(&self.world.object, &self.root).await?;
        between();
        let read = reader.read_at(0, self.content.len()).await?;
        assert!(read.as_slice() == self.content, "other bytes than were deposited");
        Ok(())
    }

    /// Reads with liars from the start or from when the object was opened; both are named.
    async fn both_are_named(&self, liars: [(usize, Way); 2], from_the_start: bool) {
        self.cast(if from_the_start { &liars } else { &[] });
        let vault = self.vault(&liars);
        let read = self.read(&vault, || self.cast(&liars)).await;
        read.unwrap_or_else(|error| panic!("{liars:?} {from_the_start}: {error}"));
        // Who was overtaken is called late when its time is up.
        sleep(2 * LIMIT).await;
        let guilty = liars.map(|(at, _)| format!("backend:b{}", at + 1));
        assert_eq!(self.world.blamed(), guilty, "{liars:?} {from_the_start}");
    }
}

/// The files of every backend.
async fn files(world: &World) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for store in &world.stores {
        all.push(store.names().await.iter().map(Path::to_string).collect());
    }
    all
}

/// What a file is, whatever it is called.
fn kind(file: &str) -> Option<(u8, u64)> {
    Some(match File::parse(file.split_once('/')?.1)? {
        File::Extent(_, extent, _) => (0, extent),
        File::Key(..) => (1, 0),
        File::Manifest(_) => (2, 0),
    })
}

async fn every_pair_in_every_pair_of_ways(mode: Mode) {
    let stage = Stage::new(mode).await;
    let mut combinations = 0;
    for (a, b) in (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))) {
        for (one, other) in WAYS.iter().flat_map(|one| WAYS.map(|other| (*one, other))) {
            for from_the_start in [true, false] {
                stage.both_are_named([(a, one), (b, other)], from_the_start).await;
                combinations += 1;
            }
        }
    }
    assert_eq!(combinations, 10 * 100 * 2);
}

#[tokio::test(start_paused = true)]
async fn every_pair_may_misbehave_in_every_pair_of_ways_while_every_byte_is_shared() {
    every_pair_in_every_pair_of_ways(Mode::Shamir).await;
}

#[tokio::test(start_paused = true)]
async fn every_pair_may_misbehave_in_every_pair_of_ways_while_ciphertext_is_spread() {
    every_pair_in_every_pair_of_ways(Mode::Compact).await;
}

#[tokio::test(start_paused = true)]
async fn three_of_five_are_a_clear_error_in_time() {
    let stage = Stage::new(Mode::Shamir).await;
    let triples = (0..5).flat_map(|a| (a + 1..5).flat_map(move |b| (b + 1..5).map(move |c| [a, b, c])));
    for triple in triples {
        for (way, from_the_start) in WAYS.iter().flat_map(|way| [(*way, true), (*way, false)]) {
            let liars = triple.map(|at| (at, way));
            stage.cast(if from_the_start { &liars } else { &[] });
            let vault = stage.vault(&liars);
            let start = Instant::now();
            let error = stage.read(&vault, || stage.cast(&liars)).await.unwrap_err();
            assert!(start.elapsed() <= 3 * LIMIT, "{liars:?} {from_the_start}: {:?}", start.elapsed());
            let ReadError::TooFew { needed: 3, good: 2, faults, .. } = &error else {
                panic!("{liars:?} {from_the_start}: {error:?}")
            };
            let mut named: Vec<&str> = faults.iter().map(|fault| fault.backend.name()).collect();
            named.sort_unstable();
            named.dedup();
            assert_eq!(named, triple.map(|at| format!("b{}", at + 1)), "{way:?} {from_the_start}");
            assert!(error.to_string().contains(&format!("Institution {}", triple[0] + 1)), "{error}");
            if !from_the_start {
                assert!(faults.iter().all(|fault| fault.kind == told(way)), "{way:?}: {faults:?}");
            }
        }
    }
}

/// Ways to misbehave that whoever writes notices.
const WRITING: [Mood; 6] =
    [Mood::Hangs, Mood::Crawls, Mood::Refuses, Mood::Vanished, Mood::Full, Mood::LosesWord];

#[tokio::test(start_paused = true)]
async fn whoever_takes_no_share_is_named_and_nothing_is_acknowledged() {
    let content = content(EXTENT + BLOCK);
    for (at, mood) in (0..5).flat_map(|at| WRITING.map(|mood| (at, mood))) {
        // From the start, and once the first extent lies everywhere.
        for after in [0, EXTENT as u64] {
            let world = World::new(3, 5);
            if after == 0 {
                world.stores[at].is(mood);
            }
            let progress = |done: u64| {
                if done >= after {
                    world.stores[at].is(mood);
                }
            };
            let start = Instant::now();
            let entropy = SeededEntropy::new(at as u64);
            let deposit = world.vault.deposit(&world.object, content.as_slice(), &entropy, progress);
            let error = deposit.await.unwrap_err();
            assert!(start.elapsed() <= 5 * LIMIT, "{mood:?}: {:?}", start.elapsed());
            let (backend, institution) = match &error {
                DepositError::Backend { backend, institution, .. } => (backend, institution),
                DepositError::Timeout { backend, institution } => (backend, institution),
                other => panic!("{mood:?}: {other:?}"),
            };
            assert_eq!(
                (backend.name(), institution),
                (&*format!("b{}", at + 1), &format!("Institution {}", at + 1))
            );
            world.stores[at].is(Mood::Fine);
            let honest = world.reading(&[0, 1, 2, 3, 4]);
            let found = honest.manifests(Some(&world.object)).await;
            assert!(found.iter().all(|found| found.held_by <= 1), "{mood:?}: {found:?}");
        }
    }
}
