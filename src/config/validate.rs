//! Validation of each section of the file.

mod aggregate;
mod api;
mod backup_user;
mod key_manager;
mod notify;
mod registry;
mod s3;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use self::backup_user::Accounts;
use super::declared;
use super::error::InvalidValue;
use super::raw::{self, Raw, Text};
use super::settings::Settings;
use super::validated::{INTERVALS, Validated, days, duration, invalid, limited, location, number, one_of, path};
use crate::model::MountMode;
use crate::model::report::{HOST_VIEWER, Severity};
use crate::model::settings::{
    AgentSettings, CanarySettings, LocationPattern, MountSettings, NfsOverride, ProbeOverride, ProbeSettings,
    VisibilitySettings,
};
use crate::model::usage_history::FORECAST_MAX;
use crate::model::{NfsExport, NfsOptions, PathKey};

/// Accepted deadlines of one check. A client that polls the API needs an answer within a minute.
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// Largest number of names of processes that should see the mounts. Each costs reading some mount tables.
const CONSUMERS_MAX: usize = 16;

/// Maximum length of such a name, in characters.
const CONSUMER_MAX_CHARS: usize = 64;

/// Time between two questions of a node to a bucket that another node watches, without a setting.
const BUCKET_CHECK_INTERVAL: Duration = Duration::from_mins(15);

/// Accepted deadlines of `mount.nfs`, which retries by itself.
const MOUNT_DEADLINES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

pub(super) fn settings(raw: Raw) -> Validated<Settings> {
    let Raw {
        api,
        metrics,
        ui,
        registry,
        fleet,
        mounts,
        visibility,
        probe,
        s3,
        key_manager,
        notify,
        aggregate,
        target,
    } = raw;
    let mounts = self::mounts(mounts)?;
    let declared = declared::validate(&target, mounts.path_key)?;
    let notify = notify::notify(&notify, &mounts.root)?;
    Ok(Settings {
        api: api::api(&api, &metrics, &ui, *key_manager.enabled.get_ref())?,
        registry_url: registry::registry(&registry, &fleet)?,
        agent: AgentSettings {
            mounts,
            visibility: self::visibility(&visibility)?,
            probe: self::probe(&probe, &fleet)?,
            s3_access: self::s3::access(&s3.credentials)?,
            key_manager: self::key_manager::key_manager(&key_manager, &api.keystone)?,
            s3_canary: self::s3::canary(&s3.canary, &s3.lock_proof)?,
            lock_proof: self::s3::lock_proof(&s3.lock_proof)?,
            s3_listing: self::s3::listing(&s3.listing)?,
        },
        notify,
        aggregate: aggregate::aggregate(&aggregate)?,
        declared,
    })
}

fn mounts(raw: raw::Mounts) -> Validated<MountSettings> {
    let modes = MountMode::ALL.iter().map(|mode| (mode.as_str(), *mode)).collect::<Vec<_>>();
    let mode = one_of(&raw.mode, "[mounts] mode", &modes)?;
    let severities = [("warning", Severity::Warning), ("offline", Severity::Failure)];
    let in_use_failure = one_of(&raw.in_use_failure, "[mounts] in_use_failure", &severities)?;
    let path_key = one_of(&raw.path_key, "[mounts] path_key", &[("path", PathKey::Path), ("export", PathKey::Export)])?;
    let root = path(&raw.root, "[mounts] root")?;
    if root == Path::new("/") {
        return Err(invalid(
            &raw.root,
            "[mounts] root",
            "\"/\" cannot contain the mount points, expected a directory that contains nothing else",
        ));
    }
    let private_root = path(&raw.private_root, "[mounts] private_root")?;
    if private_root.starts_with(&root) || root.starts_with(&private_root) {
        let problem = format!(
            "{:?} and the mount root {:?} must not contain each other, expected a directory of its own",
            raw.private_root.get_ref(),
            raw.root.get_ref()
        );
        return Err(invalid(&raw.private_root, "[mounts] private_root", problem));
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
    Ok(MountSettings {
        root,
        mode,
        private_root,
        keep_private: raw.keep_private_mounts,
        in_use_failure,
        path_key,
        nfs_options,
        nfs_overrides,
        address_map,
    })
}

fn visibility(raw: &raw::Visibility) -> Validated<VisibilitySettings> {
    const KEY: &str = "[visibility] consumers";
    let names = raw.consumers.get_ref();
    if names.len() > CONSUMERS_MAX {
        let problem = format!("{} names, expected at most {CONSUMERS_MAX}", names.len());
        return Err(InvalidValue::new(raw.consumers.span(), KEY, problem));
    }
    let name = |text: &Text| {
        if text.get_ref() == HOST_VIEWER {
            return Err(invalid(text, KEY, format!("{HOST_VIEWER:?} is reserved: metrics use it for the host itself")));
        }
        let is_name = (1..=CONSUMER_MAX_CHARS).contains(&text.get_ref().chars().count());
        let is_plain = text.get_ref().chars().all(|char| char.is_ascii_graphic() && char != '/');
        if is_name && is_plain {
            return Ok(LocationPattern::new(text.get_ref()));
        }
        let problem =
            format!("{:?} is not the name of a process, expected one as `ps -o comm` shows it", text.get_ref());
        Err(invalid(text, KEY, problem))
    };
    Ok(VisibilitySettings { host: raw.host, consumers: names.iter().map(name).collect::<Validated<_>>()? })
}

fn nfs_options(text: &Text, key: &str) -> Validated<NfsOptions> {
    NfsOptions::parse(text.get_ref()).map_err(|error| invalid(text, key, error))
}

fn probe(raw: &raw::Probe, fleet: &raw::Fleet) -> Validated<ProbeSettings> {
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
        bucket_check_interval: match &fleet.bucket_check_interval {
            Some(interval) => duration(interval, "[fleet] bucket_check_interval", INTERVALS)?,
            None => BUCKET_CHECK_INTERVAL,
        },
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
