//! Homes: what persists of a workspace while it does not run.
//!
//! Each is a file system of its own, ext4 in a sparse file of the agent's folder, mounted for as long
//! as the workspace runs. Its size is the quota: whoever fills it gets "No space left on device", and
//! nobody else notices. A disk grows with its limit; it does not shrink. Where an operator has chosen
//! plain folders instead, nothing bounds a home but the host's own disk.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::statvfs;
use tokio::process::Command;

use super::bundle::{Owner, make_dir};
use crate::init_protocol::{FIRST_HOST_ID, USER_ID};

/// How long each of the host's programs may take: what an earlier release left in a folder is copied.
const PATIENCE: Duration = Duration::from_secs(45);
/// Where they are looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of the host's disk that no home may take: nothing starts when there are fewer.
const RESERVE: u64 = 256 << 20;
/// A home with less room than one part in this is said to be full.
const FULL: u64 = 50;
/// How often an unmount is tried while something still holds on.
const TRIES: u32 = 20;

/// Where homes lie.
#[derive(Debug, Clone)]
pub struct Homes {
    /// Folders, by study and person: where all homes lie, or those of an earlier release.
    pub folders: PathBuf,
    /// Disks, unless the operator chose folders.
    pub disks: Option<PathBuf>,
}

impl Homes {
    /// Makes an owner's home ready; the directory to be bound. A disk is mounted at `at`.
    pub async fn open(&self, owner: &Owner, at: &Path, mib: u64) -> io::Result<PathBuf> {
        let Some(disks) = &self.disks else {
            let folder = self.folder(owner);
            make_parents(&self.folders, owner)?;
            own(&folder)?;
            return Ok(folder);
        };
        make_parents(disks, owner)?;
        let disk = disk(disks, owner);
        check_room(disks)?;
        if !disk.exists() {
            self.make(owner, &disk, mib).await?;
        }
        if fs::metadata(&disk)?.len() < mib << 20 {
            grow(&disk, mib).await?;
        }
        make_dir(at, 0o700)?;
        let options = ["-t", "ext4", "-o", "loop,nosuid,nodev,noatime,discard"].map(OsStr::new);
        run("mount", options.into_iter().chain([disk.as_os_str(), at.as_os_str()])).await?;
        let _ = fs::remove_dir(at.join("lost+found"));
        if let Err(error) = own(at) {
            close(at);
            return Err(error);
        }
        Ok(at.to_owned())
    }

    /// Destroys a home. It must not be open.
    pub fn remove(&self, owner: &Owner) -> io::Result<()> {
        let gone = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        if let Some(disks) = &self.disks {
            gone(fs::remove_file(disk(disks, owner)))?;
        }
        gone(fs::remove_dir_all(self.folder(owner)))
    }

    fn folder(&self, owner: &Owner) -> PathBuf {
        self.folders.join(owner.study.name()).join(name(owner))
    }

    /// A new disk takes over what an earlier release kept in a folder.
    async fn make(&self, owner: &Owner, disk: &Path, mib: u64) -> io::Result<()> {
        let new = disk.with_extension("new");
        let before = self.folder(owner);
        let taken = if before.is_dir() { bytes_below(&before)? } else { 0 };
        let size = (mib << 20).max(taken + taken / 4 + if taken > 0 { 64 << 20 } else { 0 });
        let file = fs::File::create(&new)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.set_len(size)?;
        drop(file);
        let id = FIRST_HOST_ID + USER_ID;
        let extended = format!("lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner={id}:{id}");
        let mut words = ["-q", "-F", "-m", "0", "-L", "home", "-E", &extended].map(OsStr::new).to_vec();
        if taken > 0 {
            words.extend([OsStr::new("-d"), before.as_os_str()]);
        }
        words.push(new.as_os_str());
        run("mkfs.ext4", words).await?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, disk)?;
        if let Some(parent) = disk.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        if taken > 0 {
            tracing::info!(from = %before.display(), to = %disk.display(), "a home was moved to a disk of its own");
        }
        if before.is_dir() {
            fs::remove_dir_all(&before)?;
        }
        Ok(())
    }
}

/// Unmounts a home. Nothing there is fine.
pub fn close(at: &Path) {
    for _ in 0..TRIES {
        match umount2(at, MntFlags::empty()) {
            Err(Errno::EBUSY) => std::thread::sleep(Duration::from_millis(10)),
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return,
            Err(errno) => {
                tracing::warn!(path = %at.display(), %errno, "could not unmount");
                break;
            }
        }
    }
    // It goes when the last that holds it lets go.
    let _ = umount2(at, MntFlags::MNT_DETACH);
}

/// What a person should know of their home, if it is nearly full.
pub fn notice(home: &Path) -> Option<String> {
    let found = statvfs(home).ok()?;
    let unit = found.fragment_size() as u64;
    let (all, free) = (found.blocks() as u64 * unit, found.blocks_available() as u64 * unit);
    let mib = |bytes: u64| bytes >> 20;
    if all > 0 && free < all / FULL {
        return Some(format!(
            "Your home is full: {} of {} MiB are in use. Remove files, or ask your study's lead for more disk.",
            mib(all - free),
            mib(all)
        ));
    }
    let (files, left) = (found.files() as u64, found.files_available() as u64);
    (files > 0 && left < files / FULL).then(|| {
        format!(
            "Your home holds {} files and takes hardly any more. Remove some, or pack them into archives.",
            files - left
        )
    })
}

fn disk(disks: &Path, owner: &Owner) -> PathBuf {
    disks.join(owner.study.name()).join(format!("{}.ext4", name(owner)))
}

/// A `+` stands in no name, so that no two homes have the same.
fn name(owner: &Owner) -> String {
    let person = owner.person.name();
    if owner.workspace.is_main() { person.to_owned() } else { format!("{person}+{}", owner.workspace) }
}

/// Every directory above is closed to listing.
fn make_parents(homes: &Path, owner: &Owner) -> io::Result<()> {
    make_dir(homes, 0o711)?;
    make_dir(&homes.join(owner.study.name()), 0o711)
}

/// Makes a directory the workspace's user's own.
fn own(home: &Path) -> io::Result<()> {
    make_dir(home, 0o700)?;
    let id = FIRST_HOST_ID + USER_ID;
    chown(home, Some(id), Some(id))
}

fn check_room(disks: &Path) -> io::Result<()> {
    let found = statvfs(disks).map_err(io::Error::from)?;
    if found.blocks_available() as u64 * (found.fragment_size() as u64) < RESERVE {
        let text =
            format!("the host's disk below {} has less than {} MiB left", disks.display(), RESERVE >> 20);
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    Ok(())
}

fn bytes_below(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            let found = entry.metadata()?;
            bytes += found.blocks() * 512 + 256;
            if found.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

/// Enlarges a disk that nobody has mounted, after a look at whether all is well in it. A mounted one
/// would take a capability that an agent in a container may lack (`CAP_SYS_RESOURCE`). Until the file is
/// as long as it should be, the next start does all of this again.
async fn grow(disk: &Path, mib: u64) -> io::Result<()> {
    let checked =
        output("e2fsck", ["-f", "-p"].map(OsStr::new).into_iter().chain([disk.as_os_str()])).await?;
    // 1: errors were found and corrected (e2fsck(8)).
    if !matches!(checked.status.code(), Some(0 | 1)) {
        return Err(failed("e2fsck", &checked));
    }
    let new = OsString::from(format!("{mib}M"));
    run("resize2fs", [disk.as_os_str(), &new]).await
}

/// Runs one of the host's programs and demands success.
async fn run<'a>(program: &str, words: impl IntoIterator<Item = &'a OsStr>) -> io::Result<()> {
    let ran = output(program, words).await?;
    if ran.status.success() { Ok(()) } else { Err(failed(program, &ran)) }
}

fn failed(program: &str, ran: &Output) -> io::Error {
    let said = [&ran.stderr[..], &ran.stdout].concat();
    let said: String = String::from_utf8_lossy(&said).trim().chars().take(300).collect();
    io::Error::other(format!("{program} failed: {said}"))
}

async fn output<'a>(program: &str, words: impl IntoIterator<Item = &'a OsStr>) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(words);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let ran = tokio::time::timeout(PATIENCE, command.output()).await;
    let ran =
        ran.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{program} did not finish")))?;
    ran.map_err(|error| io::Error::new(error.kind(), format!("{program} cannot be run: {error}")))
}

#[cfg(test)]
mod tests {
    use model::{PersonId, StudyId};

    use super::*;

    #[test]
    fn no_two_homes_lie_in_the_same_place() {
        let owner = |person: &str, workspace: &str| Owner {
            study: StudyId::from_name("brca").unwrap(),
            person: PersonId::from_name(person).unwrap(),
            workspace: workspace.parse().unwrap(),
        };
        let at = |owner: &Owner| disk(Path::new("/d"), owner);
        assert_eq!(at(&owner("alice", "main")), Path::new("/d/brca/alice.ext4"));
        let all = [
            owner("alice", "main"),
            owner("alice", "big"),
            owner("alice.ext4", "main"),
            owner("alice-big", "main"),
        ];
        let places: std::collections::BTreeSet<_> = all.iter().map(at).collect();
        assert_eq!(places.len(), all.len());
        assert!(places.iter().all(|place| !places.contains(&place.with_extension("new"))));
    }
}
