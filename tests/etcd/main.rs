//! Tests of the client of etcd, of the shared registry, and of agents that share a registry and facts, with real
//! members of etcd.
//!
//! Each test starts its own members and ends them. A member is stopped with signals, like one on a host that hangs.
//! Members that are cut off have network namespaces of their own ([`network`]).

#![allow(clippy::disallowed_methods, reason = "files in a temporary directory, and the members of etcd")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "that is how a test fails")]
#![allow(dead_code, reason = "each test binary uses a part of the shared helpers")]

mod cluster;
#[path = "../support/daemon.rs"]
mod daemon;
mod fleet;
#[path = "../support/http.rs"]
mod http;
mod network;
mod proxy;
#[path = "../support/report.rs"]
mod report;
#[path = "../integration/storage.rs"]
mod storage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/workspace.rs"]
mod workspace;

mod agents;
mod aggregator;
mod away;
mod claims;
mod client;
mod clocks;
mod documented;
mod facts;
mod failures;
mod registry;
mod scope;
