//! What the real servers that tests deposit into have in common.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A port of this machine that nobody has.
pub fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Starts a server, and waits until it listens, which it does within `limit`.
pub fn start(command: &mut Command, at: SocketAddr, limit: Duration) -> Child {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.unwrap_or_else(|error| {
        panic!("{}: {error}; infra/setup installs it", command.get_program().display())
    });
    let start = Instant::now();
    while TcpStream::connect(at).is_err() {
        assert!(start.elapsed() < limit, "{} does not listen", command.get_program().display());
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// A program that infra/setup puts below its cache, or what a variable names instead.
pub fn cached(variable: &str, below: &str) -> PathBuf {
    if let Some(named) = std::env::var_os(variable) {
        return named.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let name = below.rsplit('/').next().unwrap_or(below);
    cache.map_or_else(|| name.into(), |cache| cache.join("sekisho").join(below))
}
