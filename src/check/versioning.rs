//! `versioning`: whether the bucket keeps overwritten and deleted versions. Object lock needs it.

use std::time::Duration;

use super::bucket::{Subject, not_passed, unknown};
use super::checked::Checked;
use crate::model::report::finding;
use crate::model::{Reason, S3Location};
use crate::s3::{BucketApi, Versioning, within};

/// Reads whether versioning is enabled. A target that is declared immutable needs it. For any other target it is only a
/// fact, and a service that does not report it is not a failure.
pub async fn versioning(
    api: &dyn BucketApi,
    location: &S3Location,
    immutable: bool,
    deadline: Duration,
) -> Checked<Versioning> {
    match within(deadline, api.versioning()).await {
        Ok(found) => assess(found, location, immutable),
        Err(failure) => {
            unknown(SUBJECT, &failure, location, immutable).unwrap_or_else(|| not_passed(&failure, location))
        }
    }
}

const SUBJECT: Subject = Subject { name: "versioning", action: "s3:GetBucketVersioning" };

/// Checks versioning that was read.
#[must_use]
pub fn assess(found: Versioning, location: &S3Location, immutable: bool) -> Checked<Versioning> {
    if !immutable || found == Versioning::Enabled {
        return Checked::passed(found).detail(word(found));
    }
    Checked::failed(finding!(
        Reason::VersioningDisabled,
        "{location} is declared immutable and its versioning is {}: enable versioning, because object lock needs it",
        word(found)
    ))
    .with_fact(found)
}

fn word(versioning: Versioning) -> &'static str {
    match versioning {
        Versioning::Enabled => "enabled",
        Versioning::Suspended => "suspended",
        Versioning::Off => "off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fake::FakeBucket;
    use crate::model::Outcome;
    use crate::s3::S3Failure;

    async fn checked(fake: &FakeBucket, immutable: bool) -> Checked<Versioning> {
        versioning(fake, &fake.location(), immutable, Duration::from_millis(100)).await
    }

    #[tokio::test]
    async fn versioning_is_required_for_an_immutable_target_only() {
        let mut fake = FakeBucket::healthy();
        fake.versioning = Ok(Versioning::Suspended);
        assert_eq!(checked(&fake, true).await.reason(), Some(Reason::VersioningDisabled));
        assert_eq!(checked(&fake, false).await.outcome(), Outcome::Passed);
    }

    #[tokio::test]
    async fn unreported_versioning_fails_only_an_immutable_target() {
        let mut fake = FakeBucket::healthy();
        for (failure, reason) in [
            (S3Failure::service(501, Some("NotImplemented"), None), Reason::NotImplemented),
            (S3Failure::service(404, Some("NoSuchBucket"), None), Reason::NotImplemented),
            (S3Failure::NotS3("HTML".to_owned()), Reason::NotImplemented),
            (S3Failure::service(403, Some("AccessDenied"), None), Reason::AccessDenied),
            (S3Failure::service(503, Some("SlowDown"), None), Reason::Throttled),
            (S3Failure::service(409, Some("OperationAborted"), None), Reason::RequestRefused),
            (S3Failure::service(403, Some("SignatureDoesNotMatch"), None), Reason::NotImplemented),
            (S3Failure::service(302, None, None), Reason::NotImplemented),
            (S3Failure::ConnectionBroken("reset".to_owned()), Reason::ConnectionBroken),
            (S3Failure::TimedOut(Duration::from_secs(2)), Reason::ResponseTimedOut),
        ] {
            fake.versioning = Err(failure.clone());
            let immutable = checked(&fake, true).await;
            let outcome = if failure.is_timeout() { Outcome::TimedOut } else { Outcome::Failed };
            assert_eq!((immutable.outcome(), immutable.reason()), (outcome, Some(reason)), "{failure}");
            let message = &immutable.finding().expect("a finding").message;
            let is_permission = reason == Reason::AccessDenied;
            assert!(message.contains("declared immutable") && message.contains("versioning"), "{message}");
            assert_eq!(message.contains("s3:GetBucketVersioning"), is_permission, "{message}");
            let ordinary = checked(&fake, false).await;
            assert_eq!(
                (ordinary.outcome(), ordinary.reason(), ordinary.fact),
                (Outcome::Skipped, None, None),
                "{failure}"
            );
        }
    }
}
