//! The lab's tests: the agent as its systemd unit, on a real kernel with a real NFS server.
//!
//! They run as root in the machine that `tests/lab/boot` boots, one at a time. They change that machine
//! as an administrator or an accident would. They check what a user sees: the API, the command line,
//! the journal, and the host's mount table. Each test starts with an agent without targets
//! ([`machine::Machine`]).

#![allow(clippy::disallowed_methods, reason = "storage may hang a test: the lab has a time limit")]
#![allow(clippy::expect_used, clippy::panic, reason = "that is how a test fails, in its helpers too")]

mod api;
mod machine;
mod observer;
mod process;
#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod ansible;
mod capabilities;
mod clock;
mod command_line;
mod containers;
mod cycles;
mod deletion;
mod doctor;
mod faults;
mod flapping;
mod foreign_mounts;
mod lifecycle;
mod many_targets;
mod memory;
mod mount_points;
mod mounting;
mod node_exporter;
mod observe;
mod outages;
mod own_mounts;
mod packages;
mod read_only_registry;
mod refusals;
mod registry;
mod secrets;
mod server_moves;
mod service;
mod startup;
mod traffic;
mod visibility;
mod wire_canary;
mod wire_mode;
mod wire_v4;
mod workers;
