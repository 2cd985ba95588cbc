//! Exit codes, by the convention of monitoring plugins.

use std::process::ExitCode;

use crate::api::wire;
use crate::api::wire::Extensible::{Known, Unknown};
use crate::model::Status;

/// What a command found, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// 0: available, or done.
    Available,
    /// 1: available, with a warning.
    Warning,
    /// 3: not known: nobody answers, nothing was probed yet, or wrong usage.
    Unknown,
    /// 2: offline.
    Offline,
}

impl From<State> for ExitCode {
    fn from(state: State) -> Self {
        Self::from(match state {
            State::Available => 0,
            State::Warning => 1,
            State::Offline => 2,
            State::Unknown => 3,
        })
    }
}

impl From<&wire::Report> for State {
    fn from(report: &wire::Report) -> Self {
        match (&report.status, &report.verdict, &report.reason) {
            (_, None, _) => Self::Unknown,
            (Known(Status::Available), _, None) => Self::Available,
            (Known(Status::Available), _, Some(_)) => Self::Warning,
            (Known(Status::Offline) | Unknown(_), _, _) => Self::Offline,
        }
    }
}

impl State {
    /// The worst of many; unknown when there are none, since nothing was verified.
    pub fn worst(states: impl IntoIterator<Item = Self>) -> Self {
        states.into_iter().max().unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_is_worse_than_unknown_and_nothing_is_unknown() {
        assert_eq!(State::worst([State::Available, State::Warning]), State::Warning);
        assert_eq!(State::worst([State::Unknown, State::Offline, State::Warning]), State::Offline);
        assert_eq!(State::worst([State::Unknown, State::Warning]), State::Unknown);
        assert_eq!(State::worst([]), State::Unknown);
    }
}
