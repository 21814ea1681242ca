//! The story: one researcher reads one real genome through one brokered session. Every step is
//! asserted; a step that does not hold ends the story with what was seen.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::collector::Collector;
use crate::command::{Ran, Run, run, wait_for};
use crate::node::{Device, INSTITUTIONS, Node, Ports, binary, cgroups};
use crate::plaintext::{Plaintext, search};

/// How many flipped bytes of the log are tried.
const FLIPS: u64 = 48;
/// The files of the genome, as they lie in `tests/data`.
const FILES: [&str; 6] = [
    "NA12878.chr22.tiny.bam",
    "NA12878.chr22.tiny.bam.bai",
    "q.fa",
    "q.fa.fai",
    "q.vcf.gz",
    "NA12878.chr22.tiny.giab.vcf",
];
/// The first word with which the demo's binary asks the signer instead of telling the story.
pub const SIGN: &str = "--sign";
const BAM: &str = "NA12878.chr22.tiny.bam";
const VCF: &str = "NA12878.chr22.tiny.giab.vcf";

type Chapter = fn(&mut Story) -> Result<()>;

/// The story as it is told: what has been set up so far.
pub struct Story {
    dir: PathBuf,
    data: PathBuf,
    ports: Ports,
    began: SystemTime,
    cgroups: BTreeSet<String>,
    /// The node, once it is up.
    pub node: Option<Node>,
    /// The collector, once it listens.
    pub collector: Option<Collector>,
    admin: Device,
    /// The researcher's device.
    pub alice: Device,
    bob: Device,
    grant: String,
    /// A device whose certificate is left to expire, and since when it has it.
    late: Option<(Device, Instant)>,
}

fn say(line: &str) {
    println!("   {line}");
}

fn held(what: &str) {
    println!("   \u{2713} {what}");
}

impl Story {
    /// A story in the empty folder `dir`, on the data in `data`.
    pub fn new(dir: &Path, data: &Path) -> Result<Story> {
        let ports = Ports::free()?;
        Ok(Story {
            dir: dir.to_owned(),
            data: data.to_owned(),
            ports,
            began: SystemTime::UNIX_EPOCH + filetime(dir)?,
            cgroups: cgroups()?,
            node: None,
            collector: None,
            admin: Device::new(&dir.join("admin"), ports),
            alice: Device::new(&dir.join("alice"), ports),
            bob: Device::new(&dir.join("bob"), ports),
            grant: String::new(),
            late: None,
        })
    }

    /// Tells all of it.
    pub fn tell(&mut self) -> Result<()> {
        let chapters: [(&str, Chapter); 8] = [
            ("A node rises from an empty folder, and a SIEM listens", Story::rise),
            ("A genome is deposited and exists whole nowhere", Story::deposit),
            ("A study is granted the dataset, a researcher gets a certificate of minutes", Story::admit),
            ("The researcher works as if the data lay there", Story::work),
            ("The workspace is a closed room", Story::confine),
            ("Whoever may not, does not, and learns why", Story::refuse),
            ("Backends fail and lie", Story::fail),
            ("The log remembers, and cannot be made to forget", Story::remember),
        ];
        for (number, (title, chapter)) in chapters.into_iter().enumerate() {
            let number = number + 1;
            println!("\n{number}. {title}");
            let began = Instant::now();
            chapter(self).with_context(|| format!("chapter {number}, {title}")).inspect_err(|_| {
                if let Some(node) = &self.node {
                    eprintln!("{}", node.logs());
                }
            })?;
            say(&format!("({:.1} s)", began.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    fn node(&self) -> Result<&Node> {
        self.node.as_ref().context("the node is not up")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.file(name)).with_context(|| format!("{name} cannot be read"))
    }

    // 1 ---------------------------------------------------------------------------------------

    fn rise(&mut self) -> Result<()> {
        let folder = self.dir.join("node");
        say(&format!("$ {}", Node::command(&folder, self.ports)?.line()));
        let began = Instant::now();
        self.node = Some(Node::up(&folder, self.ports)?);
        held(&format!(
            "signer, broker and agent serve after {:.1} s; five backends stand for five institutions",
            began.elapsed().as_secs_f64()
        ));
        let token = fs::read_to_string(folder.join("broker").join("admin.token"))
            .context("no token for the first administrator")?;
        self.admin.enrol("admin", token.trim())?;
        let again = Device::new(&self.dir.join("thief"), self.ports);
        again
            .sekisho(&format!(
                "login --api https://127.0.0.1:{} --person admin --token {}",
                self.ports.api,
                token.trim()
            ))?
            .go()?
            .refused("token")?;
        held("the first administrator enrolled with a one-time token; a second use of it is refused");

        let siem = self.dir.join("collector");
        fs::create_dir_all(&siem)?;
        self.admin
            .sekisho("service certificate collector --dns collector.sekisho.test --out")?
            .arg(&siem)
            .go()?
            .ok()?;
        self.collector = Some(Collector::start(&siem, self.ports.siem, "siem.sekisho.test")?);
        self.arrived("the first events")?;
        held("rsyslog takes the log over mutual TLS");
        Ok(())
    }

    /// Waits until the collector holds every event of the log as it is now.
    fn arrived(&self, what: &str) -> Result<u64> {
        let collector = self.collector.as_ref().context("no collector")?;
        let size = self.node()?.events()?.len() as u64;
        wait_for(what, Duration::from_secs(30), || {
            let received = collector.received().ok()?;
            let highest = received.iter().map(|(index, _)| *index).max()?;
            (highest + 1 >= size).then_some(size)
        })
    }

    // 2 ---------------------------------------------------------------------------------------

    fn deposit(&mut self) -> Result<()> {
        self.ok("dataset create na12878 --condition HMB --title")?;
        let paths: Vec<PathBuf> = FILES.iter().map(|name| self.file(name)).collect();
        let mut put = self.admin.sekisho("put --dataset na12878")?;
        for path in &paths {
            put = put.arg(path);
        }
        say(&format!("$ sekisho put --dataset na12878 {}", FILES.join(" ")));
        let shown = put.go()?.ok()?;
        for line in shown.text().lines() {
            say(line);
        }
        held(&format!("{} files deposited, each with its size and the root of its manifest", FILES.len()));

        let objects = self.objects()?;
        let work = self.dir.join("rebuilt");
        fs::create_dir_all(&work)?;
        let (mut rebuilt, mut failed) = (0, 0);
        for (name, object) in &objects {
            let original = self.bytes(name)?;
            for set in subsets(3) {
                let out = work.join("out");
                self.combine(object, &set, &out)?.ok()?;
                ensure!(fs::read(&out)? == original, "{name} rebuilt from {set:?} differs");
                fs::remove_file(&out)?;
                rebuilt += 1;
            }
            for set in subsets(2) {
                let out = work.join("out");
                self.combine(object, &set, &out)?.refused("3")?;
                ensure!(!out.exists(), "two shares left something behind");
                failed += 1;
            }
        }
        held(&format!(
            "every 3 of 5 shares rebuild every file byte for byte ({rebuilt} ways), 2 do not ({failed} ways)"
        ));

        let texts = self.plaintexts()?;
        let mut bytes = 0;
        for institution in INSTITUTIONS {
            let searched = search(&texts, &self.node()?.backend(institution), None, &[])?;
            ensure!(searched.found.is_empty(), "plaintext at {institution}: {:?}", searched.found);
            ensure!(searched.bytes > 0, "{institution} holds nothing");
            bytes += searched.bytes;
        }
        held(&format!("no run of 32 bytes of any file in the {bytes} bytes that the backends hold"));
        Ok(())
    }

    fn ok(&self, words: &str) -> Result<Ran> {
        // A title is a sentence; the word list is split at blanks.
        let run = self.admin.sekisho(words)?;
        let run = if words.ends_with("--title") { run.arg("NA12878, chromosome 22 (excerpt)") } else { run };
        run.go()?.ok()
    }

    fn combine(&self, object: &str, institutions: &[&str], out: &Path) -> Result<Ran> {
        let mut combine = run(binary("sekisho-shard")?)
            .args("--quiet combine --object")
            .arg(object)
            .arg("--output")
            .arg(out);
        for institution in institutions {
            combine = combine.arg(self.node()?.backend(institution));
        }
        combine.go()
    }

    /// The stored objects: name and identifier.
    fn objects(&self) -> Result<Vec<(String, String)>> {
        let listed: Value = serde_json::from_str(&self.ok("--json object list")?.text())?;
        let rows = listed.as_array().cloned().or_else(|| listed["objects"].as_array().cloned());
        rows.context("object list is no list")?
            .iter()
            .map(|row| {
                let word = |key: &str| {
                    row[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {row}"))
                };
                Ok((word("name")?, word("id")?))
            })
            .collect()
    }

    fn plaintexts(&self) -> Result<Vec<Plaintext>> {
        FILES.iter().map(|name| Ok(Plaintext::new(self.bytes(name)?))).collect()
    }

    // 3 ---------------------------------------------------------------------------------------

    fn admit(&mut self) -> Result<()> {
        self.ok("study create brca --purpose DS:MONDO:0007254 --purpose POA --until 2035-03-31 --title")?;
        self.ok("study create heart --purpose HMB --until 2035-03-31 --title")?;
        for (device, person) in [(self.alice.clone(), "alice"), (self.bob.clone(), "bob")] {
            self.ok(&format!("person create {person}"))?;
            let token = self.token(person)?;
            device.enrol(person, &token)?;
        }
        self.ok("member add brca alice")?;
        self.ok("member add heart bob")?;
        self.grant = self.grant_to("brca", "na12878", "2035-03-31")?;
        let shown = run("ssh-keygen")
            .args("-L -f")
            .arg(self.alice.home.join("id_ed25519-cert.pub"))
            .go()?
            .ok()?
            .text();
        for line in shown
            .lines()
            .filter(|l| ["Type", "Key ID", "Valid", "Serial"].iter().any(|w| l.trim().starts_with(w)))
        {
            say(line.trim());
        }
        ensure!(
            shown.contains("u:alice") && shown.contains("user certificate"),
            "not alice's certificate:\n{shown}"
        );
        self.alice.sekisho("login")?.go()?.ok()?;
        let late = self.dir.join("late");
        copy_home(&self.alice.home, &late)?;
        let late = self.alice.moved(late);
        late.sekisho("login --lifetime 30s")?.go()?.ok()?;
        self.late = Some((late, Instant::now()));
        held("a certificate of minutes for alice; the device renews it by itself, without a token");
        Ok(())
    }

    fn token(&self, person: &str) -> Result<String> {
        let said: Value = serde_json::from_str(&self.ok(&format!("--json person token {person}"))?.text())?;
        Ok(said["token"].as_str().context("no token")?.to_owned())
    }

    fn grant_to(&self, study: &str, dataset: &str, until: &str) -> Result<String> {
        let words = format!("--json grant create --study {study} --dataset {dataset} --until {until}");
        let said: Value = serde_json::from_str(&self.ok(&words)?.text())?;
        Ok(said["grant"].as_str().context("no grant")?.to_owned())
    }

    // 4 ---------------------------------------------------------------------------------------

    fn work(&mut self) -> Result<()> {
        let bam = self.file(BAM).display().to_string();
        let vcf = self.file(VCF).display().to_string();
        let fasta = self.file("q.fa").display().to_string();
        let remote = |text: &str| {
            text.replace(&bam, &format!("/data/na12878/{BAM}"))
                .replace(&vcf, &format!("/data/na12878/{VCF}"))
                .replace(&fasta, "/data/na12878/q.fa")
        };
        for command in [
            format!("samtools view -c {bam} q:1000-9000"),
            format!("samtools view {bam} q:4000-4100"),
            format!("samtools depth -r q:5000-5200 {bam}"),
            format!("samtools faidx {fasta} q:100-400"),
            format!("bcftools view -H {vcf}"),
            format!(
                "bcftools mpileup -f {fasta} -r q:1-12000 {bam} 2>/dev/null | bcftools call -mv -Ov | grep -v '^##'"
            ),
            format!("cat {bam}"),
        ] {
            let here = run("bash").arg("-c").arg(&command).go()?.ok()?;
            let there = self.alice.ssh("brca", "").arg(remote(&command)).go()?.ok()?;
            ensure!(!here.stdout.is_empty(), "{command} says nothing on the original");
            // Tools name the file they read in the headers they write.
            let here = remote(&String::from_utf8_lossy(&here.stdout));
            let there_text = String::from_utf8_lossy(&there.stdout).into_owned();
            ensure!(here == there_text, "{command}: {} bytes here, {} there", here.len(), there_text.len());
            held(&format!(
                "ssh brca@gate {} ({} bytes, {} ms)",
                remote(&command),
                here.len(),
                there.took.as_millis()
            ));
        }
        let failing = self.alice.ssh("brca", "").arg("exit 42").go()?;
        ensure!(failing.code() == 42, "exit 42 came back as {}", failing.code());
        held("exit statuses come back");
        let random: Vec<u8> = self.bytes(BAM)?;
        let echoed = self.alice.ssh("brca", "").arg("cat").stdin(random.clone()).go()?.ok()?;
        ensure!(echoed.stdout == random, "bytes changed on their way through");
        held("binary input and output come through unchanged");
        let shell = self
            .alice
            .ssh("brca", "-tt")
            .stdin("stty size; tty; whoami; ls /data/na12878 | wc -l; echo 関所; exit 7\n")
            .go()?;
        let text = shell.text();
        ensure!(shell.code() == 7, "the shell ended with {}:\n{text}", shell.code());
        ensure!(
            text.contains("/dev/pts/") && text.contains("alice") && text.contains("関所"),
            "not a shell on a pty:\n{text}"
        );
        held("an interactive login shell on a pty, with Japanese, and its exit status");
        self.alice.ssh("brca", "").arg("echo kept > ~/note").go()?.ok()?;
        ensure!(
            self.alice.ssh("brca", "").arg("cat ~/note").go()?.ok()?.text() == "kept",
            "the home does not persist"
        );
        held("the home folder stays from session to session");
        Ok(())
    }

    // 5 ---------------------------------------------------------------------------------------

    fn confine(&mut self) -> Result<()> {
        let inside = |command: &str| self.alice.ssh("brca", "").arg(command).go();
        ensure!(inside("cat /proc/net/route | tail -n +2")?.ok()?.text().is_empty(), "there is a route");
        ensure!(
            inside("cat /proc/net/dev | tail -n +3 | grep -v ' lo:' | wc -l")?.ok()?.text() == "0",
            "there is an interface beside lo"
        );
        let out =
            inside("timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/22 || exec 3<>/dev/tcp/192.0.2.1/80'")?;
        ensure!(!out.status.success(), "a connection was possible");
        inside(&format!("timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}'", self.ports.api))?
            .refused("refused")?;
        held("no route anywhere: only lo, and nobody there; not even the broker");
        inside("touch /data/na12878/x")?.refused("read-only")?;
        inside(&format!("echo x >> /data/na12878/{BAM}"))?.refused("")?;
        inside("rm -f /data/na12878/q.fa")?.refused("read-only")?;
        held("/data cannot be written");
        let listed = inside("ls /data; ls -A /home")?.ok()?.text();
        ensure!(listed == "na12878\nalice", "more is visible than should be: {listed:?}");
        for probe in [
            "unshare -r true",
            "mount -t tmpfs none /tmp",
            "chroot / true",
            "cat /proc/1/environ",
            "kill -9 1",
            "dmesg",
        ] {
            let probed = inside(&format!("{probe} && echo done"))?;
            ensure!(!probed.text().contains("done"), "{probe} worked in the workspace");
        }
        let caps = inside("grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status")?.ok()?.text();
        ensure!(caps.contains("CapEff:\t0000000000000000"), "capabilities: {caps}");
        ensure!(caps.contains("NoNewPrivs:\t1") && caps.contains("Seccomp:\t2"), "not confined: {caps}");
        held("no other study, no other home, no capability, no new privileges, a system call filter");
        let texts = self.plaintexts()?;
        let searched = search(&texts, Path::new("/"), Some(self.began), &[&self.data])?;
        ensure!(searched.found.is_empty(), "plaintext on a disk: {:?}", searched.found);
        held(&format!(
            "no run of 32 bytes of the genome in any of the {} files ({} MiB) written on this host's disk since the beginning",
            searched.files,
            searched.bytes >> 20
        ));
        Ok(())
    }

    // 6 ---------------------------------------------------------------------------------------

    fn refuse(&mut self) -> Result<()> {
        self.refuse_certificates()?;
        self.refuse_sessions()?;
        self.refuse_forwarding()?;
        self.revoke()
    }

    fn refused(&self, what: &str, run: Run, reason: &str, kind: &str, code: &str) -> Result<()> {
        let before = self.node()?.events()?.len();
        let ran = run.go()?.refused(reason)?;
        let words = ran.complaint();
        let told = words
            .lines()
            .find(|line| line.to_lowercase().contains(&reason.to_lowercase()))
            .unwrap_or_default();
        let node = self.node()?;
        wait_for("the record of the refusal", Duration::from_secs(5), || {
            let events = node.events().ok()?;
            events[before..].iter().any(|event| has(event, kind) && has(event, code)).then_some(())
        })
        .with_context(|| format!("{what}: no {kind} with {code} in the log"))?;
        held(&format!("{what} (exit {}): {}", ran.code(), told.trim()));
        Ok(())
    }

    fn refuse_certificates(&self) -> Result<()> {
        let foreign = self.dir.join("foreign");
        copy_home(&self.alice.home, &foreign)?;
        run("ssh-keygen").args("-q -t ed25519 -N").arg("").arg("-f").arg(foreign.join("ca")).go()?.ok()?;
        run("ssh-keygen")
            .args("-q -I u:alice -n u:alice -V -1m:+5m -s")
            .arg(foreign.join("ca"))
            .arg(foreign.join("id_ed25519.pub"))
            .go()?
            .ok()?;
        let device = self.alice.moved(foreign);
        self.refused(
            "a certificate of another authority",
            device.ssh("brca", "").arg("true"),
            "authority",
            "auth_refused",
            "unknown-authority",
        )?;

        // Made in chapter 3, to live for half a minute.
        let (device, since) = self.late.as_ref().context("no late device")?;
        std::thread::sleep(Duration::from_secs(32).saturating_sub(since.elapsed()));
        self.refused(
            "an expired certificate",
            device.ssh("brca", "").arg("true"),
            "expired",
            "auth_refused",
            "expired",
        )?;

        let ghost = self.dir.join("ghost");
        copy_home(&self.alice.home, &ghost)?;
        let line = fs::read_to_string(ghost.join("id_ed25519.pub"))?;
        let other = self.sign_for("u:mallory", &line)?;
        fs::write(ghost.join("id_ed25519-cert.pub"), other)?;
        let device = self.alice.moved(ghost);
        self.refused(
            "a principal that nobody enrolled",
            device.ssh("brca", "").arg("true"),
            "not on record",
            "session_refused",
            "unknown-person",
        )
    }

    /// A certificate of the right authority for a wrong principal: only somebody who holds the
    /// broker's account on the host can have it made.
    fn sign_for(&self, principal: &str, public_key: &str) -> Result<String> {
        let socket = self.node()?.dir.join("run").join("signer.sock");
        // That account may not enter the folder of our binaries, but the copy is anybody's.
        let copy = self.dir.join("as-the-broker");
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

    fn refuse_sessions(&self) -> Result<()> {
        let alice = |study: &str, options: &str| self.alice.ssh(study, options).arg("true");
        self.refused(
            "a study she is not in",
            alice("heart", ""),
            "not a member",
            "session_refused",
            "not-a-member",
        )?;
        self.refused(
            "a study that does not exist",
            alice("nothing", ""),
            "not a member",
            "session_refused",
            "not-a-member",
        )?;
        self.refused(
            "a purpose that the dataset does not allow",
            alice("brca", "-o SetEnv=SEKISHO_PURPOSE=POA"),
            "may not be used for",
            "session_refused",
            "purpose-not-allowed",
        )?;
        self.refused(
            "a purpose that the study was not approved for",
            alice("brca", "-o SetEnv=SEKISHO_PURPOSE=GRU"),
            "not approved for",
            "session_refused",
            "purpose-not-of-study",
        )?;
        let soon = run("date").args("-u -d +2sec +%Y-%m-%dT%H:%M:%SZ").go()?.ok()?.text();
        self.grant_to("heart", "na12878", &soon)?;
        std::thread::sleep(Duration::from_millis(3200));
        self.refused(
            "a grant that has ended",
            self.bob.ssh("heart", "").arg("true"),
            "ended at",
            "session_refused",
            "grant-expired",
        )
    }

    fn refuse_forwarding(&self) -> Result<()> {
        let api = self.ports.api;
        let direct = self.alice.ssh("brca", &format!("-W 127.0.0.1:{api}"));
        self.refused("port forwarding", direct, "not open here", "channel_refused", "port-forwarding")?;
        let remote = self.alice.ssh("brca", &format!("-o ExitOnForwardFailure=yes -N -R 0:127.0.0.1:{api}"));
        self.refused("remote forwarding", remote, "forwarding", "channel_refused", "remote-forwarding")?;
        let files =
            run("sftp").arg("-F").arg(self.alice.home.join("ssh_config")).args("-b /dev/null brca@gate");
        self.refused("file transfer", files, "file transfer", "channel_refused", "subsystem")
    }

    fn revoke(&mut self) -> Result<()> {
        let mut command =
            self.alice.ssh("brca", "").arg("echo begun; (setsid sleep 600 &) ; exec sleep 600").command();
        let mut running = command.spawn()?;
        let mut out = BufReader::new(running.stdout.take().context("no stdout")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        ensure!(line.trim() == "begun", "the session did not begin: {line:?}");
        let began = Instant::now();
        self.ok(&format!("grant revoke {} --reason withdrawn", self.grant))?;
        let asked = began.elapsed();
        let status =
            wait_for("the session ends", Duration::from_secs(5), || running.try_wait().ok().flatten())?;
        let took = began.elapsed();
        let mut words = String::new();
        std::io::Read::read_to_string(&mut running.stderr.take().context("no stderr")?, &mut words)?;
        ensure!(!status.success(), "the session ended as if nothing had happened");
        ensure!(words.contains("revoked"), "the person was not told why: {words}");
        ensure!(took < Duration::from_secs(1), "it took {took:?}");
        held(&format!(
            "revoking the grant ends the running session after {} ms ({} of them for the command): {}",
            took.as_millis(),
            asked.as_millis(),
            words.lines().find(|l| l.contains("revoked")).unwrap_or_default().trim()
        ));
        self.node()?.event("the end of the session is recorded", |event| {
            has(event, "session_ended") && has(event, "grant-revoked")
        })?;
        wait_for("what the session started is gone", Duration::from_secs(2), || {
            let left = run("pgrep").args("-f -x").arg("sleep 600").go().ok()?;
            (left.code() == 1).then_some(())
        })?;
        held("nothing that the session started still runs");
        let gone = self.alice.ssh("brca", "").arg("true");
        self.refused("the study without its grant", gone, "granted", "session_refused", "nothing-granted")?;
        self.grant = self.grant_to("brca", "na12878", "2035-03-31")?;
        self.alice.ssh("brca", "").arg("true").go()?.ok()?;
        held("a new grant lets her in again");
        Ok(())
    }

    // 7 ---------------------------------------------------------------------------------------

    fn fail(&mut self) -> Result<()> {
        // Fresh objects: nothing of them is in any cache.
        let liars = ["tohoku", "kanto", "kansai"];
        let lied = |liar: &str| format!("{liar}-lies.bam");
        let names = liars
            .iter()
            .map(|liar| lied(liar))
            .chain(["two-gone.bam".to_owned(), "three-gone.bam".to_owned()]);
        for name in names {
            self.admin
                .sekisho(&format!("put --dataset na12878 --name {name}"))?
                .arg(self.file(BAM))
                .go()?
                .ok()?;
        }
        let node = self.node()?;
        let original = self.bytes(BAM)?;
        let read = |name: &str| self.alice.ssh("brca", "").arg(format!("cat /data/na12878/{name}")).go();
        let away = |institution: &str| {
            let from = node.backend(institution);
            fs::rename(&from, from.with_extension("away"))
        };
        let back = |institution: &str| {
            let to = node.backend(institution);
            fs::rename(to.with_extension("away"), &to)
        };
        // Those whom the log names with a fault, from this event on. A read asks three backends,
        // the fastest first, so a fault of one that was not asked is not seen by it.
        let named = |from: usize, kind: &str| -> Result<Vec<&str>> {
            let events = node.events()?;
            let faults = events[from..].iter().filter(|event| has(event, "read_fault") && has(event, kind));
            let faults: Vec<&Value> = faults.collect();
            Ok(INSTITUTIONS.into_iter().filter(|name| faults.iter().any(|fault| has(fault, name))).collect())
        };

        let before = node.events()?.len();
        away("hokkaido")?;
        away("kanto")?;
        let ran = read("two-gone.bam")?.ok()?;
        ensure!(ran.stdout == original, "wrong bytes with two backends gone");
        let gone = wait_for("the faults are recorded", Duration::from_secs(5), || {
            named(before, "missing").ok().filter(|named| !named.is_empty())
        })?;
        ensure!(
            gone.iter().all(|name| ["hokkaido", "kanto"].contains(name)),
            "the wrong ones are named: {gone:?}"
        );
        held(&format!(
            "two backends gone: the read succeeds ({} ms) and the log names {}",
            ran.took.as_millis(),
            gone.join(" and ")
        ));
        back("kanto")?;

        let mut caught = Vec::new();
        for liar in liars {
            let before = node.events()?.len();
            corrupt(&node.backend(liar))?;
            let ran = read(&lied(liar))?.ok()?;
            ensure!(ran.stdout == original, "wrong bytes while {liar} lies");
            let seen = wait_for("the liar is named", Duration::from_secs(2), || {
                named(before, "corrupt").ok().filter(|named| !named.is_empty())
            });
            // Done twice, it is undone: the institution has put its copy right.
            corrupt(&node.backend(liar))?;
            let seen = seen.unwrap_or_default();
            ensure!(seen.iter().all(|name| *name == liar), "{seen:?} named while {liar} lied");
            caught.extend(seen);
        }
        ensure!(caught.len() >= 2, "of three liars only {caught:?} were named");
        held(&format!(
            "one gone and one corrupting: every read succeeds, and the log names the liar: {}",
            caught.join(", ")
        ));

        away("kansai")?;
        away("kyushu")?;
        let began = Instant::now();
        let ran = read("three-gone.bam")?.refused("Input/output error")?;
        ensure!(began.elapsed() < Duration::from_secs(15), "it hung for {:?}", began.elapsed());
        node.event("the failed read is recorded", |event| has(event, "read_failed"))?;
        held(&format!(
            "too few left: a clear error after {} ms: {}",
            ran.took.as_millis(),
            ran.complaint().lines().last().unwrap_or_default()
        ));
        for institution in ["hokkaido", "kansai", "kyushu"] {
            back(institution)?;
        }
        let ran =
            wait_for("reads work again", Duration::from_secs(40), || read("three-gone.bam").ok()?.ok().ok())?;
        ensure!(ran.stdout == original, "wrong bytes after the backends came back");
        held("the backends back, reads work again");
        Ok(())
    }

    // 8 ---------------------------------------------------------------------------------------

    fn remember(&mut self) -> Result<()> {
        let verify = |dir: &Path| run(binary("sekisho")?).args("audit verify --dir").arg(dir).go();
        let audit = self.node()?.audit();
        // The checkpoint follows the last record within a second.
        std::thread::sleep(Duration::from_millis(1200));
        let ran = verify(&audit)?.ok()?;
        for line in ran.text().lines() {
            say(line);
        }
        held("the log is proved: every byte, every hash, the signed checkpoint");

        let size = self.arrived("every event arrives")?;
        let received = self.collector.as_ref().context("no collector")?.received()?;
        let events = self.node()?.events()?;
        let mut seen = std::collections::BTreeMap::new();
        for (index, event) in &received {
            seen.entry(*index).or_insert(event);
        }
        for index in 0..size {
            let at = usize::try_from(index)?;
            let theirs = seen.get(&index).with_context(|| format!("event {index} is missing in the SIEM"))?;
            let uid = |event: &Value| event["metadata"]["uid"].clone();
            ensure!(
                uid(theirs) == uid(&events[at]) || **theirs == events[at],
                "event {index} differs in the SIEM:\n{theirs}\n{}",
                events[at]
            );
        }
        held(&format!(
            "the SIEM's file holds each of the {size} events ({} arrived twice and are known by their index)",
            received.len().saturating_sub(seen.len())
        ));

        let copy = self.dir.join("audit-copy");
        run("cp").arg("-a").arg(&audit).arg(&copy).go()?.ok()?;
        verify(&copy)?.ok()?;
        let mut files = Vec::new();
        walk(&copy, &mut files)?;
        let mut flips = 0;
        for round in 0..FLIPS {
            let file = &files[usize::try_from(round)? % files.len()];
            let clean = fs::read(file)?;
            if clean.is_empty() {
                continue;
            }
            let at = usize::try_from((round.wrapping_mul(0x9e37_79b9) + 7) % clean.len() as u64)?;
            let mut dirty = clean.clone();
            dirty[at] ^= 1 << (round % 8);
            fs::write(file, &dirty)?;
            let ran = verify(&copy)?;
            ensure!(!ran.status.success(), "byte {at} of {} flipped and not found", file.display());
            fs::write(file, &clean)?;
            flips += 1;
        }
        verify(&copy)?.ok()?;
        held(&format!(
            "each of {flips} single flipped bits, in each of the log's {} files, is found",
            files.len()
        ));
        Ok(())
    }

    /// What to try, once the story is told.
    pub fn commands(&self) -> Result<String> {
        let sekisho = binary("sekisho")?;
        let config = self.alice.home.join("ssh_config");
        let (sekisho, config) = (sekisho.display(), config.display());
        let (admin, alice, dir) = (self.admin.home.display(), self.alice.home.display(), self.dir.display());
        Ok(format!(
            "The node stays up until Ctrl-C. To try:\n\n\
             \x20 {sekisho} --home {alice} ssh brca\n\
             \x20 ssh -F {config} brca@gate samtools view -c /data/na12878/{BAM} q:1000-9000\n\
             \x20 {sekisho} --home {admin} grant list\n\
             \x20 {sekisho} --home {admin} grant revoke {} --reason 'I changed my mind'\n\
             \x20 {sekisho} audit tail --follow --dir {dir}/node/broker/audit\n\
             \x20 tail -f {dir}/collector/received.jsonl\n",
            self.grant
        ))
    }

    /// Ends everything and looks for what was left behind.
    pub fn end(mut self) -> Result<()> {
        let node = self.node.take().context("the node is not up")?;
        let dir = node.dir.clone();
        node.stop()?;
        drop(self.collector.take());
        let mut left = crate::node::left_behind(&dir)?;
        left.extend(cgroups()?.difference(&self.cgroups).cloned());
        ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        println!("   \u{2713} stopped: no process, mount, cgroup or namespace is left");
        Ok(())
    }
}

/// Whether an event has `word` as one of its values, at any depth.
fn has(event: &Value, word: &str) -> bool {
    match event {
        Value::String(text) => text == word || text.ends_with(&format!(":{word}")),
        Value::Array(all) => all.iter().any(|event| has(event, word)),
        Value::Object(all) => all.values().any(|event| has(event, word)),
        _ => false,
    }
}

fn subsets(of: usize) -> Vec<Vec<&'static str>> {
    (0u32..1 << INSTITUTIONS.len())
        .filter(|mask| mask.count_ones() as usize == of)
        .map(|mask| {
            INSTITUTIONS
                .iter()
                .enumerate()
                .filter(|(i, _)| mask >> i & 1 == 1)
                .map(|(_, name)| *name)
                .collect()
        })
        .collect()
}

/// Flips bits all over every share file below `backend`; done twice, it undoes itself.
fn corrupt(backend: &Path) -> Result<()> {
    let mut files = Vec::new();
    walk(backend, &mut files)?;
    for file in files {
        let mut bytes = fs::read(&file)?;
        for at in (0..bytes.len()).step_by(1021) {
            bytes[at] ^= 0x40;
        }
        fs::write(&file, bytes)?;
    }
    Ok(())
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, into)?;
        } else if path.is_file() {
            into.push(path);
        }
    }
    Ok(())
}

fn copy_home(from: &Path, to: &Path) -> Result<()> {
    run("cp").arg("-a").arg(from).arg(to).go()?.ok()?;
    // The configuration names the folder it lies in.
    let config = fs::read_to_string(to.join("ssh_config"))?;
    let moved = config.replace(&from.display().to_string(), &to.display().to_string());
    fs::write(to.join("ssh_config"), moved)?;
    Ok(())
}

/// The file system's own idea of now, which is what it will stamp later files with.
fn filetime(dir: &Path) -> Result<Duration> {
    let probe = dir.join(".began");
    fs::write(&probe, b"")?;
    let at = fs::metadata(&probe)?.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
    fs::remove_file(probe)?;
    Ok(at)
}
