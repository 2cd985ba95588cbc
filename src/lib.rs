//! `targetwatch`: the agent on every host that writes backups to shared storage.
//!
//! If a backup job finds its target dead at night, the backups of that night are lost. The agent on each node mounts
//! NFS exports, verifies S3 buckets and measures both. It reports the results at any time, to a
//! control plane that polls it and to a person with curl. Two promises decide every question of
//! design.
//!
//! **It never hangs.** The main process accesses no path below the mount root. It reads the
//! kernel's mount table to see what is mounted. Everything that can block on storage runs in a child
//! process with a deadline, and is killed at that deadline ([`sys`]). Answers of the API come
//! from memory ([`api`]).
//!
//! **It never lies.** `available` means that every check passed, on this host, at the time shown
//! ([`check`]). Anything else is `offline`, with a stable reason code and a message that says what
//! to do ([`model::reason`]).
//!
//! # The life of a target
//!
//! 1. A client creates the target ([`api`]), and the registry makes it durable ([`registry`]).
//! 2. The agent starts a task for it ([`agent`]). The task owns the driver of its kind ([`driver`]).
//! 3. The driver runs the checks of its kind in order ([`check`]), over the network ([`nfs`],
//!    [`s3`]) and through child processes ([`sys`]).
//! 4. The results are a report ([`model::report`]). Reports, with hysteresis, make the status.
//! 5. The API answers with the status, and receivers are notified when it changes ([`notify`]).
//!
//! `docs/architecture.md` explains probes, workers, lock proofs and the registry.
//!
//! # The modules
//!
//! A module depends only on modules to its right. `tests/layering` enforces this.
//!
//! ```text
//! cli → api → notify → agent → driver → check → nfs, s3 → sys → model
//!       cli → config → model    agent → registry → model
//! cli → fleet → api        fleet → keystone, http_client
//!       driver → key_manager → keystone    cli, api → keystone    s3 → tls
//!       fleet, registry → etcd → http_client
//!       key_manager, keystone, notify → http_client → tls → sys
//! ```
//!
//! `CONTRIBUTING.md` lists what to change to add a check, a store, a kind of target, a reason, a route, a configuration
//! key or a subcommand.

pub mod agent;
pub mod api;
pub mod check;
pub mod cli;
pub mod config;
pub mod driver;
pub mod etcd;
pub mod fleet;
pub mod http_client;
pub mod key_manager;
pub mod keystone;
pub mod model;
pub mod nfs;
pub mod notify;
pub mod registry;
pub mod s3;
pub mod sys;
pub mod tls;
