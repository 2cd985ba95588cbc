//! Errors of requests as an [`S3Failure`].

use std::error::Error;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use rustls::InvalidMessage;

use super::answer::{clock_ahead_seconds, is_html};
use crate::model::cause::innermost_cause;
use crate::s3::failure::S3Failure;
use crate::sys::resolve::ResolveError;

/// Header with the region of a bucket.
const BUCKET_REGION: &str = "x-amz-bucket-region";

/// Returns the failure of a request that has no answer.
pub(super) fn unanswered(error: &ConnectorError, limit_bytes: usize) -> S3Failure {
    transport(error, limit_bytes).unwrap_or_else(|| S3Failure::ConnectionBroken(innermost_cause(error)))
}

/// Returns the failure of an answer that cannot be read, and that has this limit.
pub(super) fn unreadable(error: &(dyn Error + 'static), limit_bytes: usize) -> S3Failure {
    transport(error, limit_bytes).unwrap_or_else(|| S3Failure::NotS3(innermost_cause(error)))
}

/// Returns the failure of an answer that the SDK has parsed as a refusal, or has not understood. `signed` is the region
/// that the request was signed for. AWS and others name that region in answers that have nothing to do with it.
pub(super) fn refused<E>(answer: &HttpResponse, told: &E, signed: &str, limit_bytes: usize) -> S3Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if told.code().is_none() && answer.status().is_success() {
        if is_html(answer) {
            return S3Failure::WebPage;
        }
        // The parser's message does not help an operator.
        let other = || S3Failure::NotS3("it is not the XML document that this request expects".to_owned());
        return transport(told, limit_bytes).unwrap_or_else(other);
    }
    let body = answer.body().bytes().and_then(|body| std::str::from_utf8(body).ok()).unwrap_or_default();
    if told.code().is_none() && names_tls_port(body) {
        return S3Failure::PlainToTls;
    }
    let is_other = |region: &&str| *region != signed;
    let region = answer.headers().get(BUCKET_REGION).filter(is_other);
    let leads_to = answer.headers().get("location").or_else(|| element(body, "Endpoint"));
    S3Failure::service(answer.status().as_u16(), told.code(), region)
        .with_headers(clock_ahead_seconds(answer), leads_to)
        .with_message(told.message().unwrap_or_default(), Some(signed))
        .with_region_element(element(body, "Region").filter(is_other))
}

/// Returns the text of the first element of this name in an error document, which is flat.
fn element<'body>(body: &'body str, name: &str) -> Option<&'body str> {
    let (_, after) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once('<')?;
    Some(text.trim())
}

/// Whether the body is the answer of a TLS port to a plain HTTP request. nginx, Apache, Go and others send such answers
/// as plain HTTP.
fn names_tls_port(body: &str) -> bool {
    let body = body.to_ascii_lowercase();
    ["http request was sent to https port", "http request to an https server", "plain http to an ssl-enabled"]
        .iter()
        .any(|words| body.contains(words))
}

/// Converts the innermost cause of a known type.
fn transport(error: &(dyn Error + 'static), limit_bytes: usize) -> Option<S3Failure> {
    use std::io::ErrorKind;
    let mut found = None;
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(of_tls(tls));
        }
        if let Some(unresolved) = cause.downcast_ref::<ResolveError>() {
            return Some(S3Failure::NameNotResolved(unresolved.to_string()));
        }
        if cause.is::<http_body_util::LengthLimitError>() {
            let limit = limit_bytes / 1024;
            return Some(S3Failure::NotS3(format!("it is longer than {limit} KiB")));
        }
        if let Some(http) = cause.downcast_ref::<hyper::Error>().filter(|error| error.is_parse()) {
            return Some(S3Failure::NotS3(if http.is_parse_too_large() {
                "its headers do not end".to_owned()
            } else {
                format!("it is not HTTP ({http})")
            }));
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            if let Some(tls) = wrapped_tls(io) {
                return Some(of_tls(tls));
            }
            found = Some(match io.kind() {
                ErrorKind::ConnectionRefused => S3Failure::ConnectionRefused,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    S3Failure::HostUnreachable(io.to_string())
                }
                _ => S3Failure::ConnectionBroken(io.to_string()),
            });
        }
        next = cause.source();
    }
    found
}

fn of_tls(error: &rustls::Error) -> S3Failure {
    match error {
        rustls::Error::InvalidCertificate(fault) => S3Failure::Certificate(fault.into()),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => S3Failure::TlsToPlain,
        other => S3Failure::Tls(other.to_string()),
    }
}

/// Returns the TLS error that an I/O error wraps, possibly through other I/O errors. `source()` of an I/O error
/// skips the error that it wraps.
fn wrapped_tls(io: &std::io::Error) -> Option<&rustls::Error> {
    let inner = io.get_ref()?;
    inner.downcast_ref::<rustls::Error>().or_else(|| wrapped_tls(inner.downcast_ref::<std::io::Error>()?))
}
