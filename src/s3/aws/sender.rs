//! What requests to one bucket are signed and sent with.

use std::sync::Arc;
use std::time::SystemTime;

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

use super::address::BucketAddress;

/// What requests to one bucket are signed and sent with.
#[derive(Debug)]
pub(super) struct RequestSender {
    /// Connections, which buckets with the same client key share.
    pub(super) connector: SharedHttpConnector,
    /// Credentials.
    pub(super) identity: Identity,
    /// Configured region.
    pub(super) region: String,
    pub(super) address: Arc<BucketAddress>,
}

impl RequestSender {
    /// Signs a request as sent at a time.
    ///
    /// # Errors
    /// Why it cannot be signed, such as a header that is not text.
    pub(super) fn sign(&self, request: &mut HttpRequest, time: SystemTime) -> Result<(), BoxError> {
        let mut settings = SigningSettings::default();
        // S3 differs from other services of AWS (Amazon S3 API reference, "Authenticating requests").
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let params = v4::SigningParams::builder()
            .identity(&self.identity)
            .region(&self.address.signing_region)
            .name(&self.address.signing_name)
            .time(time)
            .settings(settings)
            .build()?;
        let body = request.body().bytes().map_or(SignableBody::UnsignedPayload, SignableBody::Bytes);
        let signable = SignableRequest::new(request.method(), request.uri(), request.headers().iter(), body)?;
        let (instructions, _) = sign(signable, &params.into())?.into_parts();
        let (headers, _) = instructions.into_parts();
        for header in headers {
            request.headers_mut().try_insert(header.name(), header.value().to_owned())?;
        }
        Ok(())
    }
}
