//! What holds in a workspace, told from inside it.

use std::time::{Duration, Instant};

use enclave_agent::init_protocol::{End, Program, Terminal};
use enclave_agent::workspace::{Limits, Streams};

use crate::bench::{Bench, finish, owner};

const PROBE: &str = include_str!("../probe.sh");

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_runs_commands_and_keeps_people_in() {
    let bench = Bench::new(Limits { memory_mib: 256, processes: 64, ..Limits::default() });
    let began = Instant::now();
    let alice = bench.start(&owner("brca", "alice")).await;
    println!("cold start {:?}", began.elapsed());

    let done = alice.sh("id -un; pwd; echo oops >&2; exit 7").await;
    assert_eq!(done.end, End::Code(7), "{done:?}");
    assert_eq!((done.out.as_str(), done.err.as_str()), ("alice\n/home/alice\n", "oops\n"));
    let began = Instant::now();
    alice.sh("true").await;
    println!("warm command {:?}", began.elapsed());
    assert_eq!(alice.sh("kill -TERM $$").await.end, End::Signal { number: 15, core: false });

    let probe = alice.sh(PROBE).await;
    println!("{}{}", probe.out, probe.err);
    assert_eq!(probe.end, End::Code(0), "{}{}", probe.out, probe.err);
    assert!(probe.out.lines().count() > 130, "the probe ended early: {}", probe.out);

    alice.sh("echo mine > ~/note").await;
    let bob = bench.start(&owner("brca", "bob")).await;
    let other = bench.start(&owner("lung", "alice")).await;
    for elsewhere in [&bob, &other] {
        let seen = elsewhere.sh("ls -A /home; cat /home/alice/note").await;
        assert_ne!(seen.end, End::Code(0), "{seen:?}");
        assert!(!seen.out.contains("mine"), "{seen:?}");
    }
    for workspace in [&alice, &bob, &other] {
        workspace.0.stop().await.unwrap();
    }
}

/// A probe that finds nothing proves nothing unless it can find something: the same in a container
/// without most of the walls.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe_finds_what_there_is_to_find() {
    use serde_json::{Value, json};
    let bench = Bench::new(Limits::default());
    let alice = bench.start(&owner("brca", "alice")).await;
    let dir = bench.place.dir(alice.0.id());
    let mut spec: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let all: Vec<String> = "AUDIT_CONTROL AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"
        .split(' ')
        .map(|name| format!("CAP_{name}"))
        .collect();
    // Not as PID 1, which some attempts are made on.
    spec["process"]["args"] = json!(["/bin/bash", "-c", "/bin/bash -c \"$0\"; exit $?", PROBE]);
    spec["process"]["cwd"] = json!("/home/alice");
    spec["process"]["noNewPrivileges"] = json!(false);
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        spec["process"]["capabilities"][set] = json!(all);
    }
    let linux = spec["linux"].as_object_mut().unwrap();
    for wall in ["seccomp", "maskedPaths", "readonlyPaths", "resources"] {
        linux.remove(wall);
    }
    spec["root"]["readonly"] = json!(false);
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["rw"],
    }));
    linux_path(&mut spec, &format!("{}/weak", bench.place.cgroup));
    let weak = bench.dir().join("weak");
    std::fs::create_dir(&weak).unwrap();
    // Nothing of the host's is handed in writable: only the walls around it are gone.
    let copied = std::process::Command::new("cp").arg("-a").arg(dir.join("rootfs")).arg(&weak).status();
    assert!(copied.unwrap().success());
    let owned =
        std::process::Command::new("chown").args(["-R", "200000:200000"]).arg(weak.join("rootfs")).status();
    assert!(owned.unwrap().success());
    std::fs::write(weak.join("config.json"), spec.to_string()).unwrap();
    let runtime = &bench.place.runtime;
    let output = std::process::Command::new(&runtime.program)
        .arg("--root")
        .arg(&runtime.root)
        .args(["run", "--bundle"])
        .arg(&weak)
        .arg("weak")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    println!("without walls: {} holes, {} that hold all the same", count("HOLE"), count("ok"));
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    for found in [
        "uid 0",
        "capabilities",
        "no filter",
        "bounding set",
        "new privileges",
        "kill PID 1",
        "read PID 1's environment",
        "list PID 1's descriptors",
        "mount",
        "umount2",
        "unshare(NEWUSER)",
        "clone3",
        "clone(NEWUSER)",
        "keyctl",
        "bpf",
        "socket(AF_PACKET)",
        "socket(AF_INET, SOCK_RAW)",
        "ioctl(TIOCSTI)",
        "write in /etc",
        "write in /",
        "sysfs",
        "through a link to /proc/1/root",
        "another user",
    ] {
        assert!(said.lines().any(|line| line.starts_with(&format!("HOLE  {found}"))), "not found: {found}");
    }
    runtime.delete("weak").await.unwrap();
    alice.0.stop().await.unwrap();
}

fn linux_path(spec: &mut serde_json::Value, cgroup: &str) {
    spec["linux"]["cgroupsPath"] = serde_json::json!(cgroup);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let bench = Bench::new(Limits { memory_mib: 128, processes: 40, ..Limits::default() });
    let alice = bench.start(&owner("brca", "alice")).await;
    let hog = alice.sh("head -c 400m /dev/zero | tail -c 399m | wc -c; echo ${PIPESTATUS[1]}").await;
    assert!(hog.out.contains("137"), "{hog:?}");
    let forks =
        "for (1..80) { defined(my $p = fork) or do { print \"refused at $_\"; exit }; $p or exit sleep 20 }";
    let many = alice.sh(&format!("perl -e '{forks}'")).await;
    assert!(many.out.starts_with("refused at 3"), "{many:?}");
    assert_eq!(alice.sh("echo still here").await.out, "still here\n");
    alice.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_takes_every_descendant_within_a_second() {
    let bench = Bench::new(Limits { processes: 256, ..Limits::default() });
    let alice = bench.start(&owner("brca", "alice")).await;
    let (kept, kept_streams) = alice.begin("sleep 300").await;
    let (process, _streams) = alice
        .begin(
            "setsid bash -c 'setsid sleep 301 & sleep 302' & \
             (trap '' TERM HUP INT; setsid setsid sleep 303 &) ; \
             bash -c 'while :; do (sleep 304 &) ; sleep 0.01; done' & wait",
        )
        .await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let before = alice.sh("pgrep -c -f 'sleep 30[1-4]'").await;
    assert!(before.out.trim().parse::<u32>().unwrap() > 3, "{before:?}");
    let began = Instant::now();
    process.kill();
    process.ended().await.unwrap();
    let took = began.elapsed();
    println!("kill took {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(alice.sh("pgrep -f 'slee[p] 30[1-4]'").await.out, "", "something lives on");
    assert_ne!(alice.sh("pgrep -f 'slee[p] 300'").await.out, "", "another session was hit");
    drop((kept, kept_streams));

    alice.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_to_outlive_its_session_does_and_the_rest_does_not() {
    let bench = Bench::new(Limits::default());
    let alice = bench.start(&owner("brca", "alice")).await;
    let runs = |what: &'static str| {
        let alice = alice.clone();
        async move { !alice.sh(&format!("pgrep -f '{what}'")).await.out.is_empty() }
    };
    // A session that ends by itself leaves what runs in the background.
    let left = alice.sh("nohup sleep 305 < /dev/null > /dev/null 2>&1 & echo left").await;
    assert_eq!((left.out.as_str(), left.end), ("left\n", End::Code(0)));
    assert!(runs("slee[p] 305").await);

    // One that is left hangs up, as a terminal does.
    let (process, streams) = alice.begin("nohup sleep 306 > /dev/null 2>&1 & sleep 307").await;
    while !runs("slee[p] 306").await || !runs("slee[p] 307").await {}
    process.leave();
    drop(streams);
    drop(process);
    let began = Instant::now();
    while runs("slee[p] 307").await {
        assert!(began.elapsed() < Duration::from_secs(5), "it was not hung up");
    }
    assert!(runs("slee[p] 306").await);

    // A killed one takes everything, also what was made to outlive it.
    let (process, _streams) = alice.begin("setsid nohup sleep 308 > /dev/null 2>&1 & sleep 309").await;
    while !runs("slee[p] 308").await {}
    process.kill();
    process.ended().await.unwrap();
    assert!(!runs("slee[p] 30[89]").await);
    assert!(runs("slee[p] 305").await && runs("slee[p] 306").await);
    alice.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_home_says_so_and_hurts_nobody_else() {
    let bench = Bench::new(Limits { disk_mib: 24, ..Limits::default() });
    let began = Instant::now();
    let alice = bench.start(&owner("brca", "alice")).await;
    println!("cold start with a new disk {:?}", began.elapsed());
    let bob = bench.start(&owner("brca", "bob")).await;
    assert_eq!(alice.0.notices(), Vec::<String>::new());
    let full = alice.sh("head -c 100m /dev/zero > big; echo end").await;
    assert!(full.err.contains("No space left on device") && full.out == "end\n", "{full:?}");
    assert!(alice.0.notices()[0].contains("full"), "{:?}", alice.0.notices());
    let held = alice.sh("stat -c %s big").await.out.trim().parse::<u64>().unwrap();
    assert!((12 << 20..24 << 20).contains(&held), "{held}");
    let other =
        bob.sh("head -c 8m /dev/zero > mine && stat -c %s mine; df --output=target . | tail -1").await;
    assert_eq!(other.out, format!("{}\n/home/bob\n", 8 << 20));
    assert_eq!(alice.sh("ls -A; id -un; touch /home/x 2>&1").await.out.lines().next(), Some("big"));
    for workspace in [&alice, &bob] {
        workspace.0.stop().await.unwrap();
    }

    // It is there again, and larger when its study gives it more.
    let began = Instant::now();
    let mut place = bench.place.clone();
    place.limits.disk_mib = 64;
    let id = bench.id();
    let data = place.make_data_dir(&id).unwrap();
    let watcher = bench.watcher(&id);
    let who = owner("brca", "alice");
    let again = place.start(&id, &who, &place.limits, &data, &watcher).await.unwrap();
    println!("cold start with a disk that grows {:?}", began.elapsed());
    let again = crate::bench::Running(std::sync::Arc::new(again));
    assert_eq!(again.sh("stat -c %s big").await.out, format!("{held}\n"));
    assert_eq!(
        again.sh("head -c 30m /dev/zero > more && stat -c %s more").await.out,
        format!("{}\n", 30 << 20)
    );
    again.0.stop().await.unwrap();
    assert!(bench.place.homes.remove(&who).is_ok());
    let disks = std::fs::read_dir(bench.dir().join("disks/brca")).unwrap();
    let left: Vec<_> = disks.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bob.ext4"]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("{}/run", bench.dir().display())), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_of_an_earlier_release_is_taken_over() {
    let bench = Bench::new(Limits { disk_mib: 32, ..Limits::default() });
    let mut before = bench.place.clone();
    before.homes.disks = None;
    let who = owner("brca", "alice");
    let id = bench.id();
    let data = before.make_data_dir(&id).unwrap();
    let started = before.start(&id, &who, &before.limits, &data, &bench.watcher(&id)).await.unwrap();
    let folder = crate::bench::Running(std::sync::Arc::new(started));
    let made = "mkdir -p a/b && echo kept > a/b/結果 && ln -s a/b/結果 link && chmod 640 a/b/結果 && head -c 5m /dev/zero > five";
    assert_eq!(folder.sh(made).await.end, End::Code(0));
    folder.0.stop().await.unwrap();
    let alice = bench.start(&who).await;
    let seen = alice.sh("cat link; stat -c '%a %U' a/b/結果; stat -c %s five; ls -A; touch new").await;
    assert_eq!(seen.out, format!("kept\n640 alice\n{}\na\nfive\nlink\n", 5 << 20), "{seen:?}");
    assert!(!bench.dir().join("homes/brca/alice").exists());
    alice.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_a_terminal_of_the_workspace() {
    let bench = Bench::new(Limits::default());
    let alice = bench.start(&owner("brca", "alice")).await;
    let mut launch = alice.launch_of("tty; stty size; stat -c %U $(tty); [ -t 0 ] && [ -t 2 ] && echo yes; read x; stty size; echo \"got $x\"");
    launch.terminal = Some(Terminal { rows: 33, cols: 101, width_px: 0, height_px: 0, modes: vec![(53, 0)] });
    let (process, streams) = alice.0.launch(launch).await.unwrap();
    let Streams::Terminal(terminal) = streams else { panic!("a terminal was asked for") };
    tokio::time::sleep(Duration::from_millis(150)).await;
    terminal.resize(40, 90, 0, 0).unwrap();
    terminal.write_all(b"hello\n").await.unwrap();
    let shown = crate::bench::drain(&terminal).await;
    assert_eq!(process.ended().await.unwrap(), End::Code(0));
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{shown}");
    assert_eq!(&lines[1..], ["33 101", "alice", "yes", "40 90", "got hello"], "{shown}");

    let mut launch = alice.launch_of("");
    launch.program = Program::Shell;
    launch.terminal = Some(Terminal { rows: 24, cols: 80, width_px: 0, height_px: 0, modes: vec![] });
    let (process, streams) = alice.0.launch(launch).await.unwrap();
    let Streams::Terminal(terminal) = streams else { panic!("a terminal was asked for") };
    terminal.write_all(b"echo $0 $SHLVL; sleep 100\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    terminal.write_all(b"\x03exit 3\n").await.unwrap();
    let shown = crate::bench::drain(&terminal).await;
    assert!(shown.contains("alice@brca:~$ ") && shown.contains("-bash"), "{shown}");
    assert_eq!(process.ended().await.unwrap(), End::Code(3), "{shown}");
    alice.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_agent_is_the_end_of_the_workspace() {
    let bench = Bench::new(Limits::default());
    let alice = bench.start(&owner("brca", "alice")).await;
    let (process, streams) = alice.begin("sleep 300").await;
    let pid = alice.0.pid();
    let (runtime, id) = (bench.place.runtime.clone(), alice.0.id().name().to_owned());
    drop((process, streams, alice));
    let began = Instant::now();
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(began.elapsed() < Duration::from_secs(2), "PID 1 lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    runtime.delete(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_share_a_workspace() {
    let bench = Bench::new(Limits::default());
    let alice = bench.start(&owner("brca", "alice")).await;
    let mut running = Vec::new();
    for number in 0..30 {
        running.push((number, alice.begin(&format!("cat; echo {number}")).await));
    }
    for (number, (process, streams)) in running {
        let done = finish(process, streams).await;
        assert_eq!((done.out, done.end), (format!("{number}\n"), End::Code(0)));
    }
    alice.0.stop().await.unwrap();
}
