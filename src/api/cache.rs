//! Cache of rendered lists: each list is rendered once for each state of the view, however many clients
//! poll it.
//!
//! One entry serves all callers who may see everything, which is every caller while all types are public.
//! For other callers there is an entry for each project, and the latest few are kept. The first request
//! renders a list, and concurrent requests wait for it. The same holds for its gzipped form.

mod list;
mod negotiation;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use lru::LruCache;

use super::fault::Fault;
use crate::agent::View;
use crate::model::Caller;
use list::List;

pub(super) use list::Writer;

/// Of how many viewers a list is kept.
const VIEWERS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// The smallest list that is worth compressing, in bytes: about what one packet carries.
const GZIP_MIN_BYTES: usize = 1400;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const BY_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// What a list shows, and how it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// The generation of what it shows of a view.
    pub(super) generation: fn(&View) -> u64,
    /// How what a caller sees of a view is written.
    pub(super) writer: Writer,
}

/// The most recently requested lists of one kind.
pub(super) struct ListCache {
    kind: Kind,
    latest: Mutex<LruCache<Viewer, Arc<List>>>,
}

/// Who sees the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Viewer {
    /// Who sees everything.
    OfAll,
    /// The members of a project, or of none.
    OfProject(Option<String>),
}

impl ListCache {
    /// A cache of lists of a kind.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, latest: Mutex::new(LruCache::new(VIEWERS_MAX)) }
    }

    /// Answers with the list that a caller sees of a view, or that it has not changed.
    pub(super) async fn answer(&self, caller: &Caller, view: &View, headers: &HeaderMap) -> Result<Response, Fault> {
        let list = self.of(viewer(caller, view), (self.kind.generation)(view));
        let made = list.plain(self.kind.writer, caller, view).await?;
        let tag = made.tag.clone();
        if negotiation::is_known(headers, &tag) {
            return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag), (VARY, BY_ENCODING)]).into_response());
        }
        let described = [(CONTENT_TYPE, JSON), (ETAG, tag), (VARY, BY_ENCODING)];
        if made.body.len() < GZIP_MIN_BYTES || !negotiation::takes_gzip(headers) {
            return Ok((described, made.body.clone()).into_response());
        }
        let compressed = list.gzip(&made.body).await?;
        Ok((described, [(CONTENT_ENCODING, GZIP)], compressed).into_response())
    }

    /// The list of a generation, made or not. A later one will not do: what everybody saw of this one
    /// may be for some only by then.
    fn of(&self, viewer: Viewer, generation: u64) -> Arc<List> {
        // Every change is a single insert: nothing is half done after a panic.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.get(&viewer);
        if let Some(list) = known.filter(|list| list.generation == generation) {
            return list.clone();
        }
        let list = Arc::new(List::after(known.map(|list| &**list), generation));
        latest.put(viewer, list.clone());
        list
    }
}

fn viewer(caller: &Caller, view: &View) -> Viewer {
    let mut types = view.targets.iter().flat_map(|target| target.types.iter());
    if caller.is_admin || types.all(|found| found.is_public) {
        Viewer::OfAll
    } else {
        Viewer::OfProject(caller.project_id.clone())
    }
}
