//! Endpoints of the gateway: TLS with a private CA, and path and virtual-hosted addressing.

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target};
use crate::report::{assert_healthy, assert_offline};

/// The longest name that S3 allows: 63 characters.
const LONGEST_NAME: &str = "a-bucket-whose-name-has-the-sixty-three-characters-that-are-max";

#[tokio::test]
async fn tls_works_only_with_the_ca_of_the_certificate() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 4_321).await;
    let trusting = format!("ca_bundle = \"{}\"", gateway.ca_bundle.display());
    let workspace = gateway.workspace_with(&trusting);
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.tls_endpoint, &bucket)).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_eq!(report["used_bytes"], 4_321);
    assert_eq!(workspace.check_s3(&gateway.tls_endpoint, &bucket, &[]).await.code, 0);

    let workspace = gateway.workspace();
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.tls_endpoint, &bucket)).await;
    let message = assert_offline(&daemon.check(&id).await, "tls_failed");
    assert!(message.contains("UnknownIssuer") && message.contains("ca_bundle"), "{message}");
    let output = workspace.check_s3(&gateway.tls_endpoint, &bucket, &[]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stdout.contains("tls_failed"), "{output:?}");
}

#[tokio::test]
async fn tls_and_plain_http_mismatch_is_reported() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let workspace = gateway.workspace();
    let (daemon, id) =
        Daemon::with_target(&workspace, target(&gateway.endpoint.replace("http://", "https://"), &bucket)).await;
    let message = assert_offline(&daemon.check(&id).await, "tls_failed");
    assert!(message.contains("use http://"), "{message}");
    let id = daemon.create(target(&gateway.tls_endpoint.replace("https://", "http://"), &bucket)).await;
    let message = assert_offline(&daemon.check(&id).await, "connection_broken");
    assert!(message.contains("TLS on a plain port") && message.contains("Use https://"), "{message}");
}

#[tokio::test]
async fn virtual_hosted_bucket_is_the_same_bucket() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 4_321).await;
    // The DNS name of the gateway. It interprets the labels before this name as a bucket.
    let endpoint = gateway.endpoint.replace("127.0.0.1", "localhost");
    let mut workspace = gateway.workspace_with("addressing = \"virtual\"");
    workspace.add_host(&format!("{bucket}.localhost"));
    let (daemon, id) = Daemon::with_target(&workspace, target(&endpoint, &bucket)).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_eq!(report["used_bytes"], 4_321, "{report:#}");
    assert_eq!(workspace.check_s3(&endpoint, &bucket, &[]).await.code, 0);
}

#[tokio::test]
async fn bucket_with_the_longest_name_works() {
    let gateway = Gateway::shared().await;
    assert_eq!(LONGEST_NAME.len(), 63);
    gateway.bucket_named(LONGEST_NAME).await;
    let workspace = gateway.workspace();
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, LONGEST_NAME)).await;
    assert_healthy(&daemon.check(&id).await);
}
