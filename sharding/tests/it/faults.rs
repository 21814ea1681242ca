//! Up to n − k backends misbehave at once, in every way, and reading goes on and names them.

use std::time::{Duration, Instant};

use crate::support::{BLOCK, EXTENT, Mood, World, content};
use model::SeededEntropy;
use sharding::vault::{DepositError, FaultKind, ReadError};

/// Ways to misbehave while reading.
#[derive(Debug, Clone, Copy)]
enum Way {
    Mood(Mood),
    Corrupts,
    Truncates,
    Empties,
}

const WAYS: [Way; 6] = [
    Way::Mood(Mood::Hangs),
    Way::Mood(Mood::Refuses),
    Way::Mood(Mood::Vanished),
    Way::Corrupts,
    Way::Truncates,
    Way::Empties,
];

async fn misbehave(world: &World, backend: usize, way: Way) {
    let store = &world.stores[backend];
    match way {
        Way::Mood(mood) => store.is(mood),
        Way::Corrupts => {
            store.tamper(|_| true, |bytes| bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 4)).await;
        }
        Way::Truncates => store.tamper(|_| true, |bytes| bytes.truncate(bytes.len() / 2)).await,
        Way::Empties => store.tamper(|_| true, Vec::clear).await,
    }
}

#[tokio::test]
async fn any_two_of_five_may_misbehave_in_any_way_from_the_start() {
    let content = content(3 * BLOCK + 9);
    for (number, a) in WAYS.into_iter().enumerate() {
        for b in WAYS {
            let world = World::new(3, 5);
            let root = world.deposit(&content).await.root;
            let (one, other) = (number % 5, (number + 1) % 5);
            misbehave(&world, one, a).await;
            misbehave(&world, other, b).await;
            assert!(world.read_all(&root).await.unwrap() == content, "{a:?} {b:?}");
            let blamed = world.blamed();
            let guilty = [format!("backend:b{}", one + 1), format!("backend:b{}", other + 1)];
            assert!(blamed.iter().all(|name| guilty.contains(name)), "{blamed:?}");
        }
    }
}

#[tokio::test]
async fn every_pair_may_misbehave_between_two_reads_and_is_named() {
    let content = content(EXTENT + 2 * BLOCK);
    for (a, b) in (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))) {
        for way in WAYS {
            let world = World::new(3, 5);
            let root = world.deposit(&content).await.root;
            let reader = world.vault.open(&world.object, &root).await.unwrap();
            assert!(reader.read_at(0, 10).await.unwrap().as_slice() == &content[..10]);
            misbehave(&world, a, way).await;
            misbehave(&world, b, way).await;
            // Everybody healthy is made slow-looking by nothing: whoever is asked first may be either.
            for from in [0, BLOCK, EXTENT - 5, EXTENT + BLOCK] {
                let read = reader.read_at(from as u64, 50).await.unwrap();
                assert!(read.as_slice() == &content[from..from + 50], "{way:?}");
            }
            let guilty = [format!("backend:b{}", a + 1), format!("backend:b{}", b + 1)];
            assert!(world.blamed().iter().all(|name| guilty.contains(name)), "{way:?}");
        }
    }
}

#[tokio::test]
async fn the_kind_of_fault_is_told() {
    for (way, kind) in [
        (Way::Mood(Mood::Hangs), FaultKind::Timeout),
        (Way::Mood(Mood::Refuses), FaultKind::Unreachable),
        (Way::Mood(Mood::Vanished), FaultKind::Missing),
        (Way::Corrupts, FaultKind::Corrupt),
        (Way::Truncates, FaultKind::Short),
    ] {
        // Two of two: whoever misbehaves must be asked.
        let world = World::new(2, 2);
        let root = world.deposit(&content(BLOCK)).await.root;
        let reader = world.vault.open(&world.object, &root).await.unwrap();
        reader.read_at(0, 1).await.unwrap();
        misbehave(&world, 1, way).await;
        let error = reader.read_at(0, 1).await.unwrap_err();
        let ReadError::TooFew { needed: 2, good: 1, faults, .. } = &error else { panic!("{error:?}") };
        assert_eq!((faults[0].kind, faults[0].block), (kind, Some(0)), "{way:?}");
        assert_eq!(faults[0].backend.name(), "b2");
        assert_eq!(*world.faults.lock().unwrap(), *faults);
        let text = error.to_string();
        assert!(text.contains("Institution 2") && text.contains("2 backends must"), "{text}");
    }
}

#[tokio::test]
async fn three_of_five_gone_is_a_clear_error_and_soon() {
    for mood in [Mood::Hangs, Mood::Vanished, Mood::Refuses] {
        let world = World::new(3, 5);
        let root = world.deposit(&content(BLOCK)).await.root;
        let reader = world.vault.open(&world.object, &root).await.unwrap();
        (0..3).for_each(|at| world.stores[at].is(mood));
        let start = Instant::now();
        let error = reader.read_at(0, 10).await.unwrap_err();
        assert!(matches!(error, ReadError::TooFew { needed: 3, good: 2, .. }), "{error:?}");
        let error = world.vault.open(&world.object, &root).await.err().unwrap();
        assert!(matches!(error, ReadError::TooFew { needed: 3, good: 2, .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        // They come back: so does reading.
        (0..3).for_each(|at| world.stores[at].is(Mood::Fine));
        assert_eq!(reader.read_at(0, 10).await.unwrap().len(), 10);
    }
}

#[tokio::test]
async fn all_gone_is_a_clear_error() {
    let world = World::new(2, 3);
    let root = world.deposit(b"x").await.root;
    world.stores.iter().for_each(|store| store.is(Mood::Hangs));
    let error = world.vault.open(&world.object, &root).await.err().unwrap();
    let ReadError::NoManifest { faults, .. } = &error else { panic!("{error:?}") };
    assert_eq!(faults.len(), 3);
}

#[tokio::test]
async fn a_backend_that_hung_slows_one_read_and_not_the_next() {
    let world = World::with(3, 5, |options| {
        options.read_timeout = Duration::from_secs(2);
        options.hedge_after = Duration::from_millis(200);
    });
    let bytes = content(20 * BLOCK);
    let root = world.deposit(&bytes).await.root;
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    world.stores.iter().for_each(|store| store.asked.lock().unwrap().clear());
    reader.read_at(0, 1).await.unwrap();
    // Those that just served, and will be asked again, hang.
    let served = world.stores.iter().filter(|store| !store.asked.lock().unwrap().is_empty());
    served.take(2).for_each(|store| store.is(Mood::Hangs));
    let start = Instant::now();
    reader.read_at(BLOCK as u64, 1).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(1500), "first {:?}", start.elapsed());
    let start = Instant::now();
    for block in 2..20 {
        reader.read_at((block * BLOCK) as u64, 1).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_millis(500), "rest {:?}", start.elapsed());
    // The request that was overtaken is called a fault once its time is up.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(!world.blamed().is_empty());
    assert!(world.faults.lock().unwrap().iter().all(|fault| fault.kind == FaultKind::Timeout));
}

#[tokio::test]
async fn a_deposit_needs_every_backend_and_leaves_nothing_that_reads() {
    for (mood, timeout) in [(Mood::Refuses, false), (Mood::Hangs, true)] {
        let world = World::new(2, 3);
        world.stores[1].is(mood);
        let entropy = SeededEntropy::new(3);
        let bytes = content(EXTENT + 1);
        let start = Instant::now();
        let deposit = world.vault.deposit(&world.object, bytes.as_slice(), &entropy, |_| {});
        let error = deposit.await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(3));
        match error {
            DepositError::Backend { backend, .. } => assert!(!timeout && backend.name() == "b2"),
            DepositError::Timeout { backend, .. } => assert!(timeout && backend.name() == "b2"),
            other => panic!("{other:?}"),
        }
        for store in &world.stores {
            assert_eq!(store.names().await, []);
        }
    }
}

#[tokio::test]
async fn a_source_that_breaks_off_deposits_nothing() {
    use tokio::io::AsyncReadExt as _;
    let world = World::new(2, 3);
    let broken = tokio_test_broken();
    let bytes = content(EXTENT + 10);
    let source = bytes.as_slice().chain(broken);
    let error = world.vault.deposit(&world.object, source, &SeededEntropy::new(1), |_| {}).await.unwrap_err();
    assert!(matches!(error, DepositError::Source(_)), "{error:?}");
    for store in &world.stores {
        assert_eq!(store.names().await, []);
    }
}

/// A reader that fails at once.
fn tokio_test_broken() -> impl tokio::io::AsyncRead + Unpin {
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
        }
    }
    Broken
}
