//! Results of validation, and rules of values that several sections share.

use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Component, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use toml::Spanned;

use super::error::InvalidValue;
use crate::model::settings::LocationPattern;

/// Largest number of entries in a list of tables.
const ENTRIES_MAX: usize = 10_000;

/// Accepted times between two probes.
pub(super) const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Directory in which systemd puts the credentials of the agent's unit (systemd.exec(5)).
const UNIT_CREDENTIALS: &str = "/run/credentials/targetwatch.service";

/// String that is not validated yet, with its position in the file.
pub(super) type Text = Spanned<String>;

/// Result of the validation of a value.
pub(super) type Validated<T> = Result<T, InvalidValue>;

/// Creates the error of a value at a position of the file.
pub(super) fn invalid(at: &Text, key: &str, problem: impl Display) -> InvalidValue {
    InvalidValue::new(at.span(), key, problem)
}

/// Limits the number of entries of a list.
pub(super) fn limited<'a, T>(list: &'a [T], key: &str) -> Validated<&'a [T]> {
    if list.len() <= ENTRIES_MAX {
        Ok(list)
    } else {
        Err(InvalidValue::new(0..0, key, format!("{} entries, expected at most {ENTRIES_MAX}", list.len())))
    }
}

pub(super) fn required_text<'a>(
    given: Option<&'a Text>,
    otherwise: &Text,
    key: &str,
    needed_by: &str,
) -> Validated<&'a Text> {
    given.ok_or_else(|| invalid(otherwise, key, format!("missing; {needed_by} needs it")))
}

pub(super) fn location(text: &Text, key: &str) -> Validated<LocationPattern> {
    if text.get_ref().is_empty() {
        return Err(invalid(text, key, "\"\" is not a pattern, expected an export, in which * matches any characters"));
    }
    Ok(LocationPattern::new(text.get_ref()))
}

pub(super) fn one_of<T: Copy>(text: &Text, key: &str, known: &[(&str, T)]) -> Validated<T> {
    known.iter().find(|(name, _)| name == text.get_ref()).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("{name:?}")).collect();
        invalid(text, key, format!("unknown value {:?}, expected {}", text.get_ref(), names.join(" or ")))
    })
}

pub(super) fn number<T: Copy + PartialOrd + Display>(
    given: &Spanned<T>,
    key: &str,
    range: RangeInclusive<T>,
) -> Validated<T> {
    let value = *given.get_ref();
    if range.contains(&value) {
        return Ok(value);
    }
    let problem = format!("expected {} to {}, found {value}", range.start(), range.end());
    Err(InvalidValue::new(given.span(), key, problem))
}

pub(super) fn path(text: &Text, key: &str) -> Validated<PathBuf> {
    absolute(text, text.get_ref(), key)
}

pub(super) fn absolute(text: &Text, path: &str, key: &str) -> Validated<PathBuf> {
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
pub(super) fn secret_file_or_credential(text: &Text, key: &str) -> Validated<PathBuf> {
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

pub(super) fn duration(text: &Text, key: &str, range: RangeInclusive<Duration>) -> Validated<Duration> {
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
pub(super) fn days(text: &Text, key: &str) -> Validated<Duration> {
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
    use std::path::Path;

    use super::*;

    #[test]
    fn credentials_directory_is_the_units_when_variable_is_empty() {
        for absent in [None, Some(OsString::new())] {
            assert_eq!(credentials_directory(absent), Path::new(UNIT_CREDENTIALS));
        }
        assert_eq!(credentials_directory(Some("/run/x".into())), Path::new("/run/x"));
    }
}
