//! The pace of work that nobody waits for, with time under the test's hand.

use std::num::NonZeroU64;

use proptest::prelude::*;
use sharding::vault::Pace;
use tokio::time::{Duration, Instant};

fn per_second(bytes: u64) -> Pace {
    Pace::per_second(NonZeroU64::new(bytes).unwrap())
}

#[tokio::test(start_paused = true)]
async fn bytes_take_their_time() {
    let (pace, start) = (per_second(1000), Instant::now());
    for _ in 0..41 {
        pace.take(250).await;
    }
    // The last of 41 requests waits for the 40 before it.
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_rest_is_worth_a_quarter_of_a_second_and_no_more() {
    let pace = per_second(1000);
    tokio::time::advance(Duration::from_secs(3600)).await;
    let start = Instant::now();
    pace.take(250).await;
    pace.take(250).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    pace.take(1).await;
    assert_eq!(start.elapsed(), Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn clones_share_and_who_gives_up_has_spent() {
    let pace = per_second(1000);
    let start = Instant::now();
    pace.take(1250).await;
    let other = pace.clone();
    assert!(tokio::time::timeout(Duration::from_millis(10), other.take(1000)).await.is_err());
    pace.take(1).await;
    assert_eq!(start.elapsed(), Duration::from_millis(2_250));
}

#[tokio::test(start_paused = true)]
async fn unlimited_waits_for_nothing_and_no_request_waits_for_ever() {
    let start = Instant::now();
    Pace::unlimited().take(u64::MAX).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    let slowest = per_second(1);
    slowest.take(u64::MAX).await;
    slowest.take(1).await;
    assert!(start.elapsed() <= Duration::from_secs(24 * 3600));
}

proptest! {
    /// Whatever is asked when: never more than the rate gives, the burst and the last request.
    #[test]
    fn no_more_than_the_rate(
        rate in 1_u64..1_000_000,
        steps in prop::collection::vec((0_u64..5_000_000, 0_u64..3_000), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (pace, start, mut before) = (per_second(rate), Instant::now(), 0_u128);
            for (bytes, rest) in steps {
                tokio::time::advance(Duration::from_millis(rest)).await;
                pace.take(bytes).await;
                let allowed = u128::from(rate) * (start.elapsed().as_millis() + 251) / 1000;
                prop_assert!(before <= allowed + 1, "{} bytes, {} allowed", before, allowed);
                before += u128::from(bytes);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_check_keeps_to_the_pace() {
    use crate::support::{EXTENT, World, content};
    // Five files of a little more than 4 MiB at 50 MB/s, the first extent free of charge.
    let world = World::with(3, 5, |options| options.pace = per_second(50_000_000));
    let root = world.deposit(&content(2 * EXTENT)).await.root;
    let start = Instant::now();
    assert!(world.vault.verify(&world.object, &root, |_| {}).await.unwrap().whole());
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
}
