//! A proxy in front of the gateway that forwards and records every request. It can hold a request that a test
//! selects, before the gateway receives it or before the client receives the answer.
//!
//! Signatures stay valid because the proxy does not change signed parts. It forwards a held request even if the
//! client has disconnected meanwhile, as a network or a busy service would.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{AGE, DATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Span;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::daemon::with_timeout;

/// The headers in which the gateway reports the usage of a bucket.
const USAGE_HEADERS: [&str; 3] = ["x-rgw-bytes-used", "x-rgw-object-count", "x-rgw-quota-bucket-size"];

/// A request that the proxy received.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
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

/// The request to hold: the `nth` one that is selected.
struct Hold {
    selects: Box<dyn Fn(&ReceivedRequest) -> bool + Send>,
    nth: usize,
    when: When,
    held: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

struct Shared {
    gateway: String,
    /// Whether answers contain the usage of a bucket.
    reports_usage: AtomicBool,
    /// Age of answers in seconds, as of a cache. `None` for answers without one.
    age: Mutex<Option<u32>>,
    /// Answer to PUTs of locked objects, instead of the gateway's: status and body.
    refusal_of_locks: Mutex<Option<(StatusCode, &'static str)>>,
    passed: Mutex<Vec<ReceivedRequest>>,
    hold: Mutex<Option<Hold>>,
}

/// The running proxy.
pub struct Proxy {
    pub endpoint: String,
    shared: Arc<Shared>,
}

/// A request that is or will be held.
pub struct Held(mpsc::UnboundedReceiver<oneshot::Sender<()>>);

impl Held {
    /// Waits until the request is held. It is released when the returned value is dropped.
    pub async fn reached(&mut self) -> oneshot::Sender<()> {
        with_timeout("the request to hold", self.0.recv()).await.expect("the proxy runs")
    }
}

impl Proxy {
    /// Starts a proxy in front of a plain endpoint.
    pub async fn start(endpoint: &str) -> Self {
        let gateway = endpoint.strip_prefix("http://").expect("a plain endpoint").to_owned();
        let shared = Arc::new(Shared {
            gateway,
            reports_usage: AtomicBool::new(true),
            age: Mutex::default(),
            refusal_of_locks: Mutex::default(),
            passed: Mutex::default(),
            hold: Mutex::default(),
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

    /// Holds the `nth` request (from 1) that is selected.
    pub fn hold(&self, when: When, nth: usize, selects: impl Fn(&ReceivedRequest) -> bool + Send + 'static) -> Held {
        let (held, receiver) = mpsc::unbounded_channel();
        *lock(&self.shared.hold) = Some(Hold { selects: Box::new(selects), nth, when, held });
        Held(receiver)
    }

    /// Selects whether answers contain the usage of a bucket. Some services do not report it.
    pub fn set_reports_usage(&self, reports: bool) {
        self.shared.reports_usage.store(reports, Ordering::Relaxed);
    }

    /// Adds this `Age` to all answers, and sets their `Date` back by as much, as a cache does (RFC 9111 §4.2.3).
    /// Varnish sends an age of zero with answers that it did not store.
    pub fn set_age(&self, seconds: u32) {
        *lock(&self.shared.age) = Some(seconds);
    }

    /// Refuses PUTs of locked objects with this answer, as services do that demand a longer retention.
    pub fn refuse_locks(&self, status: StatusCode, body: &'static str) {
        *lock(&self.shared.refusal_of_locks) = Some((status, body));
    }

    /// All requests so far.
    pub fn passed(&self) -> Vec<ReceivedRequest> {
        lock(&self.shared.passed).clone()
    }
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let passed = ReceivedRequest { method: head.method.clone(), target: head.uri.to_string() };
    let Ok(body) = body.collect().await else { return Ok(bad_gateway()) };
    let request = Request::from_parts(head, Full::new(body.to_bytes()));
    // A separate task continues after the client disconnected.
    let answering = tokio::spawn(async move {
        let hold = hold_for(&shared, &passed);
        lock(&shared.passed).push(passed);
        if let Some((When::Before, held)) = &hold {
            wait(held).await;
        }
        let refusal = *lock(&shared.refusal_of_locks);
        let refusal = refusal.filter(|_| request.headers().contains_key("x-amz-object-lock-mode"));
        let mut answer = match refusal {
            Some((status, body)) => Some(refuse(status, body)),
            None => forward(&shared.gateway, request).await,
        };
        if let Some(answer) = answer.as_mut().filter(|_| !shared.reports_usage.load(Ordering::Relaxed)) {
            USAGE_HEADERS.iter().for_each(|name| _ = answer.headers_mut().remove(*name));
        }
        if let (Some(answer), Some(age)) = (answer.as_mut(), *lock(&shared.age)) {
            add_age(answer, age);
        }
        if let Some((When::After, held)) = &hold {
            wait(held).await;
        }
        answer
    });
    Ok(answering.await.ok().flatten().unwrap_or_else(bad_gateway))
}

fn hold_for(shared: &Shared, passed: &ReceivedRequest) -> Option<(When, mpsc::UnboundedSender<oneshot::Sender<()>>)> {
    let mut slot = lock(&shared.hold);
    let hold = slot.as_mut().filter(|hold| (hold.selects)(passed))?;
    hold.nth -= 1;
    if hold.nth > 0 {
        return None;
    }
    slot.take().map(|hold| (hold.when, hold.held))
}

async fn wait(held: &mpsc::UnboundedSender<oneshot::Sender<()>>) {
    let (release, released) = oneshot::channel();
    if held.send(release).is_ok() {
        let _ = released.await;
    }
}

async fn forward(gateway: &str, request: Request<Full<Bytes>>) -> Option<Response<Full<Bytes>>> {
    let stream = TcpStream::connect(gateway).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Response::from_parts(head, Full::new(body)))
}

fn add_age(answer: &mut Response<Full<Bytes>>, age: u32) {
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok()).expect("the gateway's date");
    let date = jiff::fmt::rfc2822::parse(date).expect("a date").timestamp();
    let before = date - Span::new().seconds(age);
    let before = before.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    answer.headers_mut().insert(DATE, before.parse().expect("a header"));
    answer.headers_mut().insert(AGE, age.into());
}

fn refuse(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer
}

fn bad_gateway() -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}
