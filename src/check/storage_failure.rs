//! Outcomes of failed calls to a mounted file system, for every check that makes such calls.

use nix::errno::Errno;

use super::checked::Checked;
use crate::model::Reason;
use crate::model::report::{Finding, finding};
use crate::sys::worker::FaultKind;
use crate::sys::{CallError, Response, WorkerFault};

/// The outcome of a check whose call to a mounted file system failed.
///
/// The error contains the deadline. A file system that itself reports a timeout, as a `soft` mount does, has the same
/// outcome as a file system that does not answer.
#[must_use]
pub fn storage_failure<T>(error: CallError) -> Checked<T> {
    match error {
        CallError::Fault(fault) => of_fault(&fault),
        CallError::TimedOut { after } => Checked::timed_out(finding!(
            Reason::StorageTimedOut,
            "the mounted file system did not answer within {} ms, although its server was reachable: check the load and the disks of the server, and `dmesg` on this host",
            after.as_millis()
        )),
        error @ CallError::Stuck(_) => Checked::failed(finding!(
            Reason::ProbeStuck,
            "{error}. It ends when the server answers, or after `umount -f` of the mount path"
        )),
        error @ CallError::NotReady { .. } => Checked::timed_out(finding!(
            Reason::AgentError,
            "{error}: this host is overloaded, and the storage was not queried. Check the load of this host"
        )),
        error @ CallError::Overloaded { .. } => Checked::timed_out(finding!(
            Reason::AgentError,
            "{error}: too many targets hang at the same time. Repair or delete those that are offline"
        )),
        // The death of a worker says nothing about the storage.
        error @ CallError::WorkerDied { .. } => Checked::timed_out(Finding::new(Reason::AgentError, error.to_string())),
        error @ (CallError::Spawn { .. } | CallError::Request { .. } | CallError::ShutDown) => {
            Checked::failed(Finding::new(Reason::AgentError, error.to_string()))
        }
    }
}

/// Outcome of a check whose worker sent the answer to another request.
pub(super) fn wrong_answer<T>(answer: &Response) -> Checked<T> {
    let message =
        format!("the probe worker sent the answer to another request: {answer:?}. This is a defect of the agent");
    Checked::failed(Finding::new(Reason::AgentError, message))
}

fn of_fault<T>(fault: &WorkerFault) -> Checked<T> {
    let (reason, advice) = match (fault.kind, fault.errno()) {
        (FaultKind::NotNfs | FaultKind::NotMounted, _) => {
            (Reason::NotMounted, "it was unmounted during the probe. The next one mounts it again")
        }
        (FaultKind::CanaryMismatch, _) => (
            Reason::CanaryMismatch,
            "the storage does not keep the data that is written to it. Do not trust it with backups",
        ),
        (FaultKind::NotEmpty | FaultKind::NotADirectory, _) => {
            (Reason::MountPointUnusable, "move it away. The agent creates the directory itself")
        }
        (FaultKind::Unprotected, _) => (
            Reason::MountPointUnusable,
            "the mount root and all its parents must belong to root and be writable by root only. Use `chown root:root` and `chmod go-w`",
        ),
        (FaultKind::Mounted, _) => (Reason::MountConflict, "unmount it, or choose another mount root"),
        (FaultKind::Identity, _) => (
            Reason::AgentError,
            "the agent must run as root or with CAP_SETUID and CAP_SETGID to write as the backup user, or disable the canary",
        ),
        (FaultKind::NoMountCopies, _) => (Reason::AgentError, "the kernel must be Linux 5.8 or later"),
        (FaultKind::BadRequest, _) => (Reason::AgentError, "this is a defect of the agent"),
        (FaultKind::System, Some(errno)) => of_errno(errno),
        (FaultKind::System, None) => (Reason::InputOutputError, "check `dmesg` on this host"),
    };
    let finding = finding!(reason, "{fault}: {advice}");
    if reason == Reason::StorageTimedOut { Checked::timed_out(finding) } else { Checked::failed(finding) }
}

fn of_errno(errno: Errno) -> (Reason, &'static str) {
    match errno {
        Errno::ESTALE => (Reason::StaleHandle, "the exported directory was replaced on the server"),
        Errno::ETIMEDOUT | Errno::EAGAIN => (Reason::StorageTimedOut, "the server does not answer"),
        Errno::EACCES | Errno::EPERM => (
            Reason::WriteDenied,
            "the server denies this host access to the exported directory: check its owner and mode, and the options of the export",
        ),
        Errno::EROFS => (Reason::ReadOnly, "export it read-write, and drop `ro` from the NFS options"),
        Errno::ENOSPC => (Reason::StorageFull, "delete old backups, or enlarge the storage"),
        Errno::EDQUOT => (Reason::QuotaExceeded, "raise the quota of the backup user on the server"),
        _ => (Reason::InputOutputError, "check the server's log and disks, and `dmesg` on this host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;
    use std::time::Duration;

    #[test]
    fn late_answer_is_a_timeout_and_an_error_is_a_failure() {
        let late = storage_failure::<()>(CallError::TimedOut { after: Duration::from_secs(2) });
        assert_eq!((late.outcome(), late.reason()), (Outcome::TimedOut, Some(Reason::StorageTimedOut)));
        for (errno, outcome, reason) in [
            (Errno::ETIMEDOUT, Outcome::TimedOut, Reason::StorageTimedOut),
            (Errno::ESTALE, Outcome::Failed, Reason::StaleHandle),
            (Errno::ENOSPC, Outcome::Failed, Reason::StorageFull),
            (Errno::EDQUOT, Outcome::Failed, Reason::QuotaExceeded),
            (Errno::EROFS, Outcome::Failed, Reason::ReadOnly),
            (Errno::EACCES, Outcome::Failed, Reason::WriteDenied),
            (Errno::EIO, Outcome::Failed, Reason::InputOutputError),
        ] {
            let fault = WorkerFault::system("write", std::path::Path::new("/m/x"), errno);
            let checked = storage_failure::<()>(CallError::Fault(fault));
            assert_eq!((checked.outcome(), checked.reason()), (outcome, Some(reason)), "{errno}");
            assert!(checked.finding().is_some_and(|finding| finding.message.contains("/m/x")));
        }
    }
}
