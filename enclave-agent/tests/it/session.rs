//! The whole agent but for its folder: tickets come over a real link from a broker played here.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use certs::ticket::{
    DatasetOrder, DepositOrder, FetchOrder, KeepOrder, Order, SessionOrder, Ticket, TicketKey,
};
use certs::x509::{CertificateAuthority, Identity, KeyPair, LeafRequest};
use certs::{SpiffeId, TrustDomain};
use enclave_agent::reports::Reports;
use enclave_agent::service::{KEEPING, Seen, Service, Setup, Workspaces};
use enclave_agent::workspace::Limits;
use intake::crypt4gh::{Encryptor, SecretKey};
use model::ambient::SystemClock;
use model::observed::{Observation, ProcessOutcome, ReadPhase};
use model::{
    AgentId, Clock, DatasetId, ObjectId, PersonId, SeededEntropy, SessionId, StudyId, TicketId, Timestamp,
    WorkspaceLimits, WorkspaceName,
};
use tokio_util::task::TaskTracker;
use wire::broker::{AgentLink, AgentListener, DepositStream, FetchStream, SessionStream};
use wire::message::{
    AgentEvent, Command, DepositInput, DepositOutput, Exited, FetchInput, FetchOutput, Hello, Load,
    OpenDeposit, OpenFetch, OpenSession, Pty, Refused, SessionInput, SessionOutput, VERSION,
};

use crate::bench::{Bench, Shares, giab};

/// A broker, an agent, and the link between them.
struct Pair {
    broker: AgentLink,
    _listener: AgentListener,
    tickets: TicketKey,
    entropy: SeededEntropy,
    intake: SecretKey,
    workspaces: Workspaces,
    shares: Shares,
    events: Arc<Mutex<Vec<AgentEvent>>>,
    link: wire::agent::BrokerLink,
    bench: Bench,
}

impl Pair {
    async fn new(idle: Duration) -> Pair {
        let bench = Bench::new(Limits::default());
        let shares = Shares::new(&bench);
        let entropy = SeededEntropy::new(11);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let domain: TrustDomain = "sekisho.test".parse().unwrap();
        let authority = CertificateAuthority::create(
            domain.clone(),
            KeyPair::generate(&entropy).unwrap(),
            clock.now(),
            &entropy,
        )
        .unwrap();
        let me = AgentId::from_name("main").unwrap();
        let issue = |spiffe: SpiffeId| {
            let key = KeyPair::generate(&entropy).unwrap();
            let request = LeafRequest {
                spiffe,
                dns: Vec::new(),
                ip: Vec::new(),
                public_key: key.spki().unwrap(),
                lifetime: Duration::from_secs(3600),
            };
            (authority.issue(&request, clock.now(), &entropy).unwrap(), key)
        };
        let tls = |spiffe: SpiffeId| {
            let (leaf, key) = issue(spiffe);
            let identity = Identity { chain: vec![leaf], key: key.to_private_key_der().unwrap() };
            wire::Tls::new(domain.clone(), authority.certificate().clone(), &identity, clock.clone()).unwrap()
        };
        let listener =
            AgentListener::bind("127.0.0.1:0".parse().unwrap(), &tls(SpiffeId::Broker("main".into())))
                .unwrap();
        let intake = SecretKey::generate(&entropy).unwrap();
        let hello = Hello {
            version: VERSION,
            agent: "test".into(),
            kernel: String::new(),
            intake_key: intake.public().to_bytes(),
            keeping_key: intake.derived(KEEPING).public().to_bytes(),
            backends: shares.storage.names(),
            near: Vec::new(),
            capacity: 8,
            load: Load::default(),
        };
        let addr = listener.local_addr().to_string();
        let link = wire::agent::connect(addr, &tls(SpiffeId::Agent(me.clone())), hello).unwrap();
        let broker = listener.accept().await.unwrap();
        let (leaf, key) = issue(SpiffeId::Ticket("main".into()));
        let events: Arc<Mutex<Vec<AgentEvent>>> = Arc::default();
        let heard = events.clone();
        let workspaces = Workspaces::new(Setup {
            place: bench.place.clone(),
            storage: shares.storage.clone(),
            cache_bytes: 16 << 20,
            idle,
            clock: clock.clone(),
            reports: Reports::new(Box::new(move |event| heard.lock().unwrap().push(event))),
        });
        let service = Arc::new(Service {
            me,
            domain,
            ca: authority.certificate().clone(),
            clock,
            entropy: Arc::new(SeededEntropy::new(12)),
            intake: intake.clone(),
            workspaces: workspaces.clone(),
            seen: Seen::default(),
            places: Arc::new(tokio::sync::Semaphore::new(8)),
            ordered: Box::new(|_, _, _| {}),
        });
        let (taking, tending) = (link.clone(), workspaces.clone());
        tokio::spawn(async move {
            let tasks = TaskTracker::new();
            while let Some(incoming) = taking.accept().await {
                service.obey(0, incoming, &tasks);
            }
        });
        tokio::spawn(async move { tending.tend().await });
        let tickets = TicketKey::new(key, leaf);
        Pair {
            broker,
            _listener: listener,
            tickets,
            entropy,
            intake,
            workspaces,
            shares,
            events,
            link,
            bench,
        }
    }

    fn ticket(&self, order: Order) -> Vec<u8> {
        let now = SystemClock.now();
        let ticket = Ticket {
            id: TicketId::random(&self.entropy).unwrap(),
            issued: now,
            expires: now.plus(Duration::from_secs(30)),
            agent: AgentId::from_name("main").unwrap(),
            order,
        };
        self.tickets.seal(&ticket).unwrap()
    }

    fn order(&self, person: &str, datasets: &[DatasetOrder], access_until: Timestamp) -> Order {
        Order::Session(SessionOrder {
            session: SessionId::random(&self.entropy).unwrap(),
            person: PersonId::from_name(person).unwrap(),
            study: StudyId::from_name("brca").unwrap(),
            workspace: format!("ws:brca.{person}").parse().unwrap(),
            name: WorkspaceName::default(),
            limits: WorkspaceLimits::default(),
            datasets: datasets.to_vec(),
            access_until,
        })
    }

    async fn open(&self, ticket: Vec<u8>, command: Command, pty: Option<Pty>) -> SessionStream {
        let env = vec![("LANG".to_owned(), "ja_JP.UTF-8".to_owned()), ("LD_PRELOAD".into(), "x".into())];
        self.broker.open_session(OpenSession { ticket, command, pty, env }).await.unwrap()
    }

    async fn run(&self, person: &str, datasets: &[DatasetOrder], command: &str) -> Seen3 {
        let ticket = self.ticket(self.order(person, datasets, Timestamp::MAX));
        let mut stream = self.open(ticket, Command::Exec(command.as_bytes().to_vec()), None).await;
        stream.sender.send(SessionInput::StdinEof).await.unwrap();
        read_all(&mut stream).await
    }

    async fn deposit(
        &self,
        name: &str,
        bytes: &[u8],
        piece: usize,
        cut: bool,
    ) -> Result<(u64, [u8; 32]), Refused> {
        let order = Order::Deposit(DepositOrder {
            object: ObjectId::from_name(name).unwrap(),
            dataset: DatasetId::from_name("vendor").unwrap(),
            name: name.to_owned(),
            person: PersonId::from_name("vera").unwrap(),
        });
        self.take_in(order, bytes, piece, cut).await
    }

    async fn take_in(
        &self,
        order: Order,
        bytes: &[u8],
        piece: usize,
        cut: bool,
    ) -> Result<(u64, [u8; 32]), Refused> {
        let ticket = self.ticket(order);
        let DepositStream { mut sender, mut receiver } =
            self.broker.open_deposit(OpenDeposit { ticket }).await.unwrap();
        assert_eq!(receiver.next().await.unwrap(), Some(DepositOutput::Ready));
        let sending = async {
            for part in bytes.chunks(piece) {
                if sender.send(DepositInput::Data(part.to_vec().into())).await.is_err() {
                    return;
                }
            }
            if !cut {
                let _ = sender.send(DepositInput::DataEof).await;
            }
            std::future::pending().await
        };
        let hearing = async {
            loop {
                match receiver.next().await.unwrap() {
                    Some(DepositOutput::Deposited { size, root }) => return Ok((size, root)),
                    Some(DepositOutput::Refused(refused)) => return Err(refused),
                    Some(DepositOutput::Progress { .. } | DepositOutput::Ready) => {}
                    None => panic!("no last word"),
                }
            }
        };
        tokio::select! {
            () = sending => panic!("the agent stopped listening"),
            done = hearing => done,
        }
    }

    /// What the agent hands out of a record.
    async fn fetch(&self, object: &ObjectId, size: u64, manifest_root: [u8; 32]) -> Result<Vec<u8>, Refused> {
        let ticket = self.ticket(Order::Fetch(FetchOrder { object: object.clone(), size, manifest_root }));
        let FetchStream { mut sender, mut receiver } =
            self.broker.open_fetch(OpenFetch { ticket }).await.unwrap();
        let mut all = Vec::new();
        loop {
            match receiver.next().await.unwrap() {
                Some(FetchOutput::Found { size: found }) => assert_eq!(found, size),
                Some(FetchOutput::Piece(bytes)) => all.extend_from_slice(&bytes),
                Some(FetchOutput::PieceEof) => break,
                Some(FetchOutput::Refused(refused)) => return Err(refused),
                None => panic!("no last word"),
            }
        }
        sender.send(FetchInput::Received).await.unwrap();
        Ok(all)
    }

    async fn close(self) {
        self.workspaces.stop_all("the test ends").await;
        self.link.close().await;
        let left = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!left.contains(&*self.bench.dir().to_string_lossy()), "{left}");
        let groups = std::process::Command::new("find")
            .args(["/sys/fs/cgroup", "-path"])
            .arg(format!("*{}/*", self.bench.place.cgroup))
            .args(["-type", "d"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&groups.stdout), "");
        assert_eq!(self.bench.place.runtime.list().await.unwrap(), Vec::<String>::new());
    }
}

/// What a session said.
#[derive(Debug, Default)]
struct Seen3 {
    cold: Option<bool>,
    out: Vec<u8>,
    err: Vec<u8>,
    last: Option<SessionOutput>,
}

impl Seen3 {
    fn code(&self) -> Option<u8> {
        match &self.last {
            Some(SessionOutput::Exit(Exited::Code(code))) => Some(*code),
            _ => None,
        }
    }
}

async fn read_all(stream: &mut SessionStream) -> Seen3 {
    let mut seen = Seen3::default();
    loop {
        match stream.receiver.next().await.unwrap() {
            Some(SessionOutput::Opened { cold, .. }) => seen.cold = Some(cold),
            Some(SessionOutput::Stdout(bytes)) => seen.out.extend_from_slice(&bytes),
            Some(SessionOutput::Stderr(bytes)) => seen.err.extend_from_slice(&bytes),
            Some(last) => seen.last = Some(last),
            None => return seen,
        }
    }
}

async fn refusal(pair: &Pair, ticket: Vec<u8>) -> String {
    let mut stream = pair.open(ticket, Command::Shell, None).await;
    match read_all(&mut stream).await.last {
        Some(SessionOutput::Refused(refused)) => refused.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_becomes_a_file_that_only_a_ticket_shows() {
    let pair = Pair::new(Duration::from_secs(60)).await;
    let bam = std::fs::read(giab("NA12878.chr22.tiny.bam")).unwrap();
    let mut encryptor = Encryptor::new(&pair.intake.public(), &pair.entropy).unwrap();
    let mut stream = encryptor.header().to_vec();
    stream.extend(encryptor.push(&bam));
    stream.extend(encryptor.finish());

    let (size, root) = pair.deposit("reads", &stream, 100_001, false).await.unwrap();
    assert_eq!(size, bam.len() as u64);
    let mut broken = stream.clone();
    broken[70_000] ^= 1;
    assert_eq!(pair.deposit("broken", &broken, 65_536, false).await.unwrap_err().code, "deposit.crypt4gh");
    let dataset = DatasetOrder {
        dataset: DatasetId::from_name("vendor").unwrap(),
        objects: vec![certs::ticket::ObjectOrder {
            object: ObjectId::from_name("reads").unwrap(),
            name: "reads.bam".into(),
            size,
            manifest_root: root,
        }],
    };
    let seen = pair
        .run("alice", std::slice::from_ref(&dataset), "cat /data/vendor/reads.bam; echo $LANG >&2; exit 4")
        .await;
    assert_eq!((seen.cold, seen.code()), (Some(true), Some(4)), "{:?}", seen.last);
    assert!(seen.out == bam, "{} bytes came", seen.out.len());
    assert_eq!(seen.err, b"ja_JP.UTF-8\n");
    let began = Instant::now();
    let seen = pair.run("alice", &[], "ls /data; cat /data/vendor/reads.bam").await;
    println!("warm session over the wire {:?}", began.elapsed());
    assert_eq!((seen.cold, seen.out.len()), (Some(false), 0));
    assert!(String::from_utf8_lossy(&seen.err).contains("Permission denied"), "{seen:?}");
    // No share holds a piece of the file.
    for folder in &pair.shares.folders {
        let mut all = Vec::new();
        collect(folder, &mut all);
        assert!(all.len() > bam.len() / 2);
        assert!(bam.chunks(64).all(|piece| !all.windows(piece.len()).step_by(1 << 20).any(|w| w == piece)));
    }
    assert!(matches!(pair.events.lock().unwrap()[0], AgentEvent::WorkspaceStarted { .. }));
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_root_honest_work_is_seen_and_nothing_of_it_looks_like_an_attempt() {
    let pair = Pair::new(Duration::from_secs(60)).await;
    let bam = std::fs::read(giab("NA12878.chr22.tiny.bam")).unwrap();
    let size = bam.len() as u64;
    let dataset = pair.shares.deposit("vendor", &[("reads.bam", bam)]).await;
    let order = pair.order("alice", std::slice::from_ref(&dataset), Timestamp::MAX);
    let Order::Session(SessionOrder { session, .. }) = &order else { unreachable!() };
    let mine = session.clone();
    let command = Command::Exec(b"samtools view -c /data/vendor/reads.bam | sort | tee count".to_vec());
    let mut stream = pair.open(pair.ticket(order), command, None).await;
    stream.sender.send(SessionInput::StdinEof).await.unwrap();
    let seen = read_all(&mut stream).await;
    assert_eq!(seen.code(), Some(0), "{seen:?}");
    pair.workspaces.stop_all("enough").await;
    let (mut programs, mut phases) = (Vec::new(), Vec::new());
    for event in pair.events.lock().unwrap().iter() {
        let AgentEvent::Observed { session, what, .. } = event else { continue };
        assert_eq!(session.as_ref(), Some(&mine), "{what:?}");
        match what {
            Observation::Process(what) if what.outcome == ProcessOutcome::Started => {
                programs.push(what.program.rsplit('/').next().unwrap().to_owned());
            }
            Observation::FileRead(what) => {
                assert_eq!((what.size, what.object.as_str()), (size, "obj:vendor-0"));
                assert_eq!(what.program.as_deref(), Some("/usr/bin/samtools"));
                phases.push((what.phase, what.bytes, what.reads));
            }
            other => panic!("{other:?}"),
        }
    }
    programs.sort();
    assert_eq!(programs, ["bash", "samtools", "sort", "tee"]);
    assert_eq!(phases[0], (ReadPhase::Opened, 0, 0));
    let (phase, bytes, reads) = phases[1];
    assert!(phase == ReadPhase::Closed && bytes >= size && reads > 0, "{phases:?}");
    assert_eq!(phases.len(), 2);
    pair.close().await;
}

fn collect(dir: &std::path::Path, into: &mut Vec<u8>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, into) } else { into.extend(std::fs::read(path).unwrap()) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_open_once_for_this_agent_in_their_time() {
    let pair = Pair::new(Duration::from_secs(60)).await;
    let ticket = pair.ticket(pair.order("alice", &[], Timestamp::MAX));
    let mut stream = pair.open(ticket.clone(), Command::Exec(b"true".to_vec()), None).await;
    assert_eq!(read_all(&mut stream).await.code(), Some(0));
    assert_eq!(refusal(&pair, ticket.clone()).await, "ticket.replayed");
    let mut broken = ticket;
    let at = broken.len() - 100;
    broken[at] ^= 1;
    let code = refusal(&pair, broken).await;
    assert!(code == "ticket.signature" || code == "ticket.malformed", "{code}");
    let now = SystemClock.now();
    let with = |agent: &str, issued: Timestamp, order: Order| Ticket {
        id: TicketId::random(&pair.entropy).unwrap(),
        issued,
        expires: issued.plus(Duration::from_secs(20)),
        agent: AgentId::from_name(agent).unwrap(),
        order,
    };
    let order = || pair.order("alice", &[], Timestamp::MAX);
    let other = pair.tickets.seal(&with("other", now, order())).unwrap();
    assert_eq!(refusal(&pair, other).await, "ticket.other_agent");
    let late = pair.tickets.seal(&with("main", now.minus(Duration::from_secs(30)), order())).unwrap();
    assert_eq!(refusal(&pair, late).await, "ticket.expired");
    let mut stolen = order();
    if let Order::Session(order) = &mut stolen {
        order.person = PersonId::from_name("mallory").unwrap();
    }
    let stolen = pair.tickets.seal(&with("main", now, stolen)).unwrap();
    assert_eq!(refusal(&pair, stolen).await, "workspace.failed");
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_when_they_are_told_to() {
    let pair = Pair::new(Duration::from_secs(60)).await;
    let shell = "setsid sleep 311 & (setsid setsid sleep 312 &); sleep 313";
    let left = "nohup sleep 314 > /dev/null 2>&1 & sleep 313";
    let count = |pattern: &'static str| async move {
        let out = std::process::Command::new("pgrep").args(["-c", "-f", pattern]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse::<u32>().unwrap()
    };
    for how in ["kill", "expiry"] {
        let until =
            SystemClock.now().plus(Duration::from_millis(if how == "expiry" { 700 } else { 1 << 30 }));
        let ticket = pair.ticket(pair.order("alice", &[], until));
        let mut stream = pair.open(ticket, Command::Exec(shell.into()), None).await;
        assert!(matches!(stream.receiver.next().await, Ok(Some(SessionOutput::Opened { .. }))));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(count("^sleep 31[123]").await >= 3, "{how}");
        let began = Instant::now();
        match how {
            "kill" => {
                stream.sender.kill("revoked").await.unwrap();
                let seen = read_all(&mut stream).await;
                assert_eq!(seen.last, Some(SessionOutput::Aborted { reason: "revoked".into() }));
            }
            _ => {
                let seen = read_all(&mut stream).await;
                assert!(matches!(seen.last, Some(SessionOutput::Aborted { .. })), "{seen:?}");
            }
        }
        while count("^sleep 31[123]").await > 0 {
            assert!(began.elapsed() < Duration::from_secs(1), "{how}: something lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("{how} took {:?}", began.elapsed());
    }
    // Whoever leaves, and a broker that is gone, leave what was made to go on.
    for how in ["leave", "drop"] {
        let ticket = pair.ticket(pair.order("alice", &[], Timestamp::MAX));
        let mut stream = pair.open(ticket, Command::Exec(left.into()), None).await;
        assert!(matches!(stream.receiver.next().await, Ok(Some(SessionOutput::Opened { .. }))));
        while count("^sleep 31[34]").await < 2 {}
        if how == "leave" {
            stream.sender.leave("gone").await.unwrap();
        }
        drop(stream);
        let began = Instant::now();
        while count("^sleep 313").await > 0 {
            assert!(began.elapsed() < Duration::from_secs(2), "{how}: it was not hung up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(count("^sleep 314").await, 1, "{how}");
        pair.run("alice", &[], "pkill -f 'slee[p] 314'").await;
    }
    // An order stops a workspace with everything, and says why.
    let ticket = pair.ticket(pair.order("alice", &[], Timestamp::MAX));
    let mut stream = pair.open(ticket, Command::Exec(left.into()), None).await;
    assert!(matches!(stream.receiver.next().await, Ok(Some(SessionOutput::Opened { .. }))));
    let stop = certs::ticket::WorkspaceOrder {
        workspace: "ws:brca.alice".parse().unwrap(),
        fate: certs::ticket::Fate::Stop,
        reason: "it runs hot".to_owned(),
    };
    pair.broker.order(pair.ticket(Order::Workspace(stop))).await.unwrap();
    match read_all(&mut stream).await.last {
        Some(SessionOutput::Aborted { reason }) => assert!(reason.contains("it runs hot"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let began = Instant::now();
    while count("^sleep 31[34]").await > 0 {
        assert!(began.elapsed() < Duration::from_secs(2), "something lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A broker that pushes input nobody reads can still end the session.
    let ticket = pair.ticket(pair.order("alice", &[], Timestamp::MAX));
    let mut stream = pair.open(ticket, Command::Exec(b"sleep 311".to_vec()), None).await;
    let flood = async {
        loop {
            stream.sender.send(SessionInput::Stdin(vec![0; 65_536].into())).await.unwrap();
        }
    };
    let _: Result<(), _> = tokio::time::timeout(Duration::from_millis(700), flood).await;
    let began = Instant::now();
    stream.sender.kill("revoked").await.unwrap();
    drop(stream);
    while count("^sleep 311").await > 0 {
        assert!(began.elapsed() < Duration::from_secs(2), "something lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_session_resizes_interrupts_and_ends() {
    let pair = Pair::new(Duration::from_secs(60)).await;
    let pty =
        Pty { term: "xterm".into(), cols: 80, rows: 24, width_px: 0, height_px: 0, modes: vec![(53, 0)] };
    let ticket = pair.ticket(pair.order("alice", &[], Timestamp::MAX));
    let mut stream = pair.open(ticket, Command::Shell, Some(pty)).await;
    let say = |text: &'static str| SessionInput::Stdin(text.as_bytes().to_vec().into());
    stream
        .sender
        .send(SessionInput::Resize(wire::message::WindowSize {
            cols: 132,
            rows: 43,
            width_px: 0,
            height_px: 0,
        }))
        .await
        .unwrap();
    stream.sender.send(say("stty size; echo $TERM; sleep 60\n")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.sender.send(SessionInput::Signal("INT".into())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.sender.send(say("kill -9 $$\n")).await.unwrap();
    let seen = read_all(&mut stream).await;
    let shown = String::from_utf8_lossy(&seen.out).into_owned();
    assert!(shown.contains("43 132") && shown.contains("xterm") && shown.contains("alice@brca"), "{shown}");
    let killed = Exited::Signal { name: "KILL".into(), core: false };
    assert_eq!(seen.last, Some(SessionOutput::Exit(killed)), "{shown}");
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_output_comes_whole_and_idle_workspaces_go() {
    let pair = Pair::new(Duration::from_millis(500)).await;
    let seen = pair.run("alice", &[], "head -c 20000000 /dev/zero; head -c 5000000 /dev/zero >&2").await;
    assert_eq!((seen.out.len(), seen.err.len(), seen.code()), (20_000_000, 5_000_000, Some(0)));
    pair.run("alice", &[], "echo kept > ~/file").await;
    let began = Instant::now();
    while !pair.events.lock().unwrap().iter().any(|e| matches!(e, AgentEvent::WorkspaceStopped { .. })) {
        assert!(began.elapsed() < Duration::from_secs(5), "it was not stopped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = pair.run("alice", &[], "cat ~/file").await;
    assert_eq!((seen.cold, seen.out.as_slice()), (Some(true), &b"kept\n"[..]), "a home persists");
    pair.close().await;
}

fn encrypted(plain: &[u8], to: &SecretKey) -> Vec<u8> {
    let mut encryptor = Encryptor::new(&to.public(), &SeededEntropy::new(31)).unwrap();
    let mut stream = encryptor.header().to_vec();
    stream.extend(encryptor.push(plain));
    stream.extend(encryptor.finish());
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_the_house_comes_back_and_nothing_else_does() {
    let pair = Pair::new(Duration::from_secs(60)).await;
    let object = ObjectId::random_kept(&pair.entropy).unwrap();
    let keep = || Order::Keep(KeepOrder { object: object.clone() });
    let plain: Vec<u8> = (0..9_000_001_u32).map(|i| (i % 253) as u8).collect();
    let stream = encrypted(&plain, &pair.intake.derived(KEEPING));

    // An attempt that is broken off leaves nothing that counts.
    let cut = pair.take_in(keep(), &stream[..5_000_000], 100_000, true);
    let _: Result<_, _> = tokio::time::timeout(Duration::from_millis(700), cut).await;
    let (size, root) = pair.take_in(keep(), &stream, 100_001, false).await.unwrap();
    assert_eq!(size, plain.len() as u64);
    assert_eq!(pair.shares.storage.depositing().unwrap().unfinished(&object).await, []);
    assert_eq!(pair.fetch(&object, size, root).await.unwrap(), plain);

    // Neither another length nor another root, and no upload taken for a record.
    assert_eq!(pair.fetch(&object, size - 1, root).await.unwrap_err().code, "fetch.size");
    assert_eq!(pair.fetch(&object, size, [9; 32]).await.unwrap_err().code, "fetch.failed");
    let upload = encrypted(b"reads of a patient", &pair.intake);
    let refused = pair.take_in(keep(), &upload, 1000, false).await.unwrap_err();
    assert_eq!(refused.code, "deposit.crypt4gh");
    pair.close().await;
}

/// What goes on when its person has left can still read, until it is stopped or access ends; whoever
/// comes next sees what their own ticket shows.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_can_read_until_its_access_ends() {
    let pair = Pair::new(Duration::from_secs(60)).await;
    let dataset = pair.shares.deposit("vendor", &[("note", b"read me\n".to_vec())]).await;
    let job = |name: &str, secs: u32| {
        format!(
            "nohup bash -c 'for i in {{1..{}}}; do cat /data/vendor/note; sleep 0.1; done' > {name} 2>&1 &",
            secs * 10
        )
    };
    let seen = pair.run("alice", std::slice::from_ref(&dataset), &job("first", 30)).await;
    assert_eq!(seen.code(), Some(0), "{seen:?}");
    // Seen from outside: whoever enters takes away what was left to be read.
    let [running] = &pair.workspaces.running()[..] else { panic!("it does not run") };
    let written = pair.bench.place.dir(&running.workspace).join("home/first");
    let reads = || std::fs::read_to_string(&written).unwrap().matches("read me").count();
    let before = reads();
    let began = Instant::now();
    while reads() < before + 3 {
        assert!(began.elapsed() < Duration::from_secs(10), "it reads nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = pair.run("alice", &[], "sleep 0.5; tail -n 1 first; cat /data/vendor/note").await;
    assert_eq!(String::from_utf8_lossy(&seen.out), "cat: /data/vendor/note: Permission denied\n", "{seen:?}");
    // Access that ends takes the workspace with it.
    let until = SystemClock.now().plus(Duration::from_millis(1500));
    let ticket = pair.ticket(pair.order("alice", std::slice::from_ref(&dataset), until));
    let mut stream = pair.open(ticket, Command::Exec(job("second", 30).into_bytes()), None).await;
    assert_eq!(read_all(&mut stream).await.code(), Some(0));
    let began = Instant::now();
    while !pair.events.lock().unwrap().iter().any(|e| matches!(e, AgentEvent::WorkspaceStopped { .. })) {
        assert!(began.elapsed() < Duration::from_secs(5), "it was not stopped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(pair.workspaces.running(), Vec::new());
    pair.close().await;
}
