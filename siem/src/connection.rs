//! TLS connections to collectors.

use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::TlsSource;
use crate::transport::{Counted, Progress};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a collector may take no bytes, or leave a question open, before the connection counts
/// as dead.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an orderly end waits for the collector to take what was sent.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// Where a collector is and how it proves itself.
#[derive(Clone)]
pub struct Peer {
    /// `host:port` of the collector.
    pub address: String,
    /// The name that its certificate must carry.
    pub server_name: ServerName<'static>,
    /// Our side of TLS, asked for at each connection.
    pub tls: TlsSource,
}

/// Connects, within ten seconds. The text of an error is for people.
pub(crate) async fn connect(peer: &Peer) -> Result<(TlsStream<Counted>, Progress), String> {
    let connecting = async {
        let tls = (peer.tls)()?;
        let stream = TcpStream::connect(&peer.address)
            .await
            .map_err(|e| format!("cannot connect to {}: {e}", peer.address))?;
        stream.set_nodelay(true).map_err(|e| format!("cannot use the socket: {e}"))?;
        let (stream, progress) = Counted::new(stream).map_err(|e| format!("cannot use the socket: {e}"))?;
        let stream = TlsConnector::from(tls)
            .connect(peer.server_name.clone(), stream)
            .await
            .map_err(|e| format!("TLS with {} failed: {e}", peer.address))?;
        Ok((stream, progress))
    };
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no TLS session with {} within {CONNECT_TIMEOUT:?}", peer.address)),
    }
}

/// Reads until the connection ends, for protocols in which the collector has nothing to say.
pub(crate) async fn until_gone(mut from: impl AsyncRead + Unpin) -> String {
    let mut bytes = [0; 512];
    loop {
        match from.read(&mut bytes).await {
            Ok(0) => return CLOSED.to_owned(),
            Ok(_) => {}
            Err(e) => return ended(&e),
        }
    }
}

pub(crate) const CLOSED: &str = "the collector closed the connection";

pub(crate) fn ended(error: &std::io::Error) -> String {
    format!("the collector ended the connection: {error}")
}

pub(crate) fn stalled() -> String {
    format!("it took nothing for {STALL_TIMEOUT:?}")
}
