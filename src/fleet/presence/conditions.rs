//! What each renewal of the lease also checks, so that a task learns without a request whether something has changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::etcd::{Compare, EtcdRevision, KeyRange, RangeAnswer, RangeRequest};

/// What a renewal checks.
#[derive(Debug, Clone, Default)]
pub(crate) enum RenewalCheck {
    /// Nothing.
    #[default]
    Nothing,
    /// Whether these conditions hold. etcd allows 127 of them by default, and each costs it about as much as reading
    /// eight keys.
    Conditions(Arc<[Compare]>),
    /// Whether an interval of keys is as it was. Costs etcd one operation.
    Unchanged(KeysAt),
}

/// An interval of keys at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeysAt {
    /// The interval.
    pub(crate) keys: KeyRange,
    /// The revision.
    pub(crate) revision: EtcdRevision,
    /// Number of keys that it had.
    pub(crate) total: u64,
}

impl KeysAt {
    /// Request whose answer shows whether the keys are the same.
    pub(super) fn request(&self) -> RangeRequest {
        let after = RangeRequest { written_after: Some(self.revision), ..RangeRequest::new(self.keys.clone()) };
        RangeRequest { limit: Some(1), ..after.keys_only() }
    }

    /// Whether the answer shows the same keys. If none was written since, those that exist are of that revision. If
    /// they are as many, they are all of them. An earlier revision shows nothing: etcd may have been restored from a
    /// backup, and writes then reuse revisions.
    pub(super) fn are_in(&self, answer: &RangeAnswer) -> bool {
        answer.header.revision >= self.revision && answer.entries.is_empty() && answer.total == self.total
    }
}

/// A check and its latest result. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct RenewalConditions(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    checked: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Number of checks so far.
    number: u64,
    check: RenewalCheck,
    result: Option<bool>,
}

impl RenewalConditions {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete when the lock is released, and none panics.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the check. Forgets the result of the former one.
    pub(crate) fn set(&self, check: RenewalCheck) {
        let mut state = self.state();
        *state = State { number: state.number + 1, check, result: None };
    }

    /// Returns the check, and its number.
    pub(super) fn get(&self) -> (u64, RenewalCheck) {
        let state = self.state();
        (state.number, state.check.clone())
    }

    /// Notes whether the check with this number succeeded, unless it was replaced since.
    pub(super) fn note(&self, number: u64, hold: bool) {
        let mut state = self.state();
        if state.number == number && !matches!(state.check, RenewalCheck::Nothing) {
            state.result = Some(hold);
            self.0.checked.notify_one();
        }
    }

    /// Takes the latest result that was not taken yet: whether nothing has changed.
    pub(crate) fn take(&self) -> Option<bool> {
        self.state().result.take()
    }

    /// Waits until there is a new result.
    pub(crate) async fn checked(&self) {
        self.0.checked.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::{AnswerHeader, KeyValue};

    #[test]
    fn keys_are_the_same_when_none_is_newer_or_missing_at_a_later_revision() {
        let keys = KeysAt { keys: KeyRange::prefix("a/"), revision: EtcdRevision(7), total: 2 };
        let newer = KeyValue {
            key: "a/b".into(),
            value: "".into(),
            create_revision: EtcdRevision(1),
            mod_revision: EtcdRevision(8),
            lease: None,
        };
        for (revision, entries, total, expected) in [
            (7, vec![], 2, true),
            (9, vec![], 2, true),
            (9, vec![newer], 2, false),
            (9, vec![], 1, false),
            (6, vec![], 2, false),
        ] {
            let header = AnswerHeader { revision: EtcdRevision(revision), ..AnswerHeader::default() };
            let answer = RangeAnswer { header, entries, total, has_more: false };
            assert_eq!(keys.are_in(&answer), expected, "{revision} {total}");
        }
    }

    #[test]
    fn result_of_a_replaced_check_is_dropped() {
        let conditions = RenewalConditions::default();
        conditions.note(conditions.get().0, true);
        assert_eq!(conditions.take(), None, "there is none");
        let check = || RenewalCheck::Conditions([Compare::absent("a")].into());
        conditions.set(check());
        let (former, _) = conditions.get();
        conditions.note(former, false);
        assert_eq!((conditions.take(), conditions.take()), (Some(false), None));
        conditions.set(check());
        conditions.note(former, true);
        assert_eq!(conditions.take(), None);
    }
}
