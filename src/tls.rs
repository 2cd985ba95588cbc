//! TLS with rustls and ring, from files that may be replaced while the agent runs.
//!
//! Each configuration names its cryptography provider, so that no crate of the build chooses one for the whole process.
//! A server reads its files again on demand ([`ServerTls::reload`]). If the new files are wrong, the old ones stay in
//! use.

pub mod chain;
pub mod observed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::model::END_ANNOUNCED_BEFORE;
use crate::model::report::CertificateEnd;
use crate::model::settings::TlsSettings;
use crate::sys::secret_file::{FileError, read_private, read_public};
use observed::{ObservedCertificate, ObservingVerifier};

/// Protocol name for ALPN (RFC 7301).
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why TLS cannot be set up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file has unexpected content.
    #[error("{path} {problem}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Problem, as the end of a sentence.
        problem: String,
    },
    /// This build does not support the configuration.
    #[error("TLS cannot be set up: {0}")]
    Unusable(#[from] rustls::Error),
}

/// TLS of a server: its certificate, and the authorities of its clients.
#[derive(Debug)]
pub struct ServerTls {
    settings: TlsSettings,
    files: ArcSwap<ServerFiles>,
}

/// Content of the files that were read last.
#[derive(Debug)]
struct ServerFiles {
    config: Arc<ServerConfig>,
    certificate_end: Option<CertificateEnd>,
}

impl ServerTls {
    /// Reads certificate, key and the authorities of clients.
    ///
    /// # Errors
    /// [`TlsError`] for the first file that cannot be used.
    pub async fn load(settings: TlsSettings) -> Result<Self, TlsError> {
        let files = ArcSwap::from_pointee(read_files(&settings).await?);
        Ok(Self { settings, files })
    }

    /// Reads the files again. Open connections are not affected.
    ///
    /// # Errors
    /// [`TlsError`] for the first file that cannot be used. The old files then stay in use.
    pub async fn reload(&self) -> Result<(), TlsError> {
        self.files.store(Arc::new(read_files(&self.settings).await?));
        Ok(())
    }

    /// Returns an acceptor of connections that uses the files that were read last.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.files.load().config.clone())
    }

    /// Returns when the first certificate of the chain in use expires, or expired. `None` if that is not known.
    #[must_use]
    pub fn certificate_expires_at(&self) -> Option<Timestamp> {
        self.files.load().certificate_end.as_ref().map(|end| end.at)
    }

    /// Returns a warning if a certificate of the chain in use expires soon, or has expired.
    #[must_use]
    pub fn expiry_warning(&self, now: Timestamp) -> Option<String> {
        let files = self.files.load();
        let CertificateEnd { at, subject, .. } =
            files.certificate_end.as_ref().filter(|end| end.at <= now + END_ANNOUNCED_BEFORE)?;
        let path = self.settings.certificate.display();
        let expires = if *at > now { "expires" } else { "expired" };
        Some(format!(
            "{path} contains a certificate with the subject \"{subject}\" that {expires} at {at:.0}: renew it, and reload the agent (`systemctl reload targetwatch`)"
        ))
    }
}

async fn read_files(settings: &TlsSettings) -> Result<ServerFiles, TlsError> {
    let (chain, key) = read_identity(&settings.certificate, &settings.key).await?;
    // Clients decide whether they need a certificate that has expired.
    let certificate_end = chain::earliest_end(&chain, Timestamp::MIN);
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let (_, roots) = read_authorities(path).await?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier =
                if settings.require_client_certificate { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| content(path, format!("cannot be used: {error}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|error| mismatch(&settings.certificate, &settings.key, &error))?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(ServerFiles { config: Arc::new(config), certificate_end })
}

async fn read_identity(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&read_public(certificate).await?).map_err(|problem| content(certificate, problem))?;
    let private = PrivateKeyDer::from_pem_slice(&read_private(key).await?)
        .map_err(|error| content(key, format!("contains no private key in PEM: {error}")))?;
    Ok((chain, private))
}

fn mismatch(certificate: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    content(certificate, format!("and {} do not belong together: {error}", key.display()))
}

/// Returns the TLS configuration of a client. It trusts the system's authorities and those of the PEM file
/// `ca_bundle`. It presents the certificate of `identity`: the files of a certificate and of its key.
///
/// # Errors
/// [`TlsError`] when a file cannot be used. Unusable authorities of the system are skipped.
pub async fn client_config(
    ca_bundle: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(trusted_roots(ca_bundle).await?);
    let Some((certificate, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain, private) = read_identity(certificate, key).await?;
    builder.with_client_auth_cert(chain, private).map_err(|error| mismatch(certificate, key, &error))
}

/// Returns the TLS configuration of a client without a certificate that records the certificates of its service. It
/// trusts the same authorities as that of [`client_config`].
///
/// # Errors
/// [`TlsError`] when the bundle cannot be used.
pub async fn observing_client_config(
    ca_bundle: Option<&Path>,
    observed: &Arc<ObservedCertificate>,
) -> Result<ClientConfig, TlsError> {
    let roots = Arc::new(trusted_roots(ca_bundle).await?);
    // Fails without any authority, and then no chain is accepted.
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(roots, provider()).build() else {
        return without_authorities();
    };
    let verifier = ObservingVerifier { verifier, observed: observed.clone() };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Returns the TLS configuration of handshakes without a request. It trusts the system's authorities and those of the
/// PEM text `ca_bundle`, and sees the current certificate of the server, because it resumes no session.
///
/// # Errors
/// [`TlsError`] when this build does not support TLS. Unusable authorities are skipped.
pub fn handshake_config(ca_bundle: Option<&[u8]>) -> Result<ClientConfig, TlsError> {
    let roots = with_system_authorities(ca_bundle.and_then(|pem| parse_authorities(pem).ok()));
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = chain::PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// Whether a handshake with a server succeeds. `host` is a name or an IP address without brackets. No data is sent. The
/// caller sets a deadline.
pub async fn is_accepted(config: Arc<ClientConfig>, stream: TcpStream, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host.to_owned()) else { return false };
    let Ok(mut stream) = TlsConnector::from(config).connect(name, stream).await else { return false };
    // The alert of a server that refuses the client is of no interest, because requests follow on other connections.
    let _ = stream.shutdown().await;
    true
}

/// Authorities of the system, and those of the PEM file `ca_bundle`.
async fn trusted_roots(ca_bundle: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let own = match ca_bundle {
        Some(path) => Some(read_authorities(path).await?.1),
        None => None,
    };
    Ok(with_system_authorities(own))
}

fn with_system_authorities(own: Option<RootCertStore>) -> RootCertStore {
    let mut roots = own.unwrap_or_else(RootCertStore::empty);
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Returns a TLS configuration that trusts no authority, for a client that never uses TLS.
///
/// # Errors
/// [`TlsError`] when this build does not support TLS.
pub fn without_authorities() -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads a PEM file of certificate authorities. Returns its text and the authorities.
///
/// # Errors
/// [`TlsError`] when the file cannot be read, or contains no certificate or an unusable one.
pub async fn read_authorities(path: &Path) -> Result<(Vec<u8>, RootCertStore), TlsError> {
    let pem = read_public(path).await?;
    let roots = parse_authorities(&pem).map_err(|problem| content(path, problem))?;
    Ok((pem, roots))
}

/// Parses PEM text of certificate authorities.
///
/// # Errors
/// Problem, as the end of a sentence, when the text contains no certificate or an unusable one.
pub fn parse_authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("contains a certificate that cannot be used: {error}"))?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("is not PEM: {error}"))?;
    if found.is_empty() {
        return Err("contains no certificate in PEM".to_owned());
    }
    Ok(found)
}

fn content(path: &Path, problem: String) -> TlsError {
    TlsError::Content { path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests;
