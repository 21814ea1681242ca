//! A spare is asked as soon as a backend is later than it usually is, and what was learnt is told.

use std::collections::BTreeMap;

use sharding::vault::{BackendStats, FaultKind};
use tokio::time::{Duration, Instant, sleep};

use crate::support::{BLOCK, Mood, World, content};

const MS: Duration = Duration::from_millis(1);

/// Three of five, each answering in 4 ms or later by its number; limits as in production.
async fn world() -> (World, [u8; 32]) {
    let world = World::with(3, 5, |options| {
        options.read_timeout = Duration::from_secs(2);
        options.hedge_after = 300 * MS;
        options.penalty = Duration::from_secs(5);
    });
    let root = world.deposit(&content(100 * BLOCK)).await.root;
    for (at, store) in world.stores.iter().enumerate() {
        store.is(Mood::Late((4 + at as u32) * MS));
    }
    (world, root)
}

fn of(stats: &[BackendStats], at: usize) -> &BackendStats {
    stats.iter().find(|stats| stats.backend.name() == format!("b{}", at + 1)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_usual_is_learnt_and_who_is_later_is_overtaken() {
    let (world, root) = world().await;
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    let read = async |block: usize| {
        let start = Instant::now();
        reader.read_at((block * BLOCK) as u64, 1).await.unwrap();
        start.elapsed()
    };
    // Too little is known: a spare is asked after the configured time.
    world.stores[0].is(Mood::Hangs);
    let first = read(0).await;
    assert!(first >= 300 * MS && first < 320 * MS, "{first:?}");
    world.stores[0].is(Mood::Late(4 * MS));
    sleep(Duration::from_secs(40)).await;
    for block in 1..40 {
        assert!(read(block).await < 20 * MS);
    }
    let learnt = world.vault.stats();
    assert_eq!(of(&learnt, 0).high, Some(4 * MS), "{learnt:?}");
    // Enough is known: three times the usual, or ten milliseconds.
    world.stores[0].is(Mood::Hangs);
    let hedged = read(40).await;
    assert!(hedged >= 12 * MS && hedged < 25 * MS, "{hedged:?}");
    // And whoever was overtaken is not waited for again.
    for block in 41..60 {
        assert!(read(block).await < 10 * MS);
    }
    sleep(Duration::from_secs(3)).await;
    let stats = world.vault.stats();
    assert_eq!(of(&stats, 0).faults, BTreeMap::from([(FaultKind::Timeout, 2)]), "{stats:?}");
    assert!(of(&stats, 0).shunned && !of(&stats, 1).shunned);
    let hedges: u64 = stats.iter().map(|stats| stats.hedges).sum();
    let won: u64 = stats.iter().map(|stats| stats.hedges_won).sum();
    assert_eq!((hedges, won), (2, 2), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn the_fastest_are_asked() {
    let (world, root) = world().await;
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    for block in 0..30 {
        reader.read_at((block * BLOCK) as u64, 1).await.unwrap();
    }
    let before = world.vault.stats();
    for block in 30..60 {
        reader.read_at((block * BLOCK) as u64, 1).await.unwrap();
    }
    let after = world.vault.stats();
    let asked: Vec<u64> = (0..5).map(|at| of(&after, at).requests - of(&before, at).requests).collect();
    assert_eq!(asked, [30, 30, 30, 0, 0]);
    let bytes = of(&after, 0).bytes_read - of(&before, 0).bytes_read;
    assert_eq!(bytes, 30 * BLOCK as u64);
    assert_eq!(of(&after, 0).hedges, 0);
    assert!(of(&after, 0).writes > 0 && of(&after, 0).bytes_written > 100 * BLOCK as u64);
    assert_eq!(of(&after, 0).failed_writes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_spare_for_each_that_is_late_and_no_more() {
    let (world, root) = world().await;
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    reader.read_at(0, 1).await.unwrap();
    let before: u64 = world.vault.stats().iter().map(|stats| stats.hedges).sum();
    world.stores[0].is(Mood::Hangs);
    world.stores[1].is(Mood::Hangs);
    reader.read_at(BLOCK as u64, 1).await.unwrap();
    let after: u64 = world.vault.stats().iter().map(|stats| stats.hedges).sum();
    assert_eq!(after - before, 2);
}

#[tokio::test(start_paused = true)]
async fn vaults_with_one_experience_learn_from_each_other() {
    let (world, root) = world().await;
    let experience = sharding::vault::Experience::default();
    let vault = || {
        let id = |at: usize| model::BackendId::from_name(&format!("b{}", at + 1)).unwrap();
        let backends = world.stores.iter().enumerate().map(|(at, store)| sharding::vault::Backend {
            id: id(at),
            institution: format!("Institution {}", at + 1),
            store: store.clone(),
        });
        let options = sharding::vault::Options { experience: experience.clone(), ..Default::default() };
        sharding::vault::Vault::reading(backends.collect(), options)
    };
    world.stores[0].is(Mood::Refuses);
    vault().open(&world.object, &root).await.unwrap();
    assert_eq!(of(&experience.stats(), 0).requests, 1);
    // Another vault does not fall for it again.
    vault().open(&world.object, &root).await.unwrap();
    assert_eq!(of(&experience.stats(), 0).requests, 1);
    assert_eq!(of(&vault().stats(), 0).faults, BTreeMap::from([(FaultKind::Unreachable, 1)]));
}
