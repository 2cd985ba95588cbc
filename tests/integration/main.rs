//! Tests of the real binary, started as a user starts it, on servers in this process.
//!
//! Each test has its own agent: a child process with its own configuration, registry, socket, and free port,
//! below a temporary directory ([`workspace`], [`daemon`]). Storage is the NFS and the S3 server of
//! `tests/support` ([`storage`]). The agent verifies it over the wire (`mode = "none"`), so these tests need no
//! privileges. Tests that need the kernel's mounts are in `tests/lab`.
//!
//! Tests do not sleep. Probe intervals are an hour, and tests request probes. Where the agent must notice
//! something by itself, the test waits for an answer or a log line, at most [`daemon::TIMEOUT`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]
#![allow(dead_code, reason = "each test binary uses a part of the shared helpers")]
#![allow(clippy::disallowed_methods, reason = "files in a temporary directory, and the agent as a child")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/report.rs"]
mod report;
#[path = "../support/shape.rs"]
mod shape;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/terminal.rs"]
mod terminal_display;
#[path = "../support/webhook_receiver.rs"]
mod webhook_receiver;
#[path = "../support/workspace.rs"]
mod workspace;

mod agent_routes;
mod alerting;
mod api_guide;
mod bad_requests;
mod bad_starts;
mod certificates;
mod clients;
mod command_line;
mod concurrency;
mod containers;
mod credentials;
mod doctor;
mod documents;
mod economy;
mod faults;
mod fleet;
mod key_manager;
mod lifetime;
mod listing;
mod logging;
mod memory;
mod metrics;
mod monitoring;
mod nfs_verdicts;
mod notify;
mod promtool;
mod protection;
mod registry;
mod s3_verdicts;
mod secrets;
mod storage;
mod terminal;
mod ui;
mod watch;
mod worker_program;
