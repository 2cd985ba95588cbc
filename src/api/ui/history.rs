//! The history of a target: a strip of the last days, and a table of its changes.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::layout::clock;
use crate::model::age::age;
use crate::model::{Status, Transition};

/// Length of the strip, in days.
const STRIP_DAYS: i64 = 7;

/// Width of the strip, in its own units.
const STRIP_UNITS: f64 = 1000.0;

/// Smallest width of a segment, in the same units. A short outage must be visible.
const SEGMENT_MIN_UNITS: f64 = 3.0;

/// Largest number of changes in the table. The command line shows all of them.
const ROWS_MAX: usize = 50;

/// A time during which the recorded status did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Start of the time.
    pub(super) from: Timestamp,
    /// End of the time, which is not included.
    pub(super) to: Timestamp,
    /// The status. `None` before the first record.
    pub(super) status: Option<Status>,
}

impl Segment {
    fn length(&self) -> SignedDuration {
        self.to.duration_since(self.from)
    }
}

/// Returns the segments of the last [`STRIP_DAYS`], oldest first. `transitions` are newest first.
pub(super) fn segments(transitions: &[Transition], now: Timestamp) -> Vec<Segment> {
    let begin = now - SignedDuration::from_hours(24 * STRIP_DAYS);
    let mut segments: Vec<Segment> = Vec::new();
    let mut current = Segment { from: begin, to: now, status: None };
    for transition in transitions.iter().rev().filter(|transition| transition.at <= now) {
        if transition.at > current.from && Some(transition.to) != current.status {
            segments.push(Segment { to: transition.at, ..current });
            current.from = transition.at;
        }
        current.status = Some(transition.to);
    }
    segments.push(current);
    segments
}

/// The section about the history of a target. `history` is newest first.
pub(super) fn section(id: impl std::fmt::Display, history: Result<&[Transition], &str>, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="history" {
            h2 #history { "History" }
            @match history {
                Err(problem) => p { (problem) },
                Ok(transitions) => {
                    (strip(&segments(transitions, now)))
                    details {
                        summary { "All changes as a table" }
                        (table(transitions))
                        @if transitions.len() > ROWS_MAX {
                            p { (transitions.len() - ROWS_MAX) " older: " code { "targetwatch target history " (id) } }
                        }
                    }
                }
            }
        }
    }
}

fn strip(segments: &[Segment]) -> Markup {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return html! {} };
    let begin = first.from;
    let whole = last.to.duration_since(begin).as_secs_f64().max(1.0);
    let place = |at: Timestamp| at.duration_since(begin).as_secs_f64() / whole * STRIP_UNITS;
    let offline: Vec<&Segment> = segments.iter().filter(|found| found.status == Some(Status::Offline)).collect();
    let total: SignedDuration = offline.iter().map(|found| found.length()).sum();
    let total = age(last.to - total, last.to);
    let summary = match offline.len() {
        0 => format!("Not offline in the last {STRIP_DAYS} days."),
        1 => format!("Offline once in the last {STRIP_DAYS} days, for {total}."),
        times => format!("Offline {times} times in the last {STRIP_DAYS} days, for {total} in all."),
    };
    // Offline last, so that no other segment covers a short outage.
    let drawn = segments.iter().filter(|found| found.status != Some(Status::Offline)).chain(offline);
    html! {
        p { (summary) }
        svg.strip viewBox={ "0 0 " (STRIP_UNITS) " 30" } preserveAspectRatio="none" role="img" aria-label=(summary) {
            @for found in drawn {
                @let (class, top, height) = match found.status {
                    Some(Status::Available) => ("good", 15, 15),
                    Some(Status::Offline) => ("bad", 0, 30),
                    None => ("idle", 27, 3),
                };
                // A segment that just began is drawn within the strip too.
                @let x = place(found.from).min(STRIP_UNITS - SEGMENT_MIN_UNITS);
                @let width = (place(found.to) - x).max(SEGMENT_MIN_UNITS);
                rect class=(class) x=(format!("{x:.1}")) y=(top) width=(format!("{width:.1}")) height=(height) {}
            }
        }
        p.ends { (clock(begin)) " " span { (clock(last.to)) } }
        p.legend {
            "Tall: offline. Half as tall: available. A line: no record. While the agent does not run, nothing is recorded, "
            "and the strip shows the status before."
        }
    }
}

fn table(transitions: &[Transition]) -> Markup {
    html! {
        table.history {
            thead { tr { @for column in ["At", "From", "To", "Reason", "Message"] { th scope="col" { (column) } } } }
            tbody {
                @for transition in transitions.iter().take(ROWS_MAX) {
                    tr {
                        th scope="row" { (clock(transition.at)) }
                        td data-label="From" { (transition.from.map_or("–", Status::as_str)) }
                        td data-label="To" { (transition.to) }
                        @let (code, message) = transition.finding.as_ref().map_or(("–", "–"), |it| (&*it.code, &*it.message));
                        td data-label="Reason" { (code) }
                        td data-label="Message" { (message) }
                    }
                }
            }
        }
    }
}
