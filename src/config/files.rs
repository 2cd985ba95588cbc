//! The files that a configuration names.

use std::path::{Path, PathBuf};

use super::settings::Settings;
use crate::model::settings::{AuthSettings, KeystoneCredential, S3CredentialSource};

/// A file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Section and key that name it.
    pub key: &'static str,
    /// Absolute path of the file.
    pub path: PathBuf,
    /// What the agent requires of it.
    pub kind: FileKind,
}

/// What the agent requires of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// It contains no secret.
    Public,
    /// It contains a secret. The agent refuses it if others may change it, and warns if they may read it.
    Secret,
    /// It contains the secret of a bucket's credentials. The agent warns if others may read or change it.
    BucketSecret,
    /// A program that the agent runs as its own user. The agent refuses it if others may change it.
    Program,
}

impl Settings {
    /// Returns every file that the settings name, in the order of the sections. Of the files that several entries
    /// name, each is returned once.
    #[must_use]
    pub fn files(&self) -> Vec<NamedFile> {
        use FileKind::{BucketSecret, Program, Public, Secret};
        let mut files: Vec<NamedFile> = Vec::new();
        let mut add = |key, path: &Path, kind| {
            if !files.iter().any(|file| file.path == path) {
                files.push(NamedFile { key, path: path.to_owned(), kind });
            }
        };
        match &self.api.auth {
            AuthSettings::None => {}
            AuthSettings::Token { file } => add("[api.token] file", file, Secret),
            AuthSettings::Keystone(_) => {}
        }
        let of_auth = if let AuthSettings::Keystone(keystone) = &self.api.auth { Some(&**keystone) } else { None };
        let key_manager = self.agent.key_manager.as_ref();
        if let Some(keystone) = of_auth.or(key_manager.map(|settings| &settings.keystone)) {
            match &keystone.credential {
                KeystoneCredential::Password { password_file, .. } => {
                    add("[api.keystone] password_file", password_file, Secret);
                }
                KeystoneCredential::Application { secret_file, .. } => {
                    add("[api.keystone] application_credential_secret_file", secret_file, Secret);
                }
            }
            if let Some(ca_bundle) = &keystone.ca_bundle {
                add("[api.keystone] ca_bundle", ca_bundle, Public);
            }
        }
        if let Some(tls) = &self.api.tls {
            add("[api.tls] certificate", &tls.certificate, Public);
            add("[api.tls] key", &tls.key, Secret);
            if let Some(client_ca) = &tls.client_ca {
                add("[api.tls] client_ca", client_ca, Public);
            }
        }
        if let Some(token_file) = &self.api.metrics.token_file {
            add("[metrics] token_file", token_file, Secret);
        }
        if let Some(shared) = self.registry_url.shared() {
            if let Some(ca_file) = &shared.ca_file {
                add("[registry] ca_file", ca_file, Public);
            }
            if let Some((_, password_file)) = &shared.login {
                add("[registry] password_file", password_file, Secret);
            }
        }
        for rule in &self.agent.s3_access {
            if let S3CredentialSource::Files { access_key_id, secret_access_key } = &rule.source {
                add("[[s3.credentials]] access_key_id_file", access_key_id, Public);
                add("[[s3.credentials]] secret_access_key_file", secret_access_key, BucketSecret);
            }
            if let Some(ca_bundle) = &rule.ca_bundle {
                add("[[s3.credentials]] ca_bundle", ca_bundle, Public);
            }
        }
        if let Some(ca_bundle) = key_manager.and_then(|settings| settings.ca_bundle.as_ref()) {
            add("[key_manager] ca_bundle", ca_bundle, Public);
        }
        for webhook in &self.notify.webhooks {
            if let Some(secret_file) = &webhook.secret_file {
                add("[[notify.webhook]] secret_file", secret_file, Secret);
            }
            if let Some(ca_bundle) = &webhook.ca_bundle {
                add("[[notify.webhook]] ca_bundle", ca_bundle, Public);
            }
        }
        for command in &self.notify.commands {
            add("[[notify.command]] argv", &command.program, Program);
        }
        if let Some(nodes_file) = &self.aggregate.nodes_file {
            add("[aggregate] nodes_file", nodes_file, Public);
        }
        if let Some(token_file) = &self.aggregate.token_file {
            add("[aggregate] token_file", token_file, Secret);
        }
        if let Some(ca_bundle) = &self.aggregate.ca_bundle {
            add("[aggregate] ca_bundle", ca_bundle, Public);
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every key whose value is the path of a file that the agent reads.
    fn keys_of_the_sample() -> BTreeSet<String> {
        let (mut section, mut keys) = (String::new(), BTreeSet::new());
        for line in include_str!("../../systemd/config.toml").lines() {
            let line = line.trim_start_matches(['#', ' ']);
            if line.starts_with('[') && line.ends_with(']') {
                section = line.to_owned();
            } else if let Some((key, value)) = line.split_once(" = ") {
                let is_file = value.starts_with("\"/etc/targetwatch/") || value.starts_with("\"credential:");
                if is_file {
                    keys.insert(format!("{section} {key}"));
                }
            }
        }
        keys
    }

    #[test]
    fn every_file_of_the_sample_configuration_is_listed() {
        let text = |auth: &str| {
            format!(
                r#"
                [api]
                auth = "{auth}"
                {}
                [api.tls]
                certificate = "/f/cert"
                key = "/f/key"
                client_ca = "/f/client-ca"
                [metrics]
                token_file = "/f/metrics"
                [registry]
                url = "etcd+https://etcd.example.com/cloud"
                ca_file = "/f/etcd-ca"
                user = "u"
                password_file = "/f/etcd-password"
                [[s3.credentials]]
                location = "*"
                access_key_id_file = "/f/id"
                secret_access_key_file = "/f/secret"
                ca_bundle = "/f/ca"
                [[s3.credentials]]
                location = "another"
                access_key_id_file = "/f/id"
                secret_access_key_file = "/f/secret"
                {}
                [[notify.webhook]]
                url = "https://hooks"
                secret_file = "/f/webhook"
                ca_bundle = "/f/hooks-ca"
                [[notify.command]]
                argv = ["/f/page"]
                [aggregate]
                nodes_file = "/f/nodes"
                token_file = "/f/agents"
                ca_bundle = "/f/agents-ca"
                "#,
                match auth {
                    "token" => "token.file = \"/f/token\"",
                    "keystone" =>
                        "keystone = { url = \"https://k\", username = \"u\", password_file = \"/f/p\", ca_bundle = \"/f/kca\" }",
                    _ =>
                        "keystone = { url = \"https://k\", application_credential_id = \"i\", application_credential_secret_file = \"/f/s\" }",
                },
                match auth {
                    "token" => "",
                    _ => "[key_manager]\nenabled = true\nca_bundle = \"/f/bca\"",
                }
            )
        };
        let mut listed = BTreeSet::new();
        for (auth, count) in [("token", 16), ("keystone", 18), ("application", 17)] {
            let text = text(auth).replace("\"application\"", "\"keystone\"");
            let settings = crate::config::parse(&text, Path::new("c.toml")).expect("valid");
            let files = settings.files();
            assert_eq!(files.len(), count, "{files:?}");
            listed.extend(files.iter().map(|file| file.key.to_owned()));
        }
        let sample = keys_of_the_sample();
        assert!(sample.len() > 5, "{sample:?}");
        assert!(sample.is_subset(&listed), "not listed: {:?}", sample.difference(&listed));
    }
}
