//! Conditions that each renewal of the lease also checks, so that a task learns without a request whether they hold.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::etcd::Compare;

/// Conditions and the latest result. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct RenewalConditions(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    checked: Notify,
}

#[derive(Debug, Default)]
struct State {
    compares: Arc<[Compare]>,
    result: Option<bool>,
}

impl RenewalConditions {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete when the lock is released, and none panics.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the conditions. Forgets the result of the former ones.
    pub(crate) fn set(&self, compares: Vec<Compare>) {
        *self.state() = State { compares: compares.into(), result: None };
    }

    /// Returns the conditions.
    pub(super) fn get(&self) -> Arc<[Compare]> {
        self.state().compares.clone()
    }

    /// Notes whether all of these conditions hold, unless they were replaced since.
    pub(super) fn note(&self, checked: &Arc<[Compare]>, hold: bool) {
        let mut state = self.state();
        if Arc::ptr_eq(&state.compares, checked) && !checked.is_empty() {
            state.result = Some(hold);
            self.0.checked.notify_one();
        }
    }

    /// Takes the latest result that was not taken yet: whether all conditions hold.
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

    #[test]
    fn result_of_replaced_conditions_is_dropped() {
        let conditions = RenewalConditions::default();
        conditions.note(&conditions.get(), true);
        assert_eq!(conditions.take(), None, "there are none");
        conditions.set(vec![Compare::absent("a")]);
        let former = conditions.get();
        conditions.note(&former, false);
        assert_eq!((conditions.take(), conditions.take()), (Some(false), None));
        conditions.set(vec![Compare::absent("a")]);
        conditions.note(&former, true);
        assert_eq!(conditions.take(), None);
    }
}
