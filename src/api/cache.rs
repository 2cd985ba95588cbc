//! Lists as bytes: made once for each generation of the view, however many poll them.
//!
//! What is kept is what an admin sees. As long as every type is public that is what everybody sees;
//! who may see less gets a list of their own, which is not kept.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::fault::Fault;
use crate::agent::View;
use crate::model::Caller;

/// Writes the list that a caller sees of a view.
type Write = fn(&Caller, &View) -> serde_json::Result<Vec<u8>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The latest list that was asked for.
pub(super) struct ListCache {
    write: Write,
    latest: ArcSwapOption<List>,
}

/// The list of one generation.
struct List {
    generation: u64,
    /// Whether everybody sees the same.
    is_for_all: bool,
    /// The body of the answer.
    body: Bytes,
    /// What changes when the body does.
    tag: HeaderValue,
}

impl ListCache {
    /// A cache of the lists that `write` makes.
    pub(super) fn new(write: Write) -> Self {
        Self { write, latest: ArcSwapOption::empty() }
    }

    /// Answers with the list that a caller sees of a view, or that it has not changed.
    pub(super) fn answer(&self, caller: &Caller, view: &View, headers: &HeaderMap) -> Result<Response, Fault> {
        let list = self.of(caller, view).map_err(|error| {
            Fault::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the list cannot be written as JSON: {error}"))
        })?;
        let tag = list.tag.clone();
        if headers.get(IF_NONE_MATCH).is_some_and(|known| *known == tag) {
            return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
        }
        Ok(([(CONTENT_TYPE, JSON), (ETAG, tag)], list.body.clone()).into_response())
    }

    fn of(&self, caller: &Caller, view: &View) -> serde_json::Result<Arc<List>> {
        let list = match self.latest.load_full().filter(|list| list.generation == view.generation) {
            Some(list) => list,
            None => {
                let list = Arc::new(self.make(&Caller::local(), view)?);
                self.latest.store(Some(list.clone()));
                list
            }
        };
        if caller.is_admin || list.is_for_all { Ok(list) } else { self.make(caller, view).map(Arc::new) }
    }

    fn make(&self, caller: &Caller, view: &View) -> serde_json::Result<List> {
        let body: Bytes = (self.write)(caller, view)?.into();
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        let tag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""));
        let is_for_all = view.targets.iter().flat_map(|target| &target.types).all(|found| found.is_public);
        Ok(List { generation: view.generation, is_for_all, body, tag })
    }
}
