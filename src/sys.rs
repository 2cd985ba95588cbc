//! Sys: every syscall and every child process of the agent.
//!
//! A path below the mount root can hang any thread that touches it for as long as its server is away, and
//! no timeout around a thread gets the thread back. So there are exactly two ways to storage:
//!
//! - what the kernel knows without asking it: the mount table ([`mount_table`]), read from
//!   `/proc/self/mountinfo` and re-read when the kernel says that it changed, and what it counts of NFS
//!   mounts ([`mount_stats`]);
//! - a child process that can be killed: a probe worker ([`worker`]) for a request of ours, or a
//!   foreign command ([`command`]) such as `mount.nfs`, both with a deadline, both counted, and at
//!   most one at a time for each target ([`children`]).
//!
//! `.clippy.toml` bans the rest of the crate from the functions that would go around them. What
//! else concerns the host and waits for nobody is here too: the service manager ([`systemd`]), the
//! facts about this node ([`node`]), names of hosts ([`resolve`]), groups ([`group`]), secrets in files ([`secret_file`]) and heaps
//! ([`heap`]).

mod child_setup;
pub mod children;
pub mod command;
pub mod group;
pub mod heap;
pub mod log_queue;
pub mod mount_stats;
pub mod mount_table;
pub mod node;
pub mod resolve;
pub mod secret_file;
pub mod systemd;
pub mod worker;

pub use children::{ChildCensus, StuckChild};
pub use command::{CommandError, Finished, run_bounded};
pub use log_queue::LogQueue;
pub use mount_stats::{MountCounters, MountStats, MountStatsCache};
pub use mount_table::{MountEntry, MountTable, MountTableWatch};
pub use node::NodeFacts;
pub use worker::{CallError, Lane, Request, Response, WorkerFault, WorkerPool, WorkerPoolSettings};
