//! Tests with mounts of a mount table, and with mount points that cannot be created.

use std::net::IpAddr;

use super::*;
use crate::check::own_mounts::OwnMounts;
use crate::check::server_addresses::ServerAddresses;
use crate::model::{MountName, NfsExport, NfsTarget, PathKey, TargetId, TargetSpec};
use crate::sys::{MountTable, WorkerFault};

/// Calls `look` for `nas:/b` on a host that reaches it at these addresses, one after the other.
async fn with_expected<T>(
    options: &NfsOptions,
    resolved: &[IpAddr],
    look: impl AsyncFnOnce(ExpectedMount<'_>) -> T,
) -> T {
    let export = NfsExport::parse("nas:/b").expect("an export");
    let name = MountName::derive(
        &TargetSpec::Nfs(NfsTarget { export: export.clone(), options: None, mode: None }),
        PathKey::Path,
    )
    .expect("a name");
    let mut addresses = ServerAddresses::default();
    for address in resolved {
        addresses.update("nas", vec![*address]);
    }
    let root = Path::new("/m");
    let (path, own) = (name.below(root), OwnMounts::default());
    look(ExpectedMount {
        target: TargetId::nil(),
        export: &export,
        mapped_export: &export,
        addresses: &addresses,
        own: &own,
        options,
        root,
        relative: Path::new(name.as_str()),
        path: &path,
        is_private: false,
    })
    .await
}

/// Checks the mount of `nas:/b` with these lines of the mount table.
async fn checked(options: &str, resolved: &[IpAddr], lines: &str) -> Checked<OwnMount> {
    let options = NfsOptions::parse(options).expect("options");
    with_expected(&options, resolved, async |expected| {
        let lines = lines.replace("AT", &expected.path.display().to_string());
        let table = MountTable::parse(lines.as_bytes());
        expected.own.begin(expected.target, Duration::ZERO);
        expected.settle(&table, MountCommand::Succeeded);
        let PathMount::Own(entry, stacked) = expected.at_path(&table) else { panic!("the export is mounted") };
        own_mount(expected, entry, stacked, Duration::from_secs(1)).await
    })
    .await
}

/// A port at which nothing listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[tokio::test]
async fn dead_server_of_the_mount_is_found_after_port_or_name_changed() {
    let (here, elsewhere) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
    let dead = closed_port();
    let lines = format!("2 1 0:2 / AT rw - nfs nas:/b rw,port={dead},addr=127.0.0.1\n");
    for (options, resolved, says) in [
        ("port=1", &[here][..], "the NFS options say port 1,"),
        (&*format!("port={dead}"), &[here, elsewhere][..], "nas now has the address 127.0.0.2"),
        // A name that seems to rotate.
        (
            &*format!("port={dead}"),
            &[here, elsewhere, here, elsewhere, here, elsewhere],
            "nas now has the address 127.0.0.2",
        ),
    ] {
        let checked = checked(options, resolved, &lines).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::ServerMoved)), "{resolved:?}");
        let message = checked.finding().map_or("", |finding| finding.message.as_str());
        assert!(message.starts_with(says) && message.contains("does not answer"), "{message}");
    }
}

#[tokio::test]
async fn conflict_is_called_an_automount_only_if_it_is_one() {
    let options = NfsOptions::parse("soft").expect("options");
    for (line, is_automount) in [
        ("2 1 0:2 / AT rw - autofs systemd-1 rw,direct", true),
        ("2 1 0:2 / AT rw - autofs /etc/auto.nfs rw,direct", true),
        ("2 1 0:2 / AT rw - tmpfs autofs rw", false),
    ] {
        with_expected(&options, &[], async |expected| {
            let table = MountTable::parse(line.replace("AT", &expected.path.display().to_string()).as_bytes());
            let PathMount::Foreign(entry) = expected.at_path(&table) else { panic!("{line}") };
            let finding = conflict(expected, entry);
            assert_eq!(finding.reason, Reason::MountConflict);
            assert_eq!(finding.message.contains("automount point"), is_automount, "{}", finding.message);
        })
        .await;
    }
}

#[tokio::test]
async fn mount_reports_read_only_stacked_hard_and_other_options_together() {
    let lines = "2 1 0:2 / AT rw - tmpfs t rw\n3 2 0:3 / AT ro - nfs nas:/b rw,hard\n";
    let checked = checked("soft", &[], lines).await;
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
