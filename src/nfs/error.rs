//! Failures of remote procedure calls, each with its reason code and message.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nfs3_client::RpcError;
use nfs3_types::mount::mountstat3;

use super::status::NfsStatus;
use crate::model::Reason;
use crate::model::report::Finding;

/// Reason why a remote procedure call failed. `service` is the called service: `NFS`, `MOUNT` or `the port mapper`.
#[derive(Debug, thiserror::Error)]
pub enum NfsError {
    /// The connection could not be opened.
    #[error("no connection to {service} at {address} ({source}): {}", connect_advice(.source))]
    Connect {
        /// The called service.
        service: &'static str,
        /// Address of the service.
        address: SocketAddr,
        /// Error of the system call.
        source: io::Error,
    },
    /// No answer within the deadline.
    #[error("{service} did not answer {call} within {} ms: the server is overloaded or hangs, or a firewall drops packets. Check the server's nfsd threads and log", after.as_millis())]
    TimedOut {
        /// The called service.
        service: &'static str,
        /// The call.
        call: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The connection ended before the answer was complete.
    #[error("{service} closed the connection instead of answering {call} ({source}): check the server's log")]
    Broken {
        /// The called service.
        service: &'static str,
        /// The call.
        call: &'static str,
        /// Error of the system call.
        source: io::Error,
    },
    /// The answer is not valid ONC RPC (RFC 5531).
    #[error(
        "the answer to {call} is not from {service}: {detail}. Check the host of the export, and port= in the NFS options"
    )]
    NotRpc {
        /// The called service.
        service: &'static str,
        /// The call.
        call: &'static str,
        /// What is wrong with the answer.
        detail: String,
    },
    /// The RPC server does not provide the program.
    #[error(
        "the server speaks RPC but does not serve {service}: start the NFS server (exportfs and nfsd, or the vendor's), or correct port= in the NFS options"
    )]
    NotServed {
        /// The called service.
        service: &'static str,
    },
    /// The port mapper does not know the MOUNT service.
    #[error(
        "the server's port mapper does not know mountd (MOUNT version 3 over TCP): start mountd there, check `rpcinfo -p`, or set mountport= in the NFS options"
    )]
    NoMountd,
    /// The server provides the program only in other versions.
    #[error(
        "the server provides {service} in versions {low} to {high}, but the NFS options require {requested}: change nfsvers=, or enable the version on the server"
    )]
    Version {
        /// The called service.
        service: &'static str,
        /// The version that the options require.
        requested: u32,
        /// Lowest version of the server.
        low: u32,
        /// Highest version of the server.
        high: u32,
    },
    /// The server refuses the credential or the source port.
    #[error(
        "{service} refuses {call} ({detail}): allow this host in the export, and if the agent may not use a source port below 1024, export with `insecure`"
    )]
    AccessRefused {
        /// The called service.
        service: &'static str,
        /// The call.
        call: &'static str,
        /// RPC status of the refusal.
        detail: String,
    },
    /// The MOUNT service does not export the path to this host.
    #[error("the server does not export {path} to this host ({}): check whether its exports include the path and this host (showmount -e, /etc/exports){}", code(.status), port_advice(*.status))]
    Export {
        /// The exported path.
        path: String,
        /// Status of the answer.
        status: mountstat3,
    },
    /// NFS answered with an error.
    #[error("{call} on {path} answered {status}: {}", .status.advice())]
    Status {
        /// The call.
        call: &'static str,
        /// The exported path.
        path: String,
        /// Status of the answer.
        status: NfsStatus,
    },
    /// The server does not speak the minor version of NFS 4.
    #[error(
        "the server does not speak NFS 4.{minor}: set nfsvers= in the NFS options to a version that it speaks, or enable the version on the server"
    )]
    MinorVersion {
        /// The minor version.
        minor: u32,
    },
    /// A component of the path does not exist for this host, or is not a directory.
    #[error(
        "the server has no directory {path} for this host ({component}: {status}): check whether its exports include the path and this host. With NFS 4, a path begins at the root that the server exports (fsid=0 in /etc/exports, Pseudo in NFS-Ganesha), so it may be shorter than with NFS 3"
    )]
    Component {
        /// The exported path.
        path: String,
        /// The component.
        component: String,
        /// Status of the answer.
        status: NfsStatus,
    },
    /// The path has too many components or symbolic links.
    #[error(
        "{path} has too many symbolic links or components on the server: correct the links there, or set the path to which they lead as the export"
    )]
    PathTooLong {
        /// The exported path.
        path: String,
    },
    /// The server refers to another server for the path.
    #[error("{path} is a referral to {}: set that server and path as the export. The agent does not follow referrals", listed(.locations))]
    Moved {
        /// The exported path.
        path: String,
        /// Where it is, such as `nas2:/backups`.
        locations: Vec<String>,
    },
    /// The canary that was read back differs from the one that was written.
    #[error(
        "{name}: {difference}: the storage does not keep the data that is written to it. Do not trust it with backups"
    )]
    CanaryMismatch {
        /// Name of the file.
        name: String,
        /// The difference.
        difference: String,
    },
    /// The export demands another security flavor.
    #[error("the server does not accept AUTH_SYS for {path}: {}", security(*.needs_kerberos))]
    Security {
        /// The exported path.
        path: String,
        /// Whether the server accepts Kerberos, or another mechanism of GSS-API.
        needs_kerberos: bool,
    },
}

fn listed(locations: &[String]) -> String {
    if locations.is_empty() { "another server, which it does not name".to_owned() } else { locations.join(", ") }
}

fn security(needs_kerberos: bool) -> &'static str {
    if needs_kerberos {
        "the export demands Kerberos (sec=krb5, krb5i or krb5p). Add sec=sys to it, or use mode = \"kernel\" on a host with a Kerberos keytab"
    } else {
        "add sec=sys to the export"
    }
}

fn code(status: &impl std::fmt::Debug) -> String {
    format!("{status:?}")
}

fn connect_advice(source: &io::Error) -> &'static str {
    match connect_reason(source) {
        Reason::AgentError => "check the limits of this host on open files and ports, and its own firewall",
        _ => "start it, open the port in the firewall, or set port= and mountport= in the NFS options",
    }
}

fn connect_reason(source: &io::Error) -> Reason {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => Reason::ConnectionRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Reason::HostUnreachable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Reason::ConnectionBroken,
        _ => Reason::AgentError,
    }
}

/// mountd answers a request from a port above 1023 like one from a host that is not in the export.
fn port_advice(status: mountstat3) -> &'static str {
    match status {
        mountstat3::MNT3ERR_ACCES | mountstat3::MNT3ERR_PERM => {
            ", and if the agent may not use a source port below 1024, export with `insecure`"
        }
        _ => "",
    }
}

impl NfsError {
    /// Converts the failure of a call. `requested` is the version of the program.
    pub(super) fn call(service: &'static str, call: &'static str, requested: u32, error: RpcError) -> Self {
        match error {
            RpcError::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                Self::NotRpc { service, call, detail: source.to_string() }
            }
            RpcError::Io(source) => Self::Broken { service, call, source },
            RpcError::ProgUnavail => Self::NotServed { service },
            RpcError::ProgMismatch { low, high } => Self::Version { service, requested, low, high },
            RpcError::Auth(stat) => Self::AccessRefused { service, call, detail: format!("{stat:?}") },
            other => Self::NotRpc { service, call, detail: other.to_string() },
        }
    }

    /// Returns the reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect { source, .. } => connect_reason(source),
            Self::TimedOut { .. } => Reason::ResponseTimedOut,
            Self::Broken { .. } => Reason::ConnectionBroken,
            Self::NotRpc { .. } | Self::NotServed { .. } | Self::NoMountd => Reason::NotNfs,
            Self::Version { .. } => Reason::NfsVersionUnsupported,
            Self::AccessRefused { .. } => Reason::NfsAccessRefused,
            Self::Export { status, .. } => match status {
                mountstat3::MNT3ERR_NOENT | mountstat3::MNT3ERR_NOTDIR => Reason::ExportNotFound,
                mountstat3::MNT3ERR_IO | mountstat3::MNT3ERR_SERVERFAULT => Reason::InputOutputError,
                _ => Reason::ExportDenied,
            },
            Self::Status { status, .. } | Self::Component { status, .. } => status.reason(),
            Self::MinorVersion { .. } => Reason::NfsVersionUnsupported,
            Self::PathTooLong { .. } => Reason::ExportNotFound,
            Self::Moved { .. } => Reason::ExportMoved,
            Self::Security { .. } => Reason::NfsAccessRefused,
            Self::CanaryMismatch { .. } => Reason::CanaryMismatch,
        }
    }

    /// Returns the reason code of a call that writes.
    #[must_use]
    pub fn write_reason(&self) -> Reason {
        match self {
            Self::Status { status, .. } => status.write_reason(),
            Self::TimedOut { .. } => Reason::StorageTimedOut,
            _ => self.reason(),
        }
    }

    /// Returns the message of a call that writes and was denied. The advice for other calls is about the export.
    #[must_use]
    pub fn denial(&self) -> String {
        match self {
            Self::Status { call, path, status } => format!("{call} on {path} answered {status}"),
            other => other.to_string(),
        }
    }

    /// Number of the status with which NFS answered.
    pub(super) fn status(&self) -> Option<u32> {
        match self {
            Self::Status { status, .. } | Self::Component { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the server does not know the session of the client any more.
    pub(super) fn is_lost_session(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.is_lost_session())
    }

    /// Returns whether a later attempt may succeed: no answer came in time, or this host had no socket for the call.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason(), Reason::ResponseTimedOut | Reason::ConnectTimedOut | Reason::AgentError)
    }

    /// Returns the reason code with the message.
    #[must_use]
    pub fn finding(&self) -> Finding {
        Finding::new(self.reason(), self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nfs3_types::nfs3::nfsstat3;

    #[test]
    fn rpc_error_maps_to_reason() {
        let reason = |error| NfsError::call("NFS", "NULL", 3, error).reason();
        assert_eq!(reason(RpcError::ProgMismatch { low: 4, high: 4 }), Reason::NfsVersionUnsupported);
        assert_eq!(reason(RpcError::ProgUnavail), Reason::NotNfs);
        assert_eq!(reason(RpcError::UnexpectedXid), Reason::NotNfs);
        assert_eq!(reason(RpcError::Io(io::ErrorKind::UnexpectedEof.into())), Reason::ConnectionBroken);
        assert_eq!(reason(RpcError::Io(io::ErrorKind::InvalidData.into())), Reason::NotNfs);
    }

    #[test]
    fn host_without_a_free_port_says_nothing_about_the_server() {
        let source = io::ErrorKind::AddrInUse.into();
        let error = NfsError::Connect { service: "MOUNT", address: "10.0.0.1:20048".parse().expect("one"), source };
        assert!(error.is_timeout());
        assert_eq!((error.reason(), error.write_reason()), (Reason::AgentError, Reason::AgentError));
        assert!(error.to_string().ends_with("open files and ports, and its own firewall"), "{error}");
    }

    #[test]
    fn server_in_its_grace_period_is_a_timeout() {
        let error = NfsError::Status { call: "FSINFO", path: "/b".into(), status: nfsstat3::NFS3ERR_JUKEBOX.into() };
        assert!(error.is_timeout());
        assert_eq!(error.reason(), Reason::ResponseTimedOut);
        assert!(error.to_string().contains("grace period"), "{error}");
    }

    #[test]
    fn missing_mountd_is_named() {
        let message = NfsError::NoMountd.finding().message;
        assert!(message.contains("mountd") && !message.contains(" port="), "{message}");
    }

    #[test]
    fn refused_export_names_path_and_remedy() {
        let error = NfsError::Export { path: "/b".into(), status: mountstat3::MNT3ERR_ACCES };
        assert_eq!(error.reason(), Reason::ExportDenied);
        let message = error.finding().message;
        assert!(
            message.contains("/b") && message.contains("MNT3ERR_ACCES") && message.contains("/etc/exports"),
            "{message}"
        );
        assert!(
            message.ends_with("if the agent may not use a source port below 1024, export with `insecure`"),
            "{message}"
        );
        let missing = NfsError::Export { path: "/b".into(), status: mountstat3::MNT3ERR_NOENT };
        assert!(missing.to_string().ends_with("/etc/exports)"), "{missing}");
    }
}
