//! What fewer than k backends hold says nothing.

use crate::support::{BLOCK, EXTENT, World, content};

#[tokio::test]
async fn no_32_bytes_of_plaintext_lie_anywhere() {
    let world = World::new(3, 5);
    let bytes = content(EXTENT + BLOCK + 77);
    world.deposit(&bytes).await;
    let windows: std::collections::HashSet<&[u8]> = bytes.windows(32).step_by(8).collect();
    for store in &world.stores {
        for name in store.names().await {
            let file = store.content(&name).await;
            assert!(file.windows(32).all(|window| !windows.contains(window)), "{name}");
        }
    }
}

#[tokio::test]
async fn shares_of_the_most_regular_plaintext_look_random_alone_and_in_pairs() {
    let world = World::new(3, 5);
    world.deposit(&vec![b'A'; EXTENT]).await;
    let mut shares = Vec::new();
    for store in &world.stores {
        let name = store.names().await.into_iter().find(|name| name.as_ref().contains("/00000000.")).unwrap();
        shares.push(store.content(&name).await[4096..4096 + EXTENT].to_vec());
    }
    for (at, share) in shares.iter().enumerate() {
        looks_random(share.iter().copied());
        for other in &shares[..at] {
            looks_random(share.iter().zip(other).map(|(a, b)| a ^ b));
        }
    }
    // Equal plaintext blocks have unequal shares and unequal tags.
    assert!(shares.iter().all(|share| share[..BLOCK] != share[BLOCK..2 * BLOCK]));
}

#[tokio::test]
async fn equal_blocks_have_unequal_tags() {
    let world = World::new(2, 3);
    world.deposit(&vec![0; 2 * BLOCK]).await;
    let name = world.stores[0].names().await.into_iter().find(|n| n.as_ref().contains("/00000000.")).unwrap();
    let file = world.stores[0].content(&name).await;
    let tags: Vec<&[u8]> = file[4096 + 2 * BLOCK..].chunks(16).collect();
    assert_eq!(tags.len(), 8);
    let distinct: std::collections::HashSet<&&[u8]> = tags.iter().collect();
    assert_eq!(distinct.len(), 8);
}

/// χ² over byte values: mean 255, deviation 22.6; the bounds are five deviations wide.
fn looks_random(bytes: impl Iterator<Item = u8>) {
    let mut counts = [0u32; 256];
    bytes.for_each(|byte| counts[usize::from(byte)] += 1);
    let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
    let chi2: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    assert!((140.0..370.0).contains(&chi2), "{chi2}");
}
