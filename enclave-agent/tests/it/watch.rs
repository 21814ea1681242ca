//! What is seen of what is done in a workspace.

use std::time::{Duration, Instant};

use enclave_agent::watch::Eyes;
use enclave_agent::workspace::Limits;
use model::SessionId;
use model::observed::{
    Attempt, Attribution, ConnectionOutcome, Execution, Observation, Packets, ProcessOutcome, Transport,
};
use wire::message::AgentEvent;

use crate::bench::{Bench, Running, finish, owner};

impl Bench {
    /// What was observed so far, and when.
    fn observed(&self) -> Vec<(Instant, Option<SessionId>, Observation)> {
        let reports = self.reports.lock().unwrap();
        let observed = |(at, event): &(Instant, AgentEvent)| match event {
            AgentEvent::Observed { session, what, .. } => Some((*at, session.clone(), what.clone())),
            _ => None,
        };
        reports.iter().filter_map(observed).collect()
    }

    /// The first observation that fits, waited for.
    async fn observe(
        &self,
        fits: impl Fn(&Observation) -> bool,
    ) -> (Instant, Option<SessionId>, Observation) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = self.observed().into_iter().find(|(_, _, what)| fits(what)) {
                return found;
            }
            assert!(Instant::now() < until, "not seen; seen were {:#?}", self.observed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn packets(&self) -> u64 {
        let counted = |(_, _, what)| match what {
            Observation::Packets(what) => what.count,
            Observation::Overflow(what) => what.packets,
            _ => 0,
        };
        self.observed().into_iter().map(counted).sum()
    }
}

impl Running {
    async fn python(&self, program: &str) -> (String, Duration) {
        let began = Instant::now();
        let done = self.sh(&format!("python3 -c '{program}' 2>&1")).await;
        (done.out + &done.err, began.elapsed())
    }
}

fn names(what: &Observation, address: &str) -> bool {
    matches!(what, Observation::Packets(packets) if packets.destination == address)
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_root_a_packet_to_anywhere_is_told_at_once_and_its_sender_need_not_wait() {
    let bench = Bench::new(Limits::default());
    let alice = bench.start(&owner("brca", "alice")).await;
    alice.sh("python3 -c 0").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.packets(), 0, "what nobody sent was told: {:#?}", bench.observed());

    let began = Instant::now();
    let done = alice.sh("exec 2>&1; echo hello > /dev/tcp/203.0.113.9/443").await;
    let took = began.elapsed();
    assert!(done.out.contains("No route to host"), "{done:?}");
    let (at, _, what) = bench.observe(|what| names(what, "203.0.113.9")).await;
    println!("TCP: the sender heard after {took:?}; told {:?} after its start", at.duration_since(began));
    assert!(took < Duration::from_secs(1) && at.duration_since(began) < Duration::from_secs(1));
    let Observation::Packets(Packets { protocol, destination_port, count, .. }) = what else {
        unreachable!()
    };
    assert_eq!((protocol, destination_port, count), (Transport::Tcp, Some(443), 1));

    for (program, address, protocol) in [
        (
            "import socket; s = socket.socket(socket.AF_INET6); s.connect((\"2001:4860:4860::8888\", 53))",
            "2001:4860:4860::8888",
            Transport::Tcp,
        ),
        (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
             s.connect((\"8.8.8.8\", 53)); s.send(b\"q\"); s.settimeout(5); s.recv(9)",
            "8.8.8.8",
            Transport::Udp,
        ),
        (
            "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); \
             s.sendto(b\"q\", (\"2001:db8:1::7\", 123)); raise OSError(\"done\")",
            "2001:db8:1::7",
            Transport::Udp,
        ),
        (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
             s.sendto(b\"q\", (\"224.0.0.251\", 5353)); raise OSError(\"done\")",
            "224.0.0.251",
            Transport::Udp,
        ),
    ] {
        let (said, took) = alice.python(program).await;
        assert!(said.contains("Error") && took < Duration::from_secs(3), "{took:?} {said}");
        let (_, _, what) = bench.observe(|what| names(what, address)).await;
        println!("{address}: {took:?}, {}", said.lines().last().unwrap_or_default());
        let Observation::Packets(packets) = what else { unreachable!() };
        assert_eq!(packets.protocol, protocol, "{packets:?}");
    }
    alice.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_root_a_flood_is_counted_and_told_in_few_words() {
    const SENT: u64 = 100_000;
    let bench = Bench::new(Limits::default());
    let id = bench.id();
    let data = bench.place.make_data_dir(&id).unwrap();
    let watcher = bench.watcher(&id);
    let started = bench.place.start(&id, &owner("brca", "alice"), &bench.place.limits, &data, &watcher).await;
    let alice = Running(std::sync::Arc::new(started.unwrap()));
    let before = cpu();
    let (said, took) = alice
        .python(&format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nsent = 0\n\
             for n in range({SENT}):\n    try:\n        \
             s.sendto(b\"x\" * 100, (\"198.51.%d.%d\" % (n >> 8 & 255, n & 255), 9)); sent += 1\n    \
             except OSError: pass\nprint(sent)"
        ))
        .await;
    let sent: u64 = said.trim().parse().unwrap_or_else(|_| panic!("{said}"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    watcher.finish();
    let told = bench.observed().len();
    println!(
        "{sent} sent in {took:?}: {} counted, {told} told, {:?} of our time",
        bench.packets(),
        cpu() - before
    );
    assert!(told < 150, "{told} told");
    // A sender whose queue is full may lose some before the interface sees them. Of the kernel's own
    // packets those that the interface drops cannot be told apart.
    assert!((sent * 95 / 100..=sent + 8).contains(&bench.packets()), "{} counted", bench.packets());
    alice.0.stop().await.unwrap();
}

/// Time of processors that this process has used.
fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let time = |value: nix::sys::time::TimeVal| {
        Duration::new(value.tv_sec().try_into().unwrap(), 1000 * u32::try_from(value.tv_usec()).unwrap())
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_root_what_is_executed_and_connected_to_is_seen() {
    let bench = Bench::new(Limits::default());
    let alice = bench.start(&owner("brca", "alice")).await;
    let session = SessionId::from_name("s1").unwrap();
    let line = "cd /tmp; ln -s /usr/bin/samtools st; ./st --version >/dev/null; \
                printf '#!/bin/sh\\nexit 3\\n' > run.sh; chmod +x run.sh; ./run.sh; \
                perl -e 'exec \"/no/such\"'; perl -e 'exec \"/etc/passwd\"'; \
                exec 2>&1; echo x > /dev/tcp/127.0.0.1/9; echo x > /dev/tcp/198.51.100.7/22; \
                python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"/tmp/none\")'";
    let (process, streams) = alice.0.launch_for(&session, alice.launch_of(line)).await.unwrap();
    finish(process, streams).await;
    let find = async |program: &str| {
        let (_, of, what) =
            bench.observe(|what| matches!(what, Observation::Process(what) if what.program == program)).await;
        assert_eq!(of.as_ref(), Some(&session), "{program}");
        let Observation::Process(what) = what else { unreachable!() };
        assert!(what.uid == 1000 && what.pid > 1 && what.parent_pid > 1, "{what:?}");
        let Execution { argv, directory, parent_program, outcome, .. } = what;
        (argv, directory.unwrap_or_default(), parent_program.unwrap_or_default(), outcome)
    };
    let (argv, directory, parent, outcome) = find("/usr/bin/samtools").await;
    assert_eq!((argv.join(" ").as_str(), directory.as_str()), ("./st --version", "/tmp"));
    assert_eq!((parent.as_str(), outcome), ("/usr/bin/bash", ProcessOutcome::Started));
    assert_eq!(find("/tmp/run.sh").await.3, ProcessOutcome::Started);
    assert_eq!(find("/no/such").await.3, ProcessOutcome::NotFound);
    assert_eq!(find("/etc/passwd").await.3, ProcessOutcome::Denied);
    let (argv, ..) = find("/usr/bin/bash").await;
    assert_eq!(argv[..2], ["bash", "-c"]);

    for (to, transport, fate) in [
        ("127.0.0.1", Transport::Tcp, ConnectionOutcome::Loopback),
        ("198.51.100.7", Transport::Tcp, ConnectionOutcome::Blocked),
        ("/tmp/none", Transport::Stream, ConnectionOutcome::Local),
    ] {
        let (_, of, what) =
            bench.observe(|what| matches!(what, Observation::Connection(what) if what.address == to)).await;
        let Observation::Connection(Attempt { protocol, outcome, program, count, .. }) = what else {
            unreachable!()
        };
        assert_eq!((of.as_ref(), protocol, outcome, count), (Some(&session), transport, fate, 1));
        assert!(program.unwrap().starts_with("/usr/bin/"));
    }
    // Seen once as an attempt and once as a packet, by the session that alone is there.
    let (_, of, _) = bench.observe(|what| names(what, "198.51.100.7")).await;
    assert_eq!(of, Some(session));
    alice.0.stop().await.unwrap();
}

/// Two sessions, so that none could be guessed: each packet names its process and its session.
#[tokio::test(flavor = "multi_thread")]
async fn needs_root_a_packet_names_the_process_that_sent_it() {
    let bench = Bench::new(Limits::default());
    let alice = bench.start(&owner("brca", "alice")).await;
    let (one, other) = (SessionId::from_name("s1").unwrap(), SessionId::from_name("s2").unwrap());
    let quiet = alice.0.launch_for(&other, alice.launch_of("cat")).await.unwrap();
    // A stream; a datagram that is sent without asking, by a process that goes on; one that asks first
    // and whose socket is gone when somebody looks.
    let line = "exec 2>&1; echo x > /dev/tcp/198.51.100.7/22; \
                python3 -c 'import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                s.sendto(b\"q\", (\"198.51.100.8\", 53)); time.sleep(1)'; \
                python3 -c 'import socket, time; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); \
                s.sendto(b\"q\", (\"2001:db8:1::7\", 123)); time.sleep(1)'; true";
    let (process, streams) = alice.0.launch_for(&one, alice.launch_of(line)).await.unwrap();
    finish(process, streams).await;
    for (to, how, program) in [
        ("198.51.100.7", Attribution::Attempt, "bash"),
        ("198.51.100.8", Attribution::Socket, "python3"),
        ("2001:db8:1::7", Attribution::Socket, "python3"),
    ] {
        let (_, session, what) = bench.observe(|what| names(what, to)).await;
        let Observation::Packets(packets) = what else { unreachable!() };
        assert_eq!((packets.attribution, session.as_ref()), (how, Some(&one)), "{packets:?}");
        assert!(packets.pid.unwrap() > 1 && packets.uid == Some(1000), "{packets:?}");
        let of = packets.program.unwrap();
        assert!(of.rsplit('/').next().unwrap().starts_with(program), "{of}");
    }
    // What nobody can be found for is of no session, since there are two, and says so.
    let line = "perl -MSocket -e 'for (1..200) { socket(S, PF_INET, SOCK_DGRAM, 0); \
                send(S, \"x\", 0, sockaddr_in(9, inet_aton(\"198.51.101.$_\"))); close(S) }'";
    let (process, streams) = alice.0.launch_for(&one, alice.launch_of(line)).await.unwrap();
    finish(process, streams).await;
    let unknown =
        |what: &Observation| matches!(what, Observation::Packets(p) if p.attribution == Attribution::Unknown);
    let (_, session, what) = bench.observe(unknown).await;
    let Observation::Packets(packets) = what else { unreachable!() };
    assert_eq!((session, packets.pid, packets.uid, packets.program), (None, None, None, None));
    let (process, _) = quiet;
    drop(process);
    alice.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_root_more_than_the_budget_is_counted_and_not_told() {
    const EACH: u64 = 400;
    let mut bench = Bench::new(Limits::default());
    bench.place.eyes = Eyes { burst: 50, per_second: 1, ..Eyes::default() };
    let id = bench.id();
    let data = bench.place.make_data_dir(&id).unwrap();
    let watcher = bench.watcher(&id);
    let started = bench.place.start(&id, &owner("brca", "alice"), &bench.place.limits, &data, &watcher).await;
    let alice = Running(std::sync::Arc::new(started.unwrap()));
    alice.sh(&format!("for n in $(seq {EACH}); do /bin/true; done")).await;
    watcher.finish();
    let (mut told, mut counted) = (0, 0);
    for (_, _, what) in bench.observed() {
        match what {
            Observation::Process(_) => told += 1,
            Observation::Overflow(what) => {
                counted += what.processes;
                assert!(what.examples[0].ends_with("/bin/true"), "{what:?}");
            }
            _ => {}
        }
    }
    // The shell, `seq` and the others.
    assert_eq!(told + counted, EACH + 2, "{told} told, {counted} counted");
    assert!((48..80).contains(&told), "{told} told");
    alice.0.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_root_being_watched_does_not_slow_work_much() {
    const ROUNDS: usize = 25;
    let start = async |eyes: Eyes| {
        let mut bench = Bench::new(Limits::default());
        bench.place.eyes = eyes;
        let alice = bench.start(&owner("brca", "alice")).await;
        (bench, alice, Vec::with_capacity(ROUNDS))
    };
    let mut all = [
        start(Eyes { calls: false, ..Eyes::default() }).await,
        start(Eyes { burst: 1_000_000, ..Eyes::default() }).await,
        start(Eyes { burst: 1, per_second: 1, ..Eyes::default() }).await,
    ];
    // In turns, because the machine may be busy with other things meanwhile.
    for _ in 0..ROUNDS {
        for (_, alice, each) in &mut all {
            let done = alice
                .sh("perl -MTime::HiRes=time -e \
                     '$t = time; for (1..40) { system { \"/bin/true\" } \"true\" } print 25e3 * (time - $t)'")
                .await;
            each.push(done.out.parse::<f64>().unwrap());
        }
    }
    let [without, told, counted] = all.map(|(_bench, _alice, mut each)| {
        each.sort_by(f64::total_cmp);
        (each[0], each[ROUNDS / 2])
    });
    println!(
        "an execution takes at best and usually, in µs: {without:.0?} unwatched, {told:.0?} told, {counted:.0?} only counted"
    );
    assert!(told.0 < without.0 * 2.0 + 200.0, "{told:?} µs told, {without:?} µs unwatched");
}
