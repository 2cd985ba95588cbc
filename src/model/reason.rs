//! Reason codes of findings: why a check failed, was skipped, or passed with a warning.
//!
//! The codes are part of the interface. Monitoring rules and runbooks name them, so a code is never renamed and
//! never gets a second meaning. The message next to a code in a report says what happened this time and what to
//! do. `docs/troubleshooting.md` lists every code.

named! {
    /// Why a check failed, was skipped, or passed with a warning. The order is that of `docs/troubleshooting.md`.
    Reason {
        // Every target.
        /// No probe of this target has ended yet.
        NotChecked => "not_checked",
        /// No probe has ended for three intervals and a minute, so the status may be outdated.
        ProbeOverdue => "probe_overdue",
        /// An earlier check failed, so this one did not run.
        EarlierCheckFailed => "earlier_check_failed",
        /// The host name has no address.
        NameNotResolved => "name_not_resolved",
        /// The name server did not answer within the deadline.
        NameLookupTimedOut => "name_lookup_timed_out",
        /// The host answered that nothing listens on the port.
        ConnectionRefused => "connection_refused",
        /// Nothing answered the connection attempt within the deadline.
        ConnectTimedOut => "connect_timed_out",
        /// The network has no route to the host.
        HostUnreachable => "host_unreachable",
        /// The connection broke before the answer was complete.
        ConnectionBroken => "connection_broken",
        /// Connected, but no answer within the deadline.
        ResponseTimedOut => "response_timed_out",
        /// The check passed, but took longer than `[probe] slow_after`.
        Slow => "slow",
        /// More of the storage is used than `[probe] nearly_full_percent`.
        NearlyFull => "nearly_full",
        /// The storage is full within `full_soon_within`, if its use continues to grow as in the last days.
        FullSoon => "full_soon",
        /// The agent itself failed. The message says what it could not do.
        AgentError => "agent_error",

        // NFS.
        /// More of the file system's inodes are used than `[probe] nearly_full_percent`, or all of them.
        InodesNearlyUsedUp => "inodes_nearly_used_up",
        /// The storage reports sizes that are impossible or contradict each other.
        CapacityImplausible => "capacity_implausible",
        /// The service on the port does not speak ONC RPC.
        NotNfs => "not_nfs",
        /// The server does not serve the NFS version that the options ask for.
        NfsVersionUnsupported => "nfs_version_unsupported",
        /// The server refuses the credential or the source port.
        NfsAccessRefused => "nfs_access_refused",
        /// The server does not export this path to this host.
        ExportDenied => "export_denied",
        /// The exported path does not exist on the server.
        ExportNotFound => "export_not_found",
        /// The server refers to another server for this path.
        ExportMoved => "export_moved",
        /// The mount command failed. The message contains its output.
        MountFailed => "mount_failed",
        /// The target was unmounted during the probe.
        NotMounted => "not_mounted",
        /// The mount command did not end within `[probe] mount_deadline` and was killed.
        MountTimedOut => "mount_timed_out",
        /// This process is not permitted to mount.
        MountNotPermitted => "mount_not_permitted",
        /// `mount.nfs` is not installed.
        MountHelperMissing => "mount_helper_missing",
        /// Something else is mounted at the mount path.
        MountConflict => "mount_conflict",
        /// The name of the server has another address now, and the mount still uses the old one.
        ServerMoved => "server_moved",
        /// Several file systems are mounted on top of each other at the mount path.
        MountStacked => "mount_stacked",
        /// The mount is hard: it waits for its server without limit.
        HardMount => "hard_mount",
        /// The mount has other options than those that the target or the configuration asks for.
        MountOptionsDiffer => "mount_options_differ",
        /// A mount that another program made does not answer.
        MountHangs => "mount_hangs",
        /// A mount that another program made answers with an error.
        MountBroken => "mount_broken",
        /// The mount point contains files, which the mount hides.
        MountPointHoldsFiles => "mount_point_holds_files",
        /// The mount directory cannot be created or used.
        MountPointUnusable => "mount_point_unusable",
        /// The host does not see what the agent mounts.
        MountsNotShared => "mounts_not_shared",
        /// A process that uses backups does not see the mount.
        MountNotVisible => "mount_not_visible",
        /// SELinux denies virtual machines the files on NFS.
        SelinuxDeniesNfs => "selinux_denies_nfs",
        /// The file handle is stale: the exported directory was replaced on the server.
        StaleHandle => "stale_handle",
        /// The mounted file system did not answer within the deadline.
        StorageTimedOut => "storage_timed_out",
        /// The storage answered with an input/output error.
        InputOutputError => "io_error",
        /// A probe child could not be killed. The target is not probed until it is gone.
        ProbeStuck => "probe_stuck",
        /// The backup user may not write.
        WriteDenied => "write_denied",
        /// The storage is read-only.
        ReadOnly => "read_only",
        /// No space is left.
        StorageFull => "storage_full",
        /// The backup user's quota is used up.
        QuotaExceeded => "quota_exceeded",
        /// The canary that was read back differs from the one that was written.
        CanaryMismatch => "canary_mismatch",

        // S3.
        /// TLS could not be set up: unknown authority, wrong name or expired certificate.
        TlsFailed => "tls_failed",
        /// A certificate that the service presents expires soon.
        CertificateExpiresSoon => "certificate_expires_soon",
        /// No credentials were found for the bucket.
        NoCredentials => "no_credentials",
        /// The key manager has no such secret, or `secret_ref` is not one of the configured key manager.
        SecretNotFound => "secret_not_found",
        /// The agent's user may not read the secret.
        SecretForbidden => "secret_forbidden",
        /// The payload of the secret does not contain usable credentials.
        SecretMalformed => "secret_malformed",
        /// The key manager, or Keystone in front of it, does not answer.
        KeyManagerUnavailable => "key_manager_unavailable",
        /// Other users of this host may read the secret of a bucket's credentials.
        SecretExposed => "secret_exposed",
        /// The credentials of a bucket expire soon, and their source does not renew them.
        CredentialsExpireSoon => "credentials_expire_soon",
        /// The service does not know the access key.
        UnknownAccessKey => "unknown_access_key",
        /// The secret does not belong to the access key.
        WrongSecret => "wrong_secret",
        /// The user is suspended.
        UserSuspended => "user_suspended",
        /// The credentials may not do this on the bucket.
        AccessDenied => "access_denied",
        /// The service does not accept the request, for another reason than a missing permission.
        RequestRefused => "request_refused",
        /// The bucket does not exist.
        BucketNotFound => "bucket_not_found",
        /// The bucket is in another region than the one configured.
        WrongRegion => "wrong_region",
        /// The service redirects to another address, which the agent does not follow.
        Redirected => "redirected",
        /// The clocks of this host and of the service differ.
        ClockSkewed => "clock_skewed",
        /// The service asks for fewer requests.
        Throttled => "throttled",
        /// The service does not implement this request.
        NotImplemented => "not_implemented",
        /// The service answered with a server error.
        ServerError => "server_error",
        /// The answer is not S3.
        NotS3 => "not_s3",
        /// The bucket's versioning is not enabled, which a locked bucket needs.
        VersioningDisabled => "versioning_disabled",
        /// The target is declared immutable and its bucket has no object lock.
        ObjectLockMissing => "object_lock_missing",
        /// The bucket has object lock, but no default retention.
        NoDefaultRetention => "no_default_retention",
        /// The bucket's default retention is shorter than `[s3.lock_proof] min_retention`.
        RetentionTooShort => "retention_too_short",
        /// The service locked a canary for longer than requested, so the agent writes no more canaries.
        CanaryLocked => "canary_locked",
        /// The target is declared immutable and its lock is not proved yet.
        LockProofPending => "lock_proof_pending",
        /// The bucket has an object lock, and locked objects can still be deleted.
        LockNotEnforced => "lock_not_enforced",
        /// These credentials can bypass the lock.
        LockBypassable => "lock_bypassable",
        /// These credentials and this service do not allow a verdict about the lock.
        LockUnverifiable => "lock_unverifiable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_fit_for_a_label() {
        let codes: HashSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(
            codes.iter().all(|code| code
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'))
        );
    }

    #[test]
    fn troubleshooting_page_lists_every_reason_and_no_other() {
        let page = include_str!("../../docs/troubleshooting.md");
        let (_, section) = page.split_once("| reason | what to do |").expect("the table");
        let (table, _) = section.split_once("\n\n").expect("its end");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
        let (told, remedies): (Vec<&str>, Vec<&str>) = rows.unzip();
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(remedies.iter().all(|remedy| remedy.split_whitespace().count() > 2), "{remedies:?}");
        assert_eq!(told, known);
    }
}
