//! `in_use`: the mount that another program made at the target's mount path.
//!
//! Backup software may mount a target only while a job needs it. So nothing at the path is normal. A mount there must
//! be the right one, be writable and answer. It is measured through a copy ([`Request::StatMount`]), so that its owner
//! can always unmount it. An owner may also abort the requests of the mount before it unmounts it (`umount -f`). So an
//! error counts like a timeout: it becomes a failure if it lasts, and none if the mount is gone by then.
//!
//! The storage itself is verified by the other checks. So a problem of this mount is a warning, unless
//! `[mounts] in_use_failure` makes it a failure.

use std::path::Path;

use jiff::Timestamp;

use super::checked::Checked;
use super::expected_mount::{ExpectedMount, PathMount};
use super::mounted::{hard_warning, stacked_warning};
use crate::model::report::{InUseFacts, Severity, finding};
use crate::model::settings::AgentSettings;
use crate::model::{MountName, Outcome, Reason, TargetId};
use crate::sys::worker::FaultKind;
use crate::sys::{CallError, Lane, MountEntry, MountTable, MountTableWatch, Request, WorkerPool};

/// What is known about the mount of another program since earlier probes.
#[derive(Debug)]
pub struct InUseWatch {
    /// Owner of the worker calls. A call that hangs in the mount must not occupy the only child of the target.
    claim: TargetId,
    /// The mount, and when it was first seen.
    seen: Option<(u32, Timestamp)>,
    /// The mount that did not answer the latest call.
    hanging: Option<u32>,
}

impl Default for InUseWatch {
    fn default() -> Self {
        Self { claim: TargetId::new_v4(), seen: None, hanging: None }
    }
}

impl InUseWatch {
    /// Returns when a mount was first seen. `None` stands for no mount.
    fn first_seen(&mut self, mount_id: Option<u32>) -> Option<Timestamp> {
        let known = self.seen.filter(|(known, _)| Some(*known) == mount_id);
        self.seen = known.or_else(|| Some((mount_id?, Timestamp::now())));
        self.seen.map(|(_, at)| at)
    }
}

/// A mount at the mount path according to the mount table.
pub struct FoundMount<'t> {
    entry: &'t MountEntry,
    /// What the mount table tells about it.
    judged: Checked,
}

/// Returns the mount at the mount path of an NFS target, if there is one. The kernel may show another source than the
/// export, such as a resolved path. It then shows the same for the private mount, as `private_source`.
#[must_use]
pub fn nfs_at<'t>(
    expected: ExpectedMount<'_>,
    private_source: Option<&str>,
    table: &'t MountTable,
) -> Option<FoundMount<'t>> {
    let path = expected.path;
    let is_resolved = |entry: &MountEntry| entry.is_nfs() && Some(entry.source.as_str()) == private_source;
    let found = match expected.at_path(table) {
        PathMount::Foreign(entry) if is_resolved(entry) => PathMount::Own(entry, table.stacked_at(path)),
        found => found,
    };
    match found {
        PathMount::None => None,
        PathMount::Foreign(entry) if entry.is_automount() => None,
        PathMount::Foreign(entry) => {
            let judged = Checked::failed(finding!(
                Reason::MountConflict,
                "{} is mounted at {} instead of {}, so a job would write its backup there: unmount it, or if it is the same storage by another address, map the address in [mounts] address_map",
                entry.source,
                path.display(),
                expected.export
            ));
            Some(FoundMount { entry, judged })
        }
        PathMount::Own(entry, stacked) => {
            let differences = expected.options.differences(&entry.super_options);
            let options_differ = (!differences.is_empty()).then(|| {
                finding!(
                    Reason::MountOptionsDiffer,
                    "the mount at {} has {}: correct the mount options of the program that mounts it, or those of the target",
                    path.display(),
                    differences.join(", ")
                )
            });
            let judged = writable(path, entry)
                .with_warnings(stacked_warning(path, stacked))
                .with_warnings(hard_warning(path, entry))
                .with_warnings(options_differ);
            Some(FoundMount { entry, judged })
        }
    }
}

/// Returns the mount at the mount path of an S3 target, if there is one. Programs that mount buckets name their source
/// as they like, so it is not compared.
#[must_use]
pub fn bucket_at<'t>(path: &Path, table: &'t MountTable) -> Option<FoundMount<'t>> {
    let entry = table.topmost_at(path).filter(|entry| !entry.is_automount())?;
    let judged = writable(path, entry).with_warnings(stacked_warning(path, table.stacked_at(path)));
    Some(FoundMount { entry, judged })
}

fn writable(path: &Path, entry: &MountEntry) -> Checked {
    if !entry.is_read_only() {
        return Checked::passed(());
    }
    Checked::failed(finding!(
        Reason::ReadOnly,
        "{} is mounted read-only at {}, so a job cannot write its backup: the program that mounted it must mount it read-write",
        entry.source,
        path.display()
    ))
}

/// Verifies the mount that another program made at a mount path, if there is one. `find` finds it in the mount table.
/// Unless `is_measured` is set, the file system itself is not accessed.
pub async fn in_use(
    (workers, mounts): (&WorkerPool, &MountTableWatch),
    (root, name): (&Path, &MountName),
    settings: &AgentSettings,
    watch: &mut InUseWatch,
    is_measured: bool,
    find: impl for<'t> Fn(&'t MountTable) -> Option<FoundMount<'t>>,
) -> Checked<Option<Box<InUseFacts>>> {
    let path = name.below(root);
    let nothing =
        |why: &str| Checked::not_needed(format!("nothing is mounted at {}{why}", path.display())).with_fact(None);
    let table = match mounts.reread() {
        Ok(table) => table,
        Err(error) => return Checked::not_needed(format!("not verified: the mount table cannot be read: {error}")),
    };
    let found = find(&table);
    let seen_at = watch.first_seen(found.as_ref().map(|found| found.entry.mount_id));
    let (Some(FoundMount { entry, judged }), Some(first_seen_at)) = (found, seen_at) else {
        return nothing(", which is normal while no job runs");
    };
    let is_automounted = table.entries().iter().any(|below| below.mount_point == path && below.is_automount());
    let answered = if !is_measured {
        not_verified("because an earlier check did not pass")
    } else if is_automounted {
        // An access would keep it mounted, or mount it.
        not_verified("because an automount point is below it")
    } else {
        let (root, relative) = (root.to_owned(), name.as_str().into());
        let request = Request::StatMount { root, relative, user: fuse_user(entry) };
        let answer = workers.call(watch.claim, Lane::Suspect, request, settings.probe.deadline).await;
        let is_same = |table: &MountTable| {
            table.topmost_at(&path).is_some_and(|now| (now.mount_id, &now.device) == (entry.mount_id, &entry.device))
        };
        if !mounts.reread().is_ok_and(|table| is_same(&table)) {
            return nothing(": it was unmounted during this probe");
        }
        let known = watch.hanging.take().filter(|hanging| *hanging == entry.mount_id);
        let hangs = matches!(answer, Err(CallError::TimedOut { .. }));
        let is_stuck = matches!(answer, Err(CallError::Stuck(_)));
        watch.hanging = if hangs { Some(entry.mount_id) } else { known.filter(|_| is_stuck) };
        answered(&path, entry, answer.err(), known.is_some())
    };
    let detail = format!("{} as {} with {}", entry.source, entry.fs_type, entry.super_options);
    let detail = answered.detail.as_ref().map_or_else(|| detail.clone(), |more| format!("{detail}; {more}"));
    let options = entry.facts().options;
    let facts = InUseFacts { source: entry.source.clone(), fs_type: entry.fs_type.clone(), options, first_seen_at };
    // An entry of the mount table is more definite than a missing answer.
    let checked = if judged.outcome() == Outcome::Passed {
        let warnings = judged.findings;
        Checked { findings: answered.findings.into_iter().chain(warnings).collect(), ..answered }
    } else {
        judged
    };
    with_severity(checked.detail(detail), settings.mounts.in_use_failure).with_fact(Some(Box::new(facts)))
}

fn not_verified(why: &str) -> Checked {
    Checked::not_needed(format!("whether it answers is not verified, {why}"))
}

/// User and group that mounted a FUSE file system. It refuses all others, root too, unless it was mounted with
/// `allow_other` (`fuse_show_options` in `fs/fuse/inode.c`).
fn fuse_user(entry: &MountEntry) -> Option<(u32, u32)> {
    if entry.fs_type != "fuse" && !entry.fs_type.starts_with("fuse.") {
        return None;
    }
    let value = |key| entry.super_options.split(',').find_map(|option| option.strip_prefix(key)?.parse().ok());
    Some((value("user_id=")?, value("group_id=")?))
}

/// Judges the answer of the file system, from the error of the worker that measured it. `did_hang` says whether the
/// same mount did not answer the call before.
fn answered(path: &Path, entry: &MountEntry, error: Option<CallError>, did_hang: bool) -> Checked {
    let at = path.display();
    let hangs = |how: String| {
        Checked::timed_out(finding!(
            Reason::MountHangs,
            "{} is mounted at {at} as {}, and {how}: a job that uses the mount waits for it. Check the program or the server behind it. When no job needs it any more, `umount -l {at}`",
            entry.source,
            entry.fs_type
        ))
    };
    match error {
        None => Checked::passed(()),
        Some(CallError::TimedOut { after }) => hangs(format!("does not answer within {} ms", after.as_millis())),
        Some(error @ CallError::Stuck(_)) if did_hang => hangs(format!("did not answer an earlier probe ({error})")),
        Some(CallError::Fault(fault)) if fault.kind == FaultKind::System => Checked::timed_out(finding!(
            Reason::MountBroken,
            "{} is mounted at {at} as {}, and answers with an error ({fault}): a job that uses the mount fails. Its owner must unmount it and mount it again. If nothing does so, `umount -l {at}`",
            entry.source,
            entry.fs_type
        )),
        // The failure is the agent's, and says nothing about the mount.
        Some(error) => not_verified(&format!("because {error}")),
    }
}

/// Turns failures into warnings, unless failures are configured.
fn with_severity(checked: Checked, severity: Severity) -> Checked<Option<Box<InUseFacts>>> {
    let Checked { outcome, findings, detail, .. } = checked;
    let checked = match severity {
        Severity::Failure => Checked { outcome, findings, detail: None, fact: None },
        Severity::Warning => {
            let outcome = if outcome == Outcome::Skipped { outcome } else { Outcome::Passed };
            Checked { outcome, findings: Vec::new(), detail: None, fact: None }.with_warnings(findings)
        }
    };
    Checked { detail, ..checked }
}

#[cfg(test)]
mod tests;
