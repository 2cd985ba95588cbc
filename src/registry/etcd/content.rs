//! Reading of the whole content at one revision, in pages.
//!
//! One transaction reads the version of the registry and the first page of every folder. So one request reads most
//! registries. It costs etcd about as much as reading 20 more keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::RegistryKeys;
use super::{consistency, document};
use crate::etcd::{
    EtcdError, EtcdRevision, KeyRange, KeyValue, KeyValueStore, RangeAnswer, RangeRequest, TxnOperation, TxnResult,
};
use crate::model::TargetType;
use crate::registry::limits::{TARGETS_MAX, TYPES_MAX};
use crate::registry::shared::Unavailable;
use crate::registry::snapshot::RegisteredTarget;

/// Largest number of keys of a folder that one request reads.
pub(super) const PAGE: u32 = 500;

/// Folders, and the most keys that each may have.
const FOLDERS: [(&str, usize); 3] =
    [("registry/targets/", TARGETS_MAX), ("registry/types/", TYPES_MAX), ("registry/exports/", TARGETS_MAX)];

/// Reads of the first page of each folder, and of the default target.
pub(super) fn first_reads(keys: &RegistryKeys, page: u32) -> Vec<TxnOperation> {
    let folder = |(name, _)| RangeRequest { limit: Some(page), ..RangeRequest::prefix(keys.named(name)) };
    let default = RangeRequest::key(keys.named("registry/default"));
    FOLDERS.map(folder).into_iter().chain([default]).map(TxnOperation::Range).collect()
}

/// Reads the keys of a folder that come after the `first` page, at one revision, in pages of at most `limit` keys. Fails
/// if the folder has more than `max` keys.
async fn entries(
    store: &dyn KeyValueStore,
    keys: &RegistryKeys,
    (name, max): (&str, usize),
    revision: EtcdRevision,
    mut limit: u32,
    first: RangeAnswer,
) -> Result<Vec<KeyValue>, ReadError> {
    let prefix = keys.named(name);
    let end = KeyRange::prefix(prefix.clone()).end;
    let (mut found, mut has_more) = (first.entries, first.has_more);
    loop {
        if found.len() > max {
            let problem = format!("there are more than {max} keys below {prefix}, expected at most {max}");
            return Err(inconsistent(keys, &problem).into());
        }
        let Some(last) = found.last().filter(|_| has_more) else { return Ok(found) };
        // The next key in the order of keys.
        let range = KeyRange { start: [&last.key[..], b"\0"].concat().into(), end: end.clone() };
        let request = RangeRequest { limit: Some(limit), revision: Some(revision), ..RangeRequest::new(range) };
        let page = match store.range(&request).await {
            Err(EtcdError::TooLarge(_)) if limit > 1 => {
                limit /= 2;
                continue;
            }
            page => page?,
        };
        has_more = page.has_more && !page.entries.is_empty();
        found.extend(page.entries);
    }
}

/// Reads targets and types at one revision, and checks that they are consistent. `first` has the results of
/// [`first_reads`] with pages of this size. Returns targets and types in the order of their creation.
pub(super) async fn read(
    store: &dyn KeyValueStore,
    keys: &RegistryKeys,
    revision: EtcdRevision,
    page: u32,
    mut first: impl Iterator<Item = TxnResult>,
) -> Result<Vec<RegisteredTarget>, ReadError> {
    let mut next = || match first.next() {
        Some(TxnResult::Range(found)) => Ok(found),
        // A folder that is taken for an empty one would delete all targets.
        _ => Err(EtcdError::Unexpected("the answer does not have all folders".to_owned())),
    };
    let [targets, types, exports] = FOLDERS;
    let whole = |folder, first| entries(store, keys, folder, revision, page, first);
    let targets = whole(targets, next()?).await?;
    let types = whole(types, next()?).await?;
    let exports = whole(exports, next()?).await?;
    let default = next()?.entries;
    let mut types_of = BTreeMap::new();
    for entry in types {
        let decoded = document::decode_type(&entry.value).map_err(|error| invalid(&entry, &error))?;
        verify_key(keys, &entry, &keys.target_type(decoded.target_id, decoded.id))?;
        types_of.entry(decoded.target_id).or_insert_with(Vec::new).push(Arc::new(decoded));
    }
    let decoded = targets.iter().map(|entry| {
        let target = document::decode_target(&entry.value).map_err(|error| invalid(entry, &error))?;
        verify_key(keys, entry, &keys.target(target.id))?;
        let mut types: Vec<Arc<TargetType>> = types_of.remove(&target.id).unwrap_or_default();
        types.sort_by_key(|kept| (kept.created_at, kept.id));
        Ok(RegisteredTarget { target: target.into(), types: types.into() })
    });
    let mut targets = decoded.collect::<Result<Vec<_>, Unavailable>>()?;
    targets.sort_by_key(|registered| (registered.target.created_at, registered.target.id));
    let text = |entry: &KeyValue| String::from_utf8_lossy(&entry.value).into_owned();
    let index = consistency::Index {
        exports: exports.iter().map(text).collect(),
        default: default.first().map(text),
        orphans: types_of.values().flatten().map(|orphan| (orphan.target_id, orphan.id)).collect(),
    };
    consistency::verify(&targets, &index).map_err(|problem| inconsistent(keys, &problem))?;
    Ok(targets)
}

/// Checks that a document has the key of its id.
fn verify_key(keys: &RegistryKeys, entry: &KeyValue, expected: &str) -> Result<(), Unavailable> {
    if entry.key == expected.as_bytes() {
        return Ok(());
    }
    let key = String::from_utf8_lossy(&entry.key);
    Err(inconsistent(keys, &format!("the document of the key {key} has another id, expected the key {expected}")))
}

fn inconsistent(keys: &RegistryKeys, problem: &str) -> Unavailable {
    Unavailable(format!(
        "the registry in etcd is inconsistent: {problem}. Keys were deleted or imported in part. Restore all keys below {}/ from a backup, or finish the import",
        keys.root()
    ))
}

fn invalid(entry: &KeyValue, error: &str) -> Unavailable {
    Unavailable(format!("the key {} in etcd is not valid: {error}", String::from_utf8_lossy(&entry.key)))
}

/// Why the registry could not be read.
pub(super) enum ReadError {
    Etcd(EtcdError),
    Invalid(Unavailable),
}

impl From<EtcdError> for ReadError {
    fn from(error: EtcdError) -> Self {
        Self::Etcd(error)
    }
}

impl From<Unavailable> for ReadError {
    fn from(error: Unavailable) -> Self {
        Self::Invalid(error)
    }
}

impl From<ReadError> for Unavailable {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Etcd(error) => unavailable(error),
            ReadError::Invalid(error) => error,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unavailable(error: EtcdError) -> Unavailable {
    Unavailable(error.to_string())
}
