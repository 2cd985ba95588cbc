//! Failures of `mount.nfs`: the reason and the remedy for each of its messages.
//!
//! The messages are those of nfs-utils (`utils/mount/error.c`, `stropts.c`, `network.c`). Most contain only the error
//! of mount(2), which has several causes. The options of the mount and the permissions of this process distinguish
//! them. The check `reachable` has already shown that the server answers NFS over TCP with the version in the options.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::checked::Checked;
use crate::model::nfs_options::NfsVersion;
use crate::model::report::{Finding, finding};
use crate::model::{NfsOptions, Reason};
use crate::sys::{CommandError, Finished};

/// Exit code of mount(8) and its helpers for an incorrect invocation or a missing permission.
const EXIT_INCORRECT_USE: i32 = 1;

/// EACCES: mountd's refusal, or no security flavor that both sides accept (`nfs_verify_authflavors`).
const ACCESS_DENIED: &str = "access denied by server";
/// EPERM: this process may not mount, or the server refuses the source port. For NFSv4 also no acceptable security
/// flavor (`nfs4_find_root_sec`).
const NOT_PERMITTED: &str = "Operation not permitted";
/// EINVAL: an option that the kernel does not know or does not support, or an NFSv3 export that offers only flavors
/// that the kernel lacks.
const INCORRECT_OPTION: &str = "incorrect mount option";
/// EOPNOTSUPP: the port mapper does not know NFS or MOUNT with this version and transport (`RPC_PROGNOTREGISTERED`).
const NOT_REGISTERED: &str = "requested NFS version or transport protocol is not supported";
/// EPROTONOSUPPORT: client or server does not have the version, or the server offers no TLS.
const NO_PROTOCOL: &str = "Protocol not supported";
/// EIO.
const SYSTEM_CALL_FAILED: &str = "mount system call failed";
/// Failures of getaddrinfo(3).
const NOT_RESOLVED: &str = "Failed to resolve server";

/// Remedy for a process that may not mount.
const RUN_AS_ROOT: &str = "run the agent as root or with CAP_SYS_ADMIN, or with mode = \"none\"";

/// Remedy for a kernel without NFS.
const NO_CLIENT: &str = "this kernel has no NFS client: load it with `modprobe nfs`";

/// Remedy for an address family that this host does not have.
const NO_IPV6: &str = "this host has no IPv6 to reach the server: configure it, or use an IPv4 address of the server in [mounts] address_map";

/// Remedy for EPERM of a process that may mount.
const REFUSED: &str = "the server demands another security flavor, or a source port below 1024: set sec= in the NFS options to a flavor of the export, and check that noresvport is not set and that no address translation changes the port";

/// Messages with a definite meaning, with reason and remedy. The first one that the output contains counts.
const MESSAGES: &[(&str, Reason, &str)] = &[
    (
        ACCESS_DENIED,
        Reason::ExportDenied,
        "allow this host in the server's exports. If they demand another security flavor, set sec= in the NFS options",
    ),
    ("No such file or directory", Reason::ExportNotFound, "correct the path, or create and export it on the server"),
    ("is not a directory", Reason::ExportNotFound, "export a directory, and give its path"),
    ("Stale file handle", Reason::StaleHandle, "export the directory again on the server (exportfs -r)"),
    (NOT_RESOLVED, Reason::NameNotResolved, "correct the name, or DNS or /etc/hosts on this host"),
    ("Connection refused", Reason::ConnectionRefused, "start the NFS server, and for NFSv3 its port mapper and mountd"),
    ("No route to host", Reason::HostUnreachable, "check the routes of this host and the firewall of the server"),
    (
        "Network is unreachable",
        Reason::HostUnreachable,
        "check the routes of this host. An IPv6 address needs IPv6 here",
    ),
    ("Address family not supported", Reason::HostUnreachable, NO_IPV6),
    ("Cannot assign requested address", Reason::HostUnreachable, NO_IPV6),
    ("must be superuser", Reason::MountNotPermitted, RUN_AS_ROOT),
    ("only root can", Reason::MountNotPermitted, RUN_AS_ROOT),
    ("failed to apply fstab options", Reason::MountNotPermitted, RUN_AS_ROOT),
    ("permission denied: no match", Reason::MountNotPermitted, RUN_AS_ROOT),
    ("No such device", Reason::MountFailed, NO_CLIENT),
    ("unknown filesystem type", Reason::MountFailed, NO_CLIENT),
    ("rpc.statd is not running", Reason::MountFailed, "add nolock to the NFS options, or start rpc-statd"),
    (
        INCORRECT_OPTION,
        Reason::MountFailed,
        "correct the NFS options, see nfs(5) and `dmesg` on this host. If the export demands a security flavor that this host lacks, such as Kerberos, set sec= in the NFS options to another one",
    ),
    (SYSTEM_CALL_FAILED, Reason::MountFailed, "check `dmesg` on this host and the server's log"),
    (
        "busy or already mounted",
        Reason::MountFailed,
        "another mount of this export has other options, or a process uses the mount path",
    ),
];

/// Messages that mean that the server did not answer.
const TIMEOUTS: &[&str] = &["timed out", "Resource temporarily unavailable"];

/// What to check when the server answers NULL but not the mount request.
const UNANSWERED: &str = "check its load, its mountd, the firewall, and each address of its name, because mount.nfs tries them in their order. A server that has just restarted may answer when its grace period ends";

/// An option that the server or this host must support.
struct Demand {
    is_option: fn(&str) -> bool,
    /// Messages that mean that the option may not be supported.
    messages: &'static [&'static str],
    /// What the option needs.
    needed: &'static str,
}

const DEMANDS: &[Demand] = &[
    Demand {
        is_option: |option| option.starts_with("sec=") && option != "sec=sys",
        messages: &[ACCESS_DENIED, NOT_PERMITTED, INCORRECT_OPTION, "key not available", "Key has"],
        needed: "the export must offer this flavor (sec= in /etc/exports), and Kerberos needs rpc.gssd and a keytab on this host",
    },
    Demand {
        is_option: |option| option.starts_with("xprtsec=") && option != "xprtsec=none",
        messages: &[ACCESS_DENIED, NOT_PERMITTED, INCORRECT_OPTION, NO_PROTOCOL, SYSTEM_CALL_FAILED],
        needed: "the server must offer RPC with TLS, and this host needs Linux 6.5 or later and a running tlshd",
    },
    Demand {
        is_option: |option| matches!(option, "udp" | "proto=udp" | "proto=udp6" | "mountproto=udp" | "mountproto=udp6"),
        messages: &[NOT_REGISTERED, NO_PROTOCOL, INCORRECT_OPTION, "Connection refused", "timed out"],
        needed: "many servers and kernels have no NFS over UDP, and NFSv4 never has it. Remove the option to use TCP",
    },
    Demand {
        is_option: |option| matches!(option, "proto=tcp6" | "proto=udp6" | "proto=rdma6" | "mountproto=tcp6"),
        messages: &[NOT_RESOLVED, NOT_REGISTERED, "Address family", "unreachable", "assign requested address"],
        needed: "the server's name needs an IPv6 address, and this host needs IPv6",
    },
    Demand {
        is_option: |option| option == "rdma" || option.starts_with("proto=rdma"),
        messages: &[NOT_REGISTERED, NO_PROTOCOL, INCORRECT_OPTION, "Protocol error", "Connection refused"],
        needed: "the server must offer NFS over RDMA (port 20049), and this host needs an RDMA device on the route to it",
    },
    Demand {
        is_option: |option| {
            ["mounthost=", "mountaddr=", "mountvers=", "mountport=", "mountproto="]
                .iter()
                .any(|name| option.starts_with(name))
        },
        messages: &[NO_PROTOCOL],
        needed: "mount.nfs refuses it for NFSv4, which has no mountd",
    },
];

/// The outcome of a `mount.nfs` that ended with an error. `may_mount` is true if the kernel lets this process mount.
pub(super) fn mount_failure<T>(finished: &Finished, options: &NfsOptions, may_mount: bool) -> Checked<T> {
    let words = finished.stderr.trim().replace('\n', "; ");
    let words = match (finished.code, finished.signal) {
        _ if !words.is_empty() => words,
        (Some(code), _) => format!("mount.nfs ended with exit code {code} and no message"),
        (None, Some(signal)) => format!("mount.nfs was killed by signal {signal}"),
        (None, None) => "mount.nfs ended without a message".to_owned(),
    };
    let demands = unmet_demands(&words, options);
    let known = version_or_mountd(&words, options.version(), !demands.is_empty())
        .or_else(|| permission(&words, may_mount))
        .or_else(|| {
            MESSAGES.iter().find(|(text, ..)| words.contains(text)).map(|(_, reason, advice)| (*reason, *advice))
        });
    let is_timeout = known.is_none() && TIMEOUTS.iter().any(|text| words.contains(text));
    let (reason, advice) = match known {
        Some(known) => known,
        None if is_timeout => (Reason::MountTimedOut, UNANSWERED),
        None if finished.code == Some(EXIT_INCORRECT_USE) => (Reason::MountFailed, "check the NFS options, see nfs(5)"),
        None => (Reason::MountFailed, "see nfs(5)"),
    };
    let finding = finding!(reason, "{words}: {demands}{advice}");
    if is_timeout { Checked::timed_out(finding) } else { Checked::failed(finding) }
}

/// The outcome of a `mount.nfs` that did not end by itself.
pub(super) fn command_failure<T>(error: &CommandError) -> Checked<T> {
    match error {
        CommandError::NotFound(program) => Checked::failed(finding!(
            Reason::MountHelperMissing,
            "{} is not installed: install nfs-common (Debian, Ubuntu) or nfs-utils (RHEL, SUSE)",
            program.display()
        )),
        CommandError::TimedOut { unkillable: Some(_), .. } => Checked::failed(finding!(
            Reason::ProbeStuck,
            "{error}, and the process cannot be killed. The agent does not probe this target until it has ended"
        )),
        CommandError::TimedOut { .. } => Checked::timed_out(finding!(
            Reason::MountTimedOut,
            "{error}: the server answers NULL but not the mount request; {UNANSWERED}"
        )),
        CommandError::Claim { .. } => Checked::failed(Finding::new(Reason::ProbeStuck, error.to_string())),
        CommandError::Spawn { .. } => Checked::failed(Finding::new(Reason::AgentError, error.to_string())),
    }
}

/// Describes the options that may have caused the message. Empty if none may.
fn unmet_demands(words: &str, options: &NfsOptions) -> String {
    let text = options.as_str();
    // If an option appears several times, the last one counts.
    let mut names = HashSet::new();
    let in_force: Vec<&str> =
        text.split(',').rev().filter(|option| names.insert(option.split('=').next().unwrap_or_default())).collect();
    let mut described = String::new();
    for demand in DEMANDS.iter().filter(|demand| demand.messages.iter().any(|text| words.contains(text))) {
        if let Some(option) = in_force.iter().find(|option| (demand.is_option)(option)) {
            let _ = write!(described, "the NFS options contain {option}: {}. Otherwise ", demand.needed);
        }
    }
    described
}

/// Distinguishes a missing version from a missing mountd. The server answers NULL with the version in the options, so
/// only a minor version of NFSv4 can be wrong. `is_explained` is true if an option explains the message.
fn version_or_mountd(words: &str, version: NfsVersion, is_explained: bool) -> Option<(Reason, &'static str)> {
    let is_not_registered = words.contains(NOT_REGISTERED);
    if !is_not_registered && !words.contains(NO_PROTOCOL) {
        return None;
    }
    Some(match version {
        NfsVersion::V3 if is_not_registered => (
            Reason::MountFailed,
            "the server answers NFS version 3, so this version is right, and its mountd or NFS port is not registered with its port mapper: start mountd there, check `rpcinfo -p`, or set mountproto=tcp and mountport=",
        ),
        NfsVersion::V3 => (
            Reason::MountFailed,
            "the server's mountd or this kernel lacks NFS version 3, or this host lacks /etc/protocols: check `rpcinfo -p`, `modprobe nfsv3` and the package netbase",
        ),
        NfsVersion::Negotiated => (
            Reason::MountFailed,
            "the server answers NFS and no version could be mounted: set nfsvers= in the NFS options, and for version 3 start mountd on the server",
        ),
        NfsVersion::V4 if is_explained => {
            (Reason::MountFailed, "change the minor version (nfsvers=), or enable it on the server")
        }
        NfsVersion::V4 => (
            Reason::NfsVersionUnsupported,
            "change nfsvers= in the NFS options, or enable this minor version on the server",
        ),
    })
}

/// Distinguishes a server's refusal from a missing permission of this process.
fn permission(words: &str, may_mount: bool) -> Option<(Reason, &'static str)> {
    words.contains(NOT_PERMITTED).then_some(if may_mount {
        (Reason::NfsAccessRefused, REFUSED)
    } else {
        (Reason::MountNotPermitted, RUN_AS_ROOT)
    })
}

#[cfg(test)]
mod tests;
