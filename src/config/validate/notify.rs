//! Validation of `[notify]`.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use http::Uri;
use toml::Spanned;

use crate::config::error::InvalidValue;
use crate::config::raw::{self, Text};
use crate::config::validated::{Validated, duration, invalid, one_of, path, secret_file_or_credential};
use crate::model::Status;
use crate::model::settings::{CommandSettings, NotifySettings, WebhookSettings};

/// Largest number of webhooks, and of commands.
const RECEIVERS_MAX: usize = 8;

/// Largest number of words in a command.
const WORDS_MAX: usize = 64;

/// Accepted deadlines of one request to a webhook.
const WEBHOOK_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Accepted deadlines of one run of a command.
const COMMAND_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

/// Deadline of a webhook or a command that sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Validates `[notify]`. `mount_root` may contain storage that hangs.
pub(super) fn notify(raw: &raw::Notify, mount_root: &Path) -> Validated<NotifySettings> {
    let too_many = |key: &str, count: usize| {
        let problem = format!("{count} entries, expected at most {RECEIVERS_MAX}");
        if count > RECEIVERS_MAX { Err(InvalidValue::new(0..0, key, problem)) } else { Ok(()) }
    };
    too_many("[[notify.webhook]]", raw.webhook.len())?;
    too_many("[[notify.command]]", raw.command.len())?;
    Ok(NotifySettings {
        webhooks: raw.webhook.iter().map(webhook).collect::<Validated<_>>()?,
        commands: raw.command.iter().map(|raw| command(raw, mount_root)).collect::<Validated<_>>()?,
    })
}

fn webhook(raw: &raw::WebhookEntry) -> Validated<WebhookSettings> {
    let secret_file = raw.secret_file.as_ref();
    let ca_bundle = raw.ca_bundle.as_ref();
    Ok(WebhookSettings {
        url: url(&raw.url)?,
        secret_file: secret_file
            .map(|text| secret_file_or_credential(text, "[[notify.webhook]] secret_file"))
            .transpose()?,
        ca_bundle: ca_bundle.map(|text| path(text, "[[notify.webhook]] ca_bundle")).transpose()?,
        timeout: timeout(raw.timeout.as_ref(), "[[notify.webhook]] timeout", WEBHOOK_TIMEOUTS)?,
        on: statuses(raw.on.as_ref(), "[[notify.webhook]] on")?,
    })
}

/// Errors do not quote the URL, because it may contain a token.
fn url(text: &Text) -> Validated<String> {
    let url = text.get_ref();
    let is_usable = url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if is_usable && !url.contains('#') {
        return Ok(url.clone());
    }
    let problem = "not an http or https URL without user and fragment, expected a URL such as \"https://alerts.example.com/targetwatch\"";
    Err(invalid(text, "[[notify.webhook]] url", problem))
}

fn command(raw: &raw::CommandEntry, mount_root: &Path) -> Validated<CommandSettings> {
    const KEY: &str = "[[notify.command]] argv";
    let words = raw.argv.get_ref();
    let Some((program, arguments)) = words.split_first().filter(|_| words.len() <= WORDS_MAX) else {
        let problem = format!("{} words, expected a program and its arguments, at most {WORDS_MAX}", words.len());
        return Err(InvalidValue::new(raw.argv.span(), KEY, problem));
    };
    if let Some(word) = arguments.iter().find(|word| word.get_ref().contains('\0')) {
        return Err(invalid(word, KEY, "an argument cannot contain a null byte"));
    }
    let program_path = path(program, KEY)?;
    if program_path.starts_with(mount_root) {
        let problem = format!("{} is below [mounts] root, expected a program on a local disk", program_path.display());
        return Err(invalid(program, KEY, problem));
    }
    Ok(CommandSettings {
        program: program_path,
        arguments: arguments.iter().map(|word| OsString::from(word.get_ref())).collect(),
        timeout: timeout(raw.timeout.as_ref(), "[[notify.command]] timeout", COMMAND_TIMEOUTS)?,
        on: statuses(raw.on.as_ref(), "[[notify.command]] on")?,
    })
}

fn timeout(given: Option<&Text>, key: &str, range: RangeInclusive<Duration>) -> Validated<Duration> {
    given.map_or(Ok(DEFAULT_TIMEOUT), |text| duration(text, key, range))
}

fn statuses(given: Option<&Spanned<Vec<Text>>>, key: &str) -> Validated<Vec<Status>> {
    let Some(given) = given else { return Ok(Status::ALL.to_vec()) };
    if given.get_ref().is_empty() {
        let problem = "no status, expected \"offline\", \"available\" or both";
        return Err(InvalidValue::new(given.span(), key, problem));
    }
    let known = [("offline", Status::Offline), ("available", Status::Available)];
    given.get_ref().iter().map(|text| one_of(text, key, &known)).collect()
}
