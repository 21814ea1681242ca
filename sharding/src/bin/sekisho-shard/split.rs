//! `split`: sharing out, and taking up what died.

use std::fs;
use std::path::Path;

use model::ObjectId;
use model::ambient::OsEntropy;
use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use serde_json::json;
use sharding::format::{File, HEADER, Header, Kind, Mode, SetId};
use sharding::vault::{Backend, Deposited, Depositing, Options, Vault};
use tokio::io::AsyncRead;

use crate::args::Split;
use crate::fault::{Exit, Failure};
use crate::out::{Out, fault_json};
use crate::places::{Ways, folder, objects, scheme};
use crate::say;
use crate::signing;
use crate::units;
use crate::words::Key;

type Source = Box<dyn AsyncRead + Unpin + Send>;

/// Shares a file out.
pub async fn split(out: &Out, ways: &Ways, args: &Split) -> Result<Exit, Failure> {
    let names = places(args)?;
    let signer = signing::key(args.sign_key.as_deref())?;
    let signed = signer.as_ref().map(|key| units::hex(key.verifying_key().as_bytes()));
    let options = Options { mode: args.mode.unwrap_or_default(), signer, ..ways.options(out) };
    let begun = match args.resume {
        Some(set) => resume(args, ways.backends(&names)?, set, options).await?,
        None => begin(ways, args, &names, options).await?,
    };
    let Begun { object, k, mode, depositing } = begun;
    let (source, size) = source(&args.file).await?;
    let set = depositing.set();
    out.note(&say!(Interrupted, object = object, set = set));
    let bar = out.bar(Key::Splitting, size);
    let deposited = depositing.run(source, &OsEntropy, |done| bar.at(done)).await;
    drop(bar);
    let Deposited { size, root, resumed, missing } = deposited.map_err(|error| {
        let failure = Failure::from(error).with("object", object.as_str()).with("set", set.to_string());
        failure.todo(say!(SplitTodo, object = object, set = set))
    })?;
    let (root, n) = (sharding::format::Root(root), names.len());
    let shown = out.size(size);
    let mut lines =
        vec![say!(SplitDone, object = object, root = root, size = shown, k = k, n = n, mode = mode)];
    lines.extend(signed.as_ref().map(|key| say!(SignedBy, key = key)));
    if resumed > 0 {
        lines.push(say!(Resumed, size = out.size(resumed)));
    }
    let missing: Vec<_> = missing.iter().map(fault_json).collect();
    out.result(
        &lines,
        &json!({"object": object.as_str(), "root": root.to_string(), "set": set.to_string(), "size": size,
            "mode": mode.to_string(), "k": k, "n": n, "resumed": resumed, "signer": signed,
            "missing": missing}),
    );
    out.note(&say!(SplitKeep));
    Ok(Exit::Done)
}

struct Begun {
    object: ObjectId,
    k: u8,
    mode: Mode,
    depositing: Depositing,
}

/// The folders: those named, or subfolders of the only one.
fn places(args: &Split) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = match (args.out.as_slice(), args.n) {
        ([one], Some(n)) if n > 1 => {
            let one = one.trim_end_matches('/');
            (1..=n).map(|x| format!("{one}/{x}")).collect()
        }
        _ => args.out.clone(),
    };
    match args.n {
        Some(n) if names.len() != usize::from(n) => {
            Err(Failure::usage(say!(FolderCount, n = n, given = names.len())))
        }
        _ => Ok(names),
    }
}

async fn begin(ways: &Ways, args: &Split, names: &[String], options: Options) -> Result<Begun, Failure> {
    let (k, n, mode) = (args.k.unwrap_or(0), names.len(), options.mode);
    let bad = |error: &(dyn std::error::Error + 'static)| {
        Failure::usage(say!(BadThreshold, k = k, n = n)).because(error).todo(say!(BadThresholdTodo))
    };
    let vault = Vault::new(ways.backends(names)?, k, options).map_err(|error| bad(&error))?;
    for place in names.iter().filter_map(|name| folder(name)) {
        fs::create_dir_all(&place).map_err(|error| {
            Failure::failed("no_folder", say!(CannotMakeFolder, place = place.display())).because(&error)
        })?;
    }
    let object = match &args.object {
        Some(object) => object.clone(),
        None => ObjectId::random(&OsEntropy)
            .map_err(|error| Failure::failed("entropy", say!(NoEntropy)).because(&error))?,
    };
    if !args.beside && !vault.manifests(Some(&object)).await.is_empty() {
        let failure = Failure::new(Exit::NotDone, "there_already", say!(ThereAlready, object = object));
        return Err(failure.todo(say!(ThereAlreadyTodo)));
    }
    let depositing = vault.begin(&object, &OsEntropy).await?;
    Ok(Begun { object, k, mode, depositing })
}

/// Finds out how a share set was begun, whatever the order of the folders is now.
async fn resume(
    args: &Split,
    backends: Vec<Backend>,
    set: SetId,
    options: Options,
) -> Result<Begun, Failure> {
    let candidates = match &args.object {
        Some(object) => vec![object.clone()],
        None => objects(&backends).await.into_iter().collect(),
    };
    let mut found = Vec::new();
    for object in candidates {
        found = Vec::new();
        for backend in &backends {
            found.push(key_header(backend, &object, set).await);
        }
        if found.iter().any(Option::is_some) {
            break;
        }
    }
    let Some(known) = found.iter().flatten().next().cloned() else {
        let failure = Failure::failed("nothing_to_resume", say!(NothingToResume, set = set));
        return Err(failure.todo(say!(NothingToResumeTodo)));
    };
    if known.deposit.epoch > 1 {
        let failure = Failure::failed("of_a_refresh", say!(ResumeRefresh, set = set));
        return Err(failure.todo(say!(ResumeRefreshTodo)));
    }
    let (threshold, mode) = (known.deposit.scheme.threshold, known.deposit.scheme.mode);
    let (k, n) = (threshold.k() as u8, threshold.n());
    if args.k.is_some_and(|other| other != k) || args.mode.is_some_and(|other| other != mode) {
        let what = say!(ResumeDiffers, set = set, scheme = scheme(threshold.k(), n, mode));
        return Err(Failure::usage(what).todo(say!(ResumeDiffersTodo)));
    }
    if backends.len() != n {
        return Err(Failure::usage(say!(FolderCount, n = n, given = backends.len())));
    }
    let vault = Vault::new(ordered(backends, &found), k, Options { mode, ..options })
        .map_err(|error| Failure::defect(&error))?;
    let object = known.deposit.object;
    let depositing = vault.resume(&object, set).await?;
    Ok(Begun { object, k, mode, depositing })
}

/// Each folder in the place of its share; those that have none yet take the places that are left.
fn ordered(backends: Vec<Backend>, found: &[Option<Header>]) -> Vec<Backend> {
    let mut places: Vec<Option<Backend>> = vec![None; backends.len()];
    let mut rest = Vec::new();
    for (backend, header) in backends.into_iter().zip(found) {
        let place = header.as_ref().and_then(|header| places.get_mut(header.share.place()));
        match place {
            Some(place @ None) => *place = Some(backend),
            _ => rest.push(backend),
        }
    }
    let mut rest = rest.into_iter();
    places.into_iter().filter_map(|place| place.or_else(|| rest.next())).collect()
}

/// What a backend's key file of a share set says of it.
pub async fn key_header(backend: &Backend, object: &ObjectId, set: SetId) -> Option<Header> {
    let folder = StorePath::from(format!("{}/{set}", object.name()));
    let listed = backend.store.list_with_delimiter(Some(&folder)).await.ok()?;
    let prefix = format!("{}/", object.name());
    for meta in listed.objects {
        let name = meta.location.as_ref().strip_prefix(&prefix).and_then(File::parse);
        if !matches!(name, Some(File::Key(..))) {
            continue;
        }
        let bytes = backend.store.get_range(&meta.location, 0..HEADER as u64).await.ok()?;
        let header = Header::parse(&bytes).ok()?;
        let fits = header.kind == Kind::Key && header.deposit.set == set && header.deposit.object == *object;
        return fits.then_some(header);
    }
    None
}

async fn source(file: &Path) -> Result<(Source, Option<u64>), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let cannot = |error: std::io::Error| {
        Failure::failed("source", say!(CannotRead, path = file.display())).because(&error)
    };
    let open = tokio::fs::File::open(file).await.map_err(cannot)?;
    let meta = open.metadata().await.map_err(cannot)?;
    if meta.is_dir() {
        return Err(cannot(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(open), meta.is_file().then_some(meta.len())))
}
