//! The command line beside an agent, and without one.

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::place::Place;
use crate::storage::{nfs, nfs_target, s3};

const AVAILABLE: i32 = 0;
const WARNING: i32 = 1;
const OFFLINE: i32 = 2;
const UNKNOWN: i32 = 3;

#[tokio::test]
async fn status_is_a_table_and_its_exit_code_is_the_worst_of_all_targets() {
    let (server, place) = nfs().await;
    let daemon = Daemon::start(&place).await;
    let none = place.run(&["status"]).await;
    assert_eq!(none.code, UNKNOWN, "nothing was verified: {none:?}");
    assert!(none.out.contains("targetwatch target create"), "{none:?}");

    let id = daemon.create(nfs_target("/backups")).await;
    daemon.check(&id).await;
    let well = place.run(&["status"]).await;
    assert_eq!(well.code, AVAILABLE, "{well:?}");
    let mut lines = well.out.lines();
    let header = lines.next().expect("a header");
    assert!(
        ["TARGET", "TYPE", "STATUS", "SINCE", "CAPACITY", "USED"].iter().all(|title| header.contains(title)),
        "{header}"
    );
    let row = lines.next().expect("a row");
    assert!(["* 127.0.0.1:/backups", "nfs", "available", " %"].iter().all(|cell| row.contains(cell)), "{row}");
    assert_eq!(well.err, "");

    let missing = daemon.create(nfs_target("/nowhere")).await;
    daemon.check(&missing).await;
    let offline = place.run(&["status"]).await;
    assert_eq!(offline.code, OFFLINE, "{offline:?}");
    assert!(offline.out.contains("export_denied"), "{offline:?}");
    drop(server);
}

#[tokio::test]
async fn status_warns_by_its_exit_code() {
    let (_nfs, place) = nfs().await;
    place.configure("[probe]\nnearly_full_percent = 0.0");
    let daemon = Daemon::start(&place).await;
    let id = daemon.create(nfs_target("/backups")).await;
    daemon.check(&id).await;
    let warned = place.run(&["status"]).await;
    assert_eq!(warned.code, WARNING, "{warned:?}");
    assert!(warned.out.contains("nearly_full"), "{warned:?}");
    assert_eq!(place.run(&["check", "all"]).await.code, WARNING);
}

#[tokio::test]
async fn json_is_the_agents_own_answer() {
    let (_nfs, place) = nfs().await;
    let daemon = Daemon::start(&place).await;
    let id = daemon.create(nfs_target("/backups")).await;
    daemon.check(&id).await;
    let status = place.run(&["status", "--json"]).await;
    assert_eq!((status.code, status.json()), (AVAILABLE, daemon.get("/backup_targets/detail").await));
    let list = place.run(&["target", "list", "--json"]).await;
    assert_eq!((list.code, list.json()), (AVAILABLE, daemon.get("/backup_targets").await));
    let show = place.run(&["target", "show", &id, "--json"]).await;
    assert_eq!((show.code, show.json()), (AVAILABLE, daemon.get(&format!("/backup_targets/{id}/checks")).await));
    let check = place.run(&["check", "all", "--json"]).await;
    assert_eq!((check.code, &check.json()[0]["status"]), (AVAILABLE, &json!("available")));
}

#[tokio::test]
async fn a_target_is_created_listed_shown_checked_made_default_and_deleted() {
    let (_nfs, place) = nfs().await;
    let daemon = Daemon::start(&place).await;
    let created =
        place.run(&["target", "create", "nfs", "127.0.0.1:/one", "--name", "nightly", "--metadata", "rack=b7"]).await;
    assert_eq!(created.code, AVAILABLE, "{created:?}");
    let first = daemon.targets().await.pop().expect("it is there");
    assert!(created.out.contains(first["id"].as_str().expect("an id")), "{created:?}");
    assert!(created.out.contains(first["filesystem_export_mount_path"].as_str().expect("a path")), "{created:?}");
    assert_eq!(first["backup_target_types"][0]["name"], "nightly");
    assert_eq!(first["backup_target_metadata"], json!([{ "key": "rack", "value": "b7" }]));
    assert_eq!(place.run(&["target", "create", "nfs", "127.0.0.1:/two"]).await.code, AVAILABLE);

    let list = place.run(&["target", "list"]).await;
    assert!(
        list.code == AVAILABLE && ["/one", "/two", "nightly"].iter().all(|word| list.out.contains(word)),
        "{list:?}"
    );
    let checked = place.run(&["target", "check", "nightly"]).await;
    assert_eq!(checked.code, AVAILABLE, "{checked:?}");
    assert!(["reachable", "exported", "capacity"].iter().all(|check| checked.out.contains(check)), "{checked:?}");
    let shown = place.run(&["target", "show", "127.0.0.1:/one"]).await;
    assert!(shown.code == AVAILABLE && shown.out.contains("available (over the wire, not mounted)"), "{shown:?}");

    assert_eq!(place.run(&["target", "set-default", "127.0.0.1:/two"]).await.code, AVAILABLE);
    let defaults: Vec<Value> = daemon.targets().await.iter().map(|target| target["is_default"].clone()).collect();
    assert_eq!(defaults, [json!(false), json!(true)]);
    let modified = place.run(&["target", "modify", "nightly", "--metadata", "rack=b8"]).await;
    assert_eq!(modified.code, AVAILABLE, "{modified:?}");
    let id = first["id"].as_str().expect("an id");
    assert_eq!(daemon.show(id).await["backup_target_metadata"], json!([{ "key": "rack", "value": "b8" }]));

    let unasked = place.run(&["target", "delete", "nightly"]).await;
    assert_eq!(unasked.code, UNKNOWN, "{unasked:?}");
    assert!(unasked.err.contains("--yes"), "{unasked:?}");
    assert_eq!(daemon.targets().await.len(), 2);
    let deleted = place.run(&["target", "delete", "nightly", "--yes"]).await;
    assert_eq!(deleted.code, AVAILABLE, "{deleted:?}");
    assert_eq!(daemon.targets().await.len(), 1);
}

#[tokio::test]
async fn what_the_agent_refuses_is_told_in_its_own_words() {
    let place = Place::new();
    let _daemon = Daemon::start(&place).await;
    assert_eq!(place.run(&["target", "create", "nfs", "127.0.0.1:/one"]).await.code, AVAILABLE);
    for (arguments, words) in [
        (&["target", "create", "nfs", "127.0.0.2:/one"][..], "127.0.0.1:/one"),
        (&["target", "create", "nfs", "nas"], "expected host:/path"),
        (&["target", "create", "s3", "--bucket", "x"], "s3_bucket"),
        (&["target", "show", "another"], "there is no backup target \"another\""),
        (&["target", "create", "nfs", "127.0.0.1:/two", "--default"], "set_default"),
    ] {
        let refused = place.run(arguments).await;
        assert_eq!((refused.code, refused.out.as_str()), (UNKNOWN, ""), "{refused:?}");
        assert!(refused.err.starts_with("targetwatch: ") && refused.err.contains(words), "{refused:?}");
    }
}

#[tokio::test]
async fn an_export_is_checked_without_an_agent() {
    let (server, place) = nfs().await;
    let config = place.config();
    let config = config.to_str().expect("text");
    let well = place.run(&["check", "nfs", "127.0.0.1:/backups", "--config", config]).await;
    assert_eq!(well.code, AVAILABLE, "{well:?}");
    assert!(["reachable", "exported", "capacity", "available"].iter().all(|word| well.out.contains(word)), "{well:?}");
    let json = place.run(&["check", "nfs", "127.0.0.1:/backups", "--json", "--config", config]).await.json();
    assert_eq!(json[0]["status"], "available", "{json:#}");
    let missing = place.run(&["check", "nfs", "127.0.0.1:/nowhere", "--config", config]).await;
    assert!(missing.code == OFFLINE && missing.out.contains("export_denied"), "{missing:?}");
    server.stop().await;
    let refused = place.run(&["check", "nfs", "127.0.0.1:/backups", "--config", config]).await;
    assert!(refused.code == OFFLINE && refused.out.contains("connection_refused"), "{refused:?}");
    let nonsense = place.run(&["check", "nfs", "nas", "--config", config]).await;
    assert!(nonsense.code == UNKNOWN && nonsense.err.contains("expected host:/path"), "{nonsense:?}");
    assert!(!place.registry().exists() && !place.path("mounts").exists(), "a check leaves nothing behind");
}

#[tokio::test]
async fn a_bucket_is_checked_without_an_agent_and_for_its_lock_when_that_is_asked() {
    let s3 = s3().await;
    let place = Place::new();
    let config = place.config();
    let config = config.to_str().expect("text");
    let check = async |bucket: &str, more: &[&str]| {
        let url = format!("{}/{bucket}", s3.endpoint());
        place.run(&[&["check", "s3", &url, "--config", config], more].concat()).await
    };
    let plain = check("plain", &[]).await;
    assert_eq!(plain.code, AVAILABLE, "{plain:?}");
    let locked = check("locked", &["--immutable"]).await;
    assert!(locked.code == AVAILABLE && locked.out.contains("object_lock"), "{locked:?}");
    let unlocked = check("versioned", &["--immutable"]).await;
    assert!(unlocked.code == OFFLINE && unlocked.out.contains("object_lock_missing"), "{unlocked:?}");
    let missing = check("missing", &["--json"]).await;
    assert_eq!((missing.code, &missing.json()[0]["reason"]), (OFFLINE, &json!("bucket_not_found")));
}

#[tokio::test]
async fn check_all_probes_every_target_now() {
    let (server, place) = nfs().await;
    let daemon = Daemon::start(&place).await;
    for path in ["/one", "/two"] {
        let id = daemon.create(nfs_target(path)).await;
        daemon.check(&id).await;
    }
    let well = place.run(&["check", "all"]).await;
    assert!(well.code == AVAILABLE && well.out.contains("/one") && well.out.contains("/two"), "{well:?}");
    server.stop().await;
    assert_eq!(place.run(&["status"]).await.code, AVAILABLE, "nobody has looked yet");
    let refused = place.run(&["check", "all"]).await;
    assert!(refused.code == OFFLINE && refused.out.matches("connection_refused").count() == 2, "{refused:?}");
    assert_eq!(place.run(&["status"]).await.code, OFFLINE);
}

#[tokio::test]
async fn a_mount_path_is_derived_and_decoded() {
    let place = Place::new();
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
        let derived = place.run(&[&["mount-path"], arguments].concat()).await;
        assert_eq!((derived.code, derived.out.trim_end()), (AVAILABLE, path.as_str()), "{derived:?}");
        let decoded = place.run(&["mount-path", "--decode", &path]).await;
        assert_eq!((decoded.code, decoded.out.trim_end()), (AVAILABLE, key), "{decoded:?}");
    }
    let none = place.run(&["mount-path", "--decode", &format!("{root}/lost+found!")]).await;
    assert!(none.code == UNKNOWN && none.err.contains("is not a mount directory"), "{none:?}");
}

#[tokio::test]
async fn completions_help_and_version_need_no_agent() {
    let place = Place::new();
    let completions = place.run(&["completions", "bash"]).await;
    assert_eq!(completions.code, AVAILABLE);
    assert!(completions.out.contains("complete -F _targetwatch") && completions.out.contains("set-default"));
    let help = place.run(&["--help"]).await;
    assert!(help.code == AVAILABLE && help.out.contains("status") && help.err.is_empty(), "{help:?}");
    let version = place.run(&["--version"]).await;
    assert_eq!((version.code, version.out), (AVAILABLE, format!("targetwatch {}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn wrong_usage_and_an_absent_agent_are_unknown() {
    let place = Place::new();
    for arguments in [
        &[][..],
        &["stauts"],
        &["status", "--colour"],
        &["status", "--watch", "--json"],
        &["status", "--watch", "--interval", "0"],
        &["check", "nfs"],
        &["target", "create", "nfs"],
        &["target", "create", "nfs", "a:/b", "--metadata", "novalue"],
        &["--api", "ftp://x", "status"],
        &["completions", "ksh93"],
    ] {
        let wrong = place.run(arguments).await;
        assert_eq!((wrong.code, wrong.out.as_str()), (UNKNOWN, ""), "{arguments:?}: {wrong:?}");
        assert!(wrong.err.contains("Usage") || wrong.err.contains("error:"), "{arguments:?}: {wrong:?}");
    }
    let unsaid = place.run(&["mount-path"]).await;
    assert!(unsaid.code == UNKNOWN && unsaid.err.contains("mount-path nfs EXPORT"), "{unsaid:?}");
    for arguments in [&["status"][..], &["check", "all"], &["target", "list"], &["status", "--json"]] {
        let absent = place.run(arguments).await;
        assert_eq!((absent.code, absent.out.as_str()), (UNKNOWN, ""), "{absent:?}");
        assert!(
            absent.err.contains("no agent answers at unix:") && absent.err.contains("systemctl start"),
            "{absent:?}"
        );
    }
}

#[tokio::test]
async fn the_agent_is_found_over_tcp_too() {
    let place = Place::new();
    let daemon = Daemon::start(&place).await;
    let api = format!("http://{}", daemon.address());
    assert_eq!(place.run(&["--api", &api, "target", "create", "nfs", "127.0.0.1:/one"]).await.code, AVAILABLE);
    let listed = place.run(&["target", "list", "--api", &api, "--json"]).await;
    assert_eq!(listed.json()["backup_targets"][0]["filesystem_export"], "127.0.0.1:/one");
}
