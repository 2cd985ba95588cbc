//! What is done with an answer before the SDK reads it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeDeserializationInterceptorContextRef,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;

use crate::s3::BucketUsage;

/// The longest answer that is read, in bytes. Those of these calls have a few hundred.
pub const ANSWER_LIMIT_BYTES: usize = 64 * 1024;

/// What the headers of an answer told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) usage: BucketUsage,
    pub(super) is_html: bool,
    /// The service's clock (`Date`), in seconds since 1970.
    pub(super) date: Option<i64>,
}

/// Keeps what the headers of an answer tell and the SDK does not pass on.
#[derive(Debug)]
pub(super) struct ReadHeaders(pub(super) Arc<Mutex<Told>>);

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
        // RGW writes -1 for a quota without limit, which is no u64.
        let number = |name: &str| headers.get(name).and_then(|value| value.trim().parse().ok());
        let date = date(context);
        let usage = BucketUsage {
            used_bytes: number("x-rgw-bytes-used"),
            object_count: number("x-rgw-object-count"),
            quota_bytes: number("x-rgw-quota-bucket-size"),
            clock_ahead_seconds: date.map(ahead_of_us),
        };
        let is_html = headers.get("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Told { usage, is_html, date };
        Ok(())
    }
}

/// What an answer says of the service's clock, in seconds since 1970.
fn date(context: &BeforeDeserializationInterceptorContextRef<'_>) -> Option<i64> {
    let value = context.response().headers().get("date")?;
    DateTime::from_str(value, Format::HttpDate).ok().map(|date| date.secs())
}

fn ahead_of_us(date: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    date.saturating_sub_unsigned(now)
}

/// Keeps what the latest answer told of the service's clock, whatever was asked.
#[derive(Debug, Clone, Default)]
pub(super) struct WatchClock(Arc<Mutex<Option<i64>>>);

impl WatchClock {
    pub(super) fn ahead_seconds(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for WatchClock {
    fn name(&self) -> &'static str {
        "WatchClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = date(context) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead_of_us(date));
        }
        Ok(())
    }
}

/// Stops reading an answer at [`ANSWER_LIMIT_BYTES`].
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
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(http_body_util::Limited::new(whole, ANSWER_LIMIT_BYTES));
        Ok(())
    }
}
