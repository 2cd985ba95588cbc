//! Concurrent clients and `kill -9`: the registry contains every answered change, and the rules hold.
//!
//! Each client has a [`ledger`] with its own targets and types according to the answers, and with the change that
//! was unanswered when the agent was killed. Only that change may be missing. Clients compete for exports, names
//! of types, and the default.

mod ledger;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::daemon::Daemon;
use crate::http::request;
use crate::storage::nfs_target;
use crate::workspace::Workspace;
use ledger::{Change, Ledger, items};

/// Number of concurrent clients.
const CLIENTS: usize = 16;

/// Time for which the clients make changes.
const DURATION: Duration = Duration::from_secs(10);

/// Maximum time from the end of [`DURATION`] to the kill.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// Number of exports and of type names that clients choose from, small enough for conflicts.
const CHOICES: u32 = 120;

/// Maximum number of targets of a client.
const TARGETS_MAX: usize = 5;

/// The status of a change that conflicts with another client's change or with the default.
const CONFLICT: u16 = 409;

/// A client with a persistent connection.
struct Client {
    random: StdRng,
    sender: SendRequest<Full<Bytes>>,
    ledger: Ledger,
    /// The id of the target that all clients use.
    shared_target: String,
    /// The number of the client, and of its changes, which make each note unique.
    number: usize,
    counter: u64,
}

impl Client {
    async fn connect(socket: PathBuf, number: usize, seed: u64, shared_target: String) -> Self {
        let stream = UnixStream::connect(&socket).await.expect("connected");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
        Self { random, sender, ledger: Ledger::default(), shared_target, number, counter: 0 }
    }

    /// Makes and verifies changes until the connection breaks, and returns the ledger.
    async fn work(mut self, mut killed: watch::Receiver<bool>) -> Ledger {
        loop {
            let change = self.choose();
            self.ledger.request(change.clone());
            let (method, path, body) = change.request();
            let Ok((status, answer)) = self.exchange(method, &path, body.as_ref()).await else {
                // Only the end of the agent may close an active connection.
                killed.wait_for(|killed| *killed).await.expect("the test");
                return self.ledger;
            };
            match status {
                200 | 202 => self.ledger.confirm(&answer),
                CONFLICT if change.may_conflict() => self.ledger.discard(),
                _ => panic!("{method} {path} {body:?}: {status} {answer}"),
            }
            if self.random.random_ratio(1, 8) {
                let Ok((200, list)) = self.exchange("GET", "/backup_targets", None).await else { continue };
                assert_rules(items(&list, "backup_targets"));
            }
        }
    }

    async fn exchange(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), hyper::Error> {
        self.sender.ready().await?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.sender.send_request(request(method, path, body.into())).await?;
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        Ok((head.status.as_u16(), body))
    }

    fn choose(&mut self) -> Change {
        self.counter += 1;
        let note = format!("{} of {}", self.counter, self.number);
        let choice = self.random.random_range(0..CHOICES);
        let target = self.ledger.target_ids().choose(&mut self.random).cloned();
        let own_type = self.ledger.type_ids().choose(&mut self.random).cloned();
        let project = format!("{:032x}", self.random.random_range(0..8));
        match (self.random.random_range(0..100), target, own_type) {
            (0..25, _, _) | (_, None, _) if self.ledger.target_ids().len() < TARGETS_MAX => {
                Change::CreateTarget { export: format!("127.0.0.1:/{choice}"), note }
            }
            (0..45, Some(target), _) => Change::SetNote { target, note },
            (45..55, Some(target), _) => Change::MakeDefault { target },
            (55..60, _, _) => Change::MakeDefault { target: self.shared_target.clone() },
            (60..70, Some(target), _) => Change::DeleteTarget { target },
            (70..78, Some(target), _) => Change::CreateType { target, name: format!("type {choice}"), project: None },
            (78..82, Some(target), _) => {
                Change::CreateType { target, name: format!("type {choice}"), project: Some(project) }
            }
            (82..87, _, Some(id)) => Change::Describe { id, description: note },
            (87..91, _, Some(id)) => Change::AddProject { id, project },
            (91..94, _, Some(id)) => Change::RemoveProject { id, project },
            (94..96, _, Some(id)) => Change::MakeTypeDefault { id },
            (96.., _, Some(id)) => Change::DeleteType { id },
            _ => Change::MakeDefault { target: self.shared_target.clone() },
        }
    }
}

/// Asserts the rules of the API guide, which hold at any time.
fn assert_rules(targets: &[Value]) {
    let defaults: Vec<_> = targets.iter().filter(|target| target["is_default"] == true).collect();
    assert_eq!(defaults.len(), 1, "of {} targets these are the default: {defaults:#?}", targets.len());
    let types = |target: &Value| target["backup_target_types"].as_array().expect("a list").clone();
    let all: Vec<Value> = targets.iter().flat_map(types).collect();
    let default_types: Vec<_> = all.iter().filter(|found| found["is_default"] == true).collect();
    assert_eq!(default_types.len(), 1, "{default_types:#?}");
    assert!(types(defaults[0]).contains(default_types[0]), "the default type is another target's: {default_types:#?}");
    assert!(targets.iter().all(|target| !types(target).is_empty()), "a target has no type: {targets:#?}");
    let names: BTreeSet<_> = all.iter().map(|found| found["name"].as_str().expect("a text")).collect();
    assert_eq!(names.len(), all.len(), "two types have one name");
    let exports: BTreeSet<_> = targets.iter().map(|target| target["filesystem_export"].as_str()).collect();
    assert_eq!(exports.len(), targets.len(), "two targets have one export");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_clients_lose_no_answered_change_on_sigkill() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let workspace = Workspace::new();
    let mut daemon = Daemon::start_logging(&workspace, "warn,targetwatch=error,targetwatch::cli=info").await;
    let shared_target = daemon.create(nfs_target("/shared")).await;
    let (killed_sender, killed) = watch::channel(false);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::connect(workspace.path("api.sock"), number, seed, shared_target.clone()).await;
        clients.push(tokio::spawn(client.work(killed.clone())));
    }
    // The kill must come at a random time, so there is no event to wait for.
    let moment = StdRng::seed_from_u64(seed).random_range(Duration::ZERO..KILLED_WITHIN);
    tokio::time::sleep(DURATION + moment).await;
    daemon.end(Signal::SIGKILL).await;
    killed_sender.send_replace(true);
    let mut ledgers = Vec::new();
    for client in clients {
        ledgers.push(client.await.expect("no failed assertion"));
    }

    let daemon = Daemon::start(&workspace).await;
    let (targets, types) = (daemon.targets().await, daemon.get("/backup_target_types").await);
    let types = items(&types, "backup_target_types");
    assert_rules(&targets);
    for found in types {
        let is_public = found["is_public"] == true;
        let projects = found["backup_target_type_projects"].as_array().expect("a list");
        assert!(!is_public || projects.is_empty(), "{found:#}");
    }
    let mut known = BTreeSet::from([shared_target.clone()]);
    for ledger in &ledgers {
        known.extend(ledger.assert_kept(&targets, types));
    }
    let found: BTreeSet<_> = targets.iter().map(|target| target["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(found, known, "targets that no client created, or lost targets");
    let default = targets.iter().find(|target| target["is_default"] == true).expect("one");
    let possible: BTreeSet<_> = ledgers.iter().flat_map(Ledger::last_defaults).chain([shared_target]).collect();
    assert!(possible.contains(default["id"].as_str().expect("an id")), "no client made it the default: {default:#}");
    let confirmed: u64 = ledgers.iter().map(|ledger| ledger.confirmed).sum();
    println!("{confirmed} confirmed changes; the registry has {} targets and {} types", targets.len(), types.len());
    assert!(ledgers.iter().all(|ledger| ledger.confirmed > 0), "a client made no change");
}
