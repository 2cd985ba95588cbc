//! `capacity`: how full storage may become before the report warns.

use crate::model::capacity::format_bytes;
use crate::model::report::Finding;
use crate::model::{Capacity, Reason};

/// A warning when more than `limit_percent` of what a writer could use is used.
#[must_use]
pub fn nearly_full(capacity: &Capacity, limit_percent: f64) -> Option<Finding> {
    let percent = capacity.used_percent().filter(|percent| *percent > limit_percent)?;
    let left = format_bytes(capacity.available_bytes.unwrap_or(0));
    Some(Finding::new(
        Reason::NearlyFull,
        format!(
            "{percent:.1} % is used and {left} is left, the warning begins at {limit_percent} %: delete old backups or enlarge the storage"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_above_the_limit_warns() {
        let capacity = |used: u64| Capacity::from_blocks(1, 1000, 1000 - used, 1000 - used, 0, 0);
        assert_eq!(nearly_full(&capacity(900), 90.0), None);
        let finding = nearly_full(&capacity(901), 90.0).expect("a warning");
        assert_eq!(finding.reason, Reason::NearlyFull);
        assert!(finding.message.contains("90.1 %") && finding.message.contains("99.0 B"), "{}", finding.message);
        assert_eq!(nearly_full(&Capacity::from_bucket(Some(5), None), 0.0), None);
    }
}
