//! Usage listing: counts the content of a bucket by listing it, in runs with their own interval.
//!
//! A run is a task, so no probe waits for it. A probe starts a run that is due, and reports the count so far. A run
//! requests one page after another, up to a limit, and the next run continues where it stopped. A bucket has at most
//! one run at a time. All buckets together request at most [`PAGES_AT_ONCE`] pages at a time, first come, first served.
//! So a bucket with many pages delays another bucket only by the pages in progress. A run ends with its driver. Counts
//! exist only in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::check::usage_listing::{PageOutcome, UsagePass};
use crate::model::report::{Finding, finding};
use crate::model::settings::{S3AccessRule, S3ListingSettings};
use crate::model::usage_listing::{UsageListing, WholeCount};
use crate::model::{Reason, S3Location};
use crate::s3::{BucketApi, S3Failure};

/// Largest number of pages that all listings of this agent request at a time. A page has up to 4 MiB
/// ([`PAGE_LIMIT_BYTES`](crate::s3::aws::PAGE_LIMIT_BYTES)). While it is parsed, a hostile page that consists only of
/// empty entries takes about thirty times as much memory. A page of AWS S3 has less than 1 MiB.
pub const PAGES_AT_ONCE: usize = 2;

/// The listing of one bucket.
#[derive(Default)]
pub(super) struct BackgroundListing {
    counted: Arc<Mutex<Counted>>,
    latest: Option<Run>,
    /// Access rule of the runs. With another rule, the name may mean another bucket.
    rule: Option<S3AccessRule>,
}

/// Progress of the runs so far.
#[derive(Default)]
struct Counted {
    whole: Option<WholeCount>,
    pass: Option<UsagePass>,
    failure: Option<Finding>,
}

/// A run in progress. Dropping it ends the run.
struct Run {
    began: Instant,
    began_at: Timestamp,
    /// Time to the next run.
    interval: Duration,
    task: JoinHandle<()>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BackgroundListing {
    /// Ends the run in progress and forgets what was counted.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Like [`Self::stop`], but the next run is due only after the interval. So a service that reports its usage only
    /// sometimes is not listed more often.
    pub(super) fn rest(&mut self) {
        self.counted = Arc::default();
        if let Some(run) = &self.latest {
            run.task.abort();
        }
    }

    /// Starts a run if one is due, and returns what has been counted with this access rule.
    pub(super) fn advance(
        &mut self,
        api: Arc<dyn BucketApi>,
        location: &S3Location,
        rule: Option<&S3AccessRule>,
        settings: &S3ListingSettings,
        deadline: Duration,
        pages: &Arc<Semaphore>,
    ) -> UsageListing {
        if self.rule.as_ref() != rule {
            self.stop();
            self.rule = rule.cloned();
        }
        let is_due = |run: &Run| run.task.is_finished() && run.began.elapsed() >= settings.interval;
        if self.latest.as_ref().is_none_or(is_due) {
            let (counted, pages, location) = (self.counted.clone(), pages.clone(), location.clone());
            let requests_max = settings.requests_max;
            let (began, began_at) = (Instant::now(), Timestamp::now());
            let task = tokio::spawn(
                async move { run(&*api, &location, requests_max, deadline, &pages, &counted).await }.in_current_span(),
            );
            self.latest = Some(Run { began, began_at, interval: settings.interval, task });
        }
        self.so_far()
    }

    /// Returns what has been counted.
    pub(super) fn so_far(&self) -> UsageListing {
        let counted = lock(&self.counted);
        UsageListing {
            whole: counted.whole,
            under_way: counted.pass.as_ref().map(UsagePass::so_far),
            failure: counted.failure.clone(),
            node: None,
            next_run_at: self.latest.as_ref().filter(|run| run.task.is_finished()).and_then(|run| {
                let interval = SignedDuration::try_from(run.interval).ok()?;
                run.began_at.checked_add(interval).ok()
            }),
        }
    }
}

/// Requests pages until the listing is complete, a page fails, or the limit is reached.
async fn run(
    api: &dyn BucketApi,
    location: &S3Location,
    requests_max: u32,
    deadline: Duration,
    pages: &Semaphore,
    counted: &Mutex<Counted>,
) {
    for _ in 0..requests_max {
        let permit = pages.acquire().await;
        // A copy, so that a run that ends during a page leaves the pass as it was before that page.
        let pass = lock(counted).pass.clone().unwrap_or_else(|| UsagePass::new(Timestamp::now()));
        let outcome = pass.next_page(api, deadline).await;
        drop(permit);
        let mut counted = lock(counted);
        match outcome {
            PageOutcome::More(pass) => (counted.pass, counted.failure) = (Some(pass), None),
            PageOutcome::Whole(count) => {
                *counted = Counted { whole: Some(count), pass: None, failure: None };
                return;
            }
            PageOutcome::Stopped(failure, pass) => {
                (counted.pass, counted.failure) = (pass, Some(stopped(location, &failure, Timestamp::now())));
                return;
            }
        }
    }
}

fn stopped(location: &S3Location, failure: &S3Failure, at: Timestamp) -> Finding {
    let Finding { reason, message, .. } = failure.finding(location);
    let message = match reason {
        Reason::AccessDenied if failure.is_refusal() => format!(
            "{location}: {failure}: grant the credentials s3:ListBucketVersions and s3:ListBucket on it, or turn off [s3.listing]"
        ),
        // The probes passed, so the endpoint is an S3 service.
        Reason::NotS3 => format!(
            "{location}: {failure}: turn off [s3.listing] for this agent, or look for a proxy that answers in place of the service"
        ),
        _ => message,
    };
    finding!(reason, "the usage listing stopped at {at:.0}: {message}")
}

fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    // Each change is a single assignment, so a panic leaves no change half done.
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
