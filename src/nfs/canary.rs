//! The canary file over the wire: created, written, read back and removed by the backup user.
//!
//! The sequence is the same as that of a probe worker on a mount, and so are the names, the content and the handling of
//! leftovers ([`crate::model::canary_file`]). The file is removed whatever happened to it, within the part of the
//! deadline that is reserved for that.

use super::calls::BoundedCalls;
use super::error::NfsError;
use super::status::NfsStatus;
use crate::model::canary_file::{
    CANARY_FILE_BYTES, CanaryFileNames, LEFTOVER_SEARCH_MAX, LEFTOVERS_MAX, fill, is_leftover, mismatch,
};

/// Size of a canary in arguments.
pub(super) const BYTES: u32 = CANARY_FILE_BYTES as u32;

/// Longest name of a directory entry, in bytes. Servers have at most 255.
pub(super) const NAME_MAX_BYTES: usize = 1024;

/// Maximum number of replies of a listing, whose entries may be short.
const PAGES_MAX: usize = 128;

/// A file in the exported directory.
pub(super) struct FoundFile {
    pub(super) is_regular: bool,
    pub(super) bytes: u64,
    /// Time of the last change by the server's clock, in seconds since 1970.
    pub(super) modified: i64,
}

/// A part of a directory.
pub(super) struct ListedNames {
    pub(super) names: Vec<Vec<u8>>,
    /// Where the next part begins. `None` at the end.
    pub(super) next: Option<ListingPosition>,
}

/// Position in a directory, with the verifier of the listing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ListingPosition {
    pub(super) cookie: u64,
    pub(super) verifier: [u8; 8],
}

/// Calls on files of the exported directory, as one user.
pub(super) trait ExportedFiles {
    /// An open file.
    type Opened: Sync;

    /// Creates a file that does not exist yet.
    fn create(
        &mut self,
        name: &str,
        calls: &BoundedCalls,
    ) -> impl Future<Output = Result<Self::Opened, NfsError>> + Send;

    /// Writes to the disk of the server. Returns the time of the change.
    fn write(
        &mut self,
        file: &Self::Opened,
        content: &[u8],
        calls: &BoundedCalls,
    ) -> impl Future<Output = Result<i64, NfsError>> + Send;

    /// Reads as much as a canary has.
    fn read(
        &mut self,
        file: &Self::Opened,
        calls: &BoundedCalls,
    ) -> impl Future<Output = Result<Vec<u8>, NfsError>> + Send;

    /// Closes a file.
    fn close(&mut self, file: Self::Opened, calls: &BoundedCalls) -> impl Future<Output = Result<(), NfsError>> + Send;

    /// Removes a file.
    fn remove(&mut self, name: &str, calls: &BoundedCalls) -> impl Future<Output = Result<(), NfsError>> + Send;

    /// Lists a part of the directory.
    fn list(
        &mut self,
        from: ListingPosition,
        calls: &BoundedCalls,
    ) -> impl Future<Output = Result<ListedNames, NfsError>> + Send;

    /// Looks up a file.
    fn find(&mut self, name: &str, calls: &BoundedCalls) -> impl Future<Output = Result<FoundFile, NfsError>> + Send;

    /// Describes owner, group and mode of the exported directory.
    fn describe(&mut self, calls: &BoundedCalls) -> impl Future<Output = Result<String, NfsError>> + Send;
}

/// Why a canary failed.
#[derive(Debug)]
pub struct CanaryFailure {
    /// The failed call.
    pub error: NfsError,
    /// Facts about the exported directory that explain it.
    pub cause: Option<String>,
}

impl From<NfsError> for CanaryFailure {
    fn from(error: NfsError) -> Self {
        Self { error, cause: None }
    }
}

/// Writes a canary, reads it back, compares and removes it. `calls` bounds all calls together.
pub(super) async fn write<F: ExportedFiles>(
    files: &mut F,
    names: &CanaryFileNames,
    calls: &BoundedCalls,
) -> Result<(), CanaryFailure> {
    let work = calls.before_cleanup();
    match store_and_read_back(files, &names.name, &work, calls).await {
        Ok(modified) => {
            remove_leftovers(files, names, modified, &work).await;
            Ok(())
        }
        Err(error) => {
            let is_denied = error.status().is_some_and(|status| matches!(status, NfsStatus::ACCES | NfsStatus::PERM));
            let cause = if is_denied { files.describe(calls).await.ok() } else { None };
            Err(CanaryFailure { error, cause })
        }
    }
}

async fn store_and_read_back<F: ExportedFiles>(
    files: &mut F,
    name: &str,
    work: &BoundedCalls,
    cleanup: &BoundedCalls,
) -> Result<i64, NfsError> {
    let file = match files.create(name, work).await {
        Ok(file) => file,
        Err(error) => {
            // The server may have created it. A server that answered has not.
            if error.status().is_none() {
                let _ = files.remove(name, cleanup).await;
            }
            return Err(error);
        }
    };
    let mut content = Box::new([0; CANARY_FILE_BYTES]);
    fill(&mut content);
    let outcome = async {
        let modified = files.write(&file, &content[..], work).await?;
        let read = files.read(&file, work).await?;
        match mismatch(&content[..], &read) {
            Some(difference) => Err(NfsError::CanaryMismatch { name: name.to_owned(), difference }),
            None => Ok(modified),
        }
    };
    let outcome = outcome.await;
    let closed = files.close(file, cleanup).await;
    let removed = files.remove(name, cleanup).await;
    let modified = outcome?;
    closed.and(removed)?;
    Ok(modified)
}

/// Removes leftovers of earlier canaries of this node. Errors are ignored, because the canary itself has passed. `now`
/// is the server's time.
async fn remove_leftovers<F: ExportedFiles>(files: &mut F, names: &CanaryFileNames, now: i64, calls: &BoundedCalls) {
    let (mut from, mut searched, mut removed) = (ListingPosition::default(), 0, 0);
    for _ in 0..PAGES_MAX {
        // The user may be allowed to write to the directory but not to list it.
        let Ok(page) = files.list(from, calls).await else { return };
        searched += page.names.len();
        for name in page.names.iter().filter_map(|name| str::from_utf8(name).ok()).filter(|name| names.is_of_node(name))
        {
            let Ok(found) = files.find(name, calls).await else { continue };
            if found.is_regular && is_leftover(found.bytes, found.modified, now) {
                removed += u32::from(files.remove(name, calls).await.is_ok());
            }
            if removed == LEFTOVERS_MAX {
                return;
            }
        }
        match page.next {
            Some(next) if searched < LEFTOVER_SEARCH_MAX => from = next,
            _ => return,
        }
    }
}
