//! One frame of `status --watch`: the worst targets first, as many as the terminal has lines for.
//!
//! ```text
//! Backup targets as of 12:03:10Z, every 2 s, q to quit
//! 12 targets: 1 offline, 1 with a warning, 10 available
//! (what is wrong with the connection to the agent)
//!
//! (the table, one line a target)
//! … and 7 more: 7 available
//!
//! (messages of the targets above)
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::filter::nothing_found;
use super::watched::{Watched, clock};
use crate::api::wire;
use crate::cli::exit::ExitState;
use crate::cli::render;
use crate::cli::terminal::{OutputStyle, escape_invisible};

/// Largest number of lines of the problem of the connection.
const PROBLEM_LINES_MAX: usize = 3;

/// Fewest lines below a table of all targets that are enough for the messages. With fewer, a part of the targets is
/// hidden.
const MESSAGES_MIN_LINES: usize = 4;

/// Indentation of the further lines of a message, in columns.
const INDENT: usize = 2;

/// Renders a frame of at most `height` lines, each at most as wide as the style.
pub(super) fn frame(
    watched: &Watched,
    interval: Duration,
    style: OutputStyle,
    height: u16,
    now: Timestamp,
) -> Vec<String> {
    let width = usize::from(style.width);
    let height = usize::from(height);
    let mut lines = Vec::new();
    let as_of = watched.latest.as_ref().map_or_else(String::new, |latest| format!(" as of {}", clock(latest.at)));
    lines.push(format!("Backup targets{as_of}, every {} s, q to quit", interval.as_secs()));
    if let Some(latest) = &watched.latest {
        lines.push(summary(&latest.shown.backup_targets, latest.all, watched.filter.as_deref()));
    }
    if let Some(problem) = watched.problem(now) {
        let mut wrapped = wrap(&problem, width);
        wrapped.truncate(PROBLEM_LINES_MAX);
        lines.extend(wrapped.into_iter().map(|line| render::bad(&line, style)));
    }
    lines.push(String::new());
    if let Some(latest) = &watched.latest {
        let rest = height.saturating_sub(lines.len());
        lines.extend(body(&latest.shown, style, rest, now));
    }
    lines.truncate(height);
    lines.into_iter().map(|line| cut(&line, width)).collect()
}

/// Renders the table and the messages in `height` lines.
fn body(list: &wire::TargetDetailList, style: OutputStyle, height: usize, now: Timestamp) -> Vec<String> {
    let targets = &list.backup_targets;
    if targets.is_empty() {
        return Vec::new();
    }
    let mut lines = render::status_lines(list, style, now);
    let messages: Vec<Vec<String>> = targets.iter().filter_map(|target| message(target, style)).collect();
    let wanted: usize = messages.iter().map(Vec::len).sum();
    // An empty line is above the messages.
    let wanted = if wanted == 0 { 0 } else { wanted + 1 };
    let spare = height.saturating_sub(lines.len());
    let for_messages = wanted.min(if spare >= MESSAGES_MIN_LINES { spare } else { height / 3 });
    let for_table = height - for_messages;
    if lines.len() > for_table {
        lines.truncate(for_table.saturating_sub(1));
        // The first line is the header.
        let hidden = targets.get(lines.len().saturating_sub(1)..).unwrap_or_default();
        lines.push(format!("… and {} more: {}", hidden.len(), counts(hidden)));
    }
    if for_messages > 1 {
        lines.push(String::new());
        let mut left = for_messages - 1;
        for message in messages {
            if message.len() > left {
                lines.extend(message.into_iter().take(left.saturating_sub(1)));
                lines.push("…".to_owned());
                break;
            }
            left -= message.len();
            lines.extend(message);
        }
    }
    lines
}

/// The number of targets in each state.
fn summary(shown: &[wire::TargetDetail], all: usize, filter: Option<&str>) -> String {
    match (shown.len(), filter) {
        (0, filter) => nothing_found(filter, all).trim_end().to_owned(),
        (count, None) => format!("{}: {}", targets(count), counts(shown)),
        (count, Some(filter)) => format!("{count} of {} match {filter}: {}", targets(all), counts(shown)),
    }
}

fn targets(count: usize) -> String {
    format!("{count} target{}", if count == 1 { "" } else { "s" })
}

fn counts(targets: &[wire::TargetDetail]) -> String {
    let mut counts: BTreeMap<ExitState, usize> = BTreeMap::new();
    for target in targets {
        *counts.entry(ExitState::from(&target.report)).or_default() += 1;
    }
    let parts: Vec<String> =
        counts.iter().rev().map(|(state, count)| format!("{count} {}", state.in_summary())).collect();
    parts.join(", ")
}

fn message(target: &wire::TargetDetail, style: OutputStyle) -> Option<Vec<String>> {
    let message = target.report.message.as_ref()?;
    let export = escape_invisible(&target.target.filesystem_export);
    Some(wrap(&format!("{export}: {}", escape_invisible(message)), style.width.into()))
}

/// Breaks a text at spaces into lines of at most `width` columns, and a word that is longer anywhere. All lines but the
/// first are indented.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let indent = if width > 4 * INDENT { " ".repeat(INDENT) } else { String::new() };
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let separator = usize::from(!line.trim_start().is_empty());
        if line.width() + separator + word.width() <= width {
            line.extend((separator == 1).then_some(' '));
            line += word;
            continue;
        }
        if separator == 1 {
            lines.push(std::mem::replace(&mut line, indent.clone()));
        }
        for character in word.chars() {
            if line.width() + character.width().unwrap_or(0) > width {
                lines.push(std::mem::replace(&mut line, indent.clone()));
            }
            line.push(character);
        }
    }
    lines.push(line);
    lines
}

/// Cuts a line after `width` columns. Colour sequences have no width.
fn cut(line: &str, width: usize) -> String {
    let (mut used, mut is_sequence) = (0, false);
    let fits = |character: &char| {
        if is_sequence || *character == '\u{1b}' {
            is_sequence = *character != 'm';
            return true;
        }
        used += character.width().unwrap_or(0);
        used <= width
    };
    line.chars().filter(fits).collect()
}

#[cfg(test)]
mod tests;
