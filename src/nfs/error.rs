//! What can go wrong with a remote procedure call, each with its reason code and sentence.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nfs3_client::RpcError;
use nfs3_types::mount::mountstat3;
use nfs3_types::nfs3::nfsstat3;

use crate::model::Reason;
use crate::model::report::Finding;

/// Why a question to an NFS server was not answered as it should be. `service` names what was
/// asked: `NFS`, `MOUNT` or `the port mapper`, with its address.
#[derive(Debug, thiserror::Error)]
pub enum NfsError {
    /// No connection.
    #[error(
        "{service} at {address} cannot be connected to ({source}): start it, open the port in the firewall, or set port= and mountport= in the NFS options"
    )]
    Connect {
        /// What was asked.
        service: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No answer within the deadline.
    #[error("{service} did not answer {call} within {} ms: the server is overloaded or hangs, or something between drops packets; look at the server's nfsd threads and log", after.as_millis())]
    TimedOut {
        /// What was asked.
        service: &'static str,
        /// The call.
        call: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The connection ended before the answer was whole.
    #[error("{service} closed the connection instead of answering {call} ({source}): look at the server's log")]
    Broken {
        /// What was asked.
        service: &'static str,
        /// The call.
        call: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The answer is no ONC RPC (RFC 5531), or breaks its rules.
    #[error(
        "what answers {call} is not {service}: {detail}. Check host and port of the export, and port= in the NFS options"
    )]
    NotRpc {
        /// What was asked.
        service: &'static str,
        /// The call.
        call: &'static str,
        /// How the answer is wrong.
        detail: String,
    },
    /// An RPC server that does not have the program.
    #[error(
        "the server speaks RPC but does not serve {service}: start its NFS server (exportfs and nfsd, or its vendor's), or correct port= in the NFS options"
    )]
    NotServed {
        /// What was asked.
        service: &'static str,
    },
    /// The program, in other versions only.
    #[error(
        "the server has {service} in versions {low} to {high} and not {asked}, which the NFS options ask for: change nfsvers= or enable the version on the server"
    )]
    Version {
        /// What was asked.
        service: &'static str,
        /// The version that was asked for.
        asked: u32,
        /// Its lowest version.
        low: u32,
        /// Its highest version.
        high: u32,
    },
    /// The server refuses the credential or the source port.
    #[error(
        "{service} refuses {call} ({detail}): allow this host in the export, and if the agent may not use a source port below 1024, export with `insecure`"
    )]
    AccessRefused {
        /// What was asked.
        service: &'static str,
        /// The call.
        call: &'static str,
        /// What the server says.
        detail: String,
    },
    /// MOUNT answered that it does not export the path to us.
    #[error("the server does not give {path} to this host ({}): check its exports (showmount -e, /etc/exports) and whether they include this host", code(.status))]
    Export {
        /// The exported path.
        path: String,
        /// MOUNT's answer.
        status: mountstat3,
    },
    /// NFS answered with an error.
    #[error("{call} on {path} answered {}: {}", code(.status), advice(*.status))]
    Status {
        /// The call.
        call: &'static str,
        /// The exported path.
        path: String,
        /// NFS's answer.
        status: nfsstat3,
    },
}

fn code(status: &impl std::fmt::Debug) -> String {
    format!("{status:?}")
}

fn advice(status: nfsstat3) -> &'static str {
    match status {
        nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_BADHANDLE => {
            "the exported directory was replaced or is not exported any more; the next probe asks for it anew"
        }
        nfsstat3::NFS3ERR_ACCES | nfsstat3::NFS3ERR_PERM => {
            "the export does not allow this host; check the server's exports"
        }
        nfsstat3::NFS3ERR_IO => "the server cannot read its own storage; look at its log and its disks",
        nfsstat3::NFS3ERR_JUKEBOX => "the server asks to come back later",
        _ => "look at the server's log",
    }
}

impl NfsError {
    /// From a failed call. `asked` is the version of the program.
    pub(super) fn call(service: &'static str, call: &'static str, asked: u32, error: RpcError) -> Self {
        match error {
            RpcError::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                Self::NotRpc { service, call, detail: source.to_string() }
            }
            RpcError::Io(source) => Self::Broken { service, call, source },
            RpcError::ProgUnavail => Self::NotServed { service },
            RpcError::ProgMismatch { low, high } => Self::Version { service, asked, low, high },
            RpcError::Auth(stat) => Self::AccessRefused { service, call, detail: format!("{stat:?}") },
            other => Self::NotRpc { service, call, detail: other.to_string() },
        }
    }

    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused => Reason::ConnectionRefused,
                io::ErrorKind::TimedOut => Reason::ConnectTimedOut,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reason::HostUnreachable,
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Reason::ConnectionBroken,
                _ => Reason::AgentError,
            },
            Self::TimedOut { .. } => Reason::ResponseTimedOut,
            Self::Broken { .. } => Reason::ConnectionBroken,
            Self::NotRpc { .. } | Self::NotServed { .. } => Reason::NotNfs,
            Self::Version { .. } => Reason::NfsVersionUnsupported,
            Self::AccessRefused { .. } => Reason::NfsAccessRefused,
            Self::Export { status, .. } => match status {
                mountstat3::MNT3ERR_NOENT | mountstat3::MNT3ERR_NOTDIR => Reason::ExportNotFound,
                mountstat3::MNT3ERR_IO | mountstat3::MNT3ERR_SERVERFAULT => Reason::InputOutputError,
                _ => Reason::ExportDenied,
            },
            Self::Status { status, .. } => match status {
                nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_BADHANDLE => Reason::StaleHandle,
                nfsstat3::NFS3ERR_ACCES | nfsstat3::NFS3ERR_PERM => Reason::ExportDenied,
                _ => Reason::InputOutputError,
            },
        }
    }

    /// Whether the answer may only be late, rather than wrong.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason(), Reason::ResponseTimedOut | Reason::ConnectTimedOut)
    }

    /// The code with its sentence.
    #[must_use]
    pub fn finding(&self) -> Finding {
        Finding::new(self.reason(), self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_a_call_has_its_reason() {
        let reason = |error| NfsError::call("NFS", "NULL", 3, error).reason();
        assert_eq!(reason(RpcError::ProgMismatch { low: 4, high: 4 }), Reason::NfsVersionUnsupported);
        assert_eq!(reason(RpcError::ProgUnavail), Reason::NotNfs);
        assert_eq!(reason(RpcError::UnexpectedXid), Reason::NotNfs);
        assert_eq!(reason(RpcError::Io(io::ErrorKind::UnexpectedEof.into())), Reason::ConnectionBroken);
        assert_eq!(reason(RpcError::Io(io::ErrorKind::InvalidData.into())), Reason::NotNfs);
    }

    #[test]
    fn a_refused_export_says_which_path_and_what_to_look_at() {
        let error = NfsError::Export { path: "/b".into(), status: mountstat3::MNT3ERR_ACCES };
        assert_eq!(error.reason(), Reason::ExportDenied);
        let message = error.finding().message;
        assert!(
            message.contains("/b") && message.contains("MNT3ERR_ACCES") && message.contains("/etc/exports"),
            "{message}"
        );
    }
}
