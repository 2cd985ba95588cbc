//! Fake service that answers with prepared bytes, and the client of a bucket in it.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::config::Credentials;
use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::identity::Identity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::address::BucketAddress;
use super::bucket::{AwsBucket, StatsParameter};
use super::clients::SigningClient;
use super::count::RequestCounter;
use super::credentials::Renewal;
use crate::model::S3Location;
use crate::model::settings::S3Addressing;

/// Heads of the requests that a service received.
pub type Heads = Arc<Mutex<Vec<String>>>;

/// Returns a bucket of a service that gives these answers to its requests, one connection each.
pub async fn answering(answers: impl IntoIterator<Item = String>) -> (AwsBucket, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bucket = bucket_of(&listener).await;
    let heads = Heads::default();
    let answers: Vec<String> = answers.into_iter().collect();
    tokio::spawn({
        let heads = heads.clone();
        async move {
            for answer in answers {
                let (mut connection, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(connection.read_u8().await.expect("a request"));
                }
                let head = String::from_utf8(request).expect("text").to_ascii_lowercase();
                let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next());
                let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
                connection.read_exact(&mut body).await.expect("a body");
                heads.lock().expect("no panic").push(head);
                connection.write_all(answer.as_bytes()).await.expect("sent");
            }
        }
    });
    (bucket, heads)
}

/// Returns a bucket of the service that listens here.
pub async fn bucket_of(listener: &TcpListener) -> AwsBucket {
    let address = listener.local_addr().expect("its address");
    let location = S3Location::parse(&format!("http://{address}/backups")).expect("a location");
    let credentials = Credentials::from_keys("AKIA", "secret", None);
    let client = SigningClient {
        connector: SharedHttpConnector::new(Connector::builder().build_http()),
        identity: Identity::from(credentials.clone()),
        credentials,
        exposed: None,
        renewal: Renewal::at_first_read(None, std::time::SystemTime::now()),
    };
    let region = "us-east-1";
    let address = BucketAddress::resolve(&location, S3Addressing::Path, region).await.expect("an address");
    let (stats, requests) = (StatsParameter::new(&location), RequestCounter::default());
    AwsBucket::new(client, (&location, region), Arc::new(address), stats, requests, Arc::default())
}

/// Formats an answer. The first line of `head` is the status, and the others are headers.
pub fn answer(head: &str, body: &str) -> String {
    let head = head.replace('\n', "\r\n");
    format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}
