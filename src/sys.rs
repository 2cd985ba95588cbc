//! Sys: every syscall and every child process of the agent.
//!
//! While its server is down, a path below the mount root hangs every thread that accesses it, and no timeout gets such
//! a thread back. So there are exactly two ways to access storage:
//!
//! - The kernel's memory: the mount table ([`mount_table`]), which is read again when the kernel reports a
//!   change, and the counters of NFS mounts ([`mount_stats`]).
//! - A child process that can be killed: a probe worker ([`worker`]), or a foreign command ([`command`]) such as
//!   `mount.nfs`. Each has a deadline. Each target has at most one child at a time ([`children`]).
//!
//! In the rest of the crate, `.clippy.toml` bans functions that would bypass them. Other parts of the host that cannot
//! block the agent are here too:
//!
//! - the service manager ([`systemd`]), the log queue ([`log_queue`]) and the journal ([`journal`]),
//! - facts about this node ([`node`]), the clock ([`clock`]), and groups ([`group`]),
//! - the permissions of a process ([`ProcessRights`]), and the malloc heap ([`heap`]),
//! - holders of locks ([`file_lock`]), name resolution ([`resolve`]), reads of files ([`file_read`]), files with
//!   secrets ([`secret_file`]), and SELinux.

mod child_setup;
pub mod children;
pub mod clock;
pub mod command;
pub mod file_lock;
pub mod file_read;
pub mod group;
pub mod heap;
pub mod journal;
pub mod log_queue;
mod mount_right;
pub mod mount_stats;
pub mod mount_table;
pub mod node;
pub mod resolve;
pub mod secret_file;
mod selinux;
pub mod srv;
pub mod systemd;
pub mod worker;

pub use children::{ChildCensus, StuckChild};
pub use command::{CommandError, CommandInput, Finished, run_bounded, run_bounded_with};
pub use journal::Journal;
pub use log_queue::{LogFormat, LogQueue};
pub use mount_right::{Capability, ProcessRights, may_mount};
pub use mount_stats::{MountCounters, MountStats, MountStatsCache};
pub use mount_table::{
    ConsumerProcess, ConsumerSight, ConsumerWatch, HostMounts, HostView, INIT, MountEntry, MountTable, MountTableWatch,
    SWEEP_INTERVAL, Sight,
};
pub use node::NodeFacts;
pub use worker::{CallError, Lane, Permits, Request, Response, WorkerFault, WorkerPool, WorkerPoolSettings};
