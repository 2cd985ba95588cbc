//! The registry's file: complete after a stop, refused when acknowledged changes are missing, backed up and restored.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use rusqlite::{Connection, OpenFlags};
use tokio::process::Command;

use crate::daemon::{Daemon, eventually};
use crate::report::assert_contains;
use crate::storage::nfs_target;
use crate::workspace::{CommandOutput, Workspace};

impl Workspace {
    fn beside_registry(&self, suffix: &str) -> PathBuf {
        self.path(&format!("registry.db{suffix}"))
    }

    /// Runs `targetwatch registry` with the configuration.
    async fn run_registry(&self, arguments: &[&str]) -> CommandOutput {
        let config = self.config();
        let more = ["--config", config.to_str().expect("text")];
        self.run(&[&["registry"], arguments, &more].concat()).await
    }
}

/// The exports of all targets.
async fn exports(daemon: &Daemon) -> Vec<String> {
    let targets = daemon.targets().await;
    targets.iter().map(|target| target["filesystem_export"].as_str().expect("text").to_owned()).collect()
}

/// Creates `/one`, and then `/two` and `/three`, which are only in the registry's log, and kills the agent.
async fn killed(workspace: &Workspace) {
    let mut daemon = Daemon::start(workspace).await;
    daemon.create(nfs_target("/one")).await;
    let log_is_copied = async || (fs::metadata(workspace.beside_registry("-wal")).ok()?.len() == 0).then_some(());
    eventually("the log is copied into the file", log_is_copied).await;
    fs::copy(workspace.registry(), workspace.path("old.db")).expect("copied");
    // A reader prevents that later changes are copied into the file.
    let reader = Connection::open(workspace.registry()).expect("opened");
    reader.execute_batch("BEGIN; SELECT count(*) FROM target").expect("read");
    daemon.create(nfs_target("/two")).await;
    daemon.create(nfs_target("/three")).await;
    daemon.kill().await;
    // Closing copies the log into the file.
    reader.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("set");
    drop(reader);
}

#[tokio::test]
async fn copy_of_the_file_alone_is_complete_after_a_stop() {
    let workspace = Workspace::new();
    let mut daemon = Daemon::start(&workspace).await;
    for path in ["/one", "/two", "/three"] {
        daemon.create(nfs_target(path)).await;
    }
    let before = exports(&daemon).await;
    daemon.stop().await;
    assert!(!workspace.beside_registry("-wal").exists(), "a log is left");
    let elsewhere = Workspace::new();
    fs::copy(workspace.registry(), elsewhere.registry()).expect("copied");
    assert_eq!(exports(&Daemon::start(&elsewhere).await).await, before);
}

#[tokio::test]
async fn copy_of_the_file_alone_is_complete_soon_after_a_change() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    daemon.create(nfs_target("/one")).await;
    let copy_is_complete = async || {
        let elsewhere = Workspace::new();
        fs::copy(workspace.registry(), elsewhere.registry()).expect("copied");
        let copied = Connection::open(elsewhere.registry()).expect("opened");
        let count = copied.query_row("SELECT count(*) FROM target", [], |row| row.get::<_, u32>(0));
        (count == Ok(1)).then_some(())
    };
    eventually("the target is in the file", copy_is_complete).await;
}

#[tokio::test]
async fn lost_changes_are_refused_with_what_to_do() {
    type Damage = fn(&Workspace);
    let damages: [(Damage, &str); 4] = [
        (
            |workspace| fs::remove_file(workspace.beside_registry("-wal")).expect("removed"),
            "it contains change 1 with 1 target",
        ),
        (
            |workspace| {
                let log = fs::OpenOptions::new().write(true).open(workspace.beside_registry("-wal")).expect("opened");
                let length = log.metadata().expect("its length").len();
                log.set_len(length / 2).expect("cut");
            },
            "it contains change",
        ),
        (
            |workspace| {
                fs::remove_file(workspace.beside_registry("-wal")).expect("removed");
                fs::copy(workspace.path("old.db"), workspace.registry()).expect("an old copy");
            },
            "it contains change 1 with 1 target",
        ),
        (
            |workspace| {
                fs::remove_file(workspace.beside_registry("-wal")).expect("removed");
                fs::remove_file(workspace.registry()).expect("removed");
            },
            "the file is missing",
        ),
    ];
    for (damage, found) in damages {
        let workspace = Workspace::new();
        killed(&workspace).await;
        damage(&workspace);
        let stderr = Daemon::fails_to_start(&workspace).await;
        let words = [
            "registry.db",
            found,
            "expected change 3",
            "with 3 targets",
            "registry restore FILE",
            "registry accept-loss",
        ];
        assert_contains(&stderr, &words);

        let accepted = workspace.run_registry(&["accept-loss"]).await;
        assert_eq!(accepted.code, 0, "{accepted:?}");
        assert_contains(&accepted.stdout, &["accepted", found, "registry.db contains"]);
        assert!(!accepted.stdout.contains("accept-loss"), "it is done: {accepted:?}");
        let daemon = Daemon::start(&workspace).await;
        assert!(exports(&daemon).await.len() < 3);
        daemon.create(nfs_target("/four")).await;
    }
}

#[tokio::test]
async fn kill_at_any_moment_is_never_reported_as_a_loss() {
    let workspace = Workspace::new();
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let mut daemon = Daemon::start(&workspace).await;
        assert_contains(
            &exports(&daemon).await.join(" "),
            &acknowledged.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let creating = async {
            for n in 0.. {
                let path = format!("/round{round}/{n}");
                daemon.create(nfs_target(&path)).await;
                acknowledged.push(format!("127.0.0.1:{path}"));
            }
        };
        // Not a wait for an event: the kill must come at a random moment of a change.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(37 * (round + 1)), creating).await;
        daemon.kill().await;
    }
}

#[tokio::test]
async fn backup_under_load_is_restored() {
    let workspace = Workspace::new();
    let mut daemon = Daemon::start(&workspace).await;
    daemon.create(nfs_target("/one")).await;
    daemon.create(nfs_target("/two")).await;
    let creating = async {
        for n in 0..39 {
            daemon.create(nfs_target(&format!("/load/{n}"))).await;
        }
    };
    let backing_up = async {
        for n in 0..3 {
            let output = workspace.run_registry(&["backup", &format!("backup{n}.db")]).await;
            assert_eq!(output.code, 0, "{output:?}");
            assert!(output.stdout.contains("targets"), "{output:?}");
        }
    };
    tokio::join!(creating, backing_up);
    let again = workspace.run_registry(&["backup", "backup0.db"]).await;
    assert!(again.code == 3 && again.stderr.contains("--overwrite"), "{again:?}");
    let again = workspace.run_registry(&["backup", "backup0.db", "--overwrite"]).await;
    assert_eq!(again.code, 0, "{again:?}");
    let at_backup = exports(&daemon).await;
    daemon.create(nfs_target("/after")).await;

    let refused = workspace.run_registry(&["restore", "backup0.db"]).await;
    assert!(refused.code == 3 && refused.stderr.contains("another agent"), "{refused:?}");
    daemon.stop().await;
    let restored = workspace.run_registry(&["restore", "backup0.db"]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_contains(&restored.stdout, &["41 targets", "backup0.db", "registry.db.replaced-"]);
    let daemon = Daemon::start(&workspace).await;
    assert_eq!(exports(&daemon).await, at_backup);
    daemon.create(nfs_target("/after")).await;
}

#[tokio::test]
async fn restore_replaces_a_registry_that_does_not_open() {
    let workspace = Workspace::new();
    let mut daemon = Daemon::start(&workspace).await;
    daemon.create(nfs_target("/one")).await;
    assert_eq!(workspace.run_registry(&["backup", "backup.db"]).await.code, 0);
    daemon.end(Signal::SIGTERM).await;
    fs::write(workspace.registry(), [0xa5; 9000]).expect("written");
    Daemon::fails_to_start(&workspace).await;
    let refused = workspace.run_registry(&["restore", "config.toml"]).await;
    assert!(refused.code == 3 && refused.stderr.contains("not an SQLite database"), "{refused:?}");
    assert_eq!(workspace.run_registry(&["restore", "backup.db"]).await.code, 0);
    assert_eq!(exports(&Daemon::start(&workspace).await).await, ["127.0.0.1:/one"]);
}

#[tokio::test]
async fn read_only_file_system_acknowledges_no_change() {
    let mut workspace = Workspace::new();
    // Gives the agent its own mount namespace.
    workspace.resolve_by_hosts_file_only();
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(nfs_target("/one")).await;
    let in_namespace = async |script: &str| {
        let mut command = Command::new("nsenter");
        let pid = daemon.pid().to_string();
        command.args(["--target", &pid, "--user", "--preserve-credentials", "--mount", "sh", "-c", script]);
        let output = CommandOutput::of(command.arg(workspace.directory().path())).await;
        assert_eq!(output.code, 0, "{output:?}");
    };
    assert!(daemon.get("/node").await["agent"]["registry_problem"].is_null());
    // If the file system became read-only during this write, only a restart would end the problem.
    let registry = Connection::open_with_flags(workspace.registry(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opened");
    eventually("the result of the first probe is written", async || {
        registry.query_row("SELECT 1 FROM target_transition", [], |_| Ok(())).ok()
    })
    .await;
    drop(registry);
    in_namespace("mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"").await;
    for _ in 0..2 {
        for answer in [
            daemon.try_create(nfs_target("/two")).await,
            daemon.request("DELETE", &format!("/backup_targets/{id}"), None).await,
        ] {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert_contains(&answer.body, &["registry.db is mounted read-only", "Nothing was changed"]);
        }
    }
    let problem = daemon.get("/node").await["agent"]["registry_problem"].clone();
    assert_contains(problem.as_str().expect("a problem"), &["registry.db is mounted read-only", "dmesg"]);
    assert_eq!(exports(&daemon).await, ["127.0.0.1:/one"]);
    in_namespace("umount \"$0\"").await;
    assert!(daemon.get("/node").await["agent"]["registry_problem"].is_null());
    daemon.create(nfs_target("/two")).await;
    daemon.wait_for_log("is writable again").await;
    assert_eq!(daemon.log().matches("became read-only").count(), 1, "{}", daemon.log());
}
