//! The end of a forwarded connection: a socket on the workspace's loopback on one side, standard
//! input and output on the other. Each direction ends by itself.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;

use enclave_agent::init_protocol::CONNECTED;

use crate::launch::take;

/// Connects to `port` and carries bytes until both directions have ended.
pub fn relay(port: &str) -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    let (input, output) = (File::from(take(0)?), File::from(take(1)?));
    let mut said = File::from(take(2)?);
    let port: u16 = port.parse().map_err(|_| io::Error::other("this is no port"))?;
    let all: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let socket = match TcpStream::connect(all.as_slice()) {
        Ok(socket) => socket,
        Err(error) => {
            write!(said, "Nothing in your workspace answers on port {port}: {error}.")?;
            return Ok(());
        }
    };
    write!(said, "{CONNECTED}")?;
    drop(said);
    socket.set_nodelay(true)?;
    let (mut to, mut from) = (socket.try_clone()?, socket);
    let (mut input, mut output) = (input, output);
    let inward = thread::spawn(move || {
        let carried = io::copy(&mut input, &mut to);
        // Whoever listens learns that no more comes; what it still has to say goes on.
        let _ = to.shutdown(Shutdown::Write);
        carried
    });
    let outward = io::copy(&mut from, &mut output);
    drop(output);
    // Nobody takes what it says: it need not say it.
    if outward.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    let _ = inward.join();
    Ok(())
}
