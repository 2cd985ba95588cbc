//! The NFS server, tested with `nfs3_client` and with libnfs.

#![allow(clippy::disallowed_methods, reason = "the exported directory is local, and nfs-ls ends by itself")]

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use nfs3_client::io::{AsyncRead, AsyncWrite};
use nfs3_client::{MountClient, MountError, Nfs3Client, RpcError};
use nfs3_types::mount::{dirpath, mountstat3};
use nfs3_types::nfs3::{
    FSINFO3args, FSSTAT3args, FSSTAT3resok, Nfs3Result, READDIR3args, cookieverf3, diropargs3, filename3, nfs_fh3,
    nfsstat3,
};
use nfs3_types::rpc::auth_stat;
use nfs3_types::xdr_codec::Opaque;
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::nfs_server::{Behaviour, NfsExportFixture, NfsServer};

/// Time after which a server counts as silent, much longer than an exchange over loopback.
const SILENT_AFTER: Duration = Duration::from_millis(100);

/// A stream for `nfs3_client`. The client's own adapter reads for ever from a stream that has ended.
struct Stream(TcpStream);

impl AsyncRead for Stream {
    async fn async_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).await
    }

    async fn async_read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(buf).await.map(|_| ())
    }
}

impl AsyncWrite for Stream {
    async fn async_write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf).await
    }
}

async fn serve(directory: &Path) -> NfsServer {
    let export = NfsExportFixture { path: "/backups".into(), directory: directory.to_owned() };
    NfsServer::start(vec![export]).await.unwrap()
}

async fn connect(port: u16) -> io::Result<Stream> {
    TcpStream::connect(("127.0.0.1", port)).await.map(Stream)
}

async fn client(port: u16) -> Nfs3Client<Stream> {
    Nfs3Client::new(connect(port).await.unwrap())
}

async fn mount(port: u16, path: &str) -> Result<nfs_fh3, MountError> {
    let mut client = MountClient::new(connect(port).await.unwrap());
    let mounted = client.mnt(dirpath(Opaque::owned(path.into()))).await?;
    Ok(nfs_fh3 { data: mounted.fhandle.0 })
}

async fn fsstat(port: u16, root: &nfs_fh3) -> Result<FSSTAT3resok, nfsstat3> {
    match client(port).await.fsstat(&FSSTAT3args { fsroot: root.clone() }).await.unwrap() {
        Nfs3Result::Ok(capacity) => Ok(capacity),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

#[tokio::test]
async fn nfs_capacity_is_that_of_the_exported_directory() {
    let directory = TempDir::new().unwrap();
    let server = serve(directory.path()).await;
    let root = mount(server.port(), "/backups").await.unwrap();
    let figures = || {
        let found = statvfs(directory.path()).unwrap();
        let unit = found.fragment_size();
        [
            found.blocks() * unit,
            found.blocks_free() * unit,
            found.blocks_available() * unit,
            found.files(),
            found.files_free(),
            found.files_available(),
        ]
    };
    // Other processes write to the same file system, so only an answer between two equal readings counts.
    for _ in 0..100 {
        let before = figures();
        let found = fsstat(server.port(), &root).await.unwrap();
        if before == figures() {
            assert_eq!([found.tbytes, found.fbytes, found.abytes, found.tfiles, found.ffiles, found.afiles], before);
            return;
        }
    }
    panic!("the usage of the temporary directory's file system changed during every attempt");
}

#[tokio::test]
async fn nfs_lists_the_export_and_nothing_outside() {
    let directory = TempDir::new().unwrap();
    for number in 0..50 {
        std::fs::write(directory.path().join(format!("image-{number:02}")), b"x").unwrap();
    }
    let server = serve(directory.path()).await;
    let root = mount(server.port(), "/backups").await.unwrap();
    let mut client = client(server.port()).await;

    let (mut names, mut cookie, mut replies) = (Vec::new(), 0, 0);
    loop {
        let arguments = READDIR3args { dir: root.clone(), cookie, cookieverf: cookieverf3::default(), count: 512 };
        let listing = client.readdir(&arguments).await.unwrap().unwrap().reply;
        replies += 1;
        for entry in listing.entries.into_inner() {
            cookie = entry.cookie;
            names.push(String::from_utf8(entry.name.0.to_vec()).unwrap());
        }
        if listing.eof {
            break;
        }
    }
    assert!(replies > 1, "512 bytes hold no 52 entries");
    assert_eq!(names.len(), 52);
    assert_eq!([&names[0], &names[2], &names[51]], [".", "image-00", "image-49"]);

    let mut lookup = async |name: &[u8]| {
        let what = diropargs3 { dir: root.clone(), name: filename3::from(name.to_vec()) };
        client.lookup(&nfs3_types::nfs3::LOOKUP3args { what }).await.unwrap()
    };
    assert!(matches!(lookup(b"..").await, Nfs3Result::Ok(found) if found.object == root));
    assert!(matches!(lookup(b"../etc").await, Nfs3Result::Err((nfsstat3::NFS3ERR_INVAL, _))));
    assert!(matches!(lookup(b"image-77").await, Nfs3Result::Err((nfsstat3::NFS3ERR_NOENT, _))));
}

#[tokio::test]
async fn libnfs_lists_the_export() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("image"), b"backup").unwrap();
    std::fs::create_dir(directory.path().join("vm-7")).unwrap();
    let server = serve(directory.path()).await;
    let url = format!("nfs://127.0.0.1/backups?version=3&nfsport={0}&mountport={0}", server.port());
    let output = match tokio::process::Command::new("nfs-ls").arg(&url).kill_on_drop(true).output().await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: nfs-ls (Debian: libnfs-utils) is not installed");
            return;
        }
        output => output.unwrap(),
    };
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}{listed}", String::from_utf8_lossy(&output.stderr));
    assert!(listed.lines().any(|line| line.starts_with('-') && line.contains(" 6 image")), "{listed}");
    assert!(listed.lines().any(|line| line.starts_with('d') && line.ends_with("vm-7")), "{listed}");
}

#[tokio::test]
async fn nfs_denies_unknown_and_refused_exports() {
    let directory = TempDir::new().unwrap();
    let server = serve(directory.path()).await;
    let refused = |answer| matches!(answer, Err(MountError::Denied(mountstat3::MNT3ERR_ACCES)));
    assert!(mount(server.port(), "/backups").await.is_ok());
    assert!(refused(mount(server.port(), "/other").await));
    server.set_behaviour(Behaviour::RefuseExport("/backups".into()));
    assert!(refused(mount(server.port(), "/backups").await));
    assert!(client(server.port()).await.null().await.is_ok(), "only that export is refused");
}

#[tokio::test]
async fn nfs_silent_server_accepts_and_never_answers() {
    let directory = TempDir::new().unwrap();
    let server = serve(directory.path()).await;
    server.set_behaviour(Behaviour::Silent);
    let mut client = client(server.port()).await;
    assert!(tokio::time::timeout(SILENT_AFTER, client.null()).await.is_err());
}

#[tokio::test]
async fn nfs_rejects_version_and_credential_by_rpc() {
    let directory = TempDir::new().unwrap();
    let server = serve(directory.path()).await;
    server.set_behaviour(Behaviour::VersionMismatch { low: 4, high: 4 });
    let error = client(server.port()).await.null().await.unwrap_err();
    assert!(matches!(error, RpcError::ProgMismatch { low: 4, high: 4 }), "{error:?}");
    server.set_behaviour(Behaviour::AuthError);
    let error = client(server.port()).await.null().await.unwrap_err();
    assert!(matches!(error, RpcError::Auth(auth_stat::AUTH_TOOWEAK)), "{error:?}");
}

#[tokio::test]
async fn nfs_sends_garbage_and_broken_records() {
    let directory = TempDir::new().unwrap();
    let server = serve(directory.path()).await;

    server.set_behaviour(Behaviour::Garbage);
    let error = client(server.port()).await.null().await.unwrap_err();
    assert!(matches!(error, RpcError::Xdr(_)), "{error:?}");

    for behaviour in [Behaviour::EofMidRecord, Behaviour::CloseAtOnce] {
        server.set_behaviour(behaviour.clone());
        let error = client(server.port()).await.null().await.unwrap_err();
        assert!(matches!(error, RpcError::Io(_)), "{behaviour:?}: {error:?}");
    }

    server.set_behaviour(Behaviour::HugeRecord);
    let mut stream = connect(server.port()).await.unwrap().0;
    stream.write_all(&null_call()).await.unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), u32::MAX, "the last fragment, of 2 GiB less one byte");
}

/// NULL of NFS version 3, as bytes (RFC 5531 §9).
fn null_call() -> Vec<u8> {
    let words = [0x8000_0028_u32, 7, 0, 2, nfs3_types::nfs3::PROGRAM, 3, 0, 0, 0, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[tokio::test]
async fn nfs_stale_handle_recovers_by_remounting() {
    let directory = TempDir::new().unwrap();
    let server = serve(directory.path()).await;
    let port = server.port();
    let root = mount(port, "/backups").await.unwrap();

    server.set_behaviour(Behaviour::StaleHandle);
    assert!(matches!(fsstat(port, &root).await, Err(nfsstat3::NFS3ERR_STALE)));
    let remounted = mount(port, "/backups").await.unwrap();
    assert!(matches!(fsstat(port, &remounted).await, Err(nfsstat3::NFS3ERR_STALE)));

    server.set_behaviour(Behaviour::Healthy);
    assert!(fsstat(port, &root).await.is_ok());
    server.invalidate_handles();
    assert!(matches!(fsstat(port, &root).await, Err(nfsstat3::NFS3ERR_STALE)));
    let remounted = mount(port, "/backups").await.unwrap();
    assert!(fsstat(port, &remounted).await.is_ok());

    drop(directory);
    assert!(matches!(fsstat(port, &remounted).await, Err(nfsstat3::NFS3ERR_STALE)), "the directory was removed");
}

#[tokio::test]
async fn nfs_reads_fragments_and_limits_record_size() {
    let directory = TempDir::new().unwrap();
    let server = serve(directory.path()).await;
    let whole = null_call();
    let mut stream = connect(server.port()).await.unwrap().0;
    stream.write_all(&[&[0, 0, 0, 4], &whole[4..8], &[0x80, 0, 0, 36], &whole[8..]].concat()).await.unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), 0x8000_0018);
    assert_eq!(stream.read_u32().await.unwrap(), 7, "the transaction id of the call");

    let mut stream = connect(server.port()).await.unwrap().0;
    stream.write_all(&[0xff, 0xff, 0xff, 0xff]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn nfs_server_refuses_after_stop_and_restarts_on_its_port() {
    let directory = TempDir::new().unwrap();
    let server = serve(directory.path()).await;
    let port = server.port();
    let mut open = client(port).await;
    open.null().await.unwrap();

    server.stop().await;
    assert_eq!(connect(port).await.err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
    assert!(open.null().await.is_err(), "connections end with the server");

    let export = NfsExportFixture { path: "/backups".into(), directory: directory.path().to_owned() };
    let server = NfsServer::start_on(port, vec![export]).await.unwrap();
    let root = mount(port, "/backups").await.unwrap();
    assert!(client(port).await.fsinfo(&FSINFO3args { fsroot: root }).await.is_ok());

    drop(server);
    let refused = async { while connect(port).await.is_ok() {} };
    tokio::time::timeout(SILENT_AFTER, refused).await.expect("a dropped server stops listening");
}

#[tokio::test]
async fn nfs_cannot_export_a_missing_directory() {
    let export = NfsExportFixture { path: "/backups".into(), directory: "/nonexistent/directory".into() };
    let error = NfsServer::start(vec![export]).await.err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::NotFound));
}
