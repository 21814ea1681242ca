//! `inspect`: what share files say of themselves.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sharding::format::{File, HEADER, Header, Kind, Manifest, extent_count};

use crate::args::Inspect;
use crate::fault::{Exit, Failure};
use crate::out::Out;
use crate::places::scheme;
use crate::say;
use crate::units::hex;
use crate::words::Message;

/// Folders below that of an object: its share sets.
const DEPTH: usize = 2;

/// Describes files, and of folders every manifest and key.
pub fn inspect(out: &Out, args: &Inspect) -> Result<Exit, Failure> {
    let (mut lines, mut files) = (Vec::new(), Vec::new());
    for path in &args.paths {
        if path.is_dir() {
            let found = telling(path).map_err(|error| {
                Failure::failed("read", say!(CannotRead, path = path.display())).because(&error)
            })?;
            if found.is_empty() {
                lines.push(say!(FolderEmpty, place = path.display()));
            }
            for file in found {
                match describe(out, &file) {
                    Ok((line, value)) => {
                        lines.push(line);
                        files.push(value);
                    }
                    // One damaged file shall not hide the others.
                    Err(failure) => {
                        out.error_line(&failure.text(out));
                        let failed = failure.json(out);
                        files.push(json!({"file": file.display().to_string(), "error": failed["error"]}));
                    }
                }
            }
        } else {
            let (line, value) = describe(out, path)?;
            lines.push(line);
            files.push(value);
        }
    }
    let damaged = files.iter().any(|file| file.get("error").is_some());
    out.result(&lines, &json!({"files": files}));
    Ok(if damaged { Exit::Damaged } else { Exit::Done })
}

/// The manifests and keys below a folder: of a backend, an object or a share set.
fn telling(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let (path, kind) = {
                let entry = entry?;
                (entry.path(), entry.file_type()?)
            };
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Whether a key's name is one is told with a share set's before it.
            let set = "0".repeat(32);
            let ours = matches!(File::parse(name), Some(File::Manifest(_)))
                || matches!(File::parse(&format!("{set}/{name}")), Some(File::Key(..)));
            if kind.is_dir() && depth < DEPTH {
                folders.push((path, depth + 1));
            } else if kind.is_file() && ours {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn describe(out: &Out, path: &Path) -> Result<(Message, Value), Failure> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| {
        let limit = (HEADER + Manifest::MAX_LEN) as u64;
        // Only of a manifest more than the header is wanted.
        let mut file = file.take(limit);
        (&mut file).take(HEADER as u64).read_to_end(&mut bytes)?;
        match Header::parse(&bytes) {
            Ok(Header { kind: Kind::Manifest { .. }, .. }) => file.read_to_end(&mut bytes),
            _ => Ok(0),
        }
    });
    read.map_err(|error| Failure::failed("read", say!(CannotRead, path = shown)).because(&error))?;
    let bad = || Failure::failed("not_a_share", say!(NotAShare, path = shown)).todo(say!(NotAShareTodo));
    let Header { deposit, share, kind } = Header::parse(&bytes).map_err(|error| bad().because(&error))?;
    let (threshold, mode) = (deposit.scheme.threshold, deposit.scheme.mode);
    let shared = scheme(threshold.k(), threshold.n(), mode);
    let (object, set, epoch, x) = (&deposit.object, deposit.set, deposit.epoch, share.x());
    let mut value = json!({"file": shown.to_string(), "object": object.as_str(), "epoch": epoch,
        "set": set.to_string(), "mode": mode.to_string(), "share": x, "k": threshold.k(),
        "n": threshold.n()});
    let line = match kind {
        Kind::Extent { extent, len, attempt } => {
            value["kind"] = json!("extent");
            value["extent"] = json!(extent);
            value["len"] = json!(len);
            value["attempt"] = json!(attempt.to_string());
            say!(
                InspectExtent,
                file = shown,
                extent = extent,
                object = object,
                size = out.size(len),
                x = x,
                scheme = shared,
                set = set,
                epoch = epoch
            )
        }
        Kind::Manifest { len } => {
            let manifest = Manifest::parse(&bytes[HEADER..])
                .map_err(|error| bad().why(say!(BadManifest)).because(&error))?;
            let signer = manifest.signature.map(|signature| hex(&signature.key));
            let extents = extent_count(manifest.size);
            value["kind"] = json!("manifest");
            value["len"] = json!(len);
            value["root"] = json!(manifest.root().to_string());
            value["size"] = json!(manifest.size);
            value["extents"] = json!(extents);
            value["signer"] = json!(signer);
            let signer = match signer {
                Some(key) => out.text(&say!(SignedBy, key = key)),
                None => out.text(&say!(NotSigned)),
            };
            say!(
                InspectManifest,
                file = shown,
                object = object,
                size = out.size(manifest.size),
                extents = extents,
                x = x,
                scheme = shared,
                set = set,
                epoch = epoch,
                signer = signer
            )
        }
        Kind::Key => {
            value["kind"] = json!("key");
            say!(InspectKeys, file = shown, object = object, x = x, scheme = shared, set = set, epoch = epoch)
        }
    };
    Ok((line, value))
}
