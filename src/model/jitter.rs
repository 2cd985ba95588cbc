//! Randomness that keeps many agents from doing the same thing at the same moment.

use uuid::Uuid;

/// Returns a random number from 0 to 1.
#[must_use]
pub fn random_fraction() -> f64 {
    let (bits, ..) = Uuid::new_v4().as_fields();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread() {
        let numbers: Vec<f64> = (0..1000).map(|_| random_fraction()).collect();
        assert!(numbers.iter().all(|number| (0.0..=1.0).contains(number)));
        let mean = numbers.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}
