use std::time::Duration;

use nix::errno::Errno;

use super::*;
use crate::check::own_mounts::OwnMounts;
use crate::check::server_addresses::ServerAddresses;
use crate::model::report::Finding;
use crate::model::{NfsExport, NfsOptions};
use crate::sys::WorkerFault;

const ROOT: &str = "1 1 0:1 / / rw - ext4 /dev/a rw\n";
const PATH: &str = "/m/x";

fn table(lines: &[&str]) -> MountTable {
    let mounts: Vec<String> =
        lines.iter().enumerate().map(|(at, line)| format!("{} {} 0:{at} / {line}\n", at + 2, at + 1)).collect();
    MountTable::parse(format!("{ROOT}{}", mounts.concat()).as_bytes())
}

/// Outcome and reasons of the mount at the path of `nas:/b`, as the mount table tells. `None` if there is none.
fn of_nfs(lines: &[&str]) -> Option<(Outcome, Vec<Reason>)> {
    let export = NfsExport::parse("nas:/b").expect("an export");
    let options = NfsOptions::parse("nfsvers=3,soft").expect("options");
    let expected = ExpectedMount {
        target: TargetId::nil(),
        export: &export,
        mapped_export: &export,
        addresses: &ServerAddresses::default(),
        own: &OwnMounts::default(),
        options: &options,
        root: Path::new("/m"),
        relative: Path::new("x"),
        path: Path::new(PATH),
        is_private: false,
    };
    judged(nfs_at(expected, Some("nas:/resolved"), &table(lines)))
}

fn judged(found: Option<FoundMount<'_>>) -> Option<(Outcome, Vec<Reason>)> {
    let judged = found?.judged;
    Some((judged.outcome(), judged.findings().iter().map(|finding| finding.reason).collect()))
}

#[test]
fn mount_of_another_program_is_judged_by_the_mount_table() {
    let passed = |reasons: &[Reason]| Some((Outcome::Passed, reasons.to_vec()));
    let failed = |reason| Some((Outcome::Failed, vec![reason]));
    for (lines, expected) in [
        (&[][..], None),
        (&["/m/y rw - nfs nas:/b rw,vers=3,soft"], None),
        (&["/m/x rw - autofs systemd-1 rw"], None),
        (&["/m/x rw - nfs nas:/b rw,vers=3,soft"], passed(&[])),
        (&["/m/x rw - nfs nas:/other rw,vers=3,soft"], failed(Reason::MountConflict)),
        (&["/m/x rw - nfs nas:/resolved rw,vers=3,soft"], passed(&[])),
        (&["/m/x rw - tmpfs nas:/resolved rw"], failed(Reason::MountConflict)),
        (&["/m/x rw - tmpfs tmpfs rw"], failed(Reason::MountConflict)),
        (&["/m/x rw - nfs nas:/b ro,vers=3,soft"], failed(Reason::ReadOnly)),
        (&["/m/x ro - nfs nas:/b rw,vers=3,soft"], failed(Reason::ReadOnly)),
        (&["/m/x rw - nfs nas:/b rw,vers=4.2,soft"], passed(&[Reason::MountOptionsDiffer])),
        (&["/m/x rw - nfs nas:/b rw,vers=3,hard"], passed(&[Reason::HardMount, Reason::MountOptionsDiffer])),
        (
            &["/m/x rw - nfs nas:/b rw,vers=3,soft", "/m/x rw - nfs nas:/b rw,vers=3,soft"],
            passed(&[Reason::MountStacked]),
        ),
    ] {
        assert_eq!(of_nfs(lines), expected, "{lines:?}");
    }
}

#[test]
fn fuse_mount_of_a_bucket_may_have_any_source() {
    let of_bucket = |lines: &[&str]| judged(bucket_at(Path::new(PATH), &table(lines)));
    assert_eq!(of_bucket(&[]), None);
    assert_eq!(of_bucket(&["/m/x rw - fuse.s3fs anything rw"]), Some((Outcome::Passed, vec![])));
    assert_eq!(of_bucket(&["/m/x rw - fuse.s3fs anything ro"]), Some((Outcome::Failed, vec![Reason::ReadOnly])));
}

#[test]
fn fuse_mount_is_measured_as_its_user() {
    let user = |line: &str| {
        let table = table(&[line]);
        fuse_user(table.topmost_at(Path::new(PATH)).expect("mounted"))
    };
    let ids = Some((42436, 42436));
    assert_eq!(user("/m/x rw - fuse.s3fs s3fs rw,user_id=42436,group_id=42436"), ids);
    assert_eq!(user("/m/x rw - fuse x rw,user_id=42436,group_id=42436,allow_other"), ids);
    assert_eq!(user("/m/x rw - fuse.s3fs s3fs rw"), None);
    assert_eq!(user("/m/x rw - fuseblk /dev/a rw,user_id=1,group_id=1"), None);
    assert_eq!(user("/m/x rw - nfs nas:/b rw,user_id=1,group_id=1"), None);
}

#[test]
fn mount_that_does_not_answer_is_told_from_one_with_an_error() {
    let table = table(&["/m/x rw - fuse.s3fs s3fs rw"]);
    let entry = table.topmost_at(Path::new(PATH)).expect("mounted");
    let judged = |error| {
        let checked = answered(Path::new(PATH), entry, error, false);
        (checked.outcome(), checked.reason())
    };
    let fault = |errno| Some(CallError::Fault(WorkerFault::system("statx", Path::new(PATH), errno)));
    let late = Some(CallError::TimedOut { after: Duration::from_secs(2) });
    assert_eq!(judged(None), (Outcome::Passed, None));
    assert_eq!(judged(late), (Outcome::TimedOut, Some(Reason::MountHangs)));
    for errno in [Errno::ENOTCONN, Errno::EIO, Errno::ESTALE, Errno::ECONNABORTED] {
        assert_eq!(judged(fault(errno)), (Outcome::TimedOut, Some(Reason::MountBroken)), "{errno}");
    }
    // What the agent cannot verify is not a problem of the mount.
    assert_eq!(judged(Some(CallError::ShutDown)), (Outcome::Skipped, None));
}

#[test]
fn failure_is_a_warning_unless_configured_otherwise() {
    let late = || Checked::timed_out(Finding::new(Reason::MountHangs, "late"));
    let warned = with_severity(late(), Severity::Warning);
    assert_eq!((warned.outcome(), warned.findings()[0].severity), (Outcome::Passed, Severity::Warning));
    let skipped = with_severity(not_verified("because"), Severity::Warning);
    assert_eq!((skipped.outcome(), skipped.findings()), (Outcome::Skipped, &[][..]));
    let failed = with_severity(late(), Severity::Failure);
    assert_eq!((failed.outcome(), failed.findings()[0].severity), (Outcome::TimedOut, Severity::Failure));
}

#[test]
fn time_of_first_sight_belongs_to_one_mount() {
    let mut watch = InUseWatch::default();
    assert_eq!(watch.first_seen(None), None);
    let first = watch.first_seen(Some(7)).expect("seen");
    assert_eq!(watch.first_seen(Some(7)), Some(first));
    assert!(watch.first_seen(Some(8)).is_some_and(|second| second >= first));
    assert_eq!((watch.first_seen(None), watch.seen), (None, None));
}
