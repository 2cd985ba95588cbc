//! Tests of the client of etcd and of the shared registry, with real members of etcd on loopback.
//!
//! Each test starts its own members and ends them. A member is stopped with signals, like one on a host that hangs.

#![allow(clippy::disallowed_methods, reason = "files in a temporary directory, and the members of etcd")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "that is how a test fails")]

mod cluster;

mod client;
mod proxy;
mod registry;
