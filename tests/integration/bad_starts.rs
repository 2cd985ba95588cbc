//! Starts that are refused: with what is wrong and what to do, and leaving everything as it was.

use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::daemon::Daemon;
use crate::storage::{nfs, nfs_target};
use crate::workspace::Workspace;

/// A line of a bad configuration is this one.
const LINE: usize = 3;

/// Starts with a configuration whose third line is this one, and expects its place and these words.
async fn refused_at(line: &str, words: &[&str]) {
    let workspace = Workspace::new();
    let section = if line.starts_with('[') { "" } else { "[probe]" };
    workspace.write_config(&format!("# The agent of this node.\n{section}\n{line}\n"));
    let said = Daemon::fails_to_start(&workspace).await;
    let at = format!("{}:{LINE}: ", workspace.config().display());
    for word in words.iter().chain([&at.as_str()]) {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!workspace.registry().exists(), "nothing was made");
}

#[tokio::test]
async fn start_fails_when_key_is_unknown() {
    refused_at("deadlin = \"2s\"", &["deadlin", "expected", "deadline"]).await;
    refused_at("[mount]", &["mount", "expected", "mounts"]).await;
}

#[tokio::test]
async fn start_fails_when_value_is_impossible() {
    refused_at("failures_before_offline = \"two\"", &["failures_before_offline", "string", "u32"]).await;
    refused_at("deadline = \"2\"", &["[probe] deadline"]).await;
    refused_at("deadline = \"1h\"", &["[probe] deadline", "expected"]).await;
    refused_at("nearly_full_percent = 101.0", &["[probe] nearly_full_percent", "expected 0 to 100"]).await;
}

#[tokio::test]
async fn start_fails_when_configuration_is_not_toml() {
    refused_at("nfs_interval = ", &["nfs_interval"]).await;
}

#[tokio::test]
async fn start_fails_when_public_address_has_no_authentication() {
    let workspace = Workspace::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8781"] {
        workspace.configure(&format!("[api]\nlisten = [\"{address}\"]"));
        let said = Daemon::fails_to_start(&workspace).await;
        let words = ["[api] listen", address, "auth = \"none\"", "allow_unauthenticated_remote", "config.toml:"];
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[tokio::test]
async fn start_fails_when_configuration_is_missing() {
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.config()).expect("removed");
    let said = Daemon::fails_to_start(&workspace).await;
    assert!(said.contains(workspace.config().to_str().expect("text")), "{said}");
}

#[tokio::test]
async fn start_fails_when_port_is_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("an address");
    let workspace = Workspace::new();
    workspace.configure(&format!("[api]\nlisten = [\"{address}\"]"));
    let said = Daemon::fails_to_start(&workspace).await;
    assert!(said.contains(&format!("{address} is in use")) && said.contains("[api] listen"), "{said}");
}

#[tokio::test]
async fn start_fails_when_registry_is_in_use() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    daemon.create(nfs_target("/one")).await;
    let said = Daemon::fails_to_start(&workspace).await;
    assert!(said.contains("registry.db") && said.contains("another agent"), "{said}");
    assert_eq!(daemon.targets().await.len(), 1);
    let answer = daemon.get("/healthz").await;
    assert_eq!(answer["status"], "ok");
}

#[tokio::test]
async fn start_fails_when_socket_path_is_a_file() {
    let workspace = Workspace::new();
    std::fs::write(workspace.path("api.sock"), "mine").expect("written");
    let said = Daemon::fails_to_start(&workspace).await;
    assert!(said.contains("api.sock") && said.contains("no socket"), "{said}");
    assert_eq!(std::fs::read(workspace.path("api.sock")).expect("read"), b"mine");
}

#[tokio::test]
async fn start_fails_when_socket_is_in_use() {
    let workspace = Workspace::new();
    let _theirs = StdUnixListener::bind(workspace.path("api.sock")).expect("bound");
    let said = Daemon::fails_to_start(&workspace).await;
    assert!(said.contains("api.sock is in use"), "{said}");
    std::os::unix::net::UnixStream::connect(workspace.path("api.sock")).expect("it is still theirs");
}

#[tokio::test]
async fn start_fails_when_registry_is_corrupt() {
    for noise in [vec![0xa5; 8192], b"SQLite format 3\0 and then something else".repeat(40), Vec::new()] {
        let workspace = Workspace::new();
        std::fs::write(workspace.registry(), &noise).expect("written");
        let said = Daemon::fails_to_start(&workspace).await;
        let words = ["registry", "registry.db", "left unchanged", "restore it from a backup"];
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert_eq!(std::fs::read(workspace.registry()).expect("read"), noise);
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
    let before = content(workspace.registry().parent().expect("a directory"));
    let said = Daemon::fails_to_start(&workspace).await;
    assert!(said.contains("schema 99") && said.contains("install the agent version"), "{said}");
    assert_eq!(content(workspace.registry().parent().expect("a directory")), before);
}

#[tokio::test]
async fn start_fails_when_registry_is_not_writable() {
    let workspace = Workspace::new();
    // For root, too: it is below a file, and has no directory.
    for path in [workspace.config().join("registry.db"), workspace.path("missing/too/registry.db")] {
        workspace.configure(&format!("[registry]\nurl = \"sqlite://{}\"", path.display()));
        let said = Daemon::fails_to_start(&workspace).await;
        let words = [path.to_str().expect("text"), "cannot be opened for writing"];
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[tokio::test]
async fn unwritable_mount_root_is_a_finding_of_each_target() {
    let (_nfs, workspace) = nfs().await;
    let root = workspace.config().join("mounts");
    workspace.configure(&format!("[mounts]\nmode = \"kernel\"\nroot = \"{}\"", root.display()));
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(nfs_target("/backups")).await;
    let report = daemon.check(&id).await;
    assert_eq!(
        (&report["status"], &report["reason"]),
        (&"offline".into(), &"mount_point_unusable".into()),
        "{report:#}"
    );
    let message = report["message"].as_str().expect("a text");
    assert!(message.contains(root.to_str().expect("text")), "{message}");
}

/// Every file in a directory, by name, with its content.
fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect();
    files.sort();
    files
}
