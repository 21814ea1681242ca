//! The signer as a process: first start, service, rules, crashes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use certs::ssh::{SshTrust, generate_key};
use certs::x509::{KeyPair, Usage, verify_chain};
use certs::{check_user_certificate, ssh_key::certificate::CertType};
use model::ambient::SystemClock;
use model::{Clock, SeededEntropy};
use signer::{Authorities, IssueX509, SignHost, SignUser, SignerClient, SignerError};
use tempfile::TempDir;

/// A signer in a folder of its own, killed when dropped.
struct Signer(Child);

impl Signer {
    fn spawn(root: &Path) -> Signer {
        let child = Command::new(env!("CARGO_BIN_EXE_sekisho-signer"))
            .arg("--dir")
            .arg(root.join("signer"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Signer(child)
    }

    /// Spawns and waits for the ready line.
    fn start(root: &Path) -> Signer {
        let mut signer = Signer::spawn(root);
        let mut line = String::new();
        BufReader::new(signer.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if !line.starts_with("ready signer=/") {
            panic!("{line:?}: {}", signer.end());
        }
        signer
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end by itself and returns what it logged.
    fn end(&mut self) -> String {
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        self.0.wait().unwrap();
        log
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client(root: &Path) -> SignerClient {
    SignerClient::new(root.join("run/signer.sock"))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn authorities(root: &Path) -> Authorities {
    block_on(client(root).authorities()).unwrap()
}

fn user_request(lifetime_secs: u64) -> SignUser {
    let key = generate_key(&SeededEntropy::new(1), "").unwrap();
    SignUser {
        person: "u:alice".parse().unwrap(),
        public_key: key.public_key().to_openssh().unwrap(),
        lifetime_secs,
        source_address: Some("127.0.0.0/8".to_owned()),
        pty: true,
        port_forwarding: true,
        force_command: None,
    }
}

fn x509_request(spiffe: &str, lifetime_secs: u64) -> IssueX509 {
    let key = KeyPair::generate(&SeededEntropy::new(2)).unwrap();
    IssueX509 {
        spiffe: spiffe.parse().unwrap(),
        dns: vec![],
        ips: vec![],
        spki_der: key.spki().unwrap(),
        lifetime_secs,
    }
}

#[test]
fn it_issues_what_the_others_accept_and_survives_a_restart() {
    let root = TempDir::new().unwrap();
    let mut signer = Signer::start(root.path());
    let known = authorities(root.path());
    let now = SystemClock.now();

    let certificate = block_on(client(root.path()).sign_user(user_request(900))).unwrap();
    let trust = SshTrust::new(vec![known.user_ca_key().unwrap()]);
    let peer = Some("127.0.0.1".parse().unwrap());
    let principal = check_user_certificate(&certificate, &trust, now, peer).unwrap();
    assert_eq!(principal.person.as_str(), "u:alice");

    let host = SignHost {
        principals: vec!["localhost".to_owned()],
        public_key: user_request(900).public_key,
        lifetime_secs: 86_400,
    };
    let host = block_on(client(root.path()).sign_host(host)).unwrap();
    assert_eq!(host.cert_type(), CertType::Host);
    assert_eq!(host.signature_key(), known.host_ca_key().unwrap().key_data());
    assert_ne!(known.host_ca, known.user_ca);

    let leaf = block_on(client(root.path()).issue_x509(x509_request("agent/hall-1", 86_400))).unwrap();
    let id = verify_chain(&[leaf], &known.x509_ca().unwrap(), &known.domain, now, Usage::Client).unwrap();
    assert_eq!(id.to_string(), "agent/hall-1");

    signer.signal("-TERM");
    let log = signer.end();
    assert!(signer.0.wait().unwrap().success(), "{log}");
    assert!(!root.path().join("run/signer.sock").exists());
    let _again = Signer::start(root.path());
    assert_eq!(authorities(root.path()), known);

    let journal = std::fs::read_to_string(root.path().join("signer/journal.jsonl")).unwrap();
    let lines: Vec<&str> = journal.lines().collect();
    assert_eq!(lines.len(), 3, "{journal}");
    assert!(
        lines[0].contains("\"what\":\"ssh_user\"") && lines[0].contains(&certificate.serial().to_string())
    );
    assert!(lines[2].contains("\"subject\":\"agent/hall-1\""));
}

#[test]
fn it_keeps_the_rules_whoever_asks() {
    let root = TempDir::new().unwrap();
    let _signer = Signer::start(root.path());
    let client = client(root.path());
    let refused = |result: Result<(), SignerError>, words: &str| match result {
        Err(SignerError::Refused { reason }) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{words}: {other:?}"),
    };
    let user = |request| block_on(client.sign_user(request)).map(|_| ());
    let x509 = |request| block_on(client.issue_x509(request)).map(|_| ());
    refused(user(user_request(3601)), "3600 s");
    refused(user(SignUser { public_key: "ssh-rsa x".to_owned(), ..user_request(60) }), "public key");
    refused(user(SignUser { source_address: Some("all".to_owned()), ..user_request(60) }), "address");
    refused(x509(x509_request("person/alice", 7200)), "3600 s");
    refused(x509(x509_request("broker/main", 86_401)), "86400 s");
    refused(x509(IssueX509 { dns: vec!["x.example".to_owned()], ..x509_request("agent/a", 60) }), "brokers");
    refused(x509(IssueX509 { spki_der: vec![1], ..x509_request("agent/a", 60) }), "key");
    let host = SignHost {
        principals: vec!["*".to_owned()],
        public_key: user_request(60).public_key,
        lifetime_secs: 60,
    };
    refused(block_on(client.sign_host(host)).map(|_| ()), "host names");
    let journal = std::fs::read_to_string(root.path().join("signer/journal.jsonl")).unwrap();
    assert_eq!(journal.lines().filter(|line| line.contains("\"refused\":")).count(), 8, "{journal}");
}

#[test]
fn names_outside_the_list_are_refused() {
    let root = TempDir::new().unwrap();
    std::fs::create_dir(root.path().join("signer")).unwrap();
    let config = "trust_domain = \"a.test\"\nsocket = \"../run/signer.sock\"\nhost_names = [\"localhost\"]\n";
    std::fs::write(root.path().join("signer/config.toml"), config).unwrap();
    let _signer = Signer::start(root.path());
    let ask = |name: &str| {
        let request = IssueX509 { dns: vec![name.to_owned()], ..x509_request("broker/main", 60) };
        block_on(client(root.path()).issue_x509(request))
    };
    assert!(ask("localhost").is_ok());
    assert!(matches!(ask("bank.example"), Err(SignerError::Refused { .. })));
}

#[test]
fn a_start_that_was_killed_is_continued() {
    let root = TempDir::new().unwrap();
    for micros in (0..12).map(|n| n * 1_500) {
        let mut signer = Signer::spawn(root.path());
        std::thread::sleep(Duration::from_micros(micros));
        signer.0.kill().unwrap();
        signer.0.wait().unwrap();
    }
    let mut signer = Signer::start(root.path());
    let known = authorities(root.path());
    signer.0.kill().unwrap();
    signer.0.wait().unwrap();
    // A killed signer leaves its socket; the next one takes its place.
    assert!(root.path().join("run/signer.sock").exists());
    let _again = Signer::start(root.path());
    assert_eq!(authorities(root.path()), known);
}

#[test]
fn each_step_of_the_first_start_may_be_the_last() {
    // What a kill between two steps leaves behind: some shares, no authority.json.
    let root = TempDir::new().unwrap();
    drop(Signer::start(root.path()));
    let dir = root.path().join("signer");
    std::fs::rename(dir.join("authority.json"), dir.join("authority.new")).unwrap();
    std::fs::remove_file(dir.join("custody/3")).unwrap();
    std::fs::write(dir.join("custody/2.new"), "sks1.2.half").unwrap();
    std::fs::write(dir.join("journal.jsonl"), "{\"at\":\"half a li").unwrap();
    let signer = Signer::start(root.path());
    let known = authorities(root.path());
    block_on(client(root.path()).sign_user(user_request(60))).unwrap();
    drop(signer);
    let _again = Signer::start(root.path());
    assert_eq!(authorities(root.path()), known);
    let journal = std::fs::read_to_string(dir.join("journal.jsonl")).unwrap();
    let last = journal.lines().last().unwrap();
    assert!(last.starts_with("{\"at\":") && last.ends_with('}'), "{journal}");
}

#[test]
fn two_of_three_shares_are_enough_and_one_is_not() {
    let root = TempDir::new().unwrap();
    drop(Signer::start(root.path()));
    let custody = root.path().join("signer/custody");
    for share in ["1", "2", "3"] {
        let mode = std::fs::metadata(custody.join(share)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::remove_file(custody.join("1")).unwrap();
    drop(Signer::start(root.path()));
    std::fs::write(custody.join("2"), "sks1.2.aaaa").unwrap();
    let mut signer = Signer::spawn(root.path());
    let log = signer.end();
    assert!(!signer.0.wait().unwrap().success());
    assert!(log.contains("1 of the 2 shares needed"), "{log}");
}

#[test]
fn mistakes_of_the_operator_are_named() {
    let root = TempDir::new().unwrap();
    let signer = Signer::start(root.path());
    let fails = |words: &str| {
        let mut second = Signer::spawn(root.path());
        let log = second.end();
        assert!(!second.0.wait().unwrap().success());
        assert!(log.contains(words), "{words:?}: {log}");
    };
    fails("another sekisho-signer runs in this folder");
    drop(signer);
    let config = root.path().join("signer/config.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("sekisho.test", "other.test")).unwrap();
    fails("set it back");
    std::fs::write(&config, format!("{good}\ncolour = 1\n")).unwrap();
    fails("colour");
    std::fs::write(&config, format!("user = \"no-such-user\"\n{good}")).unwrap();
    fails("does not exist");
    std::fs::write(&config, good).unwrap();
    let authority = root.path().join("signer/authority.json");
    let text = std::fs::read_to_string(&authority).unwrap();
    std::fs::write(&authority, &text[..text.len() / 2]).unwrap();
    fails("restore it from a copy");
}

#[test]
fn rubbish_and_silence_do_not_keep_others_waiting() {
    let root = TempDir::new().unwrap();
    let _signer = Signer::start(root.path());
    let socket = root.path().join("run/signer.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    // Thirty callers that say nothing, and some that say nonsense.
    let _silent: Vec<UnixStream> = (0..30).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for rubbish in [&[0xff; 9][..], &[0, 0, 0, 0], &[3, 0, 0, 0, 1, 200, 200], &[1, 0]] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(rubbish).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    assert!(block_on(client(root.path()).sign_user(user_request(60))).is_ok());
}

#[test]
fn many_at_once_are_all_answered() {
    let root = TempDir::new().unwrap();
    let _signer = Signer::start(root.path());
    let client = client(root.path());
    block_on(async {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.sign_user(user_request(60)).await.map(|c| c.serial()) })
            })
            .collect();
        let mut serials = std::collections::BTreeSet::new();
        for task in tasks {
            serials.insert(task.await.unwrap().unwrap());
        }
        assert_eq!(serials.len(), 100);
    });
}

#[test]
fn nobody_there_is_said_so() {
    let root = TempDir::new().unwrap();
    let error = block_on(client(root.path()).authorities()).unwrap_err();
    assert!(matches!(error, SignerError::Unreachable { .. }));
    assert!(error.to_string().contains("check that sekisho-signer runs"), "{error}");
}
