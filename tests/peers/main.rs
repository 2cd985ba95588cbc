//! Tests of the real binary against a real S3 service, a Ceph RADOS Gateway.
//!
//! `tests/peers/run` starts the gateway, runs these tests, and stops it. Each test has its own buckets
//! ([`gateway`]) and its own agent, with configuration, registry, and socket below a temporary
//! directory ([`workspace`], [`daemon`]). Most tests share the gateway at the same time. A test that
//! pauses or stops the gateway has it exclusively.
//!
//! Tests do not sleep. Probe intervals are an hour, and tests request probes. Where the agent must notice
//! something by itself, the test waits for its report, at most [`daemon::TIMEOUT`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]
#![allow(dead_code, reason = "each test binary uses a part of the shared helpers")]
#![allow(clippy::disallowed_methods, reason = "files in a temporary directory, and the agent as a child")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/report.rs"]
mod report;
#[path = "../support/workspace.rs"]
mod workspace;

mod fault_proxy;
mod gateway;
mod proxy;

mod capacity;
mod certificates;
mod clocks;
mod economy;
mod endpoints;
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
mod write_canary;
