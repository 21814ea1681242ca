//! What a killed agent left behind, and the control groups it made.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mount::force_unmount;
use crate::workspace::{Place, RuntimeError, close_home};

/// Where control groups are mounted, v1 hierarchies below it or v2 itself.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What holds the groups of all agents of a host.
const GROUP: &str = "sekisho";

/// A name for this agent on this host: the same at every start in this folder, and never another
/// folder's.
pub fn tag(dir: &Path) -> io::Result<String> {
    let folder = fs::metadata(dir)?;
    Ok(format!("{:x}-{:x}", folder.dev(), folder.ino()))
}

/// The control group of an agent, from the root of each hierarchy.
pub fn cgroup(tag: &str) -> String {
    format!("/{GROUP}/{tag}")
}

/// Ends and removes every workspace of an earlier agent in this place.
pub async fn reap(place: &Place) -> Result<(), RuntimeError> {
    if place.runtime.root.exists() {
        for id in place.runtime.list().await? {
            tracing::warn!(workspace = %id, "left by an earlier agent: removed");
            place.runtime.delete(&id).await?;
        }
    }
    let below = format!("{}/", place.run.display());
    for mount in mounts_below(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), &below) {
        // A home is to be written out before its disk is mounted again; nothing else holds it now.
        if mount.ends_with("home") {
            close_home(&mount);
        } else {
            force_unmount(&mount);
        }
    }
    remove(&place.run);
    remove_cgroups(&place.cgroup);
    Ok(())
}

/// Removes the place itself, once no workspace runs in it.
pub fn sweep(place: &Place) {
    remove(&place.run);
    // Folders shared with other agents of the host go with the last one.
    if let Some(parent) = place.run.parent() {
        let _ = fs::remove_dir(parent);
    }
    remove_cgroups(&place.cgroup);
}

/// Removes a directory with all that is in it, unless something is mounted there.
pub fn remove(dir: &Path) {
    // What is still mounted is somebody's home, or data.
    let below = format!("{}/", dir.display());
    let mounted = mounts_below(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), &below);
    if let Some(first) = mounted.first() {
        tracing::error!(dir = %dir.display(), mount = %first.display(), "not removed: something is mounted there");
        return;
    }
    match fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(dir = %dir.display(), %error, "could not be removed"),
    }
}

/// Removes a group with what is below it from every hierarchy, and its parent if that is empty.
fn remove_cgroups(group: &str) {
    let relative = group.trim_start_matches('/');
    let mut roots = vec![PathBuf::from(CGROUPS)];
    roots.extend(fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path()));
    for root in roots {
        let dir = root.join(relative);
        for below in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(below.path());
        }
        let _ = fs::remove_dir(&dir);
        let _ = fs::remove_dir(root.join(GROUP));
    }
}

/// Mount points below a folder (proc(5), `mountinfo`), innermost first.
fn mounts_below(mountinfo: &str, below: &str) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut found: Vec<PathBuf> =
        points.filter(|point| point.starts_with(below)).map(PathBuf::from).collect();
    found.reverse();
    found
}

/// Blanks and backslashes stand as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_innermost_first() {
        let info = "22 1 0:5 / / rw - ext4 x rw\n\
                    40 22 0:9 / /run/sekisho/a\\040b/ws/x/data ro - fuse sekisho ro\n\
                    41 40 0:9 / /run/sekisho/a\\040b/ws/x/data/y ro - fuse sekisho ro\n\
                    42 22 0:9 / /run/sekisho/a\\040bc/z ro - fuse sekisho ro\n";
        let found = mounts_below(info, "/run/sekisho/a b/");
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("y"));
    }

    #[test]
    fn a_tag_is_the_folders_own() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(tag(a.path()).unwrap(), tag(a.path()).unwrap());
        assert_ne!(tag(a.path()).unwrap(), tag(b.path()).unwrap());
    }
}
