//! Tests of listing runs: when they begin and end, how many pages each requests, and what the report shows.

use super::*;
use crate::check::fake::FakeBucket;
use crate::model::usage_listing::PartialCount;
use crate::s3::{Entries, ListedPage, PageMarker};

const DEADLINE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_secs(3600);

/// A bucket that is listed.
struct Listed {
    fake: Arc<FakeBucket>,
    pages: Arc<Semaphore>,
    listing: BackgroundListing,
    rule: Option<S3AccessRule>,
}

impl Listed {
    fn new(pages: impl IntoIterator<Item = Result<ListedPage, S3Failure>>) -> Self {
        Self::sharing(&Arc::new(Semaphore::new(PAGES_AT_ONCE)), pages)
    }

    fn sharing(permits: &Arc<Semaphore>, pages: impl IntoIterator<Item = Result<ListedPage, S3Failure>>) -> Self {
        let fake = Arc::new(FakeBucket::with_pages(pages));
        Self { fake, pages: permits.clone(), listing: BackgroundListing::default(), rule: None }
    }

    /// Advances the listing as a probe does.
    fn advance(&mut self, requests_max: u32) -> UsageListing {
        let settings = S3ListingSettings { enabled: true, interval: INTERVAL, requests_max };
        let location = self.fake.location();
        self.listing.advance(self.fake.clone(), &location, self.rule.as_ref(), &settings, DEADLINE, &self.pages)
    }

    /// Returns what a probe reports once no run is in progress.
    async fn after_run(&mut self, requests_max: u32) -> UsageListing {
        loop {
            let shown = self.advance(requests_max);
            if shown.next_run_at.is_some() {
                return shown;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The markers of the requested pages.
    fn asked(&self) -> Vec<Option<PageMarker>> {
        let asked = self.fake.asked();
        assert!(asked.iter().all(|(entries, _)| *entries == Entries::Versions), "{asked:?}");
        asked.into_iter().map(|(_, after)| after).collect()
    }
}

fn marker(at: u64) -> PageMarker {
    PageMarker::Version { key: format!("{at:03}"), version: Some(at.to_string()) }
}

/// The pages of a bucket. Each has a delete marker and two versions with 10 bytes together.
fn pages(count: u64) -> impl Iterator<Item = Result<ListedPage, S3Failure>> {
    (1..=count).map(move |at| {
        let next = (at < count).then(|| marker(at));
        Ok(ListedPage { versions: 2, delete_markers: 1, bytes: 10, keys: None, next })
    })
}

/// Lets the next run become due.
async fn wait_for_the_next() {
    tokio::time::advance(INTERVAL).await;
}

#[tokio::test(start_paused = true)]
async fn listing_run_stops_at_its_limit_and_the_next_run_continues_there() {
    let mut bucket = Listed::new(pages(5));
    assert_eq!(bucket.advance(2), UsageListing::default(), "nothing is known before the first page");
    for (run, so_far) in [(1, 2), (2, 4)] {
        let shown = bucket.after_run(2).await;
        assert_eq!((shown.whole, &shown.failure), (None, &None), "run {run}");
        let PartialCount { tally, .. } = shown.under_way.expect("a part");
        assert_eq!(
            (tally.pages, tally.versions, tally.delete_markers, tally.bytes),
            (so_far, so_far * 2, so_far, so_far * 10)
        );
        assert_eq!(bucket.asked().len() as u64, so_far);
        wait_for_the_next().await;
        bucket.advance(2);
    }
    let shown = bucket.after_run(2).await;
    let whole = shown.whole.expect("a count").tally;
    assert_eq!((whole.pages, whole.versions, whole.delete_markers, whole.bytes), (5, 10, 5, 50));
    assert_eq!(shown.under_way, None);
    let begins: Vec<_> = std::iter::once(None).chain((1..5).map(|at| Some(marker(at)))).collect();
    assert_eq!(bucket.asked(), begins);
}

#[tokio::test(start_paused = true)]
async fn listing_runs_start_at_their_interval_and_not_at_every_probe() {
    let mut bucket = Listed::new(pages(1).chain(pages(1)));
    bucket.after_run(10).await;
    tokio::time::advance(INTERVAL - Duration::from_secs(1)).await;
    let shown = bucket.after_run(10).await;
    assert_eq!(bucket.asked().len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    bucket.advance(10);
    let again = bucket.after_run(10).await;
    assert_eq!(bucket.asked(), [None, None], "the next pass starts from the beginning");
    assert!(again.whole.map(|count| count.began_at) > shown.whole.map(|count| count.began_at));
}

#[tokio::test(start_paused = true)]
async fn complete_count_stays_while_the_next_is_in_progress_or_stopped() {
    let busy = S3Failure::service(503, Some("SlowDown"), None);
    let mut bucket = Listed::new(pages(2).chain(pages(9).take(3)).chain([Err(busy)]).chain(pages(9).skip(3)));
    let whole = bucket.after_run(3).await.whole.expect("a count");
    wait_for_the_next().await;
    bucket.advance(3);
    let shown = bucket.after_run(3).await;
    assert_eq!((shown.whole, shown.under_way.map(|part| part.tally.pages)), (Some(whole), Some(3)));
    wait_for_the_next().await;
    bucket.advance(3);
    let shown = bucket.after_run(3).await;
    assert_eq!((shown.whole, shown.under_way.map(|part| part.tally.pages)), (Some(whole), Some(3)));
    assert_eq!(shown.failure.map(|finding| finding.reason), Some(Reason::Throttled));
    wait_for_the_next().await;
    bucket.advance(9);
    let shown = bucket.after_run(9).await;
    assert_eq!((shown.whole.map(|count| count.tally.pages), shown.failure), (Some(9), None));
}

#[tokio::test(start_paused = true)]
async fn listing_failure_names_permissions_when_listing_is_denied() {
    let denied = || Err(S3Failure::service(403, Some("AccessDenied"), None));
    let mut bucket = Listed::new([denied(), denied()]);
    let finding = bucket.after_run(10).await.failure.expect("a warning");
    assert_eq!(finding.reason, Reason::AccessDenied);
    assert!(finding.message.contains("s3:ListBucketVersions"), "{}", finding.message);
}

#[tokio::test(start_paused = true)]
async fn listing_failure_names_no_permissions_when_the_cause_is_another() {
    for (status, code, expected, part) in [
        (400, "ExpiredToken", Reason::AccessDenied, "have expired"),
        (403, "ExpiredToken", Reason::AccessDenied, "have expired"),
        (400, "Whatever", Reason::RequestRefused, "look up the code"),
    ] {
        let mut bucket = Listed::new([Err(S3Failure::service(status, Some(code), None))]);
        let Finding { reason, message, .. } = bucket.after_run(10).await.failure.expect("a warning");
        assert!(reason == expected && message.contains(part) && !message.contains("grant"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn listing_failure_names_time_and_remedy_when_the_answer_is_not_s3() {
    let before = Timestamp::now();
    let mut bucket = Listed::new([Err(S3Failure::NotS3("a page".to_owned()))]);
    let Finding { reason, message, .. } = bucket.after_run(10).await.failure.expect("a warning");
    assert_eq!(reason, Reason::NotS3);
    assert!(message.contains("turn off [s3.listing]") && !message.contains("endpoint"), "{message}");
    let at = message.split_once(" stopped at ").and_then(|(_, rest)| rest.split_once(": "));
    let at: Timestamp = at.and_then(|(at, _)| at.parse().ok()).expect("a time");
    assert!(at.as_second() >= before.as_second() && at <= Timestamp::now(), "{message}");
}

#[tokio::test(start_paused = true)]
async fn silent_service_gets_one_request_per_run_and_one_run_at_a_time() {
    let mut bucket = Listed::new([]);
    bucket.advance(10);
    tokio::time::sleep(DEADLINE / 2).await;
    assert_eq!((bucket.advance(10).next_run_at, bucket.asked().len()), (None, 1));
    tokio::time::sleep(DEADLINE).await;
    let shown = bucket.advance(10);
    assert_eq!(shown.failure.map(|finding| finding.reason), Some(Reason::ResponseTimedOut));
    assert!(shown.next_run_at.is_some() && bucket.asked().len() == 1);
}

#[tokio::test(start_paused = true)]
async fn no_listing_run_starts_while_another_is_in_progress() {
    let mut bucket = Listed::new([]);
    // The run waits for a permit, because other listings hold them.
    let taken = bucket.pages.clone().acquire_many_owned(PAGES_AT_ONCE as u32).await.expect("open");
    let run = |bucket: &Listed| bucket.listing.latest.as_ref().map(|run| run.task.id());
    bucket.advance(10);
    let first = run(&bucket);
    for _ in 0..3 {
        wait_for_the_next().await;
        assert_eq!((bucket.advance(10).next_run_at, run(&bucket)), (None, first), "it is neither ended nor doubled");
    }
    drop(taken);
    tokio::time::sleep(DEADLINE / 2).await;
    assert_eq!(bucket.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stopped_listing_requests_nothing_more_and_forgets_its_count() {
    let mut bucket = Listed::new(pages(3).take(1));
    bucket.advance(10);
    tokio::time::sleep(DEADLINE / 2).await;
    assert_eq!((bucket.asked().len(), bucket.pages.available_permits()), (2, PAGES_AT_ONCE - 1));
    bucket.listing.stop();
    tokio::task::yield_now().await;
    assert_eq!(bucket.pages.available_permits(), PAGES_AT_ONCE, "the requested page is cancelled");
    assert_eq!(bucket.advance(10), UsageListing::default());
    let Listed { listing, pages, .. } = bucket;
    tokio::task::yield_now().await;
    drop(listing);
    tokio::task::yield_now().await;
    assert_eq!(pages.available_permits(), PAGES_AT_ONCE, "it also ends with its driver");
}

#[tokio::test(start_paused = true)]
async fn count_is_dropped_when_the_access_rule_changes() {
    let mut bucket = Listed::new(pages(1).chain(pages(2)));
    assert!(bucket.after_run(10).await.whole.is_some());
    bucket.rule = crate::model::settings::AgentSettings::quiet().s3_access.pop();
    assert_eq!(bucket.advance(10), UsageListing::default());
    assert_eq!(bucket.after_run(10).await.whole.map(|count| count.tally.pages), Some(2));
    let asked = bucket.asked();
    bucket.advance(10);
    assert_eq!(bucket.asked(), asked, "the same rule keeps it");
}

#[tokio::test(start_paused = true)]
async fn resting_listing_runs_no_more_often_than_its_interval() {
    let mut bucket = Listed::new(pages(1).chain(pages(3).take(1)));
    bucket.after_run(10).await;
    bucket.listing.rest();
    let shown = bucket.after_run(10).await;
    assert_eq!((shown.whole, bucket.asked().len()), (None, 1));
    wait_for_the_next().await;
    bucket.advance(10);
    tokio::time::sleep(DEADLINE / 2).await;
    assert_eq!((bucket.asked().len(), bucket.pages.available_permits()), (3, PAGES_AT_ONCE - 1));
    bucket.listing.rest();
    let shown = bucket.after_run(10).await;
    assert_eq!((shown.under_way, shown.failure, bucket.asked().len()), (None, None, 3));
    assert_eq!(bucket.pages.available_permits(), PAGES_AT_ONCE, "a run in progress is ended");
}

#[tokio::test(start_paused = true)]
async fn buckets_share_the_limit_of_pages_and_take_turns() {
    let permits = Arc::new(Semaphore::new(PAGES_AT_ONCE));
    let mut silent: Vec<Listed> = (0..5).map(|_| Listed::sharing(&permits, [])).collect();
    silent.iter_mut().for_each(|bucket| _ = bucket.advance(10));
    let mut lively = Listed::sharing(&permits, pages(3));
    lively.advance(10);
    tokio::time::sleep(DEADLINE / 2).await;
    let asked = |silent: &[Listed]| silent.iter().map(|bucket| bucket.asked().len()).sum::<usize>();
    assert_eq!(asked(&silent), PAGES_AT_ONCE);
    tokio::time::sleep(DEADLINE * 3).await;
    assert_eq!(asked(&silent), 5);
    assert_eq!(lively.advance(10).whole.map(|count| count.tally.pages), Some(3));
}
