//! The terminal: its width, its colours, and what must not reach it.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use jiff::Timestamp;

/// The width of a table that goes to a file or a pipe, or to a terminal that does not know its own (a
/// serial line says 0), in columns.
const WIDTH_WITHOUT_TERMINAL: u16 = 160;

/// How output looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Columns.
    pub width: u16,
    /// Whether colours are wanted.
    pub has_color: bool,
}

impl Look {
    /// Of standard output. Colour only on a terminal that has it, and not when `NO_COLOR` is set
    /// (no-color.org).
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

/// Writes to standard output. A reader who has seen enough, as `head` has, is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("targetwatch: standard output: {error}");
    }
}

/// Asks before something is deleted.
///
/// # Errors
/// When the answer is no, or nobody is there to answer.
pub fn confirm(what: &str, question: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("say --yes to delete {what} without being asked");
    }
    print(&plain(&format!("{question} [y/N] ")));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("no answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("not deleted") }
}

/// Text that may have come from anywhere, with its control characters made visible.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// An error with its causes, each told once: many a message says its cause itself.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    plain(&text)
}

/// How long ago something was, in its largest unit: `12 s`, `3 min`, `5 h`, `2 d`.
#[must_use]
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nä"), "a\\u{1b}[2Jb\\r\\nä");
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("disk full");
        let error = anyhow::Error::new(cause()).context("the file was not written");
        assert_eq!(told(&error), "the file was not written: disk full");
        let error = anyhow::Error::new(cause()).context("the file was not written (disk full): make room");
        assert_eq!(told(&error), "the file was not written (disk full): make room");
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")] {
            assert_eq!(age(at(0), at(seconds)), text);
        }
        assert_eq!(age(at(5), at(0)), "0 s", "a clock that was set back");
    }
}
