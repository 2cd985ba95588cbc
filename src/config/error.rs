//! Configuration errors and their positions in the file.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Error in a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {file}: {source}", file = file.display())]
    Unreadable {
        /// Path of the file.
        file: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file contains an error.
    #[error("configuration {file}:{line}: {key}{problem}", file = file.display())]
    Invalid {
        /// Path of the file.
        file: PathBuf,
        /// Line number, starting at 1.
        line: usize,
        /// Key followed by a colon. Empty if the text is not valid TOML.
        key: String,
        /// Value found and expectation.
        problem: String,
    },
}

impl ConfigError {
    /// Converts an error of the TOML parser.
    pub(super) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or_default();
        let source = text.lines().nth(line(text, span.start) - 1).unwrap_or_default().trim();
        // Quotes only a key or a heading. The rest may be a secret, also in a line of a value that has several lines.
        let is_name = |text: &str| text.chars().all(|char| char.is_ascii_alphanumeric() || "-_.[] ".contains(char));
        let quoted = match source.split_once('=') {
            Some((key, _)) if is_name(key) => format!(" in `{} = …`", key.trim_end()),
            None if source.starts_with('[') && is_name(source) => format!(" in `{source}`"),
            _ => String::new(),
        };
        let message = without_string(error.message().trim()).replace('\n', ", ");
        let problem = format!("{message}{quoted}");
        Self::Invalid { file: file.to_owned(), line: line(text, span.start), key: String::new(), problem }
    }
}

/// Removes the quoted string from a type error, because the string may be a secret.
///
/// `serde::de::Unexpected` quotes a string that was found where another type was expected.
fn without_string(message: &str) -> Cow<'_, str> {
    let expectation = message.split_once(": string \"").zip(message.rsplit_once("\", expected "));
    match expectation {
        Some(((problem, _), (_, expected))) => format!("{problem}: string, expected {expected}").into(),
        None => message.into(),
    }
}

/// Invalid value with its position in the text. It becomes a [`ConfigError`] once the file is known.
#[derive(Debug)]
pub(super) struct InvalidValue {
    at: Range<usize>,
    key: String,
    problem: String,
}

impl InvalidValue {
    pub(super) fn new(at: Range<usize>, key: impl Into<String>, problem: impl Display) -> Self {
        Self { at, key: key.into(), problem: problem.to_string() }
    }

    pub(super) fn into_error(self, file: &Path, text: &str) -> ConfigError {
        ConfigError::Invalid {
            file: file.to_owned(),
            line: line(text, self.at.start),
            key: format!("{}: ", self.key),
            problem: self.problem,
        }
    }
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
