//! Storage for the agents: servers in this process, and the fields of targets on them.

use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::support::nfs_server::{NfsExportFixture, NfsServer};
use crate::support::s3_server::{
    BucketFixture, BucketUsageFixture, LockBehaviour, ObjectLockFixture, RetentionFixture, RetentionMode, S3Fixture,
    S3Server,
};
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace};

/// Used space of the bucket `measured`, in bytes.
pub const USED_BYTES: u64 = 12 << 30;
/// Quota of the bucket `measured`, in bytes.
pub const QUOTA_BYTES: u64 = 48 << 30;

/// Ports below the kernel's ephemeral range, so that a port is still free when its server restarts.
const STABLE_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// An NFS server that exports `/backups`, `/one` and `/two`, and a workspace for its client.
pub async fn nfs() -> (NfsServer, Workspace) {
    let server = loop {
        let (random, ..) = uuid::Uuid::new_v4().as_fields();
        let span = u32::from(STABLE_PORTS.end - STABLE_PORTS.start);
        let port = STABLE_PORTS.start + u16::try_from(random % span).expect("below the span");
        if let Ok(server) = NfsServer::start_on(port, exports()).await {
            break server;
        }
    };
    let workspace = Workspace::new();
    let port = server.port();
    workspace.configure(&format!("[mounts]\nnfs_options = \"nfsvers=3,port={port},mountport={port}\""));
    (server, workspace)
}

/// The exports of the NFS server: the system's directory for temporary files, under three paths.
pub fn exports() -> Vec<NfsExportFixture> {
    let export = |path: &str| NfsExportFixture { path: path.to_owned(), directory: exported_directory() };
    ["/backups", "/one", "/two"].map(export).into()
}

/// The exported directory.
pub fn exported_directory() -> std::path::PathBuf {
    std::env::temp_dir()
}

/// Size and used space of the file system at a path, in bytes.
pub fn measure(path: &Path) -> (u64, u64) {
    let counts = statvfs(path).expect("measured");
    let unit = counts.fragment_size();
    (counts.blocks() * unit, (counts.blocks() - counts.blocks_free()) * unit)
}

/// Time by which the clock of a service passes the end of a retention that began just before, with the uncertainty of
/// the clocks. It is below the difference of clocks that is a warning.
const PAST_RETENTION: Duration = Duration::from_secs(15);

/// Completes the first lock proof of an immutable target, and returns the report. The clock of the service passes the
/// end of the retention, so that the test need not wait for it.
pub async fn prove_lock(daemon: &Daemon, server: &S3Server, id: &str) -> Value {
    // The first probe also makes all attempts that the lock must refuse.
    let report = daemon.wait_for_report(id, "a first probe", |report| !report["verdict"].is_null()).await;
    assert_eq!(report["object_lock_proof"]["verdict"], "pending", "{report:#}");
    server.advance_clock(PAST_RETENTION);
    daemon.check(id).await
}

/// The fields of an NFS target.
pub fn nfs_target(path: &str) -> Value {
    json!({ "type": "nfs", "filesystem_export": format!("127.0.0.1:{path}") })
}

/// An S3 server with these buckets:
///
/// - `plain` and `versioned`,
/// - `locked` with object lock and a default retention,
/// - `not-enforced`, `default-only` and `denied`, which are the same on services with another [`LockBehaviour`],
/// - `measured`, whose usage and quota the service reports,
/// - `paged` with versions, and at most two entries on a page of a listing.
pub async fn s3() -> S3Server {
    let bucket = |name: &str| BucketFixture { name: name.to_owned(), ..BucketFixture::default() };
    let usage = BucketUsageFixture { used_bytes: USED_BYTES, object_count: 3072, quota_bytes: Some(QUOTA_BYTES) };
    let buckets = vec![
        bucket("plain"),
        BucketFixture { versioning: true, ..bucket("versioned") },
        locked_bucket("locked", LockBehaviour::Enforced),
        locked_bucket("not-enforced", LockBehaviour::NotEnforced),
        locked_bucket("default-only", LockBehaviour::DefaultRetentionOnly),
        locked_bucket("denied", LockBehaviour::ConfigurationDenied),
        BucketFixture { usage: Some(usage), ..bucket("measured") },
        BucketFixture { versioning: true, page_max: Some(2), ..bucket("paged") },
    ];
    let fixture =
        S3Fixture { access_key_id: ACCESS_KEY_ID.to_owned(), secret_access_key: SECRET_ACCESS_KEY.to_owned(), buckets };
    S3Server::start(fixture).await.expect("a server")
}

fn locked_bucket(name: &str, behaviour: LockBehaviour) -> BucketFixture {
    let default_retention = Some(RetentionFixture { mode: RetentionMode::Compliance, days: 30 });
    BucketFixture {
        name: name.to_owned(),
        versioning: true,
        object_lock: Some(ObjectLockFixture { default_retention, behaviour }),
        ..BucketFixture::default()
    }
}

/// The fields of an S3 target.
pub fn s3_target(server: &S3Server, bucket: &str) -> Value {
    json!({ "type": "s3", "s3_endpoint_url": server.endpoint(), "s3_bucket": bucket })
}

/// The same, declared immutable.
pub fn immutable_target(server: &S3Server, bucket: &str) -> Value {
    let mut target = s3_target(server, bucket);
    target["immutable"] = json!(1);
    target
}
