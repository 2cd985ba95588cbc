//! The agent beside a real S3 service, a Ceph RADOS Gateway: what a user sees of it.
//!
//! `tests/peers/run` starts the gateway, runs these tests and stops it again. Each test has buckets
//! of its own ([`gateway`]) and an agent of its own: the true binary, with its configuration,
//! registry and socket below a temporary directory ([`place`], [`daemon`]). Most tests share the
//! gateway at the same time; one that pauses it or takes it down has it alone.
//!
//! No test waits for time to pass. Intervals are an hour and a probe is asked for; where the agent
//! has to notice by itself, the end of the wait is what it then says, and [`daemon::PATIENCE`] only
//! bounds it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]
#![allow(clippy::disallowed_methods, reason = "files in a temporary directory, and the agent as a child")]

mod daemon;
mod fault_proxy;
mod gateway;
mod place;
mod proxy;

mod capacity;
mod certificates;
mod clocks;
mod economy;
mod faults;
mod immutability;
mod listing;
mod lock_proof;
mod lock_proof_crashes;
mod outages;
mod policies;
mod proxies;
mod refusals;
mod secrets;
mod unreachable;
mod ways_there;
mod write_canary;
