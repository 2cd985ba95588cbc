//! Connections: trusted certificate authorities, name resolution and proxies.
//!
//! Proxies come from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), as for other S3 clients. The
//! address of a proxy may contain a password, so only its host and port are shown.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::{SharedHttpClient, SharedHttpConnector};
use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::time::Instant;

use crate::s3::failure::S3Failure;
use crate::sys::resolve::STORAGE;
use crate::tls;

/// Most idle connections to one service that are kept open.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// Deadline of a name lookup by the SDK. Callers usually set a shorter deadline for the whole call.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads and verifies a bundle, so that the failure names the file.
pub(super) async fn read_ca_bundle(path: &Path) -> Result<Vec<u8>, S3Failure> {
    tls::read_authorities(path).await.map(|(pem, _)| pem).map_err(|error| S3Failure::Tls(format!("ca_bundle {error}")))
}

/// Adapter of the agent's resolver to the SDK.
#[derive(Debug, Clone, Copy)]
struct ResolveStorage;

impl ResolveDns for ResolveStorage {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = STORAGE.resolve(name, Instant::now() + LOOKUP_TIMEOUT).await;
            found.map(|found| found.iter().map(SocketAddr::ip).collect()).map_err(ResolveDnsError::new)
        })
    }
}

/// Creates the connection pool of requests to a service. It reads the authorities of the system, if they are trusted.
pub(super) fn connector(context: &TlsContext) -> SharedHttpConnector {
    SharedHttpConnector::new(build(connector_builder(), context))
}

/// Creates the connection pools with which the SDK reads credentials.
pub(super) fn http_client(context: TlsContext) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = connector_builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        build(connector, &context)
    })
}

fn connector_builder() -> ConnectorBuilder {
    Connector::builder().proxy_config(ProxyConfig::from_env()).pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
}

fn build(connector: ConnectorBuilder, context: &TlsContext) -> Connector {
    connector
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context.clone())
        .build_with_resolver(ResolveStorage)
}

/// Returns the host and port of the proxy for a service, if there is one.
///
/// # Errors
/// [`S3Failure::Agent`] for an unsupported proxy, such as SOCKS.
pub(super) fn proxy_to(host: &str, port: u16, plain: bool) -> Result<Option<(String, u16)>, S3Failure> {
    let scheme = if plain { "http" } else { "https" };
    let Some(intercepted) = intercept(host, port, scheme) else {
        return Ok(None);
    };
    let proxy = intercepted.uri();
    let port = match proxy.scheme_str() {
        Some("http") => 80,
        // The client of a plain service trusts no authority, so it has no TLS to a proxy either.
        Some("https") if !plain => 443,
        other => {
            return Err(S3Failure::Agent(format!(
                "the environment names a proxy for {host} by {}://, but for {scheme}:// the agent supports only {}: correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, or except {host} in NO_PROXY",
                other.unwrap_or_default(),
                if plain { "http:// proxies" } else { "http:// and https:// proxies" }
            )));
        }
    };
    let address = proxy.host().map(|host| host.trim_matches(['[', ']']).to_owned());
    Ok(address.map(|address| (address, proxy.port_u16().unwrap_or(port))))
}

/// Returns the proxy that the environment names for a service, if there is one. It may contain a password.
pub(super) fn intercept(host: &str, port: u16, scheme: &str) -> Option<Intercept> {
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let service = format!("{scheme}://{bracketed}:{port}/").parse::<Uri>().ok()?;
    Matcher::from_env().intercept(&service)
}

/// Returns the trusted authorities. A plain service needs no authority, and reading the system's takes time and memory.
/// So TLS fails without an authority.
///
/// # Errors
/// [`S3Failure::Tls`].
pub(super) fn tls_context(plain: bool, ca_bundle: Option<&[u8]>) -> Result<TlsContext, S3Failure> {
    let mut trust = if plain { TrustStore::empty() } else { TrustStore::default() };
    if let Some(pem) = ca_bundle.filter(|_| !plain) {
        // The SDK panics at a bundle that it cannot use.
        tls::parse_authorities(pem).map_err(|problem| S3Failure::Tls(format!("the CA bundle {problem}")))?;
        trust = trust.with_pem_certificate(pem);
    }
    TlsContext::builder().with_trust_store(trust).build().map_err(|error| S3Failure::Tls(error.to_string()))
}
