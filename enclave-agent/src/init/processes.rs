//! The processes of a session, told by the group that marks them.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Kills every process that carries the mark; says whether any was there.
///
/// When none is found none can be in the making either: a process that is being forked has a
/// parent that is inside the call, and alive.
pub fn kill_marked(mark: u32) -> io::Result<bool> {
    let mut found = false;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end between the listing and the reading.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        if pid > 1 && carries(&status, mark) {
            found = true;
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(found)
}

/// The same with everything in the workspace held still meanwhile: one signal to all is atomic, so
/// that nothing forks faster than it is found.
pub fn stop_all_and_kill_marked(mark: u32) -> io::Result<bool> {
    let all = Pid::from_raw(-1);
    let _ = kill(all, Signal::SIGSTOP);
    let found = kill_marked(mark);
    let _ = kill(all, Signal::SIGCONT);
    found
}

/// Whether any process carries the mark.
pub fn is_marked(mark: u32) -> io::Result<bool> {
    for entry in fs::read_dir("/proc")? {
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else { continue };
        if carries(&status, mark) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Signals the foreground group of the leader's terminal, or else the leader's own group.
pub fn signal_group(leader: Pid, signal: Signal) {
    let group = fs::read_to_string(format!("/proc/{leader}/stat"))
        .ok()
        .and_then(|stat| foreground_group(&stat))
        .filter(|group| *group > 1)
        .map_or(leader, Pid::from_raw);
    // One that was just started leads no group yet, and is to hear of it all the same.
    if killpg(group, signal) == Err(Errno::ESRCH) && group == leader {
        let _ = kill(leader, signal);
    }
}

fn carries(status: &str, mark: u32) -> bool {
    let mut alive = true;
    let mut marked = false;
    for line in status.lines() {
        if let Some(state) = line.strip_prefix("State:") {
            alive = !matches!(state.trim_start().chars().next(), Some('Z' | 'X'));
        } else if let Some(groups) = line.strip_prefix("Groups:") {
            marked = groups.split_whitespace().any(|group| group.parse() == Ok(mark));
        }
    }
    alive && marked
}

/// Field 8 of `/proc/PID/stat` (proc(5)); the name before it may hold anything, so count from the
/// last parenthesis.
fn foreground_group(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(5)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_found_only_in_living_processes() {
        let status = "Name:\tGroups: 40001\nState:\tS (sleeping)\nGroups:\t1000 40001 \n";
        assert!(carries(status, 40001));
        assert!(!carries(status, 4000));
        assert!(!carries(&status.replace("S (sl", "Z (zo"), 40001));
    }

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        assert_eq!(foreground_group("12 (a) b 1) (x) S 1 12 12 34816 77 4194304 0"), Some(77));
        assert_eq!(foreground_group("12 (x"), None);
    }
}
