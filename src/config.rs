//! Configuration: decodes and validates one TOML file into [`Settings`].
//!
//! There are two stages. [`raw`] lists the keys of the file with their types and defaults. [`validate`] checks every
//! value and builds [`Settings`], which are always valid. Every key has a default, so the agent works without a file.
//! An unknown key, a wrong type or an impossible value is an error that names file, line, key and expectation. If the
//! agent ignored a typo, it would silently not do what the operator configured.

mod declared;
mod error;
mod file;
mod files;
mod raw;
mod settings;
mod validate;
mod validated;

use std::path::Path;

pub use error::ConfigError;
pub use files::{FileKind, NamedFile};
pub use settings::Settings;

use file::read;

/// Default path of the configuration file.
pub const DEFAULT_PATH: &str = "/etc/targetwatch/config.toml";

/// Loads the configuration file at `path`.
///
/// Without a path, loads [`DEFAULT_PATH`], and returns the defaults if that file does not exist.
///
/// # Errors
/// [`ConfigError`] when the file cannot be read or contains an error.
pub fn load(path: Option<&Path>) -> Result<Settings, ConfigError> {
    let file = path.unwrap_or(Path::new(DEFAULT_PATH));
    match read(file) {
        Ok(text) => parse(&text, file),
        Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => parse("", file),
        Err(source) => Err(ConfigError::Unreadable { file: file.to_owned(), source }),
    }
}

/// Parses and validates the text of a configuration. Errors name it `file`.
///
/// # Errors
/// [`ConfigError`] for the first error in the text.
pub fn parse(text: &str, file: &Path) -> Result<Settings, ConfigError> {
    let raw = toml::from_str(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
    validate::settings(raw).map_err(|invalid| invalid.into_error(file, text))
}

#[cfg(test)]
mod tests;
