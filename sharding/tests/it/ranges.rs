//! What was deposited is what is read, at every edge.

use futures::StreamExt;
use proptest::prelude::*;
use sharding::format::Mode;

use crate::support::{BLOCK, EXTENT, World, content};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[tokio::test]
async fn sizes_around_every_edge_survive() {
    for size in
        [0, 1, 15, BLOCK - 1, BLOCK, BLOCK + 1, EXTENT - 1, EXTENT, EXTENT + 1, 2 * EXTENT + BLOCK + 7]
    {
        let world = World::new(3, 5);
        let content = content(size);
        let deposited = world.deposit(&content).await;
        assert_eq!(deposited.size, size as u64);
        assert!(world.read_all(&deposited.root).await.unwrap() == content, "{size}");
        assert!(world.blamed().is_empty());
    }
}

#[tokio::test]
async fn every_threshold_deposits_and_reads() {
    for (k, n) in [(2, 2), (2, 3), (5, 8), (32, 32), (2, 32)] {
        let world = World::new(k, n);
        let content = content(BLOCK + 100);
        let deposited = world.deposit(&content).await;
        assert!(world.read_all(&deposited.root).await.unwrap() == content);
    }
}

#[tokio::test]
async fn a_stream_is_the_range_in_order_and_stops_at_the_first_error() {
    let world = World::new(3, 5);
    let bytes = content(9 * EXTENT + 17);
    let root = world.deposit(&bytes).await.root;
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    for range in [0..u64::MAX, 5..6, EXTENT as u64 - 1..3 * EXTENT as u64 + 1, 7..7, 1 << 40..1 << 41] {
        let mut stream = std::pin::pin!(reader.stream(range.clone()));
        let mut read = Vec::new();
        while let Some(part) = stream.next().await {
            read.extend_from_slice(&part.unwrap());
        }
        let size = bytes.len() as u64;
        let (from, to) = (range.start.min(size) as usize, range.end.min(size) as usize);
        assert!(read == bytes[from..to], "{range:?}");
    }
    for store in &world.stores[..3] {
        store.remove_all(|name| name.contains("/00000002.")).await;
    }
    let parts: Vec<_> = reader.stream(0..u64::MAX).collect().await;
    assert_eq!(parts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
}

#[tokio::test]
async fn progress_ends_at_the_size() {
    let world = World::new(2, 3);
    let seen = std::sync::Mutex::new(Vec::new());
    let bytes = content(2 * EXTENT + 5);
    let entropy = model::SeededEntropy::new(1);
    let progress = |done| seen.lock().unwrap().push(done);
    world.vault.deposit(&world.object, bytes.as_slice(), &entropy, progress).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [EXTENT as u64, 2 * EXTENT as u64, 2 * EXTENT as u64 + 5]);
}

#[tokio::test]
async fn a_small_range_fetches_only_the_blocks_it_touches() {
    let world = World::new(3, 5);
    let content = content(EXTENT + 10 * BLOCK);
    let root = world.deposit(&content).await.root;
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    world.stores.iter().for_each(|store| store.asked.lock().unwrap().clear());
    let at = 3 * BLOCK + 100;
    assert_eq!(reader.read_at(at as u64, 200).await.unwrap().as_slice(), &content[at..at + 200]);
    let asked: Vec<_> = world.stores.iter().flat_map(|store| store.asked.lock().unwrap().clone()).collect();
    let blocks: Vec<_> = asked.iter().filter(|(_, range)| range.end - range.start >= BLOCK as u64).collect();
    assert_eq!(blocks.len(), 3, "{asked:?}");
    let bytes: u64 = asked.iter().map(|(_, range)| range.end - range.start).sum();
    assert!(bytes < 4 * BLOCK as u64, "{bytes} bytes for 200");
}

#[tokio::test]
async fn reads_beyond_the_end_and_too_long_ones() {
    let world = World::new(2, 3);
    let root = world.deposit(&content(100)).await.root;
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    assert_eq!(reader.read_at(90, 1 << 40).await.unwrap().len(), 10);
    assert!(reader.read_at(100, 1).await.unwrap().is_empty());
    assert!(reader.read_at(u64::MAX, usize::MAX).await.unwrap().is_empty());
    assert!(reader.read_at(0, 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn two_deposits_of_one_object_do_not_meet() {
    let world = World::new(2, 3);
    let (first, second) = (content(BLOCK), content(BLOCK + 1));
    let (a, b) = (world.deposit(&first).await, world.deposit(&second).await);
    assert_ne!(a.root, b.root);
    assert!(world.read_all(&a.root).await.unwrap() == first);
    assert!(world.read_all(&b.root).await.unwrap() == second);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_range_of_any_size_is_what_was_deposited(
        mode in prop::sample::select(vec![Mode::Shamir, Mode::Compact]),
        (extents, edge, off) in (0usize..2, prop::sample::select(vec![0, BLOCK, 2 * BLOCK, EXTENT]), -3isize..=3),
        ranges in prop::collection::vec((0.0f64..1.0, 0usize..3 * BLOCK), 1..8),
    ) {
        let size = (extents * EXTENT + edge).saturating_add_signed(off);
        let content = content(size);
        runtime().block_on(async {
            let world = World::with(3, 5, |options| options.mode = mode);
            let root = world.deposit(&content).await.root;
            let reader = world.vault.open(&world.object, &root).await.unwrap();
            for (at, len) in ranges {
                let at = (at * size as f64) as usize;
                let end = size.min(at + len);
                assert!(reader.read_at(at as u64, len).await.unwrap().as_slice() == &content[at..end]);
            }
        });
    }
}
