//! Overdue probes. A target whose probes do not end any more keeps its latest report, which becomes outdated: its
//! status is then marked with [`Reason::ProbeOverdue`] until a probe ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::view::TargetView;
use crate::model::Reason;
use crate::model::report::Finding;

/// Number of probe intervals after which a report is outdated.
const INTERVALS_MAX: u32 = 3;

/// Time added to these intervals, because a probe of a hanging server lasts longer than an interval.
pub(super) const SLACK: Duration = Duration::from_secs(60);

/// If a wait ends later than planned by more than this time, the process did not run, because it or its host was
/// stopped. Then no report is outdated before the next probes can have ended.
pub(super) const OVERSLEPT: Duration = Duration::from_secs(5);

/// A time that no agent runs. It replaces intervals that the clock cannot express.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Returns when a report that is published now is outdated.
pub(super) fn deadline(interval: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(interval.saturating_mul(INTERVALS_MAX).saturating_add(SLACK)).unwrap_or(now + NEVER)
}

/// Returns a target with the mark, and logs it.
pub(super) fn marked(shown: &Arc<TargetView>) -> Arc<TargetView> {
    let mut marked = TargetView::clone(shown);
    let at = shown.report.as_ref().map(|report| format!(" at {:.0}", report.checked_at)).unwrap_or_default();
    let message = format!(
        "the latest probe ended{at}, and the next ones do not end, so the status may be outdated: restart the agent, and report this with its log"
    );
    tracing::error!(target_id = %shown.target.id, export = shown.target.spec.export(), "{message}");
    marked.status.finding = Some(Finding::new(Reason::ProbeOverdue, message));
    Arc::new(marked)
}
