//! JSON answers that many clients get: with a tag, and compressed on the first request that accepts gzip.

use std::io;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::OnceCell;

use super::gzip::gzip;
use super::negotiation::{is_compressed, is_known};
use super::pieces::{Pieces, PiecesBuilder};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const BY_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// An answer. Its bytes are shared by all responses.
pub(crate) struct JsonAnswer {
    pub(super) body: Pieces,
    /// A weak tag, because the compressed body has the same one.
    pub(super) etag: HeaderValue,
    gzip: OnceCell<Pieces>,
}

impl JsonAnswer {
    /// An answer whose tag is made of a hash.
    pub(super) fn new(body: Pieces, hash: u64) -> Self {
        let etag = HeaderValue::try_from(format!("W/\"{hash:016x}\""));
        let etag = etag.unwrap_or(HeaderValue::from_static("W/\"\""));
        Self { body, etag, gzip: OnceCell::new() }
    }

    /// An answer with this content.
    pub(crate) fn of(content: &impl Serialize, hash: u64) -> serde_json::Result<Self> {
        let mut body = PiecesBuilder::default();
        serde_json::to_writer(&mut body, content)?;
        Ok(Self::new(body.finish(), hash))
    }

    /// Size of the body and of the compressed body, if there is one, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.body.len() + self.gzip.get().map_or(0, Pieces::len)
    }

    /// Answers a request with these headers: with 304 when the client has the answer.
    pub(crate) async fn answer(&self, headers: &HeaderMap) -> io::Result<Response> {
        if is_known(headers, &self.etag) {
            return Ok((StatusCode::NOT_MODIFIED, [(ETAG, self.etag.clone()), (VARY, BY_ENCODING)]).into_response());
        }
        let compressed = match self.gzip.get() {
            _ if !is_compressed(self.body.len(), headers) => None,
            Some(compressed) => Some(compressed.clone()),
            // Boxed, because it happens once for each answer.
            None => Some(Box::pin(self.gzip.get_or_try_init(|| gzip(self.body.pieces()))).await?.clone()),
        };
        let described = [(CONTENT_TYPE, JSON), (ETAG, self.etag.clone()), (VARY, BY_ENCODING)];
        Ok(match compressed {
            None => (described, self.body.clone()).into_response(),
            Some(compressed) => (described, [(CONTENT_ENCODING, GZIP)], compressed).into_response(),
        })
    }
}
