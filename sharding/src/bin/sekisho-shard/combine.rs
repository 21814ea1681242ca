//! `combine` and `read`: the plaintext, into a file of its owner alone or into a pipe.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use serde_json::json;
use sharding::vault::ObjectReader;

use crate::args::{Combine, Read};
use crate::fault::{Exit, Failure};
use crate::out::{Bar, Out};
use crate::places::{Absent, Chosen, Ways, open};
use crate::say;
use crate::words::Key;

/// Rebuilds a file.
pub async fn combine(out: &Out, ways: &Ways, args: &Combine) -> Result<Exit, Failure> {
    let output = args.output.as_path();
    let piped = output == Path::new("-");
    if piped {
        not_a_terminal()?;
    } else if !args.force && output.symlink_metadata().is_ok() {
        let failure = Failure::new(Exit::NotDone, "exists", say!(Exists, path = output.display()));
        return Err(failure.todo(say!(ExistsTodo)));
    }
    let chosen = open(out, ways, &args.from, Absent::Note, ways.options(out)).await?;
    let size = chosen.reader.size();
    let bar = out.bar(Key::Combining, Some(size));
    if piped {
        copy(&chosen.reader, 0, size, &mut io::stdout().lock(), Path::new("-"), &bar).await?;
    } else {
        into_file(&chosen.reader, output, &bar).await?;
    }
    drop(bar);
    out.faults_in_all();
    let Chosen { object, root, .. } = &chosen;
    let shown = say!(CombineDone, path = output.display(), size = out.size(size), object = object);
    let value = json!({"object": object.as_str(), "root": root.to_string(), "size": size,
        "output": output.display().to_string(), "signer": chosen.signer(), "faults": out.faults_json()});
    match (piped, out.json) {
        (false, true) => out.result(&[], &value),
        _ => out.beside_data(&[shown], &value),
    }
    Ok(Exit::Done)
}

/// Writes a part to standard output.
pub async fn read(out: &Out, ways: &Ways, args: &Read) -> Result<Exit, Failure> {
    not_a_terminal()?;
    let chosen = open(out, ways, &args.from, Absent::Note, ways.options(out)).await?;
    let size = chosen.reader.size();
    if args.offset > size {
        let shown = out.size(size);
        return Err(Failure::usage(say!(BeyondEnd, size = shown, offset = args.offset)));
    }
    let length = args.len.unwrap_or(u64::MAX).min(size - args.offset);
    let bar = out.bar(Key::Combining, Some(length));
    copy(&chosen.reader, args.offset, length, &mut io::stdout().lock(), Path::new("-"), &bar).await?;
    drop(bar);
    let Chosen { object, root, .. } = &chosen;
    let value = json!({"object": object.as_str(), "root": root.to_string(), "offset": args.offset,
        "length": length, "signer": chosen.signer(), "faults": out.faults_json()});
    out.beside_data(&[], &value);
    Ok(Exit::Done)
}

fn not_a_terminal() -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        return Err(Failure::new(Exit::NotDone, "terminal", say!(ToTerminal)).todo(say!(ToTerminalTodo)));
    }
    Ok(())
}

/// Under its own name there is the whole file or none.
async fn into_file(reader: &ObjectReader, output: &Path, bar: &Bar) -> Result<(), Failure> {
    let partial = partial_name(output);
    let cannot = |error: io::Error| {
        Failure::failed("output", say!(CannotWrite, path = output.display()))
            .because(&error)
            .todo(say!(CannotWriteTodo))
    };
    let written = async {
        let mut file = private_file(&partial).map_err(cannot)?;
        copy(reader, 0, reader.size(), &mut file, output, bar).await?;
        file.sync_all().map_err(cannot)?;
        fs::rename(&partial, output).map_err(cannot)
    };
    let written = written.await;
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written?;
    sync_folder(output).map_err(cannot)
}

fn partial_name(output: &Path) -> PathBuf {
    let mut name = output.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".partial");
    output.with_file_name(name)
}

/// Plaintext is nobody else's to read. What a killed run left under this name goes first, and no
/// link in its place is followed.
pub fn private_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a new name last.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

async fn copy(
    reader: &ObjectReader,
    offset: u64,
    len: u64,
    to: &mut impl Write,
    path: &Path,
    bar: &Bar,
) -> Result<(), Failure> {
    let cannot = |error: io::Error| {
        Failure::failed("output", say!(CannotWrite, path = path.display())).because(&error)
    };
    let mut pieces = std::pin::pin!(reader.stream(offset..offset.saturating_add(len)));
    let mut done = 0;
    while let Some(piece) = pieces.try_next().await? {
        to.write_all(&piece).map_err(cannot)?;
        done += piece.len() as u64;
        bar.at(done);
    }
    to.flush().map_err(cannot)
}
