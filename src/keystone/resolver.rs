//! Addresses of Keystone for its HTTP client. While the name server is slow or down, the latest addresses are used.
//! If Keystone moves during that time, it is not found.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::time::Instant;
use tower::Service;

use crate::sys::resolve::{KEYSTONE, ResolveError};

/// Deadline of a lookup, after which the latest addresses are used.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The agent's resolver as a service for the HTTP client.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResolveKeystone;

impl Service<Name> for ResolveKeystone {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = BoxFuture<'static, Result<Self::Response, ResolveError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = KEYSTONE.resolve_or_latest(name.as_str(), Instant::now() + LOOKUP_TIMEOUT).await;
            found.map(IntoIterator::into_iter)
        })
    }
}
