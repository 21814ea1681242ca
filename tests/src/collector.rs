//! A SIEM's collector: a stock rsyslogd that takes RFC 5424 over mutual TLS and writes JSON lines.
//!
//! Over GnuTLS, as our configuration for rsyslog in `infra/siem` has it. Its OpenSSL driver (8.2302) can
//! keep the error of one broken handshake and find it at every later one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::wait_for;

/// A running rsyslogd.
#[derive(Debug)]
pub struct Collector {
    child: Child,
    file: PathBuf,
}

impl Collector {
    /// Starts one in `dir`, which holds `ca.pem`, `cert.pem` and `key.pem`. It admits the client
    /// that its certificate names `client`, and nobody else.
    pub fn start(dir: &Path, port: u16, client: &str) -> Result<Collector> {
        let file = dir.join("received.jsonl");
        let shown = dir.display();
        let config = format!(
            r#"global(workDirectory="{shown}"
  DefaultNetstreamDriverCAFile="{shown}/ca.pem"
  DefaultNetstreamDriverCertFile="{shown}/cert.pem"
  DefaultNetstreamDriverKeyFile="{shown}/key.pem"
  maxMessageSize="256k")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/name" PermittedPeer=["{client}"])
template(name="line" type="list" option.jsonf="on") {{
  property(outname="received" name="timegenerated" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="severity" name="syslogseverity-text" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
}}
ruleset(name="siem") {{ action(type="omfile" file="{shown}/received.jsonl" template="line") }}
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="siem")
"#
        );
        fs::write(dir.join("rsyslog.conf"), config)?;
        let log = fs::File::create(dir.join("rsyslogd.log"))?;
        let child = Command::new("/usr/sbin/rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(dir.join("rsyslog.conf"))
            .arg("-i")
            .arg(dir.join("rsyslogd.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start rsyslogd: run infra/setup")?;
        let collector = Collector { child, file };
        // Not by connecting: whoever leaves in the middle of a handshake is an error in its log.
        wait_for("rsyslogd listens", Duration::from_secs(10), || listens(port).then_some(()))?;
        Ok(collector)
    }

    /// The events received so far, each with its index in the log.
    pub fn received(&self) -> Result<Vec<(u64, Value)>> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let mut events = Vec::new();
        for line in text.lines() {
            // The last line may still be on its way to the file.
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let data = line["data"].as_str().context("no structured data")?;
            let index = data
                .split("index=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .and_then(|digits| digits.parse().ok())
                .with_context(|| format!("no index in {data}"))?;
            let msg = line["msg"].as_str().unwrap_or_default().trim_start_matches('\u{feff}').trim();
            events.push((index, serde_json::from_str(msg).unwrap_or(Value::Null)));
        }
        Ok(events)
    }

    /// Where it writes.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether a TCP socket of this machine listens on an IPv4 port: its state in `/proc/net/tcp` is 0A.
fn listens(port: u16) -> bool {
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let local = format!(":{port:04X}");
    sockets.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|address| address.ends_with(&local)) && words.nth(1) == Some("0A")
    })
}
