//! The true agent and a real Keystone: what a token is worth, and what happens when Keystone is away.
//!
//! Each test has a Keystone of its own, which `tests/peers/keystone` starts in some ten seconds.

#![allow(clippy::disallowed_methods, reason = "storage may hang a test: each wait has a time limit")]
#![allow(clippy::expect_used, clippy::panic, reason = "that is how a test fails, in its helpers too")]
#![allow(dead_code, reason = "helpers are those of the integration tests, which use all of them")]

#[path = "../integration/daemon.rs"]
mod daemon;
#[path = "../integration/http.rs"]
mod http;
#[path = "../integration/place.rs"]
mod place;
#[path = "../integration/storage.rs"]
mod storage;
#[path = "../support/mod.rs"]
mod support;

mod command_line;
mod flood;
mod logins;
mod outage;
mod peer;
mod tokens;
