//! Histories with a registry that can be broken.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;

use super::*;
use crate::model::{Status, Target, TargetType, TargetTypeId};
use crate::registry::{Entry, RegistryError, TargetChange, TypeChange};

/// Keeps transitions in memory, unless it is broken or silent.
#[derive(Default)]
struct Fake {
    kept: Mutex<Vec<Transition>>,
    is_broken: AtomicBool,
}

impl Fake {
    fn seconds(&self) -> Vec<i64> {
        self.kept.lock().expect("not poisoned").iter().map(|kept| kept.at.as_second()).collect()
    }
}

#[async_trait]
impl Registry for Fake {
    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), RegistryError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(RegistryError::Storage("disk full".to_owned()));
        }
        self.kept.lock().expect("not poisoned").extend(transitions);
        Ok(())
    }

    async fn transitions(&self, _: TargetId) -> Result<Vec<Transition>, RegistryError> {
        unreachable!()
    }

    async fn load(&self) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn create_target(&self, _: Target, _: TargetType) -> Result<Entry, RegistryError> {
        unreachable!()
    }

    async fn modify_target(&self, _: TargetId, _: TargetChange, _: Timestamp) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn set_default_target(&self, _: TargetId, _: Timestamp) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn may_delete_target(&self, _: TargetId) -> Result<(), RegistryError> {
        unreachable!()
    }

    async fn delete_target(&self, _: TargetId) -> Result<(), RegistryError> {
        unreachable!()
    }

    async fn create_type(&self, _: TargetType) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn modify_type(&self, _: TargetTypeId, _: TypeChange, _: Timestamp) -> Result<Vec<Entry>, RegistryError> {
        unreachable!()
    }

    async fn delete_type(&self, _: TargetTypeId) -> Result<Entry, RegistryError> {
        unreachable!()
    }
}

fn note(history: &History, seconds: std::ops::Range<i64>) {
    for second in seconds {
        let at = Timestamp::from_second(second).expect("a time");
        let (target_id, from, to) = (TargetId::nil(), None, Status::Available);
        history.note(Transition { target_id, at, from, to, finding: None });
    }
}

#[tokio::test]
async fn what_cannot_be_written_waits_and_is_written_in_order() {
    let (history, registry) = (History::default(), Fake::default());
    note(&history, 0..2);
    assert!(history.write(&registry).await);
    registry.is_broken.store(true, Ordering::Relaxed);
    note(&history, 2..700);
    assert!(!history.write(&registry).await);
    assert_eq!((registry.seconds().len(), history.waiting_of(TargetId::nil()).len()), (2, 698));
    registry.is_broken.store(false, Ordering::Relaxed);
    note(&history, 700..701);
    assert!(history.write(&registry).await);
    assert_eq!(registry.seconds(), (0..701).collect::<Vec<_>>());
    assert!(history.waiting_of(TargetId::nil()).is_empty());
}

#[tokio::test]
async fn memory_is_bounded_and_what_is_oldest_goes() {
    let (history, registry) = (History::default(), Fake::default());
    let more = i64::try_from(WAITING_MAX).expect("few") + 3;
    note(&history, 0..more);
    assert_eq!(history.waiting().dropped, 3);
    assert!(history.write(&registry).await);
    assert_eq!(registry.seconds(), (3..more).collect::<Vec<_>>());
    assert_eq!(history.waiting().dropped, 0);
}
