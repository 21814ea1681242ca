//! One bit of anything changed: never other bytes than were deposited.

use crate::support::{BLOCK, World, content};
use sharding::vault::{FaultKind, ReadError};

/// Every field of a header: its name and where it begins.
const HEADER: [(&str, usize); 21] = [
    ("magic", 0),
    ("version", 8),
    ("kind", 9),
    ("mode", 10),
    ("field", 11),
    ("tag algorithm", 12),
    ("key derivation", 13),
    ("random stream", 14),
    ("k", 15),
    ("n", 16),
    ("x", 17),
    ("reserved", 18),
    ("epoch", 24),
    ("block size", 32),
    ("extent size", 40),
    ("index", 48),
    ("length", 56),
    ("attempt", 64),
    ("object", 81),
    ("key share", 152),
    ("padding", 3000),
];

/// Every field of a manifest.
const MANIFEST: [(&str, usize); 19] = [
    ("magic", 0),
    ("version", 8),
    ("mode", 9),
    ("field", 10),
    ("tag algorithm", 11),
    ("key derivation", 12),
    ("random stream", 13),
    ("k", 14),
    ("n", 15),
    ("epoch", 16),
    ("block size", 24),
    ("extent size", 32),
    ("size", 40),
    ("extents", 48),
    ("attempt", 56),
    ("object length", 72),
    ("object", 73),
    ("commitment", 144),
    ("extent digest", 144 + 2 * 32),
];

fn is_manifest(name: &str) -> bool {
    name.ends_with(".manifest")
}

/// Changes one backend of two, both of which are needed, and tells how reading fails.
async fn verdict(which: impl Fn(&str) -> bool, how: impl Fn(&mut Vec<u8>)) -> ReadError {
    let world = World::new(2, 2);
    let root = world.deposit(&content(2 * BLOCK)).await.root;
    world.stores[1].tamper(which, how).await;
    let error = world.read_all(&root).await.expect_err("a changed backend was believed");
    assert_eq!(world.blamed(), ["backend:b2"]);
    error
}

/// The same, seals made good again: what somebody would do who means it.
fn reseal(file: &mut [u8]) {
    let sum = blake3::derive_key("sekisho sharding v1 header checksum", &file[..4064]);
    file[4064..4096].copy_from_slice(&sum);
}

#[tokio::test]
async fn every_field_of_a_manifests_header() {
    for (field, at) in HEADER {
        for honest_checksum in [false, true] {
            let error = verdict(is_manifest, |file| {
                file[at] ^= 1;
                if honest_checksum {
                    reseal(file);
                }
            });
            let error = error.await;
            assert!(matches!(error, ReadError::TooFew { needed: 2, good: 1, .. }), "{field}: {error:?}");
        }
    }
    verdict(is_manifest, |file| file[4095] ^= 1).await;
}

#[tokio::test]
async fn every_field_of_a_manifest_on_one_backend_and_on_all() {
    for (field, at) in MANIFEST {
        // On one, the others' manifest is read.
        let world = World::new(2, 3);
        let bytes = content(2 * BLOCK);
        let root = world.deposit(&bytes).await.root;
        world.stores[0].tamper(is_manifest, |file| file[4096 + at] ^= 1).await;
        assert!(world.read_all(&root).await.unwrap() == bytes, "{field}");
        // On all, nothing is.
        world.stores[1].tamper(is_manifest, |file| file[4096 + at] ^= 1).await;
        world.stores[2].tamper(is_manifest, |file| file[4096 + at] ^= 1).await;
        let error = world.read_all(&root).await.unwrap_err();
        let ReadError::NoManifest { faults, .. } = &error else { panic!("{field}: {error:?}") };
        assert!(faults.iter().all(|fault| fault.kind == FaultKind::Corrupt), "{faults:?}");
    }
}

#[tokio::test]
async fn every_byte_of_every_tag() {
    // Two blocks, (plain, share 1, share 2) each.
    for at in 0..2 * 3 * 16 {
        let world = World::new(2, 2);
        let bytes = content(2 * BLOCK);
        let root = world.deposit(&bytes).await.root;
        let tag = 4096 + 2 * BLOCK + at;
        world.stores[0].tamper(|name| !is_manifest(name), |file| file[tag] ^= 0x80).await;
        assert!(world.read_all(&root).await.unwrap() == bytes, "tag byte {at}");
        world.stores[1].tamper(|name| !is_manifest(name), |file| file[tag] ^= 0x80).await;
        assert!(world.read_all(&root).await.is_err(), "tag byte {at}");
    }
}

#[tokio::test]
async fn a_bit_of_a_share_anywhere_is_found_and_its_block_named() {
    for (at, block) in [(0, 0), (1000, 0), (BLOCK - 1, 0), (BLOCK, 1), (2 * BLOCK - 1, 1)] {
        let error = verdict(|name| !is_manifest(name), |file| file[4096 + at] ^= 1).await;
        let ReadError::TooFew { faults, .. } = &error else { panic!("{error:?}") };
        assert_eq!((faults[0].kind, faults[0].block), (FaultKind::Corrupt, Some(block)));
    }
}

#[tokio::test]
async fn another_root_opens_nothing() {
    let world = World::new(2, 3);
    let mut root = world.deposit(&content(10)).await.root;
    root[31] ^= 1;
    assert!(matches!(world.read_all(&root).await, Err(ReadError::NoManifest { .. })));
}

#[tokio::test]
async fn a_manifest_renamed_to_another_root_opens_nothing() {
    // All backends together substitute one deposit for another.
    let world = World::new(2, 2);
    let old = world.deposit(&content(10)).await.root;
    let new = world.deposit(&content(11)).await.root;
    let name = |root: [u8; 32]| format!("genome-1/{}.manifest", sharding::format::Root(root));
    for store in &world.stores {
        let stale = store.content(&name(old).as_str().into()).await;
        store.tamper(|file| file == name(new), |file| stale.clone_into(file)).await;
    }
    assert!(matches!(world.read_all(&new).await, Err(ReadError::NoManifest { .. })));
}

#[tokio::test]
async fn one_objects_shares_do_not_pass_for_anothers() {
    let world = World::new(2, 2);
    let mut world_of_other = World::new(2, 2);
    world_of_other.object = model::ObjectId::from_name("genome-2").unwrap();
    let root = world.deposit(&content(10)).await.root;
    assert!(matches!(world_of_other.read_all(&root).await, Err(ReadError::NoManifest { .. })));
    let reader = world.vault.open(&world_of_other.object, &root).await;
    assert!(matches!(reader.err(), Some(ReadError::NoManifest { .. })));
}

#[tokio::test]
async fn the_same_share_twice_counts_once() {
    let world = World::new(2, 2);
    let root = world.deposit(&content(10)).await.root;
    for name in world.stores[0].names().await {
        let copy = world.stores[0].content(&name).await;
        world.stores[1].tamper(|file| file == name.as_ref(), |file| copy.clone_into(file)).await;
    }
    assert!(matches!(world.read_all(&root).await, Err(ReadError::TooFew { needed: 2, good: 1, .. })));
}
