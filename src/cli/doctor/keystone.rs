//! Keystone: whether it answers, and whether its certificate expires soon. Sends no login.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::timeout;

use super::bounds::STEP_DEADLINE;
use super::facts::Facts;
use super::result::{HostCheck, HostCheckOutcome};
use crate::keystone::Keystone;
use crate::model::settings::{AuthSettings, KeystoneSettings};
use crate::tls::observed;

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    let Some(settings) = used(&facts) else { return HostCheck::skipped("the configuration does not use Keystone") };
    let url = &settings.url;
    let asking = async { Keystone::new(url, settings.ca_bundle.as_deref()).await?.discover().await };
    let mut checked = match timeout(STEP_DEADLINE, asking).await {
        Ok(Ok(())) => HostCheck::passed(url),
        Ok(Err(error)) => HostCheck::failed(error.to_string()),
        Err(_) => HostCheck::failed(format!("Keystone at {url} did not answer within {} s", STEP_DEADLINE.as_secs())),
    };
    if let Some(warning) = observed::KEYSTONE.expiry_warning(Timestamp::now()) {
        checked.add(HostCheckOutcome::Warning, warning);
    }
    checked
}

/// The Keystone of the API or of the key manager. Both are `[api.keystone]`.
fn used(facts: &Facts) -> Option<&KeystoneSettings> {
    match &facts.settings.api.auth {
        AuthSettings::Keystone(keystone) => Some(keystone),
        _ => facts.settings.agent.key_manager.as_ref().map(|key_manager| &key_manager.keystone),
    }
}
