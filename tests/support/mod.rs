//! Servers in the process, on loopback: what the demo and the quick tests talk to.
//!
//! They are not mock-ups of the agent's clients but servers of the real protocols, which other
//! clients understand too. What they tell is true: capacity is that of the exported directory, and
//! an object under retention cannot be deleted. They keep nothing on disk, need no privileges, and
//! end when they are dropped.

#![allow(dead_code, reason = "each test binary and the demo use a part of this")]

mod loopback;
pub mod nfs_server;
pub mod s3_server;
