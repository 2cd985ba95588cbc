//! The true binary, started as a user starts it, on servers in this process.
//!
//! Each test has an agent of its own: a child process with its own configuration, registry, socket
//! and free port, below a temporary directory ([`place`], [`daemon`]). Storage is the NFS and the S3
//! server of `tests/support` ([`storage`]), verified over the wire (`mode = "none"`), so that nothing
//! here needs a privilege. What needs a kernel that mounts is in `tests/lab`.
//!
//! No test waits for time to pass. Intervals are an hour and a probe is asked for; or the end of a
//! wait is an answer or a line of the log, and [`daemon::PATIENCE`] only bounds it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]
#![allow(clippy::disallowed_methods, reason = "files in a temporary directory, and the agent as a child")]

#[path = "../support/shape.rs"]
mod shape;
#[path = "../support/mod.rs"]
mod support;

mod agent_routes;
mod api_guide;
mod bad_requests;
mod bad_starts;
mod clients;
mod command_line;
mod concurrency;
mod credentials;
mod daemon;
mod documents;
mod economy;
mod faults;
mod http;
mod lifetime;
mod listing;
mod logging;
mod nfs_verdicts;
mod place;
mod protection;
mod s3_verdicts;
mod secrets;
mod storage;
mod terminal;
