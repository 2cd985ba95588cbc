//! Classes of failures: what one shows about the service, the credentials or a lock, and whether it will last.

use super::failure::S3Failure;
use super::refusal::MessageTopic;
use crate::model::Reason;

/// Codes for expired credentials.
const EXPIRED_CREDENTIAL_CODES: [&str; 2] = ["ExpiredToken", "TokenRefreshRequired"];

impl S3Failure {
    /// Returns whether the answer had no error code, as for every failed HEAD.
    #[must_use]
    pub fn lacks_code(&self) -> bool {
        matches!(self, Self::Service { code: None, .. } | Self::WebPage)
    }

    /// Returns whether no answer came in time. The service may be down or slow.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }

    /// Returns whether the failure may concern only this request. Some services sign parameters wrongly, redirect
    /// unknown ones, or close the connection. Credentials that are not valid and a host that cannot be reached concern
    /// every request for the bucket.
    #[must_use]
    pub fn may_concern_one_request(&self) -> bool {
        let concerns_every_request = matches!(
            self.reason(),
            Reason::UnknownAccessKey
                | Reason::UserSuspended
                | Reason::ClockSkewed
                | Reason::NoCredentials
                | Reason::NameNotResolved
                | Reason::ConnectionRefused
                | Reason::HostUnreachable
                | Reason::TlsFailed
                | Reason::AgentError
        );
        !concerns_every_request && !self.has_expired_credentials()
    }

    /// Returns the reason of a failure that concerns only this request, although the service serves the bucket to these
    /// credentials. So the cause is neither the secret, the region nor the name of the bucket.
    #[must_use]
    pub fn reason_of_one_request(&self) -> Reason {
        match self.reason() {
            Reason::WrongSecret
            | Reason::WrongRegion
            | Reason::Redirected
            | Reason::BucketNotFound
            | Reason::NotS3
            | Reason::ObjectLockMissing => Reason::NotImplemented,
            reason => reason,
        }
    }

    /// Returns whether a missing permission explains the failure.
    #[must_use]
    pub fn is_missing_permission(&self) -> bool {
        self.reason() == Reason::AccessDenied && self.is_refusal()
    }

    /// Returns whether the failed GET of a configuration shows that the service does not support this configuration.
    /// Such a service refuses the parameter, or answers with another document: Swift before 2.33 answers `?object-lock`
    /// with a listing.
    #[must_use]
    pub fn lacks_configuration(&self) -> bool {
        match self {
            Self::WebPage | Self::NotS3(_) => true,
            Self::Service { status: 200 | 400 | 404 | 405 | 501, .. } if !self.has_expired_credentials() => matches!(
                self.reason(),
                Reason::NotImplemented
                    | Reason::BucketNotFound
                    | Reason::ObjectLockMissing
                    | Reason::AccessDenied
                    | Reason::RequestRefused
                    | Reason::NotS3
            ),
            _ => false,
        }
    }

    /// Returns whether the service is overloaded or broken, which is usually temporary.
    #[must_use]
    pub fn is_server_trouble(&self) -> bool {
        matches!(self.reason(), Reason::ServerError | Reason::Throttled)
    }

    /// Returns whether the object or version does not exist.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let Self::Service { status: 404, code, .. } = self else { return false };
        matches!(code.as_deref(), None | Some("NotFound" | "NoSuchKey" | "NoSuchVersion"))
    }

    /// Returns whether the service understood and authenticated the request, and denied it. An unknown code counts only
    /// with a status for a denial, because its cause may be temporary.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Service { status, .. } = self else { return false };
        match self.reason() {
            Reason::AccessDenied => !self.has_expired_credentials() && matches!(status, 401 | 403),
            Reason::RequestRefused => matches!(status, 401 | 403),
            Reason::NotImplemented => matches!(status, 400..=499 | 501),
            Reason::ObjectLockMissing => true,
            _ => false,
        }
    }

    /// Returns whether the service knows the credentials, and denies them a permission.
    #[must_use]
    pub fn denies_permission(&self) -> bool {
        self.is_refusal() && self.has_code(&["AccessDenied"])
    }

    /// Returns whether services refuse the DELETE of a locked version this way. AWS and Ceph send the code for a
    /// missing permission. MinIO, Dell ECS and others send a special code. Nothing else counts as a lock.
    #[must_use]
    pub fn is_lock_refusal(&self) -> bool {
        let Self::Service { status, code: Some(code), topic, .. } = self else { return false };
        match (status, code.as_str()) {
            (403, "AccessDenied") => true,
            (400..=499, "ObjectLocked" | "ObjectUnderRetention") => true,
            (400, "InvalidRequest") => *topic == Some(MessageTopic::Lock),
            _ => false,
        }
    }

    /// Returns whether the service answered and will not accept the same request later. It may accept it after a
    /// timeout, a conflict or server trouble, and once expired credentials are renewed.
    #[must_use]
    pub fn is_final_refusal(&self) -> bool {
        let Self::Service { status, code, .. } = self else { return false };
        let is_temporary = matches!(status, 408 | 409) || code.as_deref() == Some("RequestTimeout");
        !is_temporary && !self.is_server_trouble() && !self.has_expired_credentials()
    }

    /// Returns whether the service refused a PUT because of its retention, according to the code or the message: it is
    /// invalid, or a policy does not allow it. AWS and others refuse a retention that is shorter than a policy demands.
    #[must_use]
    pub fn refuses_the_retention(&self) -> bool {
        let is_about_lock = matches!(self, Self::Service { topic: Some(MessageTopic::Lock), .. });
        is_about_lock && (self.is_refusal() || self.will_never_be_accepted())
    }

    /// Returns whether the service refused a PUT with a retention in a way that may concern only the retention, and the
    /// answer need not say so. Whether it accepts a PUT without a retention tells.
    #[must_use]
    pub fn may_concern_the_retention(&self) -> bool {
        let Self::Service { status, .. } = self else { return false };
        let is_temporary = *status == 408 || self.has_code(&["RequestTimeout", "OperationAborted"]);
        let concerns_every_put = *status == 405
            || self.has_code(&["NoSuchBucket"])
            || matches!(
                self.reason(),
                Reason::QuotaExceeded
                    | Reason::StorageFull
                    | Reason::Throttled
                    | Reason::WrongSecret
                    | Reason::WrongRegion
            );
        matches!(status, 400..=499 | 501)
            && self.may_concern_one_request()
            && !(is_temporary || concerns_every_put || self.is_digest_refusal())
    }

    /// Returns whether the service refused a PUT with a retention because the bucket, or the service, has no object
    /// lock.
    #[must_use]
    pub fn denies_object_lock(&self) -> bool {
        let Self::Service { status, topic, .. } = self else { return false };
        let is_told = matches!(status, 400..=499) && *topic == Some(MessageTopic::NoLock);
        is_told || self.reason() == Reason::ObjectLockMissing || *status == 501
    }

    /// Returns whether the service refused this PUT, and may accept one with other headers or permissions. It says
    /// nothing about other PUTs, unlike full storage or a service that is down.
    #[must_use]
    pub fn is_about_the_put(&self) -> bool {
        matches!(
            self.reason(),
            Reason::AccessDenied | Reason::RequestRefused | Reason::NotImplemented | Reason::ObjectLockMissing
        ) && self.is_final_refusal()
    }

    /// Returns whether a PUT that was answered this way will not be applied later.
    #[must_use]
    pub fn stored_nothing(&self) -> bool {
        self.is_final_refusal() && matches!(self.status(), Some(400..=499 | 501 | 507))
    }

    /// Returns whether the service will never accept this request, for a reason other than a missing permission.
    #[must_use]
    pub fn will_never_be_accepted(&self) -> bool {
        matches!(self.reason(), Reason::RequestRefused | Reason::NotImplemented) && self.is_final_refusal()
    }

    /// Returns whether the service refused the digest of a request, which says nothing about the request itself.
    #[must_use]
    pub fn is_digest_refusal(&self) -> bool {
        self.has_code(&["MissingContentMD5", "InvalidDigest", "BadDigest"])
    }

    /// Returns whether the credentials have expired.
    #[must_use]
    pub fn has_expired_credentials(&self) -> bool {
        self.has_code(&EXPIRED_CREDENTIAL_CODES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_refusal_is_recognized_by_known_codes_only() {
        for (status, code, message, is_lock, is_refusal) in [
            (403, Some("AccessDenied"), "", true, true),
            (400, Some("InvalidRequest"), "Object is WORM protected and cannot be overwritten", true, false),
            (400, Some("InvalidRequest"), "Missing required header", false, false),
            (409, Some("ObjectUnderRetention"), "", true, false),
            (403, None, "", false, true),
            (403, Some("ExpiredToken"), "", false, false),
            (403, Some("RequestTimeTooSkewed"), "", false, false),
            (400, Some("RequestTimeout"), "", false, false),
            (409, Some("OperationAborted"), "", false, false),
            (412, Some("PreconditionFailed"), "", false, false),
            (501, Some("NotImplemented"), "", false, true),
            (405, Some("MethodNotAllowed"), "", false, true),
            (500, Some("InternalError"), "the object lock is gone", false, false),
        ] {
            let failure = S3Failure::service(status, code, None).with_message(message, None);
            assert_eq!((failure.is_lock_refusal(), failure.is_refusal()), (is_lock, is_refusal), "{failure}");
        }
    }
}
