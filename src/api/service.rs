//! The routes of an address, behind the checks that each request must pass.
//!
//! It is one function instead of a stack of layers, because each layer of a router costs allocations for each request.
//! The futures of handlers are kept small, too. For each thread, glibc keeps free blocks of at most 1,032 bytes
//! (`MAX_TCACHE_SIZE` in `malloc/malloc.c`). For larger ones, threads wait for each other.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::future::RouteFuture;
use tower::Service as _;

use super::auth::Auth;
use super::listen::{Peer, RequestHandler};
use super::metrics::{Metrics, RequestStart};
use super::{answer_memory, limits, prefix};
use crate::model::RequestId;

/// Header of the request id, which OpenStack clients log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-compute-request-id");

/// Answers requests. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Gated>);

struct Gated {
    router: Router,
    auth: Arc<Auth>,
    /// Counts of requests. `None` if they are not counted.
    metrics: Option<Arc<Metrics>>,
}

impl RequestHandler for Service {
    async fn answer(&self, peer: Peer, request: Request) -> Response {
        let id = RequestId::random();
        let mut response = id.during(self.admit(peer, prefix::strip(request))).await;
        if let Ok(value) = HeaderValue::try_from(id.to_string()) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    }
}

impl Service {
    /// A service that answers the permitted requests, and counts all of them if there are `metrics`.
    pub(super) fn new(router: Router, auth: Arc<Auth>, metrics: Option<Arc<Metrics>>) -> Self {
        Self(Arc::new(Gated { router, auth, metrics }))
    }

    /// Passes on a request that is within the limits and permitted, and counts it.
    async fn admit(&self, peer: Peer, request: Request) -> Response {
        let began = RequestStart::of(&request);
        let admitted = match limits::check(&request) {
            Ok(()) => {
                let (mut parts, body) = request.into_parts();
                let caller = self.0.auth.authenticate(peer, &parts).await;
                caller.map(|caller| {
                    parts.extensions.insert(caller);
                    Request::from_parts(parts, body)
                })
            }
            Err(fault) => Err(fault.into_response()),
        };
        let response = match admitted {
            Ok(request) => {
                let Ok(response) = self.route(request).await;
                response
            }
            Err(refusal) => refusal,
        };
        if let Some(metrics) = &self.0.metrics {
            metrics.count(&began, response.status());
        }
        answer_memory::bounded(response).await
    }

    fn route(&self, mut request: Request) -> RouteFuture<Infallible> {
        if let Some(metrics) = &self.0.metrics {
            // For the handler of the metrics.
            request.extensions_mut().insert(metrics.clone());
        }
        self.0.router.clone().call(request)
    }
}
