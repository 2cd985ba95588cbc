//! Selection and order of the targets that `status` shows.

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::api::wire;
use crate::cli::exit::ExitState;
use crate::cli::render;
use crate::model::TargetKind;

/// Options that select targets. A target must match each option that is given, and one of the values of an option that
/// is repeated.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Selection of targets")]
pub(super) struct Filter {
    /// Show only targets in this state; may be repeated
    #[arg(long = "status", value_name = "STATUS", value_enum, conflicts_with = "json")]
    states: Vec<ExitState>,
    /// Show only targets of this type; may be repeated
    #[arg(long = "type", value_name = "TYPE", value_parser = kinds(), conflicts_with = "json")]
    kinds: Vec<String>,
    /// Show only targets with this reason code, of a failure or a warning; may be repeated
    #[arg(long = "reason", value_name = "REASON", conflicts_with = "json")]
    reasons: Vec<String>,
    /// Show only targets whose export contains this text, in upper or lower case
    #[arg(long, value_name = "TEXT", conflicts_with = "json")]
    export: Option<String>,
}

fn kinds() -> PossibleValuesParser {
    TargetKind::ALL.iter().map(|kind| kind.as_str()).into()
}

impl Filter {
    /// Returns the targets that match, in their order.
    pub(super) fn selected(&self, list: &wire::TargetDetailList) -> wire::TargetDetailList {
        let found = list.backup_targets.iter().filter(|target| self.matches(target));
        wire::TargetDetailList { backup_targets: found.cloned().collect() }
    }

    fn matches(&self, wire::TargetDetail { target, report }: &wire::TargetDetail) -> bool {
        let has_reason = |wanted: &String| {
            let findings =
                report.checks.iter().flat_map(|check| &check.findings).map(|finding| finding.reason.as_str());
            findings.chain(report.reason.as_deref()).any(|reason| reason == wanted)
        };
        let contains = |text: &String| target.filesystem_export.to_lowercase().contains(&text.to_lowercase());
        (self.states.is_empty() || self.states.contains(&ExitState::from(report)))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| *kind == *target.kind))
            && (self.reasons.is_empty() || self.reasons.iter().any(has_reason))
            && self.export.as_ref().is_none_or(contains)
    }

    /// Describes the filter as on the command line. `None` if it selects every target.
    pub(super) fn describe(&self) -> Option<String> {
        let given =
            |name: &'static str, values: Vec<String>| values.into_iter().map(move |value| format!("--{name} {value}"));
        let states = self.states.iter().map(|state| state.as_str().to_owned()).collect();
        let options: Vec<String> = given("status", states)
            .chain(given("type", self.kinds.clone()))
            .chain(given("reason", self.reasons.clone()))
            .chain(given("export", self.export.iter().map(|text| format!("{text:?}")).collect()))
            .collect();
        (!options.is_empty()).then(|| options.join(" "))
    }
}

/// Text instead of a table without targets. `filter` is the filter as on the command line, and `all` the number of all
/// targets.
pub(super) fn nothing_found(filter: Option<&str>, all: usize) -> String {
    match filter {
        Some(filter) if all > 0 => format!("none of {all} targets matches {filter}\n"),
        _ => render::NO_TARGETS.to_owned(),
    }
}

/// Sorts targets: the worst first, the default before the others, then by export.
pub(super) fn sort_worst_first(list: &mut wire::TargetDetailList) {
    list.backup_targets.sort_by_cached_key(|wire::TargetDetail { target, report }| {
        (std::cmp::Reverse(ExitState::from(report)), !target.is_default, target.filesystem_export.clone())
    });
}
