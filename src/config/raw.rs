//! Keys of the configuration file, with their types and defaults. [`super::validate`] checks the values.

mod api;

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::declared;

pub(super) use api::{Api, Keystone, Tls};

/// String that is not validated yet, with its position in the file.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) api: Api,
    pub(super) metrics: Metrics,
    pub(super) registry: Registry,
    pub(super) mounts: Mounts,
    pub(super) probe: Probe,
    pub(super) s3: S3,
    pub(super) target: Vec<declared::Target>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Metrics {
    pub(super) listen: Vec<Text>,
    pub(super) token_file: Option<Text>,
    pub(super) detail: Text,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: Vec::new(), token_file: None, detail: text("full") }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Registry {
    pub(super) url: Text,
}

impl Default for Registry {
    fn default() -> Self {
        Self { url: text("sqlite:///var/lib/targetwatch/registry.db") }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mounts {
    pub(super) root: Text,
    pub(super) mode: Text,
    pub(super) path_key: Text,
    pub(super) nfs_options: Text,
    pub(super) address_map: BTreeMap<String, Text>,
    pub(super) nfs: Vec<NfsOverride>,
}

impl Default for Mounts {
    fn default() -> Self {
        Self {
            root: text("/var/trilio/triliovault-mounts"),
            mode: text("kernel"),
            path_key: text("path"),
            nfs_options: text("nolock,soft,timeo=600,intr,lookupcache=none,nfsvers=3,retrans=10"),
            address_map: BTreeMap::new(),
            nfs: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NfsOverride {
    pub(super) location: Text,
    pub(super) options: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Probe {
    pub(super) nfs_interval: Text,
    pub(super) s3_interval: Text,
    pub(super) s3_facts_interval: Text,
    pub(super) deadline: Text,
    pub(super) mount_deadline: Text,
    pub(super) failures_before_offline: Spanned<u32>,
    pub(super) slow_after: Text,
    pub(super) nearly_full_percent: Spanned<f64>,
    pub(super) canary: Canary,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            nfs_interval: text("10s"),
            s3_interval: text("60s"),
            s3_facts_interval: text("15m"),
            deadline: text("2s"),
            mount_deadline: text("30s"),
            failures_before_offline: Spanned::new(0..0, 2),
            slow_after: text("1s"),
            nearly_full_percent: Spanned::new(0..0, 90.0),
            canary: Canary::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Canary {
    pub(super) enabled: bool,
    pub(super) interval: Text,
    pub(super) uid: Spanned<Account>,
    pub(super) gid: Spanned<Account>,
}

impl Default for Canary {
    fn default() -> Self {
        let by_default = || Spanned::new(0..0, Account::Name("default".to_owned()));
        Self { enabled: true, interval: text("5m"), uid: by_default(), gid: by_default() }
    }
}

/// Id or name of a user or group, or `default`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an id from 0 to 4294967294, a name, or \"default\"")]
pub(super) enum Account {
    Id(u32),
    Name(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct S3 {
    pub(super) credentials: Vec<S3Credentials>,
    pub(super) canary: S3Canary,
    pub(super) lock_proof: LockProof,
    pub(super) listing: S3Listing,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct S3Canary {
    pub(super) enabled: bool,
    pub(super) interval: Text,
    pub(super) prefix: Text,
    pub(super) retention: Text,
}

impl Default for S3Canary {
    fn default() -> Self {
        Self { enabled: true, interval: text("5m"), prefix: text("targetwatch-canary/"), retention: text("10s") }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LockProof {
    pub(super) enabled: bool,
    pub(super) interval: Text,
    pub(super) mode: Text,
    pub(super) strict: bool,
    pub(super) min_retention: Text,
    pub(super) min_canary_retention: Text,
}

impl Default for LockProof {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: text("24h"),
            mode: text("default"),
            strict: false,
            min_retention: text("0s"),
            min_canary_retention: text("0s"),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct S3Listing {
    pub(super) enabled: bool,
    pub(super) interval: Text,
    pub(super) requests_max: Spanned<u32>,
}

impl Default for S3Listing {
    fn default() -> Self {
        Self { enabled: false, interval: text("1h"), requests_max: Spanned::new(0..0, 100) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct S3Credentials {
    pub(super) location: Text,
    pub(super) profile: Option<Text>,
    pub(super) access_key_id_file: Option<Text>,
    pub(super) secret_access_key_file: Option<Text>,
    pub(super) region: Option<Text>,
    pub(super) ca_bundle: Option<Text>,
    pub(super) addressing: Option<Text>,
    #[serde(default)]
    pub(super) read_only: bool,
    #[serde(default)]
    pub(super) append_only: bool,
    #[serde(default)]
    pub(super) put_headers: BTreeMap<String, Text>,
}

fn text(value: &str) -> Text {
    Spanned::new(0..0, value.to_owned())
}
