//! What the gateway cannot be made to do and services of the field do: each has its own reason, by the
//! agent and by the command line, and a sentence that says what to do.

use serde_json::Value;

use crate::daemon::Daemon;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::gateway::{Gateway, target};
use crate::report::missing_words;
use crate::workspace::Workspace;

/// What a login page or a load balancer says.
const PAGE: &str = "<!DOCTYPE html><html><body><h1>Sign in</h1></body></html>";

/// A fault, and what is to be found of it.
struct Case {
    what: &'static str,
    fault: Fault,
    reason: &'static str,
    verdict: &'static str,
    words: &'static [&'static str],
}

/// A fault that is found at once.
fn case(what: &'static str, fault: Fault, reason: &'static str, words: &'static [&'static str]) -> Case {
    Case { what, fault, reason, verdict: "failed", words }
}

/// An answer of S3, with a code that has a message.
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
            &["400 IllegalLocationConstraintException", "ask who made the bucket"],
        ),
        case(
            "a redirect of S3",
            refusal("307 Temporary Redirect\nLocation: http://other.example.com/b", "TemporaryRedirect", ""),
            "redirected",
            &["307 TemporaryRedirect", "sends to http://other.example.com/b;", "not followed"],
        ),
        case("a redirect to a login", page(found), "redirected", &["302", "https://login.example.com/sso;"]),
        case(
            "throttled",
            refusal("503 Slow Down", "SlowDown", ""),
            "throttled",
            &["503 SlowDown", "fewer requests", "s3_interval"],
        ),
        case("throttled by what is in front", page("429 Too Many Requests"), "throttled", &["429", "fewer requests"]),
        case(
            "not implemented",
            refusal("501 Not Implemented", "NotImplemented", ""),
            "not_implemented",
            &["501 NotImplemented", "does not offer this call"],
        ),
        case(
            "an error of the service",
            refusal("500 Internal Server Error", "InternalError", ""),
            "server_error",
            &["500 InternalError", "its own log"],
        ),
        case(
            "an error of what is in front",
            page("502 Bad Gateway"),
            "server_error",
            &["answered 502;", "load balancer"],
        ),
        case(
            "credentials whose time is over",
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
        case("a page instead of S3", page("200 OK"), "not_s3", &["a web page came back", "login page"]),
        case("a page that forbids", page("403 Forbidden"), "not_s3", &["403 without an error code", "proxy"]),
        case("a page that is not found", page("404 Not Found"), "not_s3", &["404 without an error code", "port"]),
        case("another protocol", Fault::Bytes("SSH-2.0-OpenSSH_9.2p1\r\n"), "not_s3", &["it is not HTTP", "port"]),
        case("a body that never ends", Fault::EndlessBody, "not_s3", &["64 KiB", "endpoint"]),
        case("a head that never ends", Fault::EndlessHead, "not_s3", &["headers", "endpoint"]),
        Case {
            what: "an answer that comes a byte at a time",
            fault: Fault::SlowBytes,
            reason: "response_timed_out",
            verdict: "timed_out",
            words: &["no answer within 2000 ms", "health"],
        },
        case("a reset amid an answer", Fault::ResetMidBody, "connection_broken", &["proxies, firewalls"]),
        case("no answer at all", Fault::Bytes(""), "connection_broken", &["its log", "TLS or plain"]),
    ]
}

/// What is wrong with what is found of a fault.
async fn judged(gateway: &Gateway, agent: &Daemon, workspace: &Workspace, bucket: &str, case: &Case) -> Vec<String> {
    let proxy = FaultProxy::start(&gateway.endpoint, case.fault.clone()).await;
    let id = agent.create(target(&proxy.endpoint, bucket)).await;
    let report = agent.check(&id).await;
    let found = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    let mut wrong = Vec::new();
    if (found("status"), found("verdict"), found("reason"))
        != ("offline".to_owned(), case.verdict.to_owned(), case.reason.to_owned())
    {
        wrong.push(format!("{}: {} was expected: {report:#}", case.what, case.reason));
    }
    let place_of_it = format!("{}/{bucket}", proxy.endpoint.trim_start_matches("http://"));
    wrong.extend(missing_words(case.what, &found("message"), case.words.iter().copied().chain([&*place_of_it])));
    let output = workspace.check_s3(&proxy.endpoint, bucket, &[]).await;
    if output.code != 2 || !output.stdout.contains(case.reason) {
        wrong.push(format!("{}: {output:?}", case.what));
    }
    for secret in ["not-to-be-shown", "eu-west-1/s3", "eu-north-1/s3"] {
        // The one is in an address, the others would be in a signature for a region that was not configured.
        let said = [report.to_string(), output.stdout.clone(), proxy.heads().concat()];
        wrong.extend(said.iter().filter(|said| said.contains(secret)).map(|_| format!("{}: {secret}", case.what)));
    }
    if proxy.heads().is_empty() {
        wrong.push(format!("{}: nothing was asked", case.what));
    }
    wrong
}

#[tokio::test]
async fn every_fault_has_a_reason_and_advice() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ndeadline = \"2s\"\nfailures_before_offline = 1");
    let agent = Daemon::start(&workspace).await;
    let bucket = gateway.bucket().await;
    let cases = cases();
    let judging = cases.iter().map(|case| judged(&gateway, &agent, &workspace, &bucket, case));
    let wrong: Vec<String> = futures::future::join_all(judging).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The buckets are told apart by the ports of their proxies, and all of them are still there.
    let listed: Value = agent.get("/backup_targets").await;
    assert_eq!(listed["backup_targets"].as_array().map(Vec::len), Some(cases.len()));
}
