//! The targets that `status` shows, and the latest answer of the agent.

use jiff::Timestamp;

use super::filter::{Filter, nothing_found, sort_worst_first};
use crate::api::wire;
use crate::cli::client::ClientError;
use crate::cli::exit::ExitState;
use crate::cli::render;
use crate::cli::terminal::{OutputStyle, age, error_chain};

/// Path of the targets with their reports.
pub(super) const DETAIL: &str = "/backup_targets/detail";

/// What is known about the targets.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The filter as on the command line.
    pub(super) filter: Option<String>,
    /// The latest answer of the agent.
    pub(super) latest: Option<Latest>,
    /// Since when the agent has not answered, and the latest error.
    pub(super) failure: Option<(Timestamp, String)>,
}

/// Answer of the agent.
#[derive(Debug)]
pub(super) struct Latest {
    /// Time of the request.
    pub(super) at: Timestamp,
    /// Number of all targets.
    pub(super) all: usize,
    /// The targets that match the filter, the worst first.
    pub(super) shown: wire::TargetDetailList,
}

impl Watched {
    /// Adds the result of a request.
    pub(super) fn add(
        &mut self,
        asked_at: Timestamp,
        answer: Result<wire::TargetDetailList, ClientError>,
        filter: &Filter,
    ) {
        match answer {
            Ok(list) => {
                let mut shown = filter.selected(&list);
                sort_worst_first(&mut shown);
                self.latest = Some(Latest { at: asked_at, all: list.backup_targets.len(), shown });
                self.failure = None;
            }
            Err(error) => {
                let since = self.failure.as_ref().map_or(asked_at, |(since, _)| *since);
                self.failure = Some((since, error_chain(&error.into())));
            }
        }
    }

    /// Describes since when the agent does not answer. `None` while it answers.
    pub(super) fn problem(&self, now: Timestamp) -> Option<String> {
        self.failure.as_ref().map(|(since, error)| no_answer(*since, error, now))
    }

    /// The exit state. An agent that does not answer proves nothing about its targets.
    pub(super) fn state(&self) -> ExitState {
        match (&self.latest, &self.failure) {
            (Some(latest), None) => state(&latest.shown),
            _ => ExitState::Unknown,
        }
    }

    /// The text of one refresh for an output that is not a terminal.
    pub(super) fn text(&self, now: Timestamp) -> String {
        if let Some(problem) = self.problem(now) {
            return format!("{} {problem}\n\n", clock(now));
        }
        let Some(latest) = &self.latest else { return String::new() };
        let table = if latest.shown.backup_targets.is_empty() {
            nothing_found(self.filter.as_deref(), latest.all)
        } else {
            render::status_table(&latest.shown, OutputStyle::of_stdout(), now)
        };
        format!("{}\n{table}\n", clock(latest.at))
    }
}

/// Returns the exit state of a list.
pub(super) fn state(list: &wire::TargetDetailList) -> ExitState {
    ExitState::worst(list.backup_targets.iter().map(|target| ExitState::from(&target.report)))
}

/// Formats the time of a day.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

/// Describes since when the agent does not answer.
fn no_answer(since: Timestamp, error: &str, now: Timestamp) -> String {
    format!("no answer since {}, for {}: {error}", clock(since), age(since, now))
}
