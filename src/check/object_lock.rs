//! `object_lock`: the object-lock configuration of the bucket.
//!
//! The configuration does not prove that backups cannot be deleted, because some services store it but do not enforce
//! it.

use std::time::Duration;

use super::bucket::{NOT_REPORTED, Subject, not_passed, unknown};
use super::checked::Checked;
use crate::model::report::{Finding, finding};
use crate::model::{Reason, S3Location};
use crate::s3::{BucketApi, ObjectLock, within};

/// Reads the object-lock configuration. A target that is declared immutable fails without one, and has a warning if
/// new objects get no retention by default, or less than `min_retention`. For any other target the configuration is
/// only a fact, and a service that does not report it is not a failure. The fact is then the reason why it is unknown.
pub async fn object_lock(
    api: &dyn BucketApi,
    location: &S3Location,
    immutable: bool,
    min_retention: Duration,
    deadline: Duration,
) -> Checked<Result<ObjectLock, Reason>> {
    let lock = match within(deadline, api.object_lock()).await {
        Ok(lock) => lock,
        Err(failure) => {
            let Some(unknown) = unknown(SUBJECT, &failure, location, immutable) else {
                return not_passed(&failure, location);
            };
            let none = ObjectLock { enabled: None, default_retention: None };
            return match immutable {
                _ if failure.lacks_configuration() => unknown.with_fact(Ok(none)),
                true => unknown,
                false => unknown.with_fact(Err(failure.reason_of_one_request())),
            };
        }
    };
    assess(lock, location, immutable, min_retention).map(Ok)
}

const SUBJECT: Subject = Subject { name: "object lock", action: "s3:GetBucketObjectLockConfiguration" };

/// Checks a configuration that was read.
#[must_use]
pub fn assess(
    lock: ObjectLock,
    location: &S3Location,
    immutable: bool,
    min_retention: Duration,
) -> Checked<ObjectLock> {
    if lock.enabled.is_none() && !immutable {
        return Checked::not_needed(NOT_REPORTED).with_fact(lock);
    }
    if !lock.is_enabled() {
        if immutable {
            return Checked::failed(finding!(
                Reason::ObjectLockMissing,
                "{location} is declared immutable and has no object lock, so these credentials can delete its backups: use a bucket that was created with object lock, or declare the target not immutable"
            ))
            .with_fact(lock);
        }
        return Checked::passed(lock).detail("none");
    }
    let detail = match &lock.default_retention {
        Some(retention) => format!("enabled, default retention {retention}"),
        None => "enabled, no default retention".to_owned(),
    };
    let warning = if immutable { retention_warning(&lock, location, min_retention) } else { None };
    Checked::passed(lock).with_warnings(warning).detail(detail)
}

fn retention_warning(lock: &ObjectLock, location: &S3Location, min_retention: Duration) -> Option<Finding> {
    let Some(retention) = lock.default_retention else {
        return Some(finding!(
            Reason::NoDefaultRetention,
            "{location} has object lock and no default retention, so it locks only objects that are written with a retention: set a default retention on the bucket, unless the backup software sets its own"
        ));
    };
    (retention.duration() < min_retention).then(|| {
        let hours = min_retention.as_secs().div_ceil(3600);
        finding!(
            Reason::RetentionTooShort,
            "{location} has a default retention of {retention}, less than the {} days and {} h of [s3.lock_proof] min_retention: set a longer one on the bucket",
            hours / 24, hours % 24
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fake::FakeBucket;
    use crate::model::LockMode;
    use crate::model::Outcome;
    use crate::s3::S3Failure;
    use crate::s3::{DefaultRetention, RetentionLength};

    async fn checked(fake: &FakeBucket, immutable: bool) -> Checked<Result<ObjectLock, Reason>> {
        object_lock(fake, &fake.location(), immutable, Duration::from_secs(7 * 24 * 3600), Duration::from_millis(100))
            .await
    }

    #[tokio::test]
    async fn object_lock_is_required_for_an_immutable_target_only() {
        let mut fake = FakeBucket::healthy();
        fake.object_lock = Ok(ObjectLock { enabled: Some(false), default_retention: None });
        let immutable = checked(&fake, true).await;
        assert_eq!((immutable.outcome(), immutable.reason()), (Outcome::Failed, Some(Reason::ObjectLockMissing)));
        assert_eq!(checked(&fake, false).await.outcome(), Outcome::Passed);
    }

    #[tokio::test]
    async fn immutable_target_has_a_warning_without_default_retention() {
        let mut fake = FakeBucket::healthy();
        fake.object_lock = Ok(ObjectLock { enabled: Some(true), default_retention: None });
        let immutable = checked(&fake, true).await;
        assert_eq!((immutable.outcome(), immutable.reason()), (Outcome::Passed, Some(Reason::NoDefaultRetention)));
        assert_eq!(checked(&fake, false).await.reason(), None);
    }

    #[tokio::test]
    async fn immutable_target_has_a_warning_when_default_retention_is_too_short() {
        let mut fake = FakeBucket::healthy();
        for (length, reason) in [
            (RetentionLength::Days(6), Some(Reason::RetentionTooShort)),
            (RetentionLength::Days(7), None),
            (RetentionLength::Years(1), None),
        ] {
            let retention = DefaultRetention { mode: LockMode::Governance, length };
            fake.object_lock = Ok(ObjectLock { enabled: Some(true), default_retention: Some(retention) });
            let immutable = checked(&fake, true).await;
            assert_eq!((immutable.outcome(), immutable.reason()), (Outcome::Passed, reason), "{retention}");
            assert_eq!(checked(&fake, false).await.reason(), None);
        }
    }

    #[tokio::test]
    async fn lock_that_the_service_does_not_report_fails_only_an_immutable_target() {
        let mut fake = FakeBucket::healthy();
        for failure in [
            S3Failure::NotS3("a bucket listing".to_owned()),
            S3Failure::service(400, Some("InvalidArgument"), None),
            S3Failure::service(400, None, None),
            S3Failure::service(404, Some("NoSuchBucket"), None),
            S3Failure::service(405, None, None),
            S3Failure::service(501, Some("NotImplemented"), None),
        ] {
            fake.object_lock = Err(failure.clone());
            let ordinary = checked(&fake, false).await;
            assert_eq!((ordinary.outcome(), ordinary.reason()), (Outcome::Skipped, None), "{failure}");
            let none = ObjectLock { enabled: None, default_retention: None };
            assert_eq!(ordinary.fact, Some(Ok(none)), "{failure}");
            let immutable = checked(&fake, true).await;
            assert_eq!(immutable.reason(), Some(Reason::NotImplemented), "{failure}");
            let message = &immutable.finding().expect("a finding").message;
            assert!(message.contains("declare the target not immutable"), "{message}");
        }
        for (failure, reason) in [
            (S3Failure::service(500, Some("InternalError"), None), Reason::ServerError),
            (S3Failure::service(409, Some("OperationAborted"), None), Reason::RequestRefused),
            (S3Failure::TimedOut(Duration::from_secs(2)), Reason::ResponseTimedOut),
        ] {
            fake.object_lock = Err(failure);
            let ordinary = checked(&fake, false).await;
            assert_eq!((ordinary.outcome(), ordinary.reason()), (Outcome::Skipped, None), "{reason:?}");
            assert!(!ordinary.detail.as_ref().is_some_and(|detail| detail.contains("grant")), "{ordinary:?}");
            assert_eq!(ordinary.fact, Some(Err(reason)), "it may lock by default");
            assert_eq!(checked(&fake, true).await.reason(), Some(reason));
        }
    }

    #[tokio::test]
    async fn failure_that_concerns_every_request_fails_any_target() {
        let mut fake = FakeBucket::healthy();
        for failure in [
            S3Failure::ConnectionRefused,
            S3Failure::service(403, Some("InvalidAccessKeyId"), None),
            S3Failure::service(400, Some("ExpiredToken"), None),
            S3Failure::service(403, Some("RequestTimeTooSkewed"), None),
        ] {
            fake.object_lock = Err(failure.clone());
            for immutable in [true, false] {
                assert_eq!(checked(&fake, immutable).await.outcome(), Outcome::Failed, "{failure}");
            }
        }
    }

    #[tokio::test]
    async fn lock_is_unknown_when_only_its_request_fails() {
        let mut fake = FakeBucket::healthy();
        for (failure, reason) in [
            (S3Failure::ConnectionBroken("reset".to_owned()), Reason::ConnectionBroken),
            (S3Failure::service(403, Some("SignatureDoesNotMatch"), None), Reason::NotImplemented),
            (S3Failure::service(302, None, None), Reason::NotImplemented),
            (S3Failure::service(301, None, Some("eu-1")), Reason::NotImplemented),
            (S3Failure::service(500, Some("InternalError"), None), Reason::ServerError),
            (S3Failure::service(503, Some("SlowDown"), None), Reason::Throttled),
            (S3Failure::service(502, None, None), Reason::ServerError),
            (S3Failure::service(403, Some("Weird"), None), Reason::RequestRefused),
        ] {
            fake.object_lock = Err(failure.clone());
            let ordinary = checked(&fake, false).await;
            assert_eq!((ordinary.outcome(), ordinary.reason()), (Outcome::Skipped, None), "{failure}");
            assert_eq!(ordinary.fact, Some(Err(reason)), "{failure}");
            let immutable = checked(&fake, true).await;
            assert_eq!((immutable.outcome(), immutable.reason()), (Outcome::Failed, Some(reason)), "{failure}");
            let message = &immutable.finding().expect("a finding").message;
            for words in ["its object lock is not known", "declare the target not immutable"] {
                assert!(message.contains(words), "{message}");
            }
            for words in ["is broken or still starting", "secret", "redirects", "another region"] {
                assert!(!message.contains(words), "{message}");
            }
        }
    }

    #[tokio::test]
    async fn unreadable_object_lock_fails_an_immutable_target_only() {
        let mut fake = FakeBucket::healthy();
        fake.object_lock = Err(S3Failure::service(403, Some("AccessDenied"), None));
        assert_eq!(checked(&fake, true).await.outcome(), Outcome::Failed);
        assert_eq!(checked(&fake, false).await.outcome(), Outcome::Skipped);
        assert_eq!(checked(&fake, false).await.fact, Some(Err(Reason::AccessDenied)), "it may lock by default");
        fake.object_lock = Err(S3Failure::service(501, Some("NotImplemented"), None));
        for immutable in [true, false] {
            let none = ObjectLock { enabled: None, default_retention: None };
            assert_eq!(checked(&fake, immutable).await.fact, Some(Ok(none)), "it locks nothing");
        }
    }
}
