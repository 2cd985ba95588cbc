//! Connections, and the certificate authorities that they trust.

use std::path::Path;

use aws_smithy_http_client::tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::s3::S3Failure;

/// Reads a bundle and makes sure of it: the SDK would panic over a certificate that is none.
pub(super) async fn read_ca_bundle(path: &Path) -> Result<Vec<u8>, S3Failure> {
    let unusable = |why: String| S3Failure::Tls(format!("ca_bundle {} {why}", path.display()));
    let pem = tokio::fs::read(path).await.map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(format!("is not PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(format!("holds a certificate that cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(unusable("holds no certificate".to_owned()));
    }
    Ok(pem)
}

/// A pool of connections, without TLS or with it.
///
/// # Errors
/// [`S3Failure::Tls`].
pub(super) fn http_client(plain: bool, ca_bundle: Option<&[u8]>) -> Result<SharedHttpClient, S3Failure> {
    let builder = aws_smithy_http_client::Builder::new();
    if plain {
        return Ok(builder.build_http());
    }
    let mut trust = TrustStore::default();
    if let Some(pem) = ca_bundle {
        trust = trust.with_pem_certificate(pem);
    }
    let context =
        TlsContext::builder().with_trust_store(trust).build().map_err(|error| S3Failure::Tls(error.to_string()))?;
    Ok(builder.tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https())
}
