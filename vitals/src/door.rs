//! Where a process tells how it is.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Vitals;
use crate::request::{Answer, Asked, HEAD_MAX, parse};

/// The name of the socket in a process's folder.
pub const SOCKET: &str = "vitals.sock";

/// Questions at once; more wait.
const TOGETHER: usize = 8;
/// How long a question and its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a failure the next one is waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a process cannot tell how it is.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Others than this host could ask.
    #[error(
        "`metrics` is {0}, where others than this host could ask: name an address such as 127.0.0.1:9464, \
         and let whoever asks from elsewhere come through something that knows who they are"
    )]
    NotThisHost(SocketAddr),
    /// The socket cannot be made.
    #[error("{path} cannot be listened on", path = path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address cannot be taken.
    #[error("{address} (`metrics`) cannot be listened on")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The open door of a process. Dropping it removes the socket.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    socket: UnixListener,
    address: Option<TcpListener>,
}

impl Door {
    /// Opens it in the folder `dir` of a process, which nobody else uses, and at an address of this
    /// host. To be called within a runtime.
    pub async fn open(dir: &Path, address: Option<SocketAddr>) -> Result<Door, DoorError> {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            return Err(DoorError::NotThisHost(address));
        }
        let path = dir.join(SOCKET);
        let cannot = |source| DoorError::Socket { path: path.clone(), source };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
            _ => {}
        }
        let socket = bind(dir).map_err(cannot)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).map_err(cannot)?;
        let bound = match address {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| DoorError::Address { address, source })?)
            }
        };
        Ok(Door { path, socket, address: bound })
    }

    /// The address that was taken, if one was named.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Tells how `vitals` is, until dropped.
    pub async fn serve(self, vitals: Arc<dyn Vitals>) {
        let places = Arc::new(Semaphore::new(TOGETHER));
        loop {
            // It is never closed. Whoever comes meanwhile waits in the backlog.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let vitals = Arc::clone(&vitals);
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted.map(|(stream, _)| {
                    tokio::spawn(async move { talk(stream, &*vitals, place).await });
                }),
                accepted = accept(self.address.as_ref()) => accepted.map(|stream| {
                    tokio::spawn(async move { talk(stream, &*vitals, place).await });
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "a question how this process is could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Leave no name behind that nobody answers at.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn bind(dir: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(dir.join(SOCKET)) {
        // The path is longer than the address of a socket may be.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let folder = File::open(dir)?;
            UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
        }
        other => other,
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn talk<S, P>(mut stream: S, vitals: &dyn Vitals, _place: P)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        let mut head = Vec::with_capacity(512);
        let (answer, head_only) = loop {
            match parse(&head) {
                Ok(Some(request)) => break (answer(vitals, request.asked), request.head_only),
                Ok(None) => {}
                Err(fault) => break (fault.into(), false),
            }
            let room = (HEAD_MAX - head.len()) as u64;
            if (&mut stream).take(room).read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        };
        stream.write_all(&answer.to_bytes(head_only)).await?;
        stream.shutdown().await?;
        // Who still speaks would make the kernel take the answer back.
        tokio::io::copy(&mut stream.take(HEAD_MAX as u64), &mut tokio::io::sink()).await.map(drop)
    };
    if let Ok(Err(error)) = timeout(PATIENCE, exchange).await {
        tracing::debug!(%error, "a question ended");
    }
}

fn answer(vitals: &dyn Vitals, asked: Asked) -> Answer {
    match asked {
        Asked::Health => {
            let health = vitals.health();
            let json = serde_json::to_string(&health).unwrap_or_else(|_| "{}".to_owned());
            Answer::health(health.http_status(), json)
        }
        Asked::Metrics => Answer::metrics(crate::figures(vitals)),
        Asked::Nothing => Answer::nothing(),
    }
}

#[cfg(test)]
mod tests {
    use model::metrics::{Exposition, Health, Kind, State};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;

    struct Ill;

    impl Vitals for Ill {
        fn health(&self) -> Health {
            let mut health = Health::new("test", "1.0");
            health.check("disk", State::Failed, Some("full".to_owned()));
            health
        }

        fn figures(&self, to: &mut Exposition) {
            to.single("sekisho_test_total", Kind::Counter, "Of a test.", 7.0);
        }
    }

    async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn it_tells_on_the_socket_and_on_an_address_of_this_host() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SOCKET), "left behind").unwrap();
        let door = Door::open(dir.path(), Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let address = door.address().unwrap();
        let serving = tokio::spawn(door.serve(Arc::new(Ill)));
        let path = dir.path().join(SOCKET);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let health = ask(&mut UnixStream::connect(&path).await.unwrap(), "/health").await;
        assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
        assert!(health.contains(r#""checks":{"disk":{"state":"failed","detail":"full"}}"#), "{health}");
        let figures = ask(&mut TcpStream::connect(address).await.unwrap(), "/metrics").await;
        for part in [
            "\nsekisho_test_total 7\n",
            "\nsekisho_up{process=\"test\",version=\"1.0\"} 1\n",
            "\nsekisho_health{process=\"test\",check=\"disk\"} 0\n",
            "\nprocess_resident_memory_bytes ",
            "\nprocess_cpu_seconds_total ",
            "\nprocess_start_time_seconds ",
        ] {
            assert!(figures.contains(part), "{part:?} in {figures}");
        }
        assert!(ask(&mut UnixStream::connect(&path).await.unwrap(), "/").await.starts_with("HTTP/1.1 404 "));

        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_is_left_and_keeps_nobody_waiting_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let door = Door::open(dir.path(), None).await.unwrap();
        tokio::spawn(door.serve(Arc::new(Ill)));
        let path = dir.path().join(SOCKET);
        let mut silent = Vec::new();
        for _ in 0..2 * TOGETHER {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        let health = ask(&mut UnixStream::connect(&path).await.unwrap(), "/health").await;
        assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
    }

    #[tokio::test]
    async fn a_folder_may_have_a_longer_path_than_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let _door = Door::open(&deep, None).await.unwrap();
        assert_eq!(std::fs::metadata(deep.join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn an_address_that_others_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for address in ["0.0.0.0:0", "192.0.2.1:9464", "[::]:0"] {
            let refused = Door::open(dir.path(), Some(address.parse().unwrap())).await;
            assert!(matches!(refused, Err(DoorError::NotThisHost(_))), "{address}");
        }
        assert!(!dir.path().join(SOCKET).exists());
    }
}
