//! Capabilities of the running agent, or of this command when none runs.

use std::sync::Arc;

use super::facts::Facts;
use super::result::{HostCheck, HostCheckOutcome};
use crate::sys::{Capability, ProcessRights};

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    let rights = match ProcessRights::of(facts.process()) {
        Ok(rights) => rights,
        Err(error) => return HostCheck::unknown(format!("{error}: run the command as root")),
    };
    let canary = &facts.settings.agent.probe.canary;
    judge(rights, facts.mounts(), canary.enabled).detail(facts.process_name())
}

fn judge(rights: ProcessRights, mounts: bool, writes_canaries: bool) -> HostCheck {
    let mut checked = HostCheck::passed("");
    if mounts && !rights.may_mount() {
        let why = if !rights.is_root() {
            "the user is not root"
        } else if !rights.is_in_initial_namespace() {
            "root of a user namespace is not root of the host"
        } else {
            "CAP_SYS_ADMIN is missing"
        };
        checked.add(
            HostCheckOutcome::Failed,
            format!(
                "cannot mount, because {why}: run the agent as root with CAP_SYS_ADMIN, or set [mounts] mode = \"none\""
            ),
        );
    }
    for capability in Capability::ALL.iter().filter(|capability| !rights.has(**capability)) {
        let (applies, without) = match capability {
            // Reported above.
            Capability::SysAdmin => (false, ""),
            Capability::SetUid | Capability::SetGid => {
                (mounts && writes_canaries, "no canary can be written as the backup user")
            }
            Capability::NetBindService => (true, "NFS servers that demand a port below 1024 refuse this host"),
            Capability::Chown => (mounts, "a mount point of another user cannot be taken over"),
            Capability::DacReadSearch => (mounts, "files and mount points of other users cannot be read"),
        };
        if applies {
            let severity = if matches!(capability, Capability::SetUid | Capability::SetGid) {
                HostCheckOutcome::Failed
            } else {
                HostCheckOutcome::Warning
            };
            checked.add(
                severity,
                format!("{capability} is missing, so {without}: run the agent as root, and add it to CapabilityBoundingSet= of the unit"),
            );
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named_if_they_are_needed() {
        for (rights, mounts, canaries, outcome, words) in [
            (ProcessRights::ROOT, true, true, HostCheckOutcome::Passed, &[][..]),
            (
                ProcessRights::ROOT.without(Capability::SysAdmin),
                true,
                true,
                HostCheckOutcome::Failed,
                &["CAP_SYS_ADMIN is missing"],
            ),
            (ProcessRights::ROOT.without(Capability::SysAdmin), false, true, HostCheckOutcome::Passed, &[]),
            (
                ProcessRights::ROOT.without(Capability::SetGid),
                true,
                true,
                HostCheckOutcome::Failed,
                &["CAP_SETGID", "canary"],
            ),
            (ProcessRights::ROOT.without(Capability::SetGid), true, false, HostCheckOutcome::Passed, &[]),
            (ProcessRights::ROOT.without(Capability::Chown), true, true, HostCheckOutcome::Warning, &["CAP_CHOWN"]),
            (
                ProcessRights::ROOT.without(Capability::NetBindService),
                false,
                false,
                HostCheckOutcome::Warning,
                &["CAP_NET_BIND_SERVICE", "port below 1024"],
            ),
        ] {
            let checked = judge(rights, mounts, canaries);
            assert_eq!(checked.outcome(), outcome, "{rights:?} {mounts} {canaries}: {checked:?}");
            assert!(words.iter().all(|word| checked.messages().contains(word)), "{words:?}: {checked:?}");
        }
    }
}
