//! The fleet: one view of the agents of many nodes.
//!
//! An aggregator polls the agents of a list of nodes and answers with a single status for each target. It decides
//! nothing for the agents, which work without it. Two or three aggregators may run beside each other: they share
//! nothing, and give the same ids.
//!
//! ```text
//! node list ──▶ one task per node ──poll──▶ agents
//!                     │ answers
//!                     ▼
//!               nodes ([node]) ──every second──▶ view ([view]) ──▶ API, pages, metrics ([api], [ui], [metrics])
//! ```
//!
//! **It never hangs.** Each node has a task of its own, and each poll has a deadline, so a dead node delays nothing
//! else. Requests are answered from the view. **It never lies.** A node that does not answer is `unknown`. It is not
//! counted as available, and not as offline. Until the first poll of the nodes has ended, the list of targets is not
//! answered at all, because a target that is missing from it would look deleted.

mod agent_client;
mod aggregator;
mod answer;
mod api;
pub mod claims;
mod compute;
mod described;
mod descriptions;
mod metrics;
mod node;
mod node_list;
pub mod node_snapshot;
mod outage;
pub mod presence;
mod registered;
mod ui;
pub mod view;
pub mod wire;

pub use agent_client::AgentClientError;
pub use aggregator::{Fleet, FleetError};
pub use api::router;
pub use node_list::NodeListError;
pub use registered::{AllRegistered, RegisteredTargets};
