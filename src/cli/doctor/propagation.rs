//! Mount propagation: whether other processes of the host see what the agent mounts.
//!
//! The mount tables show it. A mount has the same id in every table of its mount namespace, and no mount of another
//! namespace has this id. Mounts that share a peer group propagate to each other.

use std::path::Path;
use std::sync::Arc;

use super::bounds::{blocking, late};
use super::facts::Facts;
use super::mount_root::MOUNTS_ELSEWHERE;
use super::result::HostCheck;
use crate::sys::{INIT, MountTable, node};

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    if !facts.uses_mount_root() {
        return HostCheck::skipped(MOUNTS_ELSEWHERE);
    }
    if !facts.settings.agent.visibility.host {
        return HostCheck::skipped("`host = false` in [visibility]: the host need not see what the agent mounts");
    }
    let judged = blocking(move || {
        if !node::sees_processes_of_host() {
            return HostCheck::unknown(
                "this command runs in a container and does not see the mounts of the host: run it on the host, or start the container with the host's process ids (--pid=host)",
            );
        }
        let tables =
            MountTable::of_process(facts.process()).and_then(|table| Ok((table, MountTable::of_process(INIT)?)));
        match tables {
            Ok((table, host)) => judge(&facts.settings.agent.mounts.root, &table, &host)
                .detail(format!("mounts of {}", facts.process_name())),
            Err(error) => HostCheck::unknown(format!("{error}: run the command as root")),
        }
    });
    judged.await.unwrap_or_else(late)
}

/// Judges where a mount below `root` appears that is made in the namespace of `table`. `host` is the table of the host.
fn judge(root: &Path, table: &MountTable, host: &MountTable) -> HostCheck {
    let Some(mount) = table.containing(root) else {
        return HostCheck::unknown("the mount table is empty: check that /proc is mounted");
    };
    let (root, at) = (root.display(), mount.mount_point.display());
    let is_of_host = host.entries().iter().any(|entry| entry.mount_id == mount.mount_id);
    let reaches_host =
        mount.peer_group.is_some() && host.entries().iter().any(|entry| entry.peer_group == mount.peer_group);
    match (is_of_host, reaches_host) {
        (_, true) => HostCheck::passed(""),
        (true, false) => HostCheck::warning(format!(
            "the mount at {at}, which contains {root}, is private: containers that have {root} do not see what the agent mounts later. If containers use the backups, run `mount --make-shared {at}` before they start"
        )),
        (false, _) => HostCheck::failed(format!(
            "what is mounted below {root} stays in a mount namespace of its own, so backups would be written to the disk of the host: the mount at {at} is not shared with the host. Give a container this directory with `shared` propagation, and remove settings such as PrivateMounts= and ProtectSystem= from a unit"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::HostCheckOutcome;
    use super::*;

    const HOST: &str = "20 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n30 20 8:2 / /private rw - ext4 /dev/b rw\n";

    #[test]
    fn mount_root_must_propagate_to_the_host() {
        for (root, table, expected, words) in [
            ("/m", HOST, HostCheckOutcome::Passed, ""),
            ("/private/m", HOST, HostCheckOutcome::Warning, "mount --make-shared /private`"),
            // A container with the directory as a shared bind mount.
            (
                "/m",
                "90 80 0:9 / / rw master:7 - overlay o rw\n91 90 8:1 /m /m rw master:3 shared:1 - ext4 /dev/a rw\n",
                HostCheckOutcome::Passed,
                "",
            ),
            // The same, but only receiving mounts of the host, and without any propagation.
            (
                "/m",
                "91 90 8:1 /m /m rw master:1 - ext4 /dev/a rw\n",
                HostCheckOutcome::Failed,
                "the mount at /m is not shared",
            ),
            ("/m", "90 80 8:1 / / rw - ext4 /dev/a rw\n", HostCheckOutcome::Failed, "the mount at / is not shared"),
            (
                "/m",
                "90 80 8:1 / / rw shared:9 - ext4 /dev/a rw\n",
                HostCheckOutcome::Failed,
                "the mount at / is not shared",
            ),
            ("/m", "", HostCheckOutcome::Unknown, "/proc"),
        ] {
            let parsed = |text: &str| MountTable::parse(text.as_bytes());
            let checked = judge(Path::new(root), &parsed(table), &parsed(HOST));
            assert_eq!(checked.outcome(), expected, "{root} {table}");
            assert!(checked.messages().contains(words), "{}", checked.messages());
        }
    }
}
