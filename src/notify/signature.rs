//! Signatures of webhooks, as Standard Webhooks (<https://www.standardwebhooks.com>) specifies them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

use crate::sys::secret_file::{FileError, read_secret};

/// Prefix of a secret.
const PREFIX: &str = "whsec_";

/// Accepted lengths of a key, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Largest number of secrets. Two are needed while a receiver changes from one to the other.
const SECRETS_MAX: usize = 4;

/// Why the secrets of a webhook cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SecretsError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file has unexpected content, which is not shown.
    #[error(
        "{path} does not contain 1 to {SECRETS_MAX} secrets. Expected one in each line, \"{PREFIX}\" and 24 to 64 random bytes in Base64: printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\""
    )]
    Content {
        /// The file.
        path: String,
    },
}

/// Keys that sign the requests of one webhook.
#[derive(Debug)]
pub(super) struct Secrets(Vec<SecretSlice<u8>>);

impl Secrets {
    /// Reads the secrets of a file, one in each line.
    pub(super) async fn read(path: &Path) -> Result<Self, SecretsError> {
        let text = read_secret(path).await?;
        let parsed = Self::parse(text.expose_secret());
        parsed.ok_or_else(|| SecretsError::Content { path: path.display().to_string() })
    }

    fn parse(text: &str) -> Option<Self> {
        let key = |line: &str| {
            let key = STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?;
            KEY_BYTES.contains(&key.len()).then(|| SecretSlice::from(key))
        };
        let keys: Vec<_> = text.split_whitespace().map(key).collect::<Option<_>>()?;
        (1..=SECRETS_MAX).contains(&keys.len()).then_some(Self(keys))
    }

    /// Returns the value of the header `webhook-signature`: a signature by each secret.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().filter_map(|key| {
            // HMAC accepts keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Secret of the test vector of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn signature_equals_the_test_vector_of_standard_webhooks() {
        let sign = |text: &str| {
            let secrets = Secrets::parse(text).expect("valid");
            secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
        };
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(SECRET), expected);
        let other = format!("whsec_{}", STANDARD.encode([7; 32]));
        let both = sign(&format!("{other}\n{SECRET}"));
        assert_eq!(both.split(' ').count(), 2);
        assert!(both.ends_with(expected), "{both}");
    }

    #[tokio::test]
    async fn secrets_must_have_the_standard_form_and_are_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        let many = [SECRET; SECRETS_MAX + 1].join("\n");
        for text in ["unmistakable", "whsec_d29yZA==", "whsec_%%%", &long, &many] {
            std::fs::write(&path, text).expect("written");
            let error = Secrets::read(&path).await.expect_err(text).to_string();
            assert!(error.contains("openssl rand") && !error.contains(text), "{error}");
        }
        std::fs::write(&path, format!("{SECRET}\n")).expect("written");
        let secrets = Secrets::read(&path).await.expect("valid");
        assert!(!format!("{secrets:?}").contains("242"), "{secrets:?}");
    }
}
