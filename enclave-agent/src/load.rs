//! How busy this host is, for brokers that choose among agents.

use std::time::Duration;

use tokio::time::Instant;
use wire::agent::BrokerLink;
use wire::message::{Load, RUNNING_MAX};

use crate::outlets::Outlets;
use crate::service::Workspaces;

/// How often it is looked whether workspaces or sessions came or went.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is told although nothing came or went.
const TELL: Duration = Duration::from_secs(5);

/// Tells the brokers at every change of what runs, and regularly, until dropped. Each hears of the
/// workspaces in which it has ordered something.
pub async fn tell(workspaces: &Workspaces, links: &[BrokerLink], outlets: &Outlets) {
    let (mut last, mut told) = (Load::default(), None::<Instant>);
    let mut before = Times::now();
    loop {
        let running = running(workspaces);
        let changed = names(&running) != names(&last);
        if changed || told.is_none_or(|told| told.elapsed() >= TELL) {
            let now = Times::now();
            let cpu_permille = now.busy_since(before).unwrap_or(last.cpu_permille);
            before = now;
            last = Load { cpu_permille, memory_permille: memory(), ..running };
            told = Some(Instant::now());
            for (by, link) in links.iter().enumerate() {
                let mut load = last.clone();
                load.running.retain(|one| outlets.has_ordered(by, &one.workspace));
                link.tell_load(load);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What runs, without the host's own figures.
pub fn running(workspaces: &Workspaces) -> Load {
    let mut running = workspaces.running();
    let sessions = running.iter().map(|one| one.sessions).sum();
    running.truncate(RUNNING_MAX);
    Load { sessions, running, ..Load::default() }
}

fn names(load: &Load) -> Vec<(&model::WorkspaceId, u32)> {
    load.running.iter().map(|one| (&one.workspace, one.sessions)).collect()
}

/// What all processors have done since the start, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Times {
    all: u64,
    idle: u64,
}

impl Times {
    fn now() -> Times {
        Times::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The first line of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(stat: &str) -> Times {
        let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|n| n.parse().ok()).collect();
        Times { all: ticks.iter().sum(), idle: ticks.iter().skip(3).take(2).sum() }
    }

    fn busy_since(self, before: Times) -> Option<u16> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let busy = all.saturating_sub(self.idle.saturating_sub(before.idle));
        Some(permille(busy, all))
    }
}

fn memory() -> u16 {
    memory_of(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn memory_of(meminfo: &str) -> u16 {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    match (kib("MemTotal"), kib("MemAvailable")) {
        (Some(all), Some(free)) => permille(all.saturating_sub(free), all),
        _ => 0,
    }
}

fn permille(part: u64, all: u64) -> u16 {
    u16::try_from(part.saturating_mul(1000).checked_div(all).unwrap_or(0).min(1000)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_kernel() {
        let before = Times::parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n");
        assert_eq!(before, Times { all: 1000, idle: 800 });
        let later = Times::parse("cpu  400 0 200 1300 100 0 0 0 5 5\n");
        assert_eq!(later.busy_since(before), Some(400));
        assert_eq!(before.busy_since(before), None);
        assert_eq!(Times::parse("nonsense"), Times::default());
        assert_eq!(memory_of("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  250 kB\n"), 750);
        assert_eq!(memory_of(""), 0);
    }
}
