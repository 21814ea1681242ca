//! Many people at once: a node with room for them, and terminals that they keep open.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::command::Run;
use crate::node::{Device, Node};

/// How long a terminal may take to open, or a key to come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// A far side that gives back what it gets; its own command line does not hold the word it says first.
const MIRROR: &str = "stty raw -echo; printf '@@%s@@' READY; exec cat";
const READY: &[u8] = b"@@READY@@";

/// The same node, started anew with room for so many sessions.
pub fn roomy(node: Node, sessions: usize) -> Result<Node> {
    let (dir, ports) = (node.dir.clone(), node.ports);
    node.stop()?;
    for (room, wish) in
        [("broker", format!("max_sessions = {sessions}")), ("agent", format!("sessions = {sessions}"))]
    {
        let path = dir.join(room).join("config.toml");
        let text = fs::read_to_string(&path)?;
        // Before any table.
        fs::write(&path, format!("{wish}\n{text}"))?;
    }
    Node::up(&dir, ports)
}

/// People with a device each, members of a study that lets every one of them have `sessions`.
pub fn people(
    dir: &Path,
    node: &Node,
    admin: &Device,
    study: &str,
    count: usize,
    sessions: usize,
) -> Result<Vec<Device>> {
    admin.sekisho(&format!("study limits {study} --sessions {sessions}"))?.go()?.ok()?;
    let mut all = Vec::new();
    for at in 0..count {
        let name = format!("person{at}");
        admin.sekisho(&format!("person create {name}"))?.go()?.ok()?;
        let made = admin.sekisho(&format!("--json person token {name}"))?.go()?.ok()?.text();
        let made: Value = serde_json::from_str(&made)?;
        let device = Device::new(&dir.join(&name), node.ports);
        device.enrol(&name, made["token"].as_str().context("no token")?)?;
        admin.sekisho(&format!("member add {study} {name}"))?.go()?.ok()?;
        all.push(device);
    }
    Ok(all)
}

/// A terminal at whose far end every key comes back.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
}

impl Terminal {
    /// Opens it with a client that was told to ask for one (`-tt`).
    pub fn open(run: &Run) -> Result<Terminal> {
        let mut child = run
            .command()
            .arg(MIRROR)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (keys, screen) =
            (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
        let mut terminal = Terminal { child, keys, screen };
        let mut seen = Vec::new();
        while !seen.ends_with(READY) {
            let byte = terminal.read();
            seen.push(
                byte.with_context(|| {
                    format!("{}: it said {:?}", run.line(), String::from_utf8_lossy(&seen))
                })?,
            );
        }
        Ok(terminal)
    }

    /// Strikes a key; how long it took to come back.
    pub fn strike(&mut self, key: u8) -> Result<Duration> {
        let began = Instant::now();
        self.keys.write_all(&[key])?;
        let back = self.read()?;
        ensure!(back == key, "another key came back: {back}");
        Ok(began.elapsed())
    }

    /// Ends the client, as somebody does who closes a window.
    pub fn close(mut self) -> Result<()> {
        drop(self.keys);
        // The terminal is raw: the end of input is no end there.
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn read(&mut self) -> Result<u8> {
        let mut wanted = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        if poll(&mut wanted, patience)? == 0 {
            bail!("nothing came for {PATIENCE:?}");
        }
        let mut byte = [0];
        self.screen.read_exact(&mut byte).context("it ended")?;
        Ok(byte[0])
    }
}
