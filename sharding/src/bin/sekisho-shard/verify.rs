//! `verify` and `repair`.

use serde_json::{Value, json};
use sharding::vault::{Options, Repaired, Verification};

use crate::args::{Repair, Verify};
use crate::fault::{Exit, Failure};
use crate::out::{Out, fault_json};
use crate::places::{Absent, Chosen, Ways, open, scheme};
use crate::say;
use crate::words::{Key, Message};

/// Checks every byte of every share.
pub async fn verify(out: &Out, ways: &Ways, args: &Verify) -> Result<Exit, Failure> {
    let options = Options { pace: args.pace.clone().unwrap_or_default(), ..ways.options(out) };
    let chosen = open(out, ways, &args.from, Absent::Note, options).await?;
    let bar = out.bar(Key::Verifying, Some(chosen.reader.size()));
    let found = chosen.vault.verify(&chosen.object, &chosen.root.0, |done| bar.at(done)).await?;
    drop(bar);
    let sound = found.backends.iter().all(|state| state.faults == 0);
    let (exit, verdict) = match (found.whole(), found.readable()) {
        (true, _) => (Exit::Done, say!(VerifyWhole)),
        // Folders left out on purpose are no damage.
        (false, true) if sound => (Exit::Done, say!(VerifyPart, n = found.scheme.threshold.n())),
        (false, true) => (Exit::Damaged, say!(VerifyDamaged)),
        (false, false) => (Exit::TooFew, say!(VerifyLost)),
    };
    out.result(&[verified(out, &chosen, &found), vec![verdict]].concat(), &verified_json(&chosen, &found));
    Ok(exit)
}

fn verified(out: &Out, chosen: &Chosen, found: &Verification) -> Vec<Message> {
    let threshold = found.scheme.threshold;
    let shared = scheme(threshold.k(), threshold.n(), found.scheme.mode);
    let mut lines =
        vec![say!(VerifyHead, object = chosen.object, size = out.size(found.size), scheme = shared)];
    lines.extend(chosen.signer().map(|key| say!(SignedBy, key = key)));
    for state in &found.backends {
        let share = share_text(out, state.share.map(|x| x.x()));
        lines.push(say!(
            VerifyFolder,
            folder = state.institution,
            share = share,
            good = state.good,
            extents = found.extents,
            faults = state.faults
        ));
    }
    let (weakest, k, n) = (found.weakest, threshold.k(), threshold.n());
    lines.push(say!(VerifyWeakest, weakest = weakest, k = k, n = n));
    lines
}

fn verified_json(chosen: &Chosen, found: &Verification) -> Value {
    let folder = |state: &sharding::vault::BackendState| {
        let first: Vec<Value> = state.first.iter().map(fault_json).collect();
        json!({"folder": state.institution, "share": state.share.map(|x| x.x()), "good": state.good,
            "faults": state.faults, "first": first})
    };
    json!({"object": chosen.object.as_str(), "root": chosen.root.to_string(), "size": found.size,
        "mode": found.scheme.mode.to_string(), "k": found.scheme.threshold.k(),
        "n": found.scheme.threshold.n(), "epoch": chosen.reader.epoch(), "signer": chosen.signer(),
        "extents": found.extents, "weakest": found.weakest, "readable": found.readable(),
        "whole": found.whole(), "folders": found.backends.iter().map(folder).collect::<Value>()})
}

/// Writes anew what is lost or damaged.
pub async fn repair(out: &Out, ways: &Ways, args: &Repair) -> Result<Exit, Failure> {
    let options = Options { pace: args.pace.clone().unwrap_or_default(), ..ways.options(out) };
    let chosen = open(out, ways, &args.from, Absent::Refuse, options).await?;
    let bar = out.bar(Key::Repairing, Some(chosen.reader.size()));
    let repaired = chosen.vault.repair(&chosen.object, &chosen.root.0, |done| bar.at(done)).await?;
    drop(bar);
    out.faults_in_all();
    let n = repaired.scheme.threshold.n();
    let (exit, verdict) = if repaired.whole() {
        (Exit::Done, say!(RepairWhole, n = n))
    } else if repaired.lost.is_empty() {
        (Exit::Damaged, say!(RepairLeft, n = n))
    } else {
        (Exit::TooFew, say!(RepairLost, count = repaired.lost.len()))
    };
    out.result(&[mended(out, &chosen, &repaired), vec![verdict]].concat(), &mended_json(&chosen, &repaired));
    Ok(exit)
}

fn mended(out: &Out, chosen: &Chosen, repaired: &Repaired) -> Vec<Message> {
    let threshold = repaired.scheme.threshold;
    let shared = scheme(threshold.k(), threshold.n(), repaired.scheme.mode);
    let (size, weakest) = (out.size(repaired.size), repaired.weakest);
    let mut lines =
        vec![say!(RepairHead, object = chosen.object, size = size, scheme = shared, weakest = weakest)];
    for backend in &repaired.backends {
        let share = share_text(out, backend.share.map(|x| x.x()));
        let size = out.size(backend.bytes);
        let (folder, files) = (&backend.institution, backend.files);
        lines.push(say!(RepairFolder, folder = folder, share = share, files = files, size = size));
    }
    lines
}

fn mended_json(chosen: &Chosen, repaired: &Repaired) -> Value {
    let folder = |backend: &sharding::vault::RepairedBackend| {
        let left: Vec<Value> = backend.left.iter().map(fault_json).collect();
        json!({"folder": backend.institution, "share": backend.share.map(|x| x.x()),
            "files": backend.files, "bytes": backend.bytes, "left": left})
    };
    json!({"object": chosen.object.as_str(), "root": chosen.root.to_string(), "size": repaired.size,
        "mode": repaired.scheme.mode.to_string(), "k": repaired.scheme.threshold.k(),
        "n": repaired.scheme.threshold.n(), "weakest_before": repaired.weakest,
        "whole": repaired.whole(), "lost": repaired.lost,
        "folders": repaired.backends.iter().map(folder).collect::<Value>()})
}

fn share_text(out: &Out, share: Option<u8>) -> String {
    out.text(&share.map_or_else(|| say!(NoShare), |x| say!(Share, x = x)))
}
