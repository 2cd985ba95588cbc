//! `capacity`: total and used space, and a warning when it is nearly full.

use std::fmt::Write as _;
use std::time::Duration;

use super::checked::Checked;
use crate::model::age::in_one_unit;
use crate::model::capacity::format_bytes;
use crate::model::report::{Finding, finding};
use crate::model::usage_listing::{PartialCount, UsageTally, WholeCount};
use crate::model::{BlockCounts, Capacity, Reason, UsageListing};
use crate::s3::BucketUsage;

/// Returns a warning when more than `percent` of the storage is used. None when its size is unknown.
#[must_use]
pub fn nearly_full(capacity: &Capacity, percent: f64) -> Option<Finding> {
    let used = capacity.used_percent().filter(|used| *used > percent)?;
    let left = capacity.available_bytes.map(format_bytes).unwrap_or_default();
    Some(finding!(
        Reason::NearlyFull,
        "{used:.1} % is used, more than the {percent} % of [probe] nearly_full_percent, and {left} are available: add storage, raise the quota or remove backups"
    ))
}

/// Returns a warning when the storage is full before `within` has passed.
#[must_use]
pub fn full_soon(time_to_full: Duration, within: Duration) -> Option<Finding> {
    (time_to_full < within).then(|| {
        finding!(
            Reason::FullSoon,
            "full in about {} if use continues to grow as in the last days, sooner than the {} of [probe] full_soon_within: add storage, raise the quota or remove backups",
            in_one_unit(time_to_full),
            in_one_unit(within)
        )
    })
}

/// Returns a warning when more than `percent` of the inodes are used. Without a free inode no file can be created,
/// however much space is free.
#[must_use]
pub fn inodes_nearly_used_up(capacity: &Capacity, percent: f64) -> Option<Finding> {
    let used = capacity.inodes_used_percent().filter(|used| *used > percent)?;
    let (total, in_use) = capacity.inodes.zip(capacity.inodes_used)?;
    let state = match total - in_use {
        0 => format!("all {total} inodes are used, so no file can be created"),
        left => format!(
            "{used:.1} % of the {total} inodes are used, more than the {percent} % of [probe] nearly_full_percent, and {left} are left"
        ),
    };
    let advice = "remove files, or give the file system on the server more inodes (`df -i` there)";
    Some(finding!(Reason::InodesNearlyUsedUp, "{state}: {advice}"))
}

/// Returns a warning about counts that no file system can have.
#[must_use]
pub fn implausible(counts: &BlockCounts) -> Option<Finding> {
    let contradiction = counts.contradiction()?;
    Some(finding!(
        Reason::CapacityImplausible,
        "the server reports {contradiction}, so how much a backup can write is not known: check the file system and the quotas on the server"
    ))
}

/// Capacity of a bucket, from the quota and usage that its service reports, or from a complete listing. A
/// listing that stopped is only a warning, because it does not show whether backups can be written.
#[must_use]
pub fn bucket_capacity(
    usage: &BucketUsage,
    listing: Option<&UsageListing>,
    nearly_full_percent: f64,
) -> Checked<Capacity> {
    let counted = listing.and_then(|listing| listing.whole).map(|count| count.tally.bytes);
    let capacity = Capacity::from_bucket(usage.used_bytes.or(counted), usage.quota_bytes);
    let checked = Checked::passed(capacity)
        .with_warnings(nearly_full(&capacity, nearly_full_percent))
        .with_warnings(usage.impossible_bytes.map(impossible_use));
    if let (None, Some(listing)) = (usage.used_bytes, listing) {
        return checked.with_warnings(listing.failure.clone()).detail(describe(listing, usage));
    }
    match (usage.used_bytes, usage.quota_bytes) {
        (None, _) => checked.detail("the service does not report how much the bucket contains"),
        (Some(_), None) => checked.detail("the service reports no quota of the bucket"),
        (Some(_), Some(_)) => checked,
    }
}

fn impossible_use(bytes: i128) -> Finding {
    finding!(
        Reason::CapacityImplausible,
        "the service reports that the bucket contains {bytes} bytes, which is impossible, so its usage is unknown: correct the statistics of the bucket (Ceph: `radosgw-admin bucket check --fix --bucket=NAME`)"
    )
}

/// Describes the state of the listing.
fn describe(listing: &UsageListing, usage: &BucketUsage) -> String {
    let mut detail = match &listing.whole {
        None => "the service does not report how much the bucket contains, and no listing is complete yet".to_owned(),
        Some(WholeCount { tally, began_at, ended_at }) => {
            let rest = if tally.counts_versions {
                ""
            } else {
                ", without noncurrent versions, which the service does not list for these credentials"
            };
            let by = listing.node.as_ref().map(|node| format!(" on the node {node}")).unwrap_or_default();
            format!("counted by listing{by} from {began_at:.0} to {ended_at:.0}: {}{rest}", summary(tally))
        }
    };
    if let Some(PartialCount { tally, began_at }) = &listing.under_way {
        let _ = write!(detail, ". The listing since {began_at:.0} has counted {}", summary(tally));
    }
    let _ = match listing.next_run_at {
        Some(at) if listing.under_way.is_some() => write!(detail, ". It continues at {at:.0}"),
        Some(at) => write!(detail, ". The next one starts at {at:.0}"),
        None if listing.node.is_some() => Ok(()),
        None => write!(detail, ". A run is in progress"),
    };
    if usage.quota_bytes.is_none() {
        detail.push_str(". The service reports no quota");
    }
    detail
}

fn summary(tally: &UsageTally) -> String {
    let UsageTally { pages, versions, delete_markers, bytes, counts_versions } = tally;
    let counted = if *counts_versions {
        format!("{} and {}", number(*versions, "version"), number(*delete_markers, "delete marker"))
    } else {
        number(*versions, "object")
    };
    format!("{counted}, {} in {}", format_bytes(*bytes), number(*pages, "page"))
}

fn number(count: u64, of: &str) -> String {
    format!("{count} {of}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;

    #[test]
    fn bucket_whose_quota_is_nearly_used_up_has_a_warning() {
        let usage = BucketUsage { used_bytes: Some(96), quota_bytes: Some(100), ..BucketUsage::default() };
        let checked = bucket_capacity(&usage, None, 95.0);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::NearlyFull)));
        assert_eq!(bucket_capacity(&usage, None, 96.0).reason(), None);
    }

    #[test]
    fn inodes_that_are_nearly_or_completely_used_up_are_a_warning() {
        let message = |free| {
            let capacity = Capacity::from_blocks(1, 10, 10, 10, 200, free);
            let finding = inodes_nearly_used_up(&capacity, 90.0)?;
            assert_eq!(finding.reason, Reason::InodesNearlyUsedUp);
            Some(finding.message)
        };
        assert_eq!(message(20), None);
        let nearly = message(19).unwrap_or_default();
        assert!(nearly.starts_with("90.5 % of the 200 inodes are used") && nearly.contains("19 are left"), "{nearly}");
        let used_up = message(0).unwrap_or_default();
        assert!(used_up.starts_with("all 200 inodes are used, so no file can be created"), "{used_up}");
    }

    #[test]
    fn target_that_is_full_within_the_threshold_has_a_warning() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let finding = full_soon(hours(30), hours(72)).expect("a warning");
        assert_eq!(finding.reason, Reason::FullSoon);
        assert!(
            finding.message.starts_with("full in about 30 h if") && finding.message.contains("the 3 d of"),
            "{}",
            finding.message
        );
        assert_eq!(full_soon(hours(72), hours(72)), None);
        assert_eq!(full_soon(Duration::ZERO, Duration::ZERO), None, "turned off");
    }

    #[test]
    fn capacity_passes_when_the_size_of_the_bucket_is_unknown() {
        let checked = bucket_capacity(&BucketUsage::default(), None, 90.0);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, None));
    }

    #[test]
    fn impossible_usage_is_a_warning_and_not_a_number() {
        let usage = BucketUsage {
            impossible_bytes: Some(18_446_744_073_709_547_520),
            quota_bytes: Some(100),
            ..BucketUsage::default()
        };
        let checked = bucket_capacity(&usage, None, 95.0);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::CapacityImplausible)));
        assert!(checked.finding().is_some_and(|finding| finding.message.contains("18446744073709547520 bytes")));
        assert_eq!(checked.into_fact::<()>().map(|capacity| capacity.used_bytes), Ok(None));
    }

    fn tally(bytes: u64, counts_versions: bool) -> UsageTally {
        UsageTally { pages: 2, versions: 1500, delete_markers: 3, bytes, counts_versions }
    }

    fn at(text: &str) -> jiff::Timestamp {
        text.parse().expect("a time")
    }

    fn listing(whole: Option<UsageTally>) -> UsageListing {
        let began_at = at("2026-11-24T08:00:00Z");
        let whole = whole.map(|tally| WholeCount { tally, began_at, ended_at: at("2026-11-24T09:00:05Z") });
        let under_way = Some(PartialCount { tally: tally(999, true), began_at: at("2026-11-24T10:00:00Z") });
        UsageListing { whole, under_way, failure: None, next_run_at: Some(at("2026-11-24T11:00:00Z")), node: None }
    }

    fn checked(listing: &UsageListing) -> (Checked<Capacity>, String) {
        let checked = bucket_capacity(&BucketUsage::default(), Some(listing), 90.0);
        (checked.clone(), checked.detail.unwrap_or_default())
    }

    #[test]
    fn listing_counts_as_usage_only_when_it_is_complete() {
        let (checked, detail) = checked(&listing(None));
        assert_eq!(checked.into_fact::<()>().map(|capacity| capacity.used_bytes), Ok(None));
        for part in
            ["does not report", "has counted 1500 versions and 3 delete markers, 999.0 B in 2 pages", "T11:00:00Z"]
        {
            assert!(detail.contains(part), "{detail}");
        }
    }

    #[test]
    fn detail_of_a_count_names_its_time_and_what_it_omits() {
        let (checked, detail) = checked(&listing(Some(tally(2048, true))));
        assert_eq!(checked.into_fact::<()>().map(|capacity| capacity.used_bytes), Ok(Some(2048)));
        assert!(detail.contains("from 2026-11-24T08:00:00Z to 2026-11-24T09:00:05Z: 1500 versions and 3"), "{detail}");
        let (_, detail) = self::checked(&listing(Some(tally(2048, false))));
        assert!(detail.contains("1500 objects, 2.0 KB in 2 pages, without noncurrent versions"), "{detail}");
        assert!(detail.ends_with(". The service reports no quota"), "{detail}");
        let usage = BucketUsage { quota_bytes: Some(4096), ..BucketUsage::default() };
        let detail = bucket_capacity(&usage, Some(&listing(None)), 90.0).detail.unwrap_or_default();
        assert!(!detail.contains("quota"), "{detail}");
    }

    #[test]
    fn stopped_listing_is_a_warning_besides_the_last_count() {
        let failure = Some(Finding::new(Reason::Throttled, "so"));
        let (checked, _) = checked(&UsageListing { failure, ..listing(Some(tally(2048, true))) });
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::Throttled)));
        assert_eq!(checked.into_fact::<()>().map(|capacity| capacity.used_bytes), Ok(Some(2048)));
    }

    #[test]
    fn nearly_full_bucket_whose_listing_stopped_has_both_warnings() {
        let failure = Some(Finding::new(Reason::Throttled, "so"));
        let usage = BucketUsage { quota_bytes: Some(2048), ..BucketUsage::default() };
        let stopped = UsageListing { failure, ..listing(Some(tally(2048, true))) };
        let checked = bucket_capacity(&usage, Some(&stopped), 90.0);
        let reasons: Vec<Reason> = checked.findings().iter().map(|finding| finding.reason).collect();
        assert_eq!(reasons, [Reason::NearlyFull, Reason::Throttled]);
    }

    #[test]
    fn reported_usage_takes_precedence_over_a_listing() {
        let usage = BucketUsage { used_bytes: Some(7), ..BucketUsage::default() };
        let checked = bucket_capacity(&usage, Some(&listing(Some(tally(2048, true)))), 90.0);
        assert_eq!(checked.into_fact::<()>().map(|capacity| capacity.used_bytes), Ok(Some(7)));
    }
}
