//! Chapters 1 to 5: what works.

use super::*;

impl Story {
    pub(super) fn rise(&mut self) -> Result<()> {
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
        self.collector = Some(Collector::start(&siem, self.ports.siem, "siem/main")?);
        self.arrived("the first events")?;
        held("rsyslog takes the log over mutual TLS");
        Ok(())
    }

    /// Waits until the collector holds every event of the log as it is now.
    pub(super) fn arrived(&self, what: &str) -> Result<u64> {
        let collector = self.collector.as_ref().context("no collector")?;
        let size = self.node()?.events()?.len() as u64;
        wait_for(what, Duration::from_secs(30), || {
            let received = collector.received().ok()?;
            let highest = received.iter().map(|(index, _)| *index).max()?;
            (highest + 1 >= size).then_some(size)
        })
    }

    pub(super) fn deposit(&mut self) -> Result<()> {
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

    pub(super) fn ok(&self, words: &str) -> Result<Ran> {
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
    pub(super) fn objects(&self) -> Result<Vec<(String, String)>> {
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

    pub(super) fn plaintexts(&self) -> Result<Vec<Plaintext>> {
        FILES.iter().map(|name| Ok(Plaintext::new(self.bytes(name)?))).collect()
    }

    pub(super) fn admit(&mut self) -> Result<()> {
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
        let late = self.alice.copy_to(&self.dir.join("late"))?;
        late.sekisho("login --lifetime 30s")?.go()?.ok()?;
        self.late = Some((late, Instant::now()));
        held("a certificate of minutes for alice; the device renews it by itself, without a token");
        Ok(())
    }

    pub(super) fn token(&self, person: &str) -> Result<String> {
        let said: Value = serde_json::from_str(&self.ok(&format!("--json person token {person}"))?.text())?;
        Ok(said["token"].as_str().context("no token")?.to_owned())
    }

    pub(super) fn grant_to(&self, study: &str, dataset: &str, until: &str) -> Result<String> {
        let words = format!("--json grant create --study {study} --dataset {dataset} --until {until}");
        let said: Value = serde_json::from_str(&self.ok(&words)?.text())?;
        Ok(said["grant"].as_str().context("no grant")?.to_owned())
    }

    pub(super) fn work(&mut self) -> Result<()> {
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
        let node = self.node()?;
        for kind in ["process_started", "file_read"] {
            node.event(kind, |event| {
                has(event, kind)
                    && has(event, "/usr/bin/samtools")
                    && has(event, "alice")
                    && has(event, "brca")
            })?;
        }
        let wrong = ["packet_dropped", "activity_overflowed"];
        let told = node.events()?.into_iter().find(|event| wrong.iter().any(|kind| has(event, kind)));
        ensure!(told.is_none(), "honest work looks like an attempt: {told:?}");
        held("the log says what was executed and read, and nothing of it looks like an attempt");
        std::thread::sleep(Duration::from_millis(500));
        let events = self.node()?.events()?;
        let found: Vec<&Value> = events.iter().filter(|e| e["unmapped"]["kind"] == "finding").collect();
        ensure!(found.is_empty(), "honest work was found fault with: {found:#?}");
        held(&format!("detection judged {} events of honest work and found nothing", events.len()));
        Ok(())
    }

    pub(super) fn confine(&mut self) -> Result<()> {
        let inside = |command: &str| self.alice.ssh("brca", "").arg(command).go();
        let elsewhere =
            |file: &str| inside(&format!("tail -n +2 {file} | grep -v barrier0 | grep -cv ' lo:'"));
        ensure!(elsewhere("/proc/net/route")?.text() == "0", "there is a route past the barrier");
        ensure!(
            // The first line of the heading is cut off, the second is left.
            elsewhere("/proc/net/dev")?.text() == "1",
            "there is an interface beside lo and the barrier"
        );
        let out =
            inside("timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/22 || exec 3<>/dev/tcp/192.0.2.1/80'")?;
        ensure!(!out.status.success() && out.code() != 124, "a connection was possible, or hung");
        inside(&format!("timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{}'", self.ports.api))?
            .refused("refused")?;
        held("no way anywhere: nobody at lo, not even the broker, and a barrier everywhere else");
        let by_alice = |event: &Value| has(event, "alice") && has(event, "brca") && has(event, "192.0.2.1");
        for kind in ["packet_dropped", "connection_attempted"] {
            self.node()?.event(kind, |event| has(event, kind) && by_alice(event))?;
        }
        held("and the log says who tried");
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
        for rule in ["namespace_tools", "mount_tried", "breakout_files", "reverse_shell"] {
            self.node()?.event(rule, |event| event["unmapped"]["name"] == rule)?;
        }
        held(
            "what she tried is in the log as findings: namespaces, mounts, another's environment, a shell to the network",
        );
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
