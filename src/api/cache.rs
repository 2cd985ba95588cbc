//! The list of targets as bytes: made once for each generation of the view, however many poll it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::http::HeaderValue;

use super::wire;
use crate::agent::View;

/// The latest list that was asked for.
#[derive(Default)]
pub(super) struct ListCache {
    latest: ArcSwapOption<List>,
}

/// The list of one generation.
pub(super) struct List {
    generation: u64,
    /// The body of the answer.
    pub(super) body: Bytes,
    /// What changes when the body does.
    pub(super) tag: HeaderValue,
}

impl ListCache {
    /// The list of this view.
    pub(super) fn of(&self, view: &View) -> Result<Arc<List>, serde_json::Error> {
        if let Some(list) = self.latest.load_full().filter(|list| list.generation == view.generation) {
            return Ok(list);
        }
        let body: Bytes = serde_json::to_vec(&wire::TargetList::from(view))?.into();
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        let tag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""));
        let list = Arc::new(List { generation: view.generation, body, tag });
        self.latest.store(Some(list.clone()));
        Ok(list)
    }
}
