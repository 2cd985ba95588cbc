//! Messages of mount.nfs 2.6.2 (Debian 12) and 2.8. The latter add export and mount path.

use std::time::Duration;

use super::*;
use crate::model::Outcome;

/// The default options.
const DEFAULT: &str = "nolock,soft,timeo=600,intr,lookupcache=none,nfsvers=3,retrans=10";

fn failure(code: i32, stderr: &str, options: &str, may_mount: bool) -> Checked {
    let stderr = stderr.to_owned();
    let (code, signal, stdout, duration) = (Some(code), None, String::new(), Duration::ZERO);
    let options = NfsOptions::parse(options).expect("options");
    mount_failure(&Finished { code, signal, stdout, stderr, duration }, &options, may_mount)
}

fn message(checked: &Checked) -> &str {
    checked.finding().map_or("", |finding| finding.message.as_str())
}

#[test]
fn mount_nfs_error_maps_to_reason() {
    for (words, reason) in [
        ("mount.nfs: access denied by server while mounting nas:/b", Reason::ExportDenied),
        (
            "mount.nfs: mounting nas:/b failed, reason given by server: No such file or directory",
            Reason::ExportNotFound,
        ),
        ("mount.nfs: mount spec nas:/b or point /m is not a directory", Reason::ExportNotFound),
        ("mount.nfs: Stale file handle for nas:/b on /m", Reason::StaleHandle),
        ("mount.nfs: Failed to resolve server nas: Name or service not known", Reason::NameNotResolved),
        ("mount.nfs: Connection refused for nas:/b on /m", Reason::ConnectionRefused),
        ("mount.nfs: No route to host for nas:/b on /m", Reason::HostUnreachable),
        ("mount.nfs: Network is unreachable", Reason::HostUnreachable),
        ("mount.nfs: Address family not supported by protocol for [fd00::1]:/b on /m", Reason::HostUnreachable),
        ("mount.nfs: Cannot assign requested address", Reason::HostUnreachable),
        ("mount.nfs: failed to apply fstab options", Reason::MountNotPermitted),
        ("mount.nfs: No such device", Reason::MountFailed),
        ("mount.nfs: an incorrect mount option was specified", Reason::MountFailed),
        ("mount.nfs: mount system call failed for /m", Reason::MountFailed),
        ("mount.nfs: /m is busy or already mounted or sharecache fail", Reason::MountFailed),
        ("mount.nfs: an unknown message", Reason::MountFailed),
    ] {
        let checked = failure(32, words, DEFAULT, true);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(reason)), "{words}");
        assert!(message(&checked).starts_with(words), "{}", message(&checked));
    }
    for words in [
        "mount.nfs: Connection timed out for nas:/b on /m",
        "mount.nfs: mount to NFS server 'nas:/b' failed: timed out, giving up",
        "mount.nfs: Resource temporarily unavailable",
    ] {
        let checked = failure(32, words, DEFAULT, true);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::TimedOut, Some(Reason::MountTimedOut)), "{words}");
        assert!(message(&checked).contains("grace period"), "{}", message(&checked));
    }
}

#[test]
fn mount_nfs_without_a_message_is_described_by_its_end() {
    let options = NfsOptions::parse(DEFAULT).expect("options");
    for (code, signal, says) in [
        (Some(32), None, "mount.nfs ended with exit code 32 and no message: "),
        (None, Some(9), "mount.nfs was killed by signal 9: "),
    ] {
        let (stdout, stderr, duration) = (String::new(), String::new(), Duration::ZERO);
        let checked: Checked = mount_failure(&Finished { code, signal, stdout, stderr, duration }, &options, true);
        assert_eq!(checked.reason(), Some(Reason::MountFailed));
        assert!(message(&checked).starts_with(says), "{}", message(&checked));
    }
}

#[test]
fn refusal_by_the_server_is_not_a_missing_permission_of_the_agent() {
    let words = "mount.nfs: Operation not permitted for nas:/b on /m";
    for options in ["nfsvers=4.2", DEFAULT, ""] {
        let checked = failure(32, words, options, true);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::NfsAccessRefused)));
        let message = message(&checked);
        assert!(!message.contains("as root"), "{message}");
        assert!(message.contains("sec=") && message.contains("below 1024"), "{message}");
        let checked = failure(32, words, options, false);
        assert_eq!(checked.reason(), Some(Reason::MountNotPermitted));
    }
    // The kernel's answer to an NFSv3 export with sec=krb5 only, if it has no Kerberos.
    let checked = failure(32, "mount.nfs: an incorrect mount option was specified", DEFAULT, true);
    assert!(message(&checked).contains("set sec="), "{}", message(&checked));
}

#[test]
fn missing_mountd_is_not_a_wrong_version() {
    for words in [
        "mount.nfs: requested NFS version or transport protocol is not supported",
        "mount.nfs: requested NFS version or transport protocol is not supported for /m",
        "mount.nfs: Protocol not supported",
    ] {
        for options in [DEFAULT, "soft"] {
            let checked = failure(32, words, options, true);
            assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::MountFailed)), "{words}");
            assert!(message(&checked).contains("mountd"), "{}", message(&checked));
        }
        let checked = failure(32, words, "nfsvers=4.2", true);
        assert_eq!(checked.reason(), Some(Reason::NfsVersionUnsupported));
        assert!(!message(&checked).contains("mountd"), "{}", message(&checked));
    }
}

#[test]
fn refused_option_is_named() {
    const DENIED: &str = "mount.nfs: access denied by server while mounting nas:/b";
    const INCORRECT: &str = "mount.nfs: an incorrect mount option was specified for /m";
    const VERSION: &str = "mount.nfs: requested NFS version or transport protocol is not supported for /m";
    const PROTOCOL: &str = "mount.nfs: Protocol not supported for nas:/b on /m";
    for (words, options, named, reason) in [
        (DENIED, "nfsvers=3,sec=krb5", "sec=krb5", Reason::ExportDenied),
        (DENIED, "nfsvers=4.2,xprtsec=mtls", "xprtsec=mtls", Reason::ExportDenied),
        ("mount.nfs: Operation not permitted", "nfsvers=4.2,sec=krb5p", "sec=krb5p", Reason::NfsAccessRefused),
        (INCORRECT, "nfsvers=4.2,sec=krb5i", "sec=krb5i", Reason::MountFailed),
        (INCORRECT, "nfsvers=4.2,xprtsec=tls", "xprtsec=tls", Reason::MountFailed),
        (INCORRECT, "nfsvers=3,udp", "udp", Reason::MountFailed),
        (INCORRECT, "nfsvers=3,proto=udp6", "proto=udp6", Reason::MountFailed),
        (VERSION, "nfsvers=3,proto=udp", "proto=udp", Reason::MountFailed),
        (VERSION, "nfsvers=3,mountproto=udp", "mountproto=udp", Reason::MountFailed),
        (PROTOCOL, "nfsvers=4.2,xprtsec=tls", "xprtsec=tls", Reason::MountFailed),
        (PROTOCOL, "nfsvers=4.2,mountport=20048", "mountport=20048", Reason::MountFailed),
        ("mount.nfs: mount system call failed", "nfsvers=3,xprtsec=tls", "xprtsec=tls", Reason::MountFailed),
        ("mount.nfs: Protocol error", "nfsvers=3,proto=rdma", "proto=rdma", Reason::MountFailed),
        (
            "mount.nfs: Failed to resolve server nas: Address family for hostname not supported",
            "nfsvers=3,proto=tcp6",
            "proto=tcp6",
            Reason::NameNotResolved,
        ),
    ] {
        let checked = failure(32, words, options, true);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(reason)), "{words} {options}");
        let named = format!("the NFS options contain {named}: ");
        assert!(message(&checked).contains(&named), "{}", message(&checked));
    }
    for options in ["sec=sys", "xprtsec=none", "proto=tcp", "sec=krb5,sec=sys"] {
        for words in [INCORRECT, VERSION, PROTOCOL] {
            let checked = failure(32, words, options, true);
            assert!(!message(&checked).contains("the NFS options contain"), "{}", message(&checked));
        }
    }
}
