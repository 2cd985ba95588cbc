//! Interceptors that read or limit an answer before the SDK parses it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_sdk_s3::config::Region;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeDeserializationInterceptorContextRef,
    BeforeSerializationInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::date_time::Format;

use crate::s3::bucket::BucketUsage;

/// Longest answer that is read, in bytes, unless the request has its own limit. Usual answers have a few hundred
/// bytes.
pub const ANSWER_LIMIT_BYTES: usize = 64 * 1024;

/// Header with the used space of a bucket.
const BYTES_USED: &str = "x-rgw-bytes-used";

/// Headers of an answer to HEAD bucket.
#[derive(Debug, Default)]
pub(super) struct HeadHeaders {
    pub(super) usage: BucketUsage,
    pub(super) is_html: bool,
}

/// Keeps the headers of an answer that the SDK does not pass on.
#[derive(Debug)]
pub(super) struct ReadHeaders(pub(super) Arc<Mutex<HeadHeaders>>);

impl Intercept for ReadHeaders {
    fn name(&self) -> &'static str {
        "ReadHeaders"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        // RGW writes -1 for a quota without limit. Its usage counters can become negative, which it writes as huge
        // unsigned numbers.
        let written = |name: &str| headers.get(name).and_then(|value| value.trim().parse::<i128>().ok());
        let number = |name: &str| written(name).and_then(|number| i64::try_from(number).ok()?.try_into().ok());
        let used_bytes = number(BYTES_USED);
        let usage = BucketUsage {
            used_bytes,
            impossible_bytes: written(BYTES_USED).filter(|_| used_bytes.is_none()),
            object_count: number("x-rgw-object-count"),
            quota_bytes: number("x-rgw-quota-bucket-size"),
            clock_ahead_seconds: None,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            HeadHeaders { usage, is_html: is_html(context.response()) };
        Ok(())
    }
}

/// Whether an answer has the type of a web page.
pub(super) fn is_html(answer: &HttpResponse) -> bool {
    answer
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// Keeps the service's time from the latest answer with a `Date`, whatever the call.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceDate(Arc<Mutex<Option<Clocks>>>);

/// Time of the service, in seconds since 1970, and its offset from this host's clock, in seconds.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    service: i64,
    ahead: i64,
}

impl ServiceDate {
    /// Returns the service's time in the latest answer with a `Date`, in seconds since 1970.
    pub(super) fn latest(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|clocks| clocks.service)
    }

    /// Returns the offset of that time from this host's clock, in seconds. Positive if the service's clock was ahead.
    pub(super) fn ahead_seconds(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|clocks| clocks.ahead)
    }
}

impl Intercept for ServiceDate {
    fn name(&self) -> &'static str {
        "ServiceDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(clocks) = clocks(context.response()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(clocks);
        }
        Ok(())
    }
}

/// Returns the offset of an answer's `Date` from this host's clock, in seconds. Positive if it is ahead.
pub(super) fn clock_ahead_seconds(answer: &HttpResponse) -> Option<i64> {
    clocks(answer).map(|clocks| clocks.ahead)
}

fn clocks(answer: &HttpResponse) -> Option<Clocks> {
    let headers = answer.headers();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let service = current_time(headers.get("date")?, headers.get("age"))?;
    Some(Clocks { service, ahead: service.saturating_sub_unsigned(now) })
}

/// Returns the current time of the service, in seconds since 1970, from `Date` and `Age`. A cached answer has the date
/// of the original answer, and its age since then in seconds (RFC 9111 §4.2.3, §5.1). Some proxies send an age of zero
/// with every answer. An invalid age is ignored, as the RFC demands.
fn current_time(date: &str, age: Option<&str>) -> Option<i64> {
    let date = DateTime::from_str(date, Format::HttpDate).ok()?.secs();
    let age = age.and_then(|age| age.split(',').next()?.trim().parse::<u32>().ok()).unwrap_or_default();
    Some(date.saturating_add(age.into()))
}

/// Adds the region that the request was signed for to its answer, as an extension of the type [`Region`]. AWS and
/// others name that region in answers that have nothing to do with it.
#[derive(Debug)]
pub(super) struct NoteSignedRegion;

impl Intercept for NoteSignedRegion {
    fn name(&self) -> &'static str {
        "NoteSignedRegion"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(signed) = config.load::<Region>() {
            context.response_mut().add_extension(signed.clone());
        }
        Ok(())
    }
}

/// Limit of the answer to one request, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerLimit(pub(super) usize);

impl Storable for AnswerLimit {
    type Storer = StoreReplace<Self>;
}

impl Intercept for AnswerLimit {
    fn name(&self) -> &'static str {
        "AnswerLimit"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(*self);
        Ok(())
    }
}

/// Stops reading an answer at the [`AnswerLimit`] of the request, or at [`ANSWER_LIMIT_BYTES`] if it has none.
#[derive(Debug)]
pub(super) struct LimitAnswer;

impl Intercept for LimitAnswer {
    fn name(&self) -> &'static str {
        "LimitAnswer"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let limit = config.load::<AnswerLimit>().map_or(ANSWER_LIMIT_BYTES, |limit| limit.0);
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(http_body_util::Limited::new(whole, limit));
        Ok(())
    }
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
