//! Tests that answers have the fields of the guide, and tests of the additional fields.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::agent::{TargetStatus, TargetView, View};
use crate::api::tests::shape::{BEYOND, REPORT, assert_shape, guide, sample};
use crate::model::report::{self, BucketFacts, Finding, LockProofState, Verdict};
use crate::model::{
    self, Caller, Capacity, LockProof, LockVerdict, MountName, NfsExport, NfsTarget, PathKey, Reason, S3Location,
    S3Target, TargetSpec,
};

/// A target whose only type is of two projects.
pub(in crate::api) fn restricted_target() -> TargetView {
    let mut view = view(TargetSpec::Nfs(NfsTarget {
        export: NfsExport::parse("nas:/b").expect("an export"),
        options: None,
        mode: None,
    }));
    let assigned = |project: &str| model::TypeProject {
        id: Uuid::nil(),
        project_id: project.parse().expect("an id"),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: None,
        version: String::new(),
    };
    let projects = PROJECTS.map(assigned).into();
    let restricted = model::TargetType { is_public: false, projects, ..(*view.types[0]).clone() };
    view.types = [Arc::new(restricted)].into();
    view
}

const PROJECTS: [&str; 2] = ["fc439373e340459fb28202b2412e26c0", "0920f871077c4c079057ce940d8105a8"];

/// All targets as a caller may see them.
pub(in crate::api) fn list_seen_by(caller: &Caller, view: &View) -> TargetList {
    TargetList { backup_targets: view.targets.iter().map(|target| Target::seen_by(caller, target)).collect() }
}

pub(in crate::api) fn view(spec: TargetSpec) -> TargetView {
    let at = Timestamp::from_second(1_738_240_347).expect("a time");
    let id = Uuid::from_u128(7);
    let mount_name = MountName::derive(&spec, PathKey::Path).expect("a name");
    TargetView {
        record: Arc::default(),
        current_until: None,
        mount_path: mount_name.below(Path::new("/var/trilio/triliovault-mounts")),
        types: [Arc::new(model::TargetType {
            id: Uuid::from_u128(8),
            target_id: id,
            name: "nightly".to_owned(),
            description: None,
            is_public: true,
            is_default: true,
            user_id: None,
            created_at: at,
            updated_at: None,
            version: "1".to_owned(),
            projects: Vec::new(),
            metadata: std::collections::BTreeMap::new(),
        })]
        .into(),
        target: Arc::new(model::Target {
            id,
            spec,
            mount_name,
            is_default: true,
            created_at: at,
            updated_at: at,
            version: "1".to_owned(),
            metadata: [("rack".to_owned(), "12".to_owned())].into(),
            scope: None,
        }),
        status: TargetStatus::not_checked(at),
        report: None,
    }
}

fn probed(mut view: TargetView, capacity: Option<Capacity>, bucket: Option<BucketFacts>) -> TargetView {
    let report = model::Report {
        target_id: view.target.id,
        checked_at: view.target.created_at,
        duration: Duration::from_micros(1500),
        verdict: Verdict::Available { warning: Some(Finding::new(Reason::Slow, "slow")) },
        capacity,
        time_to_full: None,
        facts: bucket.map(|bucket| report::KindFacts::S3(Box::new(bucket))),
        checks: Vec::new(),
    };
    view.status = view.status.after(&report, 2);
    view.report = Some(Arc::new(report));
    view
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn target_has_the_fields_of_both_guides_and_of_its_location() {
    let answer = OneTarget::seen_by(
        &Caller::local(),
        &view(TargetSpec::Nfs(NfsTarget {
            export: NfsExport::parse("192.168.1.34:/mnt/tvault/162").expect("one"),
            options: None,
            mode: None,
        })),
    );
    let answer = serde_json::to_value(&answer).expect("JSON");
    let target = &answer["backup_targets"];
    for (guide, aliases) in [
        (include_str!("../../../tests/fixtures/guide/create_s3.json"), &["nfs_export", "nfs_export_mount_path"][..]),
        (
            include_str!("../../../tests/fixtures/guide/show_nfs.json"),
            &["filesystem_export", "filesystem_export_mount_path", "backup_target_metadata"],
        ),
    ] {
        let guide: Value = serde_json::from_str(guide).expect("the guide's sample");
        let sample = &guide["backup_targets"];
        let expected: BTreeSet<&str> = keys(sample)
            .into_iter()
            .chain(aliases.iter().copied())
            .chain(["s3_endpoint_url", "s3_bucket", "nfs_mount_opts", "mount_mode", "secret_ref", "scope"])
            .collect();
        assert_eq!(keys(target), expected);
        assert_eq!(keys(&target["backup_target_types"][0]), keys(&sample["backup_target_types"][0]));
    }
    assert_eq!(target["created_at"], "2025-01-30T12:32:27.000000");
    assert_eq!(target["nfs_export_mount_path"], "/var/trilio/triliovault-mounts/L21udC90dmF1bHQvMTYy");
    assert_eq!(target["filesystem_export"], target["nfs_export"]);
    assert_eq!(
        (&target["status"], &target["capacity"], &target["used"]),
        (&"offline".into(), &Value::Null, &Value::Null)
    );
}

#[test]
fn listed_and_shown_targets_have_the_shape_of_the_guides_samples() {
    let nfs = view(TargetSpec::Nfs(NfsTarget {
        export: NfsExport::parse("192.168.1.34:/mnt/tvault/162").expect("one"),
        options: None,
        mode: None,
    }));
    let capacity = Capacity::from_blocks(1 << 30, 2458, 1229, 1229, 0, 0);
    let s3 = view(TargetSpec::S3(S3Target {
        location: S3Location::new(None, "backups").expect("a bucket"),
        immutable: false,
        secret_ref: None,
    }));
    let view = View {
        generation: 1,
        types_generation: 1,
        has_restricted_types: false,
        targets: vec![Arc::new(probed(nfs, Some(capacity), None)), Arc::new(s3)],
    };
    let everybody = Caller { is_admin: false, ..Caller::local() };
    let json = |answer: serde_json::Result<Value>| answer.expect("JSON");
    let list = json(serde_json::to_value(list_seen_by(&everybody, &view)));
    assert_shape(&sample(guide!("list.json")), &list, BEYOND);
    let detail = json(serde_json::to_value(TargetDetailList::seen_by(&everybody, &view)));
    assert_shape(&sample(guide!("detail.json")), &detail, &[BEYOND, &[REPORT]].concat());
    let one = json(serde_json::to_value(OneTarget::seen_by(&everybody, &view.targets[0])));
    assert_shape(&sample(guide!("show_nfs.json")), &one, BEYOND);
}

#[test]
fn sizes_are_text_in_targets_and_bytes_in_reports() {
    let capacity = Capacity::from_blocks(1 << 30, 2458, 1229, 1229, 0, 0);
    let view = probed(
        view(TargetSpec::Nfs(NfsTarget {
            export: NfsExport::parse("nas:/b").expect("one"),
            options: None,
            mode: None,
        })),
        Some(capacity),
        None,
    );
    let target = Target::seen_by(&Caller::local(), &view);
    assert_eq!((target.capacity.as_deref(), target.used.as_deref()), (Some("2.4 TB"), Some("1.2 TB")));
    assert_eq!(&*target.status, "available");
    let report = Report::from(&view);
    assert_eq!(report.capacity_bytes, Some(2458 << 30));
    assert_eq!((report.verdict.as_deref(), report.reason.as_deref()), (Some("available"), Some("slow")));
    assert_eq!(report.duration_ms, Some(1.5));
}

#[test]
fn declared_and_verified_facts_of_a_bucket_differ() {
    let spec = TargetSpec::S3(S3Target {
        location: S3Location::new(None, "backups").expect("a bucket"),
        immutable: true,
        secret_ref: None,
    });
    let notes = |view: &TargetView| -> Vec<(String, String)> {
        Target::seen_by(&Caller::local(), view)
            .backup_target_metadata
            .into_iter()
            .map(|entry| (entry.key, entry.value))
            .collect()
    };
    let note = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let declared = vec![note("bucket", "backups"), note("immutable", "1"), note("rack", "12")];
    assert_eq!(notes(&view(spec.clone())), declared);
    let unlocked = BucketFacts { object_lock: Some(false), ..BucketFacts::default() };
    let verified = notes(&probed(view(spec.clone()), None, Some(unlocked)));
    assert!(verified.contains(&note("object_lock", "0")) && verified.contains(&note("immutable", "1")));
    let found = |verdict| {
        LockProofState::Found(LockProof {
            verdict,
            why: "seen".to_owned(),
            proved_at: Timestamp::UNIX_EPOCH,
            node: None,
        })
    };
    for (told, lock_proof, locked, verdict) in [
        (None, found(LockVerdict::Enforced), "1", "enforced"),
        (Some(true), found(LockVerdict::Enforced), "1", "enforced"),
        (Some(true), found(LockVerdict::Unverifiable), "0", "unverifiable"),
        (None, LockProofState::Pending, "0", "pending"),
    ] {
        let facts = BucketFacts { object_lock: told, lock_proof, ..BucketFacts::default() };
        let verified = notes(&probed(view(spec.clone()), None, Some(facts)));
        assert!(verified.contains(&note("object_lock", locked)), "{verified:?}");
        assert!(verified.contains(&note("object_lock_verdict", verdict)), "{verified:?}");
    }
}

#[test]
fn answer_has_endpoint_and_bucket_of_an_s3_target() {
    let shown = |spec: TargetSpec| {
        let target = Target::seen_by(&Caller::local(), &view(spec));
        (target.s3_endpoint_url, target.s3_bucket)
    };
    let s3 = |url: &str| {
        let location = S3Location::parse(url).expect("a bucket");
        TargetSpec::S3(S3Target { location, immutable: false, secret_ref: None })
    };
    let expected = (Some("https://ceph.example:8443".to_owned()), Some("backups".to_owned()));
    assert_eq!(shown(s3("https://ceph.example:8443/backups")), expected);
    assert_eq!(shown(s3("backups")), (None, Some("backups".to_owned())));
    let export = NfsExport::parse("nas:/b").expect("an export");
    assert_eq!(shown(TargetSpec::Nfs(NfsTarget { export, options: None, mode: None })), (None, None));
}

#[test]
fn member_sees_only_its_own_project_id_and_admin_sees_all() {
    let view = restricted_target();
    let seen = |caller: &Caller| -> Vec<String> {
        let shown = TargetType::seen_by(caller, &view.types[0]);
        shown.target_type.backup_target_type_projects.into_iter().map(|assigned| assigned.project_id).collect()
    };
    for own in PROJECTS {
        let written = Uuid::parse_str(own).expect("an id").to_string();
        let member = Caller { user_id: None, project_id: Some(written), is_admin: false };
        assert_eq!(seen(&member), [own]);
    }
    assert_eq!(seen(&Caller::local()), PROJECTS);
}

#[test]
fn check_has_its_most_severe_finding_and_all_findings() {
    let findings =
        vec![Finding::new(Reason::HardMount, "hard").into_warning(), Finding::new(Reason::ReadOnly, "read-only")];
    let check = report::CheckResult::new(report::CheckName::Mounted, report::Outcome::Failed, findings, Duration::ZERO);
    let check = serde_json::to_value(Check::from(&check)).expect("JSON");
    assert_eq!((&check["reason"], &check["message"]), (&"read_only".into(), &"read-only".into()));
    assert_eq!(
        check["findings"],
        serde_json::json!([
            {"reason": "read_only", "severity": "failure", "message": "read-only"},
            {"reason": "hard_mount", "severity": "warning", "message": "hard"},
        ])
    );
}

#[test]
fn written_answer_can_be_parsed() {
    let view = View {
        generation: 1,
        types_generation: 1,
        has_restricted_types: false,
        targets: vec![Arc::new(view(TargetSpec::Nfs(NfsTarget {
            export: NfsExport::parse("a:/b").expect("one"),
            options: None,
            mode: None,
        })))],
    };
    let list = TargetDetailList::seen_by(&Caller::local(), &view);
    let text = serde_json::to_string(&list).expect("JSON");
    assert_eq!(serde_json::from_str::<TargetDetailList>(&text).expect("its own"), list);
    assert_eq!(
        parse_timestamp("2025-01-30T12:32:27.000000").map(timestamp).as_deref(),
        Some("2025-01-30T12:32:27.000000")
    );
}
