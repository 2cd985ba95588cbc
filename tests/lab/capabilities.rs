//! Each capability that the unit grants is needed: without it, a target that is otherwise available is offline.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, Machine, PATH, PREPARED, SERVICE, change_unit, configure, mount_path, systemctl,
    unit_property,
};

/// A configuration that mounts nothing. The agent itself sends requests to mountd and the NFS server.
const WIRE: &str = "[mounts]\nmode = \"none\"\n[probe]\nnfs_interval = \"1s\"\n";

/// A user other than root and the user of the canary.
const OTHER_USER: u32 = 65534;

/// A capability, and what the agent cannot do without it.
struct Need {
    capability: &'static str,
    config: &'static str,
    /// Mode of a mount point that belongs to another user. `None` leaves it to the agent to create one.
    foreign_mount_point: Option<u32>,
    reason: &'static str,
    message: &'static str,
}

const NEEDS: [Need; 6] = [
    Need {
        capability: "cap_sys_admin",
        config: EVERY_SECOND,
        foreign_mount_point: None,
        reason: "mount_not_permitted",
        message: "CAP_SYS_ADMIN",
    },
    Need {
        capability: "cap_setuid",
        config: EVERY_SECOND,
        foreign_mount_point: None,
        reason: "agent_error",
        message: "CAP_SETUID",
    },
    Need {
        capability: "cap_setgid",
        config: EVERY_SECOND,
        foreign_mount_point: None,
        reason: "agent_error",
        message: "CAP_SETGID",
    },
    // The kernel connects its mounts from a reserved port itself.
    Need {
        capability: "cap_net_bind_service",
        config: WIRE,
        foreign_mount_point: None,
        reason: "export_denied",
        message: "a source port below 1024",
    },
    Need {
        capability: "cap_chown",
        config: EVERY_SECOND,
        foreign_mount_point: Some(0o755),
        reason: "mount_point_unusable",
        message: "chown",
    },
    Need {
        capability: "cap_dac_read_search",
        config: EVERY_SECOND,
        foreign_mount_point: Some(0o700),
        reason: "mount_point_unusable",
        message: "open",
    },
];

#[test]
fn agent_needs_each_capability_of_its_unit() {
    let _machine = Machine::start("");
    let granted = unit_property("CapabilityBoundingSet");
    let granted: BTreeSet<&str> = granted.split_ascii_whitespace().collect();
    assert_eq!(granted, NEEDS.iter().map(|need| need.capability).collect(), "each capability of the unit has a row");
    for need in &NEEDS {
        configure(need.config);
        if let Some(mode) = need.foreign_mount_point {
            let point = mount_path(PATH);
            fs::create_dir(&point).expect("created");
            chown(&point, Some(OTHER_USER), Some(OTHER_USER)).expect("changed");
            fs::set_permissions(&point, Permissions::from_mode(mode)).expect("changed");
        }
        change_unit(&format!("[Service]\nCapabilityBoundingSet=~{}\n", need.capability.to_uppercase()));
        systemctl("restart", SERVICE);
        let target = Target::create(EXPORT);
        target.wait_until_offline(&[need.reason], PREPARED);
        let report = target.report();
        assert!(report.message().contains(need.message), "without {}: {report:?}", need.capability);
        // The missing capability alone is the cause.
        change_unit("");
        systemctl("restart", SERVICE);
        target.wait_until_available(PREPARED);
        assert_eq!(target.delete().code, 202, "the next row begins without target and mount point");
    }
}
