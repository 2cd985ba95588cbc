//! Faults of a server's certificate. Issuer, name and validity are separate faults, because they have different
//! remedies.

use std::fmt;

use jiff::Timestamp;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

/// Most names of a certificate that are shown.
pub const NAMES_SHOWN: usize = 5;

/// Reason why a certificate is not valid for the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFault {
    /// No trusted authority issued it.
    UnknownAuthority,
    /// It was issued for other names.
    WrongName {
        /// Name of the endpoint and names of the certificate, if the TLS library reports them.
        names: Option<(String, Vec<String>)>,
    },
    /// It has expired.
    Expired {
        /// Time of expiry, if known.
        since: Option<Timestamp>,
    },
    /// It is not valid yet.
    NotYetValid {
        /// Begin of validity, if known.
        from: Option<Timestamp>,
    },
    /// Any other fault, as the TLS library describes it.
    Other(String),
}

impl CertificateFault {
    /// Returns what the operator should do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownAuthority => {
                "set ca_bundle in the [[s3.credentials]] entry to a PEM file with the authority that issued the certificate. If it is already set, the file contains another authority, or the server does not send its intermediate certificates"
            }
            Self::WrongName { .. } => {
                "use an endpoint name that the certificate contains, or get a certificate for this name (subjectAltName). With another name, ca_bundle does not help"
            }
            Self::Expired { .. } => {
                "renew the certificate on the server and restart or reload the service. If that date is in the future, this host's clock is wrong"
            }
            Self::NotYetValid { .. } => "if that date is in the past, this host's clock is wrong: correct it (NTP)",
            Self::Other(_) => "check the server's certificate (`openssl s_client -connect HOST:PORT`), and replace it",
        }
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAuthority => formatter
                .write_str("the server's certificate was issued by an authority that is not trusted (UnknownIssuer)"),
            Self::WrongName { names: None } => {
                formatter.write_str("the server's certificate is not for the name of the endpoint")
            }
            Self::WrongName { names: Some((expected, has)) } if has.is_empty() => {
                write!(formatter, "the server's certificate is not for {expected}: it contains no name")
            }
            Self::WrongName { names: Some((expected, has)) } => {
                write!(formatter, "the server's certificate is not for {expected}, but for {}", has.join(", "))
            }
            Self::Expired { since: None } => formatter.write_str("the server's certificate has expired"),
            Self::Expired { since: Some(at) } => write!(formatter, "the server's certificate expired at {at:.0}"),
            Self::NotYetValid { from: None } => formatter.write_str("the server's certificate is not valid yet"),
            Self::NotYetValid { from: Some(at) } => {
                write!(formatter, "the server's certificate is not valid before {at:.0}")
            }
            Self::Other(words) => write!(formatter, "the server's certificate is not valid: {words}"),
        }
    }
}

impl From<&CertificateError> for CertificateFault {
    fn from(error: &CertificateError) -> Self {
        let time = |at: &UnixTime| Timestamp::from_second(i64::try_from(at.as_secs()).ok()?).ok();
        match error {
            // BadSignature means that an authority was recreated with the same name and another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
            CertificateError::NotValidForName => Self::WrongName { names: None },
            CertificateError::NotValidForNameContext { expected, presented } => {
                let names = presented.iter().take(NAMES_SHOWN).map(|name| bare(name)).collect();
                Self::WrongName { names: Some((expected.to_str().into_owned(), names)) }
            }
            CertificateError::Expired => Self::Expired { since: None },
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired { since: time(not_after) },
            CertificateError::NotValidYet => Self::NotYetValid { from: None },
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYetValid { from: time(not_before) },
            other => Self::Other(other.to_string()),
        }
    }
}

/// Returns the name in `DnsName("name")`, the library's spelling, without control characters.
fn bare(presented: &str) -> String {
    let name = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(presented);
    name.trim_matches('"').chars().filter(char::is_ascii_graphic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_fault_has_message_and_remedy() {
        let day = |days: u64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(days * 24 * 3600));
        let wrong_name = CertificateError::NotValidForNameContext {
            expected: "s3.example.com".try_into().expect("a name"),
            presented: vec!["DnsName(\"nas.example.com\")".to_owned(), "IpAddress(192.0.2.1)".to_owned()],
        };
        for (error, words, remedy) in [
            (CertificateError::UnknownIssuer, "an authority that is not trusted", "set ca_bundle"),
            (CertificateError::BadSignature, "an authority that is not trusted", "set ca_bundle"),
            (wrong_name, "not for s3.example.com, but for nas.example.com, 192.0.2.1", "use an endpoint name"),
            (
                CertificateError::ExpiredContext { time: day(2), not_after: day(1) },
                "expired at 1970-01-02T00:00:00Z",
                "renew",
            ),
            (
                CertificateError::NotValidYetContext { time: day(1), not_before: day(2) },
                "not valid before 1970-01-03T00:00:00Z",
                "clock",
            ),
            (CertificateError::Revoked, "is not valid", "replace"),
        ] {
            let fault = CertificateFault::from(&error);
            assert!(fault.to_string().contains(words), "{words}: {fault}");
            assert!(fault.remedy().contains(remedy), "{remedy}: {}", fault.remedy());
        }
    }
}
