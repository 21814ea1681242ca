//! `refresh`: a new epoch, and the old one kept until the new root is noted.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use model::ambient::OsEntropy;
use serde_json::json;
use sharding::format::Root;
use sharding::vault::{self, Options};

use crate::args::Refresh;
use crate::combine::{private_file, sync_folder};
use crate::fault::{Exit, Failure};
use crate::out::Out;
use crate::places::{Absent, Chosen, Ways, open};
use crate::say;
use crate::signing;
use crate::units;
use crate::words::Key;

/// Shares the object anew.
pub async fn refresh(out: &Out, ways: &Ways, args: &Refresh) -> Result<Exit, Failure> {
    let signer = signing::key(args.sign_key.as_deref())?;
    let signed = signer.as_ref().map(|key| units::hex(key.verifying_key().as_bytes()));
    let options = Options { signer, ..ways.options(out) };
    let chosen = open(out, ways, &args.from, Absent::Refuse, options).await?;
    let Chosen { vault, object, root: old, .. } = &chosen;
    if let (Some(key), None, false) = (chosen.signer(), &signed, args.unsigned) {
        let failure = Failure::new(Exit::NotDone, "was_signed", say!(WasSigned, object = object, key = key));
        return Err(failure.todo(say!(WasSignedTodo)));
    }
    let what = if args.keys { vault::Refresh::Keys } else { vault::Refresh::Everything };
    let bar = out.bar(Key::Refreshing, Some(chosen.reader.size()));
    let refreshed = vault.refresh(object, &old.0, what, &OsEntropy, |done| bar.at(done)).await;
    drop(bar);
    out.faults_in_all();
    let refreshed = refreshed.map_err(Failure::from)?;
    let root = Root(refreshed.root);
    let epoch = vault.open(object, &root.0).await?.epoch();
    let mut lines = vec![say!(
        RefreshDone,
        object = object,
        old = old,
        root = root,
        size = out.size(refreshed.size),
        epoch = epoch
    )];
    lines.extend(signed.as_ref().map(|key| say!(SignedBy, key = key)));
    let mut value = json!({"object": object.as_str(), "old_root": old.to_string(), "root": root.to_string(),
        "size": refreshed.size, "epoch": epoch, "signer": signed, "retired": false, "removed": 0});
    let exit = match &args.retire {
        None => {
            lines.push(say!(RefreshKept, object = object, root = root));
            Exit::Done
        }
        // Whoever loses the new root after this would lose the object: it must lie on a disk first.
        Some(path) => match note(path, root) {
            Err(error) => {
                out.error_line(&out.text(&say!(RetireWhere, path = path.display())));
                out.error_line(&format!("  {error}"));
                lines.push(say!(RefreshKept, object = object, root = root));
                Exit::Failed
            }
            Ok(()) => {
                let others = vault.unfinished(object).await;
                let others: Vec<_> = others.iter().map(|unfinished| unfinished.set).collect();
                let collected = vault.collect(object, &[root], &others).await?;
                lines.push(say!(Retired, files = collected.removed));
                value["retired"] = json!(collected.faults.is_empty());
                value["removed"] = json!(collected.removed);
                if collected.faults.is_empty() {
                    Exit::Done
                } else {
                    lines.push(say!(LeftUndone, count = collected.faults.len()));
                    Exit::Damaged
                }
            }
        },
    };
    out.result(&lines, &value);
    Ok(exit)
}

/// Writes a root down so that it survives what comes next.
fn note(path: &Path, root: Root) -> io::Result<()> {
    let mut name = path.file_name().map_or_else(Default::default, std::ffi::OsString::from);
    name.push(".partial");
    let partial = path.with_file_name(name);
    let mut file = private_file(&partial)?;
    writeln!(file, "{root}")?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    sync_folder(path)
}
