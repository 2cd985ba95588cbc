//! The configuration file, validated as the agent does at its start.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::bounds::{blocking, late};
use super::result::{HostCheck, HostCheckOutcome};
use crate::cli::plain_text::plain_text_warnings;
use crate::config::{self, ConfigError, DEFAULT_PATH, Settings};

pub(super) async fn check(file: Option<&Path>) -> (HostCheck, Option<Settings>) {
    let path = file.map(Path::to_owned);
    let is_default = file.is_none();
    let loaded = blocking(move || {
        let is_absent = |path| File::open(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        (config::load(path.as_deref()), is_default && is_absent(DEFAULT_PATH))
    });
    match loaded.await {
        None => (late(), None),
        Some((Ok(settings), is_absent)) => {
            let shown = file.unwrap_or(Path::new(DEFAULT_PATH)).display().to_string();
            let mut checked = HostCheck::passed(if is_absent {
                format!("{shown} does not exist: all defaults apply")
            } else {
                shown
            });
            for warning in plain_text_warnings(&settings.api) {
                checked.add(HostCheckOutcome::Warning, warning);
            }
            (checked, Some(settings))
        }
        Some((Err(error), _)) => (failure(&error), None),
    }
}

fn failure(error: &ConfigError) -> HostCheck {
    match error {
        ConfigError::Unreadable { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            HostCheck::unknown(format!("{error}: run the command as root or as the agent's user"))
        }
        _ => HostCheck::failed(error.to_string()),
    }
}
