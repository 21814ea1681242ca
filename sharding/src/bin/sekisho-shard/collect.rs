//! `collect` and `unfinished`: what is left of what failed, died or was replaced.

use std::time::Duration;

use futures::TryStreamExt;
use model::ambient::SystemClock;
use model::{Clock, ObjectId};
use object_store::path::Path as StorePath;
use serde_json::{Value, json};
use sharding::format::{Root, SetId};
use sharding::vault::{Backend, Collected, Found, Vault};

use crate::args;
use crate::fault::{Exit, Failure};
use crate::out::{Out, fault_json};
use crate::places::{Absent, Ways, look, objects, scheme};
use crate::say;
use crate::split::key_header;
use crate::units;
use crate::words::{Key, Message};

/// Removes what no root needs.
pub async fn collect(out: &Out, ways: &Ways, args: &args::Collect) -> Result<Exit, Failure> {
    let absent = if args.yes { Absent::Refuse } else { Absent::Note };
    look(out, &args.folders, absent)?;
    let backends = ways.backends(&args.folders)?;
    let vault = Vault::reading(backends.clone(), ways.options(out));
    let manifests = vault.manifests(args.object.as_ref()).await;
    let object = which(&backends, &manifests, args).await?;
    let of = args.folders.len();
    let (mut lines, mut going, mut keep) = (Vec::new(), Vec::new(), args.keep.clone());
    for unfinished in vault.unfinished(&object).await {
        let set = unfinished.set;
        if keep.contains(&set) {
            continue;
        }
        if is_younger(&backends, &object, set, args.older_than).await {
            lines.push(say!(SetStays, set = set, age = units::span(args.older_than)));
            keep.push(set);
        } else {
            lines.push(say!(SetGoes, set = set));
            going.push(set);
        }
    }
    let mut others = false;
    for Found { root, held_by, .. } in manifests.iter().filter(|found| found.object == object) {
        // Which epoch, if that can be known.
        let epoch = vault.open(&object, &root.0).await.ok().map(|reader| reader.epoch());
        let shown = epoch.map_or_else(|| "?".to_owned(), |epoch| epoch.to_string());
        if args.root.is_empty() || args.root.contains(root) {
            lines.push(say!(RootStays, epoch = shown, root = root));
        } else {
            others |= epoch.is_some();
            lines.push(say!(OtherRoot, epoch = shown, root = root, held = held_by, of = of));
        }
    }
    if args.root.is_empty() {
        lines.push(say!(NoRootNoted));
    }
    // What is kept must be worth keeping before anything else that can be read goes.
    if args.yes && others {
        check_kept(out, &vault, &object, args).await?;
    }
    let collected = sweep(&vault, &object, args, &keep, &manifests).await?;
    let (files, size, kept) = (collected.removed, out.size(collected.bytes), collected.kept);
    if args.yes {
        lines.push(say!(RemovedDone, files = files, size = size, kept = kept));
    } else {
        lines.push(say!(WouldRemove, files = files, size = size, kept = kept));
        lines.push(say!(DryRun));
    }
    if collected.foreign > 0 {
        lines.push(say!(Foreign, count = collected.foreign));
    }
    if !collected.faults.is_empty() {
        lines.push(say!(LeftUndone, count = collected.faults.len()));
    }
    let exit = if collected.faults.is_empty() { Exit::Done } else { Exit::Damaged };
    let texts = |items: &[SetId]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    out.result(
        &lines,
        &json!({"object": object.as_str(), "dry_run": !args.yes, "files": collected.removed,
            "bytes": collected.bytes, "kept": collected.kept, "foreign": collected.foreign,
            "roots": args.root.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "sets": texts(&going), "kept_sets": texts(&keep),
            "faults": collected.faults.iter().map(fault_json).collect::<Vec<_>>()}),
    );
    Ok(exit)
}

/// Without roots every manifest stays, and everything that one of them needs.
async fn sweep(
    vault: &Vault,
    object: &ObjectId,
    args: &args::Collect,
    keep: &[SetId],
    manifests: &[Found],
) -> Result<Collected, Failure> {
    let roots = if args.root.is_empty() {
        manifests.iter().filter(|found| found.object == *object).map(|found| found.root).collect()
    } else {
        args.root.clone()
    };
    let swept = match args.yes {
        true => vault.collect(object, &roots, keep).await,
        false => vault.garbage(object, &roots, keep).await,
    };
    Ok(swept?)
}

async fn check_kept(
    out: &Out,
    vault: &Vault,
    object: &ObjectId,
    args: &args::Collect,
) -> Result<(), Failure> {
    for root in &args.root {
        let size = vault.open(object, &root.0).await?.size();
        let bar = out.bar(Key::Verifying, Some(size));
        let found = vault.verify(object, &root.0, |done| bar.at(done)).await?;
        drop(bar);
        if !found.readable() {
            let what = say!(NotKept, object = object, root = root);
            return Err(Failure::new(Exit::TooFew, "not_kept", what));
        }
        if !found.whole() && !args.accept_damage {
            let what = say!(KeptDamaged, object = object, root = root);
            let failure = Failure::new(Exit::NotDone, "kept_damaged", what);
            return Err(failure.todo(say!(KeptDamagedTodo, root = root)));
        }
    }
    Ok(())
}

/// The object that was named, or the one there is.
async fn which(backends: &[Backend], manifests: &[Found], args: &args::Collect) -> Result<ObjectId, Failure> {
    if let Some(object) = &args.object {
        return Ok(object.clone());
    }
    let named = manifests.iter().find(|found| args.root.contains(&found.root));
    if let Some(found) = named {
        return Ok(found.object.clone());
    }
    let mut all = objects(backends).await.into_iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let failure = Failure::new(Exit::TooFew, "no_such_object", say!(NoSuchObject));
            Err(failure.todo(say!(NoSuchObjectTodo)))
        }
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(all);
            let list: String = all.map(|object| format!("\n    --object {object}")).collect();
            let failure = Failure::new(Exit::Usage, "several", say!(SeveralObjects));
            Err(failure.todo(say!(SeveralTodo, list = list)))
        }
    }
}

/// Whether anything was written to a share set lately: then somebody may still be writing.
async fn is_younger(backends: &[Backend], object: &ObjectId, set: SetId, age: Duration) -> bool {
    let folder = StorePath::from(format!("{}/{set}", object.name()));
    let now = SystemClock.now().as_millis();
    for backend in backends {
        let Ok(files) = backend.store.list(Some(&folder)).try_collect::<Vec<_>>().await else { continue };
        let newest = files.iter().map(|file| file.last_modified.timestamp_millis()).max();
        if newest.is_some_and(|at| now.saturating_sub(at) < age.as_millis() as i64) {
            return true;
        }
    }
    false
}

/// Lists what died or is still under way.
pub async fn unfinished(out: &Out, ways: &Ways, args: &args::Unfinished) -> Result<Exit, Failure> {
    look(out, &args.folders, Absent::Note)?;
    let backends = ways.backends(&args.folders)?;
    let vault = Vault::reading(backends.clone(), ways.options(out));
    let of = args.folders.len();
    let all = match &args.object {
        Some(object) => vec![object.clone()],
        None => objects(&backends).await.into_iter().collect(),
    };
    let (mut lines, mut sets, mut partial) = (Vec::<Message>::new(), Vec::<Value>::new(), Vec::new());
    for object in &all {
        for found in vault.unfinished(object).await {
            let mut header = None;
            let mut keys = 0;
            for backend in &backends {
                let here = key_header(backend, object, found.set).await;
                keys += usize::from(here.is_some());
                header = header.or(here);
            }
            let deposit = header.map(|header| header.deposit);
            let resumable = deposit
                .as_ref()
                .is_some_and(|deposit| deposit.epoch == 1 && keys >= deposit.scheme.threshold.k());
            let shared = deposit.as_ref().map_or_else(
                || "?".to_owned(),
                |deposit| {
                    let threshold = deposit.scheme.threshold;
                    scheme(threshold.k(), threshold.n(), deposit.scheme.mode)
                },
            );
            let (set, held, extents) = (found.set, found.held_by, found.extents);
            lines.push(say!(
                UnfinishedSet,
                object = object,
                set = set,
                scheme = shared,
                extents = extents,
                held = held,
                of = of
            ));
            lines.push(match resumable {
                true => say!(UnfinishedResume, object = object, set = set),
                false => say!(UnfinishedGone, object = object),
            });
            sets.push(json!({"object": object.as_str(), "set": set.to_string(), "held_by": held,
                "extents": extents, "resumable": resumable,
                "mode": deposit.as_ref().map(|deposit| deposit.scheme.mode.to_string()),
                "k": deposit.as_ref().map(|deposit| deposit.scheme.threshold.k()),
                "n": deposit.as_ref().map(|deposit| deposit.scheme.threshold.n()),
                "epoch": deposit.as_ref().map(|deposit| deposit.epoch)}));
        }
        for Found { root, held_by, .. } in vault.manifests(Some(object)).await {
            if held_by < of {
                lines.push(say!(UnfinishedManifest, object = object, root = root, held = held_by, of = of));
                partial.push(partial_json(object, root, held_by, of));
            }
        }
    }
    if lines.is_empty() {
        lines.push(say!(NoneUnfinished));
    }
    out.result(&lines, &json!({"unfinished": sets, "unacknowledged": partial}));
    Ok(Exit::Done)
}

fn partial_json(object: &ObjectId, root: Root, held_by: usize, of: usize) -> Value {
    json!({"object": object.as_str(), "root": root.to_string(), "held_by": held_by, "of": of})
}
