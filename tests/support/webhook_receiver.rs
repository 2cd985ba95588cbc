//! A receiver of webhooks in this process, on loopback, with faults on demand.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::daemon::with_timeout;

/// An answer of the receiver.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A response with this status.
    Status(u16),
    /// A redirect to this URL.
    Redirect(String),
    /// None.
    Silence,
}

/// A request that was received.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} is missing: {self:?}")).to_str().expect("text")
    }
}

/// A receiver that listens until it is dropped.
pub struct WebhookReceiver {
    address: SocketAddr,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    received: watch::Receiver<Vec<Received>>,
    serving: JoinHandle<()>,
}

impl WebhookReceiver {
    /// A receiver that gives these replies, and then accepts everything.
    pub async fn start(replies: &[Reply]) -> Self {
        Self::serve(replies, None).await
    }

    /// A receiver that accepts everything over TLS, with this certificate and key in PEM.
    pub async fn start_tls(certificate: &str, key: &str) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let config = config.with_single_cert(chain, key).expect("usable");
        Self::serve(&[], Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(replies: &[Reply], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("its address");
        let replies = Arc::new(Mutex::new(replies.iter().cloned().collect::<VecDeque<_>>()));
        let (sender, received) = watch::channel(Vec::new());
        let (sender, left) = (Arc::new(sender), replies.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, sender, left) = (tls.clone(), sender.clone(), left.clone());
                tokio::spawn(async move {
                    match tls {
                        None => connection(stream, sender, left).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, sender, left).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, replies, received, serving }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A URL of this receiver, without TLS.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Gives this reply to the next request.
    pub fn reply_next(&self, reply: Reply) {
        self.replies.lock().expect("not poisoned").push_back(reply);
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    /// Waits until this number of requests was received, and returns them.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut received = self.received.clone();
        let what = format!("{count} requests to a webhook");
        with_timeout(&what, received.wait_for(|received| received.len() >= count)).await.expect("it runs").clone()
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    sender: Arc<watch::Sender<Vec<Received>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (sender, replies) = (sender.clone(), replies.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            let received = Received { path: head.uri.to_string(), headers: head.headers, body };
            let reply = replies.lock().expect("not poisoned").pop_front();
            sender.send_modify(|all| all.push(received));
            let response = match reply.unwrap_or(Reply::Status(204)) {
                Reply::Status(status) => Response::builder().status(status),
                Reply::Redirect(url) => Response::builder().status(301).header("location", url),
                Reply::Silence => std::future::pending().await,
            };
            Ok::<_, Infallible>(response.body(Full::new(Bytes::new())).expect("a response"))
        }
    });
    // The agent may close the connection at any time.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
