//! Two backends are collections of a real WebDAV server (`wsgidav`) that speaks TLS under an
//! authority of its own, the others are folders.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use model::{BackendId, ObjectId, SeededEntropy};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use sharding::vault::{Access, Backend, CredentialSource, Options, ReadError, Vault};

use crate::server;
use crate::support::{BLOCK, EXTENT, content};

const USER: &str = "custodian";
const PASSWORD: &str = "neither-logged-nor-shown";

/// A WebDAV server over a folder.
struct Server {
    at: SocketAddr,
    dir: PathBuf,
    running: Option<Child>,
}

impl Server {
    fn start(dir: &Path) -> Server {
        let at = server::free();
        for collection in ["dav/east", "dav/west"] {
            std::fs::create_dir_all(dir.join(collection)).unwrap();
        }
        certify(dir);
        let config = json!({
            "host": "127.0.0.1",
            "port": at.port(),
            "server": "cheroot",
            "ssl_certificate": dir.join("server.pem"),
            "ssl_private_key": dir.join("server.key"),
            "ssl_adapter": "builtin",
            "provider_mapping": { "/": { "root": dir.join("dav") } },
            "http_authenticator": { "accept_basic": true, "accept_digest": false, "default_to_digest": false },
            "simple_dc": { "user_mapping": { "*": { USER: { "password": PASSWORD } } } },
            "logging": { "enable": false },
        });
        std::fs::write(dir.join("wsgidav.json"), config.to_string()).unwrap();
        let mut server = Server { at, dir: dir.to_owned(), running: None };
        server.resume();
        server
    }

    fn resume(&mut self) {
        let mut command = Command::new(server::cached("SEKISHO_WEBDAV_SERVER", "python/bin/wsgidav"));
        command.arg("--config").arg(self.dir.join("wsgidav.json"));
        self.running = Some(server::start(&mut command, self.at, Duration::from_secs(60)));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn backend(&self, collection: &str, access: &Access) -> Backend {
        let url = format!("https://{}/{collection}", self.at).parse().unwrap();
        let id = BackendId::from_name(collection).unwrap();
        Backend::open(id, collection, &url, access, |_| None).unwrap()
    }

    fn access(&self, password: &str) -> Access {
        let file = self.dir.join(format!("credentials-{}", password.len()));
        std::fs::write(&file, format!("username = {USER}\npassword = {password}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        Access {
            ca: Some(self.dir.join("ca.pem")),
            credentials: Some(CredentialSource::File(file)),
            ..Access::default()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An authority that no system believes, and the server's certificate by it.
fn certify(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(dir.join("server.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
}

/// Two collections and three folders.
fn vault(server: &Server, dir: &Path) -> Vault {
    let access = server.access(PASSWORD);
    let mut backends = vec![server.backend("east", &access), server.backend("west", &access)];
    backends.extend((1..=3).map(|at| {
        let (id, folder) = (format!("folder-{at}"), dir.join(format!("folder-{at}")));
        Backend::local(BackendId::from_name(&id).unwrap(), format!("House {at}"), &folder).unwrap()
    }));
    Vault::new(backends, 3, Options::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_of_a_server_are_backends_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let vault = vault(&server, dir.path());
    let object = ObjectId::from_name("genome-1").unwrap();
    let plaintext = content(EXTENT + BLOCK + 77);

    let deposited = vault.deposit(&object, &plaintext[..], &SeededEntropy::new(1), |_| {}).await.unwrap();
    assert!(dir.path().join("dav/east").join(object.name()).is_dir());
    let verified = vault.verify(&object, &deposited.root, |_| {}).await.unwrap();
    assert_eq!(verified.weakest, 5, "{:?}", verified.backends);

    // Without two of the folders the server's shares are needed.
    for at in [1, 2] {
        std::fs::rename(dir.path().join(format!("folder-{at}")), dir.path().join(format!("away-{at}")))
            .unwrap();
    }
    let reader = vault.open(&object, &deposited.root).await.unwrap();
    assert_eq!(reader.read_at(BLOCK as u64 - 5, 100).await.unwrap()[..], plaintext[BLOCK - 5..BLOCK + 95]);
    server.kill();
    assert!(matches!(reader.read_at(0, 1000).await, Err(ReadError::TooFew { .. })));
    for at in [1, 2] {
        std::fs::rename(dir.path().join(format!("away-{at}")), dir.path().join(format!("folder-{at}")))
            .unwrap();
    }
    assert_eq!(reader.read_at(0, 1000).await.unwrap()[..], plaintext[..1000]);

    // What the server lost is made again, what is refreshed is written there and the old goes.
    std::fs::remove_dir_all(dir.path().join("dav/west")).unwrap();
    std::fs::create_dir(dir.path().join("dav/west")).unwrap();
    server.resume();
    tokio::time::sleep(Duration::from_millis(100)).await;
    vault.repair(&object, &deposited.root, |_| {}).await.unwrap();
    let verified = vault.verify(&object, &deposited.root, |_| {}).await.unwrap();
    assert_eq!(verified.weakest, 5, "{:?}", verified.backends);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_authority_are_named_and_nothing_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let object = ObjectId::from_name("genome-1").unwrap();
    let wrong = server.access("a-guess");
    let unknown = Access { ca: None, ..server.access(PASSWORD) };
    for access in [wrong, unknown] {
        let mut backends = vec![server.backend("east", &access)];
        backends.extend((1..=2).map(|at| {
            let (id, folder) = (format!("folder-{at}"), dir.path().join(format!("folder-{at}")));
            Backend::local(BackendId::from_name(&id).unwrap(), format!("House {at}"), &folder).unwrap()
        }));
        let vault = Vault::new(backends, 2, Options::default()).unwrap();
        let error = vault.deposit(&object, &b"ACGT"[..], &SeededEntropy::new(1), |_| {}).await.unwrap_err();
        let mut told = vec![error.to_string(), format!("{error:?}")];
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            told.push(error.to_string());
            source = error.source();
        }
        let told = told.join("\n");
        assert!(told.contains("east"), "{told}");
        assert!(!told.contains(PASSWORD) && !told.contains("a-guess"), "{told}");
    }
}
