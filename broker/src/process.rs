//! What the process may and may not do on its machine.

use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, User, setgid, setgroups, setuid};

/// Keeps keys out of core dumps and debuggers, and asks for as many sockets as the machine gives.
pub fn harden() -> anyhow::Result<()> {
    prctl::set_dumpable(false).context("cannot forbid debuggers")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot forbid core dumps")?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot ask for the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the limit of open files")
}

/// Becomes `user`, for good, and makes `dir` theirs; does nothing unless started as root.
pub fn become_user(user: &str, dir: &Path) -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let Some(found) = User::from_name(user).with_context(|| format!("cannot look up the user {user:?}"))?
    else {
        bail!(
            "there is no user {user:?} on this machine: create it (`useradd --system {user}`), or change `user` in config.toml"
        );
    };
    if found.uid.is_root() {
        bail!("`user` in config.toml names root: name another user, or leave it out");
    }
    let owners = std::fs::read_dir(dir)?.filter_map(Result::ok).map(|entry| entry.path());
    for path in owners.chain([dir.to_owned()]) {
        give(&path, &found).with_context(|| format!("cannot give {} to {user}", path.display()))?;
    }
    // Changing the user forgets that the parent's death should end us.
    let on_parent_death = prctl::get_pdeathsig().context("cannot read the parent's signal")?;
    setgroups(&[found.gid]).context("cannot give up groups")?;
    setgid(found.gid).context("cannot give up the group of root")?;
    setuid(found.uid).context("cannot give up root")?;
    // What was given up for good cannot be had back.
    if setuid(Uid::from_raw(0)).is_ok() {
        bail!("root could be had back after it was given up");
    }
    prctl::set_pdeathsig(on_parent_death).context("cannot set the parent's signal")?;
    // A change of user makes the process dumpable again.
    prctl::set_dumpable(false).context("cannot forbid debuggers")
}

/// Gives a file of root's to `user`. The folder may be theirs already, and they may be somebody
/// else's: no link is followed, and no file is given away under a second name.
fn give(path: &Path, user: &User) -> anyhow::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if meta.uid() == user.uid.as_raw() {
        return Ok(());
    }
    if meta.is_symlink() || (!meta.is_dir() && meta.nlink() != 1) {
        bail!("it is a link: remove it");
    }
    Ok(lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?)
}
