//! The registry: whether an agent could open it, and whether one uses it.

use super::bounds::{blocking, late};
use super::result::{HostCheck, HostCheckOutcome};
use crate::config::Settings;
use crate::model::TargetSpec;
use crate::registry::{self, OpenError};
use crate::sys::{ProcessRights, file_lock};

/// What was found.
pub(super) struct FoundRegistry {
    pub(super) checked: HostCheck,
    /// Storage of the registered and the declared targets.
    pub(super) targets: Vec<TargetSpec>,
    /// The process that uses the registry.
    pub(super) agent: Option<u32>,
}

pub(super) async fn check(settings: &Settings) -> FoundRegistry {
    let url = settings.registry_url.clone();
    let inspected = blocking(move || {
        registry::file(&url).map(|file| (registry::inspect(file), file_lock::holder(&registry::lock_path(file))))
    });
    let mut targets: Vec<TargetSpec> = settings.declared.iter().map(|declared| declared.spec.clone()).collect();
    let (inspected, agent) = match inspected.await {
        Some(Some(inspected)) => inspected,
        Some(None) => {
            let checked = HostCheck::unknown(format!("{}: this store has no file", settings.registry_url));
            return FoundRegistry { checked, targets, agent: None };
        }
        None => return FoundRegistry { checked: late(), targets, agent: None },
    };
    let checked = match inspected {
        Ok(found) => {
            targets.extend(found.targets);
            let url = &settings.registry_url;
            let content = match found.content {
                Some(content) => format!("{url} contains {content}"),
                None => format!("{url} does not exist: the agent creates it"),
            };
            let user = agent.map(|pid| format!(", and process {pid} uses it")).unwrap_or_default();
            let mut checked = HostCheck::passed(format!("{content}{user}"));
            if let Some(warning) = found.warning {
                checked.add(HostCheckOutcome::Warning, warning);
            }
            checked
        }
        Err(error) => failure(&error),
    };
    FoundRegistry { checked, targets, agent }
}

fn failure(error: &OpenError) -> HostCheck {
    let is_root = ProcessRights::of(std::process::id()).is_ok_and(ProcessRights::is_root);
    match error {
        OpenError::Unreadable { .. } => HostCheck::unknown(error.to_string()),
        OpenError::Unwritable { .. } if !is_root => {
            HostCheck::unknown(format!("{error}. Run the command as root or as the agent's user"))
        }
        _ => HostCheck::failed(error.to_string()),
    }
}
