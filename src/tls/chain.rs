//! Certificates that a peer presents or a file contains: which of them ends first.
//!
//! The chain is not verified here. Connections for requests do that.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::model::report::CertificateEnd;

/// Most certificates of a chain that are considered. Longer chains are not in use.
pub const CERTIFICATES_MAX: usize = 16;

/// Most characters of a subject that are kept.
const SUBJECT_CHARS_MAX: usize = 200;

/// Protocols that the SDK's client offers.
pub(super) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Returns which certificate of a chain ends first after `now`. A certificate that has ended is left out: a chain that
/// is accepted does not need it. `None` if no end is known, or if a certificate cannot be parsed.
#[must_use]
pub fn earliest_end(chain: &[CertificateDer<'_>], now: Timestamp) -> Option<CertificateEnd> {
    if chain.len() > CERTIFICATES_MAX {
        return None;
    }
    let mut earliest: Option<CertificateEnd> = None;
    for (at, der) in chain.iter().enumerate() {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        // 9999-12-31T23:59:59Z, which means that it does not end (RFC 5280, 4.1.2.5), is not a Timestamp.
        let Ok(end) = Timestamp::from_second(certificate.validity().not_after.timestamp()) else { continue };
        if end > now && earliest.as_ref().is_none_or(|earliest| end < earliest.at) {
            let subject = certificate.subject().to_string();
            let subject = subject.chars().filter(|it| !it.is_control()).take(SUBJECT_CHARS_MAX).collect();
            earliest = Some(CertificateEnd { at: end, subject, position: at + 1, of: chain.len() });
        }
    }
    earliest
}

/// Returns the certificates that a server presents for `host`, a name or an IP address without brackets. `None` if the
/// handshake fails. No data is sent.
pub async fn presented_chain(stream: TcpStream, host: &str) -> Option<Vec<CertificateDer<'static>>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().ok()?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let (_, connection) = stream.get_ref();
    Some(connection.peer_certificates()?.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

/// Accepts every certificate whose key the server has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    fn certificate(name: &str, end: (i32, u8, u8)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(end.0, end.1, end.2);
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
    }

    #[test]
    fn earliest_end_of_a_chain_names_its_certificate() {
        let now: Timestamp = "2026-11-29T00:00:00Z".parse().expect("a time");
        let leaf = certificate("leaf", (2051, 3, 4));
        let end = |chain: &[CertificateDer<'static>]| earliest_end(chain, now);
        let of_leaf = end(std::slice::from_ref(&leaf)).expect("an end");
        assert_eq!(of_leaf.at.to_string(), "2051-03-04T00:00:00Z", "a GeneralizedTime");
        let intermediate = certificate("inter\u{7}mediate", (2026, 12, 11));
        let ended = certificate("ended", (2026, 11, 1));
        let first = end(&[leaf.clone(), intermediate, ended.clone()]).expect("an end");
        assert_eq!((first.position, first.of, first.at.to_string().as_str()), (2, 3, "2026-12-11T00:00:00Z"));
        assert!(first.subject.contains("CN=") && !first.subject.contains('\u{7}'), "{first:?}");
        // Unknown is neither an end nor a failure.
        assert_eq!(end(&[ended]), None);
        assert_eq!(end(&[certificate("endless", (9999, 12, 31))]), None);
        assert_eq!(end(&[leaf.clone(), CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])]), None);
        assert_eq!(end(&vec![leaf; CERTIFICATES_MAX + 1]), None);
        assert_eq!(end(&[]), None);
    }
}
