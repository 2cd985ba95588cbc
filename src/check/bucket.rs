//! `bucket`: whether the bucket exists and the credentials reach it.
//!
//! A refused HEAD has no body. To learn the reason, the check sends a GET that lists one object below the
//! prefix of the canaries. Some policies refuse HEAD, which needs `s3:ListBucket` without a prefix, and
//! still allow backups below a prefix. If the bucket answers this GET, or one of two that need no permission
//! for objects, it is reachable, and the refused HEAD is a warning. The list comes first because the
//! storage answers it. A gateway may answer the others from a cache.

use std::time::Duration;

use super::Checked;
use crate::model::report::Finding;
use crate::model::{Reason, S3Location};
use crate::s3::failure::clock_words;
use crate::s3::{BucketApi, BucketUsage, S3Failure, within};

/// Smallest difference of clocks that is a warning, in seconds. Services refuse requests at 15 minutes.
pub const CLOCK_DIFFERENCE_WARNING_SECONDS: i64 = 60;

/// Checks that the bucket exists, within `deadline` for all requests. `prefix` is that of the canaries.
pub async fn bucket(
    api: &dyn BucketApi,
    location: &S3Location,
    prefix: &str,
    deadline: Duration,
) -> Checked<BucketUsage> {
    match within(deadline, reach(api, prefix)).await {
        Ok(Reached::WithUsage(usage)) => Checked::passed(usage).with_warnings(clock_difference(&usage, location)),
        Ok(Reached::HeadRefused) => Checked::passed(BucketUsage::default()).with_warnings(Some(head_refused(location))),
        Err(failure) => not_passed(&failure, location),
    }
}

/// Outcome of a check whose call failed.
pub(super) fn not_passed<T>(failure: &S3Failure, location: &S3Location) -> Checked<T> {
    let finding = failure.finding(location);
    if failure.is_timeout() { Checked::timed_out(finding) } else { Checked::failed(finding) }
}

/// Detail of a check that the service cannot answer.
pub(super) const NOT_REPORTED: &str = "the service does not report it";

/// Outcome of a check that reads a configuration which the service does not have. `what` is the configuration.
pub(super) fn not_reported<T>(what: &str, failure: &S3Failure, location: &S3Location, immutable: bool) -> Checked<T> {
    if !immutable {
        return Checked::not_needed(format!("{NOT_REPORTED} ({failure})"));
    }
    Checked::failed(Finding::new(
        Reason::NotImplemented,
        format!(
            "{location} is declared immutable, and the service does not report its {what} ({failure}): declare the target not immutable, or use a service with object lock"
        ),
    ))
}

enum Reached {
    WithUsage(BucketUsage),
    HeadRefused,
}

async fn reach(api: &dyn BucketApi, prefix: &str) -> Result<Reached, S3Failure> {
    let refused = match api.head_bucket().await {
        Ok(usage) => return Ok(Reached::WithUsage(usage)),
        Err(failure) if failure.lacks_code() => failure,
        Err(failure) => return Err(failure),
    };
    let explained = match api.list_below(prefix).await {
        Ok(()) if refused.reason() == Reason::AccessDenied => return Ok(Reached::HeadRefused),
        Ok(()) => return Err(refused),
        Err(failure) => failure.or_region_of(&refused).of_a_get(),
    };
    match (refused.reason(), explained.reason()) {
        (Reason::AccessDenied, Reason::AccessDenied) => {}
        // The status of the HEAD explains nothing.
        (Reason::NotS3, _) => return Err(explained),
        // Missing permissions do not explain another kind of failure.
        (_, Reason::AccessDenied) => return Err(refused),
        _ => return Err(explained),
    }
    if api.bucket_location().await.is_ok() || api.versioning().await.is_ok() {
        return Ok(Reached::HeadRefused);
    }
    Err(explained)
}

fn head_refused(location: &S3Location) -> Finding {
    Finding::new(
        Reason::AccessDenied,
        format!(
            "{location} exists and the service knows the credentials, but refuses HEAD, so the use of the bucket is unknown: grant them s3:ListBucket on it"
        ),
    )
}

fn clock_difference(usage: &BucketUsage, location: &S3Location) -> Option<Finding> {
    let ahead = usage.clock_ahead_seconds.filter(|ahead| ahead.saturating_abs() >= CLOCK_DIFFERENCE_WARNING_SECONDS)?;
    Some(Finding::new(
        Reason::ClockSkewed,
        format!(
            "{location}: the service's clock is {}, and from 15 minutes on it refuses every request: correct the clock that is wrong (`chronyc tracking` or `timedatectl` on either host)",
            clock_words(ahead)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fake::FakeBucket;
    use crate::model::Outcome;

    async fn checked(fake: &FakeBucket) -> Checked<BucketUsage> {
        bucket(fake, &fake.location(), "canaries/", Duration::from_millis(100)).await
    }

    #[tokio::test]
    async fn get_explains_a_refused_head() {
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(403, None, None));
        fake.list = Err(S3Failure::service(403, Some("SignatureDoesNotMatch"), None));
        let checked = checked(&fake).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::WrongSecret)));
    }

    #[tokio::test]
    async fn web_server_without_the_page_is_not_an_s3_service_without_the_bucket() {
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(404, None, None));
        fake.list = Err(S3Failure::service(404, None, None));
        assert_eq!(checked(&fake).await.reason(), Some(Reason::NotS3));
        fake.list = Err(S3Failure::service(404, Some("NoSuchBucket"), None));
        assert_eq!(checked(&fake).await.reason(), Some(Reason::BucketNotFound));
    }

    #[tokio::test]
    async fn bucket_passes_with_a_warning_when_a_prefix_policy_refuses_head() {
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(403, None, None));
        let by_list = checked(&fake).await;
        assert_eq!((by_list.outcome(), by_list.reason()), (Outcome::Passed, Some(Reason::AccessDenied)));
        fake.list = Err(S3Failure::service(403, Some("AccessDenied"), None));
        assert_eq!(checked(&fake).await.outcome(), Outcome::Passed);
        fake.location = Err(S3Failure::service(403, Some("AccessDenied"), None));
        let by_versioning = checked(&fake).await;
        assert_eq!((by_versioning.outcome(), by_versioning.reason()), (Outcome::Passed, Some(Reason::AccessDenied)));
        fake.versioning = Err(S3Failure::service(403, Some("AccessDenied"), None));
        assert_eq!(checked(&fake).await.outcome(), Outcome::Failed);
    }

    #[tokio::test]
    async fn get_explains_a_failed_head_of_any_status() {
        for (status, code, reason) in [
            (503, "SlowDown", Reason::Throttled),
            (400, "ExpiredToken", Reason::AccessDenied),
            (301, "PermanentRedirect", Reason::WrongRegion),
        ] {
            let mut fake = FakeBucket::healthy();
            fake.head = Err(S3Failure::service(status, None, (status == 301).then_some("eu-west-1")));
            fake.list = Err(S3Failure::service(status, Some(code), None));
            let checked = checked(&fake).await;
            assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(reason)), "{code}");
        }
    }

    #[tokio::test]
    async fn server_error_of_head_is_not_a_missing_permission() {
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(500, None, None));
        for list in [Ok(()), Err(S3Failure::service(403, Some("AccessDenied"), None))] {
            fake.list = list;
            assert_eq!(checked(&fake).await.reason(), Some(Reason::ServerError));
        }
    }

    #[tokio::test]
    async fn bucket_times_out_when_the_service_is_silent() {
        let mut fake = FakeBucket::healthy();
        fake.silent = true;
        let checked = checked(&fake).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::TimedOut, Some(Reason::ResponseTimedOut)));
    }

    #[tokio::test]
    async fn clock_difference_is_a_warning() {
        let mut fake = FakeBucket::healthy();
        fake.head = Ok(BucketUsage { clock_ahead_seconds: Some(-60), ..BucketUsage::default() });
        let checked = checked(&fake).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::ClockSkewed)));
        assert!(checked.finding().is_some_and(|finding| finding.message.contains("60 s behind")));
    }
}
