//! Configuration: a TOML file, read whole and validated whole, into plain [`Settings`].
//!
//! Two types for two questions: [`raw`] is what may be written, with every default; [`Settings`] is
//! what is meant, and cannot be wrong. Every key has a default, so an absent file is a working
//! agent. An unknown key, a wrong type or an impossible value is refused with file, line, key and
//! what was expected: a typo that is ignored is an agent that does something else than was asked.

mod error;
mod raw;
mod validate;

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::model::settings::{AgentSettings, ApiSettings, DeclaredTarget};

pub use error::ConfigError;

/// Where the configuration is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/targetwatch/config.toml";

/// The largest file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Everything that the configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How the API is served.
    pub api: ApiSettings,
    /// The registry's file.
    pub registry_path: PathBuf,
    /// How targets are mounted and probed.
    pub agent: AgentSettings,
    /// Targets to be made at start.
    pub declared: Vec<DeclaredTarget>,
}

/// Reads the configuration at `path`, which must exist; or, without one, at [`DEFAULT_PATH`] if
/// there is a file.
///
/// # Errors
/// [`ConfigError`] when it cannot be read or anything in it is wrong.
pub fn load(path: Option<&Path>) -> Result<Settings, ConfigError> {
    let file = path.unwrap_or(Path::new(DEFAULT_PATH));
    match read(file) {
        Ok(text) => parse(&text, file),
        Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => parse("", file),
        Err(source) => Err(ConfigError::Unreadable { file: file.to_owned(), source }),
    }
}

/// Validates the text of a configuration; `file` is what errors call it.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong in it.
pub fn parse(text: &str, file: &Path) -> Result<Settings, ConfigError> {
    let raw = toml::from_str(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
    validate::settings(raw).map_err(|wrong| wrong.into_error(file, text))
}

fn read(file: &Path) -> std::io::Result<String> {
    // A pipe is opened at once so, and then refused: nobody may hold up a reload.
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    opened.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(std::io::Error::other(format!("it is larger than {FILE_MAX_BYTES} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
