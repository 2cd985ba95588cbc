//! Capacity: the total and used space of a target.
//!
//! Facts are bytes. Text for people and for the wire is in 1024 steps with one decimal, as the
//! clients of the Backup Targets API expect (`"2.4 TB"`).

/// Measured space, in bytes and inodes. A field is `None` when the storage does not report it: a
/// bucket without a quota has used space and no capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capacity {
    /// Size of the file system, or the bucket's quota, in bytes.
    pub capacity_bytes: Option<u64>,
    /// Bytes in use: `(f_blocks − f_bfree) × f_frsize`, or the size of the bucket's content.
    pub used_bytes: Option<u64>,
    /// Bytes that an unprivileged writer can still use: `f_bavail × f_frsize`, or the quota minus the used bytes.
    pub available_bytes: Option<u64>,
    /// Inodes of the file system.
    pub inodes: Option<u64>,
    /// Inodes in use.
    pub inodes_used: Option<u64>,
}

impl Capacity {
    /// From the block counts of statvfs(3) or NFS FSSTAT (RFC 1813 §3.3.18).
    ///
    /// The unit is `f_frsize`, never `f_bsize`, which on NFS is the transfer size. Confusing them would be wrong by a
    /// factor of up to 256. Inconsistent counts of a server saturate instead of wrapping, and
    /// [`BlockCounts::contradiction`] describes them. Available space is limited to the free space, because a server
    /// over its quota may report a negative count, which is read as a huge unsigned one. An impossible free count is
    /// replaced by the available count, or by zero if both are negative. A negative count of free inodes means zero.
    #[must_use]
    pub fn from_blocks(unit_bytes: u64, blocks: u64, free: u64, available: u64, inodes: u64, inodes_free: u64) -> Self {
        let free = match free {
            _ if free <= blocks => free,
            _ if available <= blocks => available,
            _ if is_negative(free, unit_bytes) => 0,
            _ => blocks,
        };
        let available = available.min(free);
        let inodes_free = if inodes_free > inodes && is_negative(inodes_free, 1) { 0 } else { inodes_free };
        Self {
            capacity_bytes: Some(blocks.saturating_mul(unit_bytes)),
            used_bytes: Some(blocks.saturating_sub(free).saturating_mul(unit_bytes)),
            available_bytes: Some(available.saturating_mul(unit_bytes)),
            inodes: Some(inodes),
            inodes_used: Some(inodes.saturating_sub(inodes_free)),
        }
    }

    /// Returns the capacity of a bucket from its used bytes and quota. A value that the service does not report is
    /// `None`.
    #[must_use]
    pub fn from_bucket(used_bytes: Option<u64>, quota_bytes: Option<u64>) -> Self {
        Self {
            capacity_bytes: quota_bytes,
            used_bytes,
            available_bytes: quota_bytes.zip(used_bytes).map(|(quota, used)| quota.saturating_sub(used)),
            ..Self::default()
        }
    }

    /// Used share of the space that a writer can use, in percent, as `df` counts it:
    /// used ÷ (used + available). `None` when either is unknown or both are zero.
    #[must_use]
    pub fn used_percent(&self) -> Option<f64> {
        let (used, available) = (self.used_bytes?, self.available_bytes?);
        percent(used, used.saturating_add(available))
    }

    /// Share of the inodes in use, in percent. `None` when the file system has no fixed number of them.
    #[must_use]
    pub fn inodes_used_percent(&self) -> Option<f64> {
        percent(self.inodes_used?, self.inodes?)
    }
}

#[allow(clippy::cast_precision_loss)]
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64 * 100.0)
}

/// Counts of statvfs(3) or NFS FSSTAT, as the server reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCounts {
    /// Unit of the block counts, in bytes.
    pub unit_bytes: u64,
    /// Total number of blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks for unprivileged users.
    pub available: u64,
    /// Total number of inodes.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

impl BlockCounts {
    /// Returns the capacity in bytes and inodes.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let Self { unit_bytes, blocks, free, available, inodes, inodes_free } = *self;
        Capacity::from_blocks(unit_bytes, blocks, free, available, inodes, inodes_free)
    }

    /// Describes counts that no file system can have: no space at all, or more free space or inodes than there are.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let Self { unit_bytes, blocks, free, available, inodes, inodes_free } = *self;
        if blocks > 0 && free <= blocks && available <= blocks {
            // A file system without a fixed number of inodes has a total of zero.
            let is_impossible = inodes > 0 && inodes_free > inodes;
            return is_impossible.then(|| format!("{inodes} inodes, {} of them free", inodes_free.cast_signed()));
        }
        let size = |count: u64| {
            if count > blocks && is_negative(count, unit_bytes) {
                format!("-{}", format_bytes(count.wrapping_mul(unit_bytes).wrapping_neg()))
            } else {
                format_bytes(count.saturating_mul(unit_bytes))
            }
        };
        Some(format!("a size of {}, {} free and {} available", size(blocks), size(free), size(available)))
    }
}

/// Whether a number of blocks that exceeds the total is a negative number of bytes, read as unsigned.
fn is_negative(count: u64, unit_bytes: u64) -> bool {
    i64::try_from(count.saturating_mul(unit_bytes)).is_err()
}

const UNITS: [&str; 7] = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];

/// A size in 1024 steps with one decimal: `2.4 TB`. Half a tenth rounds up, and 1024 of one unit
/// is written as 1 of the next.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let mut unit = 0;
    let mut divisor: u128 = 1;
    let tenths = loop {
        let tenths = (u128::from(bytes) * 10 + divisor / 2) / divisor;
        if tenths < 10_240 || unit + 1 == UNITS.len() {
            break tenths;
        }
        divisor *= 1024;
        unit += 1;
    };
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_formatted_in_units_of_1024_with_one_decimal() {
        for (bytes, text) in [
            (0, "0.0 B"),
            (1023, "1023.0 B"),
            (1024, "1.0 KB"),
            (1536, "1.5 KB"),
            (1_048_575, "1.0 MB"),
            (2_638_827_906_662, "2.4 TB"),
            (u64::MAX, "16.0 EB"),
        ] {
            assert_eq!(format_bytes(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn blocks_count_in_the_fragment_size() {
        let capacity = Capacity::from_blocks(4096, 1000, 400, 350, 100, 60);
        assert_eq!(capacity.capacity_bytes, Some(4_096_000));
        assert_eq!(capacity.used_bytes, Some(2_457_600));
        assert_eq!(capacity.available_bytes, Some(1_433_600));
        assert_eq!((capacity.inodes, capacity.inodes_used), (Some(100), Some(40)));
        let percent = capacity.used_percent().expect("known");
        assert!((percent - 63.157).abs() < 0.001, "{percent}");
    }

    #[test]
    fn available_space_is_at_most_the_free_space() {
        // A negative count of statvfs(3) is a huge unsigned one. XFS and ZFS over quota report such counts.
        for (blocks, free, available, expected) in
            [(1000, 10, u64::MAX - 5, 10), (1000, 10, 500, 10), (1000, 2000, 2000, 1000), (0, 0, 700, 0)]
        {
            let capacity = Capacity::from_blocks(1, blocks, free, available, 0, 0);
            assert_eq!(capacity.available_bytes, Some(expected), "{blocks} {free} {available}");
        }
        let nearly_full = Capacity::from_blocks(4096, 1000, 10, u64::MAX, 0, 0).used_percent();
        assert_eq!(nearly_full, Some(99.0));
    }

    #[test]
    fn impossible_free_space_does_not_hide_used_space() {
        for (unit, free, available, used_percent) in [
            // Both counts are negative: over quota.
            (1, u64::MAX - 5, u64::MAX - 5, 100.0),
            (1 << 20, (1 << 44) - 7, (1 << 44) - 7, 100.0),
            (4096, u64::MAX, 50, 95.0),
            (4096, 5000, 50, 95.0),
        ] {
            let capacity = Capacity::from_blocks(unit, 1000, free, available, 0, 0);
            assert_eq!(capacity.used_percent(), Some(used_percent), "{free} {available}");
            assert!(capacity.used_bytes.zip(capacity.available_bytes).is_some(), "{capacity:?}");
        }
    }

    fn counts(blocks: u64, free: u64, available: u64) -> BlockCounts {
        BlockCounts { unit_bytes: 1024, blocks, free, available, inodes: 0, inodes_free: 0 }
    }

    #[test]
    fn contradiction_describes_impossible_counts() {
        for (blocks, free, available) in [(1000, 400, 350), (1000, 1000, 1000), (1000, 400, 500)] {
            assert_eq!(counts(blocks, free, available).contradiction(), None, "{blocks} {free} {available}");
        }
        for (blocks, free, available, expected) in [
            (0, 0, 0, "a size of 0.0 B, 0.0 B free and 0.0 B available"),
            (1024, 1024, 2048, "a size of 1.0 MB, 1.0 MB free and 2.0 MB available"),
            (1024, 2048, 0, "a size of 1.0 MB, 2.0 MB free and 0.0 B available"),
            (1024, 10, (1 << 54) - 2048, "a size of 1.0 MB, 10.0 KB free and -2.0 MB available"),
        ] {
            assert_eq!(counts(blocks, free, available).contradiction().as_deref(), Some(expected));
        }
        for (inodes, inodes_free, expected) in [
            (200, 200, None),
            (0, u64::MAX, None),
            (200, 201, Some("200 inodes, 201 of them free")),
            (200, u64::MAX - 4, Some("200 inodes, -5 of them free")),
        ] {
            let counts = BlockCounts { inodes, inodes_free, ..counts(1000, 400, 350) };
            assert_eq!(counts.contradiction().as_deref(), expected);
        }
        // All of the largest file systems is used without a contradiction. Amazon EFS reports 8 EiB.
        assert_eq!(counts(1 << 53, 1 << 53, 1 << 53).contradiction(), None);
    }

    #[test]
    fn used_inodes_are_a_share_of_a_fixed_number() {
        let used_percent = |inodes, free| Capacity::from_blocks(1, 1, 1, 1, inodes, free).inodes_used_percent();
        assert_eq!((used_percent(200, 20), used_percent(200, 0)), (Some(90.0), Some(100.0)));
        assert_eq!((used_percent(0, 0), used_percent(0, u64::MAX), used_percent(200, 300)), (None, None, Some(0.0)));
        assert_eq!(used_percent(200, u64::MAX), Some(100.0), "a negative count");
    }

    #[test]
    fn bucket_without_quota_has_no_capacity_and_no_percentage() {
        let capacity = Capacity::from_bucket(Some(7), None);
        assert_eq!((capacity.capacity_bytes, capacity.used_bytes, capacity.used_percent()), (None, Some(7), None));
        assert_eq!(Capacity::from_bucket(Some(7), Some(5)).available_bytes, Some(0));
    }

    proptest! {
        #[test]
        fn capacity_does_not_overflow(unit: u64, blocks: u64, free: u64, available: u64) {
            let capacity = Capacity::from_blocks(unit, blocks, free, available, free, blocks);
            prop_assert!(capacity.used_bytes <= capacity.capacity_bytes);
            if let Some(percent) = capacity.used_percent() {
                prop_assert!((0.0..=100.0).contains(&percent));
            }
        }

        #[test]
        fn displayed_size_is_within_a_twentieth_of_a_unit(bytes: u64) {
            let text = format_bytes(bytes);
            let (number, unit) = text.split_once(' ').expect("a unit");
            let scale = 1024f64.powi(i32::try_from(UNITS.iter().position(|name| *name == unit).expect("known")).expect("small"));
            let written: f64 = number.parse().expect("a number");
            prop_assert!((written - bytes as f64 / scale).abs() <= 0.0501, "{} for {}", text, bytes);
            prop_assert!(written < 1024.0 || unit == "EB");
        }
    }
}
