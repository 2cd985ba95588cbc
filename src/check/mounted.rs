//! `mounted`: this target's export is what is mounted at its path; mounted now if nothing is.
//!
//! [`super::mount_place`] identifies what is mounted there. Anything but this export is a conflict. A
//! conflicting mount is never used and never unmounted.

mod astray;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::Checked;
use super::mount_place::{MountPlace, Occupant};
use super::nfs_reachable::answers_nfs;
use super::storage_failure::{storage_failure, wrong_answer};
use crate::model::report::{Finding, MountFacts};
use crate::model::{NfsOptions, Outcome, Reason};
use crate::sys::{
    CommandError, Finished, Lane, MountEntry, MountTableWatch, Request, Response, WorkerPool, run_bounded,
};

/// The command that mounts NFS. It is called directly, so that the process that hangs is the known one.
pub const MOUNT_NFS: &str = "/sbin/mount.nfs";

/// Exit code of mount(8) and its helpers for a missing permission.
const EXIT_INCORRECT_USE: i32 = 1;

/// Messages of mount.nfs (nfs-utils `utils/mount/error.c`, `stropts.c`) with a definite meaning, and the
/// remedy.
const MOUNT_NFS_SAYS: &[(&str, Reason, &str)] = &[
    ("access denied by server", Reason::ExportDenied, "allow this host in the server's exports"),
    ("No such file or directory", Reason::ExportNotFound, "correct the path, or create and export it on the server"),
    ("Stale file handle", Reason::StaleHandle, "export the directory again on the server (exportfs -r)"),
    (
        "requested NFS version or transport protocol is not supported",
        Reason::NfsVersionUnsupported,
        "change nfsvers= in the NFS options",
    ),
    ("Protocol not supported", Reason::NfsVersionUnsupported, "change nfsvers= in the NFS options"),
    ("Connection refused", Reason::ConnectionRefused, "start the NFS server, and for NFSv3 its port mapper and mountd"),
    ("No route to host", Reason::HostUnreachable, "look at this host's routes and the server's firewall"),
    (
        "Operation not permitted",
        Reason::MountNotPermitted,
        "run the agent as root or with CAP_SYS_ADMIN, or with mode = \"none\"",
    ),
    (
        "must be superuser",
        Reason::MountNotPermitted,
        "run the agent as root or with CAP_SYS_ADMIN, or with mode = \"none\"",
    ),
    (
        "only root can",
        Reason::MountNotPermitted,
        "run the agent as root or with CAP_SYS_ADMIN, or with mode = \"none\"",
    ),
    ("No such device", Reason::MountFailed, "this kernel has no NFS client: load it with `modprobe nfs`"),
    ("unknown filesystem type", Reason::MountFailed, "this kernel has no NFS client: load it with `modprobe nfs`"),
    ("rpc.statd is not running", Reason::MountFailed, "add nolock to the NFS options, or start rpc-statd"),
    ("incorrect mount option", Reason::MountFailed, "correct the NFS options, see nfs(5)"),
];

/// Messages of mount.nfs that mean that the server did not answer.
const MOUNT_NFS_WAITED: &[&str] = &["Connection timed out", "timed out"];

/// A mount that is the target's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedHere {
    /// The kernel's id of the mount. Another id means that it was mounted again.
    pub mount_id: u32,
    /// Source of the mount according to the kernel. It names another host if the mount is shared.
    pub source: String,
    /// Facts about the mount.
    pub facts: MountFacts,
}

/// Checks whether the export is mounted, and mounts it if nothing is.
pub async fn mounted(
    workers: &WorkerPool,
    mounts: &MountTableWatch,
    lane: Lane,
    place: MountPlace<'_>,
    options: &NfsOptions,
    deadline: Duration,
    mount_deadline: Duration,
) -> Checked<MountedHere> {
    let mut table = match mounts.reread() {
        Ok(table) => table,
        Err(error) => return agent_error(format!("the mount table cannot be read: {error}")),
    };
    let mut hidden_files = None;
    let before = table.clone();
    if place.occupant(&table) == Occupant::Nobody {
        match prepare(workers, lane, place, deadline).await.into_fact() {
            Ok(finding) => hidden_files = finding,
            Err(checked) => return checked,
        }
        if let Some(failure) = mount(workers, place, options, mount_deadline).await {
            return failure;
        }
        table = match mounts.reread() {
            Ok(table) => table,
            Err(error) => return agent_error(format!("the mount table cannot be read: {error}")),
        };
    }
    match place.occupant(&table) {
        Occupant::Ours(entry, stacked) => {
            ours(place, entry, stacked, options, deadline).await.with_warnings(hidden_files)
        }
        Occupant::Stranger(entry) => Checked::failed(Finding::new(
            Reason::MountConflict,
            format!(
                "{} is mounted at {}, where {} belongs: unmount it, or if it is the same storage by another address, map that in [mounts] address_map. It was left alone",
                described(entry),
                place.path.display(),
                place.export
            ),
        )),
        Occupant::Nobody => {
            let message = format!(
                "{MOUNT_NFS} succeeded, and yet nothing is mounted at {}: the mount root must be a real directory and not lead through a symbolic link",
                place.path.display()
            );
            let undone = astray::undo(workers, mounts, lane, place, &place.new_mounts(&before, &table), deadline).await;
            Checked::failed(Finding::new(Reason::MountFailed, format!("{message}{undone}")))
        }
    }
}

/// Describes a mount with the server that it talks to.
fn described(entry: &MountEntry) -> String {
    let source = &entry.source;
    match (entry.server_address().filter(|_| entry.is_nfs()), entry.server_port()) {
        (Some(address), Some(port)) => format!("{source} (of {address} port {port})"),
        _ => source.clone(),
    }
}

/// Checks a mount of the target's export.
async fn ours(
    place: MountPlace<'_>,
    entry: &MountEntry,
    stacked: usize,
    options: &NfsOptions,
    deadline: Duration,
) -> Checked<MountedHere> {
    let here = MountedHere { mount_id: entry.mount_id, source: entry.source.clone(), facts: entry.facts() };
    let checked = Checked::passed(here)
        .detail(format!("{} as {} with {}", entry.source, entry.fs_type, entry.super_options))
        .and(writable(place.path, entry))
        .with_warnings(stacked_warning(place.path, stacked))
        .with_warnings(hard_warning(place.path, entry));
    match place.left_behind(entry) {
        Some(old) => checked.and(former_server(place, old, options, deadline).await),
        None => checked,
    }
}

/// Fails for a read-only mount.
fn writable(path: &Path, entry: &MountEntry) -> Checked {
    if !entry.is_read_only() {
        return Checked::passed(());
    }
    Checked::failed(Finding::new(
        Reason::ReadOnly,
        format!(
            "{} is mounted read-only at {}: `mount -o remount,rw` it, export it read-write, and drop `ro` from the NFS options",
            entry.source,
            path.display()
        ),
    ))
}

/// Checks the server that the mount still talks to, after the name of the server was moved to another
/// address. The check `reachable` asked the new server, but every access to the mount waits for the old one.
async fn former_server(place: MountPlace<'_>, old: SocketAddr, options: &NfsOptions, deadline: Duration) -> Checked {
    let asked = answers_nfs(&old.ip().to_string(), old.port(), options.version(), deadline).await;
    let (name, at) = (place.export_here.address(), place.path.display());
    let given = place.servers.given().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let moved = |of_the_old: &str, unmount: &str| {
        Finding::new(
            Reason::ServerMoved,
            format!(
                "{name} leads to {given} now, and what is mounted at {at} still talks to {}, {of_the_old}: {unmount} `umount {at}`; the agent mounts it again, from {given}",
                old.ip()
            ),
        )
    };
    match asked.into_fact::<()>() {
        Ok(_) => Checked::passed(()).with_warnings([moved("which answers", "after backups have ended")]),
        Err(failed) => {
            let why = failed.finding().map_or_else(String::new, |finding| format!(" ({})", finding.message));
            let finding = moved(&format!("which does not answer{why}"), "end what uses it and");
            let is_definite = failed.outcome() == Outcome::Failed;
            if is_definite { Checked::failed(finding) } else { Checked::timed_out(finding) }
        }
    }
}

fn stacked_warning(path: &Path, stacked: usize) -> Option<Finding> {
    (stacked > 1).then(|| {
        let path = path.display();
        Finding::new(
            Reason::MountStacked,
            format!("{stacked} file systems are mounted on top of each other at {path}: `umount {path}` until findmnt shows one"),
        )
    })
}

fn hard_warning(path: &Path, entry: &MountEntry) -> Option<Finding> {
    entry.facts().is_hard.then(|| {
        Finding::new(
            Reason::HardMount,
            format!(
                "the mount at {} is a hard one: whoever uses it waits for as long as its server is away, backups included; add soft, timeo= and retrans= to the NFS options and mount it again, unless that is what you want",
                path.display()
            ),
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
    place: MountPlace<'_>,
    deadline: Duration,
) -> Checked<Option<Finding>> {
    let request = Request::PrepareMountPoint { root: place.root.to_owned(), relative: place.name.as_str().into() };
    match workers.call(place.target, lane, request, deadline).await {
        Ok(Response::Prepared(prepared)) => Checked::passed(prepared.holds_files.then(|| {
            Finding::new(
                Reason::MountPointHoldsFiles,
                format!(
                    "the bare directory {} held files, which the mount now hides: backups may have been written to this host's own disk; unmount it to look",
                    place.path.display()
                ),
            )
        })),
        Ok(other) => wrong_answer(&other),
        Err(error) => {
            let checked: Checked<Option<Finding>> = storage_failure(error);
            match checked.finding() {
                // The mount point is on this host, so a finding about a server does not apply.
                Some(finding) if finding.reason != Reason::AgentError && finding.reason != Reason::ProbeStuck => {
                    let message = format!("the mount directory cannot be made: {}", finding.message);
                    Checked::failed(Finding::new(Reason::MountPointUnusable, message))
                }
                _ => checked,
            }
        }
    }
}

/// Mounts the export. `None` when mount.nfs reports success.
async fn mount<T>(
    workers: &WorkerPool,
    place: MountPlace<'_>,
    options: &NfsOptions,
    deadline: Duration,
) -> Option<Checked<T>> {
    let arguments: [OsString; 4] =
        [place.export_here.to_string().into(), place.path.into(), "-o".into(), options.for_mount().into()];
    match run_bounded(workers.census(), place.target, Path::new(MOUNT_NFS), &arguments, deadline).await {
        Ok(finished) if finished.is_success() => None,
        Ok(finished) => Some(mount_refused(&finished)),
        Err(error) => Some(not_run(&error)),
    }
}

fn mount_refused<T>(finished: &Finished) -> Checked<T> {
    let words = finished.stderr.trim().replace('\n', "; ");
    let words = if words.is_empty() { format!("exit code {:?}", finished.code) } else { words };
    if let Some((_, reason, advice)) = MOUNT_NFS_SAYS.iter().find(|(says, ..)| words.contains(says)) {
        return Checked::failed(Finding::new(*reason, format!("{words}: {advice}")));
    }
    if MOUNT_NFS_WAITED.iter().any(|says| words.contains(says)) {
        let advice = "the server answers NULL but not the mount: look at its load, its mountd, and the firewall";
        return Checked::timed_out(Finding::new(Reason::MountTimedOut, format!("{words}: {advice}")));
    }
    let advice =
        if finished.code == Some(EXIT_INCORRECT_USE) { "check the NFS options, see nfs(5)" } else { "see nfs(5)" };
    Checked::failed(Finding::new(Reason::MountFailed, format!("{words}: {advice}")))
}

fn not_run<T>(error: &CommandError) -> Checked<T> {
    match error {
        CommandError::NotFound(program) => Checked::failed(Finding::new(
            Reason::MountHelperMissing,
            format!(
                "{} is not installed: install nfs-common (Debian, Ubuntu) or nfs-utils (RHEL, SUSE)",
                program.display()
            ),
        )),
        CommandError::TimedOut { unkillable: Some(_), .. } => Checked::failed(Finding::new(
            Reason::ProbeStuck,
            format!("{error}, and does not die; this target is left alone until it is gone"),
        )),
        CommandError::TimedOut { .. } => Checked::timed_out(Finding::new(
            Reason::MountTimedOut,
            format!(
                "{error}: the server answers NULL but not the mount; look at its load, its mountd, and the firewall"
            ),
        )),
        CommandError::Claim { .. } => Checked::failed(Finding::new(Reason::ProbeStuck, error.to_string())),
        CommandError::Spawn { .. } => Checked::failed(Finding::new(Reason::AgentError, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::server_addresses::ServerAddresses;
    use crate::model::{MountName, NfsExport, NfsTarget, PathKey, TargetId, TargetSpec};
    use crate::sys::MountTable;

    #[tokio::test]
    async fn mount_reports_read_only_stacked_and_hard_together() {
        let export = NfsExport::parse("nas:/b").expect("an export");
        let name =
            MountName::derive(&TargetSpec::Nfs(NfsTarget { export: export.clone() }), PathKey::Path).expect("a name");
        let (root, servers, options) =
            (Path::new("/m"), ServerAddresses::default(), NfsOptions::parse("soft").expect("options"));
        let path = name.below(root);
        let place = MountPlace {
            target: TargetId::nil(),
            export: &export,
            export_here: &export,
            servers: &servers,
            port: options.port(),
            root,
            name: &name,
            path: &path,
        };
        let at = path.display();
        let table = format!("2 1 0:2 / {at} rw - tmpfs t rw\n3 2 0:3 / {at} ro - nfs nas:/b rw,hard\n");
        let table = MountTable::parse(table.as_bytes());
        let Occupant::Ours(entry, stacked) = place.occupant(&table) else { panic!("the export is mounted") };
        let checked = ours(place, entry, stacked, &options, Duration::ZERO).await;
        let reasons: Vec<Reason> = checked.findings().iter().map(|finding| finding.reason).collect();
        assert_eq!(checked.outcome(), Outcome::Failed);
        assert_eq!(reasons, [Reason::ReadOnly, Reason::MountStacked, Reason::HardMount]);
    }

    fn refused(code: i32, stderr: &str) -> Checked {
        let stderr = stderr.to_owned();
        let (code, signal, stdout, duration) = (Some(code), None, String::new(), Duration::ZERO);
        mount_refused(&Finished { code, signal, stdout, stderr, duration })
    }

    #[test]
    fn the_words_of_mount_nfs_become_reasons() {
        for (words, reason) in [
            ("mount.nfs: access denied by server while mounting nas:/b", Reason::ExportDenied),
            (
                "mount.nfs: mounting nas:/b failed, reason given by server: No such file or directory",
                Reason::ExportNotFound,
            ),
            (
                "mount.nfs: requested NFS version or transport protocol is not supported for /m",
                Reason::NfsVersionUnsupported,
            ),
            ("mount.nfs: Operation not permitted for nas:/b on /m", Reason::MountNotPermitted),
            ("mount.nfs: an incorrect mount option was specified", Reason::MountFailed),
            ("mount.nfs: what nobody has seen", Reason::MountFailed),
        ] {
            let checked = refused(32, words);
            assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(reason)), "{words}");
            assert!(checked.finding().is_some_and(|finding| finding.message.contains(words)));
        }
        let waited = refused(32, "mount.nfs: Connection timed out for nas:/b on /m");
        assert_eq!((waited.outcome(), waited.reason()), (Outcome::TimedOut, Some(Reason::MountTimedOut)));
    }
}
