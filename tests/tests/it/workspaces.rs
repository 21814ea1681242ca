//! Workspaces before real clients: by name, within limits, and alive when processes of the node are
//! not.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::command::{Ran, run, wait_for};
use tests::node::{Device, Node, binary, left_behind};

use super::folder;

/// How long a node may take to be itself again.
const AGAIN: Duration = Duration::from_secs(60);

struct House {
    dir: PathBuf,
    node: Node,
    device: Device,
}

impl House {
    fn new(name: &str) -> Result<House> {
        let dir = folder(name)?;
        let (node, device) = Node::with_a_study(&dir, "brca", &[&tests::data().join("q.fa")])?;
        Ok(House { dir, node, device })
    }

    fn sekisho(&self, words: &str) -> Result<Ran> {
        self.device.sekisho(words)?.go()?.ok()
    }

    fn inside(&self, who: &str, line: &str) -> Result<Ran> {
        self.device.ssh(who, "").arg(line).go()
    }

    /// Something that goes on when its session has ended, and counts; its number in the workspace.
    fn job(&self, who: &str) -> Result<String> {
        let job = "nohup bash -c 'while :; do cat /data/*/* > /dev/null && echo x >> ticks; sleep 0.1; done' > log 2>&1 & echo $!";
        Ok(self.inside(who, job)?.ok()?.text())
    }

    fn ticks(&self, who: &str) -> Result<usize> {
        Ok(self.inside(who, "wc -l < ticks")?.ok()?.text().trim().parse()?)
    }

    /// A client that is connected, and what it says on its standard error.
    fn live(&self, who: &str) -> Result<Child> {
        let mut command = self.device.ssh(who, "").arg("echo in; sleep 1000").command();
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("no stdout")?).read_line(&mut line)?;
        ensure!(line == "in\n", "{line:?}");
        Ok(child)
    }

    fn event(&self, parts: &[&str]) -> Result<Value> {
        self.node.event(&parts.join(", "), |event| {
            let text = event.to_string();
            parts.iter().all(|part| text.contains(part))
        })
    }

    /// Kills a process of the node outright and waits until another has taken its place.
    fn kill(&self, name: &str) -> Result<Pid> {
        let old = self.node.process(name)?;
        kill(old, Signal::SIGKILL)?;
        wait_for("its successor", AGAIN, || self.node.process(name).ok().filter(|new| *new != old))
    }

    /// Waits until the door lets people in again.
    fn back(&self) -> Result<Ran> {
        wait_for("the door", AGAIN, || self.inside("brca", "true").ok().filter(|ran| ran.status.success()))
    }

    fn end(self) -> Result<()> {
        self.node.stop()?;
        let left = left_behind(&self.dir)?;
        ensure!(left.is_empty(), "left behind: {left:#?}");
        fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

fn ended(mut child: Child) -> Result<(Option<i32>, String)> {
    let status = wait_for("the client", AGAIN, || child.try_wait().ok().flatten())?;
    let mut said = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().context("no stderr")?, &mut said)?;
    Ok((status.code(), said))
}

/// What a study gives is what there is: of everything.
#[test]
fn needs_root_a_study_gives_so_much_and_no_more() -> Result<()> {
    let house = House::new("ws-limits")?;
    let limits = "study limits brca --cpus 0.5 --memory 128MiB --disk 32MiB --processes 40 --sessions 2 --workspaces 2";
    let said = house.sekisho(limits)?.text();
    ensure!(said.contains("0.5 processors, 128 MiB"), "{said}");
    house.device.sekisho("study limits brca --sessions 0")?.go()?.refused("from 1 to 1024")?;

    let full = house.inside("brca", "head -c 100m /dev/zero > big; df --output=size -m . | tail -1")?;
    ensure!(full.complaint().contains("No space left on device"), "{full:?}");
    ensure!(full.text().trim().parse::<u64>()? <= 32, "{full:?}");
    let told = house.inside("brca", "rm big")?.ok()?.complaint();
    ensure!(told.contains("Your home is full"), "{told}");
    let hog = house.inside("brca", "head -c 300m /dev/zero | tail -c 299m | wc -c; echo ${PIPESTATUS[1]}")?;
    ensure!(hog.text().contains("137"), "{hog:?}");
    let fork = "perl -e 'for (1..80) { defined(my $p = fork) or do { print \"refused at $_\"; exit }; $p or exit sleep 20 }'";
    let forks = house.inside("brca", fork)?;
    ensure!(forks.text().starts_with("refused at 3"), "{forks:?}");
    let busy = "a=$(awk '{print $1}' /proc/uptime); perl -e '1 for 1..40000000'; t=$(times | tail -1); echo $a $(awk '{print $1}' /proc/uptime) $t";
    let ran = house.inside("brca", busy)?.ok()?.text();
    let words: Vec<&str> = ran.split_whitespace().collect();
    let wall = words[1].parse::<f64>()? - words[0].parse::<f64>()?;
    let cpu = words[2].trim_end_matches('s').rsplit('m').next().context("no time")?.parse::<f64>()?;
    println!("half a processor: {cpu:.2} s of work took {wall:.2} s");
    ensure!(wall > cpu * 1.5, "{ran}");

    let (one, two) = (house.live("brca")?, house.live("brca+big")?);
    let third = house.inside("brca", "true")?;
    ensure!(third.code() == 77, "{third:?}");
    third.refused("2 sessions at once, and you have 2")?;
    house.event(&["session_refused", "study:brca/limits/sessions", "over-limit"])?;
    for mut child in [one, two] {
        child.kill()?;
        child.wait()?;
    }
    wait_for("the sessions to end", AGAIN, || {
        house.inside("brca", "true").ok()?.status.success().then_some(())
    })?;
    house.inside("brca+third", "true")?.refused("2 workspaces, and you have 2")?;

    // By name, and by choice.
    house.inside("brca+big", "echo mine > note")?.ok()?;
    ensure!(house.inside("brca", "ls note")?.code() != 0, "two workspaces have one home");
    house.inside("admin", "true")?.refused("brca+big, brca")?;
    let list: Value = serde_json::from_str(&house.sekisho("--json ws list")?.text())?;
    let names: Vec<&str> =
        list.as_array().context("no list")?.iter().filter_map(|row| row["name"].as_str()).collect();
    ensure!(names == ["big", "main"], "{list}");
    house.sekisho("ws stop brca big")?;
    let list: Value = serde_json::from_str(&house.sekisho("--json ws list")?.text())?;
    ensure!(list[0]["running"] == false && list[1]["running"] == true, "{list}");
    ensure!(house.inside("brca+big", "cat note")?.ok()?.text() == "mine", "the home is gone");
    house.sekisho("ws stop brca big")?;
    house.sekisho("ws remove brca big")?;
    ensure!(house.inside("brca+big", "cat note")?.code() != 0, "the home is still there");
    house.end()
}

/// A broker that is killed, one that is told to go, and a lost link drop no workspace; a signer that is
/// killed is not noticed by what runs; what a killed agent leaves is gone when it is back.
#[test]
fn needs_root_what_runs_outlives_the_broker_and_nothing_outlives_the_agent() -> Result<()> {
    let house = House::new("ws-kills")?;
    let job = house.job("brca")?;
    let live = house.live("brca")?;
    let before = house.ticks("brca")?;

    // The broker, outright.
    house.kill("sekisho-broker")?;
    let (code, _) = ended(live)?;
    ensure!(code == Some(255), "{code:?}");
    let began = Instant::now();
    house.back()?;
    println!("killed broker to first session: {:?}", began.elapsed());
    let same = house.inside("brca", &format!("tr '\\0' ' ' < /proc/{job}/cmdline"))?.ok()?.text();
    ensure!(same.contains("echo x >> ticks"), "{same}");
    ensure!(house.ticks("brca")? > before, "it stands still");
    house.event(&["session_closed", "the broker was restarted"])?;

    // The signer: nothing that runs knows.
    let live = house.live("brca")?;
    house.kill("sekisho-signer")?;
    let now = house.ticks("brca")?;
    wait_for("the job", AGAIN, || (house.ticks("brca").ok()? > now).then_some(()))?;

    // The broker, in an orderly way.
    house.sekisho("drain --within 3s")?;
    let (code, said) = ended(live)?;
    ensure!(code == Some(75), "{code:?}: {said}");
    ensure!(said.contains("taken out of service in 3 s") && said.contains("Connect again"), "{said}");
    house.back()?;
    let now = house.ticks("brca")?;
    wait_for("the job", AGAIN, || (house.ticks("brca").ok()? > now).then_some(()))?;
    house.event(&["session_ended", "shutdown"])?;

    // The agent: everything on it ends, and is gone when it is back.
    let live = house.live("brca")?;
    house.kill("sekisho-agent")?;
    let (code, said) = ended(live)?;
    ensure!(code == Some(75) && said.contains("lost from sight"), "{code:?}: {said}");
    house.event(&["session_closed", "the host of the workspace was lost"])?;
    house.back()?;
    let gone = house.inside("brca", "pgrep -f 'echo x >> tick[s]'; wc -l < ticks")?.ok()?.text();
    ensure!(gone.parse::<usize>().is_ok(), "{gone}");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let own = house.dir.join("node/agent/disks");
    let loops = run("losetup").args("--list --noheadings --output BACK-FILE").go()?.text();
    ensure!(loops.matches(&*own.to_string_lossy()).count() == 1, "{loops}\n{mounts}");

    // A revocation reaches what nobody is in.
    house.job("brca")?;
    let grants: Value = serde_json::from_str(&house.sekisho("--json grant list")?.text())?;
    let grant = grants[0]["id"].as_str().context("no grant")?.to_owned();
    let began = Instant::now();
    house.sekisho(&format!("grant revoke {grant} --reason withdrawn"))?;
    house.event(&["workspace_stopped", "withdrawn"])?;
    println!("revocation to the record of the end of what nobody was in: {:?}", began.elapsed());
    let processes = run("pgrep").args("-f").arg("echo x >> ticks").go()?;
    ensure!(processes.text().is_empty(), "{processes:?}");
    let open: Vec<Value> = house.node.events()?;
    let count =
        |kind: &str| open.iter().filter(|event| event.to_string().contains(&format!("\"{kind}\""))).count();
    ensure!(
        count("session_opened") == count("session_closed"),
        "{} opened, {} closed",
        count("session_opened"),
        count("session_closed")
    );
    house.end()
}

/// Another agent of the same node.
struct Agent {
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Agent {
    fn start(house: &House, name: &str) -> Result<Agent> {
        let dir = house.dir.join(name);
        fs::create_dir_all(&dir)?;
        let first = fs::read_to_string(house.node.dir.join("agent/config.toml"))?;
        let text = first.replace("agent = \"main\"", &format!("agent = \"{name}\""));
        ensure!(text != first, "{first}");
        let text = text.replace("../backends", &house.node.dir.join("backends").to_string_lossy());
        fs::write(dir.join("config.toml"), text)?;
        let token = house.sekisho(&format!("agent token {name}"))?.text();
        fs::write(dir.join("enrol.token"), token)?;
        let log = fs::File::create(dir.join("log"))?;
        let mut command = std::process::Command::new(binary("sekisho-agent")?);
        let child =
            command.arg("--dir").arg(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let agent = Agent { child };
        wait_for("the agent", AGAIN, || house.agent(name).ok().filter(|row| row["connected"] == true))?;
        Ok(agent)
    }

    fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let status = wait_for("the agent stops", AGAIN, || self.child.try_wait().ok().flatten())?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl House {
    fn agent(&self, name: &str) -> Result<Value> {
        let all: Value = serde_json::from_str(&self.sekisho("--json agent list")?.text())?;
        let row = all.as_array().and_then(|all| all.iter().find(|row| row["id"] == format!("agent:{name}")));
        row.cloned().with_context(|| format!("no {name} in {all}"))
    }
}

/// Of two agents the one in service is taken; a workspace stays where its home is; a drained agent is
/// left without anybody being cut off unawares.
#[test]
fn needs_root_workspaces_are_placed_and_agents_go_out_of_service() -> Result<()> {
    let house = House::new("ws-agents")?;
    house.inside("brca", "echo here > note")?.ok()?;
    let second = Agent::start(&house, "hall-2")?;
    let on = |who: &str| -> Result<&str> {
        let name = who.strip_prefix("brca+").map(|name| format!(".{name}")).unwrap_or_default();
        let event = house.event(&["session_opened", &format!("\"ws:brca.admin{name}\"")])?.to_string();
        Ok(if event.contains("agent:hall-2") { "hall-2" } else { "main" })
    };
    house.sekisho("agent drain main --within 4s")?;
    let live = house.live("brca+new")?;
    ensure!(on("brca+new")? == "hall-2", "it was put on the agent that is drained");
    // What runs on the drained one may be entered until its time is over, and is then refused.
    wait_for("the end of main", AGAIN, || {
        house.inside("brca", "true").ok().filter(|ran| ran.complaint().contains("taken out of service"))
    })?;
    house.sekisho("agent drain main --undo")?;
    ensure!(house.inside("brca", "cat note")?.ok()?.text() == "here", "its home is elsewhere");

    // Told, and ended with a word.
    house.sekisho("agent drain hall-2 --within 2s")?;
    let (code, said) = ended(live)?;
    ensure!(code == Some(75), "{code:?}: {said}");
    ensure!(said.contains("host of this workspace is taken out of service in 2 s"), "{said}");
    second.stop()?;
    house.inside("brca+new", "true")?.refused("hall-2, which is not connected")?;
    house.end()
}

/// A terminal as people use it: Japanese, another size, new keys in the middle of bulk.
#[test]
fn needs_root_a_long_session_is_a_good_one() -> Result<()> {
    let house = House::new("ws-terminal")?;
    let words = "研究者は関所を通る";
    let seen = house
        .inside(
            "brca",
            &format!("locale charmap 2>/dev/null; echo {words} | tee 結果.txt; ls; echo {words} | wc -m"),
        )?
        .ok()?;
    ensure!(seen.text().contains("UTF-8") && seen.text().contains("結果.txt"), "{seen:?}");
    ensure!(seen.text().ends_with(&(words.chars().count() + 1).to_string()), "{seen:?}");

    // New keys every megabyte, both ways at once, and questions whether anybody is there.
    let options = "-o RekeyLimit=1M -o ServerAliveInterval=1 -v";
    let bulk = vec![b'x'; 24 << 20];
    let ran = house.device.ssh("brca", options).arg("cat; sleep 3").stdin(bulk.clone()).go()?.ok()?;
    ensure!(ran.stdout == bulk, "{} bytes came back", ran.stdout.len());
    let keys = ran.complaint().matches("SSH2_MSG_NEWKEYS received").count();
    println!("new keys {keys} times in 24 MiB each way");
    ensure!(keys > 10, "{keys} exchanges of keys");

    // A real terminal that changes its size.
    let script = house.dir.join("terminal.py");
    fs::File::create(&script)?.write_all(TERMINAL.as_bytes())?;
    let ssh = house.device.ssh("brca", "-tt").line();
    let ran = run("python3").arg(&script).arg(ssh).within(Duration::from_secs(60)).go()?.ok()?;
    let shown = ran.text();
    ensure!(shown.contains("sizes 24 80 then 50 132"), "{shown}");
    ensure!(shown.contains("got 関所"), "{shown}");
    house.end()
}

/// libssh, a mount, and what an editor does: a server that lives long, many ports and commands beside it,
/// all in one connection.
#[test]
fn needs_root_libraries_mounts_and_editors_work() -> Result<()> {
    let house = House::new("ws-clients")?;
    for change in ["--allow export", "--allow port-forwarding"] {
        house.sekisho(&format!("study channels brca {change}"))?;
    }
    let config = house.device.home.join("ssh_config");
    let python = PathBuf::from(std::env::var("HOME")?).join(".cache/sekisho/python/bin/python");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/libssh.py");
    let ran = run(python)
        .arg(script)
        .args(&format!("127.0.0.1 {} brca", house.node.ports.ssh))
        .arg(house.device.home.join("id_ed25519"))
        .go()?
        .ok()?;
    ensure!(ran.text().matches("held:").count() == 2, "{ran:?}");

    let at = house.dir.join("mounted");
    fs::create_dir(&at)?;
    run("sshfs").arg("-F").arg(&config).arg("brca@gate:").arg(&at).go()?.ok()?;
    let mounted = (|| -> Result<()> {
        fs::create_dir(at.join("解析"))?;
        let noise: Vec<u8> =
            (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(at.join("解析/noise"), &noise)?;
        ensure!(fs::read(at.join("解析/noise"))? == noise, "other bytes came back");
        fs::rename(at.join("解析/noise"), at.join("moved"))?;
        ensure!(fs::metadata(at.join("moved"))?.len() == 3_000_000);
        fs::remove_file(at.join("moved"))?;
        Ok(())
    })();
    run("fusermount3").arg("-u").arg(&at).go()?.ok()?;
    mounted?;

    let mux = house.dir.join("mux");
    let through = |words: &str| {
        let control = format!("ControlPath={}", mux.display());
        run("ssh")
            .arg("-F")
            .arg(&config)
            .args("-o BatchMode=yes -o")
            .arg(control)
            .args(words)
            .arg("brca@gate")
    };
    let mut master = through("-M -N").command().spawn()?;
    wait_for("the master", AGAIN, || mux.exists().then_some(()))?;
    let serve = "mkdir -p web && for n in $(seq 40); do echo page $n > web/$n; done && cd web && exec python3 -m http.server 8888 --bind 127.0.0.1";
    let mut server = through("").arg(serve).command().stdin(Stdio::piped()).spawn()?;
    wait_for("the server", AGAIN, || {
        let asked = through("-W localhost:8888").stdin("GET /1 HTTP/1.0\r\n\r\n").go().ok()?;
        asked.text().contains("page 1").then_some(())
    })?;
    let mut many = Vec::new();
    for n in 1..=40 {
        let page = through("-W localhost:8888").stdin(format!("GET /{n} HTTP/1.0\r\n\r\n"));
        let command = through("").arg(format!("cat web/{n}"));
        many.push(std::thread::spawn(move || -> Result<()> {
            let (page, command) = (page.go()?.ok()?.text(), command.go()?.ok()?.text());
            let told = format!("page {n}");
            ensure!(page.ends_with(&told) && command == told, "{n}: {page:?} {command:?}");
            Ok(())
        }));
        if n % 10 == 0 {
            for one in many.drain(..) {
                one.join().map_err(|_| anyhow::anyhow!("a client broke"))??;
            }
        }
    }
    ensure!(server.try_wait()?.is_none(), "the server ended");
    for child in [&mut server, &mut master] {
        child.kill()?;
        child.wait()?;
    }
    house.end()
}

const TERMINAL: &str = r#"
import fcntl, os, pty, select, shlex, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    words = shlex.split(sys.argv[1])
    os.execvp(words[0], words)
def size(rows, cols):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    os.kill(pid, 28)
seen = b""
def until(mark):
    global seen
    end = time.time() + 30
    while mark not in seen:
        if time.time() > end:
            sys.exit("waited for %r in vain: %r" % (mark, seen))
        if select.select([fd], [], [], 0.2)[0]:
            try:
                seen += os.read(fd, 65536)
            except OSError:
                sys.exit("it ended: %r" % seen)
size(24, 80)
until(b"$ ")
os.write(fd, "trap 'echo changed-$((1+1))' WINCH; a=$(stty size); echo rea''dy\n".encode())
until(b"ready")
size(50, 132)
until(b"changed-2")
os.write(fd, "echo sizes $a then $(stty size); read x; echo got $x; exit\n".encode())
until(b"sizes ")
os.write(fd, "関所\n".encode())
until("got 関所".encode())
print(seen.decode("utf-8", "replace").replace("\r", ""))
"#;
