//! Counts of requests and their durations.

use std::time::{Duration, Instant};

use axum::http::{Request, StatusCode};

use crate::model::tally::{Histogram, Observed, Tally, status_class};

/// Upper bounds of the buckets of durations, in seconds. Most answers come from memory and take milliseconds, and a
/// probe on request takes seconds.
const DURATION_BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Number of requests by route and class of status.
pub(super) type Requests = Vec<((&'static str, &'static str), u64)>;

/// Requests by route and class of status, and how long they took.
#[derive(Debug)]
pub(super) struct HttpStatistics {
    requests: Tally<(&'static str, &'static str)>,
    durations: Histogram,
}

impl Default for HttpStatistics {
    fn default() -> Self {
        Self { requests: Tally::default(), durations: Histogram::new(DURATION_BOUNDS) }
    }
}

impl HttpStatistics {
    /// Counts a request.
    pub(super) fn observe(&self, route: &'static str, status: StatusCode, duration: Duration) {
        self.durations.observe(duration);
        self.requests.count((route, status_class(status.as_u16())));
    }

    /// Returns the requests by route and class of status.
    pub(super) fn requests(&self) -> Requests {
        self.requests.all()
    }

    /// Returns the durations of all requests.
    pub(super) fn durations(&self) -> Observed {
        self.durations.snapshot()
    }
}

/// Route group and start time of a request that is not answered yet.
pub(in crate::api) struct RequestStart {
    route: &'static str,
    at: Instant,
}

impl RequestStart {
    /// Starts the clock of a request, whose prefix (`/v1`, `/v1/{project_id}`) was already removed.
    pub(in crate::api) fn of<B>(request: &Request<B>) -> Self {
        Self { route: route(request.uri().path()), at: Instant::now() }
    }

    /// Returns the route group and the time since the start.
    pub(super) fn end(&self) -> (&'static str, Duration) {
        (self.route, self.at.elapsed())
    }
}

/// Returns the route group of a path whose prefix was removed.
fn route(path: &str) -> &'static str {
    let mut segments = path.split('/').skip(1);
    match (segments.next().unwrap_or_default(), segments.nth(1)) {
        ("backup_targets", Some("check")) => "check",
        ("backup_targets", Some("checks")) => "report",
        ("backup_targets", Some("history")) => "history",
        ("backup_targets", _) => "targets",
        ("backup_target_types", _) => "types",
        ("ui", _) => "ui",
        ("metrics", None) => "metrics",
        ("healthz" | "readyz" | "node", None) => "health",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_selects_the_route_group() {
        for (path, expected) in [
            ("/", "other"),
            ("", "other"),
            ("/backup_targets", "targets"),
            ("/backup_targets/detail", "targets"),
            ("/backup_targets/x/set_default", "targets"),
            ("/backup_targets/x/check", "check"),
            ("/backup_targets/x/checks", "report"),
            ("/backup_targets/x/history", "history"),
            ("/backup_target_types/x/add_projects", "types"),
            ("/node", "health"),
            ("/healthz", "health"),
            ("/metrics", "metrics"),
            ("/ui", "ui"),
            ("/ui/targets/x", "ui"),
            ("/uix", "other"),
            ("/openapi.json", "other"),
            ("/backup_targetsx", "other"),
            ("/wp-login.php", "other"),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }
}
