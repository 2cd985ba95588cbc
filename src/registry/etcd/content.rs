//! Reading of the whole content at one revision, in pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::RegistryKeys;
use super::{consistency, document};
use crate::etcd::{EtcdError, EtcdRevision, KeyRange, KeyValue, KeyValueStore, RangeRequest};
use crate::model::TargetType;
use crate::registry::limits::{TARGETS_MAX, TYPES_MAX};
use crate::registry::shared::Unavailable;
use crate::registry::snapshot::RegisteredTarget;

/// Largest number of keys that one request reads.
const PAGE: u32 = 500;

/// Reads all keys below this name at one revision. There may be at most `max`.
async fn entries(
    store: &dyn KeyValueStore,
    keys: &RegistryKeys,
    name: &str,
    revision: EtcdRevision,
    max: usize,
) -> Result<Vec<KeyValue>, ReadError> {
    let prefix = keys.named(name);
    let KeyRange { mut start, end } = KeyRange::prefix(prefix.clone());
    let (mut found, mut limit) = (Vec::new(), PAGE);
    loop {
        let range = KeyRange { start: start.clone(), end: end.clone() };
        let request = RangeRequest { limit: Some(limit), revision: Some(revision), ..RangeRequest::new(range) };
        let page = match store.range(&request).await {
            Err(EtcdError::TooLarge(_)) if limit > 1 => {
                limit /= 2;
                continue;
            }
            page => page?,
        };
        if let Some(last) = page.entries.last() {
            // The next key in the order of keys.
            start = [&last.key[..], b"\0"].concat().into();
        }
        let is_last = !page.has_more || page.entries.is_empty();
        found.extend(page.entries);
        if found.len() > max {
            let problem = format!("there are more than {max} keys below {prefix}, expected at most {max}");
            return Err(inconsistent(keys, &problem).into());
        }
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// Reads targets and types at one revision, and checks that they are consistent. Returns them in the order of their
/// creation.
pub(super) async fn read(
    store: &dyn KeyValueStore,
    keys: &RegistryKeys,
    revision: EtcdRevision,
) -> Result<Vec<RegisteredTarget>, ReadError> {
    let targets = entries(store, keys, "registry/targets/", revision, TARGETS_MAX).await?;
    let types = entries(store, keys, "registry/types/", revision, TYPES_MAX).await?;
    let exports = entries(store, keys, "registry/exports/", revision, TARGETS_MAX).await?;
    let default = RangeRequest::key(keys.named("registry/default"));
    let default = store.range(&RangeRequest { revision: Some(revision), ..default }).await?.entries;
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
