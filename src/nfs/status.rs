//! Status of an NFS reply. Versions 3 and 4 share most of the numbers (RFC 1813 §2.6, RFC 8881 §15).

use std::fmt;

use nfs3_types::nfs3::nfsstat3;

use crate::model::Reason;

/// Status with which a server answered a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NfsStatus {
    version: u32,
    code: u32,
}

impl NfsStatus {
    pub(super) const PERM: u32 = 1;
    pub(super) const NOENT: u32 = 2;
    pub(super) const IO: u32 = 5;
    pub(super) const ACCES: u32 = 13;
    pub(super) const NOTDIR: u32 = 20;
    pub(super) const NOSPC: u32 = 28;
    pub(super) const ROFS: u32 = 30;
    pub(super) const DQUOT: u32 = 69;
    pub(super) const STALE: u32 = 70;
    pub(super) const BADHANDLE: u32 = 10001;
    /// `NFS3ERR_JUKEBOX` in version 3.
    pub(super) const DELAY: u32 = 10008;
    pub(super) const GRACE: u32 = 10013;
    pub(super) const FHEXPIRED: u32 = 10014;
    pub(super) const WRONGSEC: u32 = 10016;
    pub(super) const RESOURCE: u32 = 10018;
    pub(super) const MOVED: u32 = 10019;
    pub(super) const MINOR_VERS_MISMATCH: u32 = 10021;
    pub(super) const STALE_CLIENTID: u32 = 10022;
    pub(super) const SYMLINK: u32 = 10029;
    pub(super) const BADSESSION: u32 = 10052;
    pub(super) const TOO_MANY_OPS: u32 = 10070;
    pub(super) const DEADSESSION: u32 = 10078;

    /// Status of version 3.
    pub(super) fn v3(code: u32) -> Self {
        Self { version: 3, code }
    }

    /// Status of version 4.
    pub(super) fn v4(code: u32) -> Self {
        Self { version: 4, code }
    }

    pub(super) fn code(self) -> u32 {
        self.code
    }

    /// Whether the server asks for a retry later.
    pub(super) fn is_later(self) -> bool {
        matches!(self.code, Self::DELAY | Self::GRACE)
    }

    /// Whether the server does not know the session or its client, as after a restart.
    pub(super) fn is_lost_session(self) -> bool {
        matches!(self.code, Self::STALE_CLIENTID | Self::BADSESSION | Self::DEADSESSION)
    }

    /// Returns the reason code of a call on the exported directory.
    pub(super) fn reason(self) -> Reason {
        match self.code {
            Self::STALE | Self::BADHANDLE | Self::FHEXPIRED => Reason::StaleHandle,
            Self::ACCES | Self::PERM => Reason::ExportDenied,
            Self::NOENT | Self::NOTDIR => Reason::ExportNotFound,
            Self::WRONGSEC => Reason::NfsAccessRefused,
            Self::MOVED => Reason::ExportMoved,
            Self::MINOR_VERS_MISMATCH => Reason::NfsVersionUnsupported,
            Self::DELAY | Self::GRACE => Reason::ResponseTimedOut,
            _ => Reason::InputOutputError,
        }
    }

    /// Returns the reason code of a call that writes. The same reasons as of the system calls on a mount.
    pub(super) fn write_reason(self) -> Reason {
        match self.code {
            Self::ACCES | Self::PERM => Reason::WriteDenied,
            Self::ROFS => Reason::ReadOnly,
            Self::NOSPC => Reason::StorageFull,
            Self::DQUOT => Reason::QuotaExceeded,
            Self::DELAY | Self::GRACE => Reason::StorageTimedOut,
            _ => self.reason(),
        }
    }

    /// Returns what to do.
    pub(super) fn advice(self) -> &'static str {
        match self.code {
            Self::STALE | Self::BADHANDLE | Self::FHEXPIRED => {
                "the exported directory was replaced or is not exported any more. The next probe requests it again"
            }
            Self::ACCES | Self::PERM => "the export does not allow this host. Check the server's exports",
            Self::ROFS => "export it read-write, and drop `ro` from the NFS options",
            Self::NOSPC => "delete old backups, or enlarge the storage",
            Self::DQUOT => "raise the quota of the backup user on the server",
            Self::IO => "the server cannot read its own storage. Check its log and its disks",
            Self::DELAY | Self::GRACE => {
                "the server asks for a retry later, as it does in the grace period after its start, or while it fetches data"
            }
            Self::WRONGSEC => {
                "the export demands another security flavor, such as Kerberos, and the agent uses AUTH_SYS"
            }
            _ => "check the server's log",
        }
    }
}

impl From<nfsstat3> for NfsStatus {
    fn from(status: nfsstat3) -> Self {
        Self { version: 3, code: status as u32 }
    }
}

impl fmt::Display for NfsStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.code, self.version) {
            (Self::PERM, _) => "PERM",
            (Self::NOENT, _) => "NOENT",
            (Self::IO, _) => "IO",
            (6, _) => "NXIO",
            (Self::ACCES, 3) => "ACCES",
            (Self::ACCES, _) => "ACCESS",
            (17, _) => "EXIST",
            (Self::NOTDIR, _) => "NOTDIR",
            (21, _) => "ISDIR",
            (22, _) => "INVAL",
            (27, _) => "FBIG",
            (Self::NOSPC, _) => "NOSPC",
            (Self::ROFS, _) => "ROFS",
            (63, _) => "NAMETOOLONG",
            (Self::DQUOT, _) => "DQUOT",
            (Self::STALE, _) => "STALE",
            (Self::BADHANDLE, _) => "BADHANDLE",
            (10004, _) => "NOTSUPP",
            (10005, _) => "TOOSMALL",
            (10006, _) => "SERVERFAULT",
            (Self::DELAY, 3) => "JUKEBOX",
            (Self::DELAY, _) => "DELAY",
            (Self::GRACE, _) => "GRACE",
            (Self::FHEXPIRED, _) => "FHEXPIRED",
            (Self::WRONGSEC, _) => "WRONGSEC",
            (Self::MOVED, _) => "MOVED",
            (Self::RESOURCE, _) => "RESOURCE",
            (Self::MINOR_VERS_MISMATCH, _) => "MINOR_VERS_MISMATCH",
            (Self::STALE_CLIENTID, _) => "STALE_CLIENTID",
            (Self::SYMLINK, _) => "SYMLINK",
            (10036, _) => "BADXDR",
            (Self::BADSESSION, _) => "BADSESSION",
            (10066, _) => "REP_TOO_BIG",
            (10065, _) => "REQ_TOO_BIG",
            (Self::TOO_MANY_OPS, _) => "TOO_MANY_OPS",
            (Self::DEADSESSION, _) => "DEADSESSION",
            (code, version) => return write!(formatter, "status {code} of NFS {version}"),
        };
        write!(formatter, "NFS{}ERR_{name}", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_has_the_name_of_its_version() {
        for (status, expected) in [
            (nfsstat3::NFS3ERR_ACCES.into(), "NFS3ERR_ACCES"),
            (nfsstat3::NFS3ERR_JUKEBOX.into(), "NFS3ERR_JUKEBOX"),
            (nfsstat3::NFS3ERR_DQUOT.into(), "NFS3ERR_DQUOT"),
            (NfsStatus::v4(NfsStatus::ACCES), "NFS4ERR_ACCESS"),
            (NfsStatus::v4(NfsStatus::DELAY), "NFS4ERR_DELAY"),
            (NfsStatus::v4(4711), "status 4711 of NFS 4"),
        ] {
            assert_eq!(status.to_string(), expected);
        }
    }
}
