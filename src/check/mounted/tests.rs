//! Mounts of a table, and mount points that cannot be created.

use super::*;
use crate::check::server_addresses::ServerAddresses;
use crate::model::{MountName, NfsExport, NfsTarget, PathKey, TargetId, TargetSpec};
use crate::sys::{MountTable, WorkerFault};

#[tokio::test]
async fn mount_reports_read_only_stacked_hard_and_other_options_together() {
    let export = NfsExport::parse("nas:/b").expect("an export");
    let name = MountName::derive(&TargetSpec::Nfs(NfsTarget { export: export.clone(), options: None }), PathKey::Path)
        .expect("a name");
    let (root, addresses, options) =
        (Path::new("/m"), ServerAddresses::default(), NfsOptions::parse("soft").expect("options"));
    let path = name.below(root);
    let expected = ExpectedMount {
        target: TargetId::nil(),
        export: &export,
        mapped_export: &export,
        addresses: &addresses,
        port: options.port(),
        root,
        name: &name,
        path: &path,
    };
    let at = path.display();
    let table = format!("2 1 0:2 / {at} rw - tmpfs t rw\n3 2 0:3 / {at} ro - nfs nas:/b rw,hard\n");
    let table = MountTable::parse(table.as_bytes());
    let PathMount::Own(entry, stacked) = expected.at_path(&table) else { panic!("the export is mounted") };
    let checked = own_mount(expected, entry, stacked, &options, Duration::ZERO).await;
    let reasons: Vec<Reason> = checked.findings().iter().map(|finding| finding.reason).collect();
    assert_eq!(checked.outcome(), Outcome::Failed);
    assert_eq!(reasons, [Reason::ReadOnly, Reason::MountStacked, Reason::HardMount, Reason::MountOptionsDiffer]);
}

#[test]
fn mount_point_that_cannot_be_created_has_advice_about_this_host() {
    for (errno, advice) in [
        (Errno::EROFS, "on this host read-write"),
        (Errno::ENOSPC, "free space or inodes"),
        (Errno::EACCES, "run the agent as root"),
        (Errno::EIO, "`dmesg` on this host"),
    ] {
        let fault = WorkerFault::system("mkdir", Path::new("/m/x"), errno);
        let checked = unprepared::<()>(CallError::Fault(fault));
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::MountPointUnusable)));
        let message = checked.finding().map_or("", |finding| finding.message.as_str());
        assert!(message.contains("/m/x") && message.contains(advice), "{message}");
        assert!(!message.contains("export") && !message.contains("server"), "{message}");
    }
    let died = unprepared::<()>(CallError::ShutDown);
    assert_eq!(died.reason(), Some(Reason::AgentError));
}
