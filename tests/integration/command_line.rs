//! The command line, with a running agent and without one.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::daemon::Daemon;
use crate::storage::{nfs, nfs_target, s3};
use crate::workspace::Workspace;

const AVAILABLE: i32 = 0;
const WARNING: i32 = 1;
const OFFLINE: i32 = 2;
const UNKNOWN: i32 = 3;

#[tokio::test]
async fn status_exit_code_is_that_of_the_worst_target() {
    let (server, workspace) = nfs().await;
    let daemon = Daemon::start(&workspace).await;
    let none = workspace.run(&["status"]).await;
    assert_eq!(none.code, UNKNOWN, "nothing was verified: {none:?}");
    assert!(none.stdout.contains("targetwatch target create"), "{none:?}");

    let id = daemon.create(nfs_target("/backups")).await;
    daemon.check(&id).await;
    let well = workspace.run(&["status"]).await;
    assert_eq!(well.code, AVAILABLE, "{well:?}");
    let mut lines = well.stdout.lines();
    let header = lines.next().expect("a header");
    assert!(
        ["TARGET", "TYPE", "STATUS", "SINCE", "CAPACITY", "USED"].iter().all(|title| header.contains(title)),
        "{header}"
    );
    let row = lines.next().expect("a row");
    assert!(["* 127.0.0.1:/backups", "nfs", "available", " %"].iter().all(|cell| row.contains(cell)), "{row}");
    assert_eq!(well.stderr, "");

    let missing = daemon.create(nfs_target("/nowhere")).await;
    daemon.check(&missing).await;
    let offline = workspace.run(&["status"]).await;
    assert_eq!(offline.code, OFFLINE, "{offline:?}");
    assert!(offline.stdout.contains("export_denied"), "{offline:?}");
    drop(server);
}

#[tokio::test]
async fn status_exit_code_is_1_when_a_target_has_a_warning() {
    let (_nfs, workspace) = nfs().await;
    workspace.configure("[probe]\nnearly_full_percent = 0.0");
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    let warned = workspace.run(&["status"]).await;
    assert_eq!(warned.code, WARNING, "{warned:?}");
    assert!(warned.stdout.contains("nearly_full"), "{warned:?}");
    assert_eq!(workspace.run(&["check", "all"]).await.code, WARNING);
}

#[tokio::test]
async fn json_output_is_the_api_answer() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    let status = workspace.run(&["status", "--json"]).await;
    assert_eq!((status.code, status.json()), (AVAILABLE, daemon.get("/backup_targets/detail").await));
    let list = workspace.run(&["target", "list", "--json"]).await;
    assert_eq!((list.code, list.json()), (AVAILABLE, daemon.get("/backup_targets").await));
    let show = workspace.run(&["target", "show", &id, "--json"]).await;
    assert_eq!((show.code, show.json()), (AVAILABLE, daemon.report(&id).await));
    let check = workspace.run(&["check", "all", "--json"]).await;
    assert_eq!((check.code, &check.json()[0]["status"]), (AVAILABLE, &json!("available")));
}

/// An older command line must not hide new fields of a newer agent.
#[tokio::test]
async fn json_output_keeps_fields_of_a_newer_agent() {
    let workspace = Workspace::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let api = format!("http://{}", listener.local_addr().expect("an address"));
    let sent = json!({ "backup_targets": [], "next_field": { "b": 1, "a": [null] } });
    let body = sent.to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    for command in ["target list --json", "status --json"] {
        let arguments = [&["--api", &api], &command.split(' ').collect::<Vec<_>>()[..]].concat();
        assert_eq!(workspace.run(&arguments).await.json(), sent, "{command}");
    }
}

#[tokio::test]
async fn columns_are_printed_in_formats_of_openstack_clients() {
    let (_nfs, workspace) = nfs().await;
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(nfs_target("/backups")).await;
    daemon.check(&id).await;
    let run = async |line: &str| workspace.run(&line.split(' ').collect::<Vec<_>>()).await;
    let listed = json!([{ "ID": id, "Name": "127.0.0.1:/backups", "Type": "nfs", "Status": "available" }]);
    let list = run("target list -f json -c ID -c Name -c Type -c Status").await;
    assert_eq!((list.code, list.json()), (AVAILABLE, listed));
    let show = run(&format!("target show {id} -f json -c Default -c Reason")).await;
    assert_eq!((show.code, show.json()), (AVAILABLE, json!({ "Default": true, "Reason": null })));
    for (line, expected) in [
        (format!("target show {id} -f value -c status"), "available\n".to_owned()),
        (format!("target check {id} -f yaml -c id"), format!("ID: \"{id}\"\n")),
        ("status -f csv -c ID -c Type".to_owned(), format!("\"ID\",\"Type\"\n\"{id}\",\"nfs\"\n")),
        (format!("target history {id} -f value -c To"), "available\n".to_owned()),
        ("type list -f value -c Name -c Public".to_owned(), "127.0.0.1:/backups True\n".to_owned()),
        ("type show 127.0.0.1:/backups -f value -c target_id".to_owned(), format!("{id}\n")),
    ] {
        let output = run(&line).await;
        assert_eq!((output.code, output.stdout), (AVAILABLE, expected), "{line}");
    }
    let unknown = run("target list -c Nme").await;
    assert!(unknown.code == UNKNOWN && unknown.stderr.contains("Filesystem Export"), "{unknown:?}");
}

#[tokio::test]
async fn target_commands_create_show_check_modify_and_delete() {
    let (_nfs, workspace) = nfs().await;
    let daemon = Daemon::start(&workspace).await;
    let created = workspace
        .run(&["target", "create", "nfs", "127.0.0.1:/one", "--name", "nightly", "--metadata", "rack=b7"])
        .await;
    assert_eq!(created.code, AVAILABLE, "{created:?}");
    let first = daemon.targets().await.pop().expect("it is there");
    assert!(created.stdout.contains(first["id"].as_str().expect("an id")), "{created:?}");
    assert!(created.stdout.contains(first["filesystem_export_mount_path"].as_str().expect("a path")), "{created:?}");
    assert_eq!(first["backup_target_types"][0]["name"], "nightly");
    assert_eq!(first["backup_target_metadata"], json!([{ "key": "rack", "value": "b7" }]));
    assert_eq!(workspace.run(&["target", "create", "nfs", "127.0.0.1:/two"]).await.code, AVAILABLE);

    let list = workspace.run(&["target", "list"]).await;
    assert!(
        list.code == AVAILABLE && ["/one", "/two", "nightly"].iter().all(|word| list.stdout.contains(word)),
        "{list:?}"
    );
    let checked = workspace.run(&["target", "check", "nightly"]).await;
    assert_eq!(checked.code, AVAILABLE, "{checked:?}");
    assert!(["reachable", "exported", "capacity"].iter().all(|check| checked.stdout.contains(check)), "{checked:?}");
    let shown = workspace.run(&["target", "show", "127.0.0.1:/one"]).await;
    assert!(shown.code == AVAILABLE && shown.stdout.contains("available (over the wire, not mounted)"), "{shown:?}");

    assert_eq!(workspace.run(&["target", "set-default", "127.0.0.1:/two"]).await.code, AVAILABLE);
    let defaults: Vec<Value> = daemon.targets().await.iter().map(|target| target["is_default"].clone()).collect();
    assert_eq!(defaults, [json!(false), json!(true)]);
    let modified = workspace.run(&["target", "modify", "nightly", "--metadata", "rack=b8"]).await;
    assert_eq!(modified.code, AVAILABLE, "{modified:?}");
    let id = first["id"].as_str().expect("an id");
    assert_eq!(daemon.show(id).await["backup_target_metadata"], json!([{ "key": "rack", "value": "b8" }]));

    let unconfirmed = workspace.run(&["target", "delete", "nightly"]).await;
    assert_eq!(unconfirmed.code, UNKNOWN, "{unconfirmed:?}");
    assert!(unconfirmed.stderr.contains("--yes"), "{unconfirmed:?}");
    assert_eq!(daemon.targets().await.len(), 2);
    let deleted = workspace.run(&["target", "delete", "nightly", "--yes"]).await;
    assert_eq!(deleted.code, AVAILABLE, "{deleted:?}");
    assert_eq!(daemon.targets().await.len(), 1);
}

#[tokio::test]
async fn refusals_of_the_agent_are_printed_to_stderr() {
    let workspace = Workspace::new();
    let _daemon = Daemon::start(&workspace).await;
    assert_eq!(workspace.run(&["target", "create", "nfs", "127.0.0.1:/one"]).await.code, AVAILABLE);
    for (arguments, words) in [
        (&["target", "create", "nfs", "127.0.0.2:/one"][..], "127.0.0.1:/one"),
        (&["target", "create", "nfs", "nas"], "expected host:/path"),
        (&["target", "create", "s3", "--bucket", "x"], "s3_bucket"),
        (&["target", "show", "another"], "there is no backup target \"another\""),
    ] {
        let refused = workspace.run(arguments).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (UNKNOWN, ""), "{refused:?}");
        assert!(refused.stderr.starts_with("targetwatch: ") && refused.stderr.contains(words), "{refused:?}");
    }
}

#[tokio::test]
async fn target_that_is_created_with_default_becomes_the_default() {
    let workspace = Workspace::new();
    let _daemon = Daemon::start(&workspace).await;
    for arguments in [&["127.0.0.1:/one"][..], &["127.0.0.1:/two", "--default"]] {
        let created = workspace.run(&[&["target", "create", "nfs"], arguments].concat()).await;
        assert_eq!(created.code, AVAILABLE, "{created:?}");
    }
    let list = workspace.run(&["target", "list", "--json"]).await.json();
    let defaults: Vec<&Value> =
        list["backup_targets"].as_array().expect("a list").iter().map(|target| &target["is_default"]).collect();
    assert_eq!(defaults, [false, true]);
}

#[tokio::test]
async fn check_nfs_needs_no_agent() {
    let (server, workspace) = nfs().await;
    let config = workspace.config();
    let config = config.to_str().expect("text");
    let well = workspace.run(&["check", "nfs", "127.0.0.1:/backups", "--config", config]).await;
    assert_eq!(well.code, AVAILABLE, "{well:?}");
    assert!(
        ["reachable", "exported", "capacity", "available"].iter().all(|word| well.stdout.contains(word)),
        "{well:?}"
    );
    let json = workspace.run(&["check", "nfs", "127.0.0.1:/backups", "--json", "--config", config]).await.json();
    assert_eq!(json[0]["status"], "available", "{json:#}");
    let missing = workspace.run(&["check", "nfs", "127.0.0.1:/nowhere", "--config", config]).await;
    assert!(missing.code == OFFLINE && missing.stdout.contains("export_denied"), "{missing:?}");
    server.stop().await;
    let refused = workspace.run(&["check", "nfs", "127.0.0.1:/backups", "--config", config]).await;
    assert!(refused.code == OFFLINE && refused.stdout.contains("connection_refused"), "{refused:?}");
    let nonsense = workspace.run(&["check", "nfs", "nas", "--config", config]).await;
    assert!(nonsense.code == UNKNOWN && nonsense.stderr.contains("expected host:/path"), "{nonsense:?}");
    assert!(!workspace.registry().exists() && !workspace.path("mounts").exists(), "a check creates no files");
}

#[tokio::test]
async fn check_s3_needs_no_agent_and_proves_lock_on_request() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let endpoint = s3.endpoint();
    let check = async |bucket: &str, more: &[&str]| workspace.check_s3(&endpoint, bucket, more).await;
    let plain = check("plain", &[]).await;
    assert_eq!(plain.code, AVAILABLE, "{plain:?}");
    let locked = check("locked", &["--immutable"]).await;
    assert!(locked.code == AVAILABLE && locked.stdout.contains("object_lock"), "{locked:?}");
    let unlocked = check("versioned", &["--immutable"]).await;
    assert!(unlocked.code == OFFLINE && unlocked.stdout.contains("object_lock_missing"), "{unlocked:?}");
    let missing = check("missing", &["--json"]).await;
    assert_eq!((missing.code, &missing.json()[0]["reason"]), (OFFLINE, &json!("bucket_not_found")));
}

#[tokio::test]
async fn check_all_probes_every_target_now() {
    let (server, workspace) = nfs().await;
    let daemon = Daemon::start(&workspace).await;
    for path in ["/one", "/two"] {
        let id = daemon.create(nfs_target(path)).await;
        daemon.check(&id).await;
    }
    let well = workspace.run(&["check", "all"]).await;
    assert!(well.code == AVAILABLE && well.stdout.contains("/one") && well.stdout.contains("/two"), "{well:?}");
    server.stop().await;
    assert_eq!(workspace.run(&["status"]).await.code, AVAILABLE, "no probe has run since");
    let refused = workspace.run(&["check", "all"]).await;
    assert!(refused.code == OFFLINE && refused.stdout.matches("connection_refused").count() == 2, "{refused:?}");
    assert_eq!(workspace.run(&["status"]).await.code, OFFLINE);
}

#[tokio::test]
async fn mount_path_is_derived_and_decoded() {
    let workspace = Workspace::new();
    let root = "/var/trilio/triliovault-mounts";
    for (arguments, directory, key) in [
        (&["nfs", "192.168.1.34:/mnt/tvault/162"][..], "L21udC90dmF1bHQvMTYy", "/mnt/tvault/162"),
        (&["nfs", "x:/Trilio_Backup"], "L1RyaWxpb19CYWNrdXA=", "/Trilio_Backup"),
        (&["nfs", "x:/home/kolla/"], "L2hvbWUva29sbGEv", "/home/kolla/"),
        (
            &["s3", "https://cephs3.triliodata.demo", "trilio-qamanual"],
            "Y2VwaHMzLnRyaWxpb2RhdGEuZGVtby90cmlsaW8tcWFtYW51YWw=",
            "cephs3.triliodata.demo/trilio-qamanual",
        ),
        (
            &["nfs", "10.10.2.20:/upstream", "--path-key", "export"],
            "MTAuMTAuMi4yMDovdXBzdHJlYW0=",
            "10.10.2.20:/upstream",
        ),
    ] {
        let path = format!("{root}/{directory}");
        let derived = workspace.run(&[&["mount-path"], arguments].concat()).await;
        assert_eq!((derived.code, derived.stdout.trim_end()), (AVAILABLE, path.as_str()), "{derived:?}");
        let decoded = workspace.run(&["mount-path", "--decode", &path]).await;
        assert_eq!((decoded.code, decoded.stdout.trim_end()), (AVAILABLE, key), "{decoded:?}");
    }
    let none = workspace.run(&["mount-path", "--decode", &format!("{root}/lost+found!")]).await;
    assert!(none.code == UNKNOWN && none.stderr.contains("is not a mount directory"), "{none:?}");
}

#[tokio::test]
async fn completions_help_and_version_need_no_agent() {
    let workspace = Workspace::new();
    let completions = workspace.run(&["completions", "bash"]).await;
    assert_eq!(completions.code, AVAILABLE);
    assert!(completions.stdout.contains("complete -F _targetwatch") && completions.stdout.contains("set-default"));
    let help = workspace.run(&["--help"]).await;
    assert!(help.code == AVAILABLE && help.stdout.contains("status") && help.stderr.is_empty(), "{help:?}");
    let first_line = format!("targetwatch {}\n", env!("CARGO_PKG_VERSION"));
    let version = workspace.run(&["-V"]).await;
    assert_eq!((version.code, version.stdout), (AVAILABLE, first_line.clone()));
    let long = workspace.run(&["--version"]).await;
    let names: Vec<_> = long.stdout.lines().filter_map(|line| line.split_once(": ")).collect();
    assert!(long.code == AVAILABLE && long.stdout.starts_with(&first_line), "{long:?}");
    assert!(matches!(names[..], [("revision", _), ("rustc", version)] if version.starts_with("1.")), "{long:?}");
}

#[tokio::test]
async fn exit_code_is_unknown_when_usage_is_wrong_or_agent_is_down() {
    let workspace = Workspace::new();
    for arguments in [
        &[][..],
        &["stauts"],
        &["status", "--colour"],
        &["status", "--watch", "--json"],
        &["status", "--watch", "--interval", "0"],
        &["status", "--json", "--export", "nas"],
        &["status", "--type", "tape"],
        &["check", "nfs"],
        &["target", "create", "nfs"],
        &["target", "create", "nfs", "a:/b", "--metadata", "novalue"],
        &["--api", "ftp://x", "status"],
        &["completions", "ksh93"],
    ] {
        let wrong = workspace.run(arguments).await;
        assert_eq!((wrong.code, wrong.stdout.as_str()), (UNKNOWN, ""), "{arguments:?}: {wrong:?}");
        assert!(wrong.stderr.contains("Usage") || wrong.stderr.contains("error:"), "{arguments:?}: {wrong:?}");
    }
    let incomplete = workspace.run(&["mount-path"]).await;
    assert!(incomplete.code == UNKNOWN && incomplete.stderr.contains("mount-path nfs EXPORT"), "{incomplete:?}");
    for arguments in [&["status"][..], &["check", "all"], &["target", "list"], &["status", "--json"]] {
        let absent = workspace.run(arguments).await;
        assert_eq!((absent.code, absent.stdout.as_str()), (UNKNOWN, ""), "{absent:?}");
        assert!(
            absent.stderr.contains("no agent answers at unix:") && absent.stderr.contains("systemctl start"),
            "{absent:?}"
        );
    }
}

#[tokio::test]
async fn command_line_reaches_agent_over_tcp() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    let api = format!("http://{}", daemon.address());
    assert_eq!(workspace.run(&["--api", &api, "target", "create", "nfs", "127.0.0.1:/one"]).await.code, AVAILABLE);
    let listed = workspace.run(&["target", "list", "--api", &api, "--json"]).await;
    assert_eq!(listed.json()["backup_targets"][0]["filesystem_export"], "127.0.0.1:/one");
}
