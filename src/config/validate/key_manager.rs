//! Validation of `[key_manager]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::api::{keystone, name, service_url};
use crate::config::error::InvalidValue;
use crate::config::raw;
use crate::config::validated::{Validated, duration, one_of, path};
use crate::model::settings::KeyManagerSettings;

/// Accepted times after which a secret is read again.
const REFRESH_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Accepted deadlines of reading a secret.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Validates `[key_manager]`. `None` if it is not enabled.
pub(super) fn key_manager(raw: &raw::KeyManager, login: &raw::Keystone) -> Validated<Option<KeyManagerSettings>> {
    const EXAMPLE: &str = "of the key manager, expected a URL such as \"https://barbican.example.com:9311\"";
    let interface = ["public", "internal", "admin"].map(|name| (name, name));
    let endpoint = raw.endpoint.as_ref().map(|text| service_url(text, "[key_manager] endpoint", "/v1", EXAMPLE));
    let region = raw.region.as_ref().map(|text| name(text, "[key_manager] region"));
    let ca_bundle = raw.ca_bundle.as_ref().map(|text| path(text, "[key_manager] ca_bundle"));
    let (endpoint, region, ca_bundle) = (endpoint.transpose()?, region.transpose()?, ca_bundle.transpose()?);
    let interface = one_of(&raw.interface, "[key_manager] interface", &interface)?.to_owned();
    let refresh_interval = duration(&raw.refresh_interval, "[key_manager] refresh_interval", REFRESH_INTERVALS)?;
    let timeout = duration(&raw.timeout, "[key_manager] timeout", TIMEOUTS)?;
    if !*raw.enabled.get_ref() {
        // An operator who configures an address believes that it is used.
        if let Some(text) = &raw.endpoint {
            let problem = "not used, because [key_manager] enabled is false. Set it to true, or remove this key";
            return Err(InvalidValue::new(text.span(), "[key_manager] endpoint", problem));
        }
        return Ok(None);
    }
    let keystone = keystone(login, &(raw.enabled.span(), "[key_manager] enabled = true"))?;
    let accept_other_endpoints = raw.accept_other_endpoints;
    Ok(Some(KeyManagerSettings {
        keystone,
        endpoint,
        interface,
        region,
        refresh_interval,
        timeout,
        accept_other_endpoints,
        ca_bundle,
    }))
}
