//! Results of checks, and their output.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::exit::ExitState;
use crate::cli::render::mark;
use crate::cli::terminal::{OutputStyle, escape_invisible, print, print_json};
use crate::model::named::named;

named! {
    /// A check, in the order of the output. `docs/cli.md` lists them.
    Check {
        /// The configuration file is valid.
        Configuration => "configuration",
        /// The files that it names can be used, and others cannot read their secrets.
        Files => "files",
        /// The registry can be opened.
        Registry => "registry",
        /// `mount.nfs` is installed.
        MountHelper => "mount_helper",
        /// rpcbind runs if NFS options need it.
        Rpcbind => "rpcbind",
        /// Only root can redirect mounts.
        MountRoot => "mount_root",
        /// Mounts appear on the host.
        Propagation => "propagation",
        /// The agent has the capabilities that it needs.
        Capabilities => "capabilities",
        /// The clock is synchronized.
        Clock => "clock",
        /// Host names have an address.
        Names => "names",
        /// Keystone answers, and its certificate does not expire soon.
        Keystone => "keystone",
        /// The key manager answers, and accepts the token of the agent's user.
        KeyManager => "key_manager",
        /// etcd answers, and keeps what the fleet writes.
        Etcd => "etcd",
    }
}

/// Most problems that are printed for one check.
const PROBLEMS_MAX: usize = 10;

/// Outcome of a check, ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HostCheckOutcome {
    /// The check does not apply.
    Skipped,
    /// No problem was found.
    Passed,
    /// The agent works, with a restriction or a risk.
    Warning,
    /// The check could not be made.
    Unknown,
    /// The agent does not start, or targets are offline.
    Failed,
}

impl From<HostCheckOutcome> for ExitState {
    fn from(outcome: HostCheckOutcome) -> Self {
        match outcome {
            HostCheckOutcome::Skipped | HostCheckOutcome::Passed => Self::Available,
            HostCheckOutcome::Warning => Self::Warning,
            HostCheckOutcome::Unknown => Self::Unknown,
            HostCheckOutcome::Failed => Self::Offline,
        }
    }
}

/// A problem, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    severity: HostCheckOutcome,
    message: String,
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct HostCheck {
    outcome: HostCheckOutcome,
    /// What was found.
    detail: Option<String>,
    problems: Vec<Problem>,
}

impl HostCheck {
    /// No problem was found.
    pub(super) fn passed(detail: impl Into<String>) -> Self {
        Self { outcome: HostCheckOutcome::Passed, detail: Some(detail.into()), problems: Vec::new() }
    }

    /// The check does not apply.
    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self { outcome: HostCheckOutcome::Skipped, ..Self::passed(why) }
    }

    /// One problem was found, without which the agent would start or targets would be available.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::with(HostCheckOutcome::Failed, message)
    }

    /// One problem was found, with which the agent works.
    pub(super) fn warning(message: impl Into<String>) -> Self {
        Self::with(HostCheckOutcome::Warning, message)
    }

    /// The check could not be made.
    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self::with(HostCheckOutcome::Unknown, message)
    }

    fn with(severity: HostCheckOutcome, message: impl Into<String>) -> Self {
        let mut checked = Self { outcome: severity, detail: None, problems: Vec::new() };
        checked.add(severity, message);
        checked
    }

    /// Adds what was found.
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a problem.
    pub(super) fn add(&mut self, severity: HostCheckOutcome, message: impl Into<String>) {
        self.outcome = self.outcome.max(severity);
        self.problems.push(Problem { severity, message: message.into() });
    }

    #[cfg(test)]
    pub(super) fn outcome(&self) -> HostCheckOutcome {
        self.outcome
    }

    /// The problems, one on each line.
    #[cfg(test)]
    pub(super) fn messages(&self) -> String {
        self.problems.iter().map(|problem| format!("{}\n", problem.message)).collect()
    }

    fn render(&self, check: Check, style: OutputStyle) -> String {
        let mark = mark(word(self.outcome), self.outcome.into(), style);
        let mut text = match &self.detail {
            Some(detail) => format!("  {mark} {check:<13}  {}", escape_invisible(detail)),
            None => format!("  {mark} {check}"),
        };
        for problem in self.problems.iter().take(PROBLEMS_MAX) {
            let _ = write!(text, "\n            {}", escape_invisible(&problem.message));
        }
        if let Some(more) = self.problems.len().checked_sub(PROBLEMS_MAX).filter(|more| *more > 0) {
            let _ = write!(text, "\n            and {more} more (--json shows all)");
        }
        text.push('\n');
        text
    }
}

fn word(outcome: HostCheckOutcome) -> &'static str {
    match outcome {
        HostCheckOutcome::Skipped => "skipped",
        HostCheckOutcome::Passed => "passed",
        HostCheckOutcome::Warning => "warning",
        HostCheckOutcome::Unknown => "unknown",
        HostCheckOutcome::Failed => "failed",
    }
}

#[derive(Debug, Serialize)]
struct Results {
    checks: Vec<NamedResult>,
}

#[derive(Debug, Serialize)]
struct NamedResult {
    name: &'static str,
    #[serde(flatten)]
    checked: HostCheck,
}

/// Prints results in their order.
#[derive(Debug)]
pub(super) struct Output {
    is_json: bool,
    style: OutputStyle,
    results: Vec<NamedResult>,
}

impl Output {
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json, style: OutputStyle::of_stdout(), results: Vec::new() }
    }

    /// Prints a result, unless all are printed together as JSON.
    pub(super) fn add(&mut self, check: Check, checked: HostCheck) {
        if !self.is_json {
            print(&checked.render(check, self.style));
        }
        self.results.push(NamedResult { name: check.as_str(), checked });
    }

    /// Adds all other checks as skipped.
    pub(super) fn skip_rest(&mut self, why: &str) {
        for check in Check::ALL {
            if !self.results.iter().any(|result| result.name == check.as_str()) {
                self.add(*check, HostCheck::skipped(why));
            }
        }
    }

    /// Prints the rest of the output, and returns the state for the exit code.
    ///
    /// # Errors
    /// When the results cannot be encoded.
    pub(super) fn finish(self) -> anyhow::Result<ExitState> {
        let state = ExitState::worst(self.results.iter().map(|result| result.checked.outcome.into()));
        if self.is_json {
            print_json(&Results { checks: self.results })?;
        } else {
            print(&format!("  {}\n", self.summary()));
        }
        Ok(state)
    }

    fn summary(&self) -> String {
        let problems = || self.results.iter().flat_map(|result| &result.checked.problems);
        let count = |severity| problems().filter(|problem| problem.severity == severity).count();
        let warnings = count(HostCheckOutcome::Warning);
        let counts = [
            (count(HostCheckOutcome::Failed), "failed"),
            (count(HostCheckOutcome::Unknown), "unknown"),
            (warnings, if warnings == 1 { "warning" } else { "warnings" }),
        ];
        let named: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
        if named.is_empty() { "no problem found".to_owned() } else { format!("problems: {}", named.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: OutputStyle = OutputStyle { width: 80, has_color: false };

    #[test]
    fn worst_problem_is_the_outcome() {
        let mut checked = HostCheck::passed("what");
        for (severity, expected) in [
            (HostCheckOutcome::Warning, HostCheckOutcome::Warning),
            (HostCheckOutcome::Failed, HostCheckOutcome::Failed),
            (HostCheckOutcome::Unknown, HostCheckOutcome::Failed),
        ] {
            checked.add(severity, "a problem");
            assert_eq!(checked.outcome(), expected);
        }
        assert_eq!(ExitState::from(HostCheckOutcome::Failed), ExitState::Offline);
        assert_eq!(ExitState::from(HostCheckOutcome::Skipped), ExitState::Available);
    }

    #[test]
    fn printed_problems_are_bounded_and_escaped() {
        let mut checked = HostCheck::passed("of \u{202e}this");
        for number in 0..12 {
            checked.add(HostCheckOutcome::Warning, format!("problem {number}"));
        }
        let text = checked.render(Check::Names, STYLE);
        assert!(text.starts_with("  warning   names          of \\u{202e}this\n            problem 0\n"), "{text}");
        assert!(text.ends_with("problem 9\n            and 2 more (--json shows all)\n"), "{text}");
    }
    #[test]
    fn command_line_page_lists_every_check() {
        let page = include_str!("../../../docs/cli.md");
        let (_, section) = page.split_once("| check | what is verified |").expect("the table");
        let (table, _) = section.split_once("\n\n").expect("its end");
        let listed: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(listed, Check::ALL.iter().map(|check| check.as_str()).collect::<Vec<_>>());
    }
}
