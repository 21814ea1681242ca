//! A node under test: `sekisho up` in a folder, and people with devices in front of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{Run, run, wait_for};

/// The five institutions whose backends hold the shares.
pub const INSTITUTIONS: [&str; 5] = ["hokkaido", "tohoku", "kanto", "kansai", "kyushu"];

/// The first word with which the demo's binary asks the signer instead of telling the story.
pub const SIGN: &str = "--sign";

/// Where a node listens, chosen before it starts so that it listens there again after a restart.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// SSH.
    pub ssh: u16,
    /// HTTPS.
    pub api: u16,
    /// QUIC.
    pub agents: u16,
    /// The collector's.
    pub siem: u16,
}

impl Ports {
    /// Four that are free now.
    pub fn free() -> Result<Ports> {
        let tcp = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ];
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        Ok(Ports {
            ssh: tcp[0].local_addr()?.port(),
            api: tcp[1].local_addr()?.port(),
            agents: udp.local_addr()?.port(),
            siem: tcp[2].local_addr()?.port(),
        })
    }
}

/// A running `sekisho up`.
#[derive(Debug)]
pub struct Node {
    /// Its folder.
    pub dir: PathBuf,
    /// Where it listens.
    pub ports: Ports,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

/// The path of one of our binaries: they lie beside this one, or in `SEKISHO_BIN_DIR`.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().context("no folder")?;
    // A test binary lies one folder deeper; benchmarks may name the folder.
    let named = std::env::var_os("SEKISHO_BIN_DIR").map(PathBuf::from);
    let found = named.into_iter().chain([beside.to_owned(), beside.join("..")]);
    let found = found.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not built: run make demo or make test, or cargo build --workspace --bins")
    })
}

impl Node {
    /// Starts a node in `dir`, or continues the one that is there, and waits until it serves.
    pub fn up(dir: &Path, ports: Ports) -> Result<Node> {
        let mut command = Node::command(dir, ports)?.command();
        command.stdin(Stdio::null());
        let mut child = command.spawn().context("cannot start sekisho up")?;
        let said = Arc::new(Mutex::new(Vec::new()));
        for stream in [
            Box::new(child.stdout.take().context("no stdout")?) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().context("no stderr")?),
        ] {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    said.lock().map(|mut said| said.push(line)).ok();
                }
            });
        }
        let mut node = Node { dir: dir.to_owned(), ports, child, said };
        let serving = wait_for("the node serves", Duration::from_secs(60), || {
            if let Ok(Some(status)) = node.child.try_wait() {
                return Some(Err(anyhow::anyhow!("sekisho up ended with {status}:\n{}", node.said())));
            }
            node.said().contains("ssh -F").then_some(Ok(()))
        });
        match serving {
            Ok(Ok(())) => Ok(node),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.context(node.said()).context(node.logs())),
        }
    }

    /// A node in `dir` whose administrator is a member of `study`, with `files` in the dataset
    /// `tiny` that it may read: what benchmarks stand on.
    pub fn with_a_study(dir: &Path, study: &str, files: &[&Path]) -> Result<(Node, Device)> {
        Node::with_a_study_on(Ports::free()?, dir, study, files)
    }

    /// The same, on these ports: a node that was there before has its own.
    pub fn with_a_study_on(ports: Ports, dir: &Path, study: &str, files: &[&Path]) -> Result<(Node, Device)> {
        let node = Node::up(&dir.join("node"), ports)?;
        let admin = Device::new(&dir.join("admin"), ports);
        let token = std::fs::read_to_string(node.dir.join("broker").join("admin.token"))?;
        admin.enrol("admin", token.trim())?;
        for words in [
            "dataset create tiny --condition HMB --title tiny".to_owned(),
            format!("study create {study} --purpose HMB --until 2035-03-31 --title {study}"),
            format!("member add {study} admin"),
            format!("grant create --study {study} --dataset tiny --until 2035-03-31"),
        ] {
            admin.sekisho(&words)?.go()?.ok()?;
        }
        for file in files {
            admin.sekisho("put --dataset tiny")?.arg(file).go()?.ok()?;
        }
        Ok((node, admin))
    }

    /// The command that starts it.
    pub fn command(dir: &Path, ports: Ports) -> Result<Run> {
        Ok(run(binary("sekisho")?).arg("up").arg("--dir").arg(dir).args(&format!(
            "--ssh 127.0.0.1:{} --api 127.0.0.1:{} --agents 127.0.0.1:{} --siem 127.0.0.1:{} --siem-name collector.sekisho.test",
            ports.ssh, ports.api, ports.agents, ports.siem
        )))
    }

    /// What it has printed so far.
    pub fn said(&self) -> String {
        self.said.lock().map(|said| said.join("\n")).unwrap_or_default()
    }

    /// The last lines of its processes' logs, for whoever must find out why.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for room in ["signer", "broker", "agent"] {
            let text = fs::read_to_string(self.dir.join(room).join("log")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(15).collect();
            all += &format!("--- {room}\n");
            for line in lines.iter().rev() {
                all += &format!("{line}\n");
            }
        }
        all
    }

    /// The process of one of its rooms (`sekisho-broker`, …).
    pub fn process(&self, name: &str) -> Result<Pid> {
        let parent = self.child.id();
        children(parent)
            .into_iter()
            .find(|pid| command_line(*pid).split('\0').next().is_some_and(|exe| exe.ends_with(name)))
            .map(|pid| Pid::from_raw(pid.cast_signed()))
            .with_context(|| format!("no process {name}"))
    }

    /// `sekisho up` itself.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// A share's folder.
    pub fn backend(&self, institution: &str) -> PathBuf {
        self.dir.join("backends").join(institution)
    }

    /// Its log's folder.
    pub fn audit(&self) -> PathBuf {
        self.dir.join("broker").join("audit")
    }

    /// The log's events so far, in order, as JSON.
    pub fn events(&self) -> Result<Vec<Value>> {
        let tail = run(binary("sekisho")?)
            .args("--json audit tail -n 1000000 --dir")
            .arg(self.audit())
            .go()?
            .ok()?;
        tail.text().lines().map(|line| serde_json::from_str(line).context("an event is not JSON")).collect()
    }

    /// Waits for an event that `fits`.
    pub fn event(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = None;
        wait_for(what, Duration::from_secs(5), || match self.events() {
            Ok(events) => events.into_iter().find(|event| fits(event)),
            Err(error) => {
                last = Some(error);
                None
            }
        })
        .with_context(|| last.map_or_else(|| "no such event in the log".to_owned(), |e| format!("{e:#}")))
    }

    /// A certificate of the right authority for whatever principal and key: only somebody who holds
    /// the broker's account on the host can have it made.
    pub fn sign(&self, principal: &str, public_key: &str) -> Result<String> {
        let socket = self.dir.join("run").join("signer.sock");
        // That account may not enter the folder of our binaries, but the copy is anybody's.
        let copy = self.dir.with_file_name("as-the-broker");
        fs::copy(binary("sekisho-demo")?, &copy)?;
        let account = nix::unistd::User::from_name("sekisho")?.context("no user sekisho: run infra/setup")?;
        let signed = run(&copy)
            .arg(SIGN)
            .arg(socket)
            .arg(principal)
            .arg(public_key.trim())
            .account(account.uid.as_raw(), account.gid.as_raw())
            .go()?
            .ok()?;
        Ok(format!("{}\n", signed.text()))
    }

    /// Stops it as Ctrl-C does and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        kill(self.pid(), Signal::SIGINT)?;
        let status =
            wait_for("the node stops", Duration::from_secs(30), || self.child.try_wait().ok().flatten())
                .with_context(|| self.logs())?;
        ensure!(status.success(), "sekisho up ended with {status}:\n{}", self.said());
        Ok(())
    }

    /// Kills `sekisho up` outright, as a power cut for that process would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        kill(self.pid(), Signal::SIGTERM).ok();
        let ended = wait_for("end", Duration::from_secs(15), || self.child.try_wait().ok().flatten());
        if ended.is_err() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// A person with a device of their own.
#[derive(Debug, Clone)]
pub struct Device {
    /// The folder of its keys.
    pub home: PathBuf,
    api: String,
}

impl Device {
    /// A new one, which knows nobody yet.
    pub fn new(home: &Path, ports: Ports) -> Device {
        Device { home: home.to_owned(), api: format!("https://127.0.0.1:{}", ports.api) }
    }

    /// A device whose folder begins as a copy of this one's.
    pub fn copy_to(&self, home: &Path) -> Result<Device> {
        run("cp").arg("-a").arg(&self.home).arg(home).go()?.ok()?;
        // The configuration names the folder it lies in.
        let config = fs::read_to_string(home.join("ssh_config"))?;
        let moved = config.replace(&self.home.display().to_string(), &home.display().to_string());
        fs::write(home.join("ssh_config"), moved)?;
        Ok(Device { home: home.to_owned(), api: self.api.clone() })
    }

    /// `sekisho` on this device.
    pub fn sekisho(&self, words: &str) -> Result<Run> {
        Ok(run(binary("sekisho")?).arg("--home").arg(&self.home).env("SEKISHO_LANG", "en").args(words))
    }

    /// Enrols with a one-time token.
    pub fn enrol(&self, person: &str, token: &str) -> Result<()> {
        self.sekisho(&format!("login --api {} --person {person} --token {token}", self.api))?.go()?.ok()?;
        Ok(())
    }

    /// `ssh`, the stock client, on this device, to a study.
    pub fn ssh(&self, study: &str, options: &str) -> Run {
        run("ssh")
            .arg("-F")
            .arg(self.home.join("ssh_config"))
            .args("-o BatchMode=yes")
            .args(options)
            .arg(format!("{study}@gate"))
    }
}

fn children(parent: u32) -> Vec<u32> {
    let mut all = Vec::new();
    // A child that another thread started stands under that thread.
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    all
}

fn command_line(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// What a node in `dir` has left on this machine: processes and mounts.
pub fn left_behind(dir: &Path) -> Result<Vec<String>> {
    let shown = dir.to_string_lossy().into_owned();
    let own = std::process::id();
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let line = command_line(pid).replace('\0', " ");
        if pid != own && line.contains(&shown) && !line.contains("sekisho-demo") {
            left.push(format!("process {pid}: {line}"));
        }
    }
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines().filter(|line| line.contains(&shown)) {
        left.push(format!("mount {line}"));
    }
    Ok(left)
}

/// The cgroups of workspaces on this machine, those of other nodes among them.
pub fn cgroups() -> Result<BTreeSet<String>> {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-path", "*sekisho*"]).output()?;
    Ok(String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect())
}
