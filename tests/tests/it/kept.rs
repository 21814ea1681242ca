//! The audit log in the vault: kept, moved out of the house, fetched, rebuilt without the house.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tests::command::{run, wait_for};
use tests::node::{Device, Node, Ports, binary, left_behind};

use super::folder;

/// Small parts, and old ones leave the house.
const RETENTION: &str = "\n[retention]\nsegment_bundles = 1\nlagging_secs = 60\nlocal_entries = 300\n";

struct House {
    dir: PathBuf,
    ports: Ports,
    node: Option<Node>,
    admin: Device,
}

impl House {
    fn new(name: &str) -> Result<House> {
        let dir = folder(name)?;
        let ports = Ports::free()?;
        // The first start writes the configuration. Nobody collects here: a collector that is behind
        // would hold everything back.
        Node::up(&dir.join("node"), ports)?.stop()?;
        let config = dir.join("node/broker/config.toml");
        let text = fs::read_to_string(&config)?;
        let text = text.split("[[siem.sink]]").next().unwrap_or_default().to_owned();
        fs::write(&config, text + RETENTION)?;
        let node = Node::up(&dir.join("node"), ports)?;
        let admin = Device::new(&dir.join("admin"), ports);
        let token = fs::read_to_string(dir.join("node/broker/admin.token"))?;
        admin.enrol("admin", token.trim())?;
        Ok(House { dir, ports, node: Some(node), admin })
    }

    fn node(&self) -> Result<&Node> {
        self.node.as_ref().context("the node does not run")
    }

    /// Makes the log grow by `count` entries: each question after the diagnostics is one.
    fn grow(&self, count: u64) -> Result<()> {
        let file = |name: &str| self.admin.home.join(name);
        // Certificates of people live for minutes.
        self.admin.sekisho("login")?.go()?.ok()?;
        run("curl")
            .args("--silent --show-error --fail --output /dev/null --cacert")
            .arg(file("ca.pem"))
            .arg("--cert")
            .arg(file("tls-cert.pem"))
            .arg("--key")
            .arg(file("tls-key.pem"))
            .arg(format!("https://127.0.0.1:{}/v1/diagnostics?n=[1-{count}]", self.ports.api))
            .go()?
            .ok()?;
        Ok(())
    }

    fn kept(&self) -> Result<Value> {
        let listed = self.admin.sekisho("--json audit kept")?.go()?.ok()?;
        serde_json::from_str(&listed.text()).context("the list is not JSON")
    }

    /// Waits until entries below `index` are kept, and those below `moved` have left.
    fn until(&self, index: u64, moved: u64) -> Result<Value> {
        let number = |kept: &Value, name: &str| kept[name].as_u64().unwrap_or_default();
        wait_for("it is kept", Duration::from_secs(60), || {
            let kept = self.kept().ok()?;
            (number(&kept, "kept") >= index && number(&kept, "local_from") >= moved).then_some(kept)
        })
        .with_context(|| {
            format!("{:?}\n{}", self.kept(), self.node.as_ref().map_or_else(String::new, Node::logs))
        })
    }

    fn key(&self) -> PathBuf {
        self.dir.join("node/broker/audit/key.pub")
    }

    fn audit(&self) -> PathBuf {
        self.dir.join("node/broker/audit")
    }

    fn verify(&self, kept: Option<&Path>) -> Result<Value> {
        let mut verify = run(binary("sekisho")?).args("--json audit verify --dir").arg(self.audit());
        if let Some(kept) = kept {
            verify = verify.arg("--kept").arg(kept);
        }
        serde_json::from_str(&verify.go()?.ok()?.text()).context("the report is not JSON")
    }

    fn fetch(&self, to: u64, out: &Path) -> Result<()> {
        let fetch = self.admin.sekisho(&format!("audit fetch --from 0 --to {to}"))?;
        fetch.arg("--key").arg(self.key()).arg("--out").arg(out).go()?.ok()?;
        Ok(())
    }

    /// How often the log says that a part was kept, by its first entry; of the entries that are here
    /// and those in `kept`.
    fn said(&self, kept: &Path) -> Result<BTreeMap<u64, u32>> {
        let mut said = BTreeMap::new();
        let search = run(binary("sekisho")?).args("--json audit search --kind record_kept --dir");
        let found = search.arg(self.audit()).arg("--kept").arg(kept).go()?.ok()?;
        for line in found.text().lines() {
            let event: Value = serde_json::from_str(line)?;
            let first = event["unmapped"]["first"].as_u64().context("no first entry")?;
            *said.entry(first).or_default() += 1;
        }
        Ok(said)
    }
}

/// A log that grows over its parts: whatever is killed meanwhile, each part is kept once, old ones
/// leave, and all come back, also from three of five institutions, also without any broker.
#[test]
fn the_log_goes_to_the_vault_and_comes_back() -> Result<()> {
    let mut house = House::new("kept")?;
    let mut due = 0;
    // Killed while parts are on their way: the agent that takes them, the broker that carries them,
    // and both with everything else.
    for (round, process) in ["sekisho-agent", "sekisho-broker", "sekisho-agent", ""].into_iter().enumerate() {
        house.grow(256)?;
        due += 256;
        std::thread::sleep(Duration::from_millis([20, 350, 600, 300][round]));
        if process.is_empty() {
            house.node.take().context("no node")?.kill()?;
            let dir = house.dir.clone();
            wait_for("its processes follow it", Duration::from_secs(20), || {
                let left = left_behind(&dir).ok()?;
                (!left.iter().any(|line| line.starts_with("process"))).then_some(())
            })?;
            house.node = Some(Node::up(&house.dir.join("node"), house.ports)?);
        } else {
            let pid = house.node()?.process(process)?;
            kill(pid, Signal::SIGKILL)?;
            wait_for("it is started again", Duration::from_secs(40), || {
                house.node().ok()?.process(process).ok().filter(|again| *again != pid)
            })?;
        }
        wait_for("the door opens again", Duration::from_secs(40), || house.kept().ok())?;
    }
    house.grow(300)?;
    // All of them have left, so that none leaves while it is looked at what did.
    let listed = house.until(due, due)?;

    // What left is said to have left, and its hashes still lead to the signed checkpoint.
    let report = house.verify(None)?;
    let moved = report["removed"].as_u64().unwrap_or_default();
    ensure!(moved == due && !house.audit().join("tile/entries/000").exists(), "{report}");
    let tail =
        run(binary("sekisho")?).args("audit search --kind started --dir").arg(house.audit()).go()?.ok()?;
    ensure!(tail.text().contains("are in the vault"), "{}", tail.text());

    // It comes back, and is the log.
    let (all, some) = (house.dir.join("all"), house.dir.join("some"));
    house.fetch(moved - 1, &all)?;
    let report = house.verify(Some(&all))?;
    ensure!(report["fetched"] == moved, "{report}");
    let found = run(binary("sekisho")?).args("--json audit search --kind started -n 1 --dir").arg(&all);
    ensure!(found.go()?.ok()?.text().contains("\"sequence\":0"), "the first entry is not back");
    let said = house.said(&all)?;
    ensure!(said.len() >= 4 && said.values().all(|times| *times == 1), "{said:?}");
    let researcher = Device::new(&house.dir.join("alice"), house.ports);
    house.admin.sekisho("person create alice")?.go()?.ok()?;
    let made: Value =
        serde_json::from_str(&house.admin.sekisho("--json person token alice")?.go()?.ok()?.text())?;
    researcher.enrol("alice", made["token"].as_str().context("no token")?)?;
    let fetch = researcher.sekisho("audit fetch")?.arg("--key").arg(house.key()).arg("--out").arg(&some);
    fetch.go()?.refused("security")?;

    // Two of five institutions burn down.
    for lost in ["hokkaido", "kansai"] {
        fs::remove_dir_all(house.node()?.backend(lost))?;
        fs::create_dir(house.node()?.backend(lost))?;
    }
    house.fetch(255, &some)?;
    let part = "entries-0-256.jsonl.gz";
    ensure!(fs::read(all.join(part))? == fs::read(some.join(part))?, "another file came back");

    // No node is left. A custodian has three folders, the root, and the log's key.
    let backends: Vec<PathBuf> =
        ["tohoku", "kanto", "kyushu"].map(|name| house.dir.join("node/backends").join(name)).to_vec();
    house.node.take().context("no node")?.stop()?;
    let first = &listed["segments"][0];
    let (object, root) = (&first["object"], first["file"]["manifest_root"].as_str().context("no root")?);
    let rebuilt = house.dir.join("rebuilt.jsonl.gz");
    let mut combine = run(binary("sekisho-shard")?).args("combine --root").arg(root).arg("-o").arg(&rebuilt);
    for backend in &backends {
        combine = combine.arg(backend);
    }
    combine.go()?.ok().with_context(|| format!("{object}"))?;
    let custodian = house.dir.join("custodian");
    let unpack = run(binary("sekisho")?).args("audit unpack --key").arg(house.key());
    unpack.arg("--out").arg(&custodian).arg(&rebuilt).go()?.ok()?;
    ensure!(house.verify(Some(&custodian))?["fetched"] == 256);
    // And with nothing of ours at all it is lines of JSON.
    let lines = run("zcat").arg(&rebuilt).go()?.ok()?.text();
    let entries: Vec<&str> = lines.lines().skip_while(|line| *line != "entries").skip(1).collect();
    ensure!(entries.len() == 256, "{} lines", entries.len());
    for entry in entries {
        serde_json::from_str::<Value>(entry).with_context(|| format!("an entry is not JSON: {entry}"))?;
    }
    fs::remove_dir_all(&house.dir)?;
    Ok(())
}
