//! Rendered tables and reports.

use super::*;
use serde_json::json;

pub(in crate::cli) fn detail(status: &str, reason: Option<&str>) -> wire::TargetDetail {
    let report = json!({
        "backup_target_id": "7a23e2a4-4a2e-4261-9d4e-7fca1d552b36", "filesystem_export": "nas:/b", "status": status,
        "since": "2025-01-30T12:00:00.000000", "last_available_at": null, "verdict": status, "reason": reason,
        "message": reason.map(|_| "look at the server"), "timeouts_in_a_row": 0,
        "checked_at": "2025-01-30T12:09:55.000000", "duration_ms": 1.5, "mode": "kernel",
        "capacity_bytes": 2_638_827_906_662_u64, "used_bytes": 1_319_413_953_331_u64,
        "available_bytes": 1_319_413_953_331_u64, "used_percent": 50.0, "inodes": null, "inodes_used": null,
        "object_count": null, "versioning": null, "object_lock": null, "default_retention": null, "object_lock_proof": null,
        "bucket_configuration_read_at": null, "probe_requests": null, "requests_last_hour": null,
        "checks": [
            {"name": "reachable", "outcome": "passed", "reason": null, "message": null, "detail": "ok", "duration_ms": 0.5},
            {"name": "capacity", "outcome": if reason.is_some() { "timed_out" } else { "passed" }, "reason": reason,
             "message": null, "detail": null, "duration_ms": 2000.0},
        ],
    });
    let value = json!({
        "id": "7a23e2a4-4a2e-4261-9d4e-7fca1d552b36", "type": "nfs", "created_at": "", "updated_at": "", "version": "",
        "filesystem_export": "nas:/b\u{1b}[31m", "filesystem_export_mount_path": "/m/x", "nfs_export": "",
        "nfs_export_mount_path": "", "is_default": true, "capacity": "2.4 TB", "used": "1.2 TB", "status": status,
        "backup_target_types": [], "backup_target_metadata": [],
        "report": report,
    });
    serde_json::from_value(value).expect("a target")
}

fn table(has_color: bool, width: u16) -> String {
    let list = wire::TargetDetailList {
        backup_targets: vec![detail("available", None), detail("offline", Some("storage_timed_out"))],
    };
    status_table(&list, OutputStyle { width, has_color }, "2025-01-30T12:10:00Z".parse().expect("a time"))
}

#[test]
fn status_table_shows_status_capacity_and_reason() {
    insta::assert_snapshot!(table(false, 120), @r"
    TARGET              TYPE  STATUS     SINCE   CAPACITY             USED    CHECKED  REASON
    * nas:/b\u{1b}[31m  nfs   available  10 min  [#####.....] 2.4 TB  50.0 %  5 s
    * nas:/b\u{1b}[31m  nfs   offline    10 min  [#####.....] 2.4 TB  50.0 %  5 s      storage_timed_out
    nas:/b\u{1b}[31m: look at the server
    ");
}

#[test]
fn colour_needs_a_terminal_and_control_characters_are_escaped() {
    assert!(!table(false, 120).contains('\u{1b}'));
    let colored = table(true, 120);
    assert!(colored.contains('\u{1b}') && !colored.contains("b\u{1b}[31m"));
}

#[test]
fn table_fits_a_narrow_terminal() {
    let text = table(false, 70);
    let rows: Vec<&str> = text.lines().take_while(|line| !line.contains("look at the server")).collect();
    assert!(rows.iter().all(|line| line.chars().count() <= 70), "{text}");
}

#[test]
fn time_to_full_is_shown_where_it_is_known() {
    let mut filling = detail("available", Some("full_soon"));
    filling.report.time_to_full_s = Some(200_000);
    let style = OutputStyle { width: 120, has_color: false };
    assert!(report(&filling.report, style).contains("full in about 2 d if use continues to grow"));
    let list = wire::TargetDetailList { backup_targets: vec![filling, detail("available", None)] };
    let now = "2025-01-30T12:10:00Z".parse().expect("a time");
    insta::assert_snapshot!(status_lines(&list, style, now).join("\n"), @r"
    TARGET              TYPE  STATUS     SINCE   CAPACITY             USED    FULL IN  CHECKED  REASON
    * nas:/b\u{1b}[31m  nfs   available  10 min  [#####.....] 2.4 TB  50.0 %      2 d  5 s      full_soon
    * nas:/b\u{1b}[31m  nfs   available  10 min  [#####.....] 2.4 TB  50.0 %        -  5 s
    ");
}

#[test]
fn report_shows_every_check() {
    let style = OutputStyle { width: 100, has_color: false };
    insta::assert_snapshot!(report(&detail("offline", Some("storage_timed_out")).report, style), @r"
    nas:/b
      passed    reachable           0.5 ms
                ok
      timed_out capacity         2000.0 ms  storage_timed_out
      capacity 2.4 TB, used 1.2 TB, available 1.2 TB
      offline (mounted)
    ");
}

#[test]
fn mount_options_and_secret_are_shown_when_given() {
    let mut target = detail("available", None).target;
    assert_eq!(settings(&target), "");
    target.nfs_mount_opts = Some("soft,timeo=100".to_owned());
    target.secret_ref = Some("https://barbican/\u{1b}".to_owned());
    assert_eq!(settings(&target), "  mount options soft,timeo=100\n  secret https://barbican/\\u{1b}\n");
}

#[test]
fn report_prints_every_finding_of_a_check() {
    let mut stacked = detail("available", None).report;
    stacked.checks[0] = serde_json::from_value(json!({
        "name": "mounted", "outcome": "passed", "reason": "mount_stacked", "message": "two are mounted",
        "findings": [
            {"reason": "mount_stacked", "severity": "warning", "message": "two are mounted"},
            {"reason": "hard_mount", "severity": "warning", "message": "it is hard"},
        ],
        "detail": "nas:/b", "duration_ms": 0.5,
    }))
    .expect("a check");
    let text = report(&stacked, OutputStyle { width: 100, has_color: false });
    let expected =
        "mount_stacked\n            two are mounted\n            hard_mount: it is hard\n            nas:/b\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn mount_traffic_is_shown_when_known() {
    let mut mounted = detail("available", None);
    let mount = json!({
        "options": "rw", "server_address": "10.0.0.1", "nfs_version": "3", "hard": false, "round_trip_ms": 12.34,
        "round_trip_over_s": 10.02, "retransmissions": 3, "bytes_read": 4096, "bytes_written": 5_000_001,
    });
    mounted.report.mount = serde_json::from_value(mount).expect("a mount");
    let text = report(&mounted.report, OutputStyle { width: 100, has_color: false });
    assert!(
        text.contains("round trip 12.3 ms over 10 s; since mounting: 3 retransmissions, 4.0 KB read, 4.8 MB written"),
        "{text}"
    );
    let list = wire::TargetDetailList { backup_targets: vec![mounted, detail("offline", None)] };
    let now = "2025-01-30T12:10:00Z".parse().expect("a time");
    insta::assert_snapshot!(status_table(&list, OutputStyle { width: 120, has_color: false }, now), @r"
    TARGET              TYPE  STATUS     SINCE   CAPACITY             USED    ROUND TRIP  CHECKED  REASON
    * nas:/b\u{1b}[31m  nfs   available  10 min  [#####.....] 2.4 TB  50.0 %     12.3 ms  5 s
    * nas:/b\u{1b}[31m  nfs   offline    10 min  [#####.....] 2.4 TB  50.0 %           -  5 s
    ");
    assert!(!status_table(&list, OutputStyle { width: 100, has_color: false }, now).contains("ROUND TRIP"), "no room");
}

#[test]
fn history_keeps_order_and_escapes_control_characters() {
    let history = json!({
        "backup_target_id": "7a23e2a4-4a2e-4261-9d4e-7fca1d552b36",
        "transitions": [
            {"at": "2025-01-30T12:09:55.000000", "from": "available", "to": "offline", "reason": "storage_timed_out",
             "message": "look at the server\u{1b}[31m"},
            {"at": "2025-01-30T12:00:00.000000", "from": null, "to": "available", "reason": null, "message": null},
        ],
    });
    let history: wire::History = serde_json::from_value(history).expect("a history");
    insta::assert_snapshot!(history_table(&history, OutputStyle { width: 120, has_color: false }), @r"
    AT                          FROM       TO         REASON             MESSAGE
    2025-01-30T12:09:55.000000  available  offline    storage_timed_out  look at the server\u{1b}[31m
    2025-01-30T12:00:00.000000  -          available
    ");
}

#[test]
fn usage_of_a_listing_shows_its_time() {
    let mut target = detail("available", None);
    let count = json!({
        "bytes": 1, "versions": 1, "delete_markers": 0, "counts_versions": true, "pages": 1,
        "began_at": "2025-01-30T11:00:00.000000", "ended_at": "2025-01-30T11:10:00.000000",
    });
    let mut under_way = count.clone();
    under_way["ended_at"] = json!(null);
    let rendered = |target: &wire::TargetDetail| report(&target.report, OutputStyle { width: 100, has_color: false });
    let mut listing = json!({ "counted": null, "under_way": under_way, "next_run_at": null });
    target.report.usage_listing = serde_json::from_value(listing.clone()).expect("a listing");
    assert!(!rendered(&target).contains("counted by"), "the listing has not ended");
    listing["counted"] = count;
    target.report.usage_listing = serde_json::from_value(listing).expect("a listing");
    assert!(
        rendered(&target).contains("usage counted by a listing that ended at 2025-01-30T11:10:00"),
        "{}",
        rendered(&target)
    );
}
