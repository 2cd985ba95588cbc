//! `bucket`: whether the bucket exists and the credentials reach it.
//!
//! A refused HEAD has no body. To learn the reason, the check sends a GET that lists one object below the
//! prefix of the canaries. Some policies refuse HEAD, which needs `s3:ListBucket` without a prefix, and
//! still allow backups below a prefix. Some services do not implement HEAD, or answer it with the content type of a web
//! page or with a server error. The bucket is reachable if it answers this GET, or one of two others that need no
//! permission for objects. The failed HEAD is then a warning, and the canary shows whether backups can be written. The
//! list comes first because the storage itself answers it. A gateway may answer the others from a cache.
//!
//! The service refuses all of these requests if the credentials may only write, or if it implements only requests for
//! objects. Then the canary alone decides.

use std::time::Duration;

use super::checked::Checked;
use crate::model::report::{Finding, finding};
use crate::model::{Reason, S3Location};
use crate::s3::failure::clock_words;
use crate::s3::{BucketApi, BucketUsage, S3Failure, within};

/// Smallest clock difference that is a warning, in seconds. Services refuse requests from 15 minutes on.
pub const CLOCK_DIFFERENCE_WARNING_SECONDS: i64 = 60;

/// What the check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundBucket {
    /// Usage that the service reports.
    pub usage: BucketUsage,
    /// The refusal, if the service refused every request and a canary decides. Unless that canary shows that the
    /// credentials can write, the check has failed.
    pub unless_written: Option<S3Failure>,
}

/// Checks that the bucket exists, within `deadline` for all requests. `prefix` is that of the canaries.
/// `canary_decides` is whether a canary follows. Then the check passes even if the service refuses every request, and
/// returns the refusal in [`FoundBucket::unless_written`].
pub async fn bucket(
    api: &dyn BucketApi,
    location: &S3Location,
    prefix: &str,
    canary_decides: bool,
    deadline: Duration,
) -> Checked<FoundBucket> {
    let found = FoundBucket::default();
    match within(deadline, reach(api, prefix)).await {
        Ok(Reached::WithUsage(usage)) => {
            Checked::passed(FoundBucket { usage, ..found }).with_warnings(clock_difference(&usage, location))
        }
        Ok(Reached::HeadRefused(refused)) => Checked::passed(found).with_warnings([head_refused(&refused, location)]),
        Err(failure) if canary_decides && may_still_write(&failure) => {
            let warning = head_refused(&failure, location);
            Checked::passed(FoundBucket { unless_written: Some(failure), ..found }).with_warnings([warning])
        }
        Err(failure) => not_passed(&failure, location),
    }
}

/// Outcome of a check whose call failed.
pub(crate) fn not_passed<T>(failure: &S3Failure, location: &S3Location) -> Checked<T> {
    let finding = failure.finding(location);
    if failure.is_timeout() { Checked::timed_out(finding) } else { Checked::failed(finding) }
}

/// Detail of a check that the service cannot answer.
pub(super) const NOT_REPORTED: &str = "the service does not report it";

/// A configuration of a bucket: its name in sentences, and the action that permits to read it.
#[derive(Clone, Copy)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) action: &'static str,
}

/// Outcome of a check that reads a configuration, when only that request failed. An ordinary target does not need it.
/// `None` if the failure concerns every request.
pub(super) fn unknown<T>(
    subject: Subject,
    failure: &S3Failure,
    location: &S3Location,
    immutable: bool,
) -> Option<Checked<T>> {
    let Subject { name, action } = subject;
    if failure.lacks_configuration() {
        return Some(if immutable {
            Checked::failed(finding!(
                Reason::NotImplemented,
                "{location} is declared immutable, and the service does not report its {name} ({failure}): declare the target not immutable, or use a service with object lock"
            ))
        } else {
            Checked::not_needed(format!("{NOT_REPORTED} ({failure})"))
        });
    }
    if !failure.may_concern_one_request() {
        return None;
    }
    if !immutable {
        return Some(Checked::not_needed(match failure.reason() {
            Reason::AccessDenied => format!("{location}: {failure}: grant the credentials {action} on it"),
            _ => format!("{location}: the service does not report its {name} ({failure}): check its log"),
        }));
    }
    let what = format!("{location} is declared immutable, and its {name} is not known ({failure})");
    let finding = if failure.is_missing_permission() {
        finding!(Reason::AccessDenied, "{what}: grant the credentials {action} on it")
    } else {
        finding!(
            failure.reason_of_one_request(),
            "{what}: look up this request in the logs of the service and of any proxy in front of it. If the service has no object lock, use one that has it, or declare the target not immutable"
        )
    };
    Some(if failure.is_timeout() { Checked::timed_out(finding) } else { Checked::failed(finding) })
}

enum Reached {
    WithUsage(BucketUsage),
    HeadRefused(S3Failure),
}

async fn reach(api: &dyn BucketApi, prefix: &str) -> Result<Reached, S3Failure> {
    let refused = match api.head_bucket().await {
        Ok(usage) => return Ok(Reached::WithUsage(usage)),
        Err(failure @ S3Failure::ConnectionBroken(_)) => failure,
        Err(failure) if failure.lacks_code() => failure,
        Err(failure) => return Err(failure),
    };
    let explained = match api.list_below(prefix).await {
        Ok(()) if is_of_the_head_alone(&refused) => return Ok(Reached::HeadRefused(refused)),
        Ok(()) => return Err(refused),
        Err(failure) => failure.or_region_of(&refused).of_a_get(),
    };
    match (refused.reason(), explained.reason()) {
        // Neither answer shows whether the bucket exists.
        (
            Reason::AccessDenied
            | Reason::NotImplemented
            | Reason::NotS3
            | Reason::ServerError
            | Reason::ConnectionBroken,
            Reason::AccessDenied | Reason::NotImplemented | Reason::RequestRefused,
        ) => {}
        // The status of the HEAD explains nothing, but the GET has a code.
        (Reason::NotS3, _) => return Err(explained),
        (_, _) if refused.status() == explained.status() && !explained.lacks_code() => return Err(explained),
        // Missing permissions do not explain another kind of failure.
        (_, Reason::AccessDenied) => return Err(refused),
        _ => return Err(explained),
    }
    // Credentials that have expired are refused for every request.
    if explained.has_expired_credentials() {
        return Err(explained);
    }
    if api.bucket_location().await.is_ok() || api.versioning().await.is_ok() {
        return Ok(Reached::HeadRefused(refused));
    }
    Err(explained)
}

/// Whether this refusal may concern only HEAD, so that the bucket may still answer other requests. A redirect leads to
/// another bucket.
fn is_of_the_head_alone(refused: &S3Failure) -> bool {
    refused.may_concern_one_request() && !matches!(refused.reason(), Reason::Redirected | Reason::WrongRegion)
}

/// Whether a service that refused every other request may still accept objects. It must have answered with a code of
/// S3. Otherwise the answer may come from a web server, or from a proxy in front of a service that is down.
fn may_still_write(failure: &S3Failure) -> bool {
    let may_serve_objects = matches!(
        failure.reason(),
        Reason::NotImplemented | Reason::ServerError | Reason::Throttled | Reason::RequestRefused
    );
    failure.denies_permission() || (may_serve_objects && !failure.lacks_code())
}

fn head_refused(refused: &S3Failure, location: &S3Location) -> Finding {
    let reason = refused.reason();
    if matches!(reason, Reason::ServerError | Reason::Throttled | Reason::ConnectionBroken) {
        return finding!(
            reason,
            "{location} answers other requests, and HEAD failed ({refused}), so the usage of the bucket is unknown: check the logs of the service and of any proxy in front of it"
        );
    }
    if refused.reason() == Reason::AccessDenied {
        return finding!(
            Reason::AccessDenied,
            "{location} exists and the service knows the credentials, but refuses HEAD, so the usage of the bucket is unknown: grant them s3:ListBucket on it"
        );
    }
    finding!(
        Reason::NotImplemented,
        "{location} exists, but the service does not answer HEAD as S3 does ({refused}), so the usage of the bucket is unknown: check that the service's version supports HEAD, or that no proxy refuses it"
    )
}

fn clock_difference(usage: &BucketUsage, location: &S3Location) -> Option<Finding> {
    let ahead = usage.clock_ahead_seconds.filter(|ahead| ahead.saturating_abs() >= CLOCK_DIFFERENCE_WARNING_SECONDS)?;
    Some(finding!(
        Reason::ClockSkewed,
        "{location}: the service's clock is {}, and from 15 minutes on it refuses every request: correct the clock that is wrong (`chronyc tracking` or `timedatectl` on either host)",
        clock_words(ahead)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fake::FakeBucket;
    use crate::model::Outcome;

    async fn checked(fake: &FakeBucket) -> Checked<FoundBucket> {
        bucket(fake, &fake.location(), "canaries/", false, Duration::from_millis(100)).await
    }

    #[tokio::test]
    async fn canary_decides_when_known_credentials_are_refused_everything() {
        let denied = S3Failure::service(403, Some("AccessDenied"), None);
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(403, None, None));
        (fake.location, fake.versioning) = (Err(denied.clone()), Err(denied.clone()));
        for (list, unless_written) in [
            (denied.clone(), Some(denied)),
            (S3Failure::service(403, Some("SignatureDoesNotMatch"), None), None),
            (S3Failure::service(400, Some("ExpiredToken"), None), None),
            (S3Failure::service(403, Some("ExpiredToken"), None), None),
            (S3Failure::service(404, Some("NoSuchBucket"), None), None),
            // A web server.
            (S3Failure::service(403, None, None), None),
        ] {
            fake.list = Err(list.clone());
            assert_eq!(checked(&fake).await.outcome(), Outcome::Failed, "{list}");
            let decided = bucket(&fake, &fake.location(), "canaries/", true, Duration::from_millis(100)).await;
            let outcome = if unless_written.is_some() { Outcome::Passed } else { Outcome::Failed };
            assert_eq!(decided.outcome(), outcome, "{list}");
            let found = decided.into_fact::<()>().unwrap_or_default();
            assert_eq!(found.unless_written, unless_written, "{list}");
        }
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
    async fn not_found_by_a_web_server_is_not_a_missing_bucket() {
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
    async fn bucket_passes_with_a_warning_when_only_head_is_not_answered() {
        for (head, reason) in [
            (S3Failure::service(400, None, None), Reason::NotImplemented),
            (S3Failure::service(401, None, None), Reason::AccessDenied),
            (S3Failure::service(403, None, None), Reason::AccessDenied),
            (S3Failure::service(404, None, None), Reason::NotImplemented),
            (S3Failure::service(405, None, None), Reason::NotImplemented),
            (S3Failure::service(501, None, None), Reason::NotImplemented),
            (S3Failure::WebPage, Reason::NotImplemented),
        ] {
            let mut fake = FakeBucket::healthy();
            fake.head = Err(head.clone());
            let by_list = checked(&fake).await;
            assert_eq!((by_list.outcome(), by_list.reason()), (Outcome::Passed, Some(reason)), "{head}");
            // The location of the bucket is the other request.
            if head.reason() != Reason::BucketNotFound && head != S3Failure::WebPage {
                fake.list = Err(S3Failure::service(501, Some("NotImplemented"), None));
                assert_eq!(checked(&fake).await.outcome(), Outcome::Passed, "{head}");
            }
        }
    }

    #[tokio::test]
    async fn web_page_is_not_a_bucket() {
        let mut fake = FakeBucket::healthy();
        (fake.head, fake.list) = (Err(S3Failure::WebPage), Err(S3Failure::WebPage));
        let checked = checked(&fake).await;
        assert_eq!(checked.reason(), Some(Reason::NotS3));
        assert!(checked.finding().is_some_and(|finding| finding.message.contains("web page")), "{checked:?}");
    }

    #[tokio::test]
    async fn get_explains_a_head_whose_answer_names_a_region() {
        let mut fake = FakeBucket::healthy();
        fake.head = Err(S3Failure::service(400, None, Some("us-east-1")));
        for (code, reason) in
            [("ExpiredToken", Reason::AccessDenied), ("AuthorizationHeaderMalformed", Reason::WrongRegion)]
        {
            fake.list = Err(S3Failure::service(400, Some(code), None));
            assert_eq!(checked(&fake).await.reason(), Some(reason), "{code}");
        }
    }

    #[tokio::test]
    async fn server_error_of_head_is_a_warning_when_the_bucket_answers_otherwise() {
        let mut fake = FakeBucket::healthy();
        for (head, reason) in [
            (S3Failure::service(500, None, None), Reason::ServerError),
            (S3Failure::service(502, None, None), Reason::ServerError),
            (S3Failure::service(503, None, None), Reason::ServerError),
            (S3Failure::ConnectionBroken("reset".to_owned()), Reason::ConnectionBroken),
        ] {
            fake.head = Err(head.clone());
            for list in [
                Ok(()),
                Err(S3Failure::service(403, Some("AccessDenied"), None)),
                Err(S3Failure::service(501, Some("NotImplemented"), None)),
            ] {
                fake.list = list;
                let checked = checked(&fake).await;
                assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(reason)), "{checked:?}");
                let message = &checked.finding().expect("a warning").message;
                assert!(message.contains("HEAD") && !message.contains("grant"), "{message}");
            }
        }
    }

    #[tokio::test]
    async fn canary_decides_when_head_and_the_other_requests_fail() {
        let service = |status, code| S3Failure::service(status, code, None);
        let mut fake = FakeBucket::healthy();
        for (head, others, is_decided) in [
            (405, service(501, Some("NotImplemented")), true),
            (501, service(501, Some("NotImplemented")), true),
            (500, service(500, Some("InternalError")), true),
            (500, service(403, Some("AccessDenied")), true),
            (503, service(503, Some("SlowDown")), true),
            (403, service(500, Some("InternalError")), true),
            (403, service(400, Some("InvalidArgument")), true),
            (403, service(403, Some("Weird")), true),
            // The answer of a proxy or of a web server.
            (503, service(503, None), false),
            (501, service(501, None), false),
            (405, service(405, None), false),
            (500, service(403, Some("InvalidAccessKeyId")), false),
            (500, service(404, Some("NoSuchBucket")), false),
            (500, S3Failure::TimedOut(Duration::from_millis(100)), false),
            (500, S3Failure::ConnectionRefused, false),
        ] {
            fake.head = Err(service(head, None));
            (fake.list, fake.location, fake.versioning) =
                (Err(others.clone()), Err(others.clone()), Err(others.clone()));
            let alone = checked(&fake).await;
            assert!(matches!(alone.outcome(), Outcome::Failed | Outcome::TimedOut), "{head} {others}");
            let decided = bucket(&fake, &fake.location(), "canaries/", true, Duration::from_millis(100)).await;
            assert_eq!(decided.outcome() == Outcome::Passed, is_decided, "{head} {others}: {decided:?}");
            let found = decided.into_fact::<()>().unwrap_or_default();
            assert_eq!(found.unless_written.is_some(), is_decided, "{head} {others}");
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
