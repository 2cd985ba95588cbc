//! NFS and S3 servers in this process, on loopback, for the demo, the quick tests, and the benchmarks.
//!
//! They speak the real protocols, so other clients can use them too. They report the capacity of the exported
//! directory, and refuse to delete an object under retention. They store nothing on disk, need no privileges,
//! and stop when they are dropped.

#![allow(dead_code, reason = "each test binary and the demo use a part of this")]

mod loopback;
pub mod nfs_server;
pub mod s3_server;
