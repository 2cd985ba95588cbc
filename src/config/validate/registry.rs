//! Validation of `[registry]`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;

use super::api::name;
use crate::config::raw;
use crate::config::validated::{
    Text, Validated, absolute, duration, invalid, path, required_text, secret_file_or_credential,
};
use crate::model::RegistryUrl;
use crate::model::node_scope::{NODE_LABELS_MAX, label_problem, node_name_problem};
use crate::model::settings::SharedRegistrySettings;

const URL: &str = "[registry] url";

const NODE: &str = "[fleet] node";

const LABELS: &str = "[fleet] labels";

/// Accepted times between two comparisons with the shared registry.
const COMPARE_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// Time between two comparisons, without a setting.
const COMPARE_INTERVAL: Duration = Duration::from_secs(20);

/// Copy of the shared registry, without a setting.
const CACHE: &str = "/var/lib/targetwatch/registry.db";

/// Port of etcd for clients.
const DEFAULT_PORT: u16 = 2379;

/// Prefix of all keys, if the URL has none.
const DEFAULT_PREFIX: &str = "targetwatch";

pub(super) fn registry(raw: &raw::Registry, fleet: &raw::Fleet) -> Validated<RegistryUrl> {
    let url = raw.url.get_ref();
    if let Some(path) = url.strip_prefix("sqlite://") {
        let path = absolute(&raw.url, path, URL)?;
        let unused = [
            ("[registry] cache", &raw.cache),
            ("[registry] ca_file", &raw.ca_file),
            ("[registry] user", &raw.user),
            ("[registry] password_file", &raw.password_file),
            ("[registry] compare_interval", &raw.compare_interval),
            (NODE, &fleet.node),
            ("[fleet] bucket_check_interval", &fleet.bucket_check_interval),
        ];
        let label = fleet.labels.values().next().map(|text| (LABELS, text));
        let unused = unused.into_iter().find_map(|(key, text)| text.as_ref().map(|text| (key, text)));
        return match unused.or(label) {
            Some((key, text)) => Err(invalid(
                text,
                key,
                "not used with an sqlite URL. Set an etcd URL in [registry] url, or remove this key",
            )),
            None => Ok(RegistryUrl::Sqlite(path)),
        };
    }
    let secure = url.strip_prefix("etcd+https://").map(|rest| ("https", rest));
    let plain =
        || ["etcd://", "etcd+http://"].iter().find_map(|scheme| url.strip_prefix(scheme)).map(|rest| ("http", rest));
    let (scheme, rest) = secure.or_else(plain).ok_or_else(|| {
        let problem = format!(
            "{url:?} is not the URL of a registry, expected \"sqlite:///absolute/path\" or \"etcd+https://host:2379,host2:2379/prefix\""
        );
        invalid(&raw.url, URL, problem)
    })?;
    etcd(raw, fleet, scheme, rest)
}

fn etcd(raw: &raw::Registry, fleet: &raw::Fleet, scheme: &str, rest: &str) -> Validated<RegistryUrl> {
    let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let endpoints = hosts.split(',').map(|host| endpoint(&raw.url, scheme, host)).collect::<Validated<_>>()?;
    let prefix = match prefix.trim_matches('/') {
        "" => DEFAULT_PREFIX,
        prefix if prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte)) => prefix,
        prefix => {
            let problem = format!("{prefix:?} is not a prefix of keys, expected letters, digits and -_./");
            return Err(invalid(&raw.url, URL, problem));
        }
    };
    let login = match (&raw.user, &raw.password_file) {
        (None, None) => None,
        (None, Some(text)) => {
            return Err(invalid(text, "[registry] password_file", "not used without [registry] user"));
        }
        (Some(user), file) => {
            let file = required_text(file.as_ref(), user, "[registry] password_file", "[registry] user")?;
            Some((name(user, "[registry] user")?, secret_file_or_credential(file, "[registry] password_file")?))
        }
    };
    let cache = raw.cache.as_ref().map(|text| path(text, "[registry] cache")).transpose()?;
    let ca_file = raw.ca_file.as_ref().map(|text| path(text, "[registry] ca_file")).transpose()?;
    let interval = raw.compare_interval.as_ref();
    let interval = interval.map(|text| duration(text, "[registry] compare_interval", COMPARE_INTERVALS)).transpose()?;
    let settings = SharedRegistrySettings {
        endpoints,
        prefix: prefix.to_owned(),
        cache: cache.unwrap_or_else(|| CACHE.into()),
        ca_file,
        login,
        interval: interval.unwrap_or(COMPARE_INTERVAL),
        node: fleet.node.as_ref().map(node).transpose()?,
        labels: labels(&fleet.labels)?,
    };
    if let (Some(endpoint), Some(user)) = (settings.plain_text_elsewhere(), &raw.user) {
        let problem =
            format!("the password would be sent to {endpoint} without TLS. Set an etcd+https:// URL in {URL}");
        return Err(invalid(user, "[registry] user", problem));
    }
    Ok(RegistryUrl::Etcd(settings.into()))
}

/// Returns the name of this node, which is a part of keys.
fn node(text: &Text) -> Validated<String> {
    match node_name_problem(text.get_ref()) {
        None => Ok(text.get_ref().clone()),
        Some(problem) => Err(invalid(text, NODE, problem)),
    }
}

/// Returns the labels of this node, which the scopes of targets name.
fn labels(raw: &BTreeMap<String, Text>) -> Validated<BTreeMap<String, String>> {
    if let Some(value) = raw.values().nth(NODE_LABELS_MAX) {
        return Err(invalid(value, LABELS, format!("{} labels, {NODE_LABELS_MAX} is the limit", raw.len())));
    }
    let checked =
        raw.iter().map(|(key, value)| match [key, value.get_ref()].into_iter().find_map(|text| label_problem(text)) {
            None => Ok((key.clone(), value.get_ref().clone())),
            Some(problem) => Err(invalid(value, LABELS, problem)),
        });
    checked.collect()
}

/// Returns the URL of a member from a host with an optional port.
fn endpoint(url: &Text, scheme: &str, host: &str) -> Validated<String> {
    let parsed =
        format!("{scheme}://{host}").parse::<Uri>().ok().filter(|uri| uri.path() == "/" && uri.query().is_none());
    let authority = parsed
        .as_ref()
        .and_then(Uri::authority)
        .filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
    match authority {
        Some(authority) => {
            Ok(format!("{scheme}://{}:{}", authority.host(), authority.port_u16().unwrap_or(DEFAULT_PORT)))
        }
        None => Err(invalid(url, URL, format!("{host:?} is not a member of etcd, expected \"host:{DEFAULT_PORT}\""))),
    }
}
