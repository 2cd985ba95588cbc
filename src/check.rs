//! Checks. Each verifies one named property of a target and has its own file.
//!
//! A check is an async function that asks the storage one question and returns a [`Checked`]. A failed
//! check is data, with a reason code and a sentence, and never an `Err`. A check keeps every problem that it
//! finds, as a list of findings. A driver declares its checks as a plan, and runs them through a
//! [`CheckLog`]. The log times them. Checks that did not run because of an earlier failure are reported as skipped.
//!
//! To add a check: a file here, a [`CheckName`](crate::model::CheckName), and an entry in the plan of each driver that
//! runs it.

pub mod bucket;
pub mod canary;
pub mod capacity;
mod check_log;
mod checked;
pub mod expected_mount;
pub mod exported;
#[cfg(test)]
pub(crate) mod fake;
pub mod in_use;
pub mod lock_proof;
pub mod mount_capacity;
mod mount_failure;
pub mod mount_host;
pub mod mount_traffic;
pub mod mounted;
pub mod nfs_reachable;
pub mod object_canary;
pub mod object_lock;
pub mod own_mounts;
pub mod server_addresses;
pub mod storage_failure;
pub mod tcp_reachable;
pub mod usage_listing;
pub mod versioning;
pub mod visible;
pub mod write_canary;

pub use check_log::CheckLog;
pub use checked::Checked;
