//! Why a call to an S3 service gave no answer that can be used, and what to do about it.
//!
//! The codes are those of the Amazon S3 API reference ("Error responses") and of Ceph's RADOS
//! Gateway (`rgw_common.cc`). The message that a service sends is not repeated: it may echo the
//! string that was signed. The code is, cut to [`CODE_LIMIT_BYTES`].

use std::time::Duration;

use crate::model::report::Finding;
use crate::model::{Reason, S3Location};

/// The longest service code that is shown, in bytes; known codes have at most 43.
pub const CODE_LIMIT_BYTES: usize = 64;

/// Why a call gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum S3Failure {
    /// The service answered and refused.
    #[error("the service answered {status}{}", .code.as_ref().map(|code| format!(" {code}")).unwrap_or_default())]
    Service {
        /// The HTTP status.
        status: u16,
        /// The service's error code; a refused HEAD has none.
        code: Option<String>,
        /// The region that the service names instead (`x-amz-bucket-region`).
        region: Option<String>,
        /// Whether its message speaks of a lock: some refuse with a code that says nothing.
        names_lock: bool,
    },
    /// No whole answer within the time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The host name has no address.
    #[error("the host name was not resolved: {0}")]
    NameNotResolved(String),
    /// Nothing listens there.
    #[error("the connection was refused")]
    ConnectionRefused,
    /// There is no way to the host.
    #[error("the host cannot be reached: {0}")]
    HostUnreachable(String),
    /// TLS could not be set up with the server, or the trusted authorities not be read.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The connection broke before the answer was whole.
    #[error("the connection broke: {0}")]
    ConnectionBroken(String),
    /// The answer is not one of S3, or longer than one of these calls can be.
    #[error("the answer is not S3: {0}")]
    NotS3(String),
    /// No credentials were found where the configuration says they are.
    #[error("no credentials: {0}")]
    NoCredentials(String),
    /// The request could not be made at all.
    #[error("the request could not be made: {0}")]
    Agent(String),
}

impl S3Failure {
    /// A refusal, its code made fit to be shown.
    #[must_use]
    pub fn service(status: u16, code: Option<&str>, region: Option<&str>) -> Self {
        let shown = |text: &str| -> Option<String> {
            let text: String = text.chars().filter(char::is_ascii_graphic).take(CODE_LIMIT_BYTES).collect();
            (!text.is_empty()).then_some(text)
        };
        Self::Service { status, code: code.and_then(shown), region: region.and_then(shown), names_lock: false }
    }

    /// The same, with what the service's message says of a lock. The message itself is not kept.
    #[must_use]
    pub fn with_message(self, message: &str) -> Self {
        let message = message.to_ascii_lowercase();
        let speaks = ["worm", "object lock", "locked", "retention"].iter().any(|word| message.contains(word));
        match self {
            Self::Service { status, code, region, .. } => Self::Service { status, code, region, names_lock: speaks },
            other => other,
        }
    }

    /// Whether it is a refusal without a code, as every refused HEAD is.
    #[must_use]
    pub fn lacks_code(&self) -> bool {
        matches!(self, Self::Service { code: None, status: 400..=499, .. })
    }

    /// Whether no answer came in time: it may be wrong, or slow.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }

    /// Whether the service understood the question and declined to answer it, which says nothing
    /// about the bucket itself.
    #[must_use]
    pub fn is_refusal_to_tell(&self) -> bool {
        matches!(self.reason(), Reason::AccessDenied | Reason::NotImplemented)
    }

    /// Whether it says that the object or version is not there.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let Self::Service { status: 404, code, .. } = self else { return false };
        matches!(code.as_deref(), None | Some("NotFound" | "NoSuchKey" | "NoSuchVersion"))
    }

    /// Whether the service understood what was asked, knows who asked, and will not do it. A code that
    /// is not known says nothing of the kind: it may pass by itself.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Service { status, code, .. } = self else { return false };
        let is_known = !matches!(code.as_deref(), Some("ExpiredToken" | "TokenRefreshRequired"));
        match self.reason() {
            Reason::AccessDenied => is_known && matches!(status, 401 | 403),
            Reason::NotImplemented => matches!(status, 400..=499 | 501),
            Reason::ObjectLockMissing => true,
            _ => false,
        }
    }

    /// Whether it is how services refuse a DELETE of what is locked: as a lack of permission (AWS, Ceph),
    /// or in words of their own (MinIO and Dell ECS among them). Nothing else is taken for a lock.
    #[must_use]
    pub fn is_lock_refusal(&self) -> bool {
        let Self::Service { status, code: Some(code), names_lock, .. } = self else { return false };
        match (status, code.as_str()) {
            (403, "AccessDenied") => true,
            (400..=499, "ObjectLocked" | "ObjectUnderRetention") => true,
            (400, "InvalidRequest") => *names_lock,
            _ => false,
        }
    }

    /// The reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Service { status, code, region, .. } => service_reason(*status, code.as_deref(), region.is_some()),
            Self::TimedOut(_) => Reason::ResponseTimedOut,
            Self::NameNotResolved(_) => Reason::NameNotResolved,
            Self::ConnectionRefused => Reason::ConnectionRefused,
            Self::HostUnreachable(_) => Reason::HostUnreachable,
            Self::Tls(_) => Reason::TlsFailed,
            Self::ConnectionBroken(_) => Reason::ConnectionBroken,
            Self::NotS3(_) => Reason::NotS3,
            Self::NoCredentials(_) => Reason::NoCredentials,
            Self::Agent(_) => Reason::AgentError,
        }
    }

    /// The reason with a sentence about this bucket that says what to do.
    #[must_use]
    pub fn finding(&self, location: &S3Location) -> Finding {
        let reason = self.reason();
        Finding::new(reason, format!("{location}: {self}; {}", self.remedy(reason)))
    }

    fn remedy(&self, reason: Reason) -> String {
        let fixed = match reason {
            Reason::WrongRegion => {
                let Self::Service { region: Some(region), .. } = self else {
                    return "set region in the [[s3.credentials]] entry of this bucket to the one it is in".to_owned();
                };
                return format!(
                    "the bucket is in region {region}: set region = \"{region}\" in its [[s3.credentials]] entry"
                );
            }
            Reason::WrongSecret => "the secret does not belong to the access key: correct the secret access key",
            Reason::UnknownAccessKey => "the service does not know the access key: correct or renew the credentials",
            Reason::UserSuspended => "the user of the access key is suspended: ask the service's administrator",
            Reason::ClockSkewed => "correct the clock of this host or of the service (NTP)",
            Reason::BucketNotFound => "create the bucket, or correct its name",
            Reason::AccessDenied => {
                "grant the credentials s3:ListBucket, s3:GetBucketLocation, s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration on it"
            }
            Reason::Redirected => "redirects are not followed: give the endpoint that the bucket is really at",
            Reason::Throttled => "the service asks for fewer requests: raise [probe] s3_interval",
            Reason::QuotaExceeded => "raise the quota or remove backups",
            Reason::NotImplemented => "the service does not offer this call",
            Reason::ServerError => "look at the service's own log",
            Reason::NotS3 => "check that the endpoint is that of an S3 service, and its port",
            Reason::ResponseTimedOut => "the service accepts connections but did not answer: look at its health",
            Reason::NameNotResolved => "check the endpoint's name, and DNS on this host",
            Reason::ConnectionRefused => "start the service, or correct the port",
            Reason::HostUnreachable => "check this host's routes and that the server is up",
            Reason::TlsFailed => {
                "check the server's certificate, and ca_bundle in the [[s3.credentials]] entry; use http:// if it does not speak TLS"
            }
            Reason::ConnectionBroken => "look at the service and at what is between: proxies, firewalls, TLS or plain",
            Reason::NoCredentials => "give the bucket a [[s3.credentials]] entry, or correct the one it has",
            _ => "this is a fault of the agent or its configuration",
        };
        fixed.to_owned()
    }
}

fn service_reason(status: u16, code: Option<&str>, names_region: bool) -> Reason {
    match code.unwrap_or_default() {
        "SignatureDoesNotMatch" => Reason::WrongSecret,
        "InvalidAccessKeyId" | "InvalidToken" => Reason::UnknownAccessKey,
        "UserSuspended" => Reason::UserSuspended,
        "RequestTimeTooSkewed" | "RequestExpired" => Reason::ClockSkewed,
        "NoSuchBucket" => Reason::BucketNotFound,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "ExpiredToken" | "TokenRefreshRequired" => {
            Reason::AccessDenied
        }
        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => Reason::WrongRegion,
        "PermanentRedirect" | "TemporaryRedirect" | "IncorrectEndpoint" if names_region => Reason::WrongRegion,
        "PermanentRedirect" | "TemporaryRedirect" | "Redirect" | "IncorrectEndpoint" => Reason::Redirected,
        "SlowDown"
        | "ServiceUnavailable"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "Throttling"
        | "ThrottlingException" => Reason::Throttled,
        "QuotaExceeded" => Reason::QuotaExceeded,
        "NotImplemented" | "MethodNotAllowed" => Reason::NotImplemented,
        "InternalError" => Reason::ServerError,
        "ObjectLockConfigurationNotFoundError" => Reason::ObjectLockMissing,
        code => match status {
            300..=400 if names_region => Reason::WrongRegion,
            300..=399 => Reason::Redirected,
            401 | 403 => Reason::AccessDenied,
            // Without a code it is the word of some web server, unless HEAD was asked.
            404 => Reason::BucketNotFound,
            405 | 501 => Reason::NotImplemented,
            429 => Reason::Throttled,
            500..=599 => Reason::ServerError,
            _ if code.is_empty() => Reason::NotS3,
            _ => Reason::AccessDenied,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_field_has_its_reason() {
        for (status, code, region, reason) in [
            (403, Some("SignatureDoesNotMatch"), None, Reason::WrongSecret),
            (403, Some("InvalidAccessKeyId"), None, Reason::UnknownAccessKey),
            (403, Some("UserSuspended"), None, Reason::UserSuspended),
            (403, Some("RequestTimeTooSkewed"), None, Reason::ClockSkewed),
            (404, Some("NoSuchBucket"), None, Reason::BucketNotFound),
            (404, Some("ObjectLockConfigurationNotFoundError"), None, Reason::ObjectLockMissing),
            (403, Some("AccessDenied"), None, Reason::AccessDenied),
            (403, Some("QuotaExceeded"), None, Reason::QuotaExceeded),
            (301, Some("PermanentRedirect"), Some("eu-west-1"), Reason::WrongRegion),
            (301, Some("PermanentRedirect"), None, Reason::Redirected),
            (301, None, Some("eu-west-1"), Reason::WrongRegion),
            (400, Some("AuthorizationHeaderMalformed"), None, Reason::WrongRegion),
            (307, Some("TemporaryRedirect"), None, Reason::Redirected),
            (302, None, None, Reason::Redirected),
            (503, Some("SlowDown"), None, Reason::Throttled),
            (501, Some("NotImplemented"), None, Reason::NotImplemented),
            (500, Some("InternalError"), None, Reason::ServerError),
            (502, None, None, Reason::ServerError),
            (403, None, None, Reason::AccessDenied),
            (404, None, None, Reason::BucketNotFound),
            (400, None, None, Reason::NotS3),
        ] {
            assert_eq!(S3Failure::service(status, code, region).reason(), reason, "{status} {code:?} {region:?}");
        }
    }

    #[test]
    fn only_what_services_say_of_a_lock_is_taken_for_one() {
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
            let failure = S3Failure::service(status, code, None).with_message(message);
            assert_eq!((failure.is_lock_refusal(), failure.is_refusal()), (is_lock, is_refusal), "{failure}");
        }
    }

    #[test]
    fn the_sentence_names_the_bucket_the_code_and_the_region_to_set() {
        let location = S3Location::parse("https://s3.example.com/backups").expect("location");
        let message = S3Failure::service(301, Some("PermanentRedirect"), Some("eu-west-1")).finding(&location).message;
        for part in ["s3.example.com/backups", "301 PermanentRedirect", "region = \"eu-west-1\""] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_code_is_cut_and_cannot_write_into_a_terminal() {
        let failure = S3Failure::service(400, Some(&format!("\u{1b}[31m{}", "x".repeat(500))), None);
        let shown = failure.to_string();
        assert!(shown.len() < 100 && !shown.contains('\u{1b}'), "{shown}");
    }
}
