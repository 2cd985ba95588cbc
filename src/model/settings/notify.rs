//! Settings of notifications: webhooks and commands.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::report::Status;

/// Settings of notifications (`[notify]`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NotifySettings {
    /// Webhooks (`[[notify.webhook]]`).
    pub webhooks: Vec<WebhookSettings>,
    /// Commands (`[[notify.command]]`).
    pub commands: Vec<CommandSettings>,
}

/// A URL to which notifications are posted.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The URL. Its path and its query may contain a token, so it is not shown.
    pub url: String,
    /// File of the secrets that sign each request.
    pub secret_file: Option<PathBuf>,
    /// PEM file of certificate authorities that are trusted in addition to those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// Deadline of one request.
    pub timeout: Duration,
    /// New statuses that are notified.
    pub on: Vec<Status>,
}

impl fmt::Debug for WebhookSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WebhookSettings").field("origin", &self.origin()).finish_non_exhaustive()
    }
}

impl WebhookSettings {
    /// Returns scheme, host and port of the URL.
    #[must_use]
    pub fn origin(&self) -> &str {
        let host = self.url.find("://").map_or(0, |at| at + 3);
        let end = self.url[host..].find(['/', '?']).map_or(self.url.len(), |at| host + at);
        &self.url[..end]
    }
}

/// A program that is run for each notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSettings {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Deadline of one run.
    pub timeout: Duration,
    /// New statuses that are notified.
    pub on: Vec<Status>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_of_a_webhook_has_no_path_and_no_query() {
        for (url, origin) in [
            ("https://hooks.example.com/services/T0KEN", "https://hooks.example.com"),
            ("http://[::1]:9/?token=T0KEN", "http://[::1]:9"),
            ("http://h?T0KEN", "http://h"),
            ("http://h:1", "http://h:1"),
        ] {
            let (url, timeout) = (url.to_owned(), Duration::ZERO);
            let settings = WebhookSettings { url, secret_file: None, ca_bundle: None, timeout, on: Vec::new() };
            assert_eq!(settings.origin(), origin);
            assert!(!format!("{settings:?}").contains("T0KEN"));
        }
    }
}
