//! Stock rsyslogd and syslog-ng, killed and started again in the middle of 100 000 events.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use siem::{Target, TlsSource};

use crate::support::*;

const EVENTS: usize = 100_000;

#[derive(Clone, Copy)]
enum Kind {
    Rsyslog,
    Relp,
    SyslogNg,
}

/// A real collector in a folder of its own.
struct Collector {
    kind: Kind,
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Collector {
    fn configure(kind: Kind, dir: &Path, authority: &Authority) -> Collector {
        let leaf = authority.issue("collector.test");
        fs::write(dir.join("ca.pem"), &authority.pem).unwrap();
        fs::write(dir.join("cert.pem"), &leaf.pem).unwrap();
        fs::write(dir.join("key.pem"), leaf.key.serialize_pem()).unwrap();
        let port = free_port();
        // The configurations that are shipped, with other places, ports and names.
        let shipped = match kind {
            Kind::Rsyslog | Kind::Relp => "rsyslog/sekisho.conf",
            Kind::SyslogNg => "syslog-ng/sekisho.conf",
        };
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/siem").join(shipped);
        let mut config = fs::read_to_string(shipped).unwrap();
        let here = dir.display().to_string();
        let (ours, other) = if matches!(kind, Kind::Relp) { ("2514", "6514") } else { ("6514", "2514") };
        for (shipped, here) in [
            ("/etc/sekisho/collector", here.as_str()),
            ("/var/log/sekisho", &here),
            ("/var/spool/rsyslog", &here),
            ("siem/main", "siem.test"),
            (ours, &port.to_string()),
            (other, &free_port().to_string()),
        ] {
            config = config.replace(shipped, here);
        }
        fs::write(dir.join("collector.conf"), config).unwrap();
        Collector { kind, dir: dir.to_owned(), port, child: None }
    }

    fn start(&mut self) {
        let errors = fs::File::options().create(true).append(true).open(self.dir.join("errors")).unwrap();
        let config = self.dir.join("collector.conf");
        let mut command = match self.kind {
            Kind::Rsyslog | Kind::Relp => {
                let mut command = Command::new("/usr/sbin/rsyslogd");
                command.arg("-n").arg("-f").arg(config).arg("-i").arg(self.dir.join("pid"));
                command
            }
            Kind::SyslogNg => {
                let home = cache().join("syslog-ng");
                let libraries = ["usr/lib/syslog-ng", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
                let libraries: Vec<_> = libraries.iter().map(|l| home.join(l)).collect();
                let mut command = Command::new(home.join("usr/sbin/syslog-ng"));
                command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
                command.arg(format!("--module-path={}", home.join("usr/lib/syslog-ng/3.38").display()));
                command.arg("--foreground").arg("--no-caps").arg("-f").arg(config);
                for (option, file) in [("-R", "persist"), ("-p", "pid"), ("-c", "ctl")] {
                    command.arg(option).arg(self.dir.join(file));
                }
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        self.child = Some(child.expect("infra/setup provides rsyslogd with its drivers, and syslog-ng"));
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_file(self.dir.join("pid"));
        }
    }

    /// How often it wrote each event. A line that a kill left unfinished is no record; everything
    /// else must be ours.
    fn seen(&self, events: usize) -> Vec<u32> {
        let mut seen = vec![0; events];
        let text = fs::read_to_string(self.dir.join("events.jsonl")).unwrap_or_default();
        for event in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            let index = event["metadata"]["sequence"].as_u64().unwrap();
            assert_eq!(event["metadata"]["uid"], format!("sekisho.test/audit/{index}"));
            assert!(event["unmapped"]["id"].as_str().unwrap().starts_with("研究-"));
            seen[index as usize] += 1;
        }
        seen
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.dir.join("errors")).unwrap_or_default()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn killed_in_the_middle_it_misses_nothing(kind: Kind, target: fn(u16, TlsSource) -> Target) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let mut collector = Collector::configure(kind, dir.path(), &authority);
    collector.start();
    let log = open_log(dir.path());
    let client = authority.client(Some(&authority.issue("siem.test")));
    let mut feed = start(&log, dir.path(), target(collector.port, Arc::new(move || Ok(Arc::clone(&client)))));

    let began = Instant::now();
    let writing = tokio::spawn({
        let log = log.clone();
        async move { fill(&log, EVENTS).await }
    });
    for kill in 1..=2 {
        // In the middle: something is delivered, and more is under way or to come.
        let delivered = (EVENTS / 4 * kill) as u64;
        let before = feed.until(|s| s.delivered > delivered && s.delivered < EVENTS as u64).await;
        collector.kill();
        feed.until(|s| !s.connected && s.last_error.is_some() && s.errors > before.errors).await;
        collector.start();
    }
    writing.await.unwrap();
    while feed.status.borrow().delivered < EVENTS as u64 {
        assert!(began.elapsed() < Duration::from_secs(100), "{:?} {}", feed.status, collector.errors());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = feed.status.borrow().clone();
    feed.stop().await;
    let seen = collector.seen(EVENTS);
    let missing: Vec<usize> = (0..EVENTS).filter(|i| seen[*i] == 0).collect();
    assert!(
        missing.is_empty(),
        "{} missing, the first {:?}",
        missing.len(),
        &missing[..missing.len().min(9)]
    );
    let copies: u32 = seen.iter().map(|n| n - 1).sum();
    println!(
        "{EVENTS} events in {:?}, {} sent, {copies} arrived twice, {} connections lost",
        began.elapsed(),
        status.sent,
        status.errors
    );
    // What was under way at two kills, and no more.
    assert!(u64::from(copies) <= status.sent - EVENTS as u64, "{copies} copies");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_over_tls_misses_nothing() {
    killed_in_the_middle_it_misses_nothing(Kind::Rsyslog, syslog).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_over_relp_misses_nothing() {
    killed_in_the_middle_it_misses_nothing(Kind::Relp, relp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_ng_misses_nothing() {
    killed_in_the_middle_it_misses_nothing(Kind::SyslogNg, syslog).await;
}
