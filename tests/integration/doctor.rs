//! `targetwatch doctor` and `targetwatch config check`: what they find, and that they change nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::Daemon;
use crate::storage::nfs_target;
use crate::workspace::{CommandOutput, SECRET_ACCESS_KEY, Workspace, set_mode};

const VALID: i32 = 0;
const WARNING: i32 = 1;
const FAILED: i32 = 2;
const UNKNOWN: i32 = 3;

/// Every check, in the order of the output.
const CHECKS: [&str; 13] = [
    "configuration",
    "files",
    "registry",
    "mount_helper",
    "rpcbind",
    "mount_root",
    "propagation",
    "capabilities",
    "clock",
    "names",
    "keystone",
    "key_manager",
    "etcd",
];

async fn config_check(workspace: &Workspace) -> CommandOutput {
    workspace.run(&["config", "check", workspace.config().to_str().expect("text")]).await
}

async fn doctor(workspace: &Workspace) -> Value {
    let output = workspace.run(&["doctor", "--json", "--config", workspace.config().to_str().expect("text")]).await;
    let checks = output.json()["checks"].take();
    let worst = |outcome: &str| checks.as_array().expect("a list").iter().any(|check| check["outcome"] == outcome);
    let expected = [("failed", FAILED), ("unknown", UNKNOWN), ("warning", WARNING)];
    let expected = expected.iter().find(|(outcome, _)| worst(outcome)).map_or(VALID, |(_, code)| *code);
    assert_eq!((output.code, output.stderr.as_str()), (expected, ""), "{checks:#}");
    checks
}

/// The outcome of a check, and its text.
fn result<'a>(checks: &'a Value, name: &str) -> (&'a str, String) {
    let check = checks.as_array().expect("a list").iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no {name} in {checks:#}"));
    (check["outcome"].as_str().expect("text"), check.to_string())
}

#[track_caller]
fn assert_result(checks: &Value, name: &str, expected: &str, words: &[&str]) {
    let (outcome, text) = result(checks, name);
    assert_eq!(outcome, expected, "{name}: {text}");
    assert!(words.iter().all(|word| text.contains(word)), "{name}: {words:?} not in {text}");
}

/// The names of all files.
fn files(workspace: &Workspace) -> BTreeSet<PathBuf> {
    std::fs::read_dir(workspace.directory().path())
        .expect("read")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[tokio::test]
async fn config_check_passes_when_agent_would_start() {
    let workspace = Workspace::new();
    let before = files(&workspace);
    let checked = config_check(&workspace).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (VALID, ""), "{checked:?}");
    assert!(checked.stdout.contains(workspace.config().to_str().expect("text")), "{checked:?}");
    assert!(checked.stdout.ends_with("no problem found\n"), "{checked:?}");
    assert_eq!(files(&workspace), before, "nothing was created");
}

#[tokio::test]
async fn config_check_finds_what_a_start_refuses() {
    for (line, words) in [
        ("deadlin = \"2s\"", &["config.toml:3: ", "deadlin", "deadline"][..]),
        ("deadline = \"1h\"", &["config.toml:3: ", "[probe] deadline", "expected"]),
        ("deadline = ", &["config.toml:3: "]),
        ("deadline = \"2s\"\n[api]\nauth = \"token\"", &["[api.token] file", "missing"]),
    ] {
        let workspace = Workspace::new();
        workspace.write_config(&format!("# The agent of this node.\n[probe]\n{line}\n"));
        let checked = config_check(&workspace).await;
        assert_eq!(checked.code, FAILED, "{checked:?}");
        assert!(words.iter().all(|word| checked.stdout.contains(word)), "{words:?}: {checked:?}");
        let refused = Daemon::fails_to_start(&workspace).await;
        let (_, problem) = checked.stdout.split_once("configuration ").expect("a problem");
        let problem = problem.trim_start().lines().next().expect("a line");
        assert!(refused.contains(problem), "{problem}\n{refused}");
    }
    let workspace = Workspace::new();
    let missing = workspace.run(&["config", "check", "/nonexistent/config.toml"]).await;
    assert!(missing.code == FAILED && missing.stdout.contains("No such file"), "{missing:?}");
}

#[tokio::test]
async fn config_check_reads_the_files_that_the_configuration_names() {
    let workspace = Workspace::new();
    let token = workspace.path("token");
    workspace.configure(&format!("[api]\nauth = \"token\"\ntoken.file = \"{}\"", token.display()));
    let secret = "0123456789abcdef-in-no-output";
    for (content, mode, code, words) in [
        (None, 0, FAILED, "[api.token] file: "),
        (Some("short"), 0o600, FAILED, "contains no usable secret"),
        (Some(secret), 0o600, VALID, "3 files"),
        (Some(secret), 0o644, WARNING, "others may read"),
        (Some(secret), 0o666, FAILED, "others may change it: chmod 0600"),
        (Some(secret), 0o600, VALID, "3 files"),
    ] {
        if let Some(content) = content {
            set_mode(&workspace.write("token", content), mode);
        }
        let checked = config_check(&workspace).await;
        assert_eq!(checked.code, code, "{content:?} {mode:o}: {checked:?}");
        assert!(checked.stdout.contains(words) && !checked.stdout.contains(secret), "{checked:?}");
    }
    // Every problem is reported once, whatever the others are.
    workspace.write("token", "short");
    std::fs::remove_file(workspace.path("id")).expect("removed");
    let both = config_check(&workspace).await;
    assert!(both.stdout.contains("no usable secret") && both.stdout.ends_with("problems: 2 failed\n"), "{both:?}");

    workspace.write("token", secret);
    workspace.write("id", "an id");
    set_mode(&token, 0o600);
    set_mode(&workspace.path("secret"), 0o644);
    let exposed = config_check(&workspace).await;
    assert!(exposed.code == WARNING && exposed.stdout.contains("[[s3.credentials]]"), "{exposed:?}");
    assert!(!exposed.stdout.contains(SECRET_ACCESS_KEY), "{exposed:?}");
}

#[tokio::test]
async fn credential_of_a_stopped_unit_is_unknown() {
    let workspace = Workspace::new();
    workspace.configure("[metrics]\ntoken_file = \"credential:metrics.token\"");
    let checked = config_check(&workspace).await;
    assert!(checked.code == UNKNOWN && checked.stdout.contains("LoadCredential="), "{checked:?}");
}

#[tokio::test]
async fn doctor_creates_nothing_when_agent_never_ran() {
    let workspace = Workspace::new();
    let before = files(&workspace);
    let checks = doctor(&workspace).await;
    let names: Vec<&str> =
        checks.as_array().expect("a list").iter().map(|check| check["name"].as_str().expect("text")).collect();
    assert_eq!(names, CHECKS);
    assert_result(&checks, "configuration", "passed", &["config.toml"]);
    assert_result(&checks, "files", "passed", &["2 files"]);
    assert_result(&checks, "registry", "passed", &["registry.db does not exist"]);
    assert_result(&checks, "mount_helper", "skipped", &["mode = \\\"none\\\""]);
    assert_result(&checks, "names", "skipped", &[]);
    assert_result(&checks, "keystone", "skipped", &[]);
    assert_result(&checks, "key_manager", "skipped", &[]);
    assert_result(&checks, "etcd", "skipped", &[]);
    assert_eq!(files(&workspace), before, "nothing was created");
}

#[tokio::test]
async fn doctor_skips_what_needs_a_valid_configuration() {
    let workspace = Workspace::new();
    workspace.write_config("[probe]\ndeadlin = 1\n");
    let checks = doctor(&workspace).await;
    assert_result(&checks, "configuration", "failed", &["deadlin"]);
    for name in &CHECKS[1..] {
        assert_result(&checks, name, "skipped", &["needs a valid configuration"]);
    }
}

#[tokio::test]
async fn doctor_names_the_running_agent_and_does_not_disturb_it() {
    let workspace = Workspace::new();
    let (daemon, _) = Daemon::with_target(&workspace, nfs_target("/one")).await;
    let process = format!("process {}", daemon.pid());
    for _ in 0..3 {
        let checks = doctor(&workspace).await;
        assert_result(&checks, "registry", "passed", &["1 target and 1 target type", &format!("{process} uses it")]);
        assert_result(&checks, "capabilities", result(&checks, "capabilities").0, &[&process]);
    }
    daemon.create(nfs_target("/two")).await;
    assert_result(&doctor(&workspace).await, "registry", "passed", &["2 targets"]);
    let log = daemon.log();
    let is_disturbed = |line: &str| line.contains("WARN") && !line.contains("connection_refused");
    assert!(!log.lines().any(is_disturbed), "{log}");
}

#[tokio::test]
async fn doctor_reports_a_damaged_registry() {
    let workspace = Workspace::new();
    std::fs::write(workspace.registry(), [0xa5; 8192]).expect("written");
    let checks = doctor(&workspace).await;
    assert_result(&checks, "registry", "failed", &["not an SQLite database", "restore it from a backup"]);
    assert_eq!(std::fs::read(workspace.registry()).expect("read"), [0xa5; 8192]);
}

#[tokio::test]
async fn doctor_names_the_target_whose_server_is_not_resolved() {
    let mut workspace = Workspace::new();
    workspace.resolve_by_hosts_file_only();
    workspace.add_host("known.example");
    workspace.configure(
        "[[target]]\ntype = \"nfs\"\nfilesystem_export = \"known.example:/a\"
         [[target]]\ntype = \"nfs\"\nfilesystem_export = \"no-such-name.example:/b\"
         [[target]]\ntype = \"nfs\"\nfilesystem_export = \"192.0.2.1:/c\"
         [[target]]\ntype = \"s3\"\ns3_endpoint_url = \"https://no-such-service.example\"\ns3_bucket = \"bucket\"",
    );
    let checks = doctor(&workspace).await;
    assert_result(
        &checks,
        "names",
        "failed",
        &["3 names", "no-such-name.example:/b: ", "no-such-service.example has no address", "/etc/hosts"],
    );
    assert!(!result(&checks, "names").1.contains("known.example:/a"), "{checks:#}");
}

#[tokio::test]
async fn doctor_reports_a_host_on_which_nothing_can_be_mounted() {
    let mut workspace = Workspace::new();
    workspace.hide_mount_helper();
    workspace.configure("[mounts]\nmode = \"kernel\"\nnfs_options = \"nfsvers=4.2\"");
    let checks = doctor(&workspace).await;
    assert_result(&checks, "mount_helper", "failed", &["/sbin/mount.nfs is not installed", "nfs-common"]);
    assert_result(&checks, "rpcbind", "skipped", &["nolock"]);
    // The command runs in a user namespace and in a mount namespace of its own.
    assert_result(&checks, "propagation", "failed", &["mount namespace", "shared"]);
    assert_result(&checks, "capabilities", "failed", &["root of a user namespace", "mode = \\\"none\\\""]);
}

#[tokio::test]
async fn doctor_reports_a_mount_root_that_others_can_redirect() {
    let workspace = Workspace::new();
    workspace.configure("[mounts]\nmode = \"kernel\"\nnfs_options = \"nfsvers=3\"");
    let checks = doctor(&workspace).await;
    assert_result(&checks, "mount_root", "passed", &["the agent creates it"]);
    // Whether rpcbind runs depends on the host.
    assert_result(&checks, "rpcbind", result(&checks, "rpcbind").0, &["127.0.0.1:111", "[mounts] nfs_options"]);
    set_mode(workspace.directory().path(), 0o777);
    let checks = doctor(&workspace).await;
    assert_result(&checks, "mount_root", "failed", &["has mode 0777", "chmod go-w"]);
    set_mode(workspace.directory().path(), 0o700);
}

#[tokio::test]
async fn doctor_ends_when_a_named_file_is_a_pipe() {
    let workspace = Workspace::new();
    let pipe = workspace.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    workspace.configure(&format!("[metrics]\ntoken_file = \"{}\"", pipe.display()));
    let began = Instant::now();
    assert_result(&doctor(&workspace).await, "files", "failed", &["not a regular file"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
