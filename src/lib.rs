//! `targetwatch`: the agent on every host that writes backups to shared storage.

pub mod agent;
pub mod api;
pub mod check;
pub mod cli;
pub mod config;
pub mod driver;
pub mod model;
pub mod nfs;
pub mod registry;
pub mod s3;
pub mod sys;
