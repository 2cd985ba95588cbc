//! Tables of targets and target types, and reports of probes.

mod fleet;
mod state;
mod table;
mod target_type;

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, Table};
use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::exit::ExitState;
use super::terminal::{OutputStyle, age, escape_invisible};
use crate::api::wire::Extensible::{Known, Unknown};
use crate::api::wire::{self, parse_timestamp};
use crate::model::MountMode;
use crate::model::Outcome;
use crate::model::age::in_one_unit;

pub use fleet::fleet_table;
pub(super) use state::mark;
pub use state::{NO_TARGETS, bad};
use state::{painted, state_cell};
use table::{WIDE_COLUMNS, finish, gap, table};
pub use target_type::{one_type, type_table, visible_to};

/// Length of a capacity bar, in characters.
const BAR_CHARS: u8 = 10;

/// Column of the table of `status`.
struct StatusColumn {
    title: &'static str,
    cells: Vec<String>,
}

/// Titles of the columns of numbers, which are aligned to the right.
const RIGHT_ALIGNED: [&str; 3] = ["USED", "FULL IN", "ROUND TRIP"];

/// Columns that `--watch` omits on a terminal that is too narrow, the first of them first.
const OMITTED_IN_ORDER: [&str; 6] = ["ROUND TRIP", "CAPACITY", "TYPE", "CHECKED", "FULL IN", "SINCE"];

/// Width up to which an export is not shortened in favour of another column, in columns.
const EXPORT_COLUMNS: usize = 24;

/// Renders the table of `status`, and the messages below it.
#[must_use]
pub fn status_table(list: &wire::TargetDetailList, style: OutputStyle, now: Timestamp) -> String {
    let mut columns = status_columns(list, style, now);
    // Without the space for bars, these columns would make exports too narrow.
    if style.width < WIDE_COLUMNS {
        columns.retain(|column| !["ROUND TRIP", "FULL IN"].contains(&column.title));
    }
    let mut table = status_cells(list, &columns, style);
    // Only exports are wrapped, because a wrapped word cannot be found by a search.
    for column in table.column_iter_mut().skip(1) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    let mut text = finish(&mut table);
    for wire::TargetDetail { target, report } in &list.backup_targets {
        if let Some(message) = &report.message {
            let _ = writeln!(text, "{}: {}", escape_invisible(&target.filesystem_export), escape_invisible(message));
        }
    }
    text
}

/// Renders the table of `status` with one line for each target, after the header. If the terminal is too narrow,
/// columns are omitted and exports are shortened.
#[must_use]
pub fn status_lines(list: &wire::TargetDetailList, style: OutputStyle, now: Timestamp) -> Vec<String> {
    let mut columns = status_columns(list, style, now);
    let gap = usize::from(gap(style.width));
    let width =
        |column: &StatusColumn| column.cells.iter().map(|cell| cell.width()).max().unwrap_or(0).max(column.title.len());
    let left = |columns: &[StatusColumn]| {
        let others: usize = columns.iter().skip(1).map(|column| width(column) + gap).sum();
        usize::from(style.width).saturating_sub(others + gap)
    };
    let needed = columns.first().map_or(0, width).min(EXPORT_COLUMNS);
    for title in OMITTED_IN_ORDER {
        if left(&columns) < needed {
            columns.retain(|column| column.title != title);
        }
    }
    let left = left(&columns);
    if let Some(exports) = columns.first_mut() {
        exports.cells.iter_mut().for_each(|export| *export = shortened(export, left));
    }
    let mut table = status_cells(list, &columns, style);
    for column in table.column_iter_mut() {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    finish(&mut table).lines().map(str::to_owned).collect()
}

/// Returns the columns that have a value, the exports first.
fn status_columns(list: &wire::TargetDetailList, style: OutputStyle, now: Timestamp) -> Vec<StatusColumn> {
    let ago = |text: Option<&String>| {
        text.and_then(|text| parse_timestamp(text)).map_or_else(|| "never".to_owned(), |at| age(at, now))
    };
    let dash = || "-".to_owned();
    let column = |title, cell: &dyn Fn(&wire::Target, &wire::Report) -> String| {
        let cells = list.backup_targets.iter().map(|detail| escape_invisible(&cell(&detail.target, &detail.report)));
        StatusColumn { title, cells: cells.collect() }
    };
    let mut columns = vec![
        column("TARGET", &|target, _| {
            format!("{}{}", if target.is_default { "* " } else { "" }, target.filesystem_export)
        }),
        column("TYPE", &|target, _| target.kind.to_string()),
        column("STATUS", &|target, _| target.status.to_string()),
        column("SINCE", &|_, report| ago(Some(&report.since))),
        column("CAPACITY", &|target, report| {
            let bar = report.used_percent.map_or_else(dash, bar);
            match target.capacity.as_deref() {
                Some(size) if style.width < WIDE_COLUMNS => size.to_owned(),
                Some(size) => format!("{bar} {size}"),
                None => bar,
            }
        }),
        column("USED", &|target, report| {
            report.used_percent.map_or_else(|| target.used.clone().unwrap_or_else(dash), |used| format!("{used:.1} %"))
        }),
        column("FULL IN", &|_, report| report.time_to_full_s.map(Duration::from_secs).map_or_else(dash, in_one_unit)),
        column("ROUND TRIP", &|_, report| {
            let time = report.mount.as_ref().and_then(|mount| mount.round_trip_ms);
            time.map_or_else(dash, |milliseconds| format!("{milliseconds:.1} ms"))
        }),
        column("CHECKED", &|_, report| ago(report.checked_at.as_ref())),
        column("REASON", &|_, report| report.reason.as_deref().unwrap_or("").to_owned()),
    ];
    columns.retain(|column| {
        !["FULL IN", "ROUND TRIP"].contains(&column.title) || column.cells.iter().any(|cell| cell != "-")
    });
    columns
}

fn status_cells(list: &wire::TargetDetailList, columns: &[StatusColumn], style: OutputStyle) -> Table {
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    let mut table = table(style, &titles);
    for (row, detail) in list.backup_targets.iter().enumerate() {
        table.add_row(columns.iter().map(|column| {
            let text = column.cells.get(row).map_or("", String::as_str);
            match column.title {
                "STATUS" => state_cell(text, ExitState::from(&detail.report), style),
                title if RIGHT_ALIGNED.contains(&title) => Cell::new(text).set_alignment(CellAlignment::Right),
                _ => Cell::new(text),
            }
        }));
    }
    table
}

/// Shortens a text to `width` columns, in its middle. Exports of one server differ at the end.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let fitting = |characters: &mut dyn Iterator<Item = char>, width: usize| -> String {
        let mut used = 0;
        characters
            .take_while(|character| {
                used += character.width().unwrap_or(0);
                used <= width
            })
            .collect()
    };
    let left = width.saturating_sub(1);
    let head = fitting(&mut text.chars(), left / 3);
    let tail = fitting(&mut text.chars().rev(), left - left / 3);
    format!("{head}…{}", tail.chars().rev().collect::<String>())
}

/// Renders the table of `target list`.
#[must_use]
pub fn target_table(list: &wire::TargetList, style: OutputStyle) -> String {
    let mut table = table(style, &["ID", "TARGET", "TYPE", "DEFAULT", "STATUS", "TARGET TYPES", "MOUNT PATH"]);
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
            .map(|text| Cell::new(escape_invisible(text))),
        );
    }
    finish(&mut table)
}

/// Renders the table of `target history`.
#[must_use]
pub fn history_table(history: &wire::History, style: OutputStyle) -> String {
    let mut table = table(style, &["AT", "FROM", "TO", "REASON", "MESSAGE"]);
    for transition in &history.transitions {
        table.add_row(
            [
                transition.at.as_str(),
                transition.from.as_deref().unwrap_or("-"),
                &transition.to,
                transition.reason.as_deref().unwrap_or(""),
                transition.message.as_deref().unwrap_or(""),
            ]
            .map(|text| Cell::new(escape_invisible(text))),
        );
    }
    for column in table.column_iter_mut().take(4) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    finish(&mut table)
}

/// Renders a report: one line for each check, then capacity, mount, lock proof and status.
#[must_use]
pub fn report(report: &wire::Report, style: OutputStyle) -> String {
    let mut text = format!("{}\n", escape_invisible(&report.filesystem_export));
    for check in &report.checks {
        let mark = match (&check.outcome, &check.reason) {
            (Known(Outcome::Passed), None) => mark("passed", ExitState::Available, style),
            (Known(Outcome::Passed), Some(_)) => mark("warning", ExitState::Warning, style),
            (Known(Outcome::Skipped), _) => format!("{:<9}", "skipped"),
            (outcome, _) => mark(&escape_invisible(outcome), ExitState::Offline, style),
        };
        let _ = write!(text, "  {mark} {:<13} {:>9.1} ms", escape_invisible(&check.name), check.duration_ms);
        if let Some(reason) = &check.reason {
            let _ = write!(text, "  {}", escape_invisible(reason));
        }
        if let Some(message) = &check.message {
            let _ = write!(text, "\n            {}", escape_invisible(message));
        }
        // The first finding is the reason and message above.
        for finding in check.findings.iter().skip(1) {
            let _ = write!(
                text,
                "\n            {}: {}",
                escape_invisible(&finding.reason),
                escape_invisible(&finding.message)
            );
        }
        if let Some(detail) = &check.detail {
            let _ = write!(text, "\n            {}", escape_invisible(detail));
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
    if let Some(time) = report.time_to_full_s {
        let _ = writeln!(
            text,
            "  full in about {} if use continues to grow as in the last days",
            in_one_unit(Duration::from_secs(time))
        );
    }
    if let Some(ended_at) =
        report.usage_listing.as_ref().and_then(|listing| listing.counted.as_ref()?.ended_at.as_ref())
    {
        let _ = writeln!(text, "  usage counted by a listing that ended at {}", escape_invisible(ended_at));
    }
    if let Some(traffic) = report.mount.as_ref().and_then(traffic) {
        let _ = writeln!(text, "  {}", escape_invisible(&traffic));
    }
    if let Some(proof) = &report.object_lock_proof {
        let proved =
            proof.proved_at.as_ref().map(|at| format!(", proved at {}", escape_invisible(at))).unwrap_or_default();
        let _ = writeln!(text, "  object lock {}{proved}", escape_invisible(&proof.verdict));
    }
    if let Some(end) = &report.certificate_expires_at {
        let _ = writeln!(text, "  certificate expires at {}", escape_invisible(end));
    }
    if let Some(end) = &report.credentials_expire_at {
        let _ = writeln!(text, "  credentials expire at {}", escape_invisible(end));
    }
    if let (Some(probe), Some(hour)) = (report.probe_requests, report.requests_last_hour) {
        let _ = writeln!(text, "  requests to the service: {probe} by this probe, {hour} in the last hour");
    }
    let _ = write!(text, "  {}", painted(&escape_invisible(&report.status), ExitState::from(report), style));
    if let Some(mode) = &report.mode {
        let how = match mode {
            Known(MountMode::Kernel) => "mounted",
            Known(MountMode::Observe) => "through a private mount",
            Known(MountMode::None) => "over the wire, not mounted",
            Unknown(mode) => &*escape_invisible(mode),
        };
        let _ = write!(text, " ({how})");
    }
    text.push('\n');
    text
}

/// Renders the settings of a target that its report does not contain.
#[must_use]
pub fn settings(target: &wire::Target) -> String {
    let mode = target.mount_mode.as_ref().map(|mode| mode.as_str().to_owned());
    let scope = target.scope.as_ref().map(|scope| format!("on {scope}"));
    let settings = [
        ("mount options", &target.nfs_mount_opts),
        ("mode", &mode),
        ("secret", &target.secret_ref),
        ("expected", &scope),
    ];
    let given = settings.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given.map(|(name, value)| format!("  {name} {}\n", escape_invisible(value))).collect()
}

/// Renders the traffic of a mount. `None` if the kernel does not report it.
fn traffic(mount: &wire::Mount) -> Option<String> {
    let bytes = |count: Option<u64>| count.map(crate::model::capacity::format_bytes);
    let (read, written, retransmissions) =
        (bytes(mount.bytes_read)?, bytes(mount.bytes_written)?, mount.retransmissions?);
    let round_trip = match (mount.round_trip_ms, mount.round_trip_over_s) {
        (Some(round_trip), Some(over)) => format!("round trip {round_trip:.1} ms over {over:.0} s"),
        _ => "no request answered".to_owned(),
    };
    Some(format!("{round_trip}; since mounting: {retransmissions} retransmissions, {read} read, {written} written"))
}

fn bar(percent: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the bar")]
    let filled = (percent.clamp(0.0, 100.0) / 100.0 * f64::from(BAR_CHARS)).round() as u8;
    format!("[{}{}]", "#".repeat(filled.into()), ".".repeat(BAR_CHARS.saturating_sub(filled).into()))
}

#[cfg(test)]
pub(super) mod tests;
