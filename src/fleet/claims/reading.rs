//! How claims and facts are read: all of them together, or single keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::driver::FactKey;
use crate::etcd::{Compare, EtcdError, KeyRange, KeyValue, KeyValueStore, RangeRequest, Txn, TxnOperation, TxnResult};
use crate::fleet::presence::{KeysAt, RenewalCheck};

/// Folders of the keys.
pub(super) const CLAIMS: &str = "claims";
pub(super) const FACTS: &str = "facts";
const FOLDERS: [&str; 2] = [CLAIMS, FACTS];

/// Number of facts in one transaction, or in the conditions of a renewal. Each is two operations, and etcd allows 128.
pub(super) const FACTS_IN_TXN: usize = 60;

/// All claims and facts are read if they are at most this many times as many as those that this node needs. Reading a
/// single key costs etcd three times as much as reading one of an interval, and comparing it eight times.
const KEYS_FOR_EACH_NEEDED: usize = 4;

/// Largest number of claims and facts that are read at once.
const KEYS_READ_MAX: usize = 1_000;

/// Time for which single keys are read after others have changed, or could not be read together.
const SINGLE_KEYS_FOR: Duration = Duration::from_mins(10);

/// A claim and a fact, as far as they exist.
pub(super) type FoundFact = (Option<KeyValue>, Option<KeyValue>);

/// Reads claims and facts below the keys that begin with a prefix.
pub(super) struct FactReader {
    store: Arc<dyn KeyValueStore>,
    prefix: String,
    /// All claims and facts at the latest read, if it was one of all.
    all_keys: Option<KeysAt>,
    /// Until when single keys are read.
    single_keys_until: Instant,
}

impl FactReader {
    pub(super) fn new(store: Arc<dyn KeyValueStore>, prefix: String) -> Self {
        Self { store, prefix, all_keys: None, single_keys_until: Instant::now() }
    }

    /// The key of a claim or a fact.
    pub(super) fn key(&self, folder: &str, FactKey { target, kind, subject }: &FactKey) -> String {
        format!("{}{folder}/{target}/{}/{subject}", self.prefix, kind.as_str())
    }

    /// Returns what a renewal checks to show whether claims and facts are as at the latest read. `unchanged` are the
    /// conditions for that.
    pub(super) fn check(&self, unchanged: Vec<Compare>) -> RenewalCheck {
        match &self.all_keys {
            _ if unchanged.is_empty() => RenewalCheck::Nothing,
            Some(keys) => RenewalCheck::Unchanged(keys.clone()),
            None if unchanged.len() > FOLDERS.len() * FACTS_IN_TXN => RenewalCheck::Nothing,
            None => RenewalCheck::Conditions(unchanged.into()),
        }
    }

    /// Reads single keys for [`SINGLE_KEYS_FOR`].
    pub(super) fn read_single_keys(&mut self) {
        (self.all_keys, self.single_keys_until) = (None, Instant::now() + SINGLE_KEYS_FOR);
    }

    /// Reads all claims and facts, and returns those that are needed. `None` if single keys are to be read.
    pub(super) async fn read_all(&mut self, needed: &[(FactKey, bool)]) -> Result<Option<Vec<FoundFact>>, EtcdError> {
        if needed.is_empty() || Instant::now() < self.single_keys_until {
            return Ok(None);
        }
        let [claims, facts] = FOLDERS.map(|folder| KeyRange::prefix(format!("{}{folder}/", self.prefix)));
        let keys = KeyRange { start: claims.start, end: facts.end };
        let most = (FOLDERS.len() * needed.len() * KEYS_FOR_EACH_NEEDED).min(KEYS_READ_MAX);
        let request = RangeRequest { limit: u32::try_from(most).ok(), ..RangeRequest::new(keys.clone()) };
        let answer = match self.store.range(&request).await {
            Ok(answer) if !answer.has_more => answer,
            // The user may have the right to read each folder, but not both together.
            Ok(_) | Err(EtcdError::TooLarge(_) | EtcdError::PermissionDenied) => {
                self.read_single_keys();
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.all_keys = Some(KeysAt { keys, revision: answer.header.revision, total: answer.total });
        let mut entries: HashMap<_, _> = answer.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        let mut take = |folder, key: &FactKey| entries.remove(self.key(folder, key).as_bytes());
        Ok(Some(needed.iter().map(|(key, _)| (take(CLAIMS, key), take(FACTS, key))).collect()))
    }

    /// Reads these claims and facts in one transaction, so at most [`FACTS_IN_TXN`]. Returns none of them if there are
    /// conditions in `unchanged` and all hold.
    pub(super) async fn read(
        &self,
        needed: &[(FactKey, bool)],
        unchanged: Option<Vec<Compare>>,
    ) -> Result<Vec<FoundFact>, EtcdError> {
        let reads = needed.iter().flat_map(|(key, _)| FOLDERS.map(|folder| TxnOperation::get(self.key(folder, key))));
        let reads = reads.collect();
        let txn = match unchanged {
            Some(compares) => Txn { compares, success: Vec::new(), failure: reads },
            // Without a condition, a transaction succeeds.
            None => Txn { success: reads, ..Txn::default() },
        };
        let mut found = self.store.commit(&txn).await?.results.into_iter().map(TxnResult::into_entry);
        let mut pairs = Vec::new();
        while let (Some(claim), Some(fact)) = (found.next(), found.next()) {
            pairs.push((claim, fact));
        }
        Ok(pairs)
    }
}
