//! Keys of `[api]` and its subsections.

use serde::Deserialize;
use toml::Spanned;

use super::{Text, text};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Api {
    pub(in crate::config) listen: Vec<Text>,
    pub(in crate::config) socket_group: Option<Text>,
    pub(in crate::config) socket_needs_token: Spanned<bool>,
    pub(in crate::config) auth: Text,
    pub(in crate::config) allow_unauthenticated_remote: bool,
    pub(in crate::config) token: Token,
    pub(in crate::config) keystone: Keystone,
    pub(in crate::config) tls: Tls,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: vec![text("127.0.0.1:8781"), text("unix:/run/targetwatch/api.sock")],
            socket_group: None,
            socket_needs_token: Spanned::new(0..0, false),
            auth: text("none"),
            allow_unauthenticated_remote: false,
            token: Token::default(),
            keystone: Keystone::default(),
            tls: Tls::default(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Token {
    pub(in crate::config) file: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Keystone {
    pub(in crate::config) url: Option<Text>,
    pub(in crate::config) username: Option<Text>,
    pub(in crate::config) user_domain: Text,
    pub(in crate::config) password_file: Option<Text>,
    pub(in crate::config) project: Text,
    pub(in crate::config) project_domain: Text,
    pub(in crate::config) application_credential_id: Option<Text>,
    pub(in crate::config) application_credential_secret_file: Option<Text>,
    pub(in crate::config) admin_role: Text,
    pub(in crate::config) service_type: Text,
    pub(in crate::config) ca_bundle: Option<Text>,
    pub(in crate::config) timeout: Text,
    pub(in crate::config) cache_time: Text,
    pub(in crate::config) negative_cache_time: Text,
    pub(in crate::config) cache_entries: Spanned<u32>,
    pub(in crate::config) validations: Spanned<u32>,
}

impl Default for Keystone {
    fn default() -> Self {
        Self {
            url: None,
            username: None,
            user_domain: text("Default"),
            password_file: None,
            project: text("service"),
            project_domain: text("Default"),
            application_credential_id: None,
            application_credential_secret_file: None,
            admin_role: text("admin"),
            // The type of Trilio's API, whose routes the agent serves.
            service_type: text("workloads"),
            ca_bundle: None,
            timeout: text("10s"),
            cache_time: text("5m"),
            negative_cache_time: text("30s"),
            cache_entries: Spanned::new(0..0, 10_000),
            validations: Spanned::new(0..0, 16),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Tls {
    pub(in crate::config) certificate: Option<Text>,
    pub(in crate::config) key: Option<Text>,
    pub(in crate::config) client_ca: Option<Text>,
    pub(in crate::config) require_client_certificate: Option<Spanned<bool>>,
}
