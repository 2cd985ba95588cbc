//! Which certificate of a service ends first, as the connections for requests show it.
//!
//! A verifier records each chain that it has accepted. So nothing is connected for this purpose, and an end is unknown
//! until the first request. These clients do not resume TLS sessions: the service presents no certificate then, and a
//! renewed one would not be seen.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::chain::earliest_end;
use crate::model::END_ANNOUNCED_BEFORE;
use crate::model::report::CertificateEnd;

/// Certificates of Keystone. A process has one.
pub static KEYSTONE: LazyLock<Arc<ObservedCertificate>> = LazyLock::new(|| ObservedCertificate::of("Keystone"));

/// Certificates of the key manager. A process has one.
pub static KEY_MANAGER: LazyLock<Arc<ObservedCertificate>> =
    LazyLock::new(|| ObservedCertificate::of("the key manager"));

/// Time between two log lines about the same service.
const LOGGED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Certificate of one service that ends first.
#[derive(Debug)]
pub struct ObservedCertificate {
    service: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    url: String,
    end: Option<CertificateEnd>,
    logged_at: Option<Instant>,
}

impl ObservedCertificate {
    /// Nothing is known about the certificates of `service`.
    #[must_use]
    pub fn of(service: &'static str) -> Arc<Self> {
        Arc::new(Self { service, state: Mutex::default() })
    }

    /// Records the address of the service. What is known about another address is dropped.
    pub fn set_url(&self, url: &str) {
        let mut state = self.state();
        if state.url != url {
            *state = State { url: url.to_owned(), ..State::default() };
        }
    }

    /// Returns when the first certificate of the latest chain expires. `None` if that is not known.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.state().end.as_ref().map(|end| end.at)
    }

    /// Returns a warning if a certificate of the latest chain expires soon.
    #[must_use]
    pub fn expiry_warning(&self, now: Timestamp) -> Option<String> {
        self.state().expiry_warning(self.service, now)
    }

    /// Records a chain that was accepted, and logs a warning once a day if it ends soon.
    fn observe(&self, chain: &[CertificateDer<'_>]) {
        let now = Timestamp::now();
        let end = earliest_end(chain, now);
        let mut state = self.state();
        state.end = end;
        let Some(warning) = state.expiry_warning(self.service, now) else {
            state.logged_at = None;
            return;
        };
        if state.logged_at.is_none_or(|logged_at| logged_at.elapsed() >= LOGGED_EVERY) {
            state.logged_at = Some(Instant::now());
            drop(state);
            tracing::warn!("{warning}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the next call that may panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expiry_warning(&self, service: &str, now: Timestamp) -> Option<String> {
        let CertificateEnd { at, subject, position, of } =
            self.end.as_ref().filter(|end| end.at <= now + END_ANNOUNCED_BEFORE)?;
        let expires = if *at > now { "expires" } else { "expired" };
        Some(format!(
            "{service} at {url} presents a certificate with the subject \"{subject}\" ({position} of {of} in its chain) that {expires} at {at:.0}: renew it on the service and on every proxy in front of it",
            url = self.url
        ))
    }
}

/// Accepts the chains that `verifier` accepts, and records them.
#[derive(Debug)]
pub(super) struct ObservingVerifier {
    pub(super) verifier: Arc<WebPkiServerVerifier>,
    pub(super) observed: Arc<ObservedCertificate>,
}

impl ServerCertVerifier for ObservingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        self.observed.observe(&chain);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
