//! Data types and pure rules of the product. Nothing here waits.
//!
//! All other modules may depend on this one, and it depends on none of them. A rule that needs no system call,
//! socket or clock belongs here, with its tests:
//!
//! - the format of an export ([`export`]), and the name of its directory ([`mount_name`]),
//! - the content of a report ([`report`], [`reason`], [`usage_listing`]), and the display of capacity ([`capacity`]),
//! - the visibility of target types ([`caller`]),
//! - the nodes on which a target is expected ([`node_scope`]),
//! - the content of a secret with credentials ([`bucket_secret`]),
//! - the id of a request, in its log lines ([`request_id`]),
//! - the canary file ([`canary_file`]), and the record of canary objects ([`canary_record`]),
//! - the settings of the agent ([`settings`]).

#[macro_use]
pub(crate) mod named;

pub mod age;
pub mod bucket_secret;
pub mod caller;
pub mod canary_file;
pub mod canary_record;
pub mod capacity;
pub mod cause;
pub mod digest;
pub mod export;
pub mod fnv;
pub mod jitter;
pub mod line;
pub mod mount_mode;
pub mod mount_name;
pub mod nfs_options;
pub mod node_presence;
pub mod node_scope;
pub mod own_mount;
pub mod project;
pub mod reason;
pub mod registry_url;
pub mod remedy;
pub mod report;
pub mod request_id;
pub mod secret_ref;
pub mod settings;
pub mod tally;
pub mod target;
pub mod target_spec;
pub mod target_type;
pub mod transition;
pub mod usage_history;
pub mod usage_listing;

pub use age::END_ANNOUNCED_BEFORE;
pub use bucket_secret::{BucketSecret, PayloadError, SecretMismatch};
pub use caller::Caller;
pub use canary_record::{CanaryLeftover, CanaryRecord};
pub use capacity::{BlockCounts, Capacity};
pub use export::{NfsExport, S3Endpoint, S3Location};
pub use jitter::random_fraction;
pub use mount_mode::MountMode;
pub use mount_name::MountName;
pub use nfs_options::NfsOptions;
pub use node_presence::NodePresence;
pub use node_scope::{LabeledNode, NodeScope};
pub use own_mount::OwnMountId;
pub use project::{ProjectId, TypeProject};
pub use reason::Reason;
pub use registry_url::RegistryUrl;
pub use report::{CheckName, CheckResult, LockMode, LockProof, LockVerdict, Outcome, Report, Scope, Status, Verdict};
pub use request_id::RequestId;
pub use tally::{Histogram, Observed, Tally};
pub use target::{Target, TargetId};
// All of it, so that a new kind does not change this file.
pub use target_spec::*;
pub use target_type::{TargetType, TargetTypeId};
pub use transition::{PastFinding, Transition};
pub use usage_history::UsageHistory;
pub use usage_listing::UsageListing;

/// Most targets of one registry. A node can probe this many in one interval, with time to spare.
pub const TARGETS_MAX: usize = 10_000;
