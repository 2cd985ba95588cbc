//! Clients that are slow, silent or too many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use super::*;

const LARGE_BYTES: usize = 64 << 20;

/// Routes without checks, for which the transport is an extension of a request.
#[derive(Clone)]
struct Routes(Router);

impl RequestHandler for Routes {
    async fn answer(&self, peer: Peer, mut request: Request) -> Response {
        request.extensions_mut().insert(peer);
        self.0.clone().oneshot(request).await.expect("infallible")
    }
}

/// A server that ends with the sender, and its address and socket.
async fn server() -> (SocketAddr, PathBuf, oneshot::Sender<()>, tempfile::TempDir) {
    server_within(CONNECTIONS_MAX).await
}

async fn server_within(max: usize) -> (SocketAddr, PathBuf, oneshot::Sender<()>, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    let addresses = [Listen::Tcp("127.0.0.1:0".parse().expect("an address")), Listen::Unix(socket.clone())];
    let listeners = Listeners::bind(&addresses, None).await.expect("bound");
    let Listen::Tcp(address) = listeners.addresses()[0] else { panic!("the first is TCP") };
    let router: Router = Router::new()
        .route("/", get(|request: Request| async move { format!("{:?}", request.extensions().get::<Peer>()) }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                "slow"
            }),
        )
        .route("/large", get(|| async { vec![0_u8; LARGE_BYTES] }));
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(listeners.serve(max, Routes(router), async move { drop(stopped.await) }, Duration::ZERO));
    (address, socket, stop, directory)
}

/// What a client reads until the server closes.
async fn read_all(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    // A reset is a close, too.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn request_has_its_transport() {
    let (address, socket, _stop, _directory) = server().await;
    let ask = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut tcp = TcpStream::connect(address).await.expect("connected");
    tcp.write_all(ask).await.expect("sent");
    assert!(read_all(tcp).await.ends_with("Some(Tcp)"));
    let mut unix = UnixStream::connect(socket).await.expect("connected");
    unix.write_all(ask).await.expect("sent");
    assert!(read_all(unix).await.ends_with("Some(Unix)"));
}

// A paused clock advances to the next timer as soon as every task waits.
#[tokio::test(start_paused = true)]
async fn silent_slow_and_idle_clients_are_dropped() {
    let (address, _socket, _stop, _directory) = server().await;
    for (what, sent, answered) in [
        ("silent", &b""[..], false),
        ("slow", b"GET / HTTP/1.1\r\nhost: x\r\nx-slo", false),
        ("idle", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", true),
    ] {
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(sent).await.expect("sent");
        let since = tokio::time::Instant::now();
        let text = read_all(client).await;
        assert!(since.elapsed() >= HEAD_TIMEOUT, "{what}: dropped after {:?}", since.elapsed());
        assert_eq!(text.contains("200 OK"), answered, "{what}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_reads_nothing_is_dropped() {
    let (address, _socket, _stop, _directory) = server().await;
    let mut client = TcpStream::connect(address).await.expect("connected");
    client.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    tokio::time::sleep(WRITE_TIMEOUT * 2).await;
    let text = read_all(client).await;
    assert!(!text.is_empty() && text.len() < LARGE_BYTES, "{} bytes came", text.len());
}

#[tokio::test]
async fn tcp_clients_beyond_the_limit_wait_and_the_unix_socket_is_not_affected() {
    let (address, socket, _stop, _directory) = server_within(8).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(address).await.expect("connected"));
    }
    let ask = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut late = TcpStream::connect(address).await.expect("in the backlog");
    late.write_all(ask).await.expect("sent");
    let mut unix = UnixStream::connect(socket).await.expect("connected");
    unix.write_all(ask).await.expect("sent");
    assert!(read_all(unix).await.contains("200 OK"));
    let waiting = tokio::time::timeout(Duration::from_millis(100), read_all(&mut late)).await;
    assert!(waiting.is_err(), "a connection beyond the limit was accepted");
    held.pop();
    assert!(read_all(late).await.contains("200 OK"), "the next client gets the freed connection");
}

#[tokio::test]
async fn clients_of_this_host_leave_connections_to_others() {
    let (address, socket, _stop, _directory) = server().await;
    let mut held = Vec::new();
    for _ in 0..LOOPBACK_CONNECTIONS_MAX {
        held.push(TcpStream::connect(address).await.expect("connected"));
    }
    let ask = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut late = TcpStream::connect(address).await.expect("connected");
    // It may be closed before it sends.
    let _ = late.write_all(ask).await;
    assert_eq!(read_all(late).await, "", "a connection beyond the share is closed");
    let mut unix = UnixStream::connect(socket).await.expect("connected");
    unix.write_all(ask).await.expect("sent");
    assert!(read_all(unix).await.contains("200 OK"));
}

#[tokio::test]
async fn client_that_closes_its_sending_side_gets_its_answer() {
    let (address, socket, _stop, _directory) = server().await;
    let ask = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut tcp = TcpStream::connect(address).await.expect("connected");
    tcp.write_all(ask).await.expect("sent");
    tcp.shutdown().await.expect("half closed");
    assert!(read_all(tcp).await.ends_with("slow"));
    let mut unix = UnixStream::connect(socket).await.expect("connected");
    unix.write_all(ask).await.expect("sent");
    unix.shutdown().await.expect("half closed");
    assert!(read_all(unix).await.ends_with("slow"));
}

#[tokio::test(start_paused = true)]
async fn client_that_reads_too_slowly_is_dropped() {
    // The kernel buffers little for a Unix socket, so the agent notices soon.
    let (_address, socket, _stop, _directory) = server().await;
    let mut client = UnixStream::connect(socket).await.expect("connected");
    client.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let since = tokio::time::Instant::now();
    // Often enough that no single write waits for long, and below the lowest rate.
    let (mut part, every) = (vec![0; 200 << 10], WRITE_TIMEOUT * 2 / 3);
    while since.elapsed() < WRITE_TIMEOUT * 20 && client.read_exact(&mut part).await.is_ok() {
        tokio::time::sleep(every).await;
    }
    let rest = read_all(client).await;
    assert!(rest.len() < LARGE_BYTES / 2, "{} bytes came", rest.len());
}

#[tokio::test]
async fn clients_of_this_host_share_its_connections_whatever_their_address() {
    // Client and server are in this process.
    let (_, files_max) = getrlimit(Resource::RLIMIT_NOFILE).expect("read");
    setrlimit(Resource::RLIMIT_NOFILE, files_max, files_max).expect("set");
    // Connecting a UDP socket selects this host's address without sending a packet.
    let route = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port");
    if let Err(error) = route.connect("198.51.100.1:9") {
        println!("not shown: this host has no address beyond loopback ({error})");
        return;
    }
    let ours = route.local_addr().expect("an address").ip();
    let listeners = Listeners::bind(&[Listen::Tcp(([0, 0, 0, 0], 0).into())], None).await.expect("bound");
    let Listen::Tcp(address) = listeners.addresses()[0] else { panic!("it is TCP") };
    let service = Routes(Router::new().route("/", get(|| async { "seen" })));
    tokio::spawn(listeners.serve(CONNECTIONS_MAX, service, std::future::pending(), Duration::ZERO));
    let connect = async |host: IpAddr| TcpStream::connect((host, address.port())).await.expect("connected");
    let hosts = [ours, Ipv4Addr::LOCALHOST.into()];
    let mut held = Vec::new();
    for host in hosts.into_iter().cycle().take(LOOPBACK_CONNECTIONS_MAX) {
        held.push(connect(host).await);
    }
    let ask = async |host| {
        let mut client = connect(host).await;
        // It may be closed before it sends.
        let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        read_all(client).await
    };
    for host in hosts {
        assert_eq!(ask(host).await, "", "a connection beyond the limit was accepted");
    }
    held.pop();
    while !ask(ours).await.contains("200 OK") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn head_beyond_the_limits_of_hyper_is_refused() {
    let (address, _socket, _stop, _directory) = server().await;
    let many = "x: y\r\n".repeat(101);
    let large = format!("x: {}\r\n", "y".repeat(4 * HEAD_MAX_BYTES));
    for (head, has_answer) in [(many, true), (large, false)] {
        let mut client = TcpStream::connect(address).await.expect("connected");
        // It may be refused before all of it is sent. Unread bytes then reset the connection, and the answer is lost.
        let _ = client.write_all(format!("GET / HTTP/1.1\r\nconnection: close\r\n{head}\r\n").as_bytes()).await;
        let text = read_all(client).await;
        assert!(!text.contains("200 OK"), "{text}");
        assert!(!has_answer || text.starts_with("HTTP/1.1 431"), "{text}");
    }
}

#[tokio::test]
async fn socket_is_given_to_a_group_that_exists() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let listeners = Listeners::bind(&[Listen::Unix(path.clone())], None).await.expect("bound");
    let error = listeners.share_with("no-such-group").expect_err("no group").to_string();
    assert!(error.contains("no-such-group") && error.contains("socket_group"), "{error}");
    // Every user may give a file to the group that it already has.
    let own = nix::unistd::getegid().to_string();
    listeners.share_with(&own).expect("its own group");
    // Root may give it to any group, and another user to its own groups.
    let another = 34;
    let given = listeners.share_with(&another.to_string());
    if nix::unistd::geteuid().is_root() {
        given.expect("root may");
        assert_eq!(std::fs::symlink_metadata(&path).expect("there").gid(), another);
    } else {
        println!("not shown that root gives a socket to any group: this is not root");
        let error = given.expect_err("not ours to give").to_string();
        assert!(error.contains("34") && error.contains("socket_group"), "{error}");
    }
    let mode = std::fs::symlink_metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, SOCKET_MODE);
}
