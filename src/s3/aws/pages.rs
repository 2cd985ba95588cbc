//! Pages of a listing of a whole bucket, with the types of the SDK.
//!
//! Keys are requested without URL encoding, because services differ in which markers they encode.

use aws_sdk_s3::operation::list_object_versions::{ListObjectVersions, ListObjectVersionsInput};
use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2, ListObjectsV2Input};
use aws_sdk_s3::types::{DeleteMarkerEntry, ObjectVersion};

use super::bucket::AwsBucket;
use crate::s3::failure::S3Failure;
use crate::s3::pages::{ListedPage, MARKER_LIMIT_BYTES, PAGE_ENTRIES_MAX, PageMarker};

/// Longest page that is read, in bytes: a thousand entries of 4 KiB. A key of the greatest length (1 KiB) takes 3 KiB
/// in XML if two in five of its bytes are escaped, each to six bytes.
pub const PAGE_LIMIT_BYTES: usize = 4 * 1024 * 1024;

impl AwsBucket {
    /// Returns a page of all versions.
    pub(super) async fn versions_page(&self, after: Option<&PageMarker>) -> Result<ListedPage, S3Failure> {
        let (key, version) = match after {
            Some(PageMarker::Version { key, version }) => (Some(key.clone()), version.clone()),
            Some(PageMarker::Token(_)) | None => (None, None),
        };
        let list = ListObjectVersionsInput::builder().bucket(&self.bucket).max_keys(PAGE_ENTRIES_MAX.into());
        let list = list.set_key_marker(key).set_version_id_marker(version).build();
        let request = self.request::<ListObjectVersions>(list)?.limited(PAGE_LIMIT_BYTES).requiring_xml();
        let answer = request.send().await?.content;
        let (versions, markers) = (answer.versions(), answer.delete_markers());
        let keys = versions.iter().map(ObjectVersion::key).chain(markers.iter().map(DeleteMarkerEntry::key));
        let next = answer.next_key_marker().map(|key| PageMarker::Version {
            key: key.to_owned(),
            // Services refuse an empty version marker.
            version: answer.next_version_id_marker().filter(|version| !version.is_empty()).map(str::to_owned),
        });
        let (versions_count, delete_markers) = counts(versions.len(), markers.len())?;
        Ok(ListedPage {
            versions: versions_count,
            delete_markers,
            bytes: total(versions.iter().map(ObjectVersion::size))?,
            keys: ends(keys)?,
            next: next_page(answer.is_truncated(), next)?,
        })
    }

    /// Returns a page of the current objects.
    pub(super) async fn objects_page(&self, after: Option<&PageMarker>) -> Result<ListedPage, S3Failure> {
        let token = match after {
            Some(PageMarker::Token(token)) => Some(token.clone()),
            Some(PageMarker::Version { .. }) | None => None,
        };
        let list = ListObjectsV2Input::builder().bucket(&self.bucket).max_keys(PAGE_ENTRIES_MAX.into());
        let list = list.set_continuation_token(token).build();
        let request = self.request::<ListObjectsV2>(list)?.limited(PAGE_LIMIT_BYTES).requiring_xml();
        let answer = request.send().await?.content;
        let objects = answer.contents();
        let next = answer.next_continuation_token().map(|token| PageMarker::Token(token.to_owned()));
        Ok(ListedPage {
            versions: counts(objects.len(), 0)?.0,
            delete_markers: 0,
            bytes: total(objects.iter().map(aws_sdk_s3::types::Object::size))?,
            keys: ends(objects.iter().map(aws_sdk_s3::types::Object::key))?,
            next: next_page(answer.is_truncated(), next)?,
        })
    }
}

/// Returns both counts, unless there are more entries than requested.
fn counts(versions: usize, delete_markers: usize) -> Result<(u64, u64), S3Failure> {
    let too_many = || invalid_page(&format!("has more than the requested {PAGE_ENTRIES_MAX} entries"));
    let entries = versions.checked_add(delete_markers).ok_or_else(too_many)?;
    let counted = u64::try_from(versions).ok().zip(u64::try_from(delete_markers).ok());
    counted.filter(|_| entries <= PAGE_ENTRIES_MAX.into()).ok_or_else(too_many)
}

fn invalid_page(why: &str) -> S3Failure {
    S3Failure::NotS3(format!("a page of the listing {why}"))
}

fn total(sizes: impl Iterator<Item = Option<i64>>) -> Result<u64, S3Failure> {
    sizes.into_iter().try_fold(0_u64, |sum, size| {
        let size = size
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| invalid_page("contains an entry without a size"))?;
        sum.checked_add(size).ok_or_else(|| invalid_page("has sizes whose sum exceeds 64 bits"))
    })
}

/// Returns the first and the last key in byte order.
fn ends<'key>(keys: impl Iterator<Item = Option<&'key str>>) -> Result<Option<(String, String)>, S3Failure> {
    let mut found: Option<(&str, &str)> = None;
    for key in keys {
        let key = key.ok_or_else(|| invalid_page("contains an entry without a key"))?;
        if key.len() > MARKER_LIMIT_BYTES {
            return Err(invalid_page("has a key that is longer than a key can be"));
        }
        found = Some(found.map_or((key, key), |(least, greatest)| (least.min(key), greatest.max(key))));
    }
    Ok(found.map(|(least, greatest)| (least.to_owned(), greatest.to_owned())))
}

fn next_page(is_truncated: Option<bool>, next: Option<PageMarker>) -> Result<Option<PageMarker>, S3Failure> {
    match (is_truncated, next) {
        (Some(false), _) => Ok(None),
        (Some(true), Some(next)) if next.is_too_long() => {
            Err(invalid_page("has a continuation marker that is too long"))
        }
        (Some(true), Some(next)) => Ok(Some(next)),
        (Some(true), None) => Err(invalid_page("says that more entries follow, but not where")),
        (None, _) => Err(invalid_page("does not say whether more entries follow")),
    }
}

#[cfg(test)]
mod tests;
