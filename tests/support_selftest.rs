//! Tests of the NFS and S3 servers that the demo and the quick tests use.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how tests fail")]

mod support;

#[path = "support_selftest/nfs.rs"]
mod nfs;
#[path = "support_selftest/s3.rs"]
mod s3;
