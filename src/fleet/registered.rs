//! The targets of the registry that all nodes share, for an aggregator that has joined it.

use std::fmt;
use std::sync::Arc;

use crate::api::wire::Target;

/// All targets of the registry.
pub type AllRegistered = Arc<[Arc<Target>]>;

/// Reads the targets of the registry.
pub struct RegisteredTargets(Box<dyn Fn() -> AllRegistered + Send + Sync>);

impl RegisteredTargets {
    /// A reader. It is called every second, and must not wait.
    #[must_use]
    pub fn new(read: impl Fn() -> AllRegistered + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }

    pub(super) fn read(&self) -> AllRegistered {
        (self.0)()
    }
}

impl fmt::Debug for RegisteredTargets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RegisteredTargets")
    }
}
