//! A node with one study and somebody who works in it, for stories about what terminals show.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tests::command::{run, wait_for};
use tests::node::{Device, Node, Ports, binary};

use super::folder;

pub struct Theatre {
    pub dir: PathBuf,
    pub node: Node,
    /// The administrator's, who is a member of the study `stage`.
    pub device: Device,
}

impl Theatre {
    pub fn new(name: &str) -> Result<Theatre> {
        Theatre::with(name, "")
    }

    /// The same, with more in the broker's configuration.
    pub fn with(name: &str, config: &str) -> Result<Theatre> {
        let (dir, ports) = (folder(name)?, Ports::free()?);
        if !config.is_empty() {
            // The first start writes the configuration.
            Node::up(&dir.join("node"), ports)?.stop()?;
            let path = dir.join("node/broker/config.toml");
            fs::write(&path, fs::read_to_string(&path)? + config)?;
        }
        let files = [tests::data().join("q.fa")];
        let (node, device) = Node::with_a_study_on(ports, &dir, "stage", &[&files[0]])?;
        Ok(Theatre { dir, node, device })
    }

    /// Somebody else with a role in the programme.
    pub fn person(&self, name: &str, role: &str) -> Result<Device> {
        self.sekisho(&format!("person create {name} --role {role}"))?;
        let token = self.sekisho(&format!("person token {name}"))?;
        let device = Device::new(&self.dir.join(name), self.node.ports);
        device.enrol(name, token.trim())?;
        Ok(device)
    }

    pub fn sekisho(&self, words: &str) -> Result<String> {
        Ok(self.device.sekisho(words)?.go()?.ok()?.text())
    }

    pub fn json(&self, words: &str) -> Result<Value> {
        serde_json::from_str(&self.sekisho(&format!("--json {words}"))?).context("the answer is not JSON")
    }

    pub fn folder(&self) -> PathBuf {
        self.node.dir.join("broker/recordings")
    }

    /// The recordings in which a text was to be read, once there are so many.
    pub fn found(&self, text: &str, count: usize) -> Result<Vec<Value>> {
        wait_for(text, Duration::from_secs(20), || {
            let said =
                self.device.sekisho("--json recordings --text").ok()?.arg(text).go().ok()?.ok().ok()?;
            let answer: Value = serde_json::from_str(&said.text()).ok()?;
            let found = answer["recordings"].as_array()?.clone();
            (found.len() == count).then_some(found)
        })
    }

    /// Waits for an event that says all of this.
    pub fn recorded(&self, parts: &[&str]) -> Result<Value> {
        self.node.event(&parts.join(", "), |event| {
            let text = event.to_string();
            parts.iter().all(|part| text.contains(part))
        })
    }

    /// Kills the broker, and waits until another runs.
    pub fn kill_broker(&self) -> Result<()> {
        let broker = self.node.process("sekisho-broker")?;
        kill(broker, Signal::SIGKILL)?;
        wait_for("the broker is started again", Duration::from_secs(40), || {
            self.node.process("sekisho-broker").ok().filter(|again| *again != broker)
        })?;
        Ok(())
    }

    pub fn end(self) -> Result<()> {
        self.node.stop()?;
        fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

pub fn id(recording: &Value) -> Result<String> {
    Ok(recording["session"].as_str().context("no session")?.to_owned())
}

pub fn sum(path: &Path) -> Result<String> {
    let said = run("sha256sum").arg(path).go()?.ok()?.text();
    Ok(said.split(' ').next().context("no sum")?.to_owned())
}

/// `sekisho` with these words in a terminal of its own.
pub fn in_terminal(device: &Device, words: &str) -> Result<Child> {
    let line = format!("{} --home {} {words}", binary("sekisho")?.display(), device.home.display());
    Ok(Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("SEKISHO_LANG", "en")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?)
}

/// What a program writes until `text` is among it.
pub fn until(child: &mut Child, text: &str) -> Result<String> {
    let out = child.stdout.as_mut().context("no stdout")?;
    let (mut all, mut piece) = (String::new(), [0; 4096]);
    while !all.contains(text) {
        let n = out.read(&mut piece)?;
        ensure!(n > 0, "it ended before {text}: {all:?}");
        all += &String::from_utf8_lossy(&piece[..n]);
    }
    Ok(all)
}

pub fn type_into(child: &mut Child, text: &str) -> Result<()> {
    Ok(child.stdin.as_mut().context("no stdin")?.write_all(text.as_bytes())?)
}

pub fn code(child: &mut Child) -> Result<Option<i32>> {
    let ended = wait_for("it ends", Duration::from_secs(20), || child.try_wait().ok().flatten())?;
    Ok(ended.code())
}
