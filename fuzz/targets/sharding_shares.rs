//! What a hostile backend gives of an object: two of three are honest, the third has the fuzzer's
//! bytes in the place of any part of its files. What is read is what was deposited, always.
#![no_main]

use std::sync::{Arc, OnceLock};

use futures::TryStreamExt;
use libfuzzer_sys::fuzz_target;
use model::{BackendId, ObjectId, SeededEntropy};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sharding::format::Mode;
use sharding::vault::{Backend, Options, Vault};

const BYTES: usize = 65_536 + 100;

struct World {
    runtime: tokio::runtime::Runtime,
    modes: Vec<(Vault, Arc<InMemory>, Vec<(Path, Vec<u8>)>, [u8; 32])>,
    object: ObjectId,
    content: Vec<u8>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let object = ObjectId::from_name("genome").expect("an id");
        let content: Vec<u8> = (0..BYTES).map(|i| (i * 7 + i / 251) as u8).collect();
        let modes = [Mode::Shamir, Mode::Compact].map(|mode| {
            let stores: Vec<Arc<InMemory>> = (0..3).map(|_| Arc::new(InMemory::new())).collect();
            // The hostile one is asked first.
            let backends = stores.iter().enumerate().map(|(at, store)| Backend {
                id: BackendId::from_name(&format!("b{at}")).expect("an id"),
                institution: format!("i{at}"),
                store: store.clone(),
            });
            let options = Options { mode, ..Options::default() };
            let vault = Vault::new(backends.collect(), 2, options).expect("a threshold");
            runtime.block_on(async {
                let entropy = SeededEntropy::new(1);
                let deposited = vault.deposit(&object, content.as_slice(), &entropy, |_| {}).await;
                let root = deposited.expect("a deposit").root;
                let listed: Vec<_> = stores[0].list(None).try_collect().await.expect("a list");
                let mut files = Vec::new();
                for meta in listed {
                    let bytes = stores[0].get(&meta.location).await.expect("a file").bytes().await;
                    files.push((meta.location, bytes.expect("its bytes").to_vec()));
                }
                files.sort();
                (vault, stores[0].clone(), files, root)
            })
        });
        World { runtime, modes: modes.into(), object, content }
    })
}

fuzz_target!(|data: &[u8]| {
    let [mode, file, cut, at, bytes @ ..] = data else { return };
    let Some((at_more, bytes)) = bytes.split_at_checked(2) else { return };
    let world = world();
    let (vault, store, files, root) = &world.modes[usize::from(mode & 1)];
    let (path, honest) = &files[usize::from(*file) % files.len()];
    let mut lie = honest.clone();
    let at = usize::from_le_bytes([*at, at_more[0], at_more[1], 0, 0, 0, 0, 0]) % (lie.len() + 1);
    let end = (at + bytes.len()).min(lie.len());
    lie[at..end].copy_from_slice(&bytes[..end - at]);
    match cut % 4 {
        0 => lie.truncate(end),
        1 => lie.extend_from_slice(bytes),
        _ => {}
    }
    let read = world.runtime.block_on(async {
        store.put(path, lie.into()).await.expect("a write");
        let reader = vault.open(&world.object, root).await.expect("two are honest");
        let read = reader.read_at(0, BYTES).await.expect("two are honest");
        let _ = vault.verify(&world.object, root, |_| {}).await.expect("two are honest");
        store.put(path, honest.clone().into()).await.expect("a write");
        read
    });
    assert!(read.as_slice() == world.content);
});
