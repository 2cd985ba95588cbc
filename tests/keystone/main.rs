//! Tests of the real binary with a real Keystone: authorization by token, and Keystone outages. With a real Barbican
//! beside it: credentials of buckets.
//!
//! Each test has its own Keystone, which `tests/peers/keystone` starts in about ten seconds.

#![allow(clippy::disallowed_methods, reason = "storage may hang a test: each wait has a time limit")]
#![allow(clippy::expect_used, clippy::panic, reason = "that is how a test fails, in its helpers too")]
#![allow(dead_code, reason = "each test binary uses a part of the shared helpers")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/report.rs"]
mod report;
#[path = "../integration/storage.rs"]
mod storage;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/workspace.rs"]
mod workspace;

mod barbican;
mod bucket_secrets;
mod command_line;
mod discovery;
mod flood;
mod logins;
mod outage;
mod peer;
mod tokens;
