//! Lists as bytes: made once for each state of what they show, however many poll them.
//!
//! A list is kept for everybody who sees all of it, and as long as every type is public that is
//! everybody. Who may see less has a list of their own project, of which the latest few are kept.
//! Whoever comes first makes a list, and the others wait for it instead of making it again; the same
//! holds for its compressed form.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use headers::{HeaderMapExt as _, IfNoneMatch};
use lru::LruCache;
use tokio::sync::OnceCell;

use super::fault::Fault;
use crate::agent::View;
use crate::model::Caller;

/// Of how many viewers a list is kept.
const VIEWERS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// The smallest list that is worth compressing, in bytes: about what one packet carries.
const GZIP_MIN_BYTES: usize = 1400;

/// How much is compressed at a time, in bytes: well under a millisecond's work.
const GZIP_PIECE_BYTES: usize = 32 << 10;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const BY_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// What a list shows, and how it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// The generation of what it shows of a view.
    pub(super) generation: fn(&View) -> u64,
    /// Writes what a caller sees of a view, as JSON.
    pub(super) write: fn(&Caller, &View) -> serde_json::Result<Vec<u8>>,
}

/// The latest lists of one kind that were asked for.
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

/// The list of one generation for one viewer.
struct List {
    generation: u64,
    plain: OnceCell<Plain>,
    gzip: OnceCell<Bytes>,
}

#[derive(Clone)]
struct Plain {
    body: Bytes,
    /// What changes when the body does; weak, since it is the same for the compressed body.
    tag: HeaderValue,
}

impl ListCache {
    /// A cache of lists of a kind.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, latest: Mutex::new(LruCache::new(VIEWERS_MAX)) }
    }

    /// Answers with the list that a caller sees of a view, or that it has not changed.
    pub(super) async fn answer(&self, caller: &Caller, view: &View, headers: &HeaderMap) -> Result<Response, Fault> {
        let list = self.of(viewer(caller, view), (self.kind.generation)(view));
        let Plain { body, tag } = list.plain(|| (self.kind.write)(caller, view)).await?;
        if is_known(headers, &tag) {
            return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag), (VARY, BY_ENCODING)]).into_response());
        }
        let described = [(CONTENT_TYPE, JSON), (ETAG, tag), (VARY, BY_ENCODING)];
        if body.len() < GZIP_MIN_BYTES || !takes_gzip(headers) {
            return Ok((described, body).into_response());
        }
        let compressed = list.gzip(body).await?;
        Ok((described, [(CONTENT_ENCODING, GZIP)], compressed).into_response())
    }

    fn of(&self, viewer: Viewer, generation: u64) -> Arc<List> {
        // Every change is a single insert: nothing is half done after a panic.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = latest.get(&viewer).filter(|list| list.generation >= generation) {
            return list.clone();
        }
        let list = Arc::new(List { generation, plain: OnceCell::new(), gzip: OnceCell::new() });
        latest.put(viewer, list.clone());
        list
    }
}

impl List {
    async fn plain(&self, write: impl FnOnce() -> serde_json::Result<Vec<u8>>) -> Result<Plain, Fault> {
        let made = self.plain.get_or_try_init(async || {
            let body: Bytes = write()?.into();
            let mut hasher = DefaultHasher::new();
            body.hash(&mut hasher);
            let tag = format!("W/\"{:016x}\"", hasher.finish());
            let tag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("W/\"\""));
            serde_json::Result::Ok(Plain { body, tag })
        });
        made.await.cloned().map_err(|error| not_made("written as JSON", &error))
    }

    async fn gzip(&self, body: Bytes) -> Result<Bytes, Fault> {
        let made = self.gzip.get_or_try_init(|| compress(&body));
        made.await.cloned().map_err(|error| not_made("compressed", &error))
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

fn not_made(how: &str, error: &dyn std::error::Error) -> Fault {
    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the list cannot be {how}: {error}"))
}

/// Compresses piece by piece: others have answers to get from this thread meanwhile.
async fn compress(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in body.chunks(GZIP_PIECE_BYTES) {
        encoder.write_all(piece)?;
        tokio::task::yield_now().await;
    }
    encoder.finish().map(Bytes::from)
}

/// Whether the client has the list of this tag already.
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tag = tag.to_str().ok().and_then(|tag| tag.parse().ok());
    let condition = headers.typed_get::<IfNoneMatch>();
    condition.zip(tag).is_some_and(|(condition, tag)| !condition.precondition_passes(&tag))
}

/// Whether the client takes gzip (RFC 9110 §12.5.3): it names it, or everything, and not with a
/// weight of nothing.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut taken = None;
    for coding in codings.flat_map(|value| value.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let name = name.trim();
        let is_named = name.eq_ignore_ascii_case("gzip");
        if is_named || name == "*" && taken.is_none() {
            let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
            taken = Some(!weight.is_some_and(|weight| weight.is_ok_and(|weight| weight <= 0.0)));
            if is_named {
                break;
            }
        }
    }
    taken.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_names_it() {
        for (accepted, expected) in [
            ("", false),
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("*", true),
            ("*;q=0, gzip", true),
            ("*;q=0", false),
            ("identity", false),
            ("x-gzip-like", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, accepted.parse().expect("a value"));
            assert_eq!(takes_gzip(&headers), expected, "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_list_is_known_by_its_tag_however_it_is_compared() {
        let tag = HeaderValue::from_static("W/\"abc\"");
        for (sent, expected) in [
            ("W/\"abc\"", true),
            ("\"abc\"", true),
            ("\"x\", W/\"abc\"", true),
            ("*", true),
            ("\"x\"", false),
            ("abc", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(axum::http::header::IF_NONE_MATCH, sent.parse().expect("a value"));
            assert_eq!(is_known(&headers, &tag), expected, "{sent}");
        }
        assert!(!is_known(&HeaderMap::new(), &tag));
    }
}
