//! A list as bytes: rendered on the first request, and gzipped on the first request that accepts gzip.
//!
//! A target changes at each probe, so a list of a thousand targets changes a hundred times a second. The
//! rendered part of each target is reused while the target is the same. A new list joins the parts of the
//! former list with the parts that changed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use crate::agent::{TargetView, View};
use crate::api::fault::Fault;
use crate::model::Caller;

/// How much is compressed at a time, in bytes: well under a millisecond's work.
const GZIP_PIECE_BYTES: usize = 32 << 10;

/// How a list is written, as JSON.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) enum Writer {
    /// Everything at once.
    Whole(fn(&Caller, &View) -> serde_json::Result<Vec<u8>>),
    /// An object with one key, and below that what a caller sees of each target.
    Each {
        /// The key.
        key: &'static str,
        /// Writes one target.
        write: fn(&Caller, &TargetView) -> serde_json::Result<Vec<u8>>,
    },
}

/// The list of one generation for one viewer.
pub(super) struct List {
    pub(super) generation: u64,
    /// What it can be made of; taken when it is made.
    before: Mutex<Option<Arc<Plain>>>,
    plain: OnceCell<Arc<Plain>>,
    gzip: OnceCell<Bytes>,
}

/// A list that is made.
pub(super) struct Plain {
    pub(super) body: Bytes,
    /// What changes when the body does; weak, since it is the same for the compressed body.
    pub(super) tag: HeaderValue,
    parts: Vec<Part>,
}

/// What is in a list of one target.
struct Part {
    target: Arc<TargetView>,
    place: Range<usize>,
    hash: u64,
}

impl List {
    /// A list that is not rendered yet. It will reuse the parts of the list that it replaces.
    pub(super) fn after(before: Option<&Self>, generation: u64) -> Self {
        // One that is not made yet leaves what it would have been made of.
        let before = before.and_then(|list| list.plain.get().cloned().or_else(|| list.before().clone()));
        Self { generation, before: Mutex::new(before), plain: OnceCell::new(), gzip: OnceCell::new() }
    }

    fn before(&self) -> MutexGuard<'_, Option<Arc<Plain>>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the list unless it is made.
    pub(super) async fn plain(&self, writer: Writer, caller: &Caller, view: &View) -> Result<&Plain, Fault> {
        let made = self.plain.get_or_try_init(async || {
            let made = match writer {
                Writer::Whole(write) => write(caller, view).map(Plain::whole),
                Writer::Each { key, write } => {
                    let before = self.before().clone();
                    Plain::of_each(key, view, before.as_deref(), |target| write(caller, target))
                }
            }?;
            self.before().take();
            serde_json::Result::Ok(Arc::new(made))
        });
        made.await.map(|plain| &**plain).map_err(|error| not_made("written as JSON", &error))
    }

    pub(super) async fn gzip(&self, body: &[u8]) -> Result<Bytes, Fault> {
        let made = self.gzip.get_or_try_init(|| compress(body));
        made.await.cloned().map_err(|error| not_made("compressed", &error))
    }
}

impl Plain {
    fn whole(body: Vec<u8>) -> Self {
        let tag = tag_of(hash_of(&body));
        Self { body: body.into(), tag, parts: Vec::new() }
    }

    fn of_each(
        key: &str,
        view: &View,
        before: Option<&Self>,
        write: impl Fn(&TargetView) -> serde_json::Result<Vec<u8>>,
    ) -> serde_json::Result<Self> {
        let mut body = Vec::with_capacity(before.map_or(0, |before| before.body.len() + before.body.len() / 8));
        body.extend_from_slice(b"{\"");
        body.extend_from_slice(key.as_bytes());
        body.extend_from_slice(b"\":[");
        let mut parts = Vec::with_capacity(view.targets.len());
        let mut hasher = DefaultHasher::new();
        for (at, target) in view.targets.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            let start = body.len();
            let known = before.and_then(|before| Some((before, before.parts.get(at)?)));
            let hash = match known.filter(|(_, part)| Arc::ptr_eq(&part.target, target)) {
                Some((before, part)) => {
                    body.extend_from_slice(before.body.get(part.place.clone()).unwrap_or_default());
                    part.hash
                }
                None => {
                    let written = write(target)?;
                    body.extend_from_slice(&written);
                    hash_of(&written)
                }
            };
            hash.hash(&mut hasher);
            parts.push(Part { target: target.clone(), place: start..body.len(), hash });
        }
        body.extend_from_slice(b"]}");
        Ok(Self { body: body.into(), tag: tag_of(hasher.finish()), parts })
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn tag_of(hash: u64) -> HeaderValue {
    let tag = format!("W/\"{hash:016x}\"");
    HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("W/\"\""))
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
