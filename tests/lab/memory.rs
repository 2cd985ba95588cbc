//! Memory of the agent within a limit of its unit, while clients send as much as they can.

use std::collections::BTreeMap;
use std::fs;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::{SOCKET, request, wait_until_answering};
use crate::machine::{FIRST_VERDICT, Machine, SERVICE, change_unit, main_pid, systemctl, unit_property};

/// A quarter of the limit in the shipped unit, because the machine itself has only 1 GiB.
const MEMORY_MAX_BYTES: usize = 256 << 20;
/// A configuration without mounts and probes, which this test is not about.
const IDLE: &str = "[mounts]\nmode = \"none\"\n[probe]\nnfs_interval = \"1h\"\n";
/// Largest body that the agent reads, in bytes.
const BODY_MAX_BYTES: usize = 1 << 20;
/// Clients over TCP and over the Unix socket. More than the agent accepts of this host.
const CLIENTS: (usize, usize) = (744, 256);
/// Time limit of a client. The agent drops a body that does not arrive within 10 s.
const CLIENT_ENDS: Duration = Duration::from_secs(30);
/// Metadata of one target, nearly as much as it may have, in bytes.
const METADATA_BYTES: usize = 60_000;

/// Metadata of about this many bytes, whose keys have this prefix.
fn metadata(prefix: usize, bytes: usize) -> Value {
    let value = "x".repeat(4000);
    let entries = (0..bytes / value.len()).map(|number| (format!("{prefix}-{number}"), json!(value)));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn new_target(number: usize, metadata: &Value) -> Value {
    let export = format!("10.0.0.9:/srv/exports/{number}");
    json!({ "backup_target": { "type": "nfs", "filesystem_export": export, "metadata": metadata } })
}

/// Sends a body, and waits for all other clients before its last byte. Returns the status of the answer, or `None` when
/// the connection ended without one.
async fn send(stream: impl AsyncRead + AsyncWrite, body: &[u8], all_sent: &Barrier) -> Option<u16> {
    let head = format!(
        "POST /backup_targets HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (last, rest) = body.split_last().expect("a body");
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut answer = pin!(timeout(CLIENT_ENDS, async {
        let mut beginning = [0; 12];
        reading.read_exact(&mut beginning).await.ok()?;
        std::str::from_utf8(&beginning).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
    }));
    let sent = async {
        writing.write_all(head.as_bytes()).await?;
        writing.write_all(rest).await
    };
    // The agent answers before the end of a body that it does not read.
    let early = tokio::select! {
        status = &mut answer => Some(status),
        _ = sent => None,
    };
    all_sent.wait().await;
    let status = match early {
        Some(status) => status,
        None => {
            let _ = writing.write_all(&[*last]).await;
            answer.await
        }
    };
    status.expect("an answer or the end of the connection")
}

/// Sends the same body over many connections at the same time. Returns how often each status was the answer.
async fn send_at_once(body: Vec<u8>) -> BTreeMap<Option<u16>, usize> {
    let (body, all_sent) = (Arc::new(body), Arc::new(Barrier::new(CLIENTS.0 + CLIENTS.1)));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS.0 + CLIENTS.1 {
        let (body, all_sent) = (body.clone(), all_sent.clone());
        clients.spawn(async move {
            if number < CLIENTS.0 {
                send(TcpStream::connect("127.0.0.1:8781").await.expect("connected"), &body, &all_sent).await
            } else {
                send(UnixStream::connect(SOCKET).await.expect("connected"), &body, &all_sent).await
            }
        });
    }
    let mut counts = BTreeMap::new();
    for status in clients.join_all().await {
        *counts.entry(status).or_default() += 1;
    }
    counts
}

#[test]
fn clients_do_not_exhaust_the_memory_of_the_unit() {
    let _machine = Machine::stopped(IDLE);
    change_unit(&format!("[Service]\nMemoryMax={MEMORY_MAX_BYTES}\n"));
    systemctl("start", SERVICE);
    assert_eq!(unit_property("MemoryMax"), MEMORY_MAX_BYTES.to_string());
    let pid = main_pid();
    let runtime = Runtime::new().expect("a runtime");

    // Complete bodies are refused because of their metadata, and those that do not fit in memory before their end.
    let mut body = new_target(0, &metadata(0, 1_000_000)).to_string();
    body.push_str(&" ".repeat(BODY_MAX_BYTES - body.len()));
    let counts = runtime.block_on(send_at_once(body.into_bytes()));
    assert!(counts.keys().all(|status| matches!(status, None | Some(400 | 503))), "{counts:?}");
    assert!(counts.contains_key(&Some(400)) && counts.contains_key(&Some(503)), "{counts:?}");
    wait_until_answering(FIRST_VERDICT);
    let too_large = vec![b' '; BODY_MAX_BYTES + 1];
    let status = runtime.block_on(async {
        send(UnixStream::connect(SOCKET).await.expect("connected"), &too_large, &Barrier::new(1)).await
    });
    assert_eq!(status, Some(413));

    // The metadata of one target over many requests, of one request, and of many targets.
    let create = |number, metadata: &Value| request("POST", "/backup_targets", Some(&new_target(number, metadata)));
    let created = create(0, &json!({}));
    let id = created.json()["backup_targets"]["id"].as_str().expect("an id").to_owned();
    let put = |number| {
        let body = json!({ "backup_target": { "metadata": metadata(number, METADATA_BYTES) } });
        request("PUT", &format!("/backup_targets/{id}"), Some(&body)).code
    };
    let codes: Vec<u16> = (0..40).map(put).collect();
    assert!(codes[0] == 200 && codes[1..].iter().all(|code| *code == 413), "{codes:?}");
    let huge = metadata(0, 1_000_000);
    for number in 1..=MEMORY_MAX_BYTES / 1_000_000 + 1 {
        let refused = create(number, &huge);
        assert_eq!(refused.code, 400, "{number}: {refused:?}");
    }
    let large = metadata(0, METADATA_BYTES);
    let (last, refused) = (1..)
        .map(|number| (number, create(number, &large)))
        .find(|(number, answer)| answer.code != 200 || number * METADATA_BYTES > MEMORY_MAX_BYTES)
        .expect("a limit");
    assert_eq!(refused.code, 413, "{last}: {refused:?}");

    let count = || request("GET", "/readyz", None).json()["backup_targets"].clone();
    assert_eq!(count(), last);
    assert_eq!((main_pid(), unit_property("NRestarts")), (pid, "0".to_owned()));
    let events = format!("/sys/fs/cgroup/system.slice/{SERVICE}/memory.events");
    let events = fs::read_to_string(events).expect("a control group");
    assert!(events.contains("\noom_kill 0\n"), "{events}");
    systemctl("restart", SERVICE);
    wait_until_answering(FIRST_VERDICT);
    assert_eq!(count(), last);
}
