//! Passes over listings: complete, interrupted, refused, and untrustworthy ones.

use super::*;
use crate::check::fake::FakeBucket;
use crate::model::Reason;

const DEADLINE: Duration = Duration::from_millis(100);

fn version(key: &str, version: &str) -> PageMarker {
    PageMarker::Version { key: key.to_owned(), version: Some(version.to_owned()) }
}

fn token(text: &str) -> PageMarker {
    PageMarker::Token(text.to_owned())
}

fn page(next: Option<PageMarker>) -> Result<ListedPage, S3Failure> {
    Ok(ListedPage { versions: 10, delete_markers: 1, bytes: 500, keys: None, next })
}

fn objects(first: &str, last: &str, next: Option<PageMarker>) -> Result<ListedPage, S3Failure> {
    let keys = Some((first.to_owned(), last.to_owned()));
    Ok(ListedPage { versions: 10, delete_markers: 0, bytes: 500, keys, next })
}

fn denied() -> Result<ListedPage, S3Failure> {
    Err(S3Failure::service(403, Some("AccessDenied"), None))
}

/// Requests pages until the pass ends, at most `requests_max`.
async fn walked(fake: &FakeBucket, mut pass: UsagePass, requests_max: u32) -> PageOutcome {
    for _ in 1..requests_max {
        match pass.next_page(fake, DEADLINE).await {
            PageOutcome::More(more) => pass = more,
            other => return other,
        }
    }
    pass.next_page(fake, DEADLINE).await
}

fn begun() -> UsagePass {
    UsagePass::new(Timestamp::now())
}

fn stopped(outcome: PageOutcome) -> (S3Failure, Option<UsagePass>) {
    match outcome {
        PageOutcome::Stopped(failure, pass) => (failure, pass),
        other => panic!("{other:?}"),
    }
}

fn whole(outcome: PageOutcome) -> WholeCount {
    match outcome {
        PageOutcome::Whole(count) => count,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn listing_counts_all_versions_and_each_page_continues_the_previous_one() {
    let fake = FakeBucket::with_pages([page(Some(version("b", "7"))), page(Some(version("b", "3"))), page(None)]);
    let count = whole(walked(&fake, begun(), 10).await);
    let expected = UsageTally { pages: 3, versions: 30, delete_markers: 3, bytes: 1500, counts_versions: true };
    assert_eq!(count.tally, expected);
    assert!(count.began_at <= count.ended_at);
    let begins = [None, Some(version("b", "7")), Some(version("b", "3"))].map(|after| (Entries::Versions, after));
    assert_eq!(fake.asked(), begins);
}

#[tokio::test]
async fn listing_counts_objects_when_versions_are_refused() {
    for refusal in [denied(), Err(S3Failure::service(501, Some("NotImplemented"), None))] {
        let fake = FakeBucket::with_pages([refusal, objects("a", "b", Some(token("1"))), objects("c", "d", None)]);
        let count = whole(walked(&fake, begun(), 10).await);
        assert_eq!((count.tally.pages, count.tally.versions, count.tally.counts_versions), (2, 20, false));
        let asked = [(Entries::Versions, None), (Entries::Objects, None), (Entries::Objects, Some(token("1")))];
        assert_eq!(fake.asked(), asked);
    }
}

#[tokio::test]
async fn listing_does_not_count_objects_when_the_failure_is_not_a_refusal() {
    for (status, code) in [(400, "RequestTimeout"), (400, "Whatever"), (400, "ExpiredToken"), (403, "ExpiredToken")] {
        let failure = S3Failure::service(status, Some(code), None);
        let fake = FakeBucket::with_pages([Err(failure.clone())]);
        let (found, pass) = stopped(walked(&fake, begun(), 10).await);
        assert_eq!((found, pass.is_none(), fake.asked()), (failure, true, vec![(Entries::Versions, None)]));
    }
}

#[tokio::test]
async fn listing_restarts_when_versions_and_objects_are_refused() {
    let fake = FakeBucket::with_pages([denied(), denied()]);
    let (failure, pass) = stopped(walked(&fake, begun(), 10).await);
    assert_eq!((failure.reason(), pass.is_none()), (Reason::AccessDenied, true));
}

#[tokio::test]
async fn listing_keeps_its_position_when_the_service_is_down_or_busy() {
    let busy = S3Failure::service(503, Some("SlowDown"), None);
    let broken = S3Failure::ConnectionBroken("reset".to_owned());
    // A refusal in the middle does not switch to objects either.
    let refused = S3Failure::service(403, Some("AccessDenied"), None);
    let expired = S3Failure::service(400, Some("ExpiredToken"), None);
    for failure in [busy, broken, refused, expired, S3Failure::TimedOut(DEADLINE)] {
        let pages = [page(Some(version("b", "1"))), Err(failure.clone()), page(None)];
        let fake = FakeBucket::with_pages(pages);
        let (found, pass) = stopped(walked(&fake, begun(), 10).await);
        assert_eq!(found, failure);
        let count = whole(walked(&fake, pass.expect("its position"), 10).await);
        assert_eq!((count.tally.pages, count.tally.versions), (2, 20), "{failure}");
        assert_eq!(fake.asked()[1..], [(); 2].map(|()| (Entries::Versions, Some(version("b", "1")))));
    }
}

#[tokio::test]
async fn page_request_ends_at_the_deadline_when_the_service_is_silent() {
    let fake = FakeBucket::with_pages([]);
    let (failure, pass) = stopped(walked(&fake, begun(), 1).await);
    assert!(failure.is_timeout() && pass.is_none(), "{failure}");
}

#[tokio::test]
async fn listing_restarts_after_an_invalid_page_or_a_rejected_marker() {
    let refusals = [S3Failure::NotS3("a page".to_owned()), S3Failure::service(400, Some("InvalidArgument"), None)];
    for failure in refusals {
        let fake = FakeBucket::with_pages([page(Some(version("b", "1"))), Err(failure.clone())]);
        let (found, pass) = stopped(walked(&fake, begun(), 10).await);
        assert_eq!((found, pass.is_none()), (failure, true));
    }
}

#[tokio::test]
async fn listing_restarts_when_pages_do_not_advance() {
    let same = || page(Some(version("b", "1")));
    let back = || [page(Some(version("b", "1"))), page(Some(version("a", "1")))];
    let same_token = || objects("a", "b", Some(token("1")));
    for (pages, why) in [
        (vec![same(), same()], "repeats"),
        (back().into(), "before the end"),
        // The last page starts before the end of the previous one.
        (vec![page(Some(version("b", "1"))), objects("a", "c", None)], "before the end"),
        (vec![denied(), same_token(), objects("c", "d", Some(token("1")))], "repeats"),
        // The first page repeats with a new token each time.
        (vec![denied(), same_token(), objects("a", "b", Some(token("2")))], "repeats"),
    ] {
        let asked = pages.len();
        let fake = FakeBucket::with_pages(pages);
        let (failure, pass) = stopped(walked(&fake, begun(), 10).await);
        assert!(failure.to_string().contains(why) && pass.is_none(), "{failure}");
        assert_eq!((failure.reason(), fake.asked().len()), (Reason::NotS3, asked));
    }
}

#[tokio::test]
async fn cycle_of_pages_of_any_length_is_detected() {
    for length in [2, 3, 7, 100] {
        let cycle = (0..10_000).map(|at| page(Some(version("key", &(at % length).to_string()))));
        let fake = FakeBucket::with_pages(cycle);
        let (failure, pass) = stopped(walked(&fake, begun(), 10_000).await);
        assert!(failure.to_string().contains("repeats") && pass.is_none(), "{failure}");
        assert!(fake.asked().len() <= 3 * length + 1, "{} pages of a cycle of {length}", fake.asked().len());
    }
}

#[tokio::test]
async fn versions_of_one_key_on_several_pages_are_not_a_cycle() {
    let keys = || Some(("key".to_owned(), "key".to_owned()));
    let pages = (0..20).map(|at| {
        let next = (at < 19).then(|| version("key", &at.to_string()));
        Ok(ListedPage { versions: 1000, delete_markers: 0, bytes: 1, keys: keys(), next })
    });
    assert_eq!(whole(walked(&FakeBucket::with_pages(pages), begun(), 100).await).tally.versions, 20_000);
}

#[tokio::test]
async fn listing_restarts_when_sizes_overflow() {
    let huge = |next| Ok(ListedPage { bytes: u64::MAX / 2 + 1, next, ..ListedPage::default() });
    let fake = FakeBucket::with_pages([huge(Some(version("b", "1"))), huge(None)]);
    let (failure, pass) = stopped(walked(&fake, begun(), 10).await);
    assert!(failure.to_string().contains("more than 64 bits") && pass.is_none(), "{failure}");
}
