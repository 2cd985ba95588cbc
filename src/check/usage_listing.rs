//! Usage listing: counts the content of a bucket page by page.
//!
//! A pass lists all versions once, or all objects if listing versions is refused. It can pause after any
//! page and continue later. Only a complete pass is a count. A pass that stops because the service is down
//! or busy keeps its position and requests the same page again. After an answer that is not a page, or pages
//! that do not advance, the sum cannot be trusted, and the next pass starts from the beginning.
//!
//! A service may repeat pages in a cycle. Brent's algorithm detects that without remembering all pages. Each page is
//! compared with the previous page and with a remembered one, which is replaced whenever the number of pages has
//! doubled. Keys of versions must also ascend (S3 API reference, ListObjectVersions).

use std::time::Duration;

use jiff::Timestamp;

use crate::model::usage_listing::{PartialCount, UsageTally, WholeCount};
use crate::s3::{BucketApi, Entries, ListedPage, PageMarker, S3Failure, within};

/// A pass over the bucket that has not ended.
#[derive(Debug, Clone)]
pub struct UsagePass {
    began_at: Timestamp,
    entries: Entries,
    tally: UsageTally,
    /// Start of the next page.
    after: Option<PageMarker>,
    latest: Option<PagePosition>,
    remembered: Option<PagePosition>,
}

/// Position of a page in the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PagePosition {
    next: PageMarker,
    keys: Option<(String, String)>,
}

/// Result of one request of a pass.
#[derive(Debug)]
pub enum PageOutcome {
    /// More pages follow.
    More(UsagePass),
    /// It was the last page.
    Whole(WholeCount),
    /// The request failed. Contains the pass if it can continue there.
    Stopped(S3Failure, Option<UsagePass>),
}

impl UsagePass {
    /// Starts a pass.
    #[must_use]
    pub fn new(began_at: Timestamp) -> Self {
        Self {
            began_at,
            entries: Entries::Versions,
            tally: UsageTally { pages: 0, versions: 0, delete_markers: 0, bytes: 0, counts_versions: true },
            after: None,
            latest: None,
            remembered: None,
        }
    }

    /// Count so far.
    #[must_use]
    pub fn so_far(&self) -> PartialCount {
        PartialCount { tally: self.tally, began_at: self.began_at }
    }

    /// Requests one page, within `deadline`.
    pub async fn next_page(mut self, api: &dyn BucketApi, deadline: Duration) -> PageOutcome {
        let failure = match within(deadline, api.page(self.entries, self.after.as_ref())).await {
            Ok(page) => match self.add(page) {
                Ok(true) => return PageOutcome::More(self),
                Ok(false) => return PageOutcome::Whole(self.complete(Timestamp::now())),
                Err(why) => return PageOutcome::Stopped(S3Failure::NotS3(why.to_owned()), None),
            },
            Err(failure) => failure,
        };
        let is_first = self.after.is_none();
        if is_first && self.entries == Entries::Versions && failure.is_refusal() {
            self.entries = Entries::Objects;
            self.tally.counts_versions = false;
            return PageOutcome::More(self);
        }
        let keeps_position = !is_first && may_succeed_later(&failure);
        PageOutcome::Stopped(failure, keeps_position.then_some(self))
    }

    fn complete(&self, ended_at: Timestamp) -> WholeCount {
        WholeCount { tally: self.tally, began_at: self.began_at, ended_at }
    }

    /// Adds a page. Returns whether more follow.
    fn add(&mut self, page: ListedPage) -> Result<bool, &'static str> {
        let ListedPage { versions, delete_markers, bytes, keys, next } = page;
        let (before, sum) = (self.tally, "the sizes in the listing add up to more than 64 bits");
        self.tally = UsageTally {
            pages: before.pages + 1,
            versions: before.versions.checked_add(versions).ok_or(sum)?,
            delete_markers: before.delete_markers.checked_add(delete_markers).ok_or(sum)?,
            bytes: before.bytes.checked_add(bytes).ok_or(sum)?,
            ..before
        };
        if let Some(PageMarker::Version { key: before, .. }) = &self.after {
            let first = keys.as_ref().map(|(first, _)| first);
            let next = next.as_ref().and_then(|next| match next {
                PageMarker::Version { key, .. } => Some(key),
                PageMarker::Token(_) => None,
            });
            if first.into_iter().chain(next).any(|key| key < before) {
                return Err("a page of the listing starts before the end of the previous one");
            }
        }
        let Some(next) = next else { return Ok(false) };
        let position = PagePosition { next: next.clone(), keys };
        let known = [&self.latest, &self.remembered];
        if known.into_iter().flatten().any(|known| known.is_repeated_by(&position)) {
            return Err("the listing repeats a page");
        }
        if self.tally.pages.is_power_of_two() {
            self.remembered = Some(position.clone());
        }
        (self.after, self.latest) = (Some(next), Some(position));
        Ok(true)
    }
}

impl PagePosition {
    fn is_repeated_by(&self, other: &Self) -> bool {
        // The versions of one key may fill several pages, but a list of objects has each key once.
        let is_of_objects = matches!(other.next, PageMarker::Token(_));
        self.next == other.next || (is_of_objects && other.keys.is_some() && self.keys == other.keys)
    }
}

/// Whether the same request may succeed later.
fn may_succeed_later(failure: &S3Failure) -> bool {
    match failure {
        S3Failure::WebPage | S3Failure::NotS3(_) => false,
        // A rejected marker will be rejected again. AWS also refuses expired credentials with 400, but those are
        // renewed.
        S3Failure::Service { status, .. } => failure.has_expired_credentials() || !matches!(status, 400 | 404 | 416),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
