//! What the agent reads from the headers of an answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::s3::bucket::BucketUsage;

/// Longest answer that is read, in bytes, unless the request has its own limit. Usual answers have a few hundred
/// bytes.
pub const ANSWER_LIMIT_BYTES: usize = 64 * 1024;

/// Header with the used space of a bucket.
const BYTES_USED: &str = "x-rgw-bytes-used";

/// Returns the usage in the headers of an answer to HEAD bucket.
pub(super) fn usage(answer: &HttpResponse) -> BucketUsage {
    let headers = answer.headers();
    // RGW writes -1 for a quota without limit. Its usage counters can become negative, which it writes as huge
    // unsigned numbers.
    let written = |name: &str| headers.get(name).and_then(|value| value.trim().parse::<i128>().ok());
    let number = |name: &str| written(name).and_then(|number| i64::try_from(number).ok()?.try_into().ok());
    let used_bytes = number(BYTES_USED);
    BucketUsage {
        used_bytes,
        impossible_bytes: written(BYTES_USED).filter(|_| used_bytes.is_none()),
        object_count: number("x-rgw-object-count"),
        quota_bytes: number("x-rgw-quota-bucket-size"),
        clock_ahead_seconds: None,
    }
}

/// Whether an answer has the type of a web page.
pub(super) fn is_html(answer: &HttpResponse) -> bool {
    answer
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// Offset of the service's clock from this host's in the latest answer with a `Date`, whatever the call.
#[derive(Debug, Clone, Default)]
pub(super) struct ClockOffset(Arc<Mutex<Option<i64>>>);

impl ClockOffset {
    /// Returns the offset, in seconds. Positive if the service's clock was ahead.
    pub(super) fn ahead_seconds(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the offset from an answer.
    pub(super) fn note(&self, answer: &HttpResponse) {
        if let Some(ahead) = clock_ahead_seconds(answer) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
    }
}

/// Returns the offset of an answer's `Date` from this host's clock, in seconds. Positive if it is ahead.
pub(super) fn clock_ahead_seconds(answer: &HttpResponse) -> Option<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Some(service_time(answer)?.saturating_sub_unsigned(now))
}

/// Returns the service's time in an answer, in seconds since 1970.
pub(super) fn service_time(answer: &HttpResponse) -> Option<i64> {
    let headers = answer.headers();
    current_time(headers.get("date")?, headers.get("age"))
}

/// Returns the current time of the service, in seconds since 1970, from `Date` and `Age`. A cached answer has the date
/// of the original answer, and its age since then in seconds (RFC 9111 §4.2.3, §5.1). Some proxies send an age of zero
/// with every answer. An invalid age is ignored, as the RFC demands.
fn current_time(date: &str, age: Option<&str>) -> Option<i64> {
    let date = DateTime::from_str(date, Format::HttpDate).ok()?.secs();
    let age = age.and_then(|age| age.split(',').next()?.trim().parse::<u32>().ok()).unwrap_or_default();
    Some(date.saturating_add(age.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_of_a_cached_answer_is_added_to_its_date() {
        let date = "Thu, 01 Jan 1970 00:01:00 GMT";
        for (age, expected) in [
            (None, 60),
            (Some("0"), 60),
            (Some(" 30 "), 90),
            (Some("5, 7"), 65),
            (Some("-1"), 60),
            (Some("soon"), 60),
            (Some("99999999999"), 60),
        ] {
            assert_eq!(current_time(date, age), Some(expected), "{age:?}");
        }
        assert_eq!(current_time("yesterday", Some("0")), None);
    }
}
