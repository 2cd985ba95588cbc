//! What can be wrong with a configuration, and where.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {file}: {source}", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("configuration {file}:{line}: {key}{problem}", file = file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key with a colon, or nothing where the text is no TOML.
        key: String,
        /// What was found and what was expected.
        problem: String,
    },
}

impl ConfigError {
    /// From what the TOML parser says.
    pub(super) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or_default();
        let source = text.lines().nth(line(text, span.start) - 1).unwrap_or_default().trim();
        // The key and not its value: somebody may have written a secret where its file belongs.
        let quoted = match source.split_once('=') {
            Some((key, _)) => format!(" in `{} = …`", key.trim_end()),
            None if source.starts_with('[') => format!(" in `{source}`"),
            None => String::new(),
        };
        let message = without_text(error.message().trim()).replace('\n', ", ");
        let problem = format!("{message}{quoted}");
        Self::Wrong { file: file.to_owned(), line: line(text, span.start), key: String::new(), problem }
    }
}

/// What the parser says of a text that stands where something else belongs, without the text: it may
/// be a secret. The wording is that of `serde::de::Unexpected`, which quotes it.
fn without_text(message: &str) -> Cow<'_, str> {
    let expectation = message.split_once(": string \"").zip(message.rsplit_once("\", expected "));
    match expectation {
        Some(((problem, _), (_, expected))) => format!("{problem}: a text, expected {expected}").into(),
        None => message.into(),
    }
}

/// A value that is not possible, before it is known in which file.
#[derive(Debug)]
pub(super) struct WrongValue {
    at: Range<usize>,
    key: String,
    problem: String,
}

impl WrongValue {
    pub(super) fn new(at: Range<usize>, key: impl Into<String>, problem: impl Display) -> Self {
        Self { at, key: key.into(), problem: problem.to_string() }
    }

    pub(super) fn into_error(self, file: &Path, text: &str) -> ConfigError {
        ConfigError::Wrong {
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
