//! Reference to a secret of OpenStack's key manager (Barbican): the URL of the secret, never the secret itself.
//!
//! A reference must not contain a user, a query or a fragment. Those may contain a password or a token, and answers and
//! logs show a reference as it is. For the same reason a refusal does not quote the text.

use http::Uri;

/// Longest accepted reference, in bytes. One of Barbican has about 100.
pub const SECRET_REF_MAX_BYTES: usize = 512;

/// A text that does not refer to a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a reference to a secret, expected an http or https URL of at most {SECRET_REF_MAX_BYTES} bytes without user, query and fragment, such as https://barbican.example.com:9311/v1/secrets/UUID"
)]
pub struct SecretRefError;

/// Validated URL of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef(String);

impl SecretRef {
    /// Validates the URL of a secret.
    ///
    /// # Errors
    /// [`SecretRefError`] for anything but an http or https URL with a host and a path.
    pub fn parse(text: &str) -> Result<Self, SecretRefError> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let is_short = text.len() <= SECRET_REF_MAX_BYTES;
        let uri: Uri = text.parse().ok().filter(|_| is_plain && is_short).ok_or(SecretRefError)?;
        let is_url = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_host = uri.authority().is_some_and(|host| !host.host().is_empty() && !host.as_str().contains('@'));
        let is_secret = is_url && has_host && uri.query().is_none() && uri.path().len() > 1;
        is_secret.then(|| Self(text.to_owned())).ok_or(SecretRefError)
    }

    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_referred_to_by_a_url_without_anything_secret() {
        let long = format!("https://barbican/v1/secrets/{}", "a".repeat(SECRET_REF_MAX_BYTES));
        for (text, is_valid) in [
            ("https://barbican.example.com:9311/v1/secrets/5f8c2c9e-52f3-4a0b-9f6b-0f5f1f6c9a11", true),
            ("http://[fd00::1]:9311/v1/secrets/a", true),
            ("HTTPS://barbican/v1/secrets/a", true),
            ("https://user:word@barbican/v1/secrets/a", false),
            ("https://barbican/v1/secrets/a?token=word", false),
            ("https://barbican/v1/secrets/a#word", false),
            ("https://barbican", false),
            ("https:///v1/secrets/a", false),
            ("ftp://barbican/a", false),
            ("barbican/v1/secrets/a", false),
            ("/v1/secrets/a", false),
            ("https://barbican/a b", false),
            ("https://barbican/a\nb", false),
            ("https://barbican/a\u{202e}b", false),
            ("", false),
            (&long, false),
        ] {
            let parsed = SecretRef::parse(text);
            assert_eq!(parsed.is_ok(), is_valid, "{text:?}");
            if let Err(error) = parsed {
                assert!(!error.to_string().contains("word"), "{error}");
            }
        }
    }
}
