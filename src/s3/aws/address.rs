//! Address of a bucket, as the rules of the SDK resolve it.

use aws_sdk_s3::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_smithy_types::Document;
use http::Uri;

use crate::model::cause::innermost_cause;
use crate::model::settings::S3Addressing;
use crate::model::{S3Endpoint, S3Location};
use crate::s3::failure::S3Failure;

/// Scheme of all signatures.
const SCHEME: &str = "sigv4";

/// URL of a bucket, and the scope of signatures of requests to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BucketAddress {
    /// URL of the requests, with the bucket in its host or its path.
    pub(super) url: String,
    /// Service in the scope of signatures.
    pub(super) signing_name: String,
    /// Region in the scope of signatures.
    pub(super) signing_region: String,
}

impl BucketAddress {
    /// Resolves the address of a bucket. Despite [`S3Addressing::Virtual`] the SDK addresses some buckets by path, such
    /// as those of an endpoint that is an IP address.
    ///
    /// # Errors
    /// [`S3Failure::Agent`] when the SDK has no address for the bucket.
    pub(super) async fn resolve(
        location: &S3Location,
        addressing: S3Addressing,
        region: &str,
    ) -> Result<Self, S3Failure> {
        let params = Params::builder()
            .bucket(location.bucket())
            .region(region)
            .set_endpoint(location.endpoint().map(S3Endpoint::url))
            .force_path_style(addressing == S3Addressing::Path)
            // Directory buckets also accept usual signatures (AWS SDKs and Tools Reference Guide, "S3 Express One Zone
            // session authentication"). With a session, each probe would need one more request.
            .disable_s3_express_session_auth(true)
            .build();
        let params = params.map_err(|error| unknown(&error))?;
        let endpoint = DefaultResolver::new().resolve_endpoint(&params).await;
        let endpoint = endpoint.map_err(|error| unknown(&*error))?;
        let scheme = endpoint.auth_schemes().iter().find(|scheme| scheme.name() == SCHEME);
        let scope = |key: &str, otherwise: &str| {
            let named = scheme.and_then(|scheme| scheme.get(key)).and_then(Document::as_string);
            named.unwrap_or(otherwise).to_owned()
        };
        let (signing_name, signing_region) = (scope("signingName", "s3"), scope("signingRegion", region));
        Ok(Self { url: endpoint.url().to_owned(), signing_name, signing_region })
    }

    /// Returns the host, without brackets, and the port to which requests are sent.
    ///
    /// # Errors
    /// [`S3Failure::Agent`] for an address that is not a URL.
    pub(super) fn host_and_port(&self) -> Result<(String, u16), S3Failure> {
        let url: Uri = self.url.parse().map_err(|error| unknown(&error))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
        Ok((host, port))
    }
}

fn unknown(error: &dyn std::error::Error) -> S3Failure {
    S3Failure::Agent(innermost_cause(error))
}
