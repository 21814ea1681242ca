//! Sessions through the broker against a direct `sshd` on the same machine, in the same run,
//! alternating; the client, both servers, the tunnel and the agent share the cores.
//!
//! Each figure is the median over rounds. A ratio above 1 means that ours is better.

mod sessions;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::command::{Run, run, wait_for};
use tests::crowd;
use tests::measure::{Figure, median, report};
use tests::node::{Device, Node, Ports};

const BULK: u64 = 512 << 20;
const BULK_ROUNDS: usize = 5;
/// A file that `sftp` carries.
const FILE: u64 = 1 << 30;
const FILE_ROUNDS: usize = 5;
const CIPHERS: [(&str, &str); 2] =
    [("chacha20", "chacha20-poly1305@openssh.com"), ("aes256gcm", "aes256-gcm@openssh.com")];

fn main() -> Result<()> {
    // `cargo test --benches` and friends ask for lists; there is nothing to list.
    if std::env::args().any(|arg| arg == "--list" || arg == "--test") {
        return Ok(());
    }
    let dir = std::env::temp_dir().join("sekisho-bench-ssh");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let bench = Bench::set_up(&dir)?;
    // `cargo bench --bench ssh -- echo bulk`: only these.
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|arg| arg == part);
    // Sessions first: what bulk leaves in the broker's memory would hide what a session takes.
    if wanted("setup") {
        report(&[bench.setup()?, bench.cold()?])?;
    }
    if wanted("echo") {
        report(&bench.echo()?)?;
    }
    if wanted("crowd") {
        report(&bench.crowd()?)?;
    }
    if wanted("bulk") {
        report(&bench.both_ways("")?)?;
    }
    if wanted("recorded") {
        // With the limit that studies begin with: what is beyond is counted and hashed, and that is on
        // record. What people type, and so what goes up, is not recorded by default.
        bench.device.sekisho("study recording bench --commands yes")?.go()?.ok()?;
        report(&bench.both_ways("/recorded")?)?;
        bench.device.sekisho("study recording bench --commands no")?.go()?.ok()?;
    }
    if wanted("sftp") {
        report(&bench.files(&dir)?)?;
    }
    bench.node.stop()?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

struct Bench {
    node: Node,
    device: Device,
    people: Vec<Device>,
    direct: PathBuf,
    sshd: Sshd,
}

struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Bench {
    fn set_up(dir: &Path) -> Result<Bench> {
        let (node, admin) = Node::with_a_study(dir, "bench", &[&tests::data().join("q.fa")])?;
        let node = crowd::roomy(node, sessions::CROWD + 100)?;
        let people = crowd::people(dir, &node, &admin, "bench", sessions::PEOPLE, sessions::CROWD)?;
        // Each opens a workspace when it is first entered; that is not what is measured.
        for person in &people {
            person.ssh("bench", "").arg("true").go()?.ok()?;
        }
        let (sshd, direct) = direct_sshd(dir, &admin.home)?;
        Ok(Bench { node, device: admin, people, direct, sshd })
    }

    fn ours(&self, options: &str) -> Run {
        self.device.ssh("bench", options)
    }

    fn theirs(&self, options: &str) -> Run {
        run("ssh").arg("-F").arg(&self.direct).args(options).arg("root@direct")
    }

    /// Megabytes per second of one file by `sftp`, set-up included: our server behind the broker, which
    /// reads along and hashes, against OpenSSH's own.
    fn files(&self, dir: &Path) -> Result<Vec<Figure>> {
        self.device.sekisho("study channels bench --allow export")?.go()?.ok()?;
        // In memory, so that no disk is measured; the far side is a disk for both.
        let here = tempfile_in_memory()?;
        let shown = here.display();
        let home = dir.join("sshd");
        let ours = |words: &str| self.sftp(&self.device.home.join("ssh_config"), "bench@gate", words);
        let theirs = |words: &str| {
            self.sftp(&self.direct, "root@direct", &words.replace("big", &home.join("big").to_string_lossy()))
        };
        let (put, get) = (format!("put {shown} big"), "get big /dev/null".to_owned());
        let mut figures = Vec::new();
        for (name, words) in [("ssh/sftp/put", put), ("ssh/sftp/get", get)] {
            let (mut mine, mut other) = (Vec::new(), Vec::new());
            let before = self.spent()?;
            for _ in 0..FILE_ROUNDS {
                mine.push(ours(&words)?);
                other.push(theirs(&words)?);
            }
            self.tell(name, before, FILE * FILE_ROUNDS as u64)?;
            figures.push(Figure::more_is_better(name, "MB/s", median(&mut mine), "sshd", median(&mut other)));
        }
        fs::remove_file(here)?;
        Ok(figures)
    }

    fn sftp(&self, config: &Path, to: &str, words: &str) -> Result<f64> {
        let ran = run("sftp")
            .arg("-F")
            .arg(config)
            .args("-q -o Compression=no -c aes256-gcm@openssh.com -b -")
            .arg(to)
            .stdin(format!("{words}\n"))
            .within(Duration::from_secs(300))
            .go()?
            .ok()?;
        Ok(FILE as f64 / 1e6 / ran.took.as_secs_f64())
    }

    /// Down and up with every cipher.
    fn both_ways(&self, how: &str) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for (name, cipher) in CIPHERS {
            figures.push(self.bulk(&format!("ssh/bulk/down/{name}{how}"), cipher, true)?);
            figures.push(self.bulk(&format!("ssh/bulk/up/{name}{how}"), cipher, false)?);
        }
        Ok(figures)
    }

    /// Megabytes per second of zeros, set-up included.
    fn bulk(&self, name: &str, cipher: &str, down: bool) -> Result<Figure> {
        let options = format!("-c {cipher} -o Compression=no");
        let rate = |run: Run| -> Result<f64> {
            // The client's own input and output must not be what is measured: no pipe to us.
            let mut command = run.command();
            let child = if down {
                command.stdin(Stdio::null()).stdout(Stdio::null())
            } else {
                let zeros = Command::new("head")
                    .args(["-c", &BULK.to_string(), "/dev/zero"])
                    .stdout(Stdio::piped())
                    .spawn()?
                    .stdout
                    .context("no stdout")?;
                command.stdin(Stdio::from(zeros)).stdout(Stdio::null())
            };
            let began = std::time::Instant::now();
            let status = child.stderr(Stdio::inherit()).status()?;
            ensure!(status.success(), "{}: {status}", run.line());
            Ok(BULK as f64 / 1e6 / began.elapsed().as_secs_f64())
        };
        let command = if down { format!("head -c {BULK} /dev/zero") } else { "cat >/dev/null".to_owned() };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let before = self.spent()?;
        for _ in 0..BULK_ROUNDS {
            ours.push(rate(self.ours(&options).arg(&command))?);
            theirs.push(rate(self.theirs(&options).arg(&command))?);
        }
        self.tell(name, before, BULK * BULK_ROUNDS as u64)?;
        Ok(Figure::more_is_better(name, "MB/s", median(&mut ours), "sshd", median(&mut theirs)))
    }

    /// Seconds of processors that the broker and the agent have used.
    fn spent(&self) -> Result<(f64, f64)> {
        Ok((seconds(self.node.process("sekisho-broker")?)?, seconds(self.node.process("sekisho-agent")?)?))
    }

    /// Where the time went, for whoever looks for it.
    fn tell(&self, name: &str, before: (f64, f64), bytes: u64) -> Result<()> {
        let (after, gigabytes) = (self.spent()?, bytes as f64 / 1e9);
        println!(
            "{name}: {:.2} s of a processor for each GB in the broker, {:.2} s in the agent",
            (after.0 - before.0) / gigabytes,
            (after.1 - before.1) / gigabytes
        );
        Ok(())
    }
}

/// Seconds of processors that a process has used (proc_pid_stat(5): `utime` and `stime`).
fn seconds(pid: nix::unistd::Pid) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold blanks; it is in parentheses.
    let after = stat.rsplit(')').next().context("no stat")?;
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    let each = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock")?;
    Ok(ticks as f64 / each as f64)
}

/// A file of [`FILE`] bytes that are not all the same.
fn tempfile_in_memory() -> Result<PathBuf> {
    let path = PathBuf::from("/dev/shm").join(format!("sekisho-bench-{}", std::process::id()));
    let mut piece = vec![0; 1 << 20];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut piece)?;
    let mut file = fs::File::create(&path)?;
    for _ in 0..FILE >> 20 {
        std::io::Write::write_all(&mut file, &piece)?;
    }
    Ok(path)
}

/// A stock `sshd` on loopback that takes the same key, and a configuration for the client.
fn direct_sshd(dir: &Path, home: &Path) -> Result<(Sshd, PathBuf)> {
    let folder = dir.join("sshd");
    fs::create_dir_all(&folder)?;
    fs::create_dir_all("/run/sshd").ok();
    run("ssh-keygen").args("-q -t ed25519 -N").arg("").arg("-f").arg(folder.join("host")).go()?.ok()?;
    fs::copy(home.join("id_ed25519.pub"), folder.join("authorized_keys"))?;
    let port = Ports::free()?.ssh;
    let shown = folder.display();
    // Another home: what this machine's root has in its shell's start-up files is no peer of ours.
    fs::write(
        folder.join("sshd_config"),
        format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {shown}/host\nPidFile {shown}/pid\n\
             AuthorizedKeysFile {shown}/authorized_keys\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\n\
             StrictModes no\nUseDNS no\nPrintMotd no\nPrintLastLog no\nLogLevel ERROR\n\
             SetEnv HOME={shown}\nMaxStartups 1000\nSubsystem sftp /usr/lib/openssh/sftp-server\n"
        ),
    )?;
    let config = folder.join("ssh_config");
    fs::write(
        &config,
        format!(
            "Host direct\n HostName 127.0.0.1\n Port {port}\n IdentityFile {key}\n CertificateFile none\n\
             \x20IdentitiesOnly yes\n IdentityAgent none\n BatchMode yes\n StrictHostKeyChecking no\n\
             \x20UserKnownHostsFile /dev/null\n LogLevel ERROR\n",
            key = home.join("id_ed25519").display()
        ),
    )?;
    let child = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(folder.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log"))?)
        .spawn()
        .context("cannot start sshd: run infra/setup")?;
    let sshd = Sshd(child);
    wait_for("sshd listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    })?;
    Ok((sshd, config))
}
