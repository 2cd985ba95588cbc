//! S3 client: the few calls that the agent makes, as traits.
//!
//! Checks use [`BucketApi`], and [`ObjectApi`] to write. Their tests use a fake. [`aws`] is the only
//! implementation and the only module that names the SDK. Results are types of this crate. A failure is one of the
//! variants of [`S3Failure`]. So every code of a service becomes a reason and a sentence with a remedy.

pub mod aws;
mod bucket;
pub mod certificate;
pub mod failure;
mod failure_classes;
pub mod objects;
pub mod pages;
pub mod refusal;
mod remedy;

pub use bucket::{BucketApi, BucketUsage, DefaultRetention, ObjectLock, RetentionLength, Versioning};
pub use failure::{S3Failure, within};
pub use objects::{ListedVersion, ObjectApi, Retention, StoredVersion};
pub use pages::{Entries, ListedPage, PageMarker};
