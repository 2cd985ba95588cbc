//! Requests of the client and answers of services, over HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::fake_service::{answer, answering, bucket_of};
use super::*;
use crate::model::LockMode;
use crate::model::settings::LocationPattern;
use crate::s3::{BucketApi as _, ObjectApi as _, Retention};

#[tokio::test]
async fn head_is_sent_without_its_parameter_when_the_service_refuses_it() {
    for status in [
        "400 Bad Request",
        "403 Forbidden",
        "405 Method Not Allowed",
        "500 Internal Server Error",
        "501 Not Implemented",
        "502 Bad Gateway",
    ] {
        let healthy = answer("200 OK", "");
        let (bucket, heads) = answering([answer(status, ""), healthy.clone(), healthy]).await;
        assert!(bucket.head_bucket().await.is_ok(), "{status}");
        assert!(bucket.head_bucket().await.is_ok(), "{status}");
        let sent: Vec<bool> = heads.lock().expect("heads").iter().map(|head| head.contains("?read-stats")).collect();
        assert_eq!(sent, [true, false, false], "{status}");
    }
    let (bucket, heads) = answering([answer("403 Forbidden", ""), answer("400 Bad Request", "")]).await;
    assert_eq!(bucket.head_bucket().await.expect_err("refused").status(), Some(403));
    assert_eq!(heads.lock().expect("heads").len(), 2);
    let (bucket, _) = answering([answer("503 Slow Down", "")]).await;
    assert_eq!(bucket.head_bucket().await.expect_err("refused").status(), Some(503), "one request");
}

#[tokio::test]
async fn connection_is_not_used_again_after_trouble_of_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (bucket, connections) = (bucket_of(&listener).await, Arc::new(AtomicUsize::new(0)));
    let accepted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                while connection.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {
                    let kept = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n";
                    connection.write_all(kept).await.expect("sent");
                }
            });
        }
    });
    for sent in 1..=3 {
        assert_eq!(bucket.versioning().await.expect_err("refused").status(), Some(503));
        assert_eq!(connections.load(Ordering::Relaxed), sent);
    }
}

#[tokio::test]
async fn change_of_a_retention_has_an_md5_digest_and_no_other() {
    let (bucket, heads) = answering([answer("200 OK", "")]).await;
    let retention = Retention { mode: LockMode::Governance, until: 0 };
    bucket.put_retention("key", Some("1"), Some(retention), false).await.expect("accepted");
    let head = heads.lock().expect("heads")[0].clone();
    assert!(head.contains("\r\ncontent-md5: ") && !head.contains("crc32"), "{head}");
}

#[tokio::test]
async fn usage_of_a_bucket_is_read_unless_it_is_impossible() {
    let most = i64::MAX.unsigned_abs();
    for (header, used, impossible) in [
        ("0".to_owned(), Some(0), None),
        (most.to_string(), Some(most), None),
        ((most + 1).to_string(), None, Some(i128::from(most) + 1)),
        (u64::MAX.to_string(), None, Some(i128::from(u64::MAX))),
        ("-4096".to_owned(), None, Some(-4096)),
        ("much".to_owned(), None, None),
    ] {
        let (bucket, _) = answering([answer(&format!("200 OK\nx-rgw-bytes-used: {header}"), "")]).await;
        let usage = bucket.head_bucket().await.expect("usage");
        assert_eq!((usage.used_bytes, usage.impossible_bytes), (used, impossible), "{header}");
    }
}

#[tokio::test]
async fn web_page_and_tls_port_are_named() {
    let plain_to_tls = "<html><center>The plain HTTP request was sent to HTTPS port</center></html>";
    for (head, body, expected) in [
        ("200 OK\ncontent-type: text/html; charset=utf-8", "<html></html>", S3Failure::WebPage),
        ("400 Bad Request\ncontent-type: text/html", plain_to_tls, S3Failure::PlainToTls),
        ("400 Bad Request", "Client sent an HTTP request to an HTTPS server.\n", S3Failure::PlainToTls),
        ("400 Bad Request", "Reason: You're speaking plain HTTP to an SSL-enabled server port.", S3Failure::PlainToTls),
    ] {
        let (bucket, _) = answering([answer(head, body)]).await;
        assert_eq!(bucket.list_below("canary/").await, Err(expected), "{body}");
    }
    let (bucket, _) = answering([answer("200 OK\ncontent-type: text/html", "")]).await;
    assert_eq!(bucket.head_bucket().await, Err(S3Failure::WebPage));
    let alert = "\u{15}\u{3}\u{1}\0\u{2}\u{2}\u{46}".to_owned();
    let (bucket, _) = answering([alert]).await;
    let failure = bucket.head_bucket().await.expect_err("refused");
    let location = S3Location::parse("http://s3.example.com/backups").expect("a location");
    assert!(failure.finding(&location).message.contains("https://"), "{failure}");
}

#[tokio::test]
async fn region_and_endpoint_of_an_error_document_are_shown() {
    let document = |code: &str, more: &str| format!("<Error><Code>{code}</Code><Message>m</Message>{more}</Error>");
    let location = S3Location::parse("http://s3.example.com/backups").expect("a location");
    for (head, code, more, words) in [
        ("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>garage</Region>", "region = \"garage\""),
        ("301 Moved Permanently", "PermanentRedirect", "<Region>eu-west-1</Region>", "region = \"eu-west-1\""),
        (
            "301 Moved Permanently",
            "PermanentRedirect",
            "<Endpoint>backups.s3.example.org</Endpoint>",
            "it redirects to backups.s3.example.org",
        ),
    ] {
        let (bucket, _) = answering([answer(head, &document(code, more))]).await;
        let message = bucket.list_below("canary/").await.expect_err("refused").finding(&location).message;
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn region_of_a_header_is_told_when_it_differs_from_the_signed_one() {
    let location = S3Location::parse("http://s3.example.com/backups").expect("a location");
    for (status, code, region, is_told) in [
        ("400 Bad Request", "InvalidRegionName", "eu-1", true),
        ("400 Bad Request", "InvalidRequest", "eu-1", true),
        ("403 Forbidden", "AccessDenied", "eu-1", true),
        ("403 Forbidden", "SignatureDoesNotMatch", "eu-1", true),
        ("403 Forbidden", "AccessDenied", "us-east-1", false),
        ("400 Bad Request", "InvalidRequest", "us-east-1", false),
        ("507 Insufficient Storage", "XMinioStorageFull", "eu-1", false),
        ("500 Internal Server Error", "InternalError", "eu-1", false),
    ] {
        let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        let (bucket, _) = answering([answer(&format!("{status}\nx-amz-bucket-region: {region}"), &body)]).await;
        let finding = bucket.list_below("canary/").await.expect_err("refused").finding(&location);
        let told = format!("region = \"{region}\"");
        assert_eq!(finding.message.contains(&told), is_told, "{}", finding.message);
        let is_region = finding.reason == crate::model::Reason::WrongRegion;
        assert_eq!(is_region, code == "InvalidRegionName", "{}", finding.message);
    }
    let (bucket, _) = answering([answer("400 Bad Request\nx-amz-bucket-region: us-east-1", "")]).await;
    let refused = bucket.head_bucket().await.expect_err("refused");
    assert_ne!(refused.reason(), crate::model::Reason::WrongRegion, "it was signed for that region");
}

#[tokio::test]
async fn region_of_a_message_is_told_when_it_differs_from_the_signed_one() {
    use crate::model::Reason;
    let location = S3Location::parse("http://s3.example.com/backups").expect("a location");
    let (located, wrong) = ("The bucket is located in the region", "the region 'x' is wrong; expecting");
    for (status, code, message, element, told, reason) in [
        ("403 Forbidden", "AccessDenied", format!("{located} 'eu-1'"), "", Some("eu-1"), Reason::WrongRegion),
        ("403 Forbidden", "AccessDenied", format!("{located} 'us-east-1'"), "", None, Reason::AccessDenied),
        ("403 Forbidden", "SignatureDoesNotMatch", format!("{wrong} 'us-east-1'"), "", None, Reason::WrongSecret),
        // Its other topic counts.
        (
            "403 Forbidden",
            "AccessDenied",
            format!("{located} 'us-east-1'. Bucket quota exceeded"),
            "",
            None,
            Reason::QuotaExceeded,
        ),
        // The code itself is about the region.
        ("400 Bad Request", "InvalidRegionName", format!("{wrong} 'us-east-1'"), "", None, Reason::WrongRegion),
        ("400 Bad Request", "InvalidRegionName", String::new(), "us-east-1", None, Reason::WrongRegion),
        ("400 Bad Request", "InvalidRegionName", String::new(), "eu-1", Some("eu-1"), Reason::WrongRegion),
        // The element is read although the message names the region of the request.
        (
            "400 Bad Request",
            "InvalidRegionName",
            format!("{wrong} 'us-east-1'"),
            "eu-1",
            Some("eu-1"),
            Reason::WrongRegion,
        ),
    ] {
        let body = format!("<Error><Code>{code}</Code><Message>{message}</Message><Region>{element}</Region></Error>");
        let (bucket, _) = answering([answer(status, &body)]).await;
        let finding = bucket.list_below("canary/").await.expect_err("refused").finding(&location);
        assert_eq!(finding.reason, reason, "{}", finding.message);
        match told {
            Some(region) => {
                assert!(finding.message.contains(&format!("region = \"{region}\"")), "{}", finding.message)
            }
            None => assert!(!finding.message.contains("us-east-1"), "{}", finding.message),
        }
    }
}

#[tokio::test]
async fn service_address_is_that_of_the_requests() {
    let rule = |addressing| S3AccessRule {
        location: LocationPattern::new("*"),
        source: S3CredentialSource::DefaultChain,
        region: Some("cn-north-1".to_owned()),
        ca_bundle: None,
        addressing,
        read_only: false,
        append_only: false,
        put_headers: Arc::default(),
    };
    let (path, host) = (S3Addressing::Path, S3Addressing::Virtual);
    for (location, addressing, expected) in [
        ("https://s3.example.com/backups", path, ("s3.example.com", 443)),
        ("https://s3.example.com/backups", host, ("backups.s3.example.com", 443)),
        ("http://s3.example.com:8080/backups", host, ("backups.s3.example.com", 8080)),
        ("http://s3.example.com/backups", path, ("s3.example.com", 80)),
        // These buckets are not valid host names, or their endpoint is an address.
        ("https://192.0.2.1:9000/backups", host, ("192.0.2.1", 9000)),
        ("https://[2001:db8::1]/backups", host, ("2001:db8::1", 443)),
        ("https://s3.example.com/Back_Ups", host, ("s3.example.com", 443)),
        ("https://s3.example.com/back.ups", host, ("s3.example.com", 443)),
        ("backups", path, ("s3.cn-north-1.amazonaws.com.cn", 443)),
        ("backups", host, ("backups.s3.cn-north-1.amazonaws.com.cn", 443)),
    ] {
        let mut connector = BucketConnector::new(S3Location::parse(location).expect(location), &Arc::default());
        let address = connector.service_address(Some(&rule(addressing)), "cn-north-1").await.expect(location);
        assert_eq!((address.0.as_str(), address.1), expected, "{location} {addressing:?}");
    }
}

#[tokio::test]
async fn unusable_certificate_of_a_secret_is_a_failure() {
    let truncated = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let not_a_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in [truncated, not_a_certificate] {
        let payload = serde_json::json!({ "access_key": "a", "secret_key": "k", "vault_s3_ssl_cert": pem });
        let secret = Arc::new(BucketSecret::parse(payload.to_string().as_bytes()).expect("credentials"));
        let location = S3Location::parse("https://127.0.0.1:1/backups").expect("a location");
        let mut connector = BucketConnector::new(location, &Arc::default());
        let failure = connector.connect(None, Some(&secret), "us-east-1").await.err();
        assert!(matches!(failure, Some(S3Failure::Tls(_))), "{failure:?}");
    }
}
