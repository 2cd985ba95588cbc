//! Which URLs are secrets of a key manager.

use http::Uri;
use uuid::Uuid;

use crate::model::secret_ref::SecretRef;

/// Path of secrets, below the address of the key manager.
const SECRETS: &str = "/v1/secrets/";

/// Length of the id of a secret, with hyphens.
const ID_BYTES: usize = 36;

/// Removes the version of the API from the address of a key manager, as catalogs may contain it.
pub(super) fn without_version(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url).trim_end_matches('/')
}

/// Returns the id of a secret of the key manager at `base`. `None` if the reference is to anything else.
pub(super) fn secret_id(reference: &SecretRef, base: &str) -> Option<Uuid> {
    let (reference, base): (Uri, Uri) = (reference.as_str().parse().ok()?, without_version(base).parse().ok()?);
    let is_same_host = origin(&reference)? == origin(&base)?;
    let path = reference.path().strip_prefix(base.path().trim_end_matches('/'))?;
    let id = path.strip_prefix(SECRETS).filter(|id| id.len() == ID_BYTES)?;
    Uuid::try_parse(id).ok().filter(|_| is_same_host)
}

/// Scheme, host and port.
fn origin(uri: &Uri) -> Option<(String, String, u16)> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default = if scheme == "http" { 80 } else { 443 };
    Some((scheme, uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(default)))
}

/// Path of the payload of a secret, below the address of the key manager.
pub(super) fn payload_path(id: Uuid) -> String {
    format!("{SECRETS}{id}/payload")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5f8c2c9e-52f3-4a0b-9f6b-0f5f1f6c9a11";

    #[test]
    fn only_secrets_of_the_configured_key_manager_have_an_id() {
        for (base, reference, is_of_it) in [
            ("https://b.example:9311", "https://b.example:9311/v1/secrets/ID", true),
            ("https://b.example:9311/", "https://B.Example:9311/v1/secrets/ID", true),
            ("https://b.example:9311/v1/", "https://b.example:9311/v1/secrets/ID", true),
            ("https://b.example", "https://b.example:443/v1/secrets/ID", true),
            ("http://b.example:80", "http://b.example/v1/secrets/ID", true),
            ("https://b.example/key-manager", "https://b.example/key-manager/v1/secrets/ID", true),
            ("http://[fd00::1]:9311", "http://[fd00::1]:9311/v1/secrets/ID", true),
            ("https://b.example:9311", "http://b.example:9311/v1/secrets/ID", false),
            ("https://b.example:9311", "https://b.example:9312/v1/secrets/ID", false),
            ("https://b.example:9311", "https://b.example.evil:9311/v1/secrets/ID", false),
            ("https://b.example:9311", "https://evil/b.example:9311/v1/secrets/ID", false),
            ("https://b.example/key-manager", "https://b.example/v1/secrets/ID", false),
            ("https://b.example", "https://b.example/v1/secrets/ID/payload", false),
            ("https://b.example", "https://b.example/v1/secrets/ID/", false),
            ("https://b.example", "https://b.example/v1/secrets/../containers/ID", false),
            ("https://b.example", "https://b.example/v1/containers/ID", false),
            ("https://b.example", "https://b.example/v1/secrets/", false),
            ("https://b.example", "https://b.example/v1/secrets/5f8c2c9e52f34a0b9f6b0f5f1f6c9a11", false),
            ("https://b.example", "https://b.example/v1/secrets/..%2f..%2fv1%2fsecrets%2f5f8c2c9e-52f3-4", false),
            ("", "https://b.example/v1/secrets/ID", false),
        ] {
            let reference = SecretRef::parse(&reference.replace("ID", ID)).expect(reference);
            let id = secret_id(&reference, base).map(|id| id.to_string());
            assert_eq!(id, is_of_it.then(|| ID.to_owned()), "{base} {reference:?}");
        }
    }
}
