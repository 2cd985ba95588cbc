//! Terminal output: width, colours, and escaping of untrusted text.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::model::line::is_invisible;

pub use crate::model::age::age;
pub use crate::model::line::escape_invisible;

/// Width of a table if the width of the terminal is unknown, in columns. Files and pipes have no width. A
/// serial line reports 0.
const WIDTH_WITHOUT_TERMINAL: u16 = 160;

/// Width and colours of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputStyle {
    /// Width in columns.
    pub width: u16,
    /// Whether the output has colours.
    pub has_color: bool,
}

impl OutputStyle {
    /// Returns the style of standard output. It has colours on a terminal that supports them, unless
    /// `NO_COLOR` is set (no-color.org).
    #[must_use]
    pub fn of_stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let columns = comfy_table::Table::new().width();
        Self {
            width: columns.filter(|columns| is_terminal && *columns > 0).unwrap_or(WIDTH_WITHOUT_TERMINAL),
            has_color: is_terminal && !is_dumb && !is_set("NO_COLOR"),
        }
    }
}

/// Writes to standard output. A closed pipe, as with `head`, is not an error.
pub fn print(text: &str) {
    if let Err(error) = try_print(text)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("targetwatch: standard output: {error}");
    }
}

/// Writes to standard output.
///
/// # Errors
/// When standard output cannot be written to, for example because its reader has ended.
pub fn try_print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a value to standard output as indented JSON.
///
/// # Errors
/// When the value cannot be encoded.
pub fn print_json(value: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
    print(&(json_text(value)? + "\n"));
    Ok(())
}

/// Formats a value as indented JSON.
///
/// # Errors
/// When the value cannot be encoded.
pub fn json_text(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| escape_json(&text))
}

/// Escapes invisible and bidirectional characters in JSON, where they occur only in strings.
#[must_use]
pub fn escape_json(json: &str) -> String {
    escape_in_strings(json, |character| {
        character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat()
    })
}

/// Escapes the same characters in JSON that is read as YAML. YAML has no surrogate pairs (YAML 1.2.2 §5.7).
#[must_use]
pub fn escape_yaml(json: &str) -> String {
    escape_in_strings(json, |character| match u32::from(character) {
        code if code > 0xffff => format!("\\U{code:08x}"),
        code => format!("\\u{code:04x}"),
    })
}

fn escape_in_strings(json: &str, escape: impl Fn(char) -> String) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        // The encoder escapes all control characters below the space. It adds line feeds as indentation.
        if character != '\n' && is_invisible(character) {
            escaped += &escape(character);
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Asks for confirmation of a deletion.
///
/// # Errors
/// When the answer is not yes, or when standard input is not a terminal.
pub fn confirm(what: &str, question: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("cannot ask before deleting {what}, because standard input is not a terminal. Use --yes");
    }
    print(&escape_invisible(&format!("{question} [y/N] ")));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("not deleted") }
}

/// Formats an error with its causes. Skips a cause that an earlier message already contains.
#[must_use]
pub fn error_chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    escape_invisible(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn invisible_characters_are_escaped_in_json() {
        let value = serde_json::json!({"a\u{7f}": "ü\u{202e}\u{e0001}\n"});
        let text = escape_json(&serde_json::to_string_pretty(&value).expect("JSON"));
        assert_eq!(text, "{\n  \"a\\u007f\": \"ü\\u202e\\udb40\\udc01\\n\"\n}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn repeated_cause_is_printed_once() {
        let cause = || std::io::Error::other("disk full");
        let error = anyhow::Error::new(cause()).context("the file was not written");
        assert_eq!(error_chain(&error), "the file was not written: disk full");
        let error = anyhow::Error::new(cause()).context("the file was not written (disk full): make room");
        assert_eq!(error_chain(&error), "the file was not written (disk full): make room");
    }
}
