//! Faults of services in the field that a proxy injects. The agent and the command line report a reason for each,
//! and a message that says what to do.

use serde_json::Value;

use crate::daemon::Daemon;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::gateway::{Gateway, target};
use crate::report::missing_words;
use crate::workspace::Workspace;

/// The web page of a login or a load balancer.
const PAGE: &str = "<!DOCTYPE html><html><body><h1>Sign in</h1></body></html>";

/// A fault, and the expected report.
struct Case {
    what: &'static str,
    fault: Fault,
    reason: &'static str,
    verdict: &'static str,
    words: &'static [&'static str],
}

/// A fault that the probe detects without a timeout.
fn case(what: &'static str, fault: Fault, reason: &'static str, words: &'static [&'static str]) -> Case {
    Case { what, fault, reason, verdict: "failed", words }
}

/// An error of S3 with this code and message.
fn refusal(head: &str, code: &str, message: &str) -> Fault {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Fault::Answer { head: format!("{head}\nContent-Type: application/xml"), body }
}

fn page(head: &str) -> Fault {
    Fault::Answer { head: format!("{head}\nContent-Type: text/html"), body: PAGE.to_owned() }
}

fn cases() -> Vec<Case> {
    let moved = "301 Moved Permanently";
    let found = "302 Found\nLocation: https://login.example.com/sso?ticket=not-to-be-shown";
    let expecting = "the region 'us-east-1' is wrong; expecting 'eu-north-1'";
    vec![
        case(
            "another region, which a header names",
            refusal(&format!("{moved}\nx-amz-bucket-region: eu-west-1"), "PermanentRedirect", ""),
            "wrong_region",
            &["301 PermanentRedirect", "region = \"eu-west-1\"", "[[s3.credentials]]"],
        ),
        case(
            "another region, which the message names",
            refusal("400 Bad Request", "AuthorizationHeaderMalformed", expecting),
            "wrong_region",
            &["400 AuthorizationHeaderMalformed", "region = \"eu-north-1\""],
        ),
        case(
            "another region, which nothing names",
            refusal("400 Bad Request", "IllegalLocationConstraintException", ""),
            "wrong_region",
            &["400 IllegalLocationConstraintException", "ask the owner of the bucket"],
        ),
        case(
            "a redirect of S3",
            refusal("307 Temporary Redirect\nLocation: http://other.example.com/b", "TemporaryRedirect", ""),
            "redirected",
            &["307 TemporaryRedirect", "redirects to http://other.example.com/b;", "does not follow"],
        ),
        case("a redirect to a login", page(found), "redirected", &["302", "https://login.example.com/sso;"]),
        case(
            "throttled",
            refusal("503 Slow Down", "SlowDown", ""),
            "throttled",
            &["503 SlowDown", "fewer requests", "s3_interval"],
        ),
        case("throttled by a proxy", page("429 Too Many Requests"), "throttled", &["429", "fewer requests"]),
        case(
            "not implemented",
            refusal("501 Not Implemented", "NotImplemented", ""),
            "not_implemented",
            &["501 NotImplemented", "does not implement this call"],
        ),
        case(
            "an error of the service",
            refusal("500 Internal Server Error", "InternalError", ""),
            "server_error",
            &["500 InternalError", "check its log"],
        ),
        case("an error of a proxy", page("502 Bad Gateway"), "server_error", &["answered 502;", "load balancer"]),
        case(
            "expired credentials",
            refusal("400 Bad Request", "ExpiredToken", ""),
            "access_denied",
            &["400 ExpiredToken", "have expired: renew them"],
        ),
        case(
            "access denied",
            refusal("403 Forbidden", "AccessDenied", ""),
            "access_denied",
            &["s3:ListBucket", "grant"],
        ),
        case("a page instead of S3", page("200 OK"), "not_s3", &["the answer is a web page", "login page"]),
        case("a page that forbids", page("403 Forbidden"), "not_s3", &["403 without an error code", "proxy"]),
        case("a page that is not found", page("404 Not Found"), "not_s3", &["404 without an error code", "port"]),
        case("another protocol", Fault::Bytes("SSH-2.0-OpenSSH_9.2p1\r\n"), "not_s3", &["it is not HTTP", "port"]),
        case("a body that never ends", Fault::EndlessBody, "not_s3", &["64 KiB", "endpoint"]),
        case("a head that never ends", Fault::EndlessHead, "not_s3", &["headers", "endpoint"]),
        Case {
            what: "an answer that arrives one byte at a time",
            fault: Fault::SlowBytes,
            reason: "response_timed_out",
            verdict: "timed_out",
            words: &["no answer within 2000 ms", "health"],
        },
        case("a reset in the middle of an answer", Fault::ResetMidBody, "connection_broken", &["proxies, firewalls"]),
        case(
            "no answer at all",
            Fault::Bytes(""),
            "connection_broken",
            &["the service's log", "TLS on a plain port", "Use https://"],
        ),
    ]
}

/// Describes the differences between the expected and the actual report of a fault.
async fn problems_of(
    gateway: &Gateway,
    daemon: &Daemon,
    workspace: &Workspace,
    bucket: &str,
    case: &Case,
) -> Vec<String> {
    let proxy = FaultProxy::start(&gateway.endpoint, case.fault.clone()).await;
    let id = daemon.create(target(&proxy.endpoint, bucket)).await;
    let report = daemon.check(&id).await;
    let found = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    let mut problems = Vec::new();
    if (found("status"), found("verdict"), found("reason"))
        != ("offline".to_owned(), case.verdict.to_owned(), case.reason.to_owned())
    {
        problems.push(format!("{}: {} was expected: {report:#}", case.what, case.reason));
    }
    let location = format!("{}/{bucket}", proxy.endpoint.trim_start_matches("http://"));
    problems.extend(missing_words(case.what, &found("message"), case.words.iter().copied().chain([&*location])));
    let output = workspace.check_s3(&proxy.endpoint, bucket, &[]).await;
    if output.code != 2 || !output.stdout.contains(case.reason) {
        problems.push(format!("{}: {output:?}", case.what));
    }
    for secret in ["not-to-be-shown", "eu-west-1/s3", "eu-north-1/s3"] {
        // The first is in a URL. The others would be in a signature for a region that is not configured.
        let texts = [report.to_string(), output.stdout.clone(), proxy.heads().concat()];
        problems.extend(texts.iter().filter(|text| text.contains(secret)).map(|_| format!("{}: {secret}", case.what)));
    }
    if proxy.heads().is_empty() {
        problems.push(format!("{}: the proxy received no request", case.what));
    }
    problems
}

#[tokio::test]
async fn every_fault_has_a_reason_and_advice() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ndeadline = \"2s\"\nfailures_before_offline = 1");
    let daemon = Daemon::start(&workspace).await;
    let bucket = gateway.bucket().await;
    let cases = cases();
    let tests = cases.iter().map(|case| problems_of(&gateway, &daemon, &workspace, &bucket, case));
    let problems: Vec<String> = futures::future::join_all(tests).await.into_iter().flatten().collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // The targets differ by the ports of their proxies.
    let listed: Value = daemon.get("/backup_targets").await;
    assert_eq!(listed["backup_targets"].as_array().map(Vec::len), Some(cases.len()));
}
