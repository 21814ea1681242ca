//! `destroy`: removing an object for good, and stating what was seen.

use std::io::{self, BufRead, IsTerminal, Write};

use futures::TryStreamExt;
use model::ambient::SystemClock;
use model::{BackendId, Clock, ObjectId};
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use serde_json::{Value, json};
use sharding::codec::Threshold;
use sharding::format::{HEADER, Header};
use sharding::vault::{Backend, Destroyed, Destruction, Fault, FaultKind, Vault};

use crate::args::Destroy;
use crate::fault::{Exit, Failure};
use crate::out::{Out, fault_json};
use crate::places::{Absent, Ways, look};
use crate::say;
use crate::signing;

/// Removes an object and prints the statement.
pub async fn destroy(out: &Out, ways: &Ways, args: &Destroy) -> Result<Exit, Failure> {
    look(out, &args.folders, Absent::Refuse)?;
    let key = signing::key(args.sign_key.as_deref())?;
    let backends = ways.backends(&args.folders)?;
    let held = holding(&backends, &args.object).await;
    let (object, given) = (&args.object, backends.len());
    // The least that rebuilds it, whatever epochs there are; of an object of which nothing is left
    // to tell, the least there is.
    let k = held.thresholds.iter().map(|threshold| threshold.k()).min().unwrap_or(2);
    let n = held.thresholds.iter().map(|threshold| threshold.n()).max().unwrap_or(given);
    if given < n && !args.only_these {
        let what = say!(DestroySome, object = object, n = n, given = given);
        let failure = Failure::new(Exit::NotDone, "not_all_folders", what);
        return Err(failure.todo(say!(DestroySomeTodo, n = n)));
    }
    confirm(out, args, held.bytes)?;
    let vault = Vault::reading(backends, ways.options(out));
    let mut destruction = vault.destroy(object, k).await;
    for missing in given..n {
        destruction.backends.push(not_named(object, missing + 1)?);
    }
    let at = SystemClock.now();
    let statement = match &key {
        Some(key) => destruction.signed_statement(at, key),
        None => destruction.statement(at),
    };
    for Destroyed { institution, removed, .. } in destruction.backends.iter().take(given) {
        if *removed == 0 {
            out.note(&say!(HeldNothing, folder = institution));
        }
    }
    if out.json {
        out.result(&[], &told(&destruction, &statement));
    } else {
        let _ = io::stdout().write_all(statement.as_bytes());
    }
    if !destruction.complete() {
        out.note(&say!(NotGone));
    }
    Ok(match (destruction.complete(), destruction.beyond_recovery()) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Damaged,
        (false, false) => Exit::Failed,
    })
}

fn told(destruction: &Destruction, statement: &str) -> Value {
    let folder = |backend: &Destroyed| {
        json!({"folder": backend.institution, "removed": backend.removed,
            "left": backend.left.as_ref().map(fault_json)})
    };
    json!({"object": destruction.object.as_str(), "k": destruction.k, "statement": statement,
        "beyond_recovery": destruction.beyond_recovery(), "complete": destruction.complete(),
        "folders": destruction.backends.iter().map(folder).collect::<Value>()})
}

/// Of a folder that was not named nobody knows anything: it counts as still holding its share.
fn not_named(object: &ObjectId, number: usize) -> Result<Destroyed, Failure> {
    let backend = BackendId::from_name(&format!("not-named-{number}"));
    let backend = backend.map_err(|error| Failure::defect(&error))?;
    let institution = "not named".to_owned();
    let left = Some(Fault {
        backend: backend.clone(),
        institution: institution.clone(),
        object: object.clone(),
        block: None,
        kind: FaultKind::Unreachable,
        detail: String::new(),
    });
    Ok(Destroyed { backend, institution, removed: 0, left })
}

/// Asks for the object's name.
fn confirm(out: &Out, args: &Destroy, bytes: u64) -> Result<(), Failure> {
    let object = &args.object;
    let confirmed = match &args.yes_destroy {
        Some(named) => named == object,
        None if io::stdin().is_terminal() => {
            let (size, n) = (out.size(bytes), args.folders.len());
            out.error_line(&out.text(&say!(DestroyAsk, object = object, size = size, n = n)));
            let mut typed = String::new();
            let read = io::stdin().lock().read_line(&mut typed);
            read.is_ok() && typed.trim() == object.as_str()
        }
        None => false,
    };
    if confirmed {
        return Ok(());
    }
    Err(Failure::new(Exit::NotDone, "not_confirmed", say!(NotConfirmed, object = object))
        .why(say!(NotConfirmedWhy))
        .todo(say!(NotConfirmedTodo, object = object)))
}

struct Holding {
    bytes: u64,
    /// How it is shared, as the headers say.
    thresholds: Vec<Threshold>,
}

/// What the folders hold of an object.
async fn holding(backends: &[Backend], object: &ObjectId) -> Holding {
    let mut holding = Holding { bytes: 0, thresholds: Vec::new() };
    let folder = StorePath::from(object.name());
    for backend in backends {
        let listed = backend.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
        for file in listed.unwrap_or_default() {
            holding.bytes += file.size;
            let name = file.location.as_ref();
            let telling =
                name.ends_with(".key") || name.ends_with(".manifest") || holding.thresholds.is_empty();
            if !telling {
                continue;
            }
            let Ok(bytes) = backend.store.get_range(&file.location, 0..HEADER as u64).await else { continue };
            if let Ok(header) = Header::parse(&bytes)
                && header.deposit.object == *object
            {
                holding.thresholds.push(header.deposit.scheme.threshold);
            }
        }
    }
    holding
}
