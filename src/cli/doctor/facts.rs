//! What several checks of the host need to know.

use crate::config::Settings;
use crate::model::MountMode;
use crate::model::TargetSpec;

/// The settings, the targets and the agent of this host.
pub(super) struct Facts {
    pub(super) settings: Settings,
    /// Storage of the registered and the declared targets.
    pub(super) targets: Vec<TargetSpec>,
    /// The process that uses the registry.
    pub(super) agent: Option<u32>,
}

impl Facts {
    /// Whether the agent mounts NFS targets.
    pub(super) fn mounts(&self) -> bool {
        self.modes().any(|mode| mode != MountMode::None)
    }

    /// Whether the agent mounts NFS targets below the mount root.
    pub(super) fn uses_mount_root(&self) -> bool {
        self.modes().any(|mode| mode == MountMode::Kernel)
    }

    /// Modes of the configuration and of targets that have their own.
    fn modes(&self) -> impl Iterator<Item = MountMode> {
        let own = self.targets.iter().filter_map(TargetSpec::mount_mode);
        own.chain([self.settings.agent.mounts.mode])
    }

    /// The process whose mounts and capabilities are checked: the running agent, or this command.
    pub(super) fn process(&self) -> u32 {
        self.agent.unwrap_or_else(std::process::id)
    }

    pub(super) fn process_name(&self) -> String {
        match self.agent {
            Some(pid) => format!("the agent, process {pid}"),
            None => "this command, because no running agent was found".to_owned(),
        }
    }
}
