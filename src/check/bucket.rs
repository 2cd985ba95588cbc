//! Bucket: it exists, and these credentials reach it.
//!
//! A refused HEAD has no body, so the reason is learnt by a GET (of the bucket's location). There
//! are policies that refuse HEAD, which is `s3:ListBucket` without a prefix, and still let backups
//! below a prefix be written: a bucket that answers one of the other questions is reached, and the
//! refused HEAD is a reservation, not a failure.

use std::time::Duration;

use super::Checked;
use crate::model::report::Finding;
use crate::model::{Reason, S3Location};
use crate::s3::{BucketApi, BucketUsage, S3Failure, within};

/// A difference of clocks that is told, in seconds. Services refuse requests at 15 minutes.
pub const CLOCK_DIFFERENCE_TOLD_SECONDS: i64 = 60;

/// Asks for the bucket, within `deadline` for all that it takes.
pub async fn bucket(api: &dyn BucketApi, location: &S3Location, deadline: Duration) -> Checked<BucketUsage> {
    match within(deadline, reach(api)).await {
        Ok(Reached::Told(usage)) => Checked::passed(usage).warning(clock_difference(&usage)),
        Ok(Reached::HeadRefused) => Checked::passed(BucketUsage::default()).warning(Some(head_refused(location))),
        Err(failure) => not_passed(&failure, location),
    }
}

/// The outcome of a check whose call failed.
pub(super) fn not_passed<T>(failure: &S3Failure, location: &S3Location) -> Checked<T> {
    let finding = failure.finding(location);
    if failure.is_timeout() { Checked::timed_out(finding) } else { Checked::failed(finding) }
}

enum Reached {
    Told(BucketUsage),
    HeadRefused,
}

async fn reach(api: &dyn BucketApi) -> Result<Reached, S3Failure> {
    let refused = match api.head_bucket().await {
        Ok(usage) => return Ok(Reached::Told(usage)),
        Err(failure) if failure.lacks_code() => failure,
        Err(failure) => return Err(failure),
    };
    match api.bucket_location().await {
        // Every S3 service says NoSuchBucket to a GET: this is the word of some other web server.
        Err(failure) if failure.lacks_code() && failure.reason() == Reason::BucketNotFound => {
            Err(S3Failure::NotS3(format!("{failure}, without the error code that S3 has")))
        }
        Err(failure) if failure.reason() != Reason::AccessDenied => Err(failure),
        Ok(()) if refused.reason() != Reason::AccessDenied => Err(refused),
        Ok(()) => Ok(Reached::HeadRefused),
        Err(failure) => api.versioning().await.map(|_| Reached::HeadRefused).map_err(|_| failure),
    }
}

fn head_refused(location: &S3Location) -> Finding {
    Finding::new(
        Reason::AccessDenied,
        format!(
            "{location} exists and the credentials are known, but they may not HEAD it, so its use is not known: grant them s3:ListBucket on it"
        ),
    )
}

fn clock_difference(usage: &BucketUsage) -> Option<Finding> {
    let ahead = usage.clock_ahead_seconds.filter(|ahead| ahead.saturating_abs() > CLOCK_DIFFERENCE_TOLD_SECONDS)?;
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    Some(Finding::new(
        Reason::ClockSkewed,
        format!(
            "the service's clock is {} s {direction} this host's; at 15 minutes it refuses every request: correct the one that is wrong (NTP)",
            ahead.saturating_abs()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fake::FakeBucket;
    use crate::model::Outcome;

    async fn checked(fake: &FakeBucket) -> Checked<BucketUsage> {
        bucket(fake, &fake.location(), Duration::from_millis(100)).await
    }

    #[tokio::test]
    async fn a_refused_head_is_explained_by_a_get() {
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(403, None, None));
        fake.location = Err(S3Failure::service(403, Some("SignatureDoesNotMatch"), None));
        let checked = checked(&fake).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::WrongSecret)));
    }

    #[tokio::test]
    async fn a_web_server_that_has_no_such_page_is_no_s3_service_without_the_bucket() {
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(404, None, None));
        fake.location = Err(S3Failure::service(404, None, None));
        assert_eq!(checked(&fake).await.reason(), Some(Reason::NotS3));
        fake.location = Err(S3Failure::service(404, Some("NoSuchBucket"), None));
        assert_eq!(checked(&fake).await.reason(), Some(Reason::BucketNotFound));
    }

    #[tokio::test]
    async fn a_prefix_policy_that_refuses_head_leaves_the_bucket_reached() {
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(403, None, None));
        assert_eq!(checked(&fake).await.outcome(), Outcome::Passed);
        fake.location = Err(S3Failure::service(403, Some("AccessDenied"), None));
        let by_versioning = checked(&fake).await;
        assert_eq!((by_versioning.outcome(), by_versioning.reason()), (Outcome::Passed, Some(Reason::AccessDenied)));
        fake.versioning = Err(S3Failure::service(403, Some("AccessDenied"), None));
        assert_eq!(checked(&fake).await.outcome(), Outcome::Failed);
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let mut fake = FakeBucket::healthy();
        fake.silent = true;
        let checked = checked(&fake).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::TimedOut, Some(Reason::ResponseTimedOut)));
    }

    #[tokio::test]
    async fn clocks_that_differ_are_told() {
        let mut fake = FakeBucket::healthy();
        fake.head = Ok(BucketUsage { clock_ahead_seconds: Some(-90), ..BucketUsage::default() });
        let checked = checked(&fake).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::ClockSkewed)));
        assert!(checked.finding().is_some_and(|finding| finding.message.contains("90 s behind")));
    }
}
