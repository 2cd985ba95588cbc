//! Keys of the configuration file, with their types and defaults. [`super::validate`] checks the values.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::declared;
pub(super) use super::validated::Text;

/// Declares sections of the file: each key once, with its type and its default. A key without one has the default of
/// its type.
macro_rules! sections {
    ($($section:ident { $($(#[$doc:meta])* $key:ident: $type:ty $(= $default:expr)?,)* })*) => {$(
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $section {
            $($(#[$doc])* pub(super) $key: $type,)*
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: sections!(@default $($default)?),)* }
            }
        }
    )*};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}

sections! {
    Raw {
        api: Api,
        metrics: Metrics,
        ui: Ui,
        registry: Registry,
        fleet: Fleet,
        mounts: Mounts,
        visibility: Visibility,
        probe: Probe,
        s3: S3,
        key_manager: KeyManager,
        notify: Notify,
        aggregate: Aggregate,
        target: Vec<declared::TargetEntry>,
    }

    Aggregate {
        nodes: Vec<Text>,
        nodes_file: Option<Text>,
        nodes_srv: Option<Text>,
        nodes_srv_scheme: Text = text("https"),
        nodes_srv_server: Option<Text>,
        token_file: Option<Text>,
        ca_bundle: Option<Text>,
        interval: Option<Text>,
        available_when: Text = text("all"),
        expected_on: Text = text("all"),
    }

    Api {
        listen: Vec<Text> = vec![text("127.0.0.1:8781"), text("unix:/run/targetwatch/api.sock")],
        socket_group: Option<Text>,
        socket_needs_token: Spanned<bool> = without_position(false),
        auth: Text = text("none"),
        allow_unauthenticated_remote: bool,
        token: Token,
        keystone: Keystone,
        tls: Tls,
    }

    Token {
        file: Option<Text>,
    }

    Keystone {
        url: Option<Text>,
        username: Option<Text>,
        user_domain: Text = text("Default"),
        password_file: Option<Text>,
        project: Text = text("service"),
        project_domain: Text = text("Default"),
        application_credential_id: Option<Text>,
        application_credential_secret_file: Option<Text>,
        admin_role: Text = text("admin"),
        /// The default is the type of Trilio's API, whose routes the agent serves.
        service_type: Text = text("workloads"),
        ca_bundle: Option<Text>,
        timeout: Text = text("10s"),
        cache_time: Text = text("5m"),
        negative_cache_time: Text = text("30s"),
        cache_entries: Spanned<u32> = without_position(10_000),
        validations: Spanned<u32> = without_position(16),
    }

    Tls {
        certificate: Option<Text>,
        key: Option<Text>,
        client_ca: Option<Text>,
        require_client_certificate: Option<Spanned<bool>>,
    }

    Metrics {
        listen: Vec<Text>,
        token_file: Option<Text>,
        detail: Text = text("full"),
    }

    Ui {
        enabled: Option<bool>,
    }

    Registry {
        url: Text = text("sqlite:///var/lib/targetwatch/registry.db"),
        cache: Option<Text>,
        ca_file: Option<Text>,
        user: Option<Text>,
        password_file: Option<Text>,
        compare_interval: Option<Text>,
    }

    Fleet {
        node: Option<Text>,
        bucket_check_interval: Option<Text>,
        labels: BTreeMap<String, Text>,
    }

    Mounts {
        root: Text = text("/var/trilio/triliovault-mounts"),
        mode: Text = text("kernel"),
        private_root: Text = text("/run/targetwatch-mounts"),
        keep_private_mounts: bool,
        in_use_failure: Text = text("warning"),
        path_key: Text = text("path"),
        nfs_options: Text = text("nolock,soft,timeo=600,intr,lookupcache=none,nfsvers=3,retrans=10"),
        address_map: BTreeMap<String, Text>,
        nfs: Vec<NfsOverrideEntry>,
    }

    Visibility {
        host: bool = true,
        /// libvirt, Nova, and qemu as distributions name it. The kernel shows 15 characters of a name.
        consumers: Spanned<Vec<Text>> = without_position(
            ["libvirtd", "virtqemud", "nova-compute", "qemu-kvm", "qemu-system-*"].map(text).to_vec()
        ),
    }

    Probe {
        nfs_interval: Text = text("10s"),
        s3_interval: Text = text("60s"),
        s3_facts_interval: Text = text("15m"),
        deadline: Text = text("2s"),
        mount_deadline: Text = text("30s"),
        failures_before_offline: Spanned<u32> = without_position(2),
        slow_after: Text = text("1s"),
        nearly_full_percent: Spanned<f64> = without_position(90.0),
        full_soon_within: Text = text("72h"),
        target: Vec<ProbeOverrideEntry>,
        canary: Canary,
    }

    Canary {
        enabled: bool = true,
        interval: Text = text("5m"),
        uid: Spanned<Account> = without_position(Account::Name("default".to_owned())),
        gid: Spanned<Account> = without_position(Account::Name("default".to_owned())),
    }

    S3 {
        credentials: Vec<S3Credentials>,
        canary: S3Canary,
        lock_proof: LockProof,
        listing: S3Listing,
    }

    KeyManager {
        enabled: Spanned<bool> = without_position(false),
        endpoint: Option<Text>,
        interface: Text = text("public"),
        region: Option<Text>,
        refresh_interval: Text = text("10m"),
        timeout: Text = text("10s"),
        accept_other_endpoints: bool,
        ca_bundle: Option<Text>,
    }

    S3Canary {
        enabled: bool = true,
        interval: Text = text("5m"),
        prefix: Text = text("targetwatch-canary/"),
        retention: Text = text("10s"),
    }

    LockProof {
        enabled: bool = true,
        interval: Text = text("24h"),
        mode: Text = text("default"),
        strict: bool,
        min_retention: Text = text("0s"),
        min_canary_retention: Text = text("0s"),
    }

    Notify {
        webhook: Vec<WebhookEntry>,
        command: Vec<CommandEntry>,
    }

    S3Listing {
        enabled: bool,
        interval: Text = text("1h"),
        requests_max: Spanned<u32> = without_position(100),
    }
}

/// Id or name of a user or group, or `default`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an id from 0 to 4294967294, a name, or \"default\"")]
pub(super) enum Account {
    Id(u32),
    Name(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NfsOverrideEntry {
    pub(super) location: Text,
    pub(super) options: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbeOverrideEntry {
    pub(super) location: Text,
    pub(super) full_soon_within: Text,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookEntry {
    pub(super) url: Text,
    pub(super) secret_file: Option<Text>,
    pub(super) ca_bundle: Option<Text>,
    pub(super) timeout: Option<Text>,
    pub(super) on: Option<Spanned<Vec<Text>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandEntry {
    pub(super) argv: Spanned<Vec<Text>>,
    pub(super) timeout: Option<Text>,
    pub(super) on: Option<Spanned<Vec<Text>>>,
}

fn text(value: &str) -> Text {
    without_position(value.to_owned())
}

/// A default, which has no position in the file.
fn without_position<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}
