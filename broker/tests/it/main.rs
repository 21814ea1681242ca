//! The broker against stock OpenSSH and against people who mean it no good.

mod accepted;
mod collectors;
mod house;
mod keeping;
mod made_up;
mod recordings;
mod sessions;
mod trail;
mod vaulted;
mod witnessed;

use std::process::Stdio;
use std::time::{Duration, Instant};

use certs::ssh::{UserCertificateRequest, generate_key, issue_user_certificate};
use house::House;
use model::ambient::{OsEntropy, SystemClock};
use model::{Clock, Entropy, PersonId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    OsEntropy.fill(&mut bytes).unwrap();
    bytes
}

fn sha2(content: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).to_vec()
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_and_every_byte_and_status_comes_back() {
    let mut house = House::new().await;
    let alice = house.alice(None).await;
    let (code, _, said) = alice.run(&["brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("No host for workspaces"), "{said}");
    house.agent_comes().await;

    let (code, out, said) = alice.run(&["brca@127.0.0.1", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!((code, out.as_slice(), said.as_str()), (7, &b"out\n"[..], "err\n"));
    let (code, out, _) = alice.run(&["-o", "SetEnv=LC_TEST=yes", "brca@127.0.0.1", "echo $LC_TEST"]).await;
    assert_eq!((code, out.as_slice()), (0, &b"yes\n"[..]));
    let (code, _, _) = alice.run(&["brca@127.0.0.1", "kill -TERM $$"]).await;
    assert_eq!(code, 255, "a signal is no exit status");
    assert!(house.recorded(&["session_opened", "u:alice", "study:brca"]).await);
    assert!(house.recorded(&["session_closed", "u:alice"]).await);
    assert_eq!(house.node().services().slots.available_permits(), 256);

    // Another purpose than the study's is the gate's to refuse.
    let (code, _, said) = alice.run(&["-o", "SetEnv=SEKISHO_PURPOSE=GRU", "brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 77, "{said}");
    let (code, _, said) = alice.run(&["heart@127.0.0.1", "true"]).await;
    assert_eq!(code, 77, "{said}");
    assert!(said.starts_with("sekisho: "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_input_and_output_pass_each_other_without_standing_still() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let sent = noise(24 << 20);
    let mut child = alice.ssh(&["brca@127.0.0.1", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move { stdin.write_all(&sent).await.unwrap() }
    });
    // Nobody reads the output for a while: everything fills up, and must flow again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut got = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), stdout.read_to_end(&mut got)).await.unwrap().unwrap();
    writing.await.unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_costs_little_and_is_ended_within_a_second() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let mut reading =
        alice.ssh(&["brca@127.0.0.1", "echo ready; exec cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 6];
    reading.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    let before = resident();
    let stuck = alice.ssh(&["brca@127.0.0.1", "cat /dev/zero"]).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");

    let begun = Instant::now();
    assert_eq!(house.revoke().await["sessions_ended"], 2);
    let slots = &house.node().services().slots;
    while slots.available_permits() < 256 {
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(1100), "{:?}", begun.elapsed());
    let output =
        tokio::time::timeout(Duration::from_secs(5), reading.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("consent withdrawn"), "{said}");
    assert!(house.recorded(&["session_ended", "grant-revoked"]).await);
    drop(stuck);
    let (code, _, said) = alice.run(&["brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 77, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_opens_nothing_says_why() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let key = ssh_key::PublicKey::from_openssh(
        &ssh_key::PrivateKey::read_openssh_file(alice.dir.join("key"))
            .unwrap()
            .public_key()
            .to_openssh()
            .unwrap(),
    )
    .unwrap();
    let request = |lifetime| UserCertificateRequest {
        person: PersonId::from_name("alice").unwrap(),
        public_key: key.clone(),
        lifetime: Duration::from_secs(lifetime),
        source_addresses: Vec::new(),
        pty: true,
        port_forwarding: true,
        force_command: None,
    };
    let good = std::fs::read_to_string(alice.dir.join("cert.pub")).unwrap();
    let present = async |cert: ssh_key::Certificate, words: &str, fault: &str| {
        std::fs::write(alice.dir.join("cert.pub"), cert.to_openssh().unwrap()).unwrap();
        let (code, _, said) = alice.run(&["brca@127.0.0.1", "true"]).await;
        assert_eq!(code, 255, "{said}");
        assert!(said.contains(words), "{words}: {said}");
        assert!(house.recorded(&["auth_refused", fault]).await, "{fault}");
    };
    let stranger = generate_key(&OsEntropy, "other").unwrap();
    let now = SystemClock.now();
    let other = issue_user_certificate(&request(600), &stranger, now, &OsEntropy).unwrap();
    present(other, "authority that this gate does not know", "unknown-authority").await;
    let early = now.minus(Duration::from_secs(7200));
    let expired = issue_user_certificate(&request(600), &house.ca.user, early, &OsEntropy).unwrap();
    // The SSH machine turns it away unseen, and the bare key's last certificate still holds.
    std::fs::write(alice.dir.join("cert.pub"), expired.to_openssh().unwrap()).unwrap();
    let (code, _, said) = alice.run(&["brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 255, "{said}");
    assert!(house.recorded(&["auth_refused", "no-certificate"]).await);
    // Once the last one that was issued has ended, the reason is known.
    let services = house.node().services();
    let print = key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
    services.issued.note(&print, &PersonId::from_name("alice").unwrap(), early);
    present(expired, "expired at", "expired").await;

    std::fs::write(alice.dir.join("cert.pub"), good).unwrap();
    let (code, _, said) = alice.run(&["Not_A_Study!@127.0.0.1", "true"]).await;
    assert_eq!(code, 255);
    assert!(said.contains("is not the name of a study"), "{said}");
    let (code, _, said) = alice.run(&["brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_refused_in_words_and_recorded() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let (code, _, said) = alice.run(&["-W", "10.0.0.1:22", "brca@127.0.0.1"]).await;
    assert_eq!(code, 255);
    assert!(said.contains("leads into workspaces and not to other machines"), "{said}");
    assert!(house.recorded(&["channel_refused", "port-forwarding", "10.0.0.1:22"]).await);
    let (code, _, said) = alice.run(&["-s", "brca@127.0.0.1", "telemetry"]).await;
    assert_eq!(code, 77, "{said}");
    assert!(said.contains("Subsystems other than sftp are not offered"), "{said}");
    assert!(house.recorded(&["channel_refused", "gate/channel/subsystem/refuse", "telemetry"]).await);
    let (code, _, said) = alice.run(&["-W", "localhost:8888", "brca@127.0.0.1"]).await;
    assert_eq!(code, 255);
    assert!(said.contains("not open in study:brca"), "{said}");
    assert!(house.recorded(&["channel_refused", "study:brca/channel/port-forwarding/refuse"]).await);
    let (code, _, said) = alice.run(&["-A", "brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 0, "{said}");
    for (what, line) in [("export", "scp -f x"), ("export", "rsync --server --sender . x")] {
        let (code, _, said) = alice.run(&["brca@127.0.0.1", line]).await;
        assert_eq!(code, 77, "{said}");
        assert!(said.contains("airlock"), "{said}");
        assert!(house.recorded(&["channel_refused", what, line]).await);
    }
    let (code, _, _) = alice.run(&["-R", "9999:localhost:1", "brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 255);
    assert!(house.recorded(&["channel_refused", "remote-forwarding"]).await);
}

/// A certificate for one command, whatever is asked; and what it does not permit is refused.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_certificate_says_holds_for_every_channel() {
    let mut house = House::new().await;
    house.agent_comes().await;
    house.channels(&["port-forwarding"], &[]).await;
    let alice = house.alice(None).await;
    let key = ssh_key::PrivateKey::read_openssh_file(alice.dir.join("key")).unwrap();
    let request = UserCertificateRequest {
        person: PersonId::from_name("alice").unwrap(),
        public_key: key.public_key().clone(),
        lifetime: Duration::from_secs(600),
        source_addresses: Vec::new(),
        pty: false,
        port_forwarding: false,
        force_command: Some("echo forced: $SSH_ORIGINAL_COMMAND".to_owned()),
    };
    let present = |request: &UserCertificateRequest| {
        let cert = issue_user_certificate(request, &house.ca.user, SystemClock.now(), &OsEntropy).unwrap();
        std::fs::write(alice.dir.join("cert.pub"), cert.to_openssh().unwrap()).unwrap();
    };
    present(&request);
    let (code, out, said) = alice.run(&["brca@127.0.0.1", "rm -rf 研究"]).await;
    assert_eq!((code, String::from_utf8(out).unwrap().as_str()), (0, "forced: rm -rf 研究\n"), "{said}");
    let (_, out, said) = alice.run(&["brca@127.0.0.1"]).await;
    assert_eq!(String::from_utf8(out).unwrap(), "forced:\n", "{said}");
    let (_, out, said) = alice.run(&["-s", "brca@127.0.0.1", "sftp"]).await;
    assert_eq!(String::from_utf8(out).unwrap(), "forced: internal-sftp\n", "{said}");
    let (code, out, said) = alice.run(&["-tt", "brca@127.0.0.1", "x"]).await;
    assert_eq!((code, out.len()), (77, 0), "{said}");
    assert!(said.contains("Terminals are not permitted by your certificate"), "{said}");
    assert!(house.recorded(&["channel_refused", "certificate/channel/terminal/refuse"]).await);
    let (code, _, said) = alice.run(&["-W", "localhost:8888", "brca@127.0.0.1"]).await;
    assert_eq!(code, 255);
    assert!(said.contains("not permitted by your certificate"), "{said}");
    let files = UserCertificateRequest { force_command: Some("internal-sftp".to_owned()), ..request };
    present(&files);
    let (code, out, said) = alice.sftp(&["pwd"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(String::from_utf8_lossy(&out).contains("/"), "{said}");
    // Its shell is a server of files too: it gives up on what is no packet.
    let (_, out, _) = alice.run(&["brca@127.0.0.1", "echo escaped"]).await;
    assert!(!String::from_utf8_lossy(&out).contains("escaped"));
}

/// Against a server that is not ours: what the broker lets through is what it should.
#[tokio::test(flavor = "multi_thread")]
async fn files_come_in_and_do_not_go_out_and_each_is_on_record() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let (there, here) = (alice.dir.join("there"), alice.dir.join("here"));
    std::fs::create_dir(&there).unwrap();
    let content = noise(3 << 20);
    std::fs::write(&here, &content).unwrap();
    let hash = data_encoding::HEXLOWER.encode(&sha2(&content));
    let (up, back) = (there.join("研究.bin"), alice.dir.join("back"));
    let put = format!("put {} {}", here.display(), up.display());
    let get = format!("get {} {}", up.display(), back.display());
    let (code, _, said) = alice.sftp(&[&put, "ls -l", "pwd"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&up).unwrap() == content);
    assert!(house.recorded(&["file_transferred", "upload", "研究.bin", &hash, "completed"]).await);
    let (code, _, said) = alice.sftp(&[&get]).await;
    assert_ne!(code, 0);
    assert!(said.contains("airlock"), "{said}");
    assert!(!back.exists() || std::fs::read(&back).unwrap().is_empty());
    assert!(house.recorded(&["channel_refused", "study:brca/channel/export/refuse", "研究.bin"]).await);

    house.channels(&["export"], &["upload"]).await;
    let (code, _, said) = alice.sftp(&[&get]).await;
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&back).unwrap() == content);
    assert!(house.recorded(&["file_transferred", "download", "研究.bin", &hash]).await);
    for change in [&put, "mkdir x", "rm /tmp/x", "rename /tmp/x /tmp/y"] {
        let (code, _, said) = alice.sftp(&[change]).await;
        assert_ne!(code, 0, "{change}");
        assert!(said.contains("not open in study:brca"), "{change}: {said}");
    }
    house.channels(&[], &["export"]).await;
    let (code, _, said) = alice.sftp(&["pwd"]).await;
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("sekisho put"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_workspace_are_reached_and_half_closed_connections_work() {
    let mut house = House::new().await;
    house.agent_comes().await;
    house.channels(&["port-forwarding"], &[]).await;
    let alice = house.alice(None).await;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                // It answers only once the other side has said that it is done.
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    let sent = noise(5 << 20);
    let target = format!("localhost:{port}");
    let mut child = alice.ssh(&["-W", &target, "brca@127.0.0.1"]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move { stdin.write_all(&sent).await.unwrap() }
    });
    let mut got = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), stdout.read_to_end(&mut got)).await.unwrap().unwrap();
    writing.await.unwrap();
    assert!(got == sent, "{} of {}", got.len(), sent.len());
    assert!(house.recorded(&["channel_opened", "port-forwarding", &port.to_string()]).await);
    let (code, _, said) = alice.run(&["-W", "localhost:1", "brca@127.0.0.1"]).await;
    assert_eq!(code, 255);
    assert!(said.contains("answers on port 1"), "{said}");
}

/// One stalled session of files, with everything outstanding, in a connection with others.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_transfer_costs_nobody_else_anything() {
    use wire::sftp::{Packet, kind, open};
    let mut house = House::new().await;
    house.agent_comes().await;
    house.channels(&["export"], &[]).await;
    let alice = house.alice(None).await;
    let big = alice.dir.join("big");
    std::fs::File::create(&big).unwrap().set_len(64 << 20).unwrap();
    let control = format!("ControlPath={}/mux", alice.dir.display());
    let mut master = alice.ssh(&["-o", &control, "-M", "-N", "brca@127.0.0.1"]).spawn().unwrap();
    while !alice.dir.join("mux").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shared = ["-o", &control, "brca@127.0.0.1"];
    let mut stalled =
        alice.ssh(&["-o", &control, "-s", "brca@127.0.0.1", "sftp"]).stdin(Stdio::piped()).spawn().unwrap();
    let stdin = stalled.stdin.as_mut().unwrap();
    let path = big.to_str().unwrap().as_bytes();
    let begin = [
        Packet::new(kind::INIT).u32(3).finish(),
        Packet::answer(kind::OPEN, 1).string(path).u32(open::READ).u32(0).finish(),
    ];
    stdin.write_all(&begin.concat()).await.unwrap();
    let mut answer = vec![0; 4];
    let mut handle = Vec::new();
    for _ in 0..2 {
        let stdout = stalled.stdout.as_mut().unwrap();
        stdout.read_exact(&mut answer).await.unwrap();
        handle = vec![0; u32::from_be_bytes(answer[..4].try_into().unwrap()) as usize];
        stdout.read_exact(&mut handle).await.unwrap();
    }
    assert_eq!(handle[0], kind::HANDLE);
    let handle = handle[9..].to_vec();
    let reads: Vec<u8> = (0..64u32)
        .flat_map(|i| {
            let offset = u64::from(i) * 261_120;
            Packet::answer(kind::READ, 2 + i).string(&handle).u64(offset).u32(261_120).finish()
        })
        .collect();
    let before = resident();
    stalled.stdin.as_mut().unwrap().write_all(&reads).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..5 {
        let begun = Instant::now();
        let (code, out, said) = alice.run(&[&shared[..], &["echo hi"]].concat()).await;
        assert_eq!((code, out.as_slice()), (0, &b"hi\n"[..]), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    stalled.kill().await.unwrap();
    master.kill().await.unwrap();
    assert!(house.recorded(&["file_transferred", "big", "aborted"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_door_costs_little_and_keeps_nobody_out() {
    // Both ends of every connection are in this process.
    broker::process::harden().unwrap();
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let at = house.node().endpoints().ssh;
    assert_eq!(alice.run(&["brca@127.0.0.1", "true"]).await.0, 0);
    let before = resident();
    let mut crowd = Vec::new();
    for i in 0..2000 {
        let Ok(mut stream) = TcpStream::connect(at).await else { break };
        match i % 3 {
            0 => {}
            1 => stream.write_all(b"SSH-2.0-slow").await.unwrap_or(()),
            _ => stream.write_all(&noise(200)).await.unwrap_or(()),
        }
        crowd.push(stream);
    }
    assert_eq!(crowd.len(), 2000, "the limit of open files is too low for this test");
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes more for {}", crowd.len());
    let begun = Instant::now();
    let (code, _, said) = alice.run(&["brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_knows_its_callers_and_takes_files_in() {
    let mut house = House::new().await;
    let alice = house.alice(None).await;
    let (status, answer) = house.call(None, "GET", "/v1/health", b"").await;
    assert_eq!((status, &answer["status"]), (200, &"ok".into()));
    let (status, answer) = house.call(None, "GET", "/v1/people", b"").await;
    assert_eq!((status, &answer["error"]["code"]), (401, &"certificate".into()));
    let (status, answer) = house.call(Some(&alice.tls), "GET", "/v1/people", b"").await;
    assert_eq!(status, 403, "{answer}");
    let (status, answer) = house.call(Some(&house.admin), "GET", "/v1/people", b"").await;
    assert_eq!((status, answer.as_array().map(Vec::len)), (200, Some(2)), "{answer}");
    let stranger = house::House::new().await;
    let (status, answer) = house.call(Some(&stranger.admin), "GET", "/v1/people", b"").await;
    assert_eq!(status, 401, "{answer}");
    for (body, wrong) in [
        (&br#"{"agent":"agent:x","more":1}"#[..], "unknown field"),
        (b"{", "EOF"),
        (&[b'x'; 70_000], "bytes"),
    ] {
        let (status, answer) = house.call(Some(&house.admin), "POST", "/v1/agents/token", body).await;
        assert!(status == 400 || status == 413, "{status}");
        assert!(answer.to_string().contains(wrong), "{wrong}: {answer}");
    }

    let path = "/v1/datasets/ds:cancer/objects/reads.bam";
    assert_eq!(house.call(Some(&house.admin), "PUT", path, b"x").await.0, 503, "no agent yet");
    house.agent_comes().await;
    let (status, answer) = house.call(Some(&house.admin), "GET", "/v1/intake-key", b"").await;
    assert_eq!((status, &answer["agent"]), (200, &house::agent().as_str().into()));
    assert_eq!(house.call(Some(&alice.tls), "PUT", path, b"x").await.0, 403);
    let (status, answer) = house.call(Some(&house.admin), "PUT", path, &noise(3_000_000)).await;
    assert_eq!((status, &answer["size"]), (200, &3_000_000.into()), "{answer}");
    assert!(house.recorded(&["deposit_completed", "ds:cancer"]).await);
    assert_eq!(house.call(Some(&house.admin), "PUT", path, b"x").await.0, 409, "the name is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_sessions_with_a_word_and_the_log_verifies() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let mut child =
        alice.ssh(&["brca@127.0.0.1", "echo ready; exec cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    house.node.take().unwrap().stop("a test").await;
    let output =
        tokio::time::timeout(Duration::from_secs(5), child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("being stopped"), "{said}");
    let audit = house.dir.path().join("audit");
    let key = std::fs::read_to_string(audit.join("key.pub")).unwrap().trim().parse().unwrap();
    let report = audit::verify_dir(&audit, &key).unwrap();
    assert!(report.entries > 10);
}

/// Several workspaces by name, and a list to choose from for whoever names none.
#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_entered_by_name_or_chosen_from_a_list() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let own = "alice@127.0.0.1";
    let (code, out, said) = alice.run(&[own, "echo in"]).await;
    assert_eq!((code, out.as_slice()), (0, &b"in\n"[..]), "there is but one: {said}");
    let (code, _, said) = alice.run(&["brca+big@127.0.0.1", "true"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(house.recorded(&["session_opened", "ws:brca.alice.big"]).await);

    // Now there are two: a program is told so, and a person asked.
    let (code, _, said) = alice.run(&[own, "true"]).await;
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("brca+big, brca") || said.contains("brca, brca+big"), "{said}");
    assert!(house.recorded(&["session_refused", "ambiguous-workspace"]).await);
    let choose = async |typed: &str, language: &str| {
        let lang = format!("SetEnv=LANG={language}");
        let mut child = alice.ssh(&["-tt", "-o", &lang, own, "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(typed.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
        let output = output.unwrap().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // A wrong answer is asked again; what is typed ahead is for what runs then.
    let (code, shown) = choose("7\r1x\x7f\rhello\n", "C").await;
    assert!(shown.contains("Which workspace?") && shown.contains("none of them"), "{shown}");
    assert!(shown.contains("hello"), "what was typed ahead is lost: {shown}");
    assert_eq!(code, Some(0), "{shown}");
    let (_, shown) = choose("brca\rhello\n", "ja_JP.UTF-8").await;
    assert!(shown.contains("どのワークスペースに接続しますか") && shown.contains("hello"), "{shown}");
    let (code, shown) = choose("\x03", "C").await;
    assert_eq!(code, Some(130), "{shown}");
    for bad in ["brca+", "brca+a.b", "brca+A", "brca+a+b"] {
        let (code, _, said) = alice.run(&[&format!("{bad}@127.0.0.1"), "true"]).await;
        assert_eq!(code, 255, "{bad}: {said}");
        assert!(said.contains("STUDY+WORKSPACE"), "{bad}: {said}");
    }
    let (code, _, said) = alice.run(&["heart@127.0.0.1", "true"]).await;
    assert_eq!(code, 77, "{said}");
    assert!(said.contains("You have: brca"), "{said}");
}
