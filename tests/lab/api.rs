//! The API as curl has it, over the agent's Unix socket.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{FIRST_VERDICT, eventually, run};

/// The agent's socket.
pub const SOCKET: &str = "/run/targetwatch/api.sock";
/// No request takes longer, or the agent hangs: in seconds.
const LIMIT_S: &str = "5";

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code; 0 when there was no answer.
    pub code: u16,
    /// The body.
    pub text: String,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("JSON was expected ({error}): {self:?}"))
    }

    /// What is wrong, as the fault body says it.
    pub fn message(&self) -> String {
        let fault = self.json();
        let message = fault.as_object().and_then(|fault| fault.values().next()?.get("message")?.as_str());
        message.unwrap_or_else(|| panic!("a fault was expected: {self:?}")).to_owned()
    }
}

/// Asks the agent.
pub fn request(method: &str, path: &str, body: Option<&Value>) -> Answer {
    let body = body.map(Value::to_string);
    let mut arguments = curl_arguments(method, path);
    if let Some(body) = &body {
        arguments.extend(["--header", "Content-Type: application/json", "--data", body]);
    }
    arguments.extend(["--write-out", "\n%{http_code} %{time_total}"]);
    let text = String::from_utf8(run("curl", &arguments).stdout).expect("text");
    let (text, trailer) = text.rsplit_once('\n').expect("a trailer");
    let (code, took) = trailer.split_once(' ').expect("code and time");
    let took = Duration::from_secs_f64(took.parse().expect("a time"));
    Answer { code: code.parse().expect("a code"), text: text.to_owned(), took }
}

/// The arguments of curl for a request without a body. The URL is the last of them.
pub fn curl_arguments<'a>(method: &'a str, path: &'a str) -> Vec<&'a str> {
    vec![
        "--silent",
        "--max-time",
        LIMIT_S,
        "--unix-socket",
        SOCKET,
        "--request",
        method,
        "--proto-default",
        "http",
        "--header",
        "Host: localhost",
        "--path-as-is",
        "--url",
        url(path),
    ]
}

fn url(path: &str) -> &'static str {
    // Each path is a handful of bytes and a test process is short: simpler than owning arguments.
    Box::leak(format!("http://localhost{path}").into_boxed_str())
}

/// Asks and expects 200.
pub fn get(path: &str) -> Value {
    let answer = request("GET", path, None);
    assert_eq!(answer.code, 200, "{path}: {answer:?}");
    answer.json()
}

/// A target as the API has it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its id.
    pub id: String,
    /// Its export.
    pub export: String,
}

impl Target {
    /// Creates a target of an export, and sees that nothing is claimed about it yet.
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

    /// Asks for a target of an export.
    pub fn try_create(export: &str) -> Answer {
        let body = json!({ "backup_target": { "type": "nfs", "filesystem_export": export } });
        request("POST", "/backup_targets", Some(&body))
    }

    /// Creates a target that must become available.
    pub fn create_available(export: &str) -> Self {
        let target = Self::create(export);
        target.becomes_available(FIRST_VERDICT);
        target
    }

    /// The target as the API shows it.
    pub fn show(&self) -> Value {
        get(&format!("/backup_targets/{}", self.id))["backup_targets"].take()
    }

    /// Deletes it.
    pub fn delete(&self) -> Answer {
        request("DELETE", &format!("/backup_targets/{}", self.id), None)
    }

    /// Whether it is available.
    pub fn is_available(&self) -> bool {
        self.show()["status"] == "available"
    }

    /// Waits until it is available.
    pub fn becomes_available(&self, limit: Duration) {
        eventually(&format!("{} available", self.export), limit, || self.is_available().then_some(()));
    }

    /// Waits until it is offline for one of these reasons.
    pub fn becomes_offline(&self, reasons: &[&str], limit: Duration) {
        let mut seen = Vec::new();
        let what = format!("{} offline because of {reasons:?}", self.export);
        eventually(&what, limit, || {
            let found = self.report().reasons();
            let is_so = found.iter().any(|reason| reasons.contains(&reason.as_str())) && !self.is_available();
            if !is_so && seen.last() != Some(&found) {
                eprintln!("{}: {found:?}", self.export);
                seen.push(found);
            }
            is_so.then_some(())
        });
    }

    /// The latest report.
    pub fn report(&self) -> Report {
        Report::of(get(&format!("/backup_targets/{}/checks", self.id)))
    }

    /// Probes it now.
    pub fn check(&self) -> Report {
        let answer = request("POST", &format!("/backup_targets/{}/check", self.id), None);
        assert_eq!(answer.code, 200, "{answer:?}");
        Report::of(answer.json())
    }
}

/// A report: the only place that knows its shape on the wire.
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

    /// A figure or word of the report itself.
    pub fn get(&self, key: &str) -> &Value {
        &self.0[key]
    }

    /// The outcome of a check.
    pub fn outcome(&self, name: &str) -> &str {
        let check = self.checks().iter().find(|check| check["name"] == name);
        check.and_then(|check| check["outcome"].as_str()).unwrap_or_else(|| panic!("no check {name}: {:#}", self.0))
    }

    /// Why checks did not pass; not those that were not tried because of another.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.checks().iter().filter(|check| check["outcome"] != "passed");
        let reasons = reasons.filter_map(|check| check["reason"].as_str());
        reasons.filter(|reason| *reason != "earlier_check_failed").map(str::to_owned).collect()
    }

    fn checks(&self) -> &[Value] {
        self.0["checks"].as_array().map_or(&[], Vec::as_slice)
    }
}
