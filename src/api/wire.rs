//! Wire types: the JSON of requests and answers, for the API and for the command line that reads it.
//!
//! Names and structure are those of the API guide. Fields whose names differ between releases of the guide's
//! clients are present under both names. Times are UTC in the form `2025-01-30T12:32:27.000000`. `report` and
//! `node` contain the additions of this agent.

mod extensible;
mod history;
mod metadata;
mod node;
mod report;
mod request;
mod scope;
mod target;
mod target_type;
mod timestamp;
mod usage_listing;
pub(in crate::api) mod verdict;
mod versions;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use extensible::{
    CheckName, Extensible, MountMode, Outcome, ProbeVerdict, ProofVerdict, Reason, Severity, Status, TargetKind,
    Vocabulary,
};
pub use history::{History, Transition};
pub use metadata::{MetadataEntry, MetadataPair};
pub use node::{Agent, Health, Host, Memory, Node, Readiness, SharedRegistryState, StuckChild};
pub use report::{Check, Finding, LockProof, Mount, Report};
pub use scope::{FleetNode, ScopeRequest};
pub use target::{
    NewTarget, NewTargetBody, OneTarget, Target, TargetDetail, TargetDetailList, TargetList, TargetUpdate,
    TargetUpdateBody,
};
pub use target_type::{
    ChangedType, EmbeddedType, MetadataBody, MetadataList, MetadataRemoval, MetadataRemovalBody, NewType, NewTypeBody,
    OneChangedType, OneType, ProjectList, ProjectsBody, TargetType, TypeList, TypeProject, TypeUpdate, TypeUpdateBody,
};
pub use timestamp::{parse_timestamp, timestamp};
pub use usage_listing::{UsageCount, UsageListing};
pub use verdict::{TargetVerdict, TargetVerdictList, VerdictReport};
pub use versions::{Link, Version, Versions};

/// An error: one object under the fault's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"itemNotFound": {"code": 404, "message": "there is no backup target x"}}))]
#[serde(transparent)]
pub struct FaultBody(pub std::collections::BTreeMap<String, FaultDetail>);

/// Content of a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultDetail {
    /// HTTP status.
    pub code: u16,
    /// Problem and expectation.
    pub message: String,
}

#[cfg(test)]
pub(in crate::api) mod tests;
