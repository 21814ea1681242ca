//! The broker against stock OpenSSH and against people who mean it no good.

mod house;
mod trail;

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
    assert!(said.contains("connections out of the enclave are not open here"), "{said}");
    assert!(house.recorded(&["channel_refused", "port-forwarding", "10.0.0.1:22"]).await);
    let (code, _, said) = alice.run(&["-s", "brca@127.0.0.1", "sftp"]).await;
    assert_eq!(code, 77, "{said}");
    assert!(said.contains("File transfer is not open yet"), "{said}");
    assert!(house.recorded(&["channel_refused", "subsystem", "sftp"]).await);
    let (code, _, _) = alice.run(&["-R", "9999:localhost:1", "brca@127.0.0.1", "true"]).await;
    assert_eq!(code, 255);
    assert!(house.recorded(&["channel_refused", "remote-forwarding"]).await);
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
