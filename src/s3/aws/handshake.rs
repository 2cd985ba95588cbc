//! Reads the certificates that a service presents, with a handshake of its own.
//!
//! The connector of the SDK has no access to them. The handshake takes the same proxy as the requests, offers the same
//! protocols and sends no request. Proxies that are themselves reached by TLS are left out.

use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::trust::{LOOKUP_TIMEOUT, intercept};
use crate::model::report::CertificateEnd;
use crate::sys::resolve::STORAGE;
use crate::tls;
use crate::tls::chain::{earliest_end, presented_chain};

/// Longest answer of a proxy to CONNECT.
const PROXY_ANSWER_LIMIT_BYTES: usize = 8 << 10;

/// Returns which certificate of a service ends first after `now`. `None` if that is not known. The caller sets a
/// deadline.
pub(super) async fn certificate_end(host: &str, port: u16, now: Timestamp) -> Option<CertificateEnd> {
    let chain = presented_chain(connect(host, port).await?, host).await?;
    earliest_end(&chain, now)
}

/// Whether a handshake with this configuration succeeds: the service has a valid certificate. `direct` is a connection
/// to the service, which is used unless there is a proxy. The caller sets a deadline.
pub(super) async fn is_accepted(host: &str, port: u16, direct: TcpStream, config: Arc<ClientConfig>) -> bool {
    let stream = match intercept(host, port, "https") {
        None => Some(direct),
        Some(_) => connect(host, port).await,
    };
    match stream {
        Some(stream) => tls::is_accepted(config, stream, host).await,
        None => false,
    }
}

/// Connects to a service, through a proxy if the environment names one for it.
async fn connect(host: &str, port: u16) -> Option<TcpStream> {
    let Some(intercepted) = intercept(host, port, "https") else { return connect_directly(host, port).await };
    let proxy = intercepted.uri();
    if proxy.scheme_str() != Some("http") {
        return None;
    }
    let address = proxy.host()?.trim_matches(['[', ']']);
    let mut stream = connect_directly(address, proxy.port_u16().unwrap_or(80)).await?;
    open_tunnel(&mut stream, host, port, intercepted.basic_auth()).await?;
    Some(stream)
}

async fn connect_directly(host: &str, port: u16) -> Option<TcpStream> {
    let mut addresses = STORAGE.resolve(host, Instant::now() + LOOKUP_TIMEOUT).await.ok()?;
    addresses.iter_mut().for_each(|address| address.set_port(port));
    TcpStream::connect(&addresses[..]).await.ok()
}

/// Asks a proxy for a tunnel (RFC 9110, 9.3.6). `None` if it refuses.
async fn open_tunnel(stream: &mut TcpStream, host: &str, port: u16, auth: Option<&HeaderValue>) -> Option<()> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(auth) = auth {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(auth.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        // The server of the tunnel sends nothing before the client does, so all of it is the proxy's.
        if answer.len() >= PROXY_ANSWER_LIMIT_BYTES || stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
    let status = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    status.starts_with(b"2").then_some(())
}
