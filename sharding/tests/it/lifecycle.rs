//! Repair, refresh, resumption, collection and destruction, in both modes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::{BLOCK, EXTENT, Mood, World, content};
use model::SeededEntropy;
use sharding::format::{Mode, Root};
use sharding::vault::{DepositError, ReadError, Refresh, RefreshError};

const MODES: [Mode; 2] = [Mode::Shamir, Mode::Compact];

fn world(mode: Mode) -> World {
    World::with(3, 5, |options| options.mode = mode)
}

fn is_extent(name: &str) -> bool {
    !name.ends_with(".manifest") && !name.ends_with(".key")
}

impl World {
    async fn is_whole(&self, root: &[u8; 32]) -> bool {
        self.vault.verify(&self.object, root, |_| {}).await.unwrap().whole()
    }

    async fn everything(&self) -> Vec<Vec<(String, Vec<u8>)>> {
        let mut all = Vec::new();
        for store in &self.stores {
            let mut files = Vec::new();
            for name in store.names().await {
                files.push((name.to_string(), store.content(&name).await));
            }
            files.sort();
            all.push(files);
        }
        all
    }
}

#[tokio::test]
async fn both_modes_read_back_what_was_deposited() {
    for mode in MODES {
        for (k, n) in [(2, 2), (3, 5), (5, 8), (7, 9), (32, 32), (2, 32)] {
            for size in [0, 1, 2, 31, BLOCK - 1, BLOCK, BLOCK + 1, EXTENT + BLOCK + 5] {
                let world = World::with(k, n, |options| options.mode = mode);
                let bytes = content(size);
                let root = world.deposit(&bytes).await.root;
                assert!(world.read_all(&root).await.unwrap() == bytes, "{mode} {k}/{n} {size}");
                assert!(world.blamed().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn compact_shares_are_a_kth_as_long() {
    let world = world(Mode::Compact);
    world.deposit(&content(3 * EXTENT)).await;
    let stored: usize = world.everything().await.iter().flatten().map(|(_, bytes)| bytes.len()).sum();
    assert!(stored < 3 * EXTENT * 5 / 3 * 102 / 100, "{stored}");
}

#[tokio::test]
async fn what_two_of_five_lost_is_rebuilt_to_the_byte() {
    for mode in MODES {
        for (a, b) in (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))) {
            let world = world(mode);
            let bytes = content(EXTENT + 3 * BLOCK + 1);
            let root = world.deposit(&bytes).await.root;
            let before = world.everything().await;
            // One loses everything, the other is damaged here and there.
            world.stores[a].wipe().await;
            world.stores[b].tamper(|_| true, |file| *file.last_mut().unwrap() ^= 1).await;
            world.stores[b].tamper(is_extent, |file| file[5000] ^= 1).await;
            assert!(!world.is_whole(&root).await);
            let repaired = world.vault.repair(&world.object, &root, |_| {}).await.unwrap();
            assert!(repaired.whole(), "{repaired:?}");
            assert_eq!((repaired.weakest, repaired.backends[a].files), (3, 4));
            assert!(world.everything().await == before, "{mode} {a} {b}");
            let again = world.vault.repair(&world.object, &root, |_| {}).await.unwrap();
            assert_eq!((again.weakest, again.backends.iter().map(|b| b.files).sum::<u64>()), (5, 0));
        }
    }
}

#[tokio::test]
async fn blocks_are_mended_from_whoever_still_has_each() {
    // Every backend is damaged, none in the same block: no backend is whole, every block has four shares.
    for mode in MODES {
        let world = world(mode);
        let bytes = content(5 * BLOCK);
        let root = world.deposit(&bytes).await.root;
        let before = world.everything().await;
        let share = if mode == Mode::Shamir { BLOCK } else { BLOCK.div_ceil(3) };
        for (at, store) in world.stores.iter().enumerate() {
            store.tamper(is_extent, |file| file[4096 + at * share + 7] ^= 1).await;
        }
        let repaired = world.vault.repair(&world.object, &root, |_| {}).await.unwrap();
        assert!(repaired.whole() && repaired.weakest == 4, "{repaired:?}");
        assert!(world.everything().await == before);
    }
}

#[tokio::test]
async fn beyond_n_minus_k_repair_says_what_is_lost_and_harms_nothing() {
    let world = world(Mode::Shamir);
    let bytes = content(2 * EXTENT);
    let root = world.deposit(&bytes).await.root;
    for store in &world.stores[..3] {
        store.tamper(|name| name.contains("/00000001."), |file| file[4096] ^= 1).await;
    }
    let repaired = world.vault.repair(&world.object, &root, |_| {}).await.unwrap();
    assert_eq!((repaired.whole(), repaired.weakest, repaired.lost), (false, 2, vec![1]));
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    assert!(reader.read_at(0, EXTENT).await.unwrap().as_slice() == &bytes[..EXTENT]);
    assert!(reader.read_at(EXTENT as u64 + BLOCK as u64, 10).await.is_ok(), "only one block is gone");
}

#[tokio::test]
async fn a_new_backend_in_the_place_of_a_lost_one_gets_its_share() {
    for mode in MODES {
        let world = world(mode);
        let bytes = content(BLOCK + 9);
        let root = world.deposit(&bytes).await.root;
        world.stores[3].wipe().await;
        let repaired = world.vault.repair(&world.object, &root, |_| {}).await.unwrap();
        assert!(repaired.whole());
        assert_eq!(repaired.backends[3].share.unwrap().x(), 4);
        // It serves.
        world.stores[..2].iter().for_each(|store| store.is(Mood::Vanished));
        assert!(world.read_all(&root).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_refresh_makes_old_shares_worthless() {
    for (mode, what) in [
        (Mode::Shamir, Refresh::Everything),
        (Mode::Compact, Refresh::Everything),
        (Mode::Compact, Refresh::Keys),
    ] {
        let world = world(mode);
        let bytes = content(EXTENT + 11);
        let old = world.deposit(&bytes).await.root;
        let stolen = world.everything().await;
        let entropy = SeededEntropy::new(99);
        let refreshed = world.vault.refresh(&world.object, &old, what, &entropy, |_| {}).await.unwrap();
        // Both are there until the caller has noted the new root.
        assert!(world.read_all(&old).await.unwrap() == bytes);
        assert!(world.read_all(&refreshed.root).await.unwrap() == bytes);
        let collected = world.vault.collect(&world.object, &[Root(refreshed.root)], &[]).await.unwrap();
        assert!(collected.faults.is_empty() && collected.removed > 0);
        assert!(world.read_all(&refreshed.root).await.unwrap() == bytes);
        assert!(world.is_whole(&refreshed.root).await);
        assert!(matches!(world.read_all(&old).await, Err(ReadError::NoManifest { .. })));
        assert_eq!(world.vault.open(&world.object, &refreshed.root).await.unwrap().epoch(), 2);
        // Two shares of the old epoch and two of the new do not make three of either.
        for at in [0, 1] {
            for (name, file) in &stolen[at] {
                world.stores[at].put_back(name, file).await;
            }
        }
        assert!(matches!(world.read_all(&old).await, Err(ReadError::TooFew { good: 2, .. })));
        world.vault.collect(&world.object, &[Root(refreshed.root)], &[]).await.unwrap();
        if what == Refresh::Everything {
            // Old shares under the names of new ones are noticed.
            let name = |world: &[(String, Vec<u8>)]| {
                world.iter().find(|(name, _)| name.contains("/00000000.")).unwrap().clone()
            };
            for at in [0, 1] {
                let (_, stale) = name(&stolen[at]);
                let (fresh, _) = name(&world.everything().await[at]);
                world.stores[at].put_back(&fresh, &stale).await;
            }
            assert!(world.read_all(&refreshed.root).await.unwrap() == bytes);
            let found = world.vault.verify(&world.object, &refreshed.root, |_| {}).await.unwrap();
            assert_eq!(found.backends.iter().filter(|state| state.faults > 0).count(), 2);
        }
    }
}

#[tokio::test]
async fn keys_alone_are_no_refresh_of_bytes_that_are_shares() {
    let world = world(Mode::Shamir);
    let root = world.deposit(b"x").await.root;
    let refreshed =
        world.vault.refresh(&world.object, &root, Refresh::Keys, &SeededEntropy::new(9), |_| {}).await;
    assert!(matches!(refreshed, Err(RefreshError::KeysAlone)));
}

#[tokio::test]
async fn no_reader_is_interrupted_by_five_refreshes() {
    for mode in MODES {
        let world = world(mode);
        let bytes = content(EXTENT + 5 * BLOCK);
        let mut root = world.deposit(&bytes).await.root;
        let reader = world.vault.open(&world.object, &root).await.unwrap();
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let readers: Vec<_> = (0..4u64)
            .map(|at| {
                let (reader, stop, reads, bytes) =
                    (reader.clone(), stop.clone(), reads.clone(), bytes.clone());
                tokio::spawn(async move {
                    let mut from = at * 7919 * BLOCK as u64;
                    while !stop.load(Ordering::Relaxed) {
                        from = (from + 104_729) % bytes.len() as u64;
                        let read = reader.read_at(from, 300_000).await.unwrap();
                        let from = from as usize;
                        assert!(read.as_slice() == &bytes[from..bytes.len().min(from + 300_000)]);
                        reads.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for epoch in 2..=6 {
            let entropy = SeededEntropy::new(epoch);
            let refreshed = world.vault.refresh(&world.object, &root, Refresh::Everything, &entropy, |_| {});
            root = refreshed.await.unwrap().root;
            reader.advance(&world.vault, &root).await.unwrap();
            world.vault.collect(&world.object, &[Root(root)], &[]).await.unwrap();
            assert_eq!(reader.epoch(), epoch);
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
        assert!(reads.load(Ordering::Relaxed) > 20, "{reads:?}");
    }
}

#[tokio::test]
async fn a_deposit_that_broke_off_is_taken_up_where_it_was() {
    for mode in MODES {
        let world = world(mode);
        let bytes = content(5 * EXTENT + 100);
        let entropy = SeededEntropy::new(5);
        let depositing = world.vault.begin(&world.object, &entropy).await.unwrap();
        let set = depositing.set();
        let broken = tokio::io::AsyncReadExt::chain(&bytes[..3 * EXTENT + 50], Broken);
        let error = depositing.run(broken, &entropy, |_| {}).await.unwrap_err();
        assert!(matches!(error, DepositError::Source(_)));
        let unfinished = world.vault.unfinished(&world.object).await;
        assert_eq!(unfinished.len(), 1);
        assert_eq!((unfinished[0].set, unfinished[0].held_by), (set, 5));
        let taken_up = world.vault.resume(&world.object, set).await.unwrap();
        let deposited = taken_up.run(bytes.as_slice(), &SeededEntropy::new(6), |_| {}).await.unwrap();
        assert!(deposited.resumed >= EXTENT as u64, "{deposited:?}");
        assert!(world.read_all(&deposited.root).await.unwrap() == bytes);
        assert!(world.is_whole(&deposited.root).await);
        assert!(world.vault.unfinished(&world.object).await.is_empty());
        // Again, all of it is there, and the root comes out the same.
        let again = world.vault.resume(&world.object, set).await.unwrap();
        let again = again.run(bytes.as_slice(), &SeededEntropy::new(7), |_| {}).await.unwrap();
        assert_eq!((again.root, again.resumed), (deposited.root, bytes.len() as u64));
    }
}

#[tokio::test]
async fn extents_that_changed_or_are_not_everywhere_are_shared_anew() {
    for mode in MODES {
        let world = world(mode);
        let bytes = content(4 * EXTENT);
        let entropy = SeededEntropy::new(5);
        let depositing = world.vault.begin(&world.object, &entropy).await.unwrap();
        let set = depositing.set();
        depositing.run(bytes.as_slice(), &entropy, |_| {}).await.unwrap();
        for store in &world.stores {
            store.remove_all(|name| name.ends_with(".manifest")).await;
        }
        // The first is gone on one backend, the second has another table on one, of the third the
        // plaintext is another by now.
        world.stores[0].remove_all(|name| name.contains("/00000000.")).await;
        world.stores[1]
            .tamper(|name| name.contains("/00000001."), |file| *file.last_mut().unwrap() ^= 1)
            .await;
        let mut changed = bytes.clone();
        changed[2 * EXTENT + 77] ^= 1;
        let taken_up = world.vault.resume(&world.object, set).await.unwrap();
        let deposited = taken_up.run(changed.as_slice(), &SeededEntropy::new(6), |_| {}).await.unwrap();
        assert_eq!(deposited.resumed, EXTENT as u64);
        assert!(world.read_all(&deposited.root).await.unwrap() == changed);
        // What was left behind is collected.
        assert!(world.is_whole(&deposited.root).await);
        let collected = world.vault.collect(&world.object, &[Root(deposited.root)], &[]).await.unwrap();
        assert_eq!(collected.removed, 4 + 5 + 5);
        assert!(world.is_whole(&deposited.root).await);
    }
}

#[tokio::test]
async fn only_who_can_read_can_resume() {
    let world = world(Mode::Shamir);
    let entropy = SeededEntropy::new(5);
    let set = world.vault.begin(&world.object, &entropy).await.unwrap().set();
    for store in &world.stores[..3] {
        store.tamper(|name| name.ends_with(".key"), |file| file[4096] ^= 1).await;
    }
    let error = world.vault.resume(&world.object, set).await.err().unwrap();
    assert!(matches!(error, DepositError::NothingToResume { needed: 3, good: 2, .. }), "{error:?}");
}

#[tokio::test]
async fn a_collection_keeps_what_is_live_or_under_way_and_foreign_files() {
    let world = world(Mode::Compact);
    let (first, second) = (content(BLOCK), content(BLOCK + 1));
    let (a, b) = (world.deposit(&first).await.root, world.deposit(&second).await.root);
    let under_way = world.vault.begin(&world.object, &SeededEntropy::new(77)).await.unwrap().set();
    let dead = world.vault.begin(&world.object, &SeededEntropy::new(78)).await.unwrap().set();
    world.stores[2].put_back("genome-1/README.txt", b"not ours").await;
    let collected = world.vault.collect(&world.object, &[Root(a), Root(b)], &[under_way]).await.unwrap();
    assert_eq!((collected.removed, collected.foreign), (5, 1));
    assert!(world.read_all(&a).await.unwrap() == first && world.read_all(&b).await.unwrap() == second);
    let sets: Vec<_> = world.vault.unfinished(&world.object).await.iter().map(|found| found.set).collect();
    assert!(sets == [under_way] && dead != under_way);
    // A root that is not there stops everything.
    let before = world.everything().await;
    assert!(world.vault.collect(&world.object, &[Root([9; 32])], &[]).await.is_err());
    assert!(world.everything().await == before);
}

#[tokio::test]
async fn an_object_is_beyond_recovery_once_fewer_than_k_may_have_it() {
    let world = world(Mode::Shamir);
    let bytes = content(EXTENT + 1);
    let root = world.deposit(&bytes).await.root;
    world.stores[..3].iter().for_each(|store| store.is(Mood::Refuses));
    let destruction = world.vault.destroy(&world.object, 3).await;
    assert!(!destruction.beyond_recovery() && !destruction.complete());
    world.stores[2].is(Mood::Fine);
    let destruction = world.vault.destroy(&world.object, 3).await;
    assert!(destruction.beyond_recovery() && !destruction.complete());
    world.stores.iter().for_each(|store| store.is(Mood::Fine));
    assert!(world.read_all(&root).await.is_err());
    let destruction = world.vault.destroy(&world.object, 3).await;
    assert!(destruction.complete());
    for store in &world.stores {
        assert_eq!(store.names().await, []);
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let statement = destruction.signed_statement(model::Timestamp::from_secs(0), &key);
    assert!(statement.contains("verdict beyond recovery: 5 of 5 gone, 3 rebuild it"), "{statement}");
    let (text, signed) = statement.trim_end().rsplit_once('\n').unwrap();
    let signature = signed.rsplit_once(' ').unwrap().1;
    let signature: Vec<u8> =
        (0..64).map(|at| u8::from_str_radix(&signature[2 * at..2 * at + 2], 16).unwrap()).collect();
    let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
    let text = format!("{text}\n");
    assert!(key.verifying_key().verify_strict(text.as_bytes(), &signature).is_ok());
}

#[tokio::test]
async fn some_may_miss_their_shares_if_the_options_say_so_and_are_repaired() {
    for mood in [Mood::Refuses, Mood::Hangs] {
        let world = World::with(3, 5, |options| options.may_miss = 1);
        world.stores[4].is(mood);
        let bytes = content(EXTENT + 1);
        let deposited = world.deposit(&bytes).await;
        assert_eq!(deposited.missing.len(), 1);
        assert_eq!(deposited.missing[0].backend.name(), "b5");
        world.stores[4].is(Mood::Fine);
        assert!(!world.is_whole(&deposited.root).await);
        assert!(world.vault.repair(&world.object, &deposited.root, |_| {}).await.unwrap().whole());
        assert!(world.is_whole(&deposited.root).await);
        world.stores[3].is(mood);
        world.stores[4].is(mood);
        let deposit = world.vault.deposit(&world.object, &bytes[..], &SeededEntropy::new(1), |_| {}).await;
        assert!(matches!(deposit, Err(DepositError::Backend { .. } | DepositError::Timeout { .. })));
    }
}

#[tokio::test]
async fn a_killed_refresh_leaves_the_object_and_something_to_collect() {
    let world = world(Mode::Shamir);
    let bytes = content(2 * EXTENT);
    let root = world.deposit(&bytes).await.root;
    let before = world.everything().await;
    // Dropped after its first extent.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let progress = move |_| {
        let _ = sender.lock().unwrap().take().map(|sender| sender.send(()));
    };
    let entropy = SeededEntropy::new(4);
    tokio::select! {
        biased;
        _ = receiver => {}
        _ = world.vault.refresh(&world.object, &root, Refresh::Everything, &entropy, progress) => {}
    }
    assert!(world.everything().await != before);
    assert!(world.read_all(&root).await.unwrap() == bytes);
    world.vault.collect(&world.object, &[Root(root)], &[]).await.unwrap();
    assert!(world.everything().await == before);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_just_now_is_not_taken_for_unfinished() {
    let world = world(Mode::Compact);
    let bytes = content(EXTENT + 1);
    let root = world.deposit(&bytes).await.root;
    world.stores[..3].iter().for_each(|store| store.is(Mood::Refuses));
    assert!(world.read_all(&root).await.is_err());
    assert_eq!(world.vault.unfinished(&world.object).await, []);
    world.stores.iter().for_each(|store| store.is(Mood::Fine));
    assert!(world.read_all(&root).await.unwrap() == bytes);
}

#[tokio::test]
async fn keys_shared_anew_twice_from_one_root_leave_both_new_roots_readable() {
    let world = world(Mode::Compact);
    let bytes = content(BLOCK + 1);
    let old = world.deposit(&bytes).await.root;
    let mut roots = vec![old];
    for seed in [4, 5] {
        let entropy = SeededEntropy::new(seed);
        let refreshed = world.vault.refresh(&world.object, &old, Refresh::Keys, &entropy, |_| {}).await;
        roots.push(refreshed.unwrap().root);
    }
    for root in roots {
        assert!(world.read_all(&root).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_collection_can_be_looked_at_before() {
    let world = world(Mode::Shamir);
    let bytes = content(BLOCK);
    let deposit = async |seed| {
        let entropy = SeededEntropy::new(seed);
        world.vault.deposit(&world.object, &bytes[..], &entropy, |_| {}).await.unwrap().root
    };
    let (a, b) = (deposit(1).await, deposit(2).await);
    let before = world.everything().await;
    let planned = world.vault.garbage(&world.object, &[Root(b)], &[]).await.unwrap();
    assert!(world.everything().await == before && planned.bytes > 5 * BLOCK as u64);
    let done = world.vault.collect(&world.object, &[Root(b)], &[]).await.unwrap();
    assert_eq!(done, planned);
    assert!(world.read_all(&a).await.is_err() && world.is_whole(&b).await);
}

/// A source that fails at once.
pub struct Broken;

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
    }
}
