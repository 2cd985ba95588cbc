//! Cache of rendered lists: each list is rendered once for each generation of the view, however many
//! clients poll it.
//!
//! One entry serves all callers who may see everything, which is every caller while all types are public.
//! Other callers share an entry with their project. An entry changes like this:
//!
//! ```text
//! absent ──first request──▶ rendered ──view has another generation──▶ rendered, with the unchanged parts reused
//!   ▲                          │  └────first request that accepts gzip──▶ rendered and compressed
//!   └──least recently used─────┘
//! ```
//!
//! Requests for an entry that is being rendered wait for it. Entries are bounded in number and in bytes. The list of an
//! entry is dropped after [`UNUSED_MAX`] without a request. [`rendered`] contains the pure part.

pub(super) mod rendered;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use lru::LruCache;
use uuid::Uuid;

use super::fault::Fault;
use super::page::{Page, unknown_marker};
use crate::agent::View;
use crate::model::Caller;
use rendered::{RenderedItem, RenderedList};

/// Largest number of entries of one list.
const ENTRIES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// Largest size of all entries of one list together, plain and compressed, in bytes. Only the entry of the latest
/// request may exceed it.
const ENTRIES_MAX_BYTES: usize = 64 << 20;

/// Time without a request after which a list may be dropped. It is dropped after twice this time at the latest. By
/// default, every NFS target has then been probed again, so that most items have changed.
const UNUSED_MAX: Duration = Duration::from_secs(5);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The content of a list, and its JSON form.
pub(super) struct ListSource<T> {
    /// The key of the answer above the list.
    pub(super) key: &'static str,
    /// Further fields of the answer, each after a comma.
    pub(super) more: String,
    /// Generation of the content. Views of the same generation have the same content.
    pub(super) generation: fn(&View) -> u64,
    /// The items that a caller sees of a view.
    pub(super) items: for<'a> fn(&Caller, &'a View) -> Vec<&'a Arc<T>>,
    /// Id of an item.
    pub(super) id: fn(&T) -> Uuid,
    /// Renders one item as JSON.
    pub(super) render: fn(&Caller, &T) -> serde_json::Result<RenderedItem>,
}

/// The most recently requested entries of one list.
pub(super) struct ListCache<T> {
    source: ListSource<T>,
    max_bytes: usize,
    entries: Mutex<LruCache<Viewer, Arc<Entry<T>>>>,
}

/// The list of one viewer.
struct Entry<T> {
    /// Generation and list. `None` until the first request.
    current: tokio::sync::Mutex<Option<(u64, Arc<RenderedList<T>>)>>,
    bytes: AtomicUsize,
    /// Whether the list was requested since [`drop_when_unused`] last looked.
    is_used: AtomicBool,
}

/// A group of callers that see the same list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Viewer {
    /// Callers that see everything.
    All,
    /// Members of a project, or of none.
    Project(Option<String>),
}

impl<T: Send + Sync + 'static> ListCache<T> {
    /// An empty cache of a list.
    pub(super) fn new(source: ListSource<T>) -> Self {
        Self { source, max_bytes: ENTRIES_MAX_BYTES, entries: Mutex::new(LruCache::new(ENTRIES_MAX)) }
    }

    /// Answers with the list that a caller sees of a view, or with 304 when the client has that list.
    pub(super) async fn answer(
        &self,
        caller: &Caller,
        view: &View,
        page: Page,
        headers: &HeaderMap,
    ) -> Result<Response, Fault> {
        if page != Page::WHOLE {
            return self.page(caller, view, page);
        }
        let entry = self.entry(viewer(caller, view));
        let list = self.list(&entry, caller, view).await.map_err(|error| failed("rendered", &error))?;
        let answer = list.json.answer(headers).await.map_err(|error| failed("compressed", &error))?;
        // It may have been compressed.
        self.record_bytes(&entry, &list);
        Ok(answer)
    }

    /// Answers with a page of the list. Pages are not cached.
    fn page(&self, caller: &Caller, view: &View, page: Page) -> Result<Response, Fault> {
        let items = (self.source.items)(caller, view);
        let start = match page.marker {
            None => 0,
            Some(marker) => {
                let last = items.iter().position(|item| (self.source.id)(item) == marker);
                last.ok_or_else(|| unknown_marker(&marker.to_string()))? + 1
            }
        };
        let limit = page.limit.map_or(usize::MAX, NonZeroUsize::get);
        let items: Vec<_> = items.into_iter().skip(start).take(limit).collect();
        let frame = (self.source.key, &*self.source.more);
        let list = RenderedList::new(frame, &items, None, |item| (self.source.render)(caller, item));
        let list = list.map_err(|error| failed("rendered", &error))?;
        Ok(([(CONTENT_TYPE, JSON)], list.json.body).into_response())
    }

    async fn list(
        &self,
        entry: &Arc<Entry<T>>,
        caller: &Caller,
        view: &View,
    ) -> serde_json::Result<Arc<RenderedList<T>>> {
        entry.is_used.store(true, Ordering::Relaxed);
        let mut current = entry.current.lock().await;
        let generation = (self.source.generation)(view);
        // The entry was chosen for this view. A list of a later view may contain items that this caller must not see.
        if let Some((_, list)) = current.as_ref().filter(|(rendered, _)| *rendered == generation) {
            return Ok(list.clone());
        }
        let items = (self.source.items)(caller, view);
        let previous = current.as_ref().map(|(_, list)| &**list);
        let render = |item: &T| (self.source.render)(caller, item);
        let frame = (self.source.key, &*self.source.more);
        let list = Arc::new(RenderedList::new(frame, &items, previous, render)?);
        if current.replace((generation, list.clone())).is_none() {
            tokio::spawn(drop_when_unused(Arc::downgrade(entry)));
        }
        self.record_bytes(entry, &list);
        Ok(list)
    }

    fn entry(&self, viewer: Viewer) -> Arc<Entry<T>> {
        self.entries().get_or_insert(viewer, Arc::default).clone()
    }

    /// Records the bytes of an entry's list, and evicts other entries when they no longer fit.
    fn record_bytes(&self, entry: &Entry<T>, list: &RenderedList<T>) {
        let bytes = list.bytes();
        if entry.bytes.swap(bytes, Ordering::Relaxed) != bytes {
            self.evict();
        }
    }

    /// Removes the least recently used entries until the others fit.
    fn evict(&self) {
        let mut entries = self.entries();
        let bytes = |entries: &LruCache<_, Arc<Entry<T>>>| -> usize {
            entries.iter().map(|(_, entry)| entry.bytes.load(Ordering::Relaxed)).sum()
        };
        while entries.len() > 1 && bytes(&entries) > self.max_bytes {
            entries.pop_lru();
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, LruCache<Viewer, Arc<Entry<T>>>> {
        // Every change is a single call, so a panic leaves nothing half done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self { current: tokio::sync::Mutex::new(None), bytes: AtomicUsize::new(0), is_used: AtomicBool::new(false) }
    }
}

/// Drops the list of an entry after [`UNUSED_MAX`] to twice that time without a request.
async fn drop_when_unused<T>(entry: Weak<Entry<T>>) {
    loop {
        tokio::time::sleep(UNUSED_MAX).await;
        let Some(entry) = entry.upgrade() else { return };
        let mut current = entry.current.lock().await;
        if !entry.is_used.swap(false, Ordering::Relaxed) {
            *current = None;
            entry.bytes.store(0, Ordering::Relaxed);
            return;
        }
    }
}

fn viewer(caller: &Caller, view: &View) -> Viewer {
    if caller.is_admin || !view.has_restricted_types { Viewer::All } else { Viewer::Project(caller.project_id.clone()) }
}

fn failed(what: &str, error: &dyn std::error::Error) -> Fault {
    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the list cannot be {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use axum::http::header::ACCEPT_ENCODING;

    use super::*;
    use crate::api::gzip::GZIP_MIN_BYTES;

    async fn request(cache: &ListCache<String>, view: &View, project: String, headers: &HeaderMap) {
        let caller = Caller { user_id: None, project_id: Some(project), is_admin: false };
        cache.answer(&caller, view, Page::WHOLE, headers).await.expect("a list");
    }

    fn kept_bytes(cache: &ListCache<String>) -> usize {
        cache.entries().iter().map(|(_, entry)| entry.bytes.load(Ordering::Relaxed)).sum()
    }

    /// A list of one text, which is the project of the caller.
    fn cache(max_bytes: usize) -> ListCache<String> {
        let source = ListSource {
            key: "names",
            more: String::new(),
            generation: |view| view.generation,
            items: |_, _| vec![Box::leak(Box::new(Arc::new(String::new())))],
            id: |_| Uuid::nil(),
            render: |caller, _| serde_json::to_vec(&caller.project_id).map(RenderedItem::from),
        };
        ListCache { max_bytes, ..ListCache::new(source) }
    }

    #[tokio::test]
    async fn cache_evicts_least_recently_used_entries_above_its_bytes() {
        let cache = cache(1000);
        let restricted = crate::api::tests::view_with_a_restricted_type();
        for number in 0..20 {
            let project = format!("{number}{}", "x".repeat(300));
            request(&cache, &restricted, project, &HeaderMap::new()).await;
            let kept = kept_bytes(&cache);
            assert!((300..=1000).contains(&kept), "{kept} bytes after {number}");
        }
        request(&cache, &restricted, "x".repeat(5000), &HeaderMap::new()).await;
        assert_eq!(cache.entries().len(), 1, "an entry that is too large alone is kept until the next one");
    }

    #[tokio::test(start_paused = true)]
    async fn list_is_dropped_when_nobody_requests_it() {
        let cache = cache(1 << 20);
        let restricted = crate::api::tests::view_with_a_restricted_type();
        for _ in 0..4 {
            request(&cache, &restricted, "x".to_owned(), &HeaderMap::new()).await;
            tokio::time::sleep(UNUSED_MAX * 3 / 4).await;
            assert!(kept_bytes(&cache) > 0, "in use");
        }
        tokio::time::sleep(UNUSED_MAX * 2).await;
        assert_eq!(kept_bytes(&cache), 0);
        request(&cache, &restricted, "x".to_owned(), &HeaderMap::new()).await;
        assert!(kept_bytes(&cache) > 0, "rendered again");
    }

    #[tokio::test]
    async fn compressed_lists_count_toward_the_limit() {
        let cache = cache(1 << 20);
        let restricted = crate::api::tests::view_with_a_restricted_type();
        let project = "x".repeat(GZIP_MIN_BYTES);
        request(&cache, &restricted, project.clone(), &HeaderMap::new()).await;
        let plain = kept_bytes(&cache);
        request(
            &cache,
            &restricted,
            project,
            &HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]),
        )
        .await;
        assert!(kept_bytes(&cache) > plain, "{plain} bytes before");
    }
}
