//! `[api]`: where it listens, who may use it, and whether all of that fits together.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use toml::Spanned;

use super::{Valid, absolute, duration, required_text, wrong};
use crate::config::error::WrongValue;
use crate::config::raw::{self, Text};
use crate::model::settings::{ApiSettings, AuthSettings, KeystoneCredential, KeystoneSettings, Listen, TlsSettings};

/// The most addresses to listen on.
const LISTEN_MAX: usize = 16;

/// The longest path of a Unix socket, in bytes (`sun_path` in unix(7), less its end).
const UNIX_PATH_MAX_BYTES: usize = 107;

/// Times to wait for Keystone. Its validation without a cache of its own takes half a second.
const KEYSTONE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Times that a token is not validated again: as long as a revoked one may go on.
const CACHE_TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// How many tokens may be remembered: what bounds the memory that they take.
const CACHE_ENTRIES: RangeInclusive<u32> = 16..=1_000_000;

/// How many validations there may be at the same time.
const VALIDATIONS: RangeInclusive<u32> = 1..=256;

const AUTH: &str = "[api] auth";

pub(super) fn api(raw: &raw::Api) -> Valid<ApiSettings> {
    let auth = auth(raw)?;
    let tls = tls(&raw.tls)?;
    let listen = addresses(raw, auth == AuthSettings::None)?;
    let needs_token = &raw.socket_needs_token;
    if *needs_token.get_ref() && auth == AuthSettings::None {
        let problem =
            "with auth = \"none\" there are no tokens; set auth to \"token\" or \"keystone\", or leave it out";
        return Err(WrongValue::new(needs_token.span(), "[api] socket_needs_token", problem));
    }
    let socket_group = raw.socket_group.as_ref().map(|group| name(group, "[api] socket_group")).transpose()?;
    Ok(ApiSettings { listen, socket_group, socket_needs_token: *needs_token.get_ref(), auth, tls })
}

fn addresses(raw: &raw::Api, is_open: bool) -> Valid<Vec<Listen>> {
    const KEY: &str = "[api] listen";
    let mut listen = Vec::new();
    for text in &raw.listen {
        let address = self::address(text)?;
        if address.is_remote() && is_open && !raw.allow_unauthenticated_remote {
            let problem = format!(
                "{address} is reachable from other hosts, and auth = \"none\" would let all of them change targets; set auth to \"token\" or \"keystone\", listen on a loopback address or a Unix socket, or set allow_unauthenticated_remote = true where a firewall keeps others out"
            );
            return Err(wrong(text, KEY, problem));
        }
        if listen.contains(&address) {
            return Err(wrong(text, KEY, format!("{address} is there twice")));
        }
        listen.push(address);
    }
    if listen.is_empty() || listen.len() > LISTEN_MAX {
        let at = raw.listen.first().map_or(0..0, Spanned::span);
        return Err(WrongValue::new(at, KEY, format!("expected 1 to {LISTEN_MAX} addresses, found {}", listen.len())));
    }
    Ok(listen)
}

fn address(text: &Text) -> Valid<Listen> {
    const KEY: &str = "[api] listen";
    let value = text.get_ref();
    if let Some(path) = value.strip_prefix("unix:") {
        let path = absolute(text, path, KEY)?;
        if path.as_os_str().len() > UNIX_PATH_MAX_BYTES {
            return Err(wrong(text, KEY, format!("the path of a Unix socket has at most {UNIX_PATH_MAX_BYTES} bytes")));
        }
        return Ok(Listen::Unix(path));
    }
    value.parse::<SocketAddr>().map(Listen::Tcp).map_err(|_| {
        wrong(
            text,
            KEY,
            format!("{value:?} is no address; expected IP:PORT such as \"127.0.0.1:8781\", or \"unix:/path\""),
        )
    })
}

fn auth(raw: &raw::Api) -> Valid<AuthSettings> {
    let chosen = raw.auth.get_ref().as_str();
    if !["none", "token", "keystone"].contains(&chosen) {
        let problem = format!("{chosen:?} is not known; expected \"none\", \"token\" or \"keystone\"");
        return Err(wrong(&raw.auth, AUTH, problem));
    }
    // What is configured and not used is protection that somebody believes in.
    let unused = [
        ("token", "[api.token] file", &raw.token.file),
        ("keystone", "[api.keystone] url", &raw.keystone.url),
        ("keystone", "[api.keystone] username", &raw.keystone.username),
        ("keystone", "[api.keystone] application_credential_id", &raw.keystone.application_credential_id),
    ];
    for (of, key, given) in unused {
        if let Some(text) = given.as_ref().filter(|_| of != chosen) {
            let problem = format!("[api] auth is {chosen:?}, so it means nothing; set auth = {of:?}, or leave it out");
            return Err(wrong(text, key, problem));
        }
    }
    match chosen {
        "token" => {
            let file = required_text(raw.token.file.as_ref(), &raw.auth, "[api.token] file", "auth = \"token\"")?;
            Ok(AuthSettings::Token { file: absolute(file, file.get_ref(), "[api.token] file")? })
        }
        "keystone" => Ok(AuthSettings::Keystone(Box::new(keystone(&raw.keystone, &raw.auth)?))),
        _ => Ok(AuthSettings::None),
    }
}

fn keystone(raw: &raw::Keystone, auth: &Text) -> Valid<KeystoneSettings> {
    let url = required_text(raw.url.as_ref(), auth, "[api.keystone] url", "auth = \"keystone\"")?;
    let ca_bundle = raw.ca_bundle.as_ref();
    Ok(KeystoneSettings {
        url: keystone_url(url)?,
        credential: credential(raw, auth)?,
        admin_role: name(&raw.admin_role, "[api.keystone] admin_role")?,
        ca_bundle: ca_bundle.map(|path| absolute(path, path.get_ref(), "[api.keystone] ca_bundle")).transpose()?,
        timeout: duration(&raw.timeout, "[api.keystone] timeout", KEYSTONE_TIMEOUTS)?,
        cache_time: duration(&raw.cache_time, "[api.keystone] cache_time", CACHE_TIMES)?,
        negative_cache_time: duration(&raw.negative_cache_time, "[api.keystone] negative_cache_time", CACHE_TIMES)?,
        cache_entries: number(&raw.cache_entries, "[api.keystone] cache_entries", CACHE_ENTRIES)?,
        validations: number(&raw.validations, "[api.keystone] validations", VALIDATIONS)?,
    })
}

fn keystone_url(text: &Text) -> Valid<String> {
    let base = text.get_ref().trim_end_matches('/');
    let base = base.strip_suffix("/v3").unwrap_or(base).trim_end_matches('/');
    let is_usable = base.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if is_usable {
        Ok(base.to_owned())
    } else {
        let problem = format!(
            "{:?} is no address of Keystone; expected one such as \"https://keystone.example.com:5000\"",
            text.get_ref()
        );
        Err(wrong(text, "[api.keystone] url", problem))
    }
}

fn credential(raw: &raw::Keystone, auth: &Text) -> Valid<KeystoneCredential> {
    let application = (&raw.application_credential_id, &raw.application_credential_secret_file);
    match ((&raw.username, &raw.password_file), application) {
        ((Some(username), Some(password_file)), (None, None)) => Ok(KeystoneCredential::Password {
            username: name(username, "[api.keystone] username")?,
            user_domain: name(&raw.user_domain, "[api.keystone] user_domain")?,
            password_file: absolute(password_file, password_file.get_ref(), "[api.keystone] password_file")?,
            project: name(&raw.project, "[api.keystone] project")?,
            project_domain: name(&raw.project_domain, "[api.keystone] project_domain")?,
        }),
        ((None, None), (Some(id), Some(file))) => Ok(KeystoneCredential::Application {
            id: name(id, "[api.keystone] application_credential_id")?,
            secret_file: absolute(file, file.get_ref(), "[api.keystone] application_credential_secret_file")?,
        }),
        _ => {
            let problem = "expected either username together with password_file, or application_credential_id together with application_credential_secret_file: the agent asks Keystone as a user of its own";
            Err(wrong(raw.url.as_ref().unwrap_or(auth), "[api.keystone]", problem))
        }
    }
}

fn tls(raw: &raw::Tls) -> Valid<Option<TlsSettings>> {
    let path = |text: &Text, key: &str| absolute(text, text.get_ref(), &format!("[api.tls] {key}"));
    let (certificate, key) = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => (path(certificate, "certificate")?, path(key, "key")?),
        (None, None) => {
            if let Some(client_ca) = &raw.client_ca {
                return Err(wrong(client_ca, "[api.tls] client_ca", "TLS needs certificate and key as well"));
            }
            return match &raw.require_client_certificate {
                Some(flag) if *flag.get_ref() => Err(no_client_ca(flag)),
                _ => Ok(None),
            };
        }
        (Some(only), None) | (None, Some(only)) => {
            return Err(wrong(only, "[api.tls]", "expected certificate together with key"));
        }
    };
    let client_ca = raw.client_ca.as_ref().map(|text| path(text, "client_ca")).transpose()?;
    let require = raw.require_client_certificate.as_ref().filter(|flag| *flag.get_ref());
    if let Some(flag) = require.filter(|_| client_ca.is_none()) {
        return Err(no_client_ca(flag));
    }
    Ok(Some(TlsSettings { certificate, key, client_ca, require_client_certificate: require.is_some() }))
}

fn no_client_ca(flag: &Spanned<bool>) -> WrongValue {
    let problem = "needs certificate, key, and client_ca: the authorities of the certificates that clients show";
    WrongValue::new(flag.span(), "[api.tls] require_client_certificate", problem)
}

fn name(text: &Text, key: &str) -> Valid<String> {
    let value = text.get_ref();
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(wrong(text, key, format!("{value:?} is no name")));
    }
    Ok(value.clone())
}

fn number(given: &Spanned<u32>, key: &str, range: RangeInclusive<u32>) -> Valid<usize> {
    let value = *given.get_ref();
    if range.contains(&value) {
        Ok(value as usize)
    } else {
        let problem = format!("expected {} to {}, found {value}", range.start(), range.end());
        Err(WrongValue::new(given.span(), key, problem))
    }
}
