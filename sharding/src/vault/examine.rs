//! Looking at every byte that the backends hold of one extent, and at their key and manifest files.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::FaultKind;
use super::pool::{Failure, Pool};
use super::reader::{Described, Extent, Opened, check_manifest};
use crate::codec::ShareIndex;
use crate::format::{BLOCK, File, HEADER, KeyFile, Kind, Manifest, TagTable};

/// What one backend gave of an extent.
pub(super) struct Seen {
    /// Whose share it is.
    pub(super) x: ShareIndex,
    /// The shares of all blocks; blocks that are among `bad` are not to be used.
    pub(super) data: Bytes,
    /// For each block whether its share lacks its tag.
    pub(super) bad: Vec<bool>,
    /// What is wrong, if anything is, and from which block on, counted within the extent.
    pub(super) failure: Option<(u64, Failure)>,
}

/// What all backends gave of an extent, in their order. `None` for one that was not asked.
pub(super) async fn extent(
    opened: &Opened,
    extent: &Arc<Extent>,
    ask: impl Fn(usize) -> bool,
) -> Vec<Option<Result<Seen, Failure>>> {
    let remotes = 0..opened.pool.remotes.len();
    let asked = remotes.clone().filter(|remote| ask(*remote)).count() as u64;
    opened.pool.options.pace.take(asked * opened.described.deposit().scheme.file_len(extent.len)).await;
    let looks = remotes.map(|remote| {
        let asked = ask(remote);
        async move { if asked { Some(one(opened, extent, remote).await) } else { None } }
    });
    join_all(looks).await
}

async fn one(opened: &Opened, extent: &Arc<Extent>, remote: usize) -> Result<Seen, Failure> {
    let deposit = opened.described.deposit();
    let (scheme, len) = (deposit.scheme, extent.len);
    let name = File::Extent(deposit.set, extent.number, extent.entry.attempt).name(&deposit.object);
    let whole = scheme.file_len(len);
    let file = opened.pool.whole(remote, &name, whole).await?;
    let kind = Kind::Extent { extent: extent.number, len, attempt: extent.entry.attempt };
    let x = opened.described.check_header(&file, kind)?;
    if (file.len() as u64) < whole {
        let detail = format!("{} of {whole} bytes", file.len());
        return Err(Failure { kind: FaultKind::Short, detail });
    }
    let table = scheme.table_at(len);
    let data = file.slice(HEADER..table.start as usize);
    let table =
        TagTable::parse(scheme, extent.number, len, &file[table.start as usize..], &extent.entry.digest);
    let extent = extent.clone();
    let check = tokio::task::spawn_blocking(move || {
        let first = extent.number * (crate::format::EXTENT / BLOCK);
        let bad: Vec<bool> = data
            .chunks(scheme.share_len(BLOCK as usize))
            .enumerate()
            .map(|(at, share)| {
                let tag = extent.table.share(at, x);
                !tag.is_some_and(|tag| extent.keys.share_matches(x, first + at as u64, share, tag))
            })
            .collect();
        let failure =
            bad.iter().position(|bad| *bad).map(|at| (at as u64, Failure::corrupt(format!("share {x}"))));
        // A table that is damaged harms nobody while another has it, and yet wants repair.
        let failure = failure.or_else(|| table.err().map(|error| (0, Failure::corrupt(error))));
        Seen { x, data, bad, failure }
    });
    check.await.map_err(|_| Failure::corrupt("the check was interrupted"))
}

/// Which share a backend's key file is, if it is whole.
pub(super) async fn key(pool: &Pool, described: &Described, remote: usize) -> Result<ShareIndex, Failure> {
    let deposit = described.deposit();
    let name = File::Key(deposit.set, deposit.epoch).name(&deposit.object);
    let len = HEADER + KeyFile::len(deposit.scheme.threshold);
    let file = pool.whole(remote, &name, len as u64).await?;
    described.check_key(&file).map(|(x, _)| x)
}

/// Which share a backend's manifest file belongs to, if it is whole.
pub(super) async fn manifest(
    pool: &Pool,
    described: &Described,
    remote: usize,
) -> Result<ShareIndex, Failure> {
    let object = &described.deposit().object;
    let name = File::Manifest(described.root).name(object);
    let file = pool.whole(remote, &name, (HEADER + Manifest::MAX_LEN) as u64).await?;
    let found = check_manifest(&file, object, described.root)?;
    if found.manifest.signature != described.manifest.signature {
        return Err(Failure::corrupt("the signature is not the one that was deposited"));
    }
    described.check_header(&file, Kind::Manifest { len: described.len })
}
