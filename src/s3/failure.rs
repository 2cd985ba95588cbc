//! Failures of calls to S3 services, with their reasons and remedies.
//!
//! The codes are those of the Amazon S3 API reference ("Error responses"), of Ceph's RADOS Gateway
//! (`rgw_common.cc`), and of other services where they differ ([`super::refusal`]). The code is shown, cut to
//! [`CODE_LIMIT_BYTES`]. The message of the service is not, because it may echo the string that was signed.

use std::time::Duration;

pub use super::certificate::CertificateFault;
use super::refusal::{
    CLOCK_SKEW_CODES, CODE_LIMIT_BYTES, MessageTopic, expected_region, is_region, is_region_code, service_reason,
};
use crate::model::report::{Finding, finding};
use crate::model::{Reason, S3Location};

/// Longest redirect address that is shown, in bytes.
pub const URL_LIMIT_BYTES: usize = 256;

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
        /// Region that the service names, other than the one that was signed.
        region: Option<String>,
        /// What its code or its message is about.
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
    /// The answer is a web page. Some services answer HEAD with the content type of a web page.
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
    /// Creates a refusal. Code and region are cut to [`CODE_LIMIT_BYTES`] and lose their control characters.
    #[must_use]
    pub fn service(status: u16, code: Option<&str>, region: Option<&str>) -> Self {
        let shown = |text| shown(text, CODE_LIMIT_BYTES);
        Self::Service {
            status,
            code: code.and_then(shown),
            region: region.and_then(shown),
            topic: code.and_then(MessageTopic::of_code),
            leads_to: None,
            clock_ahead_seconds: None,
        }
    }

    /// Adds the topic of the service's message and, unless a header named a region, the region in the message. The
    /// region that the request was `signed` for does not count. Does not keep the message.
    #[must_use]
    pub fn with_message(mut self, message: &str, signed: Option<&str>) -> Self {
        if let Self::Service { status, region, topic, .. } = &mut self {
            let named = expected_region(message).filter(|named| Some(named.as_str()) != signed);
            let about_region = named.is_some().then_some(MessageTopic::Region);
            *topic = about_region.or_else(|| MessageTopic::of(message)).or(*topic);
            if (300..=499).contains(status) {
                *region = region.take().or(named);
            }
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

    /// Adds two facts from the headers of the answer: the offset of the service's clock, and the redirect address.
    #[must_use]
    pub fn with_headers(mut self, ahead_seconds: Option<i64>, location: Option<&str>) -> Self {
        if let Self::Service { leads_to, clock_ahead_seconds, .. } = &mut self {
            *clock_ahead_seconds = ahead_seconds;
            // Its query may contain a signature.
            let location = location.and_then(|location| location.split(['?', '#']).next());
            *leads_to = location.and_then(|location| shown(location, URL_LIMIT_BYTES));
        }
        self
    }

    /// Adds the region from another answer of the service, unless this answer named a region.
    #[must_use]
    pub fn or_region_of(mut self, other: &Self) -> Self {
        if let (Self::Service { region: region @ None, .. }, Self::Service { region: Some(named), .. }) =
            (&mut self, other)
        {
            *region = Some(named.clone());
        }
        self
    }

    /// Returns the HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        if let Self::Service { status, .. } = self { Some(*status) } else { None }
    }

    /// Classifies the failure of a GET. S3 services refuse a GET with an error code, so a refusal without a code comes
    /// from another kind of web server and becomes [`Self::NotS3`]. Answers of overloaded or broken proxies (429, 5xx)
    /// are kept.
    #[must_use]
    pub fn of_a_get(self) -> Self {
        match self {
            Self::Service { code: None, status: 400..=428 | 430..=499, .. } => {
                Self::NotS3(format!("{self} without an error code, which S3 always gives"))
            }
            other => other,
        }
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

    /// Returns the reason with a message that begins with `what` failed and ends with the remedy.
    #[must_use]
    pub fn finding_of(&self, what: &str) -> Finding {
        let reason = self.reason();
        finding!(reason, "{what}: {self}; {}{}", self.remedy(reason), self.region_hint())
    }

    /// Returns the region that the answer names, as the end of a sentence, if a wrong region may be the cause.
    #[must_use]
    pub fn region_hint(&self) -> String {
        let may_be_the_cause = matches!(
            self.reason(),
            Reason::AccessDenied
                | Reason::RequestRefused
                | Reason::WrongSecret
                | Reason::BucketNotFound
                | Reason::NotS3
        );
        match self {
            Self::Service { region: Some(region), .. } if may_be_the_cause => format!(
                ". The answer names another region than the request: if the bucket is there, set region = \"{region}\" in its [[s3.credentials]] entry"
            ),
            _ => String::new(),
        }
    }
}

/// Returns the visible ASCII characters of a text, up to a limit. `None` if there are none.
fn shown(text: &str, limit: usize) -> Option<String> {
    let text: String = text.chars().filter(char::is_ascii_graphic).take(limit).collect();
    (!text.is_empty()).then_some(text)
}

fn with_space(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(" {code}")).unwrap_or_default()
}

/// Returns the clock difference, if the service refused the request because of it.
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

/// Runs a call until its deadline.
///
/// # Errors
/// [`S3Failure`] of the call, or [`S3Failure::TimedOut`] at the deadline.
pub async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T, S3Failure>>) -> Result<T, S3Failure> {
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(S3Failure::TimedOut(deadline)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            .with_message("the region 'us-east-1' is wrong; expecting 'eu-west-1'", None);
        assert!(wrong_region.finding(&location).message.contains("region = \"eu-west-1\""), "{wrong_region}");
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
