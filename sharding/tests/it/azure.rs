//! Two backends are containers of Microsoft's own emulator of Azure Blob Storage (`azurite`), which checks
//! every signature, the others are folders.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use data_encoding::BASE64;
use model::{BackendId, ObjectId, SeededEntropy};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sharding::format::Root;
use sharding::vault::{
    Access, Backend, CredentialSource, DepositError, FaultKind, Options, ReadError, Refresh, Vault,
};

use crate::server;
use crate::support::{BLOCK, EXTENT, content};

const ACCOUNT: &str = "kansai";
const KEY: &[u8; 32] = b"neither logged nor shown to them";
const CONTAINERS: [&str; 2] = ["east", "west"];

/// The service over a folder. It listens at the same port whenever it runs.
struct Server {
    at: SocketAddr,
    dir: PathBuf,
    running: Option<Child>,
}

impl Server {
    fn start(dir: &Path) -> Server {
        let at = server::free();
        let mut server = Server { at, dir: dir.to_owned(), running: None };
        server.resume();
        for container in CONTAINERS {
            server.create(container);
        }
        server
    }

    fn resume(&mut self) {
        let mut command =
            Command::new(server::cached("SEKISHO_AZURE_SERVER", "azurite/node_modules/.bin/azurite-blob"));
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &self.at.port().to_string()]);
        command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location"]);
        command.arg(self.dir.join("azure"));
        command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", BASE64.encode(KEY)));
        self.running = Some(server::start(&mut command, self.at, Duration::from_secs(60)));
    }

    /// In good order: the emulator writes its index only every few seconds.
    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
            child.wait().unwrap();
        }
    }

    /// Creates a container, which is the operator's to do: a request signed with the account's key (Azure
    /// Storage REST API, "Authorize with Shared Key").
    fn create(&self, container: &str) {
        let date =
            Command::new("date").args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C").output();
        let date = String::from_utf8(date.unwrap().stdout).unwrap();
        let headers = format!("x-ms-date:{}\nx-ms-version:2021-08-06\n", date.trim());
        let to_sign =
            format!("PUT{}{headers}/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container", "\n".repeat(12));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY);
        let signature = BASE64.encode(ring::hmac::sign(&key, to_sign.as_bytes()).as_ref());
        let request = format!(
            "PUT /{ACCOUNT}/{container}?restype=container HTTP/1.1\r\nhost: {}\r\n{}\
             authorization: SharedKey {ACCOUNT}:{signature}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.at,
            headers.replace('\n', "\r\n"),
        );
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    fn access(&self, key: &[u8]) -> Access {
        let file = self.dir.join(format!("key-{}", key[0]));
        std::fs::write(&file, format!("account_key = {}\n", BASE64.encode(key))).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        Access {
            endpoint: Some(format!("http://{}/{ACCOUNT}", self.at).parse().unwrap()),
            account: Some(ACCOUNT.to_owned()),
            credentials: Some(CredentialSource::File(file)),
            ..Access::default()
        }
    }

    fn backend(&self, container: &str, key: &[u8]) -> Backend {
        let url = format!("az://{container}/shares/of-ours").parse().unwrap();
        let id = BackendId::from_name(container).unwrap();
        Backend::open(id, format!("Cloud {container}"), &url, &self.access(key), |_| None).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn folder(dir: &Path, at: usize) -> Backend {
    let (id, folder) = (format!("folder-{at}"), dir.join(format!("folder-{at}")));
    Backend::local(BackendId::from_name(&id).unwrap(), format!("House {at}"), &folder).unwrap()
}

/// Two busy cores are no fault of the service's.
fn options() -> Options {
    Options {
        read_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(20),
        penalty: Duration::from_millis(100),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_azure_are_backends_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut backends: Vec<_> = CONTAINERS.iter().map(|name| server.backend(name, KEY)).collect();
    backends.extend((1..=3).map(|at| folder(dir.path(), at)));
    let vault = Vault::new(backends.clone(), 3, options()).unwrap();
    let object = ObjectId::from_name("genome-1").unwrap();
    let plaintext = content(2 * EXTENT + BLOCK + 77);

    let root = vault.deposit(&object, &plaintext[..], &SeededEntropy::new(1), |_| {}).await.unwrap().root;
    assert!(vault.verify(&object, &root, |_| {}).await.unwrap().whole());
    assert_eq!(vault.manifests(None).await[0].held_by, 5);

    // With one folder alone beside them, both containers are needed.
    let few = Vault::reading(backends[..3].to_vec(), options());
    let reader = few.open(&object, &root).await.unwrap();
    assert_eq!(reader.read_at(BLOCK as u64 - 5, 100).await.unwrap()[..], plaintext[BLOCK - 5..BLOCK + 95]);
    assert!(reader.read_at(0, plaintext.len()).await.unwrap()[..] == plaintext[..]);
    server.stop();
    let away = reader.read_at(0, 1000).await.unwrap_err();
    let ReadError::TooFew { needed: 3, good: 1, faults, .. } = &away else { panic!("{away:?}") };
    assert!(faults.iter().all(|fault| fault.kind == FaultKind::Unreachable), "{faults:?}");
    // The folders read on without it.
    let all = vault.open(&object, &root).await.unwrap();
    assert_eq!(all.read_at(0, 1000).await.unwrap()[..], plaintext[..1000]);
    // A deposit needs all.
    let refused = vault.deposit(&object, &b"ACGT"[..], &SeededEntropy::new(2), |_| {}).await.unwrap_err();
    let DepositError::Backend { backend, .. } = &refused else { panic!("{refused:?}") };
    assert!(CONTAINERS.contains(&backend.name()));
    server.resume();
    assert!(reader.read_at(0, plaintext.len()).await.unwrap()[..] == plaintext[..]);

    // A new epoch is written there, the old one goes, and at last everything.
    let entropy = SeededEntropy::new(3);
    let new = vault.refresh(&object, &root, Refresh::Everything, &entropy, |_| {}).await.unwrap().root;
    let collected = vault.collect(&object, &[Root(new)], &[]).await.unwrap();
    assert!(collected.faults.is_empty() && collected.removed > 0, "{collected:?}");
    let found = vault.manifests(Some(&object)).await;
    assert_eq!(found.iter().map(|found| (found.root, found.held_by)).collect::<Vec<_>>(), [(Root(new), 5)]);
    assert!(few.open(&object, &new).await.unwrap().read_at(0, 9).await.unwrap()[..] == plaintext[..9]);
    let destruction = vault.destroy(&object, 3).await;
    assert!(destruction.complete(), "{destruction:?}");
    assert!(vault.manifests(None).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_account_key_is_named_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let wrong = b"another guess of a curious person";
    let backends = vec![server.backend("east", wrong), folder(dir.path(), 1), folder(dir.path(), 2)];
    assert!(!format!("{backends:?}").contains(&BASE64.encode(wrong)));
    let vault = Vault::new(backends, 2, options()).unwrap();
    let object = ObjectId::from_name("genome-1").unwrap();
    let error = vault.deposit(&object, &b"ACGT"[..], &SeededEntropy::new(1), |_| {}).await.unwrap_err();
    let DepositError::Backend { backend, institution, .. } = &error else { panic!("{error:?}") };
    assert_eq!((backend.name(), institution.as_str()), ("east", "Cloud east"));
    let mut told = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        told += &error.to_string();
        source = error.source();
    }
    for secret in [&wrong[..], KEY] {
        assert!(!told.contains(&BASE64.encode(secret)), "{told}");
    }
}
