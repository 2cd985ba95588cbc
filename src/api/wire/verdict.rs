//! Targets with their verdicts on the wire: a list that stays the same while nothing happens, for programs that poll
//! it.
//!
//! A report changes at each probe. This one has no times of probes, and the used space is rounded. So a client that
//! sends `If-None-Match` gets a 304 until a status, a reason, a message or a size changes. Measurements in a message do
//! not count: those of a slow server change at each probe.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extensible::{ProbeVerdict, Reason};
use super::report::{LockProof, Report};
use super::scope::FleetNode;
use super::target::Target;
use crate::agent::TargetView;
use crate::model::Caller;
use crate::model::capacity::format_bytes;

/// Units of measurements in messages. One of them can follow another when a value grows.
const UNITS: [&str; 17] =
    ["ns", "us", "ms", "s", "min", "h", "d", "B", "bytes", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"];

/// Used space is rounded to this part of the size.
const STEPS: u64 = 1000;

/// A target with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetVerdict {
    /// The target. Its `used` is rounded.
    #[serde(flatten)]
    pub target: Target,
    /// Parts of its latest report that change only when something happens.
    pub report: VerdictReport,
}

/// Targets with their verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetVerdictList {
    /// Oldest first.
    pub backup_targets: Vec<TargetVerdict>,
    /// The node, as scopes name it. Absent without a registry that the nodes share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetNode>,
}

/// Parts of a report, under the same names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerdictReport {
    /// Time since which the target has its status.
    pub since: String,
    /// Verdict of the latest probe alone. `null` before the first probe.
    pub verdict: Option<ProbeVerdict>,
    /// Reason code of the problem, or of the warning of an available target.
    pub reason: Option<Reason>,
    /// What happened, and what to do.
    pub message: Option<String>,
    /// Size of the file system, or quota of the bucket, in bytes.
    pub capacity_bytes: Option<u64>,
    /// Used space, in bytes, rounded to a thousandth of the size. Without a size, to four digits.
    pub used_bytes: Option<u64>,
    /// Proof of the object lock of an immutable target. `null` for other targets.
    pub object_lock_proof: Option<LockProof>,
}

impl TargetVerdict {
    /// A target as a caller may see it, with its verdict.
    #[must_use]
    pub fn seen_by(caller: &Caller, view: &TargetView) -> Self {
        let report = Report::from(view);
        let used_bytes = report.used_bytes.map(|used| rounded(used, report.capacity_bytes));
        let mut target = Target::seen_by(caller, view);
        target.used = used_bytes.map(format_bytes);
        let Report { since, verdict, reason, message, capacity_bytes, object_lock_proof, .. } = report;
        let report = VerdictReport { since, verdict, reason, message, capacity_bytes, used_bytes, object_lock_proof };
        Self { target, report }
    }
}

/// Returns a message with a sign in the place of each measurement: a number with a unit. Other numbers, such as those
/// of addresses and error codes, stay.
pub(in crate::api) fn without_measurements(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find(|found: char| found.is_ascii_digit()) {
        let is_number = |found: char| found.is_ascii_digit() || found == '.' || found == ',';
        let length = rest[start..].find(|found| !is_number(found)).unwrap_or(rest.len() - start);
        let (number, after) = rest.split_at(start + length);
        rest = match after_unit(after) {
            Some(after) => {
                text.extend([&number[..start], "#"]);
                after
            }
            None => {
                text.push_str(number);
                after
            }
        };
    }
    text + rest
}

/// Returns what follows the unit at the beginning of a text. `None` without a unit.
fn after_unit(text: &str) -> Option<&str> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    let end = text.find(|found: char| !found.is_ascii_alphabetic()).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    text.strip_prefix('%').or_else(|| UNITS.contains(&word).then_some(after))
}

/// Rounds used space down.
fn rounded(used: u64, capacity: Option<u64>) -> u64 {
    let step = match capacity {
        Some(capacity) => capacity / STEPS,
        None => 10_u64.pow(used.checked_ilog10().unwrap_or_default().saturating_sub(3)),
    };
    used - used % step.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurement_in_a_message_does_not_count() {
        for (one, other) in [
            ("the server answered after 912 ms", "the server answered after 1.2 s"),
            ("91.5 % of 2.4 TB is used", "92 % of 2.4 TB is used"),
            ("the clock is 61s behind", "the clock is 2min behind"),
        ] {
            assert_eq!(without_measurements(one), without_measurements(other));
        }
        for (one, other) in [
            ("it is slow", "it is late"),
            ("7 sources", "7 sinks"),
            ("2 s late", "2 s early"),
            ("192.0.2.1:/b is mounted there", "192.0.2.2:/b is mounted there"),
            ("port 2049 is closed", "port 2050 is closed"),
            ("error 5", "error 13"),
        ] {
            assert_ne!(without_measurements(one), without_measurements(other));
        }
        assert_eq!(without_measurements("é 7,5 s é"), "é # é");
        assert_eq!(without_measurements("é 7,5 é"), "é 7,5 é");
    }

    #[test]
    fn used_space_is_rounded_to_a_thousandth_of_the_size() {
        for (used, capacity, expected) in [
            (123_456_789, Some(1_000_000_000), 123_000_000),
            (123_999_999, Some(1_000_000_000), 123_000_000),
            (999, Some(900), 999),
            (123_456_789, None, 123_400_000),
            (1234, None, 1234),
            (0, None, 0),
            (7, Some(0), 7),
        ] {
            assert_eq!(rounded(used, capacity), expected, "{used} of {capacity:?}");
        }
    }
}
