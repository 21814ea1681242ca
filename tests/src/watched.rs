//! Decoys touched on a real node: how long until the session is over.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use model::Clock;
use model::ambient::SystemClock;
use serde_json::Value;

use crate::collector::Collector;
use crate::command::{Run, run, wait_for};
use crate::node::{Device, Node};

/// How often each is tried.
const TRIES: usize = 5;
/// A decoy's address, of those that are nobody's (RFC 5737).
const ADDRESS: &str = "203.0.113.66";

/// What was tried, and how many milliseconds each try took.
#[derive(Debug)]
pub struct Took {
    /// What, for people.
    pub what: &'static str,
    /// From the time of the event to the end of the client; of a key that opens nothing, to the
    /// time of the finding.
    pub millis: Vec<u64>,
}

/// A node on which alice works, with a SIEM's collector, and a decoy of each kind.
struct House {
    node: Node,
    admin: Device,
    alice: Device,
    collector: Collector,
    /// The decoy among the files.
    object: String,
    /// Alice, as whoever has stolen the decoy's key would pass for her.
    thief: Device,
    fingerprint: String,
}

/// Touches each kind of decoy again and again.
pub fn touch_decoys(dir: &Path, file: &Path) -> Result<Vec<Took>> {
    let house = House::found(dir, file)?;
    let name = file.file_name().context("no name")?.to_string_lossy().into_owned();
    let honest = format!("head -c 100 /data/tiny/{name} > /dev/null; echo works; sleep 0.3; ");
    let in_session = |touch: &str| house.alice.ssh("brca", "").arg(format!("{honest}{touch}; sleep 60"));
    let said = |event: &Value, field: &str| event["unmapped"][field].as_str().unwrap_or_default().to_owned();

    let object = || in_session("head -c 1 /data/tiny/celebrity.bam > /dev/null");
    // A connection is asked for; a datagram is sent without asking, and is seen as a packet alone.
    let perl = |does: &str| in_session(&format!("perl -MSocket -e '{does}'"));
    let to = |port: u16| format!("sockaddr_in({port},inet_aton(\"{ADDRESS}\"))");
    let address = || perl(&format!("socket(S,PF_INET,SOCK_STREAM,0); connect(S,{})", to(22)));
    let packet = || perl(&format!("socket(S,PF_INET,SOCK_DGRAM,0); send(S,1,0,{})", to(53)));
    let certificate = || house.thief.ssh("brca", "").arg("echo works; sleep 60");
    let all = vec![
        house
            .trip("a stored file", "decoy_touched", object, |event| said(event, "object") == house.object)?,
        // Which of the two is on record first, the call or its packet, is the kernel's to say.
        house.trip("an address, by a connection", "decoy_touched", address, |event| {
            let call = said(event, "kind") == "connection_attempted" && said(event, "address") == ADDRESS;
            let packet = said(event, "kind") == "packet_dropped" && said(event, "destination") == ADDRESS;
            call || packet && said(event, "protocol") == "tcp"
        })?,
        house.trip("an address, by a packet", "decoy_touched", packet, |event| {
            said(event, "kind") == "packet_dropped" && said(event, "destination") == ADDRESS
        })?,
        house.trip("a key, with a certificate for it", "decoy_key_shown", certificate, |event| {
            said(event, "kind") == "session_opened" && said(event, "device") == house.fingerprint
        })?,
        house.show_the_key()?,
    ];
    house.no_other_finding()?;
    house.node.stop()?;
    Ok(all)
}

impl House {
    fn found(dir: &Path, file: &Path) -> Result<House> {
        let (node, admin) = Node::with_a_study(dir, "brca", &[file])?;
        let siem = dir.join("collector");
        fs::create_dir_all(&siem)?;
        let words = "service certificate collector --dns collector.sekisho.test --out";
        admin.sekisho(words)?.arg(&siem).go()?.ok()?;
        let collector = Collector::start(&siem, node.ports.siem, "siem/main")?;

        admin.sekisho("put --dataset tiny --name celebrity.bam")?.arg(file).go()?.ok()?;
        let listed: Value = serde_json::from_str(&admin.sekisho("--json object list")?.go()?.ok()?.text())?;
        let objects = listed.as_array().cloned().or_else(|| listed["objects"].as_array().cloned());
        let objects = objects.context("object list is no list")?;
        let decoy = objects.iter().find(|object| object["name"] == "celebrity.bam").context("no object")?;
        let object = decoy["id"].as_str().context("no id")?.to_owned();

        let alice = Device::new(&dir.join("alice"), node.ports);
        admin.sekisho("person create alice")?.go()?.ok()?;
        let made = admin.sekisho("--json person token alice")?.go()?.ok()?.text();
        let made: Value = serde_json::from_str(&made)?;
        alice.enrol("alice", made["token"].as_str().context("no token")?)?;
        admin.sekisho("member add brca alice")?.go()?.ok()?;

        let thief = alice.copy_to(&dir.join("thief"))?;
        let key = thief.home.join("id_ed25519");
        fs::remove_file(&key)?;
        run("ssh-keygen").args("-q -t ed25519 -N").arg("").arg("-f").arg(&key).stdin("y\n").go()?.ok()?;
        let line = fs::read_to_string(thief.home.join("id_ed25519.pub"))?;
        let certificate = node.sign("u:alice", &line)?;
        fs::write(thief.home.join("id_ed25519-cert.pub"), certificate)?;
        let printed = run("ssh-keygen").args("-l -f").arg(&key).go()?.ok()?.text();
        let fingerprint = printed.split_whitespace().nth(1).context("no fingerprint")?.to_owned();
        let house = House { node, admin, alice, collector, object, thief, fingerprint };
        house.lay_out()?;
        Ok(house)
    }

    /// Before they are decoys, they are things like any other.
    fn lay_out(&self) -> Result<()> {
        self.alice.ssh("brca", "").arg("head -c 100 /data/tiny/celebrity.bam | wc -c").go()?.ok()?;
        self.thief.ssh("brca", "").arg("true").go()?.ok()?;
        // What was opened then is reported by the time it is a decoy.
        std::thread::sleep(Duration::from_secs(1));
        self.alice.sekisho("decoy list")?.go()?.refused("")?;
        let things = [("object", &self.object), ("key", &self.fingerprint), ("address", &ADDRESS.to_owned())];
        for (kind, what) in things {
            self.admin.sekisho(&format!("decoy add {kind} {what} --note laid-out"))?.go()?.ok()?;
        }
        let added = |event: &Value| event["unmapped"]["record"] == "decoy";
        wait_for("the decoys are recorded", Duration::from_secs(5), || {
            (self.node.events().ok()?.iter().filter(|event| added(event)).count() == 3).then_some(())
        })?;
        for event in self.node.events()?.iter().filter(|event| added(event)) {
            let tells = things.iter().any(|(_, what)| event.to_string().contains(what.as_str()));
            ensure!(!tells, "the log tells what the decoy is: {event}");
        }
        Ok(())
    }

    /// Touches a decoy in a live session, which ends, and locks alice; each time she is let in again.
    fn trip(
        &self,
        what: &'static str,
        rule: &str,
        session: impl Fn() -> Run,
        touches: impl Fn(&Value) -> bool,
    ) -> Result<Took> {
        let mut millis = Vec::new();
        for _ in 0..TRIES {
            let before = self.node.events()?.len();
            let ended = self.run_to_its_end(session()).with_context(|| what)?;
            self.node.event("the lock is recorded", |event| {
                event["unmapped"]["kind"] == "person_locked"
                    && event["metadata"]["sequence"].as_u64() > Some(before as u64)
            })?;
            let events = self.node.events()?;
            let finding = events[before..]
                .iter()
                .find(|event| event["unmapped"]["name"] == rule)
                .with_context(|| format!("{what}: no finding"))?;
            ensure!(finding["unmapped"]["reaction"] == "lock-person", "{finding}");
            ensure!(finding["actor"]["user"]["uid"] == "u:alice", "{finding}");
            let trigger = finding["unmapped"]["evidence"][0].as_u64().context("no evidence")?;
            let touched = &events[usize::try_from(trigger)?];
            ensure!(touches(touched), "{what}: {touched}");
            let at = touched["time"].as_u64().context("no time")?;
            millis.push(ended.saturating_sub(at));
            self.arrived(finding)?;

            // Locked, she does not come in; unlocked, she does.
            self.alice.ssh("brca", "").arg("true").go()?.refused("")?;
            self.admin.sekisho("person unlock alice")?.go()?.ok()?;
            wait_for("she is let in again", Duration::from_secs(10), || {
                self.alice.ssh("brca", "").arg("true").go().ok()?.ok().ok()
            })?;
        }
        Ok(Took { what, millis })
    }

    /// When the client ended, in milliseconds, having been told no more than it should.
    fn run_to_its_end(&self, session: Run) -> Result<u64> {
        let mut running = session.command().spawn()?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = running.try_wait()? {
                break status;
            }
            if began.elapsed() > Duration::from_secs(20) {
                running.kill()?;
                anyhow::bail!("the session goes on:\n{}", self.node.logs());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let ended = SystemClock.now().as_millis();
        let mut words = String::new();
        std::io::Read::read_to_string(&mut running.stderr.take().context("no stderr")?, &mut words)?;
        ensure!(
            !status.success() && words.contains("security watch"),
            "{status}: {words}\n{}",
            self.node.logs()
        );
        ensure!(
            !words.contains("decoy") && !words.contains("finding"),
            "the person learns too much: {words}"
        );
        Ok(u64::try_from(ended)?)
    }

    /// The decoy's key without a certificate: it opens nothing, and locks nobody, since whoever has it
    /// may name anybody.
    fn show_the_key(&self) -> Result<Took> {
        let mut millis = Vec::new();
        let before = self.node.events()?.len();
        let shown = run("ssh")
            .args("-F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no")
            .args("-o UserKnownHostsFile=/dev/null -o CertificateFile=none")
            .args(&format!("-p {} -i {}", self.node.ports.ssh, self.bare_key()?))
            .args("brca@127.0.0.1 true");
        shown.go()?.refused("")?;
        let is = |event: &&Value| {
            event["unmapped"]["name"] == "decoy_key_shown" && event["actor"]["user"].is_null()
        };
        let finding = wait_for("the finding", Duration::from_secs(5), || {
            self.node.events().ok()?[before..].iter().find(is).cloned()
        })?;
        ensure!(finding["unmapped"]["reaction"] == "none", "{finding}");
        let events = self.node.events()?;
        let trigger = finding["unmapped"]["evidence"][0].as_u64().context("no evidence")?;
        let touched = &events[usize::try_from(trigger)?]["unmapped"];
        ensure!(touched["kind"] == "auth_refused", "{touched}");
        ensure!(touched["key_fingerprint"] == self.fingerprint.as_str(), "{touched}");
        let time = |event: &Value| event["time"].as_u64().context("no time");
        millis.push(time(&finding)?.saturating_sub(time(&events[usize::try_from(trigger)?])?));
        self.arrived(&finding)?;
        self.alice.ssh("brca", "").arg("true").go()?.ok()?;
        Ok(Took { what: "a key alone", millis })
    }

    /// The stolen key where no certificate lies beside it for the client to find.
    fn bare_key(&self) -> Result<String> {
        let bare = self.thief.home.join("bare");
        fs::copy(self.thief.home.join("id_ed25519"), &bare)?;
        Ok(bare.display().to_string())
    }

    /// Waits until the collector has the finding.
    fn arrived(&self, finding: &Value) -> Result<()> {
        let index = finding["metadata"]["sequence"].as_u64().context("no index")?;
        let title = &finding["unmapped"]["title"];
        wait_for("the collector has the finding", Duration::from_secs(10), || {
            let received = self.collector.received().ok()?;
            received.iter().find(|(at, event)| *at == index && event["unmapped"]["title"] == *title).map(drop)
        })
    }

    /// Of all else that was done, nothing is found to be more than it was: a packet that is sent is a
    /// finding of its own, and so is that somebody who is locked knocks again and again.
    fn no_other_finding(&self) -> Result<()> {
        let expected = ["decoy_touched", "decoy_key_shown", "packet_dropped", "many_refused_sessions"];
        for event in self.node.events()?.iter().filter(|event| event["unmapped"]["kind"] == "finding") {
            let name = event["unmapped"]["name"].as_str().unwrap_or_default();
            ensure!(expected.contains(&name), "{event}");
        }
        Ok(())
    }
}
