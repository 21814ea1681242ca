//! Chapter 6: who may not, does not.

use super::*;

impl Story {
    pub(super) fn refuse(&mut self) -> Result<()> {
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
        let device = self.alice.copy_to(&foreign)?;
        run("ssh-keygen").args("-q -t ed25519 -N").arg("").arg("-f").arg(foreign.join("ca")).go()?.ok()?;
        run("ssh-keygen")
            .args("-q -I u:alice -n u:alice -V -1m:+5m -s")
            .arg(foreign.join("ca"))
            .arg(foreign.join("id_ed25519.pub"))
            .go()?
            .ok()?;
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
        let device = self.alice.copy_to(&ghost)?;
        let line = fs::read_to_string(ghost.join("id_ed25519.pub"))?;
        let other = self.node()?.sign("u:mallory", &line)?;
        fs::write(ghost.join("id_ed25519-cert.pub"), other)?;
        self.refused(
            "a principal that nobody enrolled",
            device.ssh("brca", "").arg("true"),
            "not on record",
            "session_refused",
            "unknown-person",
        )
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
        self.refused(
            "port forwarding",
            direct,
            "not open in study:brca",
            "channel_refused",
            "port-forwarding",
        )?;
        let remote = self.alice.ssh("brca", &format!("-o ExitOnForwardFailure=yes -N -R 0:127.0.0.1:{api}"));
        self.refused("remote forwarding", remote, "forwarding", "channel_refused", "remote-forwarding")?;
        let files = run("sftp")
            .arg("-F")
            .arg(self.alice.home.join("ssh_config"))
            .args("-b - brca@gate")
            .stdin("get /etc/passwd /dev/null\n");
        self.refused("a file taken out", files, "airlock", "channel_refused", "export")
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
}
