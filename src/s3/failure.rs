//! Failures of calls to S3 services, with their reasons and remedies.
//!
//! The codes are those of the Amazon S3 API reference ("Error responses"), of Ceph's RADOS Gateway
//! (`rgw_common.cc`), and of other services where they differ ([`limit_reason`]). The code is shown, cut to
//! [`CODE_LIMIT_BYTES`]. The message of the service is not, because it may echo the string that was signed.

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

/// Codes for a request that was signed for, or sent to, another region than that of the bucket.
const REGION_CODES: [&str; 4] =
    ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "IncorrectEndpoint"];

/// Codes for expired credentials.
const EXPIRED_CREDENTIAL_CODES: [&str; 2] = ["ExpiredToken", "TokenRefreshRequired"];

/// What a service's message is about. Some services refuse with an unspecific code, and only their message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageTopic {
    /// A lock or a retention (MinIO: `InvalidRequest`, "Object is WORM protected").
    Lock,
    /// A quota that is used up (Garage: `AccessDenied`, "Bucket size quota is reached").
    Quota,
    /// Storage without free space (MinIO: `InternalError`, "no space left on device").
    Full,
}

impl MessageTopic {
    fn of(message: &str) -> Option<Self> {
        let message = message.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        // A policy's refusal may name a bucket with one of these words.
        if has(&["quota"]) && has(&["reached", "exceed"]) {
            Some(Self::Quota)
        } else if has(&["no space left", "disk full", "storage is full", "storage full", "free disk threshold"]) {
            Some(Self::Full)
        } else {
            has(&["worm", "object lock", "locked", "retention"]).then_some(Self::Lock)
        }
    }
}

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
        /// What its message is about.
        topic: Option<MessageTopic>,
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
    /// The server answers an encrypted connection with something else.
    #[error("TLS failed: the port does not speak TLS")]
    TlsToPlain,
    /// The server expects an encrypted connection.
    #[error("the port expects TLS, and the endpoint is http://")]
    PlainToTls,
    /// The server's certificate is not valid for this endpoint.
    #[error("TLS failed: {0}")]
    Certificate(CertificateFault),
    /// The connection ended before the answer was complete.
    #[error("the connection broke: {0}")]
    ConnectionBroken(String),
    /// The answer is a web page. Some services give the answer to HEAD the type of one.
    #[error("the answer is a web page")]
    WebPage,
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
            topic: None,
            leads_to: None,
            clock_ahead_seconds: None,
        }
    }

    /// Adds what the service's message is about and, if no header does, the region that it names. Does not keep
    /// the message.
    #[must_use]
    pub fn with_message(mut self, message: &str) -> Self {
        if let Self::Service { code, region, topic, .. } = &mut self {
            if region.is_none() && is_region_code(code.as_deref()) {
                *region = expected_region(message);
            }
            *topic = MessageTopic::of(message);
        }
        self
    }

    /// Adds the region of an error document (`<Region>`), unless the answer named one. Some services name their own
    /// region in every error, so it counts only for the codes of a wrong region and for redirects.
    #[must_use]
    pub fn with_region_element(mut self, element: Option<&str>) -> Self {
        if let Self::Service { status, code, region: region @ None, .. } = &mut self
            && (is_region_code(code.as_deref()) || (300..=399).contains(status))
        {
            *region = element.filter(|name| is_region(name)).map(str::to_owned);
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
        matches!(self, Self::Service { code: None, .. } | Self::WebPage)
    }

    /// Returns the HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        if let Self::Service { status, .. } = self { Some(*status) } else { None }
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

    /// Returns whether a GET of a configuration that failed this way says nothing about the bucket. A broken connection,
    /// wrong credentials or a redirect concern every request.
    #[must_use]
    pub fn concerns_one_configuration(&self) -> bool {
        matches!(
            self.reason(),
            Reason::AccessDenied
                | Reason::RequestRefused
                | Reason::NotImplemented
                | Reason::ServerError
                | Reason::Throttled
                | Reason::StorageFull
                | Reason::QuotaExceeded
        ) || self.is_timeout()
    }

    /// Returns whether a GET of a configuration was answered as by a service that does not have this
    /// configuration: with an error for the parameter, or with another document. Swift before 2.33 answers
    /// `?object-lock` with a listing.
    #[must_use]
    pub fn lacks_configuration(&self) -> bool {
        match self {
            Self::WebPage | Self::NotS3(_) => true,
            Self::Service { status: 400 | 404 | 405 | 501, .. } if !self.has_expired_credentials() => matches!(
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
        let Self::Service { status, code: Some(code), topic, .. } = self else { return false };
        match (status, code.as_str()) {
            (403, "AccessDenied") => true,
            (400..=499, "ObjectLocked" | "ObjectUnderRetention") => true,
            (400, "InvalidRequest") => *topic == Some(MessageTopic::Lock),
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

    /// Returns whether the service refused a PUT for its retention, as its message tells: as invalid, or as not allowed
    /// by a policy. AWS and others refuse a retention that is shorter than a policy demands.
    #[must_use]
    pub fn refuses_the_retention(&self) -> bool {
        let is_about_it = matches!(self, Self::Service { topic: Some(MessageTopic::Lock), .. });
        is_about_it && (self.is_refusal() || self.will_never_be_accepted())
    }

    /// Returns whether the service will not accept this request, and not for a missing permission.
    #[must_use]
    pub fn will_never_be_accepted(&self) -> bool {
        matches!(self.reason(), Reason::RequestRefused | Reason::NotImplemented) && self.is_final_refusal()
    }

    /// Returns whether the service refused the digest of a request. That says nothing about what was requested.
    #[must_use]
    pub fn is_digest_refusal(&self) -> bool {
        self.has_code(&["MissingContentMD5", "InvalidDigest", "BadDigest"])
    }

    /// Returns the reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Service { status, code, region, topic, .. } => {
                service_reason(*status, code.as_deref().unwrap_or_default(), region.is_some(), *topic)
            }
            Self::TimedOut(_) => Reason::ResponseTimedOut,
            Self::NameNotResolved(_) => Reason::NameNotResolved,
            Self::ConnectionRefused => Reason::ConnectionRefused,
            Self::HostUnreachable(_) => Reason::HostUnreachable,
            Self::Tls(_) | Self::TlsToPlain | Self::PlainToTls | Self::Certificate(_) => Reason::TlsFailed,
            Self::ConnectionBroken(_) => Reason::ConnectionBroken,
            Self::WebPage | Self::NotS3(_) => Reason::NotS3,
            Self::NoCredentials(_) => Reason::NoCredentials,
            Self::Agent(_) => Reason::AgentError,
        }
    }

    /// Returns the reason with a message that names the bucket and the remedy.
    #[must_use]
    pub fn finding(&self, location: &S3Location) -> Finding {
        self.finding_of(&location.to_string())
    }

    /// Returns the reason with a message that names `what` failed, and the remedy.
    #[must_use]
    pub fn finding_of(&self, what: &str) -> Finding {
        let reason = self.reason();
        Finding::new(reason, format!("{what}: {self}; {}", self.remedy(reason)))
    }

    /// Returns whether the credentials have expired.
    #[must_use]
    pub fn has_expired_credentials(&self) -> bool {
        self.has_code(&EXPIRED_CREDENTIAL_CODES)
    }
}

/// Whether an answer with this code is about the region of the bucket.
fn is_region_code(code: Option<&str>) -> bool {
    code.is_some_and(|code| REGION_CODES.contains(&code))
}

/// Returns the region in a message of AWS or MinIO: `the region 'a' is wrong; expecting 'b'`, or `The b location
/// constraint is incompatible for the region specific endpoint this request was sent to`.
fn expected_region(message: &str) -> Option<String> {
    let quoted = || message.split_once("expecting '")?.1.split_once('\'').map(|(region, _)| region);
    let constraint = || message.split_once(" location constraint")?.0.rsplit(' ').next();
    let region = quoted().or_else(constraint)?;
    (is_region(region) && region != "unspecified").then(|| region.to_owned())
}

/// Whether a text can be the name of a region.
fn is_region(name: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !name.is_empty() && name.len() <= CODE_LIMIT_BYTES && name.bytes().all(is_name)
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

fn service_reason(status: u16, code: &str, names_region: bool, topic: Option<MessageTopic>) -> Reason {
    let told = match code {
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
        "NotImplemented" | "MethodNotAllowed" => Reason::NotImplemented,
        "InternalError" => Reason::ServerError,
        "ObjectLockConfigurationNotFoundError" => Reason::ObjectLockMissing,
        code => limit_reason(status, code).unwrap_or_else(|| status_reason(status, code, names_region)),
    };
    match (told, topic) {
        (Reason::AccessDenied | Reason::RequestRefused | Reason::ServerError, Some(MessageTopic::Quota)) => {
            Reason::QuotaExceeded
        }
        (Reason::RequestRefused | Reason::ServerError, Some(MessageTopic::Full)) => Reason::StorageFull,
        _ => told,
    }
}

/// Returns the reason for a limit of the storage. Services name a quota in many ways: `QuotaExceeded` (Ceph),
/// `XMinioAdminBucketQuotaExceeded` (MinIO), `XRustfsQuotaExceeded`, `QUOTA_EXCEEDED` (Ozone),
/// `ObjectQuotaExceeded` (NooBaa). Swift answers as to an object that is too large, which no canary is. Storage without
/// free space is `XMinioStorageFull`, `InsufficientStorage` or only status 507 (RFC 4918 §11.5).
fn limit_reason(status: u16, code: &str) -> Option<Reason> {
    let code = code.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| code.contains(word));
    if status != 404 && (status == 413 || has(&["quota", "entitytoolarge"])) {
        return Some(Reason::QuotaExceeded);
    }
    let is_full = status == 507 || has(&["storagefull", "diskfull", "insufficientstorage", "nospace"]);
    is_full.then_some(Reason::StorageFull)
}

fn status_reason(status: u16, code: &str, names_region: bool) -> Reason {
    match status {
        300..=399 if names_region => Reason::WrongRegion,
        // A HEAD has no code.
        400 if names_region && code.is_empty() => Reason::WrongRegion,
        300..=399 => Reason::Redirected,
        401 | 403 => Reason::AccessDenied,
        // An answer without a code is from another web server, unless it answers a HEAD.
        404 => Reason::BucketNotFound,
        405 | 501 => Reason::NotImplemented,
        429 => Reason::Throttled,
        500..=599 => Reason::ServerError,
        _ if code.is_empty() => Reason::NotS3,
        _ => Reason::RequestRefused,
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
            (400, Some("InvalidArgument"), None, Reason::RequestRefused),
            (400, Some("InvalidRequest"), Some("us-east-1"), Reason::RequestRefused),
            (409, Some("OperationAborted"), None, Reason::RequestRefused),
            (411, Some("MissingContentLength"), None, Reason::RequestRefused),
        ] {
            assert_eq!(S3Failure::service(status, code, region).reason(), reason, "{status} {code:?} {region:?}");
        }
    }

    #[test]
    fn limits_of_the_storage_are_recognized_by_the_codes_of_many_services() {
        for (status, code, reason) in [
            (403, Some("QuotaExceeded"), Reason::QuotaExceeded),
            (400, Some("XMinioAdminBucketQuotaExceeded"), Reason::QuotaExceeded),
            (400, Some("XRustfsQuotaExceeded"), Reason::QuotaExceeded),
            (403, Some("QUOTA_EXCEEDED"), Reason::QuotaExceeded),
            (403, Some("ObjectQuotaExceeded"), Reason::QuotaExceeded),
            (400, Some("EntityTooLarge"), Reason::QuotaExceeded),
            (507, Some("EntityTooLarge"), Reason::QuotaExceeded),
            (413, None, Reason::QuotaExceeded),
            (507, Some("XMinioStorageFull"), Reason::StorageFull),
            (507, Some("InsufficientStorage"), Reason::StorageFull),
            (503, Some("InsufficientStorage"), Reason::StorageFull),
            (507, None, Reason::StorageFull),
            (404, Some("NoSuchQuotaConfiguration"), Reason::BucketNotFound),
            (503, Some("SlowDown"), Reason::Throttled),
            (400, Some("EntityTooSmall"), Reason::RequestRefused),
        ] {
            assert_eq!(S3Failure::service(status, code, None).reason(), reason, "{status} {code:?}");
        }
        for (status, code, message, reason) in [
            (403, "AccessDenied", "Bucket size quota is reached, maximum total size is 5", Reason::QuotaExceeded),
            (500, "InternalError", "cause(no space left on device)", Reason::StorageFull),
            (403, "AccessDenied", "not authorized to perform s3:PutObject on quota-bucket", Reason::AccessDenied),
            (403, "AccessDenied", "storage full of secrets", Reason::AccessDenied),
            (503, "SlowDown", "request quota exceeded", Reason::Throttled),
        ] {
            let failure = S3Failure::service(status, Some(code), None).with_message(message);
            assert_eq!(failure.reason(), reason, "{message}");
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
    fn invalid_session_token_is_named() {
        let location = S3Location::parse("https://s3.example.com/backups").expect("location");
        let message = |code| S3Failure::service(403, Some(code), None).finding(&location).message;
        assert!(message("InvalidToken").contains("the session token is not valid"), "{}", message("InvalidToken"));
        assert!(!message("InvalidAccessKeyId").contains("token"), "{}", message("InvalidAccessKeyId"));
    }

    #[test]
    fn message_names_region_and_clock_difference() {
        let location = S3Location::parse("https://s3.example.com/backups").expect("location");
        let wrong_region = S3Failure::service(400, Some("AuthorizationHeaderMalformed"), None)
            .with_message("the region 'us-east-1' is wrong; expecting 'eu-west-1'");
        assert!(wrong_region.finding(&location).message.contains("region = \"eu-west-1\""), "{wrong_region}");
        for (message, region) in [
            ("expecting ''", None),
            ("expecting 'a b'", None),
            ("expecting 'x", None),
            ("The ap-east-1 location constraint is incompatible for the region specific endpoint", Some("ap-east-1")),
            ("The unspecified location constraint is incompatible", None),
        ] {
            assert_eq!(expected_region(message).as_deref(), region, "{message}");
        }
        for (ahead, words) in [(960, "960 s ahead of this host's"), (-960, "960 s behind this host's")] {
            let skewed = S3Failure::service(403, Some("RequestTimeTooSkewed"), None).with_headers(Some(ahead), None);
            assert!(skewed.to_string().contains(words), "{skewed}");
        }
    }

    #[test]
    fn region_element_counts_only_for_answers_about_the_region() {
        for (status, code, element, region) in [
            (400, "AuthorizationHeaderMalformed", "garage", Some("garage")),
            (301, "PermanentRedirect", "eu-west-1", Some("eu-west-1")),
            (307, "TemporaryRedirect", "eu-west-1", Some("eu-west-1")),
            (400, "AuthorizationHeaderMalformed", "a b", None),
            // Garage names its region in every error.
            (400, "InvalidRequest", "garage", None),
            (403, "AccessDenied", "garage", None),
        ] {
            let failure = S3Failure::service(status, Some(code), None).with_region_element(Some(element));
            let S3Failure::Service { region: found, .. } = &failure else { panic!("{failure}") };
            assert_eq!(found.as_deref(), region, "{code}");
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
