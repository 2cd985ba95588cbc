//! An API client over the agent's Unix socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::{FIRST_VERDICT, eventually, measure};

/// The agent's socket.
pub const SOCKET: &str = "/run/targetwatch/api.sock";
/// Time limit of a request, deletions included. Without an answer by then, the agent hangs.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Time limit until a server frees the blocks of a removed file.
const SPACE_FREED: Duration = Duration::from_secs(5);

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// The status code; 0 when there was no answer.
    pub code: u16,
    /// The body.
    pub text: String,
    /// Time from connecting to the last byte.
    pub took: Duration,
}

impl Answer {
    /// Parses the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("expected JSON ({error}): {self:?}"))
    }

    /// The message of the fault.
    pub fn message(&self) -> String {
        let fault = self.json();
        let message = fault.as_object().and_then(|fault| fault.values().next()?.get("message")?.as_str());
        message.unwrap_or_else(|| panic!("expected a fault: {self:?}")).to_owned()
    }
}

/// Sends a request on a new connection.
pub fn request(method: &str, path: &str, body: Option<&Value>) -> Answer {
    let began = Instant::now();
    let answer = Client::connect().and_then(|mut client| client.send(method, path, body));
    let (code, body) = answer.unwrap_or_default();
    Answer { code, text: String::from_utf8(body).expect("text"), took: began.elapsed() }
}

/// A connection to the agent. curl would take longer to start on the lab's one processor than the agent takes to
/// answer, which is what tests measure.
pub struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects to the agent's socket.
    pub fn connect() -> io::Result<Self> {
        let stream = UnixStream::connect(SOCKET)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request, and returns the status code and the body.
    pub fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> io::Result<(u16, Vec<u8>)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        self.0.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((code.ok_or_else(|| io::Error::other(status))?, body))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Waits until the agent answers.
pub fn wait_until_answering(limit: Duration) {
    eventually("the agent answers", limit, || (request("GET", "/healthz", None).code == 200).then_some(()));
}

/// Gets a path, which must answer 200.
pub fn get(path: &str) -> Value {
    let answer = request("GET", path, None);
    assert_eq!(answer.code, 200, "{path}: {answer:?}");
    answer.json()
}

/// A created target.
#[derive(Debug, Clone)]
pub struct Target {
    /// Id in the registry.
    pub id: String,
    /// Export, such as `10.0.0.1:/srv/exports/one`.
    pub export: String,
}

impl Target {
    /// Creates a target of an export. The answer must not claim anything before the first probe.
    pub fn create(export: &str) -> Self {
        let answer = Self::try_create(export);
        assert_eq!(answer.code, 200, "{answer:?}");
        let body = answer.json();
        let target = &body["backup_targets"];
        assert_eq!(target["filesystem_export"], export, "{target:#}");
        assert_eq!(target["status"], "offline", "before its first probe: {target:#}");
        assert!(target["capacity"].is_null() && target["used"].is_null(), "{target:#}");
        Self { id: target["id"].as_str().expect("an id").to_owned(), export: export.to_owned() }
    }

    /// Creates a target of a bucket.
    pub fn create_bucket(endpoint: &str, bucket: &str) -> Self {
        let body = json!({ "backup_target": { "type": "s3", "s3_endpoint_url": endpoint, "s3_bucket": bucket } });
        let answer = request("POST", "/backup_targets", Some(&body));
        assert_eq!(answer.code, 200, "{answer:?}");
        let target = &answer.json()["backup_targets"];
        let text = |key: &str| target[key].as_str().unwrap_or_else(|| panic!("{key}: {target:#}")).to_owned();
        Self { id: text("id"), export: text("filesystem_export") }
    }

    /// Requests the creation of a target of an export.
    pub fn try_create(export: &str) -> Answer {
        let body = json!({ "backup_target": { "type": "nfs", "filesystem_export": export } });
        request("POST", "/backup_targets", Some(&body))
    }

    /// Creates a target, and waits until it is available.
    pub fn create_available(export: &str) -> Self {
        let target = Self::create(export);
        target.wait_until_available(FIRST_VERDICT);
        target
    }

    /// The target as the API shows it.
    pub fn show(&self) -> Value {
        get(&format!("/backup_targets/{}", self.id))["backup_targets"].take()
    }

    /// Requests the deletion of the target.
    pub fn delete(&self) -> Answer {
        request("DELETE", &format!("/backup_targets/{}", self.id), None)
    }

    /// Whether the target is available.
    pub fn is_available(&self) -> bool {
        self.show()["status"] == "available"
    }

    /// Waits until the target is available.
    pub fn wait_until_available(&self, limit: Duration) {
        eventually(&format!("{} available", self.export), limit, || self.is_available().then_some(()));
    }

    /// Waits until the target is offline with one of these reasons.
    pub fn wait_until_offline(&self, reasons: &[&str], limit: Duration) {
        let mut seen = Vec::new();
        let what = format!("{} offline because of {reasons:?}", self.export);
        eventually(&what, limit, || {
            let found = self.report().reasons();
            let is_expected = found.iter().any(|reason| reasons.contains(&reason.as_str())) && !self.is_available();
            if !is_expected && seen.last() != Some(&found) {
                eprintln!("{}: {found:?}", self.export);
                seen.push(found);
            }
            is_expected.then_some(())
        });
    }

    /// The latest report.
    pub fn report(&self) -> Report {
        Report::of(get(&format!("/backup_targets/{}/checks", self.id)))
    }

    /// The history, newest first. Each entry has the status after a transition, and the reason.
    pub fn history(&self) -> Vec<(String, Option<String>)> {
        let history = get(&format!("/backup_targets/{}/history", self.id));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let transitions = history["transitions"].as_array().expect("a list");
        transitions.iter().map(|entry| (text(&entry["to"]).expect("a status"), text(&entry["reason"]))).collect()
    }

    /// Waits until this many more probes have ended.
    pub fn wait_for_probes(&self, times: usize, limit: Duration) {
        let mut latest = self.report().get("checked_at").clone();
        let mut seen = 0;
        eventually(&format!("{} probed {times} times", self.export), limit, || {
            let checked_at = self.report().get("checked_at").clone();
            seen += usize::from(checked_at != latest);
            latest = checked_at;
            (seen >= times).then_some(())
        });
    }

    /// Probes the target now.
    pub fn check(&self) -> Report {
        let answer = request("POST", &format!("/backup_targets/{}/check", self.id), None);
        assert_eq!(answer.code, 200, "{answer:?}");
        Report::of(answer.json())
    }

    /// Probes the target until the report has the size and the used space of the file system at a path. It may not at
    /// first, because the server frees the blocks of a removed canary some time after its answer.
    pub fn check_until_measured(&self, path: &Path) -> Report {
        eventually(&format!("{} measured like {}", self.export, path.display()), SPACE_FREED, || {
            let (capacity, used) = measure(path);
            let report = self.check();
            let counts = ["capacity_bytes", "used_bytes"].map(|key| report.get(key).as_u64());
            let is_equal = counts == [Some(capacity), Some(used)];
            if !is_equal {
                eprintln!("{}: {counts:?}, expected {:?}", self.export, (capacity, used));
            }
            is_equal.then_some(report)
        })
    }
}

/// A report. Only this type knows its shape on the wire.
#[derive(Debug)]
pub struct Report(Value);

impl Report {
    fn of(mut body: Value) -> Self {
        let inner = body.as_object_mut().filter(|object| object.len() == 1).and_then(|object| {
            let only = object.values_mut().next()?;
            only.is_object().then(|| only.take())
        });
        Self(inner.unwrap_or(body))
    }

    /// A field of the report.
    pub fn get(&self, key: &str) -> &Value {
        &self.0[key]
    }

    /// The message of the report. Empty when there is none.
    pub fn message(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }

    /// A check. Null before the first probe.
    pub fn check(&self, name: &str) -> &Value {
        self.checks().iter().find(|check| check["name"] == name).unwrap_or(&Value::Null)
    }

    /// The outcome of a check.
    pub fn outcome(&self, name: &str) -> &str {
        self.check(name)["outcome"].as_str().unwrap_or_else(|| panic!("no check {name}: {:#}", self.0))
    }

    /// Reasons of the checks that did not pass, except of those that an earlier failure skipped.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.checks().iter().filter(|check| check["outcome"] != "passed");
        let reasons = reasons.filter_map(|check| check["reason"].as_str());
        reasons.filter(|reason| *reason != "earlier_check_failed").map(str::to_owned).collect()
    }

    fn checks(&self) -> &[Value] {
        self.0["checks"].as_array().map_or(&[], Vec::as_slice)
    }
}
