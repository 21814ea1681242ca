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
    assert!(probe.out.lines().count() > 30, "the probe ended early: {}", probe.out);

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

    // What a session leaves in the background ends with it.
    let left = alice.sh("setsid sleep 305 < /dev/null > /dev/null 2>&1 & echo left").await;
    assert_eq!(left.out, "left\n");
    assert_eq!(alice.sh("pgrep -f 'slee[p] 305'").await.out, "");
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
