//! `targetwatch`: the agent on every host that writes backups to shared storage.
//!
//! A backup job that finds its target dead at night is a lost night. So the agent on each node
//! mounts NFS exports, verifies S3 buckets, measures both, and answers at any time what it found:
//! to a control plane that polls it, and to a person with curl. Two promises decide every question
//! of design.
//!
//! **It never hangs.** The main process touches no path below the mount root. What is mounted is
//! read from the kernel's mount table; what can block on storage runs in a child process with a
//! deadline, which is killed at it ([`sys`]). Every answer of the API comes from memory ([`api`]).
//!
//! **It never lies.** `available` means that every check passed, on this host, at the time shown
//! ([`check`]). Anything else is `offline`, with a stable reason code and a sentence that says what
//! to do ([`model::reason`]).
//!
//! # The way of a target
//!
//! A client creates it ([`api`]); the registry makes it durable ([`registry`]); the agent gives it a
//! task of its own ([`agent`]); the task has a driver for its kind ([`driver`]); the driver runs the
//! checks of its kind in order ([`check`]), over the wire ([`nfs`], [`s3`]) and through children
//! ([`sys`]); their results are a report ([`model::report`]); reports, with hysteresis, are a status;
//! and the status is what the API answers.
//!
//! # The map
//!
//! Modules depend on those to their right and on nothing else; `tests/layering.rs` holds it.
//!
//! ```text
//! cli → api → agent → driver → check → nfs, s3 → sys → model
//!       cli → config → model    agent → registry → model
//!       cli, api → keystone → tls → sys
//! ```
//!
//! | to add | touch |
//! |---|---|
//! | a check | a file in [`check`], and a line in the driver that wants it |
//! | a kind of target | a variant in [`model::target`], a file in [`driver`], an arm in [`driver::for_spec`] |
//! | a route | a handler in [`api`], a line in its table |
//! | a key of the configuration | [`config`], [`model::settings`], and the sample in `systemd/config.toml` |
//! | a subcommand | a file in [`cli`], a variant in its enum |

pub mod agent;
pub mod api;
pub mod check;
pub mod cli;
pub mod config;
pub mod driver;
pub mod keystone;
pub mod model;
pub mod nfs;
pub mod registry;
pub mod s3;
pub mod sys;
pub mod tls;
