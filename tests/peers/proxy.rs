//! A proxy in front of the gateway that passes every request on as it is, tells of it, and holds one
//! that a test chose: before the gateway gets it, or before the client gets the answer.
//!
//! Signatures stay valid, since nothing that is signed is changed. A request that was held is passed on although its
//! client has given up meanwhile, as a network or a busy service would.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::daemon::with_timeout;

/// What the gateway tells of a bucket's use.
const USAGE_HEADERS: [&str; 3] = ["x-rgw-bytes-used", "x-rgw-object-count", "x-rgw-quota-bucket-size"];

/// A request that the proxy received.
#[derive(Debug, Clone)]
pub struct Passed {
    pub method: Method,
    /// Path and query.
    pub target: String,
}

/// When a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

type Chooses = Box<dyn Fn(&Passed) -> bool + Send>;

/// A request to be held, which is the `nth` that is chosen.
struct Wish {
    chooses: Chooses,
    nth: usize,
    when: When,
    held: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

struct Shared {
    gateway: String,
    /// Whether answers report the usage of a bucket.
    tells_usage: AtomicBool,
    passed: Mutex<Vec<Passed>>,
    wish: Mutex<Option<Wish>>,
}

/// The running proxy.
pub struct Proxy {
    pub endpoint: String,
    shared: Arc<Shared>,
}

/// A request that is or will be held.
pub struct Held(mpsc::UnboundedReceiver<oneshot::Sender<()>>);

impl Held {
    /// Waits until it is held. It is let go when the returned value is sent or dropped.
    pub async fn reached(&mut self) -> oneshot::Sender<()> {
        with_timeout("a request that is to be held", self.0.recv()).await.expect("the proxy runs")
    }
}

impl Proxy {
    /// A proxy to the service at a plain endpoint.
    pub async fn start(endpoint: &str) -> Self {
        let gateway = endpoint.strip_prefix("http://").expect("a plain endpoint").to_owned();
        let shared = Arc::new(Shared {
            gateway,
            tells_usage: AtomicBool::new(true),
            passed: Mutex::default(),
            wish: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let shared = shared.clone();
                    let service = service_fn(move |request| answer(shared.clone(), request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
                }
            }
        });
        Self { endpoint, shared }
    }

    /// Has the `nth` request (from 1) that is chosen held.
    pub fn hold(&self, when: When, nth: usize, chooses: impl Fn(&Passed) -> bool + Send + 'static) -> Held {
        let (held, receiver) = mpsc::unbounded_channel();
        *lock(&self.shared.wish) = Some(Wish { chooses: Box::new(chooses), nth, when, held });
        Held(receiver)
    }

    /// Takes what the gateway tells of a bucket's use from its answers, as if it were a service that does not
    /// tell; or leaves it there again.
    pub fn tell_usage(&self, tells: bool) {
        self.shared.tells_usage.store(tells, Ordering::Relaxed);
    }

    /// All requests so far.
    pub fn passed(&self) -> Vec<Passed> {
        lock(&self.shared.passed).clone()
    }
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let passed = Passed { method: head.method.clone(), target: head.uri.to_string() };
    let Ok(body) = body.collect().await else { return Ok(bad_gateway()) };
    let request = Request::from_parts(head, Full::new(body.to_bytes()));
    // A task of its own: who asked may be gone before it is answered.
    let answering = tokio::spawn(async move {
        let wish = wished(&shared, &passed);
        lock(&shared.passed).push(passed);
        if let Some((When::Before, held)) = &wish {
            wait(held).await;
        }
        let mut answer = pass_on(&shared.gateway, request).await;
        if let Some(answer) = answer.as_mut().filter(|_| !shared.tells_usage.load(Ordering::Relaxed)) {
            USAGE_HEADERS.iter().for_each(|name| _ = answer.headers_mut().remove(*name));
        }
        if let Some((When::After, held)) = &wish {
            wait(held).await;
        }
        answer
    });
    Ok(answering.await.ok().flatten().unwrap_or_else(bad_gateway))
}

fn wished(shared: &Shared, passed: &Passed) -> Option<(When, mpsc::UnboundedSender<oneshot::Sender<()>>)> {
    let mut slot = lock(&shared.wish);
    let wish = slot.as_mut().filter(|wish| (wish.chooses)(passed))?;
    wish.nth -= 1;
    if wish.nth > 0 {
        return None;
    }
    slot.take().map(|wish| (wish.when, wish.held))
}

async fn wait(held: &mpsc::UnboundedSender<oneshot::Sender<()>>) {
    let (release, released) = oneshot::channel();
    if held.send(release).is_ok() {
        let _ = released.await;
    }
}

async fn pass_on(gateway: &str, request: Request<Full<Bytes>>) -> Option<Response<Full<Bytes>>> {
    let stream = TcpStream::connect(gateway).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Response::from_parts(head, Full::new(body)))
}

fn bad_gateway() -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}
