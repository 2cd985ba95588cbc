//! Exit codes, which follow the convention of monitoring plugins.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::api::wire;
use crate::api::wire::Extensible::{Known, Unknown};
use crate::model::Status;

/// Result of a command, ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum ExitState {
    /// 0: available, or the command succeeded.
    #[value(help = "available, without a warning")]
    Available,
    /// 1: available, with a warning.
    #[value(help = "available, with a warning")]
    Warning,
    /// 3: unknown. The agent does not answer, no probe has ended, or the usage is wrong.
    #[value(help = "not probed yet")]
    Unknown,
    /// 2: offline.
    #[value(help = "offline")]
    Offline,
}

impl From<ExitState> for ExitCode {
    fn from(state: ExitState) -> Self {
        Self::from(match state {
            ExitState::Available => 0,
            ExitState::Warning => 1,
            ExitState::Offline => 2,
            ExitState::Unknown => 3,
        })
    }
}

impl From<&wire::Report> for ExitState {
    fn from(report: &wire::Report) -> Self {
        match (&report.status, &report.verdict, &report.reason) {
            (_, None, _) => Self::Unknown,
            (Known(Status::Available), _, None) => Self::Available,
            (Known(Status::Available), _, Some(_)) => Self::Warning,
            (Known(Status::Offline) | Unknown(_), _, _) => Self::Offline,
        }
    }
}

impl ExitState {
    /// Returns the name of the state on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Offline => "offline",
        }
    }

    /// Returns the state as it follows a number of targets.
    #[must_use]
    pub fn in_summary(self) -> &'static str {
        match self {
            Self::Warning => "with a warning",
            Self::Unknown => "not checked",
            Self::Available | Self::Offline => self.as_str(),
        }
    }

    /// Returns the worst state. Without any state, nothing was verified, so the result is unknown.
    pub fn worst(states: impl IntoIterator<Item = Self>) -> Self {
        states.into_iter().max().unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_state_is_offline_then_unknown() {
        assert_eq!(ExitState::worst([ExitState::Available, ExitState::Warning]), ExitState::Warning);
        assert_eq!(ExitState::worst([ExitState::Unknown, ExitState::Offline, ExitState::Warning]), ExitState::Offline);
        assert_eq!(ExitState::worst([ExitState::Unknown, ExitState::Warning]), ExitState::Unknown);
        assert_eq!(ExitState::worst([]), ExitState::Unknown);
    }
}
