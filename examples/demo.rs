//! The demo: the agent, with an NFS server and an S3 server in the same process.
//!
//! It needs a Rust toolchain and a C compiler, and no privileges, because it verifies targets over the wire
//! (`mode = "none"`). One NFS target is healthy, one bucket is healthy and immutable, and one NFS
//! target is broken on purpose. Configuration, registry, probes and API are those of the daemon.

#![allow(clippy::disallowed_methods, reason = "a temporary directory on a local file system")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use targetwatch::agent::{Agent, TargetView, View};
use targetwatch::api::{Listeners, wire};
use targetwatch::cli::render::status_table;
use targetwatch::cli::running_agent::{RunningAgent, start_workers};
use targetwatch::cli::terminal::{self, OutputStyle};
use targetwatch::config;
use targetwatch::model::Caller;
use targetwatch::model::report::{KindFacts, LockProofState};
use targetwatch::model::settings::Listen;
use targetwatch::registry;
use targetwatch::sys::worker;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use support::nfs_server::{NfsExportFixture, NfsServer};
use support::s3_server::{
    BucketFixture, BucketUsageFixture, ObjectLockFixture, RetentionFixture, RetentionMode, S3Fixture, S3Server,
};

/// Address of the API if no other process uses it.
const ADDRESS: &str = "127.0.0.1:8781";

/// Address of the API otherwise. The system chooses the port.
const ANY_PORT: &str = "127.0.0.1:0";

/// Number of targets.
const TARGETS: usize = 3;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == worker::ARGUMENT) {
        return worker::child::main();
    }
    match targetwatch::cli::runtime::block_on(run()).and_then(|outcome| outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {}", terminal::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let backups = directory.path().join("backups");
    std::fs::create_dir(&backups)?;
    let nfs = NfsServer::start(vec![NfsExportFixture { path: "/backups".to_owned(), directory: backups }]).await?;
    let (access_key_id, secret_access_key) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    std::fs::write(directory.path().join("id"), &access_key_id)?;
    let secret = directory.path().join("secret");
    std::fs::write(&secret, &secret_access_key)?;
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let s3 = S3Server::start(S3Fixture { access_key_id, secret_access_key, buckets: vec![locked_bucket()] }).await?;

    let listeners = listen().await?;
    let address = listeners.addresses().into_iter().next().context("the API has no address")?;
    let text = configuration(directory.path(), nfs.port(), &s3.endpoint());
    let settings = config::parse(&text, Path::new("the demo's configuration"))?;
    let registry = registry::open(&settings.registry_url)?;
    let running =
        RunningAgent::start(&settings, registry, listeners, None, start_workers(), &Handle::current()).await?;
    running.agent.declare_targets(&settings.declared).await;

    println!("An NFS server, an S3 server and the agent run in this process. Verdicts as they arrive:\n");
    show_until_ready(&running.agent).await?;
    let view = running.agent.view();
    let broken = view.targets.last().context("the agent has no target")?.target.id;
    println!("\nTry:\n");
    println!("  curl -s http://{address}/backup_targets");
    println!("  curl -s http://{address}/backup_targets/{broken}/checks");
    println!("  curl -s -X POST http://{address}/v1/any-project/backup_targets/{broken}/check");
    println!("\nIn a browser: http://{address}/ui");
    println!("\nPress Ctrl-C to stop.");
    std::io::stdout().flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    running.stop().await?;
    nfs.stop().await;
    s3.stop().await;
    Ok(())
}

async fn listen() -> anyhow::Result<Listeners> {
    if let Ok(listeners) = Listeners::bind(&[Listen::Tcp(ADDRESS.parse()?)], None).await {
        return Ok(listeners);
    }
    Ok(Listeners::bind(&[Listen::Tcp(ANY_PORT.parse()?)], None).await?)
}

fn locked_bucket() -> BucketFixture {
    let default_retention = Some(RetentionFixture { mode: RetentionMode::Compliance, days: 30 });
    let usage = BucketUsageFixture { used_bytes: 12 << 30, object_count: 3072, quota_bytes: Some(50 << 30) };
    BucketFixture {
        name: "locked-backups".to_owned(),
        versioning: true,
        object_lock: Some(ObjectLockFixture { default_retention, ..ObjectLockFixture::default() }),
        usage: Some(usage),
        page_max: None,
    }
}

fn configuration(directory: &Path, nfs_port: u16, s3_endpoint: &str) -> String {
    let directory = directory.display();
    format!(
        r#"
        [registry]
        url = "sqlite://{directory}/registry.db"
        [mounts]
        root = "{directory}/mounts"
        mode = "none"
        nfs_options = "nfsvers=3,port={nfs_port},mountport={nfs_port}"
        [[s3.credentials]]
        location = "*"
        access_key_id_file = "{directory}/id"
        secret_access_key_file = "{directory}/secret"
        [s3.canary]
        retention = "5s"
        [[target]]
        type = "nfs"
        filesystem_export = "127.0.0.1:/backups"
        btt_name = "nightly"
        is_default = true
        [[target]]
        type = "s3"
        s3_endpoint_url = "{s3_endpoint}"
        s3_bucket = "locked-backups"
        immutable = true
        btt_name = "immutable"
        [[target]]
        type = "nfs"
        filesystem_export = "127.0.0.1:/not-exported"
        btt_name = "broken"
        "#
    )
}

/// Prints the table each time another target has its first verdict. Returns when all have one, and the lock is proved.
async fn show_until_ready(agent: &Agent) -> anyhow::Result<()> {
    let mut views = agent.watch_view();
    let mut shown = 0;
    while shown < TARGETS {
        let view = views.borrow_and_update().clone();
        let has_verdict = |target: &&Arc<TargetView>| {
            target.report.as_ref().is_some_and(|report| match &report.facts {
                Some(KindFacts::S3(bucket)) => bucket.lock_proof != LockProofState::Pending,
                _ => true,
            })
        };
        let checked = view.targets.iter().filter(has_verdict).count();
        if checked > shown {
            shown = checked;
            print_table(&view);
        } else {
            views.changed().await.context("the agent has ended")?;
        }
    }
    Ok(())
}

fn print_table(view: &View) {
    let list = wire::TargetDetailList::seen_by(&Caller::local(), view);
    println!("{}", status_table(&list, OutputStyle::of_stdout(), Timestamp::now()));
}
