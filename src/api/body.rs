//! Request bodies: read completely within limits of size, time and memory, then decoded ([`decode`]) and converted to a
//! change.
//!
//! All bodies that are being received share a memory budget, so that a thousand clients with large bodies do not
//! exhaust the memory of the agent. The first [`BODY_FREE_BYTES`] of each body are outside the budget, so that clients
//! with large bodies do not block a client with an ordinary body.
//!
//! `null` and usually an empty string mean "not given", because clients send every key they know. But an empty string
//! clears a description, and is refused as a name or a value.

mod decode;
mod json;
mod target;
mod target_type;

use std::time::Duration;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_ENCODING;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use super::fault::Fault;

pub(super) use target::{modification, new_target};
pub(super) use target_type::{
    metadata_to_add, metadata_to_remove, new_type, projects_to_add, projects_to_remove, type_update,
};

/// Largest request body, in bytes.
pub const BODY_MAX_BYTES: usize = 1 << 20;

/// Memory of all request bodies together, without the first [`BODY_FREE_BYTES`] of each, in bytes.
pub const BODIES_MAX_BYTES: usize = 16 << 20;

/// Bytes of each body that are outside the common budget. They are bounded by the number of connections.
pub const BODY_FREE_BYTES: usize = 16 << 10;

/// How long a client may take to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The unused part of [`BODIES_MAX_BYTES`], in bytes.
static BUDGET: Semaphore = Semaphore::const_new(BODIES_MAX_BYTES);

/// A complete request body of a bounded size. It occupies its part of the budget until it is dropped.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Fault;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Fault> {
        let is_encoded = |coding: &&str| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity");
        let codings = request.headers().get_all(CONTENT_ENCODING).iter();
        let mut codings = codings.flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim);
        if let Some(coding) = codings.find(is_encoded) {
            let message = format!("Content-Encoding: {coding:?} is not supported, send the body without an encoding");
            return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        // A body whose announced length is too large is not read.
        if request.body().size_hint().lower() > BODY_MAX_BYTES as u64 {
            return Err(too_large());
        }
        match tokio::time::timeout(BODY_TIMEOUT, read(request.into_body())).await {
            Ok(bytes) => bytes.map(Self),
            Err(_) => Err(Fault::bad_request(format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()))),
        }
    }
}

async fn read(mut body: axum::body::Body) -> Result<Bytes, Fault> {
    let mut received = ReceivedBody::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Fault::bad_request(format!("the body could not be read: {error}")))?;
        // The other kind of frame contains trailers, which mean nothing here.
        if let Ok(data) = frame.into_data() {
            received.append(&data)?;
        }
    }
    Ok(Bytes::from_owner(received))
}

/// The bytes of a body so far, and their part of the budget.
#[derive(Default)]
struct ReceivedBody {
    bytes: Vec<u8>,
    reserved: usize,
}

impl ReceivedBody {
    fn append(&mut self, data: &[u8]) -> Result<(), Fault> {
        let length = self.bytes.len() + data.len();
        if length > BODY_MAX_BYTES {
            return Err(too_large());
        }
        let missing = length.saturating_sub(BODY_FREE_BYTES) - self.reserved;
        let permit = BUDGET.try_acquire_many(u32::try_from(missing).unwrap_or(u32::MAX)).map_err(|_| {
            let message = "the agent is reading too many large request bodies, try again later";
            Fault::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        permit.forget();
        self.reserved += missing;
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl Drop for ReceivedBody {
    fn drop(&mut self) {
        BUDGET.add_permits(self.reserved);
    }
}

impl AsRef<[u8]> for ReceivedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn too_large() -> Fault {
    let message = format!("the body is larger than {BODY_MAX_BYTES} bytes, which is the limit");
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream};

    use super::*;

    async fn body(length: usize) -> Result<Body, Fault> {
        Body::from_request(Request::new(vec![b' '; length].into()), &()).await
    }

    #[tokio::test]
    async fn large_bodies_share_one_memory_budget_and_ordinary_ones_need_none() {
        let mut held = Vec::new();
        let refusal = loop {
            match body(BODY_MAX_BYTES).await {
                Ok(large) => held.push(large),
                Err(refusal) => break refusal,
            }
            assert!(held.len() * (BODY_MAX_BYTES - BODY_FREE_BYTES) <= BODIES_MAX_BYTES, "{} bodies", held.len());
        };
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE, "{refusal}");
        let ordinary = body(BODY_FREE_BYTES).await.expect("an ordinary body");
        assert_eq!(ordinary.0.len(), BODY_FREE_BYTES);
        held.pop();
        body(BODY_MAX_BYTES).await.expect("the budget of a dropped body is free");
        drop(held);
        assert_eq!(BUDGET.available_permits(), BODIES_MAX_BYTES, "the whole budget is free again");

        let part = stream::iter([Ok::<_, std::io::Error>(vec![b' '; BODY_MAX_BYTES / 2])]);
        let stalled = axum::body::Body::from_stream(part.chain(stream::pending()));
        let mut reading = Box::pin(Body::from_request(Request::new(stalled), &()));
        assert!(reading.as_mut().now_or_never().is_none(), "the rest does not arrive");
        assert!(BUDGET.available_permits() < BODIES_MAX_BYTES, "the first half occupies the budget");
        drop(reading);
        assert_eq!(BUDGET.available_permits(), BODIES_MAX_BYTES, "a client that hangs up frees its part");
    }

    #[tokio::test]
    async fn body_with_a_content_encoding_is_refused() {
        for (coding, expected) in [("gzip", Some(415)), ("identity, br", Some(415)), ("Identity", None), ("", None)] {
            let request = Request::builder().header(CONTENT_ENCODING, coding).body("{}".into()).expect("a request");
            let refusal = Body::from_request(request, &()).await.err();
            assert_eq!(refusal.map(|fault| fault.status().as_u16()), expected, "{coding:?}");
        }
    }
}
