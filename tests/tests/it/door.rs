//! The SSH door before real workspaces, with the clients that people have.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::command::{Ran, Run, run, wait_for};
use tests::node::{Device, Node};

use super::folder;

/// Bytes that no compression or coincidence makes.
fn noise(len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

struct Door {
    dir: PathBuf,
    node: Node,
    device: Device,
}

impl Door {
    fn new(name: &str) -> Result<Door> {
        let dir = folder(name)?;
        let (node, device) = Node::with_a_study(&dir, "door", &[&tests::data().join("q.fa")])?;
        Ok(Door { dir, node, device })
    }

    fn channels(&self, change: &str) -> Result<Ran> {
        self.device.sekisho(&format!("study channels door {change}"))?.go()?.ok()
    }

    /// A program that takes the options of `ssh`.
    fn client(&self, program: &str) -> Run {
        run(program).arg("-F").arg(self.device.home.join("ssh_config"))
    }

    fn inside(&self, line: &str) -> Result<Ran> {
        self.device.ssh("door", "").arg(line).go()
    }

    fn sftp(&self, commands: &str) -> Result<Ran> {
        self.client("sftp").args("-b - door@gate").stdin(commands).go()
    }

    /// The event that holds every one of `parts`.
    fn recorded(&self, parts: &[&str]) -> Result<Value> {
        let fits = |event: &Value| {
            let text = event.to_string();
            parts.iter().all(|part| text.contains(part))
        };
        self.node.event(&parts.join(", "), fits)
    }

    fn end(self) -> Result<()> {
        self.node.stop()?;
        fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

fn sha256(path: &Path) -> Result<String> {
    let said = run("sha256sum").arg(path).go()?.ok()?.text();
    Ok(said.split(' ').next().context("no sum")?.to_owned())
}

/// Files by sftp, scp in both its forms and rsync: in by default, out only where the study says so,
/// and never from `/data` unless it says that as well.
#[test]
fn files_go_only_where_the_study_lets_them() -> Result<()> {
    let door = Door::new("door-files")?;
    let (up, back) = (door.dir.join("up.bin"), door.dir.join("back.bin"));
    fs::write(&up, noise(5 << 20)?)?;
    let sum = sha256(&up)?;
    let shown = up.display();
    let put = |name: &str| format!("put {shown} {name}\n");
    let get = |name: &str| format!("get {name} {}\n", back.display());

    door.sftp(&format!("mkdir in\n{}ls -l in\n", put("in/研究.bin")))?.ok()?;
    let event = door.recorded(&["file_transferred", "研究.bin", "upload", "completed"])?;
    ensure!(event.to_string().contains(&sum), "another hash: {event}");
    door.client("scp").arg(&up).arg("door@gate:scp.bin").go()?.ok()?;
    door.recorded(&["file_transferred", "scp.bin", "upload", &sum])?;
    door.client("scp").args("-O").arg(&up).arg("door@gate:legacy.bin").go()?.ok()?;
    let ssh = format!("ssh -F {}", door.device.home.join("ssh_config").display());
    run("rsync").args("-a -e").arg(&ssh).arg(&up).arg("door@gate:rsync.bin").go()?.ok()?;
    let sums = door.inside("sha256sum in/* scp.bin legacy.bin rsync.bin")?.ok()?.text();
    ensure!(sums.matches(&sum).count() == 4, "{sums}");

    door.sftp(&get("scp.bin"))?.refused("airlock")?;
    door.client("scp").arg("door@gate:scp.bin").arg(&back).go()?.refused("airlock")?;
    door.client("scp").args("-O").arg("door@gate:scp.bin").arg(&back).go()?.refused("airlock")?;
    run("rsync").args("-a -e").arg(&ssh).arg("door@gate:scp.bin").arg(&back).go()?.refused("airlock")?;
    ensure!(fs::read(&back).unwrap_or_default().is_empty(), "something came out");
    door.recorded(&["channel_refused", "study:door/channel/export/refuse", "scp.bin"])?;

    door.channels("--allow export")?;
    door.sftp(&get("scp.bin"))?.ok()?;
    ensure!(sha256(&back)? == sum, "another file came out");
    door.recorded(&["file_transferred", "scp.bin", "download", &sum])?;
    // Whatever the name says, data is data.
    let data = door.inside("echo /data/*/*")?.ok()?.text();
    door.inside(&format!("ln -s {data} link && ln -s /data/. folder"))?.ok()?;
    for name in [data.as_str(), "link", &format!("folder/{}", data.trim_start_matches("/data/"))] {
        door.sftp(&get(name))?.refused(if name == data { "/data" } else { "denied" })?;
    }
    door.sftp(&format!("ls -l {data}\n"))?.ok()?;
    door.client("scp").args("-O").arg("door@gate:scp.bin").arg(&back).go()?.refused("/data")?;
    door.channels("--allow export-data")?;
    door.sftp(&get("link"))?.ok()?;
    ensure!(fs::read(&back)? == fs::read(tests::data().join("q.fa"))?, "another file came out");
    door.client("scp").args("-O").arg("door@gate:scp.bin").arg(&back).go()?.ok()?;
    ensure!(sha256(&back)? == sum, "another file came out");
    run("rsync").args("-a -e").arg(&ssh).arg("door@gate:rsync.bin").arg(&back).go()?.ok()?;
    // Refusing ends what runs on it, and holds for what comes.
    door.channels("--refuse upload --refuse export --refuse export-data")?;
    door.sftp("pwd\n")?.refused("not open in study:door")?;
    door.end()
}

/// Ports of the workspace, and nothing else, as the study says.
#[test]
fn ports_of_the_workspace_are_forwarded_where_the_study_lets_them() -> Result<()> {
    let door = Door::new("door-ports")?;
    let through = |to: &str| {
        run("ssh")
            .arg("-F")
            .arg(door.device.home.join("ssh_config"))
            .args("-o BatchMode=yes -W")
            .arg(to)
            .arg("door@gate")
    };
    through("localhost:8888").go()?.refused("not open in study:door")?;
    door.channels("--allow port-forwarding")?;
    through("localhost:8888").go()?.refused("answers on port 8888")?;
    through("10.0.0.1:80").go()?.refused("not to other machines")?;
    through(&format!("127.0.0.1:{}", door.node.ports.api)).go()?.refused("answers on port")?;
    let mut server = door
        .device
        .ssh("door", "")
        .arg("mkdir -p web && echo hello > web/page && cd web && exec python3 -m http.server 8888 --bind 127.0.0.1")
        .command()
        .stdin(Stdio::null())
        .spawn()?;
    let page = wait_for("the page is served", Duration::from_secs(30), || {
        let asked = through("localhost:8888").stdin("GET /page HTTP/1.0\r\n\r\n").go().ok()?;
        asked.text().contains("hello").then_some(asked)
    });
    server.kill()?;
    server.wait()?;
    page?;
    door.recorded(&["channel_opened", "port-forwarding", "to port 8888"])?;
    door.device
        .ssh("door", "-o ExitOnForwardFailure=yes -R 0:127.0.0.1:1")
        .arg("true")
        .go()?
        .refused("forwarding")?;
    door.recorded(&["channel_refused", "gate/channel/remote-forwarding/refuse"])?;
    door.end()
}

/// The stock client with many channels in one connection, PuTTY's, git, and two libraries.
#[test]
fn the_clients_that_people_have_all_work() -> Result<()> {
    let door = Door::new("door-clients")?;
    let home = &door.device.home;

    let control = format!("ControlPath={}", door.dir.join("mux").display());
    let mut master = door.client("ssh").args("-M -N -o").arg(&control).arg("door@gate").command().spawn()?;
    wait_for("the master", Duration::from_secs(20), || door.dir.join("mux").exists().then_some(()))?;
    let mut many = Vec::new();
    for i in 0..20 {
        let mut one =
            door.client("ssh").arg("-o").arg(&control).arg("door@gate").arg(format!("cat; exit {i}"));
        one = one.stdin("x");
        many.push(std::thread::spawn(move || one.go()));
    }
    for (i, one) in many.into_iter().enumerate() {
        let ran = one.join().map_err(|_| anyhow::anyhow!("a client broke"))??;
        ensure!((ran.code(), ran.text().as_str()) == (i32::try_from(i)?, "x"), "{i}: {ran:?}");
    }
    // A rule that changes holds for the connection that is there.
    door.channels("--refuse exec")?;
    door.client("ssh")
        .arg("-o")
        .arg(&control)
        .arg("door@gate")
        .arg("true")
        .go()?
        .refused("single commands are not open")?;
    door.channels("--allow exec")?;
    master.kill()?;
    master.wait()?;

    door.inside("git init -q --bare repo.git")?.ok()?;
    let clone = door.dir.join("clone");
    let git = |words: &str| {
        let ssh = format!("ssh -F {}", home.join("ssh_config").display());
        run("git").env("GIT_SSH_COMMAND", ssh).args(words)
    };
    git("clone -q door@gate:repo.git").arg(&clone).go()?.ok()?;
    fs::write(clone.join("a"), noise(1 << 20)?)?;
    let at = format!("-C {} -c user.name=a -c user.email=a@b", clone.display());
    git(&at).args("add a").go()?.ok()?;
    git(&at).args("commit -q -m a").go()?.ok()?;
    git(&at).args("push -q origin HEAD:main").go()?.ok()?;
    git(&at).args("ls-remote").go()?.ok()?;

    let config = fs::read_to_string(home.join("ssh_config"))?;
    let named = |name: &str| {
        let line = config.lines().find(|line| line.trim_start().starts_with(name));
        let value = line.and_then(|line| line.trim().split_once(' ')).map(|(_, value)| value);
        value.map(|value| value.trim().trim_matches('"').to_owned()).with_context(|| format!("no {name}"))
    };
    let (key, certificate) = (named("IdentityFile")?, named("CertificateFile")?);
    let python = PathBuf::from(std::env::var("HOME")?).join(".cache/sekisho/python/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/libraries.py");
    for exports in ["0", "1"] {
        if exports == "1" {
            door.channels("--allow export")?;
        }
        let ran = run(&python)
            .arg(&script)
            .arg("127.0.0.1")
            .arg(door.node.ports.ssh.to_string())
            .arg("door")
            .args(&format!("{key} {certificate} {exports}"))
            .within(Duration::from_secs(110))
            .go()?
            .ok()?;
        println!("{}", ran.text());
        ensure!(ran.text().matches("held:").count() == 9, "{}", ran.text());
    }

    let mut file = fs::File::create(door.dir.join("key.ppk.pass"))?;
    file.write_all(b"")?;
    let ppk = door.dir.join("key.ppk");
    run("puttygen").arg(&key).args("-O private --new-passphrase /dev/null -o").arg(&ppk).go()?.ok()?;
    let plink = run("plink")
        .args(&format!("-ssh -batch -P {} -i", door.node.ports.ssh))
        .arg(&ppk)
        .arg("-cert")
        .arg(&certificate)
        .args("-hostkey")
        .arg(host_key(&door)?)
        .args("door@127.0.0.1")
        .arg("echo plink; exit 3")
        .go()?;
    ensure!((plink.code(), plink.text().as_str()) == (3, "plink"), "{plink:?}");
    door.end()
}

/// The newest OpenSSH agrees on keys that a quantum computer does not break, knows the door by its
/// certificate, and works as the one of this machine does.
#[test]
fn the_newest_openssh_is_at_home_as_well() -> Result<()> {
    let door = Door::new("door-newest")?;
    door.channels("--allow export")?;
    let newest = PathBuf::from(std::env::var("HOME")?).join(".cache/sekisho/openssh/bin");
    let client = |program: &str| door.client(&newest.join(program).to_string_lossy());
    let said = client("ssh").arg("-V").go()?.ok()?.complaint();
    let version = said.strip_prefix("OpenSSH_").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    ensure!(version.is_some_and(|version| version >= 10), "{said}");

    let bytes = noise(3 << 20)?;
    let ran = client("ssh").args("-v door@gate").arg("cat; exit 5").stdin(bytes.clone()).go()?;
    ensure!((ran.code(), &ran.stdout) == (5, &bytes), "{}", ran.complaint());
    let told = ran.complaint();
    for part in ["kex: algorithm: mlkem768x25519-sha256", "matches the ED25519-CERT host certificate"] {
        ensure!(told.contains(part), "no {part:?} in\n{told}");
    }
    let screen =
        client("ssh").args("-tt door@gate").stdin("stty size; echo 関所$((1+1)); exit\n").go()?.ok()?;
    ensure!(screen.text().contains("関所2"), "{screen:?}");
    let (here, back) = (door.dir.join("here"), door.dir.join("back"));
    fs::write(&here, &bytes)?;
    // Its own `ssh` carries `sftp` and `scp`.
    let ssh = format!("-S {}", newest.join("ssh").display());
    client("sftp")
        .args(&ssh)
        .args("-b - door@gate")
        .stdin(format!("put {} there\n", here.display()))
        .go()?
        .ok()?;
    client("scp").args(&ssh).arg("door@gate:there").arg(&back).go()?.ok()?;
    ensure!(fs::read(&back)? == bytes, "other bytes came back");

    let control = format!("ControlPath={}", door.dir.join("mux").display());
    let mut master = client("ssh").args("-M -N -o").arg(&control).arg("door@gate").command().spawn()?;
    wait_for("the master", Duration::from_secs(20), || door.dir.join("mux").exists().then_some(()))?;
    let many = (0..10).map(|at| {
        client("ssh").arg("-o").arg(&control).arg("door@gate").arg(format!("echo {at}; exit {at}"))
    });
    let many: Vec<_> = many.map(|one| std::thread::spawn(move || one.go())).collect();
    for (at, one) in many.into_iter().enumerate() {
        let ran = one.join().map_err(|_| anyhow::anyhow!("a client broke"))??;
        ensure!((ran.code(), ran.text()) == (i32::try_from(at)?, at.to_string()), "{ran:?}");
    }
    master.kill()?;
    master.wait()?;
    door.end()
}

/// The fingerprint of the door's bare key, as PuTTY wants it.
fn host_key(door: &Door) -> Result<String> {
    let scanned =
        run("ssh-keyscan").args(&format!("-t ed25519 -p {} 127.0.0.1", door.node.ports.ssh)).go()?.ok()?;
    let file = door.dir.join("scanned");
    fs::write(&file, scanned.text() + "\n")?;
    let shown = run("ssh-keygen").arg("-lf").arg(&file).go()?.ok()?.text();
    Ok(shown.split(' ').nth(1).context("no fingerprint")?.to_owned())
}

/// What is offered to strangers has no known weakness.
#[test]
fn an_audit_of_the_door_finds_nothing() -> Result<()> {
    let door = Door::new("door-audit")?;
    let audit = PathBuf::from(std::env::var("HOME")?).join(".cache/sekisho/python/bin/ssh-audit");
    // Without its count of connections each second: what that is a measure of, exchanges over finite
    // fields, is not offered, and one address may be a whole hospital's.
    let ran = run(audit).args(&format!("--skip-rate-test -j -p {} 127.0.0.1", door.node.ports.ssh)).go()?;
    let found: Value = serde_json::from_slice(&ran.stdout).context("no report")?;
    ensure!(found["cves"].as_array().is_none_or(Vec::is_empty), "{:#}", found["cves"]);
    let findings = |kind: &str| {
        let lists = ["kex", "key", "enc", "mac"].iter().filter_map(|part| found[part].as_array());
        let with = lists.flatten().filter_map(|entry| {
            let notes = entry["notes"][kind].as_array().filter(|notes| !notes.is_empty())?;
            Some(format!("{}: {notes:?}", entry["algorithm"]))
        });
        with.collect::<Vec<_>>()
    };
    ensure!(findings("fail").is_empty(), "{:?}", findings("fail"));
    // X25519 alone is for clients that have nothing newer, and that is all there is to say.
    let warned = findings("warn");
    let expected = |found: &String| found.contains("curve25519") && found.contains("post-quantum attacks");
    ensure!(warned.len() == 2 && warned.iter().all(expected), "{warned:?}");
    let offered: Vec<&str> =
        found["kex"].as_array().context("no kex")?.iter().filter_map(|k| k["algorithm"].as_str()).collect();
    ensure!(offered.first() == Some(&"mlkem768x25519-sha256"), "{offered:?}");
    ensure!(offered.contains(&"kex-strict-s-v00@openssh.com"), "{offered:?}");
    door.end()
}
