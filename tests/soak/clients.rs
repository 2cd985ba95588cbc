//! Clients that behave well: each request must be answered in time, and with an expected status.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Load;
use crate::daemon::with_timeout;
use crate::hostile::exchange;
use crate::http::{Answer, over_tcp, request};

/// Number of clients that create, change and delete targets.
const WRITERS: usize = 4;

/// Number of clients that request probes.
const CHECKERS: usize = 2;

/// Number of clients that poll.
const POLLERS: usize = 8;

/// Pause between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);

/// Paths that clients poll.
const POLLED: [&str; 8] = [
    "/backup_targets",
    "/backup_targets/detail",
    "/backup_target_types",
    "/backup_target_types/detail",
    "/node",
    "/healthz",
    "/readyz",
    "/openapi.json",
];

/// The clients of one load.
pub struct Clients {
    pub address: SocketAddr,
    /// Ids of the targets that exist during the whole load.
    pub standing: Vec<String>,
    pub load: Load,
}

impl Clients {
    /// Starts all clients.
    pub fn spawn(&self, tasks: &mut JoinSet<()>, random: &mut StdRng) {
        for number in 0..WRITERS {
            tasks.spawn(write(self.address, number, self.load.clone()));
        }
        for _ in 0..CHECKERS {
            tasks.spawn(check(self.address, self.standing.clone(), self.load.clone(), StdRng::from_rng(random)));
        }
        for _ in 0..POLLERS {
            tasks.spawn(poll(self.address, self.standing.clone(), self.load.clone(), StdRng::from_rng(random)));
        }
    }
}

async fn send(address: SocketAddr, method: &str, path: &str, body: Value, statuses: &[u16]) -> Answer {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let answer = with_timeout(path, over_tcp(address, request(method, path, body))).await;
    assert!(statuses.contains(&answer.status), "{method} {path}: {answer:?}");
    answer
}

/// Creates targets with types and metadata, changes them, and deletes them.
async fn write(address: SocketAddr, number: usize, mut load: Load) {
    let mut round = 0;
    while load.runs() {
        round += 1;
        let export = format!("127.0.0.1:/soak/{number}/{round}");
        let target = json!({ "type": "nfs", "filesystem_export": export, "metadata": { "note": "x".repeat(200) } });
        let created = send(address, "POST", "/backup_targets", json!({ "backup_target": target }), &[200]).await;
        let id = created.json()["backup_targets"]["id"].as_str().expect("an id").to_owned();
        let path = format!("/backup_targets/{id}");
        let metadata = json!({ "backup_target": { "metadata": { "note": "y".repeat(300) } } });
        send(address, "PUT", &path, metadata, &[200]).await;
        let project = format!("{:032x}", number * 100 + round % 100);
        let new_type =
            json!({ "name": format!("soak {number} {round}"), "backup_targets_id": id, "project_list": [project] });
        let body = json!({ "backup_target_type": new_type });
        let created = send(address, "POST", "/backup_target_types", body, &[200]).await;
        let type_id = created.json()["backup_target_types"]["id"].as_str().expect("an id").to_owned();
        let body = json!({ "backup_target_type": { "metadata": [{ "key": "tier", "value": "1" }] } });
        send(address, "POST", &format!("/backup_target_types/{type_id}/add_metadata"), body, &[200]).await;
        send(address, "GET", &format!("{path}/checks"), Value::Null, &[200]).await;
        if round % 2 == 0 {
            send(address, "DELETE", &format!("/backup_target_types/{type_id}"), Value::Null, &[202]).await;
        }
        send(address, "DELETE", &path, Value::Null, &[202]).await;
        load.pause(PAUSE).await;
    }
}

/// Requests probes of the standing targets.
async fn check(address: SocketAddr, standing: Vec<String>, mut load: Load, mut random: StdRng) {
    while load.runs() {
        let id = standing.choose(&mut random).expect("a target");
        send(address, "POST", &format!("/backup_targets/{id}/check"), Value::Null, &[200]).await;
        load.pause(PAUSE).await;
    }
}

/// Polls lists, reports and the node, half of the time compressed.
async fn poll(address: SocketAddr, standing: Vec<String>, mut load: Load, mut random: StdRng) {
    while load.runs() {
        let id = standing.choose(&mut random).expect("a target");
        let rest = ["", "/checks", "/history"].choose(&mut random).expect("a path");
        let of_target = format!("/backup_targets/{id}{rest}");
        let path = if random.random_bool(0.3) { &*of_target } else { POLLED.choose(&mut random).expect("a path") };
        let encoding = if random.random_bool(0.5) { "gzip" } else { "identity" };
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: {encoding}\r\nconnection: close\r\n\r\n"
        );
        let answer = with_timeout(path, exchange(address, head.as_bytes())).await;
        // A target of a writer may have no verdict yet, and the registry may be too busy to read a history in time.
        let may_be_unavailable = path == "/readyz" || path.ends_with("/history");
        let is_expected =
            answer.starts_with(b"HTTP/1.1 200 ") || may_be_unavailable && answer.starts_with(b"HTTP/1.1 503 ");
        assert!(is_expected, "{path}: {}", String::from_utf8_lossy(&answer));
        load.pause(PAUSE).await;
    }
}
