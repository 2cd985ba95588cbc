//! A proof in progress, and what a probe gives to it.

use std::time::Duration;

use super::schedule::Basis;
use super::steps::{Proof, Step};
use crate::check::canary::{CanaryKey, CanaryNames, ServiceClock};

/// A proof in progress.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) proof: Proof,
    pub(super) key: CanaryKey,
    pub(super) version: Option<String>,
    pub(super) basis: Basis,
}

impl Running {
    /// Whether the retention has ended, so that the remaining steps can be repeated.
    pub(super) fn is_at_its_end(&self) -> bool {
        matches!(self.proof.step, Step::Control | Step::LookAfterControl)
    }
}

/// Input of a probe to the proof.
#[derive(Debug, Clone, Copy)]
pub struct ProofContext<'a> {
    /// The names of canaries.
    pub names: &'a CanaryNames,
    /// The service's clock.
    pub clock: ServiceClock,
    /// Whether a client requested a proof.
    pub requested: bool,
    /// Longest duration of this probe's steps.
    pub deadline: Duration,
}
