//! Conditions: the status of a target and how current it is, as a shape, a word and a colour.
//!
//! A colour alone is lost on many readers and on every printer. A status that is not measured any more must not look
//! like one that is.

use maud::{Markup, html};

use crate::agent::TargetView;
use crate::model::named::named;
use crate::model::{Outcome, Status};

named! {
    /// Condition of a target. The worst is the smallest.
    #[derive(PartialOrd, Ord)]
    Condition {
        /// Backups cannot be written.
        Offline => "offline",
        /// The latest report is too old to tell.
        NotCurrent => "not current",
        /// No probe has ended yet.
        NotChecked => "not checked",
        /// Backups can be written, and the operator should act.
        Warning => "warning",
        /// Backups can be written.
        Available => "available",
    }
}

impl Condition {
    /// Condition of a target.
    pub(super) fn of(target: &TargetView) -> Self {
        if target.report.is_none() {
            return Self::NotChecked;
        }
        if target.is_overdue() {
            return Self::NotCurrent;
        }
        match (target.status.status, &target.status.finding) {
            (Status::Offline, _) => Self::Offline,
            (Status::Available, Some(_)) => Self::Warning,
            (Status::Available, None) => Self::Available,
        }
    }

    /// The shape, the word and the colour.
    pub(crate) fn mark(self) -> Markup {
        let (shape, class) = match self {
            Self::Offline => ("■", "bad"),
            Self::NotCurrent => ("?", "bad"),
            Self::NotChecked => ("○", "idle"),
            Self::Warning => ("▲", "warn"),
            Self::Available => ("●", "good"),
        };
        mark(shape, class, self.as_str())
    }
}

/// The shape, the word and the colour of the outcome of a check.
pub(super) fn outcome(outcome: Outcome, has_findings: bool) -> Markup {
    match (outcome, has_findings) {
        (Outcome::Passed, false) => mark("●", "good", "passed"),
        (Outcome::Passed, true) => mark("▲", "warn", "passed with a warning"),
        (Outcome::Failed, _) => mark("■", "bad", "failed"),
        (Outcome::TimedOut, _) => mark("■", "bad", "timed out"),
        (Outcome::Skipped, _) => mark("○", "idle", "skipped"),
    }
}

/// A shape, a word and a colour.
pub(crate) fn mark(shape: &str, class: &str, word: &str) -> Markup {
    html! { span.mark.(class) { span aria-hidden="true" { (shape) } " " (word) } }
}
