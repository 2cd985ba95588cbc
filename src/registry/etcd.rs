//! The registry that all nodes share, in etcd.
//!
//! ```text
//! <prefix>/v1/meta/cloud_id                     UUID, chosen when the registry is created
//! <prefix>/v1/meta/schema                       {"min_reader":1,"min_writer":1}
//! <prefix>/v1/registry/generation               random number, rewritten by every commit
//! <prefix>/v1/registry/targets/<id>             a target
//! <prefix>/v1/registry/types/<target id>/<id>   a type of it
//! <prefix>/v1/registry/exports/<hash>           id of the target with this export
//! <prefix>/v1/registry/default                  id of the default target
//! ```
//!
//! The facts of a target, which `fleet::claims` writes, are deleted with it.
//!
//! Every commit is one transaction that compares the generation. The generation is random, so that a registry that was
//! restored from a backup never has the generation of a commit that was lost. After a commit without an answer, another
//! transaction decides whether it was made. It replaces the generation if that is still the expected one. This also
//! prevents that the commit is made later.
//!
//! The renewals of a node's lease also read the generation (`fleet::presence`), and at times a quorum confirms it. So a
//! node that is present sends no request to learn that the registry has not changed.
//!
//! Fields of a target or type that this version does not know stay when it is rewritten.

mod consistency;
mod content;
mod document;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use super::shared::{
    CloudId, SeenVersion, SharedCommitError, SharedContent, SharedRegistry, SharedVersion, Unavailable,
};
use super::snapshot::{Snapshot, Write};
use crate::etcd::{
    Compare, EtcdError, EtcdRevision, KeyRange, KeyValueStore, Observation, ObservedKey, RangeRequest, Txn, TxnAnswer,
    TxnOperation, TxnResult,
};
use content::{ReadError, unavailable};
use keys::RegistryKeys;

/// Largest number of operations of a transaction: the default limit of etcd.
const OPERATIONS_MAX: usize = 128;

/// Deadline of a read of the whole content, which holds up changes. It leaves a slow etcd more time than one request
/// has, because a read that is given up has to begin anew.
const CONTENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Deadline of the reads that a change needs before its commit is sent.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// Layout of the keys that this version reads and writes.
const SCHEMA: u32 = 1;

/// The oldest versions that may read and write the registry.
#[derive(Serialize, Deserialize)]
struct EtcdSchema {
    min_reader: u32,
    min_writer: u32,
}

/// A registry in etcd.
pub struct EtcdRegistry {
    store: Arc<dyn KeyValueStore>,
    keys: RegistryKeys,
    /// The generation, as the renewals of the node's lease show it.
    generation: ObservedKey,
    /// The latest version that this node has read or made.
    known: Mutex<Option<SharedVersion>>,
}

/// What every transaction reads about the registry.
struct RegistryState {
    version: SharedVersion,
    min_writer: u32,
    revision: EtcdRevision,
}

impl EtcdRegistry {
    /// The registry below `prefix`, such as `/targetwatch/cloud1`. Sends nothing yet.
    #[must_use]
    pub fn new(store: Arc<dyn KeyValueStore>, prefix: &str) -> Self {
        let keys = RegistryKeys::new(prefix);
        let generation = ObservedKey::new(keys.generation());
        Self { store, keys, generation, known: Mutex::default() }
    }

    /// Returns the generation, to be seen by requests for something else, such as renewals of this node's lease.
    #[must_use]
    pub fn observed_generation(&self) -> ObservedKey {
        self.generation.clone()
    }

    fn set_known(&self, version: SharedVersion) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
    }

    /// Returns the known version, and when renewals last showed that it has not changed.
    fn observed_version(&self) -> Option<(SharedVersion, SeenVersion)> {
        let known = (*self.known.lock().unwrap_or_else(PoisonError::into_inner))?;
        let Observation { value, at, confirmed } = self.generation.seen()?;
        (value == known.generation.to_string().as_bytes()).then_some((known, SeenVersion { at, confirmed }))
    }

    /// Reads that every transaction needs.
    fn state_reads(&self, is_serializable: bool) -> Vec<TxnOperation> {
        let read = |name: &str| RangeRequest { is_serializable, ..RangeRequest::key(self.keys.named(name)) };
        ["meta/cloud_id", "meta/schema", keys::GENERATION].map(|name| TxnOperation::Range(read(name))).into()
    }

    /// Parses the results of [`Self::state_reads`], which are the first ones.
    fn state(&self, answer: &TxnAnswer) -> Result<RegistryState, Unavailable> {
        let value = |at: usize| Some(&answer.results.get(at)?.entries().first()?.value);
        let (Some(cloud_id), Some(schema), Some(generation)) = (value(0), value(1), value(2)) else {
            return Err(Unavailable(format!(
                "there is no registry below {} in etcd. The first node that joins creates it: check [registry] url, and whether the data of etcd was removed",
                self.keys.root()
            )));
        };
        let invalid = |key: &str| Unavailable(format!("the key {} in etcd is not valid", self.keys.named(key)));
        let schema: EtcdSchema = serde_json::from_slice(schema).map_err(|_| invalid("meta/schema"))?;
        if schema.min_reader > SCHEMA {
            return Err(Unavailable(format!(
                "the registry in etcd has schema {}, and this agent knows schema {SCHEMA}. Install a later version",
                schema.min_reader
            )));
        }
        let text = |value: &Bytes| std::str::from_utf8(value).ok().map(str::to_owned);
        let cloud_id = text(cloud_id).and_then(|text| text.parse().ok()).ok_or_else(|| invalid("meta/cloud_id"))?;
        let generation =
            text(generation).and_then(|text| text.parse().ok()).ok_or_else(|| invalid(keys::GENERATION))?;
        let version = SharedVersion { cloud_id: CloudId(cloud_id), generation };
        Ok(RegistryState { version, min_writer: schema.min_writer, revision: answer.header.revision })
    }

    async fn content(&self) -> Result<SharedContent, ReadError> {
        let (mut page, state_reads) = (content::PAGE, self.state_reads(false));
        let answer = loop {
            let first_reads = content::first_reads(&self.keys, page);
            let reads = state_reads.iter().cloned().chain(first_reads).collect();
            match self.store.commit(&Txn { success: reads, ..Txn::default() }).await {
                Err(EtcdError::TooLarge(_)) if page > 1 => page /= 2,
                answer => break answer?,
            }
        };
        let state = self.state(&answer)?;
        let first = answer.results.into_iter().skip(state_reads.len());
        let targets = content::read(&*self.store, &self.keys, state.revision, page, first).await?;
        self.set_known(state.version);
        Ok(SharedContent { version: state.version, targets })
    }

    async fn read_state(&self, is_serializable: bool) -> Result<RegistryState, ReadError> {
        let txn = Txn { success: self.state_reads(is_serializable), ..Txn::default() };
        let state = self.state(&self.store.commit(&txn).await?)?;
        self.set_known(state.version);
        Ok(state)
    }

    /// Returns the stored documents of these keys, if the registry is at the expected version.
    async fn stored(
        &self,
        expected: SharedVersion,
        keys: &[String],
    ) -> Result<BTreeMap<Bytes, Bytes>, SharedCommitError> {
        let mut reads = self.state_reads(false);
        let state_reads = reads.len();
        reads.extend(keys.iter().map(|key| TxnOperation::get(key.clone())));
        let answer = self.store.commit(&Txn { success: reads, ..Txn::default() }).await.map_err(unavailable)?;
        self.verify_writer(&answer, expected)?;
        let entries = answer.results.into_iter().skip(state_reads).filter_map(TxnResult::into_entry);
        Ok(entries.map(|entry| (entry.key, entry.value)).collect())
    }

    /// Checks that the registry is at the expected version, and that this agent knows how to change it.
    fn verify_writer(&self, answer: &TxnAnswer, expected: SharedVersion) -> Result<(), SharedCommitError> {
        let state = self.state(answer)?;
        if state.version != expected {
            return Err(SharedCommitError::Conflict);
        }
        if state.min_writer > SCHEMA {
            let text = format!(
                "the registry in etcd may be changed by agents with schema {} or later, and this agent has schema {SCHEMA}. Install a later version",
                state.min_writer
            );
            return Err(Unavailable(text).into());
        }
        Ok(())
    }

    /// Checks that a quorum has the expected version and would accept a write of this agent.
    async fn verify_writable(&self, expected: SharedVersion) -> Result<(), SharedCommitError> {
        let key = self.keys.generation();
        // A key that is absent has no value, so nothing is written. etcd checks space and rights for both branches.
        let compares = vec![Compare::absent(key.clone()), Compare::value(key.clone(), "")];
        let txn = Txn { compares, success: vec![TxnOperation::put(key, "")], failure: self.state_reads(false) };
        let answer = self.store.commit(&txn).await.map_err(unavailable)?;
        self.verify_writer(&answer, expected)
    }

    /// Operations of these writes, each key at most once, and the conditions for them.
    fn operations(
        &self,
        before: &Snapshot,
        after: &Snapshot,
        writes: &[Write],
        stored: &BTreeMap<Bytes, Bytes>,
    ) -> (Vec<Compare>, Vec<TxnOperation>) {
        let (mut puts, mut deletes, mut compares) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let old = |key: &str| stored.get(key.as_bytes());
        let one = |key: String| (key.clone(), TxnOperation::delete(key));
        for write in writes {
            match write {
                Write::PutTarget(target) if after.target(target.id).is_some() => {
                    let key = self.keys.target(target.id);
                    let document = document::encode_target(target, old(&key));
                    puts.insert(key, document);
                    let export = self.keys.export(target);
                    let known = before.target(target.id).map(|known| self.keys.export(&known.target));
                    if known.as_ref() != Some(&export) {
                        compares.push(Compare::absent(export.clone()));
                        puts.insert(export, target.id.to_string());
                        deletes.extend(known.map(one));
                    }
                }
                Write::PutType(put) if after.target_type(put.id).is_some() => {
                    let key = self.keys.target_type(put.target_id, put.id);
                    let document = document::encode_type(put, old(&key));
                    puts.insert(key, document);
                }
                Write::DeleteTarget(id) => {
                    if let Some(known) = before.target(*id) {
                        deletes.extend([one(self.keys.target(*id)), one(self.keys.export(&known.target))]);
                        // Without its claims, no node can write a fact of the target later.
                        for folder in ["registry/types", "claims", "facts"] {
                            let keys = self.keys.named(&format!("{folder}/{id}/"));
                            deletes.insert(keys.clone(), TxnOperation::Delete(KeyRange::prefix(keys)));
                        }
                    }
                }
                Write::DeleteType(id) => {
                    let known = before.target_type(*id).filter(|known| after.target(known.target_id).is_some());
                    deletes.extend(known.map(|known| one(self.keys.target_type(known.target_id, *id))));
                }
                // Deleted again by a later write.
                Write::PutTarget(_) | Write::PutType(_) => {}
            }
        }
        let default = |snapshot: &Snapshot| snapshot.default_target().map(|default| default.target.id);
        if default(before) != default(after) {
            let key = self.keys.named("registry/default");
            match default(after) {
                Some(id) => puts.extend([(key, id.to_string())]),
                None => deletes.extend([one(key)]),
            }
        }
        deletes.retain(|key, _| !puts.contains_key(key));
        let puts = puts.into_iter().map(|(key, value)| TxnOperation::put(key, value));
        (compares, puts.chain(deletes.into_values()).collect())
    }

    /// Finds out whether a commit without an answer was made, and prevents that it is made later.
    async fn settle(&self, expected: SharedVersion, made: i64, reason: &EtcdError) -> Result<(), SharedCommitError> {
        let uncertain = |error: &EtcdError| SharedCommitError::Uncertain(error.to_string());
        let key = self.keys.generation();
        let txn = Txn {
            compares: vec![Compare::value(key.clone(), expected.generation.to_string())],
            success: vec![TxnOperation::put(key.clone(), new_generation().to_string())],
            failure: vec![TxnOperation::get(key)],
        };
        let answer = self.store.commit(&txn).await.map_err(|_| uncertain(reason))?;
        if answer.succeeded {
            return Err(Unavailable(reason.to_string()).into());
        }
        match answer.results.into_iter().next().and_then(TxnResult::into_entry) {
            Some(found) if found.value == made.to_string().as_bytes() => Ok(()),
            // Another node has changed the registry since.
            _ => Err(uncertain(reason)),
        }
    }
}

fn too_late(what: &str, limit: Duration) -> Unavailable {
    Unavailable(format!("the registry in etcd could not be {what} within {} s", limit.as_secs()))
}

/// Returns a random generation.
fn new_generation() -> i64 {
    let (bits, _) = Uuid::new_v4().as_u64_pair();
    (bits >> 1).cast_signed()
}

#[async_trait]
impl SharedRegistry for EtcdRegistry {
    async fn cloud_id(&self) -> Result<CloudId, Unavailable> {
        let schema = format!("{{\"min_reader\":{SCHEMA},\"min_writer\":{SCHEMA}}}");
        // Reading first needs no right to write, and a registry is created once.
        match self.read_state(false).await {
            Ok(state) => return Ok(state.version.cloud_id),
            Err(ReadError::Etcd(error)) => return Err(unavailable(error)),
            Err(ReadError::Invalid(_)) => {}
        }
        let mut success = vec![
            TxnOperation::put(self.keys.named("meta/cloud_id"), Uuid::new_v4().to_string()),
            TxnOperation::put(self.keys.named("meta/schema"), schema),
            TxnOperation::put(self.keys.generation(), new_generation().to_string()),
        ];
        let written = success.len();
        success.extend(self.state_reads(false));
        let compares = vec![Compare::absent(self.keys.named("meta/cloud_id"))];
        let txn = Txn { compares, success, failure: self.state_reads(false) };
        let mut answer = self.store.commit(&txn).await.map_err(unavailable)?;
        if answer.succeeded {
            answer.results.drain(..written);
        }
        Ok(self.state(&answer)?.version.cloud_id)
    }

    async fn version(&self, age_max: Duration) -> Result<SharedVersion, Unavailable> {
        match self.observed_version() {
            Some((version, seen)) if seen.at.elapsed() <= age_max => Ok(version),
            _ => Ok(self.read_state(true).await?.version),
        }
    }

    fn seen(&self) -> Option<SeenVersion> {
        self.observed_version().map(|(_, seen)| seen)
    }

    async fn latest_version(&self) -> Result<SharedVersion, Unavailable> {
        Ok(self.read_state(false).await?.version)
    }

    async fn changed(&self) {
        loop {
            self.generation.changed().await;
            // A change of this node is known already.
            if self.observed_version().is_none() {
                return;
            }
        }
    }

    async fn read(&self) -> Result<SharedContent, Unavailable> {
        let content = async {
            match self.content().await {
                // The revision was compacted between two pages.
                Err(ReadError::Etcd(EtcdError::Compacted)) => self.content().await,
                outcome => outcome,
            }
        };
        Ok(timeout(CONTENT_TIMEOUT, content).await.map_err(|_| too_late("read", CONTENT_TIMEOUT))??)
    }

    async fn commit(
        &self,
        expected: SharedVersion,
        before: &Snapshot,
        writes: &[Write],
    ) -> Result<SharedVersion, SharedCommitError> {
        let too_late = |_| too_late("read for the change", PREPARE_TIMEOUT);
        if writes.is_empty() {
            return timeout(PREPARE_TIMEOUT, self.verify_writable(expected))
                .await
                .map_err(too_late)?
                .map(|()| expected);
        }
        let keys: Vec<String> = writes
            .iter()
            .filter_map(|write| match write {
                Write::PutTarget(target) => before.target(target.id).map(|_| self.keys.target(target.id)),
                Write::PutType(put) => before.target_type(put.id).map(|_| self.keys.target_type(put.target_id, put.id)),
                Write::DeleteTarget(_) | Write::DeleteType(_) => None,
            })
            .collect();
        // The size of the reads is bounded like that of the writes.
        let too_many = || Unavailable("the change writes too many targets and types at once".to_owned());
        if keys.len() + 3 > OPERATIONS_MAX {
            return Err(too_many().into());
        }
        let stored = timeout(PREPARE_TIMEOUT, self.stored(expected, &keys)).await.map_err(too_late)??;
        let after = before.apply(writes, before.revision().next());
        let (mut compares, mut success) = self.operations(before, &after, writes, &stored);
        let generation = new_generation();
        compares.push(Compare::value(self.keys.generation(), expected.generation.to_string()));
        success.push(TxnOperation::put(self.keys.generation(), generation.to_string()));
        if success.len() > OPERATIONS_MAX || compares.len() > OPERATIONS_MAX {
            return Err(too_many().into());
        }
        let new = SharedVersion { generation, ..expected };
        let txn = Txn { compares, success, failure: vec![TxnOperation::get(self.keys.generation())] };
        match self.store.commit(&txn).await {
            Ok(answer) if answer.succeeded => {}
            Ok(TxnAnswer { results, .. }) => {
                let found = results.into_iter().next().and_then(TxnResult::into_entry);
                if found.is_some_and(|found| found.value == expected.generation.to_string().as_bytes()) {
                    let text = "the registry in etcd has another target with the same export, which it does not list";
                    return Err(Unavailable(text.to_owned()).into());
                }
                return Err(SharedCommitError::Conflict);
            }
            Err(error) if error.is_uncertain() => self.settle(expected, generation, &error).await?,
            Err(error) => return Err(unavailable(error).into()),
        }
        self.set_known(new);
        Ok(new)
    }
}
