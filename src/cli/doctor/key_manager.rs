//! The key manager: whether the agent's user can log in, and whether the key manager accepts its token.

use std::sync::Arc;

use jiff::Timestamp;

use super::bounds::STEP_DEADLINE;
use super::facts::Facts;
use super::result::{HostCheck, HostCheckOutcome};
use crate::cli::plain_text::key_manager_warning;
use crate::driver;
use crate::model::settings::KeyManagerSettings;
use crate::tls::observed;

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    let Some(settings) = &facts.settings.agent.key_manager else {
        return HostCheck::skipped("[key_manager] is not enabled");
    };
    let timeout = settings.timeout.min(STEP_DEADLINE);
    let settings = KeyManagerSettings { timeout, ..settings.clone() };
    let mut checked = match driver::verify_key_manager(&settings).await {
        Ok(url) => {
            let mut checked = HostCheck::passed(&url);
            if let Some(warning) = settings.catalog_warning(&url) {
                checked.add(HostCheckOutcome::Warning, warning);
            }
            checked
        }
        Err(error) => HostCheck::failed(error),
    };
    if let Some(warning) = key_manager_warning(&facts.settings.agent) {
        checked.add(HostCheckOutcome::Warning, warning);
    }
    if let Some(warning) = observed::KEY_MANAGER.expiry_warning(Timestamp::now()) {
        checked.add(HostCheckOutcome::Warning, warning);
    }
    checked
}
