//! Validation of each section of the file.

mod api;
mod backup_user;
mod notify;
mod s3;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use toml::Spanned;

use self::backup_user::Accounts;
use super::declared;
use super::error::InvalidValue;
use super::raw::{self, Raw, Text};
use super::settings::Settings;
use super::validated::{Validated, invalid, limited};
use crate::model::report::MountMode;
use crate::model::settings::{
    AgentSettings, CanarySettings, LocationPattern, MountSettings, NfsOverride, ProbeOverride, ProbeSettings,
};
use crate::model::usage_history::FORECAST_MAX;
use crate::model::{NfsExport, NfsOptions, PathKey, RegistryUrl};

/// Accepted times between two probes.
const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Accepted deadlines of one check. A client that polls the API needs an answer within a minute.
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// Accepted deadlines of `mount.nfs`, which retries by itself.
const MOUNT_DEADLINES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

/// Directory in which systemd puts the credentials of the agent's unit (systemd.exec(5)).
const UNIT_CREDENTIALS: &str = "/run/credentials/targetwatch.service";

pub(super) fn settings(raw: Raw) -> Validated<Settings> {
    let Raw { api, metrics, ui, registry, mounts, probe, s3, notify, target } = raw;
    let mounts = self::mounts(mounts)?;
    let declared = declared::validate(&target, mounts.path_key)?;
    let notify = notify::notify(&notify, &mounts.root)?;
    Ok(Settings {
        api: api::api(&api, &metrics, &ui)?,
        registry_url: registry_url(&registry.url)?,
        agent: AgentSettings {
            mounts,
            probe: self::probe(&probe)?,
            s3_access: self::s3::access(&s3.credentials)?,
            s3_canary: self::s3::canary(&s3.canary, &s3.lock_proof)?,
            lock_proof: self::s3::lock_proof(&s3.lock_proof)?,
            s3_listing: self::s3::listing(&s3.listing)?,
        },
        notify,
        declared,
    })
}

fn registry_url(url: &Text) -> Validated<RegistryUrl> {
    const KEY: &str = "[registry] url";
    let path = url.get_ref().strip_prefix("sqlite://").ok_or_else(|| {
        let problem = format!("{:?} is not the URL of a registry, expected \"sqlite:///absolute/path\"", url.get_ref());
        invalid(url, KEY, problem)
    })?;
    absolute(url, path, KEY).map(RegistryUrl::Sqlite)
}

fn mounts(raw: raw::Mounts) -> Validated<MountSettings> {
    let mode = one_of(&raw.mode, "[mounts] mode", &[("kernel", MountMode::Kernel), ("none", MountMode::None)])?;
    let path_key = one_of(&raw.path_key, "[mounts] path_key", &[("path", PathKey::Path), ("export", PathKey::Export)])?;
    let root = path(&raw.root, "[mounts] root")?;
    if root == Path::new("/") {
        return Err(invalid(
            &raw.root,
            "[mounts] root",
            "\"/\" cannot contain the mount points, expected a directory that contains nothing else",
        ));
    }
    let mut nfs_overrides = Vec::new();
    for entry in limited(&raw.nfs, "[[mounts.nfs]]")? {
        nfs_overrides.push(NfsOverride {
            location: location(&entry.location, "[[mounts.nfs]] location")?,
            options: nfs_options(&entry.options, "[[mounts.nfs]] options")?,
        });
    }
    let mut address_map = BTreeMap::new();
    for (from, to) in &raw.address_map {
        // Hosts are validated by the parser of exports, so that every accepted host can be mounted from.
        let as_export = |host: &str| NfsExport::parse("host:/").and_then(|export| export.with_host(host));
        for host in [from, to.get_ref()] {
            as_export(host).map_err(|error| invalid(to, "[mounts] address_map", error))?;
        }
        address_map.insert(from.trim_matches(['[', ']']).to_owned(), to.get_ref().clone());
    }
    let nfs_options = nfs_options(&raw.nfs_options, "[mounts] nfs_options")?;
    Ok(MountSettings { root, mode, path_key, nfs_options, nfs_overrides, address_map })
}

fn nfs_options(text: &Text, key: &str) -> Validated<NfsOptions> {
    NfsOptions::parse(text.get_ref()).map_err(|error| invalid(text, key, error))
}

fn probe(raw: &raw::Probe) -> Validated<ProbeSettings> {
    let mut overrides = Vec::new();
    for entry in limited(&raw.target, "[[probe.target]]")? {
        overrides.push(ProbeOverride {
            location: location(&entry.location, "[[probe.target]] location")?,
            full_soon_within: forecast(&entry.full_soon_within, "[[probe.target]] full_soon_within")?,
        });
    }
    Ok(ProbeSettings {
        nfs_interval: duration(&raw.nfs_interval, "[probe] nfs_interval", INTERVALS)?,
        s3_interval: duration(&raw.s3_interval, "[probe] s3_interval", INTERVALS)?,
        s3_facts_interval: duration(&raw.s3_facts_interval, "[probe] s3_facts_interval", INTERVALS)?,
        deadline: duration(&raw.deadline, "[probe] deadline", DEADLINES)?,
        mount_deadline: duration(&raw.mount_deadline, "[probe] mount_deadline", MOUNT_DEADLINES)?,
        failures_before_offline: number(&raw.failures_before_offline, "[probe] failures_before_offline", 1..=1000)?,
        slow_after: duration(&raw.slow_after, "[probe] slow_after", DEADLINES)?,
        nearly_full_percent: number(&raw.nearly_full_percent, "[probe] nearly_full_percent", 0.0..=100.0)?,
        full_soon_within: forecast(&raw.full_soon_within, "[probe] full_soon_within")?,
        overrides,
        canary: CanarySettings {
            enabled: raw.canary.enabled,
            interval: duration(&raw.canary.interval, "[probe.canary] interval", INTERVALS)?,
            user: backup_user::backup_user(&raw.canary, &Accounts::of_host())?,
        },
    })
}

/// Validates a time to full. No forecast is longer than [`FORECAST_MAX`].
fn forecast(text: &Text, key: &str) -> Validated<Duration> {
    let within = days(text, key)?;
    if within <= FORECAST_MAX {
        return Ok(within);
    }
    let problem = format!("{:?} is longer than 365d, the longest forecast, expected at most that", text.get_ref());
    Err(invalid(text, key, problem))
}

fn required_text<'a>(given: Option<&'a Text>, otherwise: &Text, key: &str, needed_by: &str) -> Validated<&'a Text> {
    given.ok_or_else(|| invalid(otherwise, key, format!("missing; {needed_by} needs it")))
}

fn location(text: &Text, key: &str) -> Validated<LocationPattern> {
    if text.get_ref().is_empty() {
        return Err(invalid(text, key, "\"\" is not a pattern, expected an export, in which * matches any characters"));
    }
    Ok(LocationPattern::new(text.get_ref()))
}

fn one_of<T: Copy>(text: &Text, key: &str, known: &[(&str, T)]) -> Validated<T> {
    known.iter().find(|(name, _)| name == text.get_ref()).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("{name:?}")).collect();
        invalid(text, key, format!("unknown value {:?}, expected {}", text.get_ref(), names.join(" or ")))
    })
}

fn number<T: Copy + PartialOrd + Display>(given: &Spanned<T>, key: &str, range: RangeInclusive<T>) -> Validated<T> {
    let value = *given.get_ref();
    if range.contains(&value) {
        return Ok(value);
    }
    let problem = format!("expected {} to {}, found {value}", range.start(), range.end());
    Err(InvalidValue::new(given.span(), key, problem))
}

fn path(text: &Text, key: &str) -> Validated<PathBuf> {
    absolute(text, text.get_ref(), key)
}

fn absolute(text: &Text, path: &str, key: &str) -> Validated<PathBuf> {
    let path = PathBuf::from(path);
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && is_plain && !text.get_ref().chars().any(char::is_control) {
        // Collecting the components removes doubled and trailing slashes, so that paths compare equal.
        Ok(path.components().collect())
    } else {
        Err(invalid(
            text,
            key,
            format!("{:?} is not a usable path, expected an absolute path without \"..\"", path.display()),
        ))
    }
}

/// Validates the path of a secret file. Errors do not quote the value, because it may be the secret itself.
fn secret_file(text: &Text, key: &str) -> Validated<PathBuf> {
    path(text, key).map_err(|_| {
        invalid(text, key, "expected the absolute path, without \"..\", of a file that contains only this value")
    })
}

/// Validates the path of a secret file, or the name of a credential that systemd passes to the unit
/// (`LoadCredential=`).
fn secret_file_or_credential(text: &Text, key: &str) -> Validated<PathBuf> {
    let Some(name) = text.get_ref().strip_prefix("credential:") else { return secret_file(text, key) };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_plain) || name.starts_with('.') {
        return Err(invalid(text, key, "expected \"credential:NAME\" with a NAME from LoadCredential= in the unit"));
    }
    Ok(credentials_directory(std::env::var_os("CREDENTIALS_DIRECTORY")).join(name))
}

/// Returns the directory of the unit's credentials. `variable` is the value of `CREDENTIALS_DIRECTORY`.
///
/// One-shot commands do not have this variable, so they read the credentials of the running unit.
fn credentials_directory(variable: Option<OsString>) -> PathBuf {
    variable.filter(|directory| !directory.is_empty()).map_or_else(|| UNIT_CREDENTIALS.into(), PathBuf::from)
}

fn duration(text: &Text, key: &str, range: RangeInclusive<Duration>) -> Validated<Duration> {
    let parsed = text.get_ref().parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.filter(|duration| range.contains(duration)).ok_or_else(|| {
        let problem = format!(
            "{:?} is not a duration between {:?} and {:?}, expected a value such as \"10s\" or \"500ms\"",
            text.get_ref(),
            range.start(),
            range.end()
        );
        invalid(text, key, problem)
    })
}

/// Parses a duration that may contain days of 24 hours.
fn days(text: &Text, key: &str) -> Validated<Duration> {
    let span = text.get_ref().parse::<Span>().ok();
    let exact = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    exact.and_then(|exact: SignedDuration| Duration::try_from(exact).ok()).ok_or_else(|| {
        invalid(
            text,
            key,
            format!("{:?} is not a duration, expected a value such as \"30d\" or \"12h\", or \"0s\"", text.get_ref()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_directory_is_the_units_when_variable_is_empty() {
        for absent in [None, Some(OsString::new())] {
            assert_eq!(credentials_directory(absent), Path::new(UNIT_CREDENTIALS));
        }
        assert_eq!(credentials_directory(Some("/run/x".into())), Path::new("/run/x"));
    }
}
