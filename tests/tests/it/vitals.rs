//! Every process can be asked how it is, by its own user and on its own host.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tests::command::{run, wait_for};
use tests::node::{Node, binary};

use super::folder;

struct Witness(Child);

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A witness for the log with this key.
fn witness(dir: &Path, key: &str) -> Result<Witness> {
    fs::create_dir_all(dir)?;
    let config =
        format!("name = \"witness.test/w\"\nlisten = \"127.0.0.1:0\"\nlogs = [\"{}\"]\n", key.trim());
    fs::write(dir.join("config.toml"), config)?;
    let mut child = Command::new(binary("sekisho-witness")?)
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut ready = String::new();
    BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut ready)?;
    ensure!(ready.starts_with("ready witness="), "{ready}");
    Ok(Witness(child))
}

fn ask(dir: &Path, path: &str) -> Result<String> {
    let url = format!("http://process{path}");
    let curl = run("curl").args("--silent --show-error --fail --max-time 10 --unix-socket");
    Ok(curl.arg(dir.join("vitals.sock")).arg(url).go()?.ok()?.text())
}

fn health(dir: &Path) -> Result<Value> {
    serde_json::from_str(&ask(dir, "/health")?).context("it is not JSON")
}

/// The names of our metrics in the queries of the dashboard.
fn named() -> Result<BTreeSet<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/siem/grafana/sekisho-siem.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?.iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let mut names = BTreeSet::new();
    for target in targets {
        let query = target["expr"].as_str().context("no query")?;
        let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        names.extend(
            words.filter(|w| w.starts_with("sekisho_") || w.starts_with("process_")).map(str::to_owned),
        );
    }
    Ok(names)
}

#[test]
fn every_process_tells_how_it_is() -> Result<()> {
    let dir = folder("vitals")?;
    let (node, _admin) = Node::with_a_study(&dir, "stage", &[&tests::data().join("q.fa")])?;
    let _witness = witness(&dir.join("witness"), &fs::read_to_string(node.audit().join("key.pub"))?)?;
    let all = ["broker", "agent", "signer"].map(|name| dir.join("node").join(name));
    let all = [&all[..], &[dir.join("witness")]].concat();
    let mut told = BTreeSet::new();
    for (process, dir) in ["broker", "agent:main", "signer", "witness"].into_iter().zip(&all) {
        let health = health(dir)?;
        ensure!(health["process"] == process && health["status"] != "failed", "{health}");
        let figures = ask(dir, "/metrics")?;
        let families = figures.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        told.extend(families.map(str::to_owned));
        ensure!(figures.contains(&format!("sekisho_up{{process=\"{process}\",")), "{figures}");
        // Nobody else of this host is let in.
        let other = run("curl").args("--silent --max-time 10 --unix-socket").arg(dir.join("vitals.sock"));
        ensure!(other.arg("http://process/health").account(65534, 65534).go()?.code() != 0, "{process}");
    }
    let missing: Vec<_> = named()?.difference(&told).cloned().collect();
    ensure!(missing.is_empty(), "the dashboard asks for {missing:?}, which nobody tells");

    // An agent says that it is alone, and when it is not any more.
    let agent = dir.join("node/agent");
    let broker = |state: &'static str| {
        wait_for(state, Duration::from_secs(40), || {
            (health(&agent).ok()?["checks"]["broker"]["state"] == state).then_some(())
        })
    };
    broker("ok")?;
    let pid = node.process("sekisho-broker")?;
    kill(pid, Signal::SIGSTOP)?;
    let alone = broker("degraded");
    kill(pid, Signal::SIGCONT)?;
    alone?;
    broker("ok")?;
    node.stop()?;
    for dir in &all[..3] {
        ensure!(!dir.join("vitals.sock").exists(), "{} was left behind", dir.display());
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}
