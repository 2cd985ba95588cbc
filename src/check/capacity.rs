//! Capacity: how much room there is, and whether it is nearly used up.

use super::Checked;
use crate::model::capacity::format_bytes;
use crate::model::report::Finding;
use crate::model::{Capacity, Reason};
use crate::s3::BucketUsage;

/// A reservation when more than `percent` of the storage is used; none when its size is unknown.
#[must_use]
pub fn nearly_full(capacity: &Capacity, percent: f64) -> Option<Finding> {
    let used = capacity.used_percent().filter(|used| *used > percent)?;
    let left = capacity.available_bytes.map(format_bytes).unwrap_or_default();
    Some(Finding::new(
        Reason::NearlyFull,
        format!(
            "{used:.1} % is used and {left} are left, more than the {percent} % of [probe] nearly_full_percent: add storage, raise the quota or remove backups"
        ),
    ))
}

/// A bucket's capacity from what its service told: the quota, and what it holds.
#[must_use]
pub fn bucket_capacity(usage: &BucketUsage, nearly_full_percent: f64) -> Checked<Capacity> {
    let capacity = Capacity::from_bucket(usage.used_bytes, usage.quota_bytes);
    let checked = Checked::passed(capacity).warning(nearly_full(&capacity, nearly_full_percent));
    match (usage.used_bytes, usage.quota_bytes) {
        (None, _) => checked.detail("the service does not tell how much the bucket holds"),
        (Some(_), None) => checked.detail("the bucket has no quota that the service tells of"),
        (Some(_), Some(_)) => checked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;

    #[test]
    fn a_quota_that_is_nearly_used_up_is_a_warning() {
        let usage = BucketUsage { used_bytes: Some(96), quota_bytes: Some(100), ..BucketUsage::default() };
        let checked = bucket_capacity(&usage, 95.0);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::NearlyFull)));
        assert_eq!(bucket_capacity(&usage, 96.0).reason(), None);
    }

    #[test]
    fn a_bucket_of_unknown_size_passes_and_says_so() {
        let checked = bucket_capacity(&BucketUsage::default(), 90.0);
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, None));
    }
}
