//! Failed starts: the agent says what is wrong and what to do, and leaves all files unchanged.

use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::report::{assert_contains, assert_offline};
use crate::storage::{nfs, nfs_target};
use crate::workspace::Workspace;

/// The number of the wrong line in a configuration.
const LINE: usize = 3;

/// Starts with a configuration whose third line is wrong, and asserts that the error has its position and these words.
async fn assert_refused(line: &str, words: &[&str]) {
    let workspace = Workspace::new();
    let section = if line.starts_with('[') { "" } else { "[probe]" };
    workspace.write_config(&format!("# The agent of this node.\n{section}\n{line}\n"));
    let stderr = Daemon::fails_to_start(&workspace).await;
    assert_contains(&stderr, words);
    assert_contains(&stderr, &[&format!("{}:{LINE}: ", workspace.config().display())]);
    assert!(!workspace.registry().exists(), "no registry was created");
}

#[tokio::test]
async fn start_fails_when_key_is_unknown() {
    assert_refused("deadlin = \"2s\"", &["deadlin", "expected", "deadline"]).await;
    assert_refused("[mount]", &["mount", "expected", "mounts"]).await;
}

#[tokio::test]
async fn start_fails_when_value_is_invalid() {
    assert_refused("failures_before_offline = \"two\"", &["failures_before_offline", "string", "u32"]).await;
    assert_refused("deadline = \"2\"", &["[probe] deadline"]).await;
    assert_refused("deadline = \"1h\"", &["[probe] deadline", "expected"]).await;
    assert_refused("nearly_full_percent = 101.0", &["[probe] nearly_full_percent", "expected 0 to 100"]).await;
}

#[tokio::test]
async fn start_fails_when_configuration_is_not_toml() {
    assert_refused("nfs_interval = ", &["nfs_interval"]).await;
}

#[tokio::test]
async fn start_fails_when_public_address_has_no_authentication() {
    let workspace = Workspace::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8781"] {
        workspace.configure(&format!("[api]\nlisten = [\"{address}\"]"));
        let stderr = Daemon::fails_to_start(&workspace).await;
        let words = ["[api] listen", address, "auth = \"none\"", "allow_unauthenticated_remote", "config.toml:"];
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
    }
}

#[tokio::test]
async fn start_fails_when_configuration_is_missing() {
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.config()).expect("removed");
    let stderr = Daemon::fails_to_start(&workspace).await;
    assert!(stderr.contains(workspace.config().to_str().expect("text")), "{stderr}");
}

#[tokio::test]
async fn start_fails_when_port_is_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("an address");
    let workspace = Workspace::new();
    workspace.configure(&format!("[api]\nlisten = [\"{address}\"]"));
    let stderr = Daemon::fails_to_start(&workspace).await;
    assert!(stderr.contains(&format!("{address} is in use")) && stderr.contains("[api] listen"), "{stderr}");
}

#[tokio::test]
async fn start_fails_when_registry_is_in_use() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    daemon.create(nfs_target("/one")).await;
    let stderr = Daemon::fails_to_start(&workspace).await;
    assert!(stderr.contains("registry.db") && stderr.contains("another agent"), "{stderr}");
    assert_eq!(daemon.targets().await.len(), 1);
    let answer = daemon.get("/healthz").await;
    assert_eq!(answer["status"], "ok");
}

#[tokio::test]
async fn start_fails_when_socket_path_is_a_file() {
    let workspace = Workspace::new();
    workspace.write("api.sock", "mine");
    let stderr = Daemon::fails_to_start(&workspace).await;
    assert!(stderr.contains("api.sock") && stderr.contains("is not a socket"), "{stderr}");
    assert_eq!(std::fs::read(workspace.path("api.sock")).expect("read"), b"mine");
}

#[tokio::test]
async fn start_fails_when_socket_is_in_use() {
    let workspace = Workspace::new();
    let _other = StdUnixListener::bind(workspace.path("api.sock")).expect("bound");
    let stderr = Daemon::fails_to_start(&workspace).await;
    assert!(stderr.contains("api.sock is in use"), "{stderr}");
    std::os::unix::net::UnixStream::connect(workspace.path("api.sock")).expect("the other program still listens");
}

#[tokio::test]
async fn start_fails_when_registry_is_corrupt() {
    for content in [vec![0xa5; 8192], b"SQLite format 3\0 and then something else".repeat(40), Vec::new()] {
        let workspace = Workspace::new();
        std::fs::write(workspace.registry(), &content).expect("written");
        let stderr = Daemon::fails_to_start(&workspace).await;
        let words = ["registry", "registry.db", "left unchanged", "restore it from a backup"];
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
        assert_eq!(std::fs::read(workspace.registry()).expect("read"), content);
    }
}

#[tokio::test]
async fn start_fails_when_registry_schema_is_newer() {
    let workspace = Workspace::new();
    let mut daemon = Daemon::start(&workspace).await;
    daemon.create(nfs_target("/one")).await;
    daemon.end(nix::sys::signal::Signal::SIGTERM).await;
    let newer = Connection::open(workspace.registry()).expect("opened");
    newer.pragma_update(None, "user_version", 99).expect("changed");
    newer.close().expect("closed");
    let before = read_all(&workspace.directory());
    let stderr = Daemon::fails_to_start(&workspace).await;
    assert!(stderr.contains("schema 99") && stderr.contains("install the agent version"), "{stderr}");
    assert_eq!(read_all(&workspace.directory()), before);
}

#[tokio::test]
async fn start_fails_when_registry_is_not_writable() {
    let workspace = Workspace::new();
    // Not even root can write there: one parent is a file, and the other does not exist.
    for path in [workspace.config().join("registry.db"), workspace.path("missing/too/registry.db")] {
        workspace.configure(&format!("[registry]\nurl = \"sqlite://{}\"", path.display()));
        let stderr = Daemon::fails_to_start(&workspace).await;
        let words = [path.to_str().expect("text"), "cannot be opened for writing"];
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
    }
}

#[tokio::test]
async fn unwritable_mount_root_is_a_finding_of_each_target() {
    let (_nfs, workspace) = nfs().await;
    let root = workspace.config().join("mounts");
    workspace.configure(&format!("[mounts]\nmode = \"kernel\"\nroot = \"{}\"", root.display()));
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let report = daemon.check(&id).await;
    let message = assert_offline(&report, "mount_point_unusable");
    assert!(message.contains(root.to_str().expect("text")), "{message}");
}

/// The path and content of every file in a directory.
fn read_all(directory: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect();
    files.sort();
    files
}
