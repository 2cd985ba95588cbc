//! Failures of calls to S3 services, with their reasons and remedies.
//!
//! The codes are those of the Amazon S3 API reference ("Error responses") and of Ceph's RADOS
//! Gateway (`rgw_common.cc`). The code is shown, cut to [`CODE_LIMIT_BYTES`]. The message of the service is
//! not, because it may echo the string that was signed.

use std::time::Duration;

pub use super::certificate::CertificateFault;
use crate::model::report::Finding;
use crate::model::{Reason, S3Location};

/// Longest service code that is shown, in bytes. Known codes have at most 43.
pub const CODE_LIMIT_BYTES: usize = 64;

/// Longest redirect address that is shown, in bytes.
pub const URL_LIMIT_BYTES: usize = 256;

/// Codes for a request time that the service does not accept.
const CLOCK_SKEW_CODES: [&str; 2] = ["RequestTimeTooSkewed", "RequestExpired"];

/// Codes for expired credentials.
const EXPIRED_CREDENTIAL_CODES: [&str; 2] = ["ExpiredToken", "TokenRefreshRequired"];

/// Reason why a call gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum S3Failure {
    /// The service refused the request.
    #[error("the service answered {status}{}{}", with_space(.code), clock_difference(*.clock_ahead_seconds, .code))]
    Service {
        /// HTTP status.
        status: u16,
        /// Error code of the service. A refused HEAD has none.
        code: Option<String>,
        /// Region that the service names instead (`x-amz-bucket-region`).
        region: Option<String>,
        /// Whether its message mentions a lock. Some services refuse with an unspecific code.
        names_lock: bool,
        /// Redirect address (`Location`) without its query.
        leads_to: Option<String>,
        /// Offset of the service's clock (`Date`) from this host's, in seconds. Positive if it is ahead.
        clock_ahead_seconds: Option<i64>,
    },
    /// No complete answer before the deadline.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The host name has no address.
    #[error("the host name was not resolved: {0}")]
    NameNotResolved(String),
    /// No process listens on the port.
    #[error("the connection was refused")]
    ConnectionRefused,
    /// No route to the host.
    #[error("the host cannot be reached: {0}")]
    HostUnreachable(String),
    /// The TLS handshake failed, or the trusted authorities cannot be read.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The server's certificate is not valid for this endpoint.
    #[error("TLS failed: {0}")]
    Certificate(CertificateFault),
    /// The connection ended before the answer was complete.
    #[error("the connection broke: {0}")]
    ConnectionBroken(String),
    /// The answer is not an S3 answer, or exceeds the limit of the call.
    #[error("the answer is not S3: {0}")]
    NotS3(String),
    /// The configured source has no credentials.
    #[error("no credentials: {0}")]
    NoCredentials(String),
    /// The request could not be constructed.
    #[error("the request could not be built: {0}")]
    Agent(String),
}

impl S3Failure {
    /// Creates a refusal. Code and region are cut, and lose their control characters.
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

    /// Adds what the service's message says about a lock and, if no header does, about the region. Does not
    /// keep the message.
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

    /// Adds what headers of the answer say: the offset of the service's clock, and the redirect address.
    #[must_use]
    pub fn with_headers(mut self, ahead_seconds: Option<i64>, location: Option<&str>) -> Self {
        if let Self::Service { leads_to, clock_ahead_seconds, .. } = &mut self {
            *clock_ahead_seconds = ahead_seconds;
            // Its query may contain a signature.
            let shown = location.and_then(|location| location.split(['?', '#']).next());
            let shown: String =
                shown.unwrap_or_default().chars().filter(char::is_ascii_graphic).take(URL_LIMIT_BYTES).collect();
            *leads_to = (!shown.is_empty()).then_some(shown);
        }
        self
    }

    /// Adds the region that another answer of the service named, unless this one named one.
    #[must_use]
    pub fn or_region_of(mut self, other: &Self) -> Self {
        if let (Self::Service { region: region @ None, .. }, Self::Service { region: Some(named), .. }) =
            (&mut self, other)
        {
            *region = Some(named.clone());
        }
        self
    }

    /// Returns whether it is an answer without a code, as every failed HEAD is.
    #[must_use]
    pub fn lacks_code(&self) -> bool {
        matches!(self, Self::Service { code: None, .. })
    }

    /// Returns the failure as that of a GET. S3 services refuse a GET with a code, so a refusal
    /// without one comes from another web server. Answers of overloaded or broken proxies (429, 5xx) are kept.
    #[must_use]
    pub fn of_a_get(self) -> Self {
        match self {
            Self::Service { code: None, status: 400..=428 | 430..=499, .. } => {
                Self::NotS3(format!("{self} without an error code, which S3 always gives"))
            }
            other => other,
        }
    }

    /// Returns whether no answer came in time. The service may be down or slow.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }

    /// Returns whether the service refused to report a configuration. That says nothing about the bucket.
    #[must_use]
    pub fn is_refusal_to_tell(&self) -> bool {
        matches!(self.reason(), Reason::AccessDenied | Reason::NotImplemented)
    }

    /// Returns whether a GET of a configuration was answered as by a service that does not have this
    /// configuration: with an error for the parameter, or with another document. Swift before 2.33 answers
    /// `?object-lock` with a listing.
    #[must_use]
    pub fn lacks_configuration(&self) -> bool {
        match self {
            Self::NotS3(_) => true,
            Self::Service { status: 400 | 404 | 405 | 501, .. } if !self.has_expired_credentials() => matches!(
                self.reason(),
                Reason::NotImplemented
                    | Reason::BucketNotFound
                    | Reason::ObjectLockMissing
                    | Reason::AccessDenied
                    | Reason::NotS3
            ),
            _ => false,
        }
    }

    /// Returns whether the service is overloaded or broken, which is likely to pass.
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

    /// Returns whether the service understood and authenticated the request, and denied it. An unknown code
    /// does not count: its cause may be temporary.
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

    /// Returns whether a service refuses a DELETE of a locked version this way: as a lack of permission (AWS,
    /// Ceph), or with a code of its own (MinIO, Dell ECS and others). Nothing else counts as a lock.
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

    /// Returns whether the service answered and will not accept the same request later. It may after a timeout, a
    /// conflict, server trouble, or when expired credentials are renewed.
    #[must_use]
    pub fn is_final_refusal(&self) -> bool {
        let Self::Service { status, code, .. } = self else { return false };
        let is_temporary = matches!(status, 408 | 409) || code.as_deref() == Some("RequestTimeout");
        !is_temporary && !self.is_server_trouble() && !self.has_expired_credentials()
    }

    /// Returns the reason code.
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

    /// Returns the reason with a message that names the bucket and the remedy.
    #[must_use]
    pub fn finding(&self, location: &S3Location) -> Finding {
        let reason = self.reason();
        Finding::new(reason, format!("{location}: {self}; {}", self.remedy(reason)))
    }

    /// Returns whether the credentials have expired.
    #[must_use]
    pub fn has_expired_credentials(&self) -> bool {
        matches!(self, Self::Service { code: Some(code), .. } if EXPIRED_CREDENTIAL_CODES.contains(&code.as_str()))
    }
}

/// Returns the region in a message of AWS or MinIO: `the region 'a' is wrong; expecting 'b'`.
fn expected_region(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("expecting '")?;
    let (region, _) = rest.split_once('\'')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!region.is_empty() && region.len() <= CODE_LIMIT_BYTES && region.bytes().all(is_name)).then(|| region.to_owned())
}

fn with_space(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(" {code}")).unwrap_or_default()
}

/// Returns the clock difference, if the service refuses the request for it.
fn clock_difference(ahead: Option<i64>, code: &Option<String>) -> String {
    match ahead {
        Some(ahead) if code.as_deref().is_some_and(|code| CLOCK_SKEW_CODES.contains(&code)) => {
            format!(", and its clock is {}", clock_words(ahead))
        }
        _ => String::new(),
    }
}

/// Formats a clock offset, such as `90 s behind this host's`.
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
        code if CLOCK_SKEW_CODES.contains(&code) => Reason::ClockSkewed,
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
            // An answer without a code is from another web server, unless it answers a HEAD.
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
    fn service_code_maps_to_reason() {
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
            let failure = S3Failure::service(status, code, None).with_message(message);
            assert_eq!((failure.is_lock_refusal(), failure.is_refusal()), (is_lock, is_refusal), "{failure}");
        }
    }

    #[test]
    fn message_names_bucket_code_and_region() {
        let location = S3Location::parse("https://s3.example.com/backups").expect("location");
        let message = S3Failure::service(301, Some("PermanentRedirect"), Some("eu-west-1")).finding(&location).message;
        for part in ["s3.example.com/backups", "301 PermanentRedirect", "region = \"eu-west-1\""] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn message_names_region_and_clock_difference() {
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
    fn redirect_is_shown_without_query_and_control_characters() {
        let redirect =
            S3Failure::service(307, None, None).with_headers(None, Some("http://b\u{1b}/c?X-Amz-Signature=1"));
        let sentence =
            redirect.finding(&S3Location::parse("https://s3.example.com/backups").expect("location")).message;
        assert!(sentence.contains("it redirects to http://b/c;"), "{sentence}");
    }

    #[test]
    fn code_is_cut_and_has_no_control_characters() {
        let failure = S3Failure::service(400, Some(&format!("\u{1b}[31m{}", "x".repeat(500))), None);
        let shown = failure.to_string();
        assert!(shown.len() < 100 && !shown.contains('\u{1b}'), "{shown}");
    }
}
