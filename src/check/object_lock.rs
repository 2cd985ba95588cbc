//! Object lock: whether the bucket is able to keep backups from being deleted.
//!
//! This is what the bucket's configuration says. It is a fact and no proof: there are services
//! that store the configuration and do not enforce it.

use std::time::Duration;

use super::Checked;
use super::bucket::not_passed;
use crate::model::report::Finding;
use crate::model::{Reason, S3Location};
use crate::s3::{BucketApi, ObjectLock, within};

/// Asks for the object-lock configuration. A target that was declared immutable fails without
/// one, and is warned when a new object gets no retention by itself, or one below `min_retention`; for
/// another it is a fact.
pub async fn object_lock(
    api: &dyn BucketApi,
    location: &S3Location,
    immutable: bool,
    min_retention: Duration,
    deadline: Duration,
) -> Checked<ObjectLock> {
    let lock = match within(deadline, api.object_lock()).await {
        Ok(lock) => lock,
        // A service that has no such thing locks nothing, and that is known.
        Err(failure) if failure.reason() == Reason::NotImplemented => {
            let none = ObjectLock { enabled: false, default_retention: None };
            let finding = failure.finding(location);
            return if immutable { Checked::failed(finding) } else { Checked::not_needed(finding.message) }
                .with_fact(none);
        }
        Err(failure) if !immutable && failure.is_refusal_to_tell() => {
            return Checked::not_needed(failure.finding(location).message);
        }
        Err(failure) => return not_passed(&failure, location),
    };
    assess(lock, location, immutable, min_retention)
}

/// What a configuration that was read makes of the target.
#[must_use]
pub fn assess(
    lock: ObjectLock,
    location: &S3Location,
    immutable: bool,
    min_retention: Duration,
) -> Checked<ObjectLock> {
    if !lock.enabled {
        if immutable {
            return Checked::failed(Finding::new(
                Reason::ObjectLockMissing,
                format!(
                    "{location} is declared immutable and has no object lock: anyone with these credentials can delete its backups; use a bucket that was created with object lock, or declare the target not immutable"
                ),
            ))
            .with_fact(lock);
        }
        return Checked::passed(lock).detail("none");
    }
    let detail = match &lock.default_retention {
        Some(retention) => format!("enabled, default retention {retention}"),
        None => "enabled, no default retention".to_owned(),
    };
    let reservation = if immutable { retention_reservation(&lock, location, min_retention) } else { None };
    Checked::passed(lock).with_warnings(reservation).detail(detail)
}

fn retention_reservation(lock: &ObjectLock, location: &S3Location, min_retention: Duration) -> Option<Finding> {
    let Some(retention) = lock.default_retention else {
        return Some(Finding::new(
            Reason::NoDefaultRetention,
            format!(
                "{location} has object lock and no default retention: only objects that are written with a retention are locked; set one on the bucket unless the backup software sets its own"
            ),
        ));
    };
    (retention.duration() < min_retention).then(|| {
        let hours = min_retention.as_secs().div_ceil(3600);
        Finding::new(
            Reason::RetentionTooShort,
            format!(
                "{location} has a default retention of {retention}, less than the {} days and {} h of [s3.lock_proof] min_retention: set a longer one on the bucket",
                hours / 24,
                hours % 24
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fake::FakeBucket;
    use crate::model::LockMode;
    use crate::model::Outcome;
    use crate::s3::{DefaultRetention, RetentionLength, S3Failure};

    async fn checked(fake: &FakeBucket, immutable: bool) -> Checked<ObjectLock> {
        object_lock(fake, &fake.location(), immutable, Duration::from_secs(7 * 24 * 3600), Duration::from_millis(100))
            .await
    }

    #[tokio::test]
    async fn an_immutable_target_without_lock_fails_and_another_does_not() {
        let mut fake = FakeBucket::healthy();
        fake.object_lock = Ok(ObjectLock { enabled: false, default_retention: None });
        let immutable = checked(&fake, true).await;
        assert_eq!((immutable.outcome(), immutable.reason()), (Outcome::Failed, Some(Reason::ObjectLockMissing)));
        assert_eq!(checked(&fake, false).await.outcome(), Outcome::Passed);
    }

    #[tokio::test]
    async fn a_lock_without_default_retention_is_a_warning_for_an_immutable_target() {
        let mut fake = FakeBucket::healthy();
        fake.object_lock = Ok(ObjectLock { enabled: true, default_retention: None });
        let immutable = checked(&fake, true).await;
        assert_eq!((immutable.outcome(), immutable.reason()), (Outcome::Passed, Some(Reason::NoDefaultRetention)));
        assert_eq!(checked(&fake, false).await.reason(), None);
    }

    #[tokio::test]
    async fn a_default_retention_below_what_is_wanted_is_a_warning_for_an_immutable_target() {
        let mut fake = FakeBucket::healthy();
        for (length, reason) in [
            (RetentionLength::Days(6), Some(Reason::RetentionTooShort)),
            (RetentionLength::Days(7), None),
            (RetentionLength::Years(1), None),
        ] {
            let retention = DefaultRetention { mode: LockMode::Governance, length };
            fake.object_lock = Ok(ObjectLock { enabled: true, default_retention: Some(retention) });
            let immutable = checked(&fake, true).await;
            assert_eq!((immutable.outcome(), immutable.reason()), (Outcome::Passed, reason), "{retention}");
            assert_eq!(checked(&fake, false).await.reason(), None);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_taken_for_a_lock() {
        let mut fake = FakeBucket::healthy();
        fake.object_lock = Err(S3Failure::service(403, Some("AccessDenied"), None));
        assert_eq!(checked(&fake, true).await.outcome(), Outcome::Failed);
        assert_eq!(checked(&fake, false).await.outcome(), Outcome::Skipped);
        assert_eq!(checked(&fake, false).await.fact, None, "it may lock by default");
        fake.object_lock = Err(S3Failure::service(501, Some("NotImplemented"), None));
        for immutable in [true, false] {
            let none = ObjectLock { enabled: false, default_retention: None };
            assert_eq!(checked(&fake, immutable).await.fact, Some(none), "it locks nothing");
        }
    }
}
