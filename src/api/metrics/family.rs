//! Metric families: names, types, labels and meanings, and how their values are written.

use jiff::Timestamp;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::model::Observed;

/// A metric family.
#[derive(Debug)]
pub(crate) struct Family {
    /// Name without the suffix of its type.
    name: &'static str,
    kind: MetricType,
    /// Names of the labels.
    #[cfg_attr(not(test), allow(dead_code, reason = "a test compares them with the documentation"))]
    pub(crate) labels: &'static [&'static str],
    /// Meaning, as a sentence.
    pub(crate) help: &'static str,
}

impl Family {
    /// A value that goes up and down.
    pub(crate) const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricType::Gauge, labels, help }
    }

    /// A total, whose name ends with `_total`.
    pub(crate) const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricType::Counter, labels, help }
    }

    /// Facts as labels, with a name that ends with `_info`.
    pub(crate) const fn info(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricType::Info, labels, help }
    }

    /// A distribution.
    pub(crate) const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricType::Histogram, labels, help }
    }

    /// Name of its series. Those of a histogram have a suffix.
    #[cfg(test)]
    pub(crate) fn series_name(&self) -> String {
        let suffix = match self.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            _ => "",
        };
        format!("{}{suffix}", self.name)
    }

    /// Its row in the table of the documentation.
    #[cfg(test)]
    pub(crate) fn row(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|label| format!("`{label}`")).collect();
        let help = self.help.trim_end_matches('.');
        format!("| `{}` | {} | {} | {help} |", self.series_name(), self.kind.as_str(), labels.join(", "))
    }
}

/// Lists families that have the same labels: kind, name and meaning of each, and a function that returns its value.
macro_rules! values {
    ($labels:expr; $($kind:ident $name:literal: $help:literal, $value:expr;)*) => {
        &[$((Family::$kind($name, $labels, $help), $value),)*]
    };
}

pub(super) use values;

/// Writes families. Each family may be written only once, with all its series.
pub(crate) struct Exposition<'a>(pub(super) DescriptorEncoder<'a>);

impl Exposition<'_> {
    /// Writes the values of a family. Values that are not finite are left out. Without values, the family is left out.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn write<L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> std::fmt::Result {
        let mut values = values.into_iter().filter(|(_, value)| value.is_finite()).peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family_encoder = self.0.encode_descriptor(family.name, family.help, None, family.kind)?;
        for (labels, value) in values {
            if family.kind == MetricType::Info {
                family_encoder.encode_info(&labels)?;
                continue;
            }
            let mut encoder = family_encoder.encode_family(&labels)?;
            match (family.kind, whole(value)) {
                (MetricType::Counter, None) => encoder.encode_counter::<NoLabelSet, f64, u64>(&value, None)?,
                (MetricType::Counter, Some(value)) => {
                    encoder.encode_counter::<NoLabelSet, u64, u64>(&value.unsigned_abs(), None)?;
                }
                (_, None) => encoder.encode_gauge(&value)?,
                (_, Some(value)) => encoder.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// Writes a family with a single value, if there is one.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn write_one(&mut self, family: &Family, value: Option<f64>) -> std::fmt::Result {
        self.write(family, value.map(|value| ([("", ""); 0], value)))
    }

    /// Writes the distributions of a family. Without distributions, the family is left out.
    ///
    /// # Errors
    /// Those of the sink.
    pub(super) fn write_histogram<L: EncodeLabelSet>(
        &mut self,
        family: &Family,
        values: impl IntoIterator<Item = (L, Observed)>,
    ) -> std::fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family_encoder = self.0.encode_descriptor(family.name, family.help, None, family.kind)?;
        for (labels, observed) in values {
            let (sum, count) = (observed.sum, observed.count());
            let mut encoder = family_encoder.encode_family(&labels)?;
            encoder.encode_histogram::<NoLabelSet>(sum, count, &observed.buckets, None)?;
        }
        Ok(())
    }
}

/// Returns a value that is a whole number as an integer, because the library would write `1.0` for `1`.
fn whole(value: f64) -> Option<i64> {
    let whole = value as i64;
    (whole as f64 == value).then_some(whole)
}

/// Returns 1 for true and 0 for false.
pub(crate) fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Returns a count as a 64-bit float, which is how Prometheus stores every value.
pub(crate) fn number(value: u64) -> f64 {
    value as f64
}

/// Returns the seconds since 1970, with milliseconds.
pub(crate) fn seconds_of(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
