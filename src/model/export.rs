//! Exports: the strings that identify a target's storage.
//!
//! `host:/path` for NFS, `host[:port]/bucket` (without scheme) for S3. Both are parsed once, where they enter the
//! agent. The parsed values are safe for `mount.nfs`, for an S3 client and for the derivation of a directory name.
//! They contain no control characters and no `..`, and no host begins with `-` like an option of a command.

mod error;
mod host;
mod nfs;
mod s3;

pub use error::ExportError;
pub use nfs::NfsExport;
pub use s3::{S3Endpoint, S3Location};

#[cfg(test)]
mod tests;
