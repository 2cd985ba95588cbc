//! HTTP/1.1 client for services other than storage: Keystone, the key manager, the receivers of notifications, and the
//! agents that an aggregator polls.
//!
//! Names are resolved by a resolver of the caller's choice, so that lookups that hang for one service do not delay
//! another. While the name server is slow or down, the latest addresses are used. If the service moves during that
//! time, it is not found. Redirects are not followed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tower::Service;

use crate::sys::resolve::{ResolveError, Resolver};
use crate::tls::observed::ObservedCertificate;
use crate::tls::{self, TlsError};

/// How long an unused connection is kept. Web servers close unused connections after a few seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Largest number of unused connections.
const IDLE_MAX: usize = 16;

/// Deadline of a connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Deadline of a lookup, after which the latest addresses are used.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Client that reuses its connections.
pub type HttpClient = Client<HttpsConnector<HttpConnector<Resolve>>, Full<Bytes>>;

/// Creates a client of the service at `url`. Sends nothing yet. `ca_bundle` is trusted in addition to the system's
/// authorities. `observed` records the certificates of the service.
///
/// # Errors
/// [`TlsError`] when the bundle cannot be used.
pub async fn client(
    url: &str,
    ca_bundle: Option<&Path>,
    resolver: Resolver,
    observed: Option<&Arc<ObservedCertificate>>,
) -> Result<HttpClient, TlsError> {
    if let Some(observed) = observed {
        observed.set_url(url);
    }
    let config = match observed {
        _ if !url.starts_with("https:") => tls::without_authorities()?,
        Some(observed) => tls::observing_client_config(ca_bundle, observed).await?,
        None => tls::client_config(ca_bundle, None).await?,
    };
    let mut connector = HttpConnector::new_with_resolver(Resolve(resolver));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_MAX)
        .build(connector))
}

/// A resolver of the agent as a service for the HTTP client.
#[derive(Debug, Clone)]
pub struct Resolve(Resolver);

impl Service<Name> for Resolve {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = BoxFuture<'static, Result<Self::Response, ResolveError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.0.clone();
        Box::pin(async move {
            let found = resolver.resolve_or_latest(name.as_str(), Instant::now() + LOOKUP_TIMEOUT).await;
            found.map(IntoIterator::into_iter)
        })
    }
}
