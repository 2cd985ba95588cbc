//! The words of the product as types: pure data and pure rules, nothing that waits.
//!
//! Everything else depends on this module and it depends on nothing of the crate, so a rule that
//! can be stated without a syscall, a socket or a clock belongs here and is tested here: how an
//! export is written ([`export`]), which directory it gets ([`mount_name`]), what a probe may say
//! ([`report`], [`reason`], [`usage_listing`]), how capacity is written ([`capacity`]), who may see what ([`caller`]),
//! and what configuration is able to ask for ([`settings`]).

#[macro_use]
mod named;

pub mod caller;
pub mod capacity;
pub mod cause;
pub mod export;
pub mod line;
pub mod mount_name;
pub mod nfs_options;
pub mod project;
pub mod reason;
pub mod registry_url;
pub mod report;
pub mod settings;
pub mod target;
pub mod target_spec;
pub mod target_type;
pub mod transition;
pub mod usage_listing;

pub use caller::Caller;
pub use capacity::{BlockCounts, Capacity};
pub use export::{NfsExport, S3Endpoint, S3Location};
pub use mount_name::{MountName, PathKey};
pub use nfs_options::NfsOptions;
pub use project::{ProjectId, TypeProject};
pub use reason::Reason;
pub use registry_url::RegistryUrl;
pub use report::{CheckName, CheckResult, LockMode, LockProof, LockVerdict, Outcome, Report, Scope, Status, Verdict};
pub use target::{Target, TargetId};
// All of it, so that a new kind does not change this file.
pub use target_spec::*;
pub use target_type::{TargetType, TargetTypeId};
pub use transition::{PastFinding, Transition};
pub use usage_listing::UsageListing;
