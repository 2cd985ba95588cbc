//! `visible`: programs outside of the agent see the target's mount.
//!
//! A process sees the mounts of its mount namespace. If the agent has one of its own, as in a container or in a unit
//! with `PrivateMounts=`, the host sees its mounts only if they propagate (mount_namespaces(7)). Otherwise a program of
//! the host finds an empty directory at the mount path, on the disk of the host. In the same way, a consumer of the
//! backups in a container does not see a mount that the host sees. That is a warning, because backups can be written.
//!
//! All facts come from `/proc`. What it does not show is not a failure: the check is then skipped.

use std::path::Path;
use std::time::Duration;

use super::checked::Checked;
use super::mounted::OwnMount;
use crate::model::Reason;
use crate::model::report::{Finding, HOST_VIEWER, MountFacts, MountViewer, finding};
use crate::model::settings::VisibilitySettings;
use crate::sys::{ConsumerSight, ConsumerWatch, HostMounts, HostView, MountTable, MountTableWatch, Sight};

/// Beginnings of the names of processes that run virtual machines.
const GUEST_CONSUMERS: [&str; 3] = ["libvirtd", "virtqemud", "qemu"];

/// Checks whether the host and the configured consumers see the mount at `path` below `root`. What consumers see may be
/// `max_age` old.
pub async fn visible(
    (mounts, host, consumers): (&MountTableWatch, &HostMounts, &ConsumerWatch),
    settings: &VisibilitySettings,
    (root, path): (&Path, &Path),
    mount: &OwnMount,
    max_age: Duration,
) -> Checked<Vec<MountViewer>> {
    let (checked, host, mut viewers) = visible_to_host(mounts, host, settings, path, mount);
    if settings.consumers.is_empty() || checked.finding().is_some() {
        return checked.detail(host).with_fact(viewers);
    }
    let checked = match consumers.sight(mounts, &settings.consumers, mount.mount_id, max_age).await {
        Ok(Some(sight)) if sight.consumers.is_empty() => checked.detail(host),
        Ok(Some(sight)) => {
            let verified = sight.consumers.iter().filter(|sight| sight.verified > 0);
            viewers.extend(
                verified.map(|sight| MountViewer { name: sight.consumer.clone(), sees_it: sight.blind.is_empty() }),
            );
            let seen = sight.consumers.iter().map(described).collect::<Vec<_>>().join(", ");
            let warnings = sight.consumers.iter().filter_map(|sight| not_visible(sight, root, path));
            let checked = checked.detail(format!("{host}; seen by {seen}")).with_warnings(warnings);
            checked.with_warnings(selinux_warning(&sight, &mount.facts))
        }
        Ok(None) => checked.detail(format!("{host}; consumers are not verified yet")),
        Err(error) => checked.detail(format!("{host}; consumers are not verified: {error}")),
    };
    checked.with_fact(viewers)
}

/// Checks whether the host sees the mount. Also returns the detail of the check, and the host as
/// a viewer unless that is unknown.
fn visible_to_host(
    mounts: &MountTableWatch,
    host: &HostMounts,
    settings: &VisibilitySettings,
    path: &Path,
    mount: &OwnMount,
) -> (Checked<Vec<MountViewer>>, String, Vec<MountViewer>) {
    let viewer = |sees_it| vec![MountViewer { name: HOST_VIEWER.to_owned(), sees_it }];
    let passed = |detail: &str| (Checked::passed(Vec::new()), detail.to_owned(), viewer(true));
    let unknown = |why: &str| (Checked::not_needed(why), why.to_owned(), Vec::new());
    if !settings.host {
        return unknown("disabled in [visibility]: whether the host sees the mount is not verified");
    }
    let own = mounts.current();
    let host = match host.view(&own) {
        Ok(HostView::OwnNamespace) => return passed("the agent and the host have the same mounts"),
        Ok(HostView::Other(table)) => table,
        Err(error) => return unknown(&format!("not verified: {error}")),
    };
    let find = |table: &MountTable| table.entries().iter().find(|entry| entry.mount_id == mount.mount_id).cloned();
    match find(&own) {
        Some(entry) if host.shows(&entry) => passed("the host shares the mount"),
        // The host's table was read after the own one, so the mount may have been unmounted in between. An unmount
        // propagates at once.
        Some(_) if mounts.reread().is_ok_and(|table| find(&table).is_some()) => {
            let finding = finding!(
                Reason::MountsNotShared,
                "the host does not see the mount at {}, because the agent mounts in a mount namespace of its own: a program of the host that writes a backup there would write to the disk of the host. Give the agent's container the mount root with `shared` propagation, or remove settings such as PrivateMounts= and ProtectSystem= from its unit. If every program that uses the backups has the agent's mounts, set `host = false` in [visibility]",
                path.display()
            );
            (Checked::failed(finding), "the host does not share the mount".to_owned(), viewer(false))
        }
        _ => unknown("not verified: the mount changed meanwhile"),
    }
}

/// Describes the processes of one consumer, such as `qemu-kvm (16 of 40 processes)`.
fn described(sight: &ConsumerSight) -> String {
    let ConsumerSight { consumer, verified, unverified, blind } = sight;
    let seeing = verified - blind.len();
    let all = verified + unverified;
    let unread = if *unverified > 0 { format!(", {unverified} not verified") } else { String::new() };
    format!("{consumer} ({seeing} of {all} {}{unread})", if all == 1 { "process" } else { "processes" })
}

/// Returns a warning if virtual machines run on this host, and SELinux denies them the files of this mount.
fn selinux_warning(sight: &Sight, mount: &MountFacts) -> Option<Finding> {
    let runs_guests = |sight: &&ConsumerSight| GUEST_CONSUMERS.iter().any(|name| sight.consumer.starts_with(name));
    let consumer = sight.consumers.iter().find(runs_guests).filter(|_| sight.selinux_denies_nfs)?;
    // Files of such a mount do not have the label `nfs_t`, and this boolean concerns no other label.
    let has_labels = mount.options.split(',').any(|option| option == "seclabel" || option.starts_with("context="));
    (!has_labels).then(|| {
        finding!(
            Reason::SelinuxDeniesNfs,
            "SELinux is enforcing and its boolean virt_use_nfs is off, so the virtual machines of {} cannot open files on NFS: `setsebool -P virt_use_nfs on`",
            consumer.consumer
        )
    })
}

/// Returns a warning if a process of a consumer does not see the mount.
fn not_visible(sight: &ConsumerSight, root: &Path, path: &Path) -> Option<Finding> {
    let first = sight.blind.first()?;
    let more = match sight.blind.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let kolla =
        if first.name.starts_with("nova") { "nova_compute_extra_volumes" } else { "nova_libvirt_extra_volumes" };
    Some(finding!(
        Reason::MountNotVisible,
        "{} (process {}{more}) does not see the mount at {}: its mount namespace does not contain the mount. Give its container {root} with `shared` propagation, and start it again. For kolla-ansible, add \"{root}:{root}:shared\" to {kolla}. For edpm-ansible, add `src: {root}`, `dest: {root}` and `options: shared` to edpm_nova_extra_bind_mounts. If it does not use backups, remove it from `consumers` in [visibility]",
        first.name,
        first.pid,
        path.display(),
        root = root.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ConsumerProcess;

    #[test]
    fn consumer_that_does_not_see_the_mount_is_named_with_what_to_configure() {
        let blind = |name: &str, pids: &[u32]| ConsumerSight {
            consumer: name.to_owned(),
            verified: 3,
            unverified: 0,
            blind: pids.iter().map(|pid| ConsumerProcess { pid: *pid, name: name.to_owned() }).collect(),
        };
        let found = |sight: &ConsumerSight| not_visible(sight, Path::new("/m"), Path::new("/m/x"));
        assert_eq!(found(&blind("libvirtd", &[])), None);
        let message = found(&blind("nova-compute", &[7])).expect("a warning").message;
        assert!(message.starts_with("nova-compute (process 7) does not see the mount at /m/x"), "{message}");
        assert!(message.contains("add \"/m:/m:shared\" to nova_compute_extra_volumes"), "{message}");
        let message = found(&blind("qemu-kvm", &[7, 8, 9])).expect("a warning").message;
        assert!(message.contains("(process 7 and 2 more)") && message.contains("nova_libvirt_extra"), "{message}");
    }

    #[test]
    fn selinux_that_denies_nfs_to_virtual_machines_is_a_warning() {
        let warned = |consumer: &str, selinux_denies_nfs, options: &str| {
            let consumer =
                ConsumerSight { consumer: consumer.to_owned(), verified: 1, unverified: 0, blind: Vec::new() };
            let sight = Sight { consumers: vec![consumer], selinux_denies_nfs };
            selinux_warning(&sight, &MountFacts::from_options("rw", options)).is_some()
        };
        for consumer in ["libvirtd", "virtqemud", "qemu-kvm", "qemu-system-*"] {
            assert!(warned(consumer, true, "rw,vers=3"), "{consumer}");
            assert!(!warned(consumer, false, "rw,vers=3"), "{consumer}");
        }
        assert!(!warned("nova-compute", true, "rw,vers=3"), "it runs no virtual machine itself");
        assert!(!warned("qemu-kvm", true, "rw,seclabel,vers=4.2"), "labels of the server");
        assert!(
            !warned("qemu-kvm", true, "rw,context=system_u:object_r:virt_image_t:s0,vers=3"),
            "a label of the mount"
        );
    }

    #[test]
    fn detail_counts_the_processes_that_see_the_mount() {
        let process = ConsumerProcess { pid: 1, name: "qemu-kvm".to_owned() };
        let sight = |verified, unverified, blind: &[ConsumerProcess]| ConsumerSight {
            consumer: "qemu-*".to_owned(),
            verified,
            unverified,
            blind: blind.to_vec(),
        };
        for (sight, text) in [
            (sight(1, 0, &[]), "qemu-* (1 of 1 process)"),
            (sight(2, 0, &[process]), "qemu-* (1 of 2 processes)"),
            (sight(16, 4, &[]), "qemu-* (16 of 20 processes, 4 not verified)"),
        ] {
            assert_eq!(described(&sight), text);
        }
    }
}
