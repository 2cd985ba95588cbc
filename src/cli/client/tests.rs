//! Addresses, answers and tokens of the client.

use std::path::Path;

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

#[test]
fn address_is_a_socket_or_a_url() {
    assert_eq!("unix:/run/x".parse(), Ok(Address::Unix("/run/x".into())));
    assert_eq!("http://[::1]:8781".parse(), Ok(Address::Tcp("[::1]:8781".to_owned())));
    assert_eq!("https://a.example:8781/".parse(), Ok(Address::Tls("a.example:8781".to_owned())));
    for bad in ["", "host", "ftp://host:1", "http://host", "https://host", "http://host:1/path"] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
}

fn at(address: Address) -> ConnectionOptions {
    ConnectionOptions { api: Some(address), ..ConnectionOptions::default() }
}

/// Sends a request to a server that answers each connection with the next text. Returns the outcome and the request
/// heads.
async fn request_to(
    access: ConnectionOptions,
    path: &Path,
    answers: &'static [&'static str],
) -> (Result<wire::Health, ClientError>, Vec<String>) {
    let listener = UnixListener::bind(path).expect("a socket");
    let serving = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.expect("a request");
            heads.push(String::from_utf8_lossy(&head[..length]).into_owned());
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
        heads
    });
    let client = Client::new(access);
    let outcome = client.get("/healthz").await;
    let heads = tokio::time::timeout(ANSWER_TIMEOUT, serving).await.expect("every answer was requested");
    (outcome, heads.expect("no panic"))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}";
const WANTS_TOKEN: &str =
    "HTTP/1.1 401 Unauthorized\r\ncontent-length: 47\r\n\r\n{\"unauthorized\":{\"code\":401,\"message\":\"token\"}}";

#[tokio::test]
async fn token_is_sent_only_after_a_401() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "a-token\n").expect("written");
    let access = |socket: &str| {
        let path = directory.path().join(socket);
        let access = ConnectionOptions { token_file: Some(file.clone()), ..at(Address::Unix(path.clone())) };
        (access, path)
    };
    let (open, path) = access("open");
    let (outcome, heads) = request_to(open, &path, &[OK]).await;
    assert!(outcome.is_ok() && !heads[0].contains("a-token"), "{heads:?}");
    let (closed, path) = access("closed");
    let (outcome, heads) = request_to(closed, &path, &[WANTS_TOKEN, OK]).await;
    assert!(outcome.is_ok() && !heads[0].contains("a-token"), "{heads:?}");
    assert!(heads[1].contains("x-auth-token: a-token\r\n"), "{heads:?}");
    let (refusing, path) = access("refusing");
    let (outcome, _) = request_to(refusing, &path, &[WANTS_TOKEN, WANTS_TOKEN]).await;
    assert!(matches!(outcome, Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, .. })));
}

#[tokio::test]
async fn requests_do_not_wait_for_each_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).expect("a socket");
    let serving = tokio::spawn(async move {
        // Answers after both requests have arrived.
        let (mut first, _) = listener.accept().await.expect("a client");
        let (mut second, _) = listener.accept().await.expect("a client");
        for stream in [&mut first, &mut second] {
            let _ = stream.read(&mut [0; 4096]).await.expect("a request");
            stream.write_all(OK.as_bytes()).await.expect("written");
        }
    });
    let client = Client::new(at(Address::Unix(path)));
    let ask = || client.get::<wire::Health>("/healthz");
    let (first, second) = tokio::join!(ask(), ask());
    assert!(first.is_ok() && second.is_ok(), "{first:?}, {second:?}");
    serving.await.expect("no panic");
}

async fn answer(text: &'static [u8]) -> Result<wire::Health, ClientError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await.expect("a request");
        stream.write_all(text).await.expect("written");
    });
    Client::new(at(Address::Unix(path))).get("/healthz").await
}

#[tokio::test]
async fn answer_fault_and_unexpected_answer_are_distinguished() {
    let good = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"ok\"}").await;
    assert_eq!(good.expect("an answer").status, "ok");
    let fault = b"HTTP/1.1 404 Not Found\r\ncontent-length: 49\r\n\r\n{\"itemNotFound\":{\"code\":404,\"message\":\"no such\"}}";
    assert!(matches!(answer(fault).await, Err(ClientError::Refused { message, .. }) if message == "no such"));
    for nonsense in [&b"SSH-2.0-x\r\n"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", b""] {
        assert!(matches!(answer(nonsense).await, Err(ClientError::UnexpectedAnswer { .. })));
    }
}

#[tokio::test]
async fn error_says_what_to_do_when_agent_is_absent() {
    let client = Client::new(at(Address::Unix("/nonexistent/api.sock".into())));
    let error = client.get::<wire::Health>("/healthz").await.expect_err("an error").to_string();
    assert!(error.contains("systemctl start targetwatch") && error.contains("/nonexistent/api.sock"), "{error}");
}

/// Answers each connection with the next text, and returns the request heads.
async fn serve(listener: TcpListener, answers: &'static [&'static str]) -> Vec<String> {
    let mut heads = Vec::new();
    for answer in answers {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.expect("a request");
        heads.push(String::from_utf8_lossy(&head[..length]).into_owned());
        stream.write_all(answer.as_bytes()).await.expect("written");
    }
    heads
}

#[tokio::test]
async fn default_port_gets_no_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, socket) = (directory.path().join("token"), directory.path().join("s"));
    std::fs::write(&file, "a-token\n").expect("written");
    let impostor = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = Address::Tcp(impostor.local_addr().expect("an address").to_string());
    let access = ConnectionOptions { token_file: Some(file), ..ConnectionOptions::default() };
    let defaults = DefaultAddresses { socket: Address::Unix(socket.clone()), port: port.clone() };
    let client = Client { defaults, ..Client::new(access.clone()) };
    let serving = tokio::spawn(serve(impostor, &[WANTS_TOKEN, WANTS_TOKEN, WANTS_TOKEN, OK]));

    let error = client.get::<wire::Health>("/healthz").await.expect_err("no token is sent").to_string();
    assert!(error.contains(&format!("use --api {port}")), "{error}");

    // A token that the agent at the socket got earlier is not sent to the port, either.
    let agent = UnixListener::bind(&socket).expect("a socket");
    let serving_agent = tokio::spawn(async move {
        for answer in [WANTS_TOKEN, OK] {
            let (mut stream, _) = agent.accept().await.expect("a client");
            let _ = stream.read(&mut [0; 1024]).await.expect("a request");
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    });
    client.get::<wire::Health>("/healthz").await.expect("an answer");
    serving_agent.await.expect("both answers were requested");
    let outcome = client.get::<wire::Health>("/healthz").await;
    assert!(matches!(outcome, Err(ClientError::TokenWithheld { .. })), "{outcome:?}");

    let named = Client::new(ConnectionOptions { api: Some(port), ..access });
    named.get::<wire::Health>("/healthz").await.expect("an answer");
    let heads = serving.await.expect("every answer was requested");
    let with_token: Vec<bool> = heads.iter().map(|head| head.contains("a-token")).collect();
    assert_eq!(with_token, [false, false, false, true], "{heads:?}");
}

#[tokio::test]
async fn token_is_not_sent_in_plain_text() {
    for (peer, expected) in
        [("127.0.0.1", true), ("127.9.9.9", true), ("::1", true), ("::ffff:127.0.0.1", true), ("192.0.2.1", false)]
    {
        assert_eq!(is_this_host(peer.parse().expect("an address")), expected, "{peer}");
    }
    // Connecting a UDP socket selects a local address without sending a packet.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port");
    if let Err(error) = probe.connect("198.51.100.1:9") {
        println!("skipping the rest: this host has only loopback addresses ({error})");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "a-token\n").expect("written");
    let listener = TcpListener::bind((probe.local_addr().expect("an address").ip(), 0)).await.expect("a port");
    let access = at(Address::Tcp(listener.local_addr().expect("an address").to_string()));
    tokio::spawn(serve(listener, &[WANTS_TOKEN, OK]));
    let outcome =
        Client::new(ConnectionOptions { token_file: Some(file), ..access }).get::<wire::Health>("/healthz").await;
    assert!(matches!(outcome, Err(ClientError::PlainText { .. })), "{outcome:?}");
}
