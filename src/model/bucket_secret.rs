//! Credentials of a bucket, as a secret of the key manager contains them.
//!
//! The payload is the JSON object that Trilio stores for a backup target. Only the credentials, the region and the
//! certificate are used. Endpoint, bucket and immutability are those of the target. TLS is always verified, and
//! requests are always signed with version 4. Errors name a key and never quote a value, except the bucket and the
//! endpoint of a secret that belongs to another target.

use std::fmt;
use std::hash::{Hash, Hasher};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::export::{S3Endpoint, S3Location};
use super::line::{LINE_MAX_CHARS, escape_invisible};

/// Longest access key and region that are accepted, in bytes.
const NAME_MAX_BYTES: usize = 256;

/// Longest secret key that is accepted, in bytes.
const SECRET_KEY_MAX_BYTES: usize = 1024;

/// Beginning of a certificate. Without it, `vault_s3_ssl_cert` is the path of a file, which may not exist on this host.
const PEM_BEGIN: &str = "-----BEGIN ";

/// Credentials of a bucket.
pub struct BucketSecret {
    access_key: String,
    secret_key: SecretString,
    region: Option<String>,
    certificate: Option<Vec<u8>>,
    endpoint_url: Option<String>,
    bucket: Option<String>,
    missing: Vec<&'static str>,
}

/// Why a payload does not contain credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON, or not an object.
    #[error("not a JSON object (line {line}, column {column})")]
    NotJson {
        /// Line of the error.
        line: usize,
        /// Column of the error.
        column: usize,
    },
    /// A key that the agent needs.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value that cannot be used.
    #[error("{0} is not usable, expected text of visible ASCII characters")]
    NotUsable(&'static str),
    /// PEM text without a usable certificate.
    #[error("vault_s3_ssl_cert is not usable, expected certificates in PEM or the path of a file")]
    Certificate,
}

/// A value of a secret that names another target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretMismatch {
    /// The secret is of another bucket.
    #[error(
        "its vault_s3_bucket is \"{secret}\", and the bucket of the target is \"{target}\"; set secret_ref to the secret of this bucket"
    )]
    Bucket {
        /// Bucket of the secret.
        secret: String,
        /// Bucket of the target.
        target: String,
    },
    /// The secret is of another endpoint.
    #[error(
        "its vault_s3_endpoint_url is \"{secret}\", and the endpoint of the target is {target}; set secret_ref to the secret of this endpoint, or, if both are the same service, set [key_manager] accept_other_endpoints = true"
    )]
    Endpoint {
        /// Endpoint of the secret.
        secret: String,
        /// Endpoint of the target.
        target: String,
    },
}

macro_rules! keys {
    ($($key:ident,)*) => {
        /// Every key that Trilio stores. Unknown keys are ignored.
        #[derive(Deserialize)]
        struct Payload {
            $(#[serde(default)] $key: Option<Value>,)*
        }

        impl Payload {
            /// Names of the keys that are absent.
            fn missing(&self) -> Vec<&'static str> {
                [$((stringify!($key), self.$key.is_none()),)*]
                    .into_iter()
                    .filter_map(|(key, is_missing)| is_missing.then_some(key))
                    .collect()
            }
        }
    };
}

keys! {
    access_key,
    secret_key,
    vault_s3_region_name,
    vault_s3_endpoint_url,
    vault_s3_bucket,
    vault_s3_ssl,
    vault_s3_ssl_verify,
    vault_s3_ssl_cert,
    vault_s3_signature_version,
    vault_s3_auth_version,
    bucket_object_lock,
}

/// Value of a key. Only texts are kept.
enum Value {
    Text(SecretString),
    Other,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(SecretString::from(text)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

/// The text of a value. An empty text is none.
fn text(value: &Option<Value>) -> Option<&str> {
    match value {
        Some(Value::Text(text)) => Some(text.expose_secret()).filter(|text| !text.is_empty()),
        _ => None,
    }
}

/// A text that every payload must contain.
fn required<'a>(key: &'static str, value: &'a Option<Value>, max_bytes: usize) -> Result<&'a str, PayloadError> {
    let text = match value {
        None => return Err(PayloadError::Missing(key)),
        value => text(value).ok_or(PayloadError::NotUsable(key))?,
    };
    is_plain(text, max_bytes).then_some(text).ok_or(PayloadError::NotUsable(key))
}

fn is_plain(text: &str, max_bytes: usize) -> bool {
    text.len() <= max_bytes && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl BucketSecret {
    /// Parses the payload of a secret.
    ///
    /// # Errors
    /// [`PayloadError`] when it does not contain credentials.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let not_json = |error: serde_json::Error| PayloadError::NotJson { line: error.line(), column: error.column() };
        // serde would also accept an array of the values.
        if payload.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(PayloadError::NotJson { line: 1, column: 0 });
        }
        let payload: Payload = serde_json::from_slice(payload).map_err(not_json)?;
        let owned = |value: &Option<Value>| text(value).map(str::to_owned);
        let region = owned(&payload.vault_s3_region_name);
        if region.as_deref().is_some_and(|region| !is_plain(region, NAME_MAX_BYTES)) {
            return Err(PayloadError::NotUsable("vault_s3_region_name"));
        }
        let certificate = text(&payload.vault_s3_ssl_cert).filter(|text| text.trim_start().starts_with(PEM_BEGIN));
        Ok(Self {
            access_key: required("access_key", &payload.access_key, NAME_MAX_BYTES)?.to_owned(),
            secret_key: required("secret_key", &payload.secret_key, SECRET_KEY_MAX_BYTES)?.into(),
            region,
            certificate: certificate.map(|text| text.as_bytes().to_vec()),
            endpoint_url: owned(&payload.vault_s3_endpoint_url),
            bucket: owned(&payload.vault_s3_bucket),
            missing: payload.missing(),
        })
    }

    /// The access key id.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret access key.
    #[must_use]
    pub fn secret_key(&self) -> &SecretString {
        &self.secret_key
    }

    /// Region for which requests are signed.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// PEM text of certificate authorities of the service.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// Names the keys that are missing. `None` if there are none.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        (!self.missing.is_empty()).then(|| format!("the secret has no {}", self.missing.join(", ")))
    }

    /// Returns the bucket of the secret, if it is not that of the target. A secret without one fits every bucket.
    #[must_use]
    pub fn other_bucket(&self, location: &S3Location) -> Option<SecretMismatch> {
        let bucket = self.bucket.as_deref().filter(|bucket| *bucket != location.bucket())?;
        Some(SecretMismatch::Bucket { secret: self.shown(bucket), target: location.bucket().to_owned() })
    }

    /// Returns the endpoint of the secret, if it is not that of the target. A secret without one fits every endpoint.
    /// Scheme, path and the region of AWS are not compared.
    #[must_use]
    pub fn other_endpoint(&self, location: &S3Location) -> Option<SecretMismatch> {
        let origin = origin(self.endpoint_url.as_deref()?.trim());
        let is_same = match (S3Endpoint::parse(&origin), location.endpoint()) {
            (Ok(endpoint), Some(target)) => endpoint.is_same_service(target),
            (Ok(endpoint), None) => endpoint.is_aws(),
            (Err(_), _) => origin.is_empty(),
        };
        let target =
            location.endpoint().map_or_else(|| "that of AWS".to_owned(), |target| format!("\"{}\"", target.url()));
        (!is_same).then(|| SecretMismatch::Endpoint { secret: self.shown(&origin), target })
    }

    /// A value of the payload for people. A key that was stored in the wrong place is not shown.
    fn shown(&self, value: &str) -> String {
        if value.contains(self.secret_key.expose_secret()) || value.contains(&self.access_key) {
            return "(not shown: it contains a key)".to_owned();
        }
        escape_invisible(&value.chars().take(LINE_MAX_CHARS).collect::<String>())
    }
}

/// Scheme, host and port of a URL, without user, path and query.
fn origin(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or((None, url), |(scheme, rest)| (Some(scheme), rest));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    scheme.map_or_else(|| address.to_owned(), |scheme| format!("{scheme}://{address}"))
}

/// Compares everything that a client of the service depends on.
impl PartialEq for BucketSecret {
    fn eq(&self, other: &Self) -> bool {
        self.access_key == other.access_key
            && self.secret_key.expose_secret() == other.secret_key.expose_secret()
            && self.region == other.region
            && self.certificate == other.certificate
    }
}

impl Eq for BucketSecret {}

impl Hash for BucketSecret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.access_key.hash(state);
    }
}

impl fmt::Debug for BucketSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BucketSecret").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn whole() -> Value {
        json!({
            "access_key": "AKIASHOWNNOWHERE", "secret_key": "unmistakable/secret+key=", "vault_s3_region_name": "eu-1",
            "vault_s3_endpoint_url": "https://s3.example.com/", "vault_s3_bucket": "backups", "vault_s3_ssl": true,
            "vault_s3_ssl_verify": "False", "vault_s3_ssl_cert": "", "vault_s3_signature_version": "default",
            "vault_s3_auth_version": "DEFAULT", "bucket_object_lock": false,
        })
    }

    fn parse(value: &Value) -> Result<BucketSecret, PayloadError> {
        BucketSecret::parse(value.to_string().as_bytes())
    }

    fn with(key: &str, value: Value) -> Value {
        let mut payload = whole();
        payload[key] = value;
        payload
    }

    fn without(key: &str) -> Value {
        let mut payload = whole();
        payload.as_object_mut().expect("an object").remove(key);
        payload
    }

    #[test]
    fn payload_of_the_guide_is_parsed_and_unknown_keys_are_ignored() {
        let location = S3Location::parse("https://s3.example.com/backups").expect("a location");
        let secret = parse(&with("vault_more", json!({ "a": [1, null] }))).expect("credentials");
        assert_eq!((secret.access_key(), secret.region()), ("AKIASHOWNNOWHERE", Some("eu-1")));
        assert_eq!(secret.secret_key().expose_secret(), "unmistakable/secret+key=");
        assert_eq!((secret.certificate(), secret.missing()), (None, None));
        assert_eq!((secret.other_bucket(&location), secret.other_endpoint(&location)), (None, None));
        let shown = format!("{secret:?}");
        assert!(!shown.contains("AKIA") && !shown.contains("unmistakable"), "{shown}");
    }

    #[test]
    fn missing_key_is_named() {
        for key in whole().as_object().expect("an object").keys() {
            match parse(&without(key)) {
                Err(error) => assert_eq!(error.to_string(), format!("{key} is missing")),
                Ok(secret) => {
                    assert_eq!(secret.missing(), Some(format!("the secret has no {key}")));
                    assert!(!["access_key", "secret_key"].contains(&key.as_str()));
                }
            }
        }
    }

    #[test]
    fn unusable_payload_is_refused_without_a_quote() {
        for (payload, expected) in [
            (with("access_key", json!(7)).to_string(), "access_key"),
            (with("access_key", json!("quoted here")).to_string(), "access_key"),
            (with("secret_key", json!("")).to_string(), "secret_key"),
            (with("secret_key", json!("quoted\n")).to_string(), "secret_key"),
            (with("secret_key", json!(null)).to_string(), "secret_key"),
            (with("secret_key", json!("q".repeat(1025))).to_string(), "secret_key"),
            (with("vault_s3_region_name", json!("quoted region")).to_string(), "vault_s3_region_name"),
            ("quoted:secret".to_owned(), "JSON"),
            ("[\"quoted\", \"quoted\"]".to_owned(), "JSON"),
            ("{\"access_key\": \"quoted\", \"access_key\": \"quoted\"}".to_owned(), "JSON"),
            (format!("{}}}", whole()), "JSON"),
            (String::new(), "JSON"),
        ] {
            let error = BucketSecret::parse(payload.as_bytes()).expect_err(&payload).to_string();
            assert!(error.contains(expected) && !error.contains("quoted"), "{error}");
        }
        assert!(BucketSecret::parse(b"{\"access_key\": \"\xff\"}").is_err());
    }

    #[test]
    fn secret_of_another_bucket_is_named() {
        let location = S3Location::parse("https://s3.example.com/backups").expect("a location");
        for (bucket, shown) in [
            ("Backups", "\"Backups\""),
            ("tenant:backups", "\"tenant:backups\""),
            ("\u{1b}[2Jx\r\ny", "\"\\u{1b}[2Jx\\r\\ny\""),
            ("unmistakable/secret+key=", "contains a key"),
        ] {
            let secret = parse(&with("vault_s3_bucket", json!(bucket))).expect("credentials");
            let mismatch = secret.other_bucket(&location).expect(bucket).to_string();
            assert!(mismatch.contains(shown) && mismatch.contains("\"backups\""), "{mismatch}");
            assert!(!mismatch.contains("unmistakable"), "{mismatch}");
        }
        for fits in [json!("backups"), json!(""), json!(null), json!(7)] {
            let secret = parse(&with("vault_s3_bucket", fits.clone())).expect("credentials");
            assert_eq!(secret.other_bucket(&location), None, "{fits}");
        }
    }

    #[test]
    fn endpoints_of_one_service_are_equal() {
        for (target, url, fits) in [
            ("https://s3.example.com/backups", "https://S3.Example.Com./", true),
            ("https://s3.example.com/backups", "http://s3.example.com", true),
            ("https://s3.example.com/backups", " https://s3.example.com:443/backups?x=y ", true),
            ("http://s3.example.com/backups", "s3.example.com:80", true),
            ("https://s3.example.com:8443/backups", "http://s3.example.com:8443", true),
            ("https://[fd00::1]:9000/backups", "https://[FD00:0::1]:9000", true),
            ("https://s3.eu-west-1.amazonaws.com/backups", "https://s3.amazonaws.com", true),
            ("backups", "https://s3.eu-west-1.amazonaws.com", true),
            ("backups", "", true),
            ("backups", "/", true),
            ("https://s3.example.com/backups", "https://s3.example.com:8443", false),
            ("https://s3.example.com:8443/backups", "https://s3.example.com", false),
            ("https://s3.example.com/backups", "https://s3.example.com.evil.example", false),
            ("https://s3.example.com/backups", "https://s3.example.com@evil.example", false),
            ("https://s3.example.com/backups", "another", false),
            ("https://s3.example.com/backups", "ftp://s3.example.com", false),
            ("backups", "https://s3.example.com", false),
            ("https://s3.example.com/backups", "https://s3.amazonaws.com", false),
        ] {
            let location = S3Location::parse(target).expect(target);
            let secret = parse(&with("vault_s3_endpoint_url", json!(url))).expect("credentials");
            assert_eq!(secret.other_endpoint(&location).is_none(), fits, "{target} {url}");
        }
    }

    #[test]
    fn secret_of_another_endpoint_is_named_without_user_and_path() {
        let named = |target: &str, url: &str| {
            let location = S3Location::parse(target).expect(target);
            let secret = parse(&with("vault_s3_endpoint_url", json!(url))).expect("credentials");
            secret.other_endpoint(&location).expect(url).to_string()
        };
        let found = named("http://s3.example.com/backups", "https://user:word@other.example:9000/path?query");
        assert!(
            found.contains("\"https://other.example:9000\"") && found.contains("\"http://s3.example.com\""),
            "{found}"
        );
        assert!(found.contains("accept_other_endpoints = true") && !found.contains("word"), "{found}");
        let found = named("backups", "https://evil\u{202e}.example");
        assert!(found.contains("evil\\u{202e}.example") && found.contains("that of AWS"), "{found}");
        assert!(named("backups", &"x".repeat(5000)).len() < 1000);
    }

    #[test]
    fn certificate_is_used_only_if_it_is_pem_text() {
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        for (value, expected) in [(pem, Some(pem.as_bytes())), ("/etc/pki/ca.pem", None), ("", None)] {
            let secret = parse(&with("vault_s3_ssl_cert", json!(value))).expect("credentials");
            assert_eq!(secret.certificate(), expected, "{value}");
        }
    }

    #[test]
    fn secrets_differ_by_what_a_client_depends_on() {
        let secret = parse(&whole()).expect("credentials");
        for key in ["access_key", "secret_key", "vault_s3_region_name"] {
            assert_ne!(parse(&with(key, json!("other"))).expect("credentials"), secret, "{key}");
        }
        assert_eq!(parse(&with("vault_s3_bucket", json!("other"))).expect("credentials"), secret);
    }
}
