//! `mounted`: the target's export is mounted at its path. If nothing is mounted there, the check mounts it.
//!
//! [`super::expected_mount`] identifies the mount. Any other mount at the path is a conflict. A conflicting mount
//! is never used and never unmounted.

mod misplaced;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::checked::Checked;
use super::expected_mount::{ExpectedMount, MountCommand, PathMount};
use super::mount_failure::{command_failure, mount_failure};
use super::nfs_reachable::answers_nfs;
use super::storage_failure::{storage_failure, wrong_answer};
use crate::model::report::{Finding, MountFacts, finding};
use crate::model::{NfsOptions, Outcome, Reason};
use crate::sys::worker::FaultKind;
use crate::sys::{
    CallError, CommandError, Lane, MountEntry, MountStatsCache, MountTableWatch, Request, Response, WorkerPool,
    may_mount, run_bounded,
};

/// Command that mounts NFS. The agent calls it directly, so that the process that may hang is its own child.
pub const MOUNT_NFS: &str = "/sbin/mount.nfs";

/// Mount of the target's export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMount {
    /// The kernel's id of the mount. Another id means that it was mounted again.
    pub mount_id: u32,
    /// Source of the mount according to the kernel. It names another host if the mount is shared.
    pub source: String,
    /// Facts about the mount.
    pub facts: MountFacts,
}

/// Checks whether the export is mounted, and mounts it if nothing is mounted at the path.
pub async fn mounted(
    workers: &WorkerPool,
    (mounts, stats): (&MountTableWatch, &MountStatsCache),
    lane: Lane,
    expected: ExpectedMount<'_>,
    deadline: Duration,
    mount_deadline: Duration,
) -> Checked<OwnMount> {
    let earlier_command = || MountCommand::earlier(workers.census(), expected.target);
    let mut table = match mounts.reread() {
        Ok(table) => table,
        Err(error) => return agent_error(format!("the mount table cannot be read: {error}")),
    };
    expected.resume(&table, stats).await;
    expected.settle(&table, earlier_command());
    let mut hidden_files = None;
    let before = table.clone();
    if expected.at_path(&table) == PathMount::None {
        match prepare(workers, lane, expected, deadline).await.into_fact() {
            Ok(finding) => hidden_files = finding,
            Err(checked) => return checked,
        }
        if let Some(failure) = mount(workers, expected, mount_deadline).await {
            // A killed command has mounted by now or never will, unless it cannot be killed. So a mount that appears
            // later was made by another process.
            if let Ok(table) = mounts.reread() {
                expected.settle(&table, earlier_command());
            }
            return failure;
        }
        table = match mounts.reread() {
            Ok(table) => table,
            Err(error) => return agent_error(format!("the mount table cannot be read: {error}")),
        };
        expected.settle(&table, MountCommand::Succeeded);
    }
    match expected.at_path(&table) {
        PathMount::Own(entry, stacked) => {
            own_mount(expected, entry, stacked, deadline).await.with_warnings(hidden_files)
        }
        PathMount::Foreign(entry) => Checked::failed(conflict(expected, entry)),
        PathMount::None => {
            let message = format!(
                "{MOUNT_NFS} succeeded, but nothing is mounted at {}: the path of the mount root must not contain a symbolic link",
                expected.path.display()
            );
            let undone =
                misplaced::undo(workers, mounts, lane, expected, &expected.new_mounts(&before, &table), deadline).await;
            Checked::failed(finding!(Reason::MountFailed, "{message}{undone}"))
        }
    }
}

/// Finding for a foreign mount at the mount path.
fn conflict(expected: ExpectedMount<'_>, entry: &MountEntry) -> Finding {
    let at = expected.path.display();
    let message = if entry.is_automount() {
        format!(
            "an automount point ({}) is at {at}, and nothing is mounted on it now: the agent mounts {} itself, so stop and disable the automount. For systemd, `systemctl list-units --type=automount` shows its unit. For autofs, remove {at} from its maps",
            entry.source, expected.export
        )
    } else {
        format!(
            "{} is mounted at {at} instead of {}: unmount it, or if it is the same storage by another address, map the address in [mounts] address_map. The agent did not touch it",
            described(entry),
            expected.export
        )
    };
    Finding::new(Reason::MountConflict, message)
}

/// Describes a mount with its source and the server that it uses.
fn described(entry: &MountEntry) -> String {
    let source = &entry.source;
    match (entry.server_address().filter(|_| entry.is_nfs()), entry.server_port()) {
        (Some(address), Some(port)) => format!("{source} (on {address} port {port})"),
        _ => source.clone(),
    }
}

/// Checks a mount of the target's export.
async fn own_mount(
    expected: ExpectedMount<'_>,
    entry: &MountEntry,
    stacked: usize,
    deadline: Duration,
) -> Checked<OwnMount> {
    let here = OwnMount { mount_id: entry.mount_id, source: entry.source.clone(), facts: entry.facts() };
    let checked = Checked::passed(here)
        .detail(format!("{} as {} with {}", entry.source, entry.fs_type, entry.super_options))
        .and(writable(expected.path, entry))
        .with_warnings(stacked_warning(expected.path, stacked))
        .with_warnings(hard_warning(expected.path, entry).filter(|_| !expected.is_private))
        .with_warnings(options_warning(expected.path, entry, expected.options));
    match expected.former_server(entry) {
        Some(old) => checked.and(former_server(expected, old, deadline).await),
        None => checked,
    }
}

/// Fails for a read-only mount.
fn writable(path: &Path, entry: &MountEntry) -> Checked {
    if !entry.is_read_only() {
        return Checked::passed(());
    }
    Checked::failed(finding!(
        Reason::ReadOnly,
        "{} is mounted read-only at {}: `mount -o remount,rw` it, export it read-write, and drop `ro` from the NFS options",
        entry.source,
        path.display()
    ))
}

/// Checks the server that the mount still uses after the server's name moved to another address, or after the port in
/// the options changed. The check `reachable` probed the new server, but every access to the mount waits for the former
/// one.
async fn former_server(expected: ExpectedMount<'_>, old: SocketAddr, deadline: Duration) -> Checked {
    let answer = answers_nfs(&old.ip().to_string(), old.port(), expected.options.version(), deadline).await;
    let (name, at) = (expected.mapped_export.address(), expected.path.display());
    let is_other_port = old.port() != expected.options.port();
    let moved = |state: &str, unmount: &str| {
        let (now, used, new) = if is_other_port {
            let port = expected.options.port();
            (
                format!("the NFS options say port {port}"),
                format!("port {} of {}", old.port(), old.ip()),
                format!("port {port}"),
            )
        } else {
            let addresses = expected.addresses.current().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            (format!("{name} now has the address {addresses}"), old.ip().to_string(), addresses)
        };
        finding!(
            Reason::ServerMoved,
            "{now}, but the mount at {at} still uses {used}, {state}: {unmount} `umount {at}`; the agent then mounts the export from {new}"
        )
    };
    match answer.into_fact::<()>() {
        // The name rotates, and the mount uses one of its servers.
        Ok(_) if !is_other_port && !expected.addresses.has_left(old.ip()) => Checked::passed(()),
        Ok(_) => Checked::passed(()).with_warnings([moved("which answers", "after backups have ended,")]),
        Err(failed) => {
            let why = failed.finding().map_or_else(String::new, |finding| format!(" ({})", finding.message));
            let finding = moved(&format!("which does not answer{why}"), "end the processes that use it, and");
            let is_definite = failed.outcome() == Outcome::Failed;
            if is_definite { Checked::failed(finding) } else { Checked::timed_out(finding) }
        }
    }
}

pub(super) fn stacked_warning(path: &Path, stacked: usize) -> Option<Finding> {
    (stacked > 1).then(|| {
        let path = path.display();
        finding!(
            Reason::MountStacked,
            "{stacked} file systems are mounted on top of each other at {path}: `umount {path}` until findmnt shows one"
        )
    })
}

pub(super) fn hard_warning(path: &Path, entry: &MountEntry) -> Option<Finding> {
    entry.facts().is_hard.then(|| {
        finding!(
            Reason::HardMount,
            "the mount at {} is a hard mount: every process that uses it, including backups, waits as long as its server is down. Unless you want that, add soft, timeo= and retrans= to the NFS options and mount it again",
            path.display()
        )
    })
}

fn options_warning(path: &Path, entry: &MountEntry, options: &NfsOptions) -> Option<Finding> {
    let differences = options.differences(&entry.super_options);
    (!differences.is_empty()).then(|| {
        let path = path.display();
        finding!(
            Reason::MountOptionsDiffer,
            "the mount at {path} has {}: after backups have ended, `umount {path}`; the agent then mounts the export with its options",
            differences.join(", ")
        )
    })
}

fn agent_error<T>(message: String) -> Checked<T> {
    Checked::failed(Finding::new(Reason::AgentError, message))
}

/// Creates the mount point. The fact is a warning about it.
async fn prepare(
    workers: &WorkerPool,
    lane: Lane,
    expected: ExpectedMount<'_>,
    deadline: Duration,
) -> Checked<Option<Finding>> {
    let request = Request::PrepareMountPoint {
        root: expected.root.to_owned(),
        relative: expected.relative.to_owned(),
        is_private: expected.is_private,
    };
    match workers.call(expected.target, lane, request, deadline).await {
        Ok(Response::Prepared(prepared)) => Checked::passed(prepared.holds_files.then(|| {
            finding!(
                Reason::MountPointHoldsFiles,
                "the mount hides files in the directory {} below it: backups may have been written to this host's own disk. Unmount it to look",
                expected.path.display()
            )
        })),
        Ok(other) => wrong_answer(&other),
        Err(error) => unprepared(error),
    }
}

/// Outcome when the mount point cannot be created. The mount point is on this host, so advice about a server would be
/// wrong.
pub(super) fn unprepared<T>(error: CallError) -> Checked<T> {
    let message = match &error {
        CallError::Fault(fault) if fault.kind == FaultKind::System => {
            let advice = match fault.errno() {
                Some(Errno::EROFS) => "mount its file system on this host read-write, or choose another mount root",
                Some(Errno::EACCES | Errno::EPERM) => {
                    "run the agent as root, and check the attributes (lsattr) and the security policy of its parent"
                }
                Some(Errno::ENOSPC | Errno::EDQUOT) => "free space or inodes on its file system on this host",
                _ => "check `dmesg` on this host",
            };
            format!("{fault}: {advice}")
        }
        CallError::TimedOut { after } => {
            format!("no answer within {} ms: check `dmesg` on this host", after.as_millis())
        }
        _ => {
            let checked = storage_failure(error);
            match checked.finding() {
                Some(finding) if finding.reason != Reason::AgentError && finding.reason != Reason::ProbeStuck => {
                    finding.message.clone()
                }
                _ => return checked,
            }
        }
    };
    let message = format!("the mount directory cannot be created: {message}");
    Checked::failed(Finding::new(Reason::MountPointUnusable, message))
}

/// Mounts the export. `None` when mount.nfs reports success.
async fn mount<T>(workers: &WorkerPool, expected: ExpectedMount<'_>, deadline: Duration) -> Option<Checked<T>> {
    let options = expected.options;
    let arguments: [OsString; 4] =
        [expected.mapped_export.to_string().into(), expected.path.into(), "-o".into(), options.for_mount().into()];
    expected.own.begin(expected.target, deadline);
    expected.own.wait_until_saved(expected.target).await;
    let outcome = run_bounded(workers.census(), expected.target, Path::new(MOUNT_NFS), &arguments, deadline).await;
    // A killed command may have mounted before it was killed.
    let may_have_mounted = match &outcome {
        Ok(finished) => finished.is_success() || finished.signal.is_some(),
        Err(error) => matches!(error, CommandError::TimedOut { .. }),
    };
    if !may_have_mounted {
        expected.own.give_up(expected.target);
    }
    match outcome {
        Ok(finished) if finished.is_success() => None,
        Ok(finished) => Some(mount_failure(&finished, options, may_mount())),
        Err(error) => Some(command_failure(&error)),
    }
}

#[cfg(test)]
mod tests;
