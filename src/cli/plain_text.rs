//! Warnings about secrets that cross a network without TLS.

use crate::model::settings::{AgentSettings, ApiSettings, AuthSettings};

pub(super) fn warn_about_plain_text(api: &ApiSettings) {
    for warning in plain_text_warnings(api) {
        tracing::warn!("{warning}");
    }
}

/// Returns a warning if the credentials of buckets cross a network in plain text.
pub(super) fn key_manager_warning(settings: &AgentSettings) -> Option<String> {
    let key_manager = settings.key_manager.as_ref()?;
    let keystone = &key_manager.keystone;
    let plain = match &key_manager.endpoint {
        Some(endpoint) if key_manager.is_plain_text_elsewhere() => endpoint,
        _ if keystone.is_plain_text_elsewhere() => &keystone.url,
        _ => return None,
    };
    Some(format!(
        "{plain} is used without TLS, so others on the network can read the credentials of buckets or the agent's password. Set https:// URLs in [key_manager] endpoint and [api.keystone] url"
    ))
}

/// Returns a warning for each way in which tokens cross a network in plain text.
pub(super) fn plain_text_warnings(api: &ApiSettings) -> Vec<String> {
    let mut warnings = Vec::new();
    if let AuthSettings::Keystone(keystone) = &api.auth
        && keystone.is_plain_text_elsewhere()
    {
        warnings.push(format!(
            "Keystone at {} is used without TLS, so others on the network can read the agent's password and all tokens. Set an https:// URL in [api.keystone] url",
            keystone.url
        ));
    }
    if api.tls.is_some() || (api.auth == AuthSettings::None && api.metrics.token_file.is_none()) {
        return warnings;
    }
    let remote = api.listen.iter().chain(&api.metrics.listen).filter(|address| address.is_remote());
    warnings.extend(remote.map(|address| {
        format!("{address} is reachable from other hosts without TLS, so others on the network can read tokens. Set [api.tls]")
    }));
    warnings
}
