//! Why a call to an S3 service gave no answer that can be used, and what to do about it.
//!
//! The codes are those of the Amazon S3 API reference ("Error responses") and of Ceph's RADOS
//! Gateway (`rgw_common.cc`). The message that a service sends is not repeated: it may echo the
//! string that was signed. The code is, cut to [`CODE_LIMIT_BYTES`].

use std::time::Duration;

pub use super::certificate::CertificateFault;
use crate::model::report::Finding;
use crate::model::{Reason, S3Location};

/// The longest service code that is shown, in bytes; known codes have at most 43.
pub const CODE_LIMIT_BYTES: usize = 64;

/// The longest address of a redirect that is shown, in bytes.
pub const URL_LIMIT_BYTES: usize = 256;

/// The codes of a request whose time the service does not accept.
const SKEWED: [&str; 2] = ["RequestTimeTooSkewed", "RequestExpired"];

/// The codes of credentials that were good once.
const EXPIRED: [&str; 2] = ["ExpiredToken", "TokenRefreshRequired"];

/// Why a call gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum S3Failure {
    /// The service answered and refused.
    #[error("the service answered {status}{}{}", spaced(.code), clock_apart(*.clock_ahead_seconds, .code))]
    Service {
        /// The HTTP status.
        status: u16,
        /// The service's error code; a refused HEAD has none.
        code: Option<String>,
        /// The region that the service names instead (`x-amz-bucket-region`).
        region: Option<String>,
        /// Whether its message speaks of a lock: some refuse with a code that says nothing.
        names_lock: bool,
        /// Where a redirect leads, without query (`Location`).
        leads_to: Option<String>,
        /// How far the service's clock is ahead of this host's (`Date`), in seconds.
        clock_ahead_seconds: Option<i64>,
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
    /// The server's certificate is not good for this endpoint, here and now.
    #[error("TLS failed: {0}")]
    Certificate(CertificateFault),
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
        Self::Service {
            status,
            code: code.and_then(shown),
            region: region.and_then(shown),
            names_lock: false,
            leads_to: None,
            clock_ahead_seconds: None,
        }
    }

    /// The same, with what the service's message says of a lock and, where no header does, of the
    /// region. The message itself is not kept.
    #[must_use]
    pub fn with_message(mut self, message: &str) -> Self {
        if let Self::Service { code, region, names_lock, .. } = &mut self {
            if region.is_none() && code.as_deref() == Some("AuthorizationHeaderMalformed") {
                *region = expected_region(message);
            }
            let message = message.to_ascii_lowercase();
            *names_lock = ["worm", "object lock", "locked", "retention"].iter().any(|word| message.contains(word));
        }
        self
    }

    /// The same, with what headers of the answer tell: the service's clock, and where a redirect leads.
    #[must_use]
    pub fn with_headers(mut self, ahead_seconds: Option<i64>, location: Option<&str>) -> Self {
        if let Self::Service { leads_to, clock_ahead_seconds, .. } = &mut self {
            *clock_ahead_seconds = ahead_seconds;
            // Its query may hold a signature.
            let shown = location.and_then(|location| location.split(['?', '#']).next());
            let shown: String =
                shown.unwrap_or_default().chars().filter(char::is_ascii_graphic).take(URL_LIMIT_BYTES).collect();
            *leads_to = (!shown.is_empty()).then_some(shown);
        }
        self
    }

    /// The same, with the region that another answer of the service named, unless this one did.
    #[must_use]
    pub fn or_region_of(mut self, other: &Self) -> Self {
        if let (Self::Service { region: region @ None, .. }, Self::Service { region: Some(named), .. }) =
            (&mut self, other)
        {
            *region = Some(named.clone());
        }
        self
    }

    /// Whether it is an answer without a code, as every one to a HEAD that did not succeed is.
    #[must_use]
    pub fn lacks_code(&self) -> bool {
        matches!(self, Self::Service { code: None, .. })
    }

    /// What it is as the answer to a GET: there every S3 service gives its refusals a code, and one
    /// without is the word of some other web server. What busy or broken ones say is taken from them too.
    #[must_use]
    pub fn of_a_get(self) -> Self {
        match self {
            Self::Service { code: None, status: 400..=428 | 430..=499, .. } => {
                Self::NotS3(format!("{self} without an error code, which S3 always gives"))
            }
            other => other,
        }
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
        let Self::Service { status, .. } = self else { return false };
        match self.reason() {
            Reason::AccessDenied => !self.has_expired_credentials() && matches!(status, 401 | 403),
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
            Self::Tls(_) | Self::Certificate(_) => Reason::TlsFailed,
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

    /// Whether it is refused since the credentials have expired, which renewed ones are not.
    #[must_use]
    pub fn has_expired_credentials(&self) -> bool {
        matches!(self, Self::Service { code: Some(code), .. } if EXPIRED.contains(&code.as_str()))
    }
}

/// The region in the words of AWS and MinIO: `the region 'a' is wrong; expecting 'b'`.
fn expected_region(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("expecting '")?;
    let (region, _) = rest.split_once('\'')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!region.is_empty() && region.len() <= CODE_LIMIT_BYTES && region.bytes().all(is_name)).then(|| region.to_owned())
}

fn spaced(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(" {code}")).unwrap_or_default()
}

/// How the clocks differ, where that is what the service complains of.
fn clock_apart(ahead: Option<i64>, code: &Option<String>) -> String {
    match ahead {
        Some(ahead) if code.as_deref().is_some_and(|code| SKEWED.contains(&code)) => {
            format!(", and its clock is {}", clock_words(ahead))
        }
        _ => String::new(),
    }
}

/// `90 s behind this host's`.
#[must_use]
pub fn clock_words(ahead_seconds: i64) -> String {
    let direction = if ahead_seconds > 0 { "ahead of" } else { "behind" };
    format!("{} s {direction} this host's", ahead_seconds.saturating_abs())
}

fn service_reason(status: u16, code: Option<&str>, names_region: bool) -> Reason {
    match code.unwrap_or_default() {
        "SignatureDoesNotMatch" => Reason::WrongSecret,
        "InvalidAccessKeyId" | "InvalidToken" => Reason::UnknownAccessKey,
        "UserSuspended" => Reason::UserSuspended,
        code if SKEWED.contains(&code) => Reason::ClockSkewed,
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
    fn the_sentence_tells_the_region_of_the_message_and_how_clocks_differ() {
        let location = S3Location::parse("https://s3.example.com/backups").expect("location");
        let wrong_region = S3Failure::service(400, Some("AuthorizationHeaderMalformed"), None)
            .with_message("the region 'us-east-1' is wrong; expecting 'eu-west-1'");
        assert!(wrong_region.finding(&location).message.contains("region = \"eu-west-1\""), "{wrong_region}");
        for (message, region) in [("expecting ''", None), ("expecting 'a b'", None), ("expecting 'x", None)] {
            assert_eq!(expected_region(message), region, "{message}");
        }
        for (ahead, words) in [(960, "960 s ahead of this host's"), (-960, "960 s behind this host's")] {
            let skewed = S3Failure::service(403, Some("RequestTimeTooSkewed"), None).with_headers(Some(ahead), None);
            assert!(skewed.to_string().contains(words), "{skewed}");
        }
    }

    #[test]
    fn a_redirect_is_told_without_its_query_and_cannot_write_into_a_terminal() {
        let redirect =
            S3Failure::service(307, None, None).with_headers(None, Some("http://b\u{1b}/c?X-Amz-Signature=1"));
        let sentence =
            redirect.finding(&S3Location::parse("https://s3.example.com/backups").expect("location")).message;
        assert!(sentence.contains("it sends to http://b/c;"), "{sentence}");
    }

    #[test]
    fn a_code_is_cut_and_cannot_write_into_a_terminal() {
        let failure = S3Failure::service(400, Some(&format!("\u{1b}[31m{}", "x".repeat(500))), None);
        let shown = failure.to_string();
        assert!(shown.len() < 100 && !shown.contains('\u{1b}'), "{shown}");
    }
}
