//! Usage listing: what a bucket holds, counted page by page.
//!
//! A pass goes once through all versions, or through the objects as they are where listing versions is
//! refused, and may be left after any page and gone on with later. Only its end is a count. What it stops
//! over decides whether its place is kept: of a service that is away or busy it is, and the same page is
//! asked for again; after an answer that is no page, or pages that do not go on, nothing that was added up
//! can be trusted, and the next pass begins at the front.
//!
//! A service that gives the same pages again and again is found out without remembering all of them: each
//! page is compared with the one before and with one that is kept while the pages double (Brent's way to
//! find a cycle). Keys of versions must ascend, too (S3 API reference, ListObjectVersions).

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
    latest: Option<Seen>,
    remembered: Option<Seen>,
}

/// Position of a page in the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
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
                Ok(false) => return PageOutcome::Whole(self.ended(Timestamp::now())),
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
        let keeps_place = !is_first && is_passing(&failure);
        PageOutcome::Stopped(failure, keeps_place.then_some(self))
    }

    fn ended(&self, ended_at: Timestamp) -> WholeCount {
        WholeCount { tally: self.tally, began_at: self.began_at, ended_at }
    }

    /// Adds a page. Returns whether more follow.
    fn add(&mut self, page: ListedPage) -> Result<bool, &'static str> {
        let ListedPage { versions, delete_markers, bytes, keys, next } = page;
        let (before, sum) = (self.tally, "the pages of the listing add up to more than can be");
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
                return Err("the pages of the listing go back instead of on");
            }
        }
        let Some(next) = next else { return Ok(false) };
        let seen = Seen { next: next.clone(), keys };
        let known = [&self.latest, &self.remembered];
        if known.into_iter().flatten().any(|known| known.is_repeated_by(&seen)) {
            return Err("the pages of the listing do not go on: one of them came again");
        }
        if self.tally.pages.is_power_of_two() {
            self.remembered = Some(seen.clone());
        }
        (self.after, self.latest) = (Some(next), Some(seen));
        Ok(true)
    }
}

impl Seen {
    fn is_repeated_by(&self, other: &Self) -> bool {
        // The versions of one key may fill several pages, but a list of objects has each key once.
        let is_of_objects = matches!(other.next, PageMarker::Token(_));
        self.next == other.next || (is_of_objects && other.keys.is_some() && self.keys == other.keys)
    }
}

/// Whether the same request may succeed later.
fn is_passing(failure: &S3Failure) -> bool {
    match failure {
        S3Failure::NotS3(_) => false,
        // A marker that it does not take any more it will not take later. AWS refuses expired credentials
        // with 400, too.
        S3Failure::Service { status, .. } => failure.has_expired_credentials() || !matches!(status, 400 | 404 | 416),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
