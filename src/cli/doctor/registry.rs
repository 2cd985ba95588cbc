//! The registry: whether an agent could open it, and whether one uses it.

use super::result::{Checked, Outcome};
use super::{blocking, late};
use crate::config::Settings;
use crate::model::TargetSpec;
use crate::registry::{self, OpenError};
use crate::sys::{ProcessRights, file_lock};

/// What was found.
pub(super) struct Found {
    pub(super) checked: Checked,
    /// Storage of the registered and the declared targets.
    pub(super) targets: Vec<TargetSpec>,
    /// The process that uses the registry.
    pub(super) agent: Option<u32>,
}

pub(super) async fn check(settings: &Settings) -> Found {
    let url = settings.registry_url.clone();
    let inspected = blocking(move || (registry::inspect(&url), file_lock::holder(&registry::lock_path(&url))));
    let mut targets: Vec<TargetSpec> = settings.declared.iter().map(|declared| declared.spec.clone()).collect();
    let Some((inspected, agent)) = inspected.await else { return Found { checked: late(), targets, agent: None } };
    let checked = match inspected {
        Ok(found) => {
            targets.extend(found.targets);
            let url = &settings.registry_url;
            let content = match found.content {
                Some(content) => format!("{url} contains {content}"),
                None => format!("{url} does not exist: the agent creates it"),
            };
            let user = agent.map(|pid| format!("; process {pid} uses it")).unwrap_or_default();
            let mut checked = Checked::passed(format!("{content}{user}"));
            if let Some(warning) = found.warning {
                checked.add(Outcome::Warning, warning);
            }
            checked
        }
        Err(error) => failure(&error),
    };
    Found { checked, targets, agent }
}

fn failure(error: &OpenError) -> Checked {
    let is_root = ProcessRights::of(std::process::id()).is_ok_and(ProcessRights::is_root);
    match error {
        OpenError::Unreadable { .. } => Checked::unknown(error.to_string()),
        OpenError::Unwritable { .. } if !is_root => {
            Checked::unknown(format!("{error}. Run the command as root or as the agent's user"))
        }
        _ => Checked::failed(error.to_string()),
    }
}
