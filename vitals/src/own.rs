//! The figures that every process has, under the names that Prometheus' own clients give them.

use std::fs;

use model::metrics::{Exposition, Health, Kind, State};
use nix::unistd::{SysconfVar, sysconf};

/// What the kernel tells of a process in `/proc/PID/stat` (proc_pid_stat(5)), in its own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// Clock ticks in this process and in the kernel for it.
    ticks: u64,
    threads: u64,
    /// Clock ticks from the start of the host to that of the process.
    started: u64,
    /// Pages.
    resident: u64,
}

/// Adds the health, and what the kernel tells of this process. What cannot be read is left out.
pub fn expose(health: &Health, to: &mut Exposition) {
    let (process, version) = (health.process.as_str(), health.version.as_str());
    let up = "Whether the process answers; its labels say which it is.";
    to.family("sekisho_up", Kind::Gauge, up).sample(&[("process", process), ("version", version)], 1.0);
    let mut checks =
        to.family("sekisho_health", Kind::Gauge, "How each thing is: 1 well, 0.5 degraded, 0 failed.");
    for (name, check) in &health.checks {
        let value = match check.state {
            State::Ok => 1.0,
            State::Degraded => 0.5,
            State::Failed => 0.0,
        };
        checks.sample(&[("process", process), ("check", name)], value);
    }
    let whole = |var| sysconf(var).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| stat(&text));
    let (Some(stat), Some(hertz), Some(page)) =
        (stat, whole(SysconfVar::CLK_TCK).filter(|hertz| *hertz > 0), whole(SysconfVar::PAGE_SIZE))
    else {
        return;
    };
    let seconds = |ticks: u64| ticks as f64 / hertz as f64;
    let mut single = |name, kind, help, value| to.single(name, kind, help, value);
    let spent = "Processor time that was spent, in seconds.";
    single("process_cpu_seconds_total", Kind::Counter, spent, seconds(stat.ticks));
    let resident = "Memory that is resident, in bytes.";
    single("process_resident_memory_bytes", Kind::Gauge, resident, (stat.resident * page) as f64);
    single("process_threads", Kind::Gauge, "Threads.", stat.threads as f64);
    if let Some(booted) = fs::read_to_string("/proc/stat").ok().and_then(|text| booted(&text)) {
        let started = booted as f64 + seconds(stat.started);
        let help = "When the process was started, in seconds since 1970.";
        single("process_start_time_seconds", Kind::Gauge, help, started);
    }
    // Of a process that nobody may look into, only root may look there.
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        single("process_open_fds", Kind::Gauge, "Descriptors that are open.", open.count() as f64);
    }
}

fn stat(text: &str) -> Option<Stat> {
    // The name of the program stands in parentheses and may have any of them in it.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first of them is the third that the manual counts.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        ticks: field(14)?.saturating_add(field(15)?),
        threads: field(20)?,
        started: field(22)?,
        resident: field(24)?,
    })
}

/// When the host was started, in seconds since 1970.
fn booted(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        let text = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 9 0 1234 99 55 18446744073709551615 1 1";
        assert_eq!(stat(text), Some(Stat { ticks: 12, threads: 9, started: 1234, resident: 55 }));
        for bad in
            ["", "42 (x", "42 (x) S 1 2", "42 (x) S 1 42 42 0 -1 4194304 100 0 0 0 x 5 0 0 20 0 9 0 1 2 3"]
        {
            assert_eq!(stat(bad), None, "{bad}");
        }
        assert_eq!(booted("cpu 1 2\nbtime 1790000000\nprocesses 3\n"), Some(1_790_000_000));
        assert_eq!(booted("btime soon"), None);
    }
}
