//! What people see: the tables of targets and of their types, and a report check by check.

mod target_type;

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::exit::State;
use super::terminal::{Look, age, plain};
use crate::api::wire::Extensible::Known;
use crate::api::wire::{self, parse_timestamp};
use crate::model::Outcome;
use crate::model::report::MountMode;

pub use target_type::{one_type, type_table};

/// The length of a capacity bar, in characters.
const BAR_CHARS: usize = 10;

/// Terminals of fewer columns get tables without bars, so that exports stay readable.
const WIDE: u16 = 110;

/// The table of `status`.
#[must_use]
pub fn status_table(list: &wire::TargetDetailList, look: Look, now: Timestamp) -> String {
    let round_trip = |report: &wire::Report| report.mount.as_ref().and_then(|mount| mount.round_trip_ms);
    // Where there is room for it, and something to tell.
    let has_round_trip =
        look.width >= WIDE && list.backup_targets.iter().any(|target| round_trip(&target.report).is_some());
    let mut header = vec!["TARGET", "TYPE", "STATUS", "SINCE", "CAPACITY", "USED", "CHECKED", "REASON"];
    if has_round_trip {
        header.insert(6, "ROUND TRIP");
    }
    let mut table = table(look, &header);
    for wire::TargetDetail { target, report } in &list.backup_targets {
        let ago = |text: Option<&String>| {
            text.and_then(|text| parse_timestamp(text)).map_or_else(|| "never".to_owned(), |at| age(at, now))
        };
        let name = if target.is_default { "* " } else { "" };
        let (bar, percent) = match report.used_percent {
            Some(percent) => (bar(percent), format!("{percent:.1} %")),
            None => ("-".to_owned(), target.used.clone().unwrap_or_else(|| "-".to_owned())),
        };
        let size = match target.capacity.as_deref() {
            Some(size) if look.width < WIDE => size.to_owned(),
            Some(size) => format!("{bar} {size}"),
            None => bar,
        };
        let mut row = vec![
            Cell::new(format!("{name}{}", plain(&target.filesystem_export))),
            Cell::new(plain(&target.kind)),
            state_cell(&target.status, State::from(report), look),
            Cell::new(ago(Some(&report.since))),
            Cell::new(plain(&size)),
            Cell::new(plain(&percent)).set_alignment(CellAlignment::Right),
            Cell::new(ago(report.checked_at.as_ref())),
            Cell::new(plain(report.reason.as_deref().unwrap_or(""))),
        ];
        if has_round_trip {
            let text =
                round_trip(report).map_or_else(|| "-".to_owned(), |milliseconds| format!("{milliseconds:.1} ms"));
            row.insert(6, Cell::new(text).set_alignment(CellAlignment::Right));
        }
        table.add_row(row);
    }
    // A word that is broken cannot be searched for: only the exports give way.
    for column in table.column_iter_mut().skip(1) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    let mut text = finish(&mut table);
    for wire::TargetDetail { target, report } in &list.backup_targets {
        if let Some(message) = &report.message {
            let _ = writeln!(text, "{}: {}", plain(&target.filesystem_export), plain(message));
        }
    }
    text
}

/// The table of `target list`.
#[must_use]
pub fn target_table(list: &wire::TargetList, look: Look) -> String {
    let mut table = table(look, &["ID", "TARGET", "TYPE", "DEFAULT", "STATUS", "TARGET TYPES", "MOUNT PATH"]);
    for target in &list.backup_targets {
        let types: Vec<&str> = target.backup_target_types.iter().map(|found| found.name.as_str()).collect();
        table.add_row(
            [
                target.id.as_str(),
                &target.filesystem_export,
                &target.kind,
                if target.is_default { "yes" } else { "no" },
                &target.status,
                &types.join(", "),
                &target.filesystem_export_mount_path,
            ]
            .map(|text| Cell::new(plain(text))),
        );
    }
    finish(&mut table)
}

/// The table of `target history`.
#[must_use]
pub fn history_table(history: &wire::History, look: Look) -> String {
    let mut table = table(look, &["AT", "FROM", "TO", "REASON", "MESSAGE"]);
    for transition in &history.transitions {
        table.add_row(
            [
                transition.at.as_str(),
                transition.from.as_deref().unwrap_or("-"),
                &transition.to,
                transition.reason.as_deref().unwrap_or(""),
                transition.message.as_deref().unwrap_or(""),
            ]
            .map(|text| Cell::new(plain(text))),
        );
    }
    for column in table.column_iter_mut().take(4) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    finish(&mut table)
}

/// A report, one line a check, and what follows.
#[must_use]
pub fn report(report: &wire::Report, look: Look) -> String {
    let mut text = format!("{}\n", plain(&report.filesystem_export));
    for check in &report.checks {
        let mark = match (&check.outcome, &check.reason) {
            (Known(Outcome::Passed), None) => paint(&format!("{:<9}", "passed"), Color::Green, look),
            (Known(Outcome::Passed), Some(_)) => paint(&format!("{:<9}", "warning"), Color::Yellow, look),
            (Known(Outcome::Skipped), _) => format!("{:<9}", "skipped"),
            (outcome, _) => paint(&format!("{:<9}", plain(outcome)), Color::Red, look),
        };
        let _ = write!(text, "  {mark} {:<13} {:>9.1} ms", plain(&check.name), check.duration_ms);
        if let Some(reason) = &check.reason {
            let _ = write!(text, "  {}", plain(reason));
        }
        if let Some(message) = &check.message {
            let _ = write!(text, "\n            {}", plain(message));
        }
        // The first finding is the reason and message above.
        for more in check.findings.iter().skip(1) {
            let _ = write!(text, "\n            {}: {}", plain(&more.reason), plain(&more.message));
        }
        if let Some(detail) = &check.detail {
            let _ = write!(text, "\n            {}", plain(detail));
        }
        text.push('\n');
    }
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), crate::model::capacity::format_bytes);
    if report.capacity_bytes.is_some() || report.used_bytes.is_some() {
        let _ = writeln!(
            text,
            "  capacity {}, used {}, available {}",
            size(report.capacity_bytes),
            size(report.used_bytes),
            size(report.available_bytes)
        );
    }
    if let Some(ended_at) =
        report.usage_listing.as_ref().and_then(|listing| listing.counted.as_ref()?.ended_at.as_ref())
    {
        let _ = writeln!(text, "  used as counted by a listing that ended at {}", plain(ended_at));
    }
    if let Some(traffic) = report.mount.as_ref().and_then(traffic) {
        let _ = writeln!(text, "  {}", plain(&traffic));
    }
    if let Some(proof) = &report.object_lock_proof {
        let proved = proof.proved_at.as_ref().map(|at| format!(", proved at {}", plain(at))).unwrap_or_default();
        let _ = writeln!(text, "  object lock {}{proved}", plain(&proof.verdict));
    }
    if let (Some(probe), Some(hour)) = (report.probe_requests, report.requests_last_hour) {
        let _ = writeln!(text, "  requests to the service: {probe} by this probe, {hour} in the last hour");
    }
    let color = color(State::from(report));
    let _ = write!(text, "  {}", paint(&plain(&report.status), color, look));
    if let Some(mode) = &report.mode {
        let how = if *mode == MountMode::Kernel { "mounted" } else { "over the wire, not mounted" };
        let _ = write!(text, " ({how})");
    }
    text.push('\n');
    text
}

/// What went to and fro over a mount.
fn traffic(mount: &wire::Mount) -> Option<String> {
    let bytes = |count: Option<u64>| count.map(crate::model::capacity::format_bytes);
    let (read, written, again) = (bytes(mount.bytes_read)?, bytes(mount.bytes_written)?, mount.retransmissions?);
    let round_trip = match (mount.round_trip_ms, mount.round_trip_over_s) {
        (Some(round_trip), Some(over)) => format!("round trip {round_trip:.1} ms over {over:.0} s"),
        _ => "no request answered".to_owned(),
    };
    Some(format!("{round_trip}; since it was mounted {again} sent again, {read} read, {written} written"))
}

fn table(look: Look, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(look.width);
    if look.has_color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(Cell::new));
    table
}

fn finish(table: &mut Table) -> String {
    let gap = if table.width().is_some_and(|width| width < WIDE) { 1 } else { 2 };
    for column in table.column_iter_mut() {
        column.set_padding((0, gap));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn bar(percent: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bar")]
    let filled = (percent.clamp(0.0, 100.0) / 100.0 * 10.0).round() as usize;
    format!("[{}{}]", "#".repeat(filled), ".".repeat(BAR_CHARS.saturating_sub(filled)))
}

fn color(state: State) -> Color {
    match state {
        State::Available => Color::Green,
        State::Warning => Color::Yellow,
        State::Unknown => Color::Grey,
        State::Offline => Color::Red,
    }
}

fn state_cell(status: &str, state: State, look: Look) -> Cell {
    let cell = Cell::new(plain(status));
    if look.has_color { cell.fg(color(state)) } else { cell }
}

fn paint(text: &str, color: Color, look: Look) -> String {
    let code = match color {
        Color::Green => 32,
        Color::Yellow => 33,
        Color::Red => 31,
        _ => 37,
    };
    if look.has_color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests;
