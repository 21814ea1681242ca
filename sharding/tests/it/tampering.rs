//! One bit of anything changed: never other bytes than were deposited.

use std::sync::Arc;

use crate::support::{BLOCK, World, content};
use sharding::format::Mode;
use sharding::vault::{FaultKind, ReadError};

/// Every field of a header: its name and where it begins.
const HEADER: [(&str, usize); 21] = [
    ("magic", 0),
    ("version", 8),
    ("kind", 9),
    ("mode", 10),
    ("field", 11),
    ("tag algorithms", 12),
    ("key derivation", 13),
    ("k", 14),
    ("n", 15),
    ("x", 16),
    ("reserved", 17),
    ("epoch", 24),
    ("block size", 32),
    ("extent size", 40),
    ("index", 48),
    ("length", 56),
    ("set", 64),
    ("attempt", 80),
    ("object length", 96),
    ("object", 97),
    ("padding", 3000),
];

/// Every field of a manifest for two shares and one extent.
const MANIFEST: [(&str, usize); 21] = [
    ("magic", 0),
    ("version", 8),
    ("mode", 9),
    ("field", 10),
    ("tag algorithms", 11),
    ("key derivation", 12),
    ("k", 13),
    ("n", 14),
    ("reserved", 15),
    ("epoch", 16),
    ("block size", 24),
    ("extent size", 32),
    ("size", 40),
    ("extents", 48),
    ("set", 56),
    ("object length", 72),
    ("object", 73),
    ("signer", 144),
    ("commitment", 176),
    ("attempt", 176 + 3 * 32),
    ("extent digest", 176 + 3 * 32 + 16),
];

const MODES: [Mode; 2] = [Mode::Shamir, Mode::Compact];

fn is_manifest(name: &str) -> bool {
    name.ends_with(".manifest")
}

fn is_key(name: &str) -> bool {
    name.ends_with(".key")
}

fn is_extent(name: &str) -> bool {
    !is_manifest(name) && !is_key(name)
}

/// Changes one backend of two, both of which are needed, and tells how reading fails.
async fn verdict(mode: Mode, which: impl Fn(&str) -> bool, how: impl Fn(&mut Vec<u8>)) -> ReadError {
    let world = World::with(2, 2, |options| options.mode = mode);
    let root = world.deposit(&content(2 * BLOCK)).await.root;
    world.stores[1].tamper(which, how).await;
    let error = world.read_all(&root).await.expect_err("a changed backend was believed");
    assert_eq!(world.blamed(), ["backend:b2"]);
    error
}

/// The same, seals made good again: what somebody would do who means it.
fn reseal(file: &mut [u8]) {
    let sum = blake3::derive_key("sekisho sharding v2 header checksum", &file[..4064]);
    file[4064..4096].copy_from_slice(&sum);
}

#[tokio::test]
async fn every_field_of_a_key_file() {
    for mode in MODES {
        for (field, at) in HEADER.into_iter().chain([("key share", 4096), ("commitment", 4096 + 32)]) {
            for honest_checksum in [false, true] {
                let error = verdict(mode, is_key, |file| {
                    file[at] ^= 1;
                    if honest_checksum {
                        reseal(file);
                    }
                });
                let error = error.await;
                assert!(matches!(error, ReadError::TooFew { needed: 2, good: 1, .. }), "{field}: {error:?}");
            }
        }
        verdict(mode, is_key, |file| file[4095] ^= 1).await;
    }
}

/// Reading needs no other header; a check of everything sees each field, and repair mends it.
#[tokio::test]
async fn every_field_of_the_headers_of_extents_and_manifests() {
    for (which, prefix) in [(is_extent as fn(&str) -> bool, 0), (is_manifest, 1)] {
        for (field, at) in HEADER {
            let world = World::new(2, 3);
            let root = world.deposit(&content(2 * BLOCK)).await.root;
            world.stores[1]
                .tamper(which, |file| {
                    file[at] ^= 1;
                    reseal(file);
                })
                .await;
            let found = world.vault.verify(&world.object, &root, |_| {}).await.unwrap();
            // What an extent says of its epoch may be older.
            if (field, prefix) != ("epoch", 0) {
                assert_eq!((found.whole(), found.backends[1].faults), (false, 1), "{field}");
                assert_eq!(found.backends[1].first[0].kind, FaultKind::Corrupt, "{field}");
            }
            world.vault.repair(&world.object, &root, |_| {}).await.unwrap();
            assert!(world.vault.verify(&world.object, &root, |_| {}).await.unwrap().whole(), "{field}");
        }
    }
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
async fn a_signature_on_one_backend_and_on_all() {
    let key = Arc::new(ed25519_dalek::SigningKey::from_bytes(&[1; 32]));
    let world = World::with(2, 3, |options| options.signer = Some(key.clone()));
    let bytes = content(10);
    let root = world.deposit(&bytes).await.root;
    let reader = world.vault.open(&world.object, &root).await.unwrap();
    assert_eq!(reader.signer(), Some(key.verifying_key().to_bytes()));
    for at in 0..3 {
        assert!(world.read_all(&root).await.unwrap() == bytes);
        world.stores[at].tamper(is_manifest, |file| *file.last_mut().unwrap() ^= 1).await;
    }
    assert!(matches!(world.read_all(&root).await, Err(ReadError::NoManifest { .. })));
}

#[tokio::test]
async fn every_byte_of_every_tag() {
    // Two blocks, (block, share 1, share 2) each.
    for mode in MODES {
        for at in 0..2 * 3 * 16 {
            let world = World::with(2, 2, |options| options.mode = mode);
            let bytes = content(2 * BLOCK);
            let root = world.deposit(&bytes).await.root;
            let damage = |file: &mut Vec<u8>| {
                let table = file.len() - 2 * 3 * 16;
                file[table + at] ^= 0x80;
            };
            world.stores[0].tamper(is_extent, damage).await;
            assert!(world.read_all(&root).await.unwrap() == bytes, "tag byte {at}");
            world.stores[1].tamper(is_extent, damage).await;
            assert!(world.read_all(&root).await.is_err(), "tag byte {at}");
        }
    }
}

#[tokio::test]
async fn a_bit_of_a_share_anywhere_is_found_and_its_block_named() {
    for (mode, len) in [(Mode::Shamir, BLOCK), (Mode::Compact, BLOCK / 2)] {
        for (at, block) in [(0, 0), (1000, 0), (len - 1, 0), (len, 1), (2 * len - 1, 1)] {
            let error = verdict(mode, is_extent, |file| file[4096 + at] ^= 1).await;
            let ReadError::TooFew { faults, .. } = &error else { panic!("{error:?}") };
            assert_eq!((faults[0].kind, faults[0].block), (FaultKind::Corrupt, Some(block)));
        }
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
