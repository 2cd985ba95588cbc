//! `targetwatch`: the agent on every host that writes backups to shared storage.

pub mod agent;
pub mod check;
pub mod driver;
pub mod model;
pub mod registry;
pub mod s3;
pub mod sys;
