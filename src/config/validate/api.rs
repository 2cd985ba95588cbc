//! Validation of `[api]`, `[metrics]` and `[ui]`: listeners, authentication, TLS, and whether they are consistent.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use http::Uri;
use toml::Spanned;

use crate::config::error::InvalidValue;
use crate::config::raw::{self, Text};
use crate::config::validated::{
    Validated, absolute, duration, invalid, number, one_of, path, required_text, secret_file_or_credential,
};
use crate::model::settings::{
    ApiSettings, AuthSettings, KeystoneCredential, KeystoneSettings, Listen, MetricsDetail, MetricsSettings,
    TlsSettings,
};

/// Largest number of addresses to listen on.
const LISTEN_MAX: usize = 16;

/// Longest path of a Unix socket, in bytes (`sun_path` in unix(7), without the terminating null byte).
const UNIX_PATH_MAX_BYTES: usize = 107;

/// Accepted times to wait for Keystone. Without a cache, Keystone needs half a second to validate a token.
const KEYSTONE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Accepted lifetimes of cache entries. A revoked token stays valid for that long.
const CACHE_TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Accepted sizes of the token cache, in entries. They bound its memory.
const CACHE_ENTRIES: RangeInclusive<u32> = 16..=1_000_000;

/// Accepted numbers of concurrent validations.
const VALIDATIONS: RangeInclusive<u32> = 1..=256;

const AUTH: &str = "[api] auth";

/// Validates `[api]`, `[metrics]` and `[ui]`. `[api.keystone]` is also used if `has_key_manager`.
pub(super) fn api(
    raw: &raw::Api,
    metrics: &raw::Metrics,
    ui: &raw::Ui,
    has_key_manager: bool,
) -> Validated<ApiSettings> {
    let auth = auth(raw, has_key_manager)?;
    let tls = tls(&raw.tls)?;
    let is_open = auth == AuthSettings::None && !raw.allow_unauthenticated_remote;
    let listen = addresses(raw, is_open)?;
    let metrics = self::metrics(metrics, &listen, is_open)?;
    let needs_token = &raw.socket_needs_token;
    if *needs_token.get_ref() && auth == AuthSettings::None {
        let problem = "auth = \"none\" does not use tokens. Set auth to \"token\" or \"keystone\", or remove this key";
        return Err(InvalidValue::new(needs_token.span(), "[api] socket_needs_token", problem));
    }
    let socket_group = raw.socket_group.as_ref().map(|group| name(group, "[api] socket_group")).transpose()?;
    // A page shows exports and messages to every browser that may ask. Beyond this host, that is the operator's choice.
    let has_ui = ui.enabled.unwrap_or_else(|| !listen.iter().any(Listen::is_remote));
    Ok(ApiSettings { listen, socket_group, socket_needs_token: *needs_token.get_ref(), auth, tls, metrics, has_ui })
}

/// Validates `[metrics]`. `api` are the addresses of the API, and `is_open` says whether it has no authentication.
fn metrics(raw: &raw::Metrics, api: &[Listen], is_open: bool) -> Validated<MetricsSettings> {
    const KEY: &str = "[metrics] listen";
    let token_file = raw.token_file.as_ref().map(|text| secret_file_or_credential(text, "[metrics] token_file"));
    let token_file = token_file.transpose()?;
    let listen = listeners(&raw.listen, KEY, |address| {
        if address.is_remote() && is_open && token_file.is_none() {
            return Some(format!(
                "{address} is reachable from other hosts, and no token would protect the metrics. Set [metrics] token_file, or [api] allow_unauthenticated_remote = true if a firewall blocks other hosts"
            ));
        }
        let problem = || format!("{address} is in [api] listen, which serves the metrics too. List it there only");
        api.contains(address).then(problem)
    })?;
    if listen.len() > LISTEN_MAX {
        let problem = format!("expected at most {LISTEN_MAX} addresses, found {}", listen.len());
        return Err(InvalidValue::new(raw.listen[0].span(), KEY, problem));
    }
    let details = &[("full", MetricsDetail::Full), ("targets", MetricsDetail::Targets)];
    let detail = one_of(&raw.detail, "[metrics] detail", details)?;
    Ok(MetricsSettings { listen, token_file, detail })
}

fn addresses(raw: &raw::Api, is_open: bool) -> Validated<Vec<Listen>> {
    const KEY: &str = "[api] listen";
    let listen = listeners(&raw.listen, KEY, |address| {
        let problem = || {
            format!(
                "{address} is reachable from other hosts, and auth = \"none\" would let them change targets. Set auth to \"token\" or \"keystone\", listen on a loopback address or a Unix socket, or set allow_unauthenticated_remote = true if a firewall blocks other hosts"
            )
        };
        (address.is_remote() && is_open).then(problem)
    })?;
    if listen.is_empty() || listen.len() > LISTEN_MAX {
        let at = raw.listen.first().map_or(0..0, Spanned::span);
        return Err(InvalidValue::new(
            at,
            KEY,
            format!("expected 1 to {LISTEN_MAX} addresses, found {}", listen.len()),
        ));
    }
    Ok(listen)
}

/// Validates addresses, and refuses duplicates. `problem` returns what else is wrong with an address.
fn listeners(given: &[Text], key: &str, problem: impl Fn(&Listen) -> Option<String>) -> Validated<Vec<Listen>> {
    let mut listen = Vec::new();
    for text in given {
        let address = address(text, key)?;
        let duplicate = || format!("duplicate address {address}. List it once");
        if let Some(problem) = problem(&address).or_else(|| listen.contains(&address).then(duplicate)) {
            return Err(invalid(text, key, problem));
        }
        listen.push(address);
    }
    Ok(listen)
}

fn address(text: &Text, key: &str) -> Validated<Listen> {
    let value = text.get_ref();
    if let Some(path) = value.strip_prefix("unix:") {
        let path = absolute(text, path, key)?;
        if path.as_os_str().len() > UNIX_PATH_MAX_BYTES {
            return Err(invalid(
                text,
                key,
                format!(
                    "{} bytes is too long. The path of a Unix socket has at most {UNIX_PATH_MAX_BYTES} bytes",
                    path.as_os_str().len()
                ),
            ));
        }
        return Ok(Listen::Unix(path));
    }
    value.parse::<SocketAddr>().map(Listen::Tcp).map_err(|_| {
        invalid(
            text,
            key,
            format!("{value:?} is not an address, expected IP:PORT such as \"127.0.0.1:8781\", or \"unix:/path\""),
        )
    })
}

fn auth(raw: &raw::Api, has_key_manager: bool) -> Validated<AuthSettings> {
    let chosen = raw.auth.get_ref().as_str();
    if !["none", "token", "keystone"].contains(&chosen) {
        let problem = format!("unknown value {chosen:?}, expected \"none\", \"token\" or \"keystone\"");
        return Err(invalid(&raw.auth, AUTH, problem));
    }
    // An operator who configures a protection believes that it is in force.
    let unused = [
        ("token", "[api.token] file", &raw.token.file),
        ("keystone", "[api.keystone] url", &raw.keystone.url),
        ("keystone", "[api.keystone] username", &raw.keystone.username),
        ("keystone", "[api.keystone] application_credential_id", &raw.keystone.application_credential_id),
    ];
    for (method, key, given) in unused {
        let is_used = method == chosen || method == "keystone" && has_key_manager;
        if let Some(text) = given.as_ref().filter(|_| !is_used) {
            let problem =
                format!("not used, because [api] auth is {chosen:?}. Set auth = {method:?}, or remove this key");
            return Err(invalid(text, key, problem));
        }
    }
    match chosen {
        "token" => {
            let file = required_text(raw.token.file.as_ref(), &raw.auth, "[api.token] file", "auth = \"token\"")?;
            Ok(AuthSettings::Token { file: path(file, "[api.token] file")? })
        }
        "keystone" => {
            let needed_by = (raw.auth.span(), "auth = \"keystone\"");
            Ok(AuthSettings::Keystone(Box::new(keystone(&raw.keystone, &needed_by)?)))
        }
        _ => Ok(AuthSettings::None),
    }
}

/// Position and text of the setting that needs another one.
pub(super) type NeededBy = (Range<usize>, &'static str);

/// Validates `[api.keystone]`, with which clients are authenticated and the agent logs in.
pub(super) fn keystone(raw: &raw::Keystone, needed_by: &NeededBy) -> Validated<KeystoneSettings> {
    let missing = || {
        let (at, by) = needed_by.clone();
        InvalidValue::new(at, "[api.keystone] url", format!("missing; {by} needs it"))
    };
    let url = raw.url.as_ref().ok_or_else(missing)?;
    let ca_bundle = raw.ca_bundle.as_ref();
    Ok(KeystoneSettings {
        url: keystone_url(url)?,
        credential: credential(raw, url)?,
        admin_role: name(&raw.admin_role, "[api.keystone] admin_role")?,
        service_type: name(&raw.service_type, "[api.keystone] service_type")?,
        ca_bundle: ca_bundle.map(|text| path(text, "[api.keystone] ca_bundle")).transpose()?,
        timeout: duration(&raw.timeout, "[api.keystone] timeout", KEYSTONE_TIMEOUTS)?,
        cache_time: duration(&raw.cache_time, "[api.keystone] cache_time", CACHE_TIMES)?,
        negative_cache_time: duration(&raw.negative_cache_time, "[api.keystone] negative_cache_time", CACHE_TIMES)?,
        cache_entries: number(&raw.cache_entries, "[api.keystone] cache_entries", CACHE_ENTRIES)? as usize,
        validations: number(&raw.validations, "[api.keystone] validations", VALIDATIONS)? as usize,
    })
}

fn keystone_url(text: &Text) -> Validated<String> {
    const EXAMPLE: &str = "of Keystone, expected a URL such as \"https://keystone.example.com:5000\"";
    service_url(text, "[api.keystone] url", "/v3", EXAMPLE)
}

/// Validates the URL of a service, and removes the version of its API.
pub(super) fn service_url(text: &Text, key: &str, version: &str, example: &str) -> Validated<String> {
    let base = text.get_ref().trim_end_matches('/');
    let base = base.strip_suffix(version).unwrap_or(base).trim_end_matches('/');
    let is_usable = base.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if is_usable {
        Ok(base.to_owned())
    } else {
        Err(invalid(text, key, format!("{:?} is not an http or https URL {example}", text.get_ref())))
    }
}

fn credential(raw: &raw::Keystone, url: &Text) -> Validated<KeystoneCredential> {
    let application = (&raw.application_credential_id, &raw.application_credential_secret_file);
    match ((&raw.username, &raw.password_file), application) {
        ((Some(username), Some(password_file)), (None, None)) => Ok(KeystoneCredential::Password {
            username: name(username, "[api.keystone] username")?,
            user_domain: name(&raw.user_domain, "[api.keystone] user_domain")?,
            password_file: path(password_file, "[api.keystone] password_file")?,
            project: name(&raw.project, "[api.keystone] project")?,
            project_domain: name(&raw.project_domain, "[api.keystone] project_domain")?,
        }),
        ((None, None), (Some(id), Some(file))) => Ok(KeystoneCredential::Application {
            id: name(id, "[api.keystone] application_credential_id")?,
            secret_file: path(file, "[api.keystone] application_credential_secret_file")?,
        }),
        _ => {
            let problem = "incomplete credentials, expected either username and password_file, or application_credential_id and application_credential_secret_file, because the agent logs in to Keystone as its own user";
            Err(invalid(url, "[api.keystone]", problem))
        }
    }
}

fn tls(raw: &raw::Tls) -> Validated<Option<TlsSettings>> {
    let path = |text: &Text, key: &str| path(text, &format!("[api.tls] {key}"));
    let (certificate, key) = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => (path(certificate, "certificate")?, path(key, "key")?),
        (None, None) => {
            if let Some(client_ca) = &raw.client_ca {
                return Err(invalid(client_ca, "[api.tls] client_ca", "TLS also needs certificate and key"));
            }
            return match &raw.require_client_certificate {
                Some(flag) if *flag.get_ref() => Err(no_client_ca(flag)),
                _ => Ok(None),
            };
        }
        (Some(only), None) | (None, Some(only)) => {
            return Err(invalid(only, "[api.tls]", "certificate and key belong together, expected both"));
        }
    };
    let client_ca = raw.client_ca.as_ref().map(|text| path(text, "client_ca")).transpose()?;
    let require = raw.require_client_certificate.as_ref().filter(|flag| *flag.get_ref());
    if let Some(flag) = require.filter(|_| client_ca.is_none()) {
        return Err(no_client_ca(flag));
    }
    Ok(Some(TlsSettings { certificate, key, client_ca, require_client_certificate: require.is_some() }))
}

fn no_client_ca(flag: &Spanned<bool>) -> InvalidValue {
    let problem = "needs certificate, key and client_ca (the certificate authorities of the clients)";
    InvalidValue::new(flag.span(), "[api.tls] require_client_certificate", problem)
}

pub(super) fn name(text: &Text, key: &str) -> Validated<String> {
    let value = text.get_ref();
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(invalid(text, key, format!("{value:?} is not a name, expected text without control characters")));
    }
    Ok(value.clone())
}
