use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use anyhow::Context;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, User, geteuid, setgid, setgroups, setuid};

/// Keeps the process's memory from others: no core file, no debugger of the same user, and new
/// files for the owner alone.
pub(crate) fn protect_memory() -> anyhow::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("core files cannot be switched off")?;
    prctl::set_dumpable(false).context("the memory cannot be protected from debuggers")
}

/// Becomes `user` for good when started as root, and gives it what it must go on using: `paths`.
/// For anyone else `user` must be who it is already.
pub(crate) fn become_user(user: &str, paths: &[&Path]) -> anyhow::Result<()> {
    let entry = User::from_name(user).context("the list of users cannot be read")?.with_context(|| {
        format!("config.toml names the user {user:?}, which does not exist; create it first")
    })?;
    if !geteuid().is_root() {
        anyhow::ensure!(
            geteuid() == entry.uid,
            "config.toml names the user {user:?}; start the signer as root or as that user"
        );
        return Ok(());
    }
    anyhow::ensure!(entry.uid != Uid::from_raw(0), "config.toml: the signer's user must not be root");
    for path in paths {
        give(path, &entry).with_context(|| format!("{} cannot be given to {user:?}", path.display()))?;
    }
    // Changing the user forgets that the parent's death should end us, and the protection above.
    let on_parent_death = prctl::get_pdeathsig().context("the parent's signal cannot be read")?;
    setgroups(&[entry.gid]).context("the other groups cannot be left")?;
    setgid(entry.gid).context("the group cannot be changed")?;
    setuid(entry.uid).context("the user cannot be changed")?;
    anyhow::ensure!(setuid(Uid::from_raw(0)).is_err(), "root could not be given up");
    prctl::set_pdeathsig(on_parent_death).context("the parent's signal cannot be set")?;
    protect_memory()
}

/// Gives a file of root's to `user`. The folder may be that user's already, and the user fallen:
/// so no link is followed, and none is given away under a second name.
fn give(path: &Path, user: &User) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if meta.uid() == user.uid.as_raw() {
        return Ok(());
    }
    if meta.is_symlink() || (!meta.is_dir() && meta.nlink() != 1) {
        return Err(io::Error::other("it is a link; remove it"));
    }
    lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}
