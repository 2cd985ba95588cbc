//! Formats of the exposition, and which one a client accepts.
//!
//! Prometheus lists the formats that it understands with weights (RFC 9110 §12.5.1). A client gets OpenMetrics if it
//! names that format with at least the weight of the text format. Every other client gets the text format, even one
//! that accepts neither, such as a browser.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

/// Format of an exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.0. Version 0.0.1 is the same for everything that is used here.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Text,
}

/// Versions that a client may request.
const OPEN_METRICS_VERSIONS: &[&str] = &["1.0.0", "0.0.1"];
const TEXT_VERSIONS: &[&str] = &["0.0.4"];

impl Format {
    /// Returns the format for a request.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
        let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1.0, None);
            for (key, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                match key.trim().to_ascii_lowercase().as_str() {
                    // A malformed weight counts as 1.
                    "q" => weight = value.trim().parse().unwrap_or(1.0),
                    "version" => version = Some(value.trim().trim_matches('"').to_owned()),
                    _ => {}
                }
            }
            let is_version = |known: &[&str]| version.as_deref().is_none_or(|version| known.contains(&version));
            match media_type.as_str() {
                "application/openmetrics-text" if is_version(OPEN_METRICS_VERSIONS) => {
                    open_metrics = open_metrics.max(weight);
                }
                "text/plain" if is_version(TEXT_VERSIONS) => text = text.max(weight),
                "*/*" | "text/*" => text = text.max(weight),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Value of the header `Content-Type`.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => prometheus_text::CONTENT_TYPE,
        }
    }

    /// Writes the metrics of a registry.
    ///
    /// # Errors
    /// Those of the collectors and of `writer`.
    pub(super) fn encode(self, registry: &Registry, writer: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::OpenMetrics => text::encode(writer, registry),
            Self::Text => prometheus_text::encode(writer, registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_used_when_the_client_prefers_it() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accepted, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            (prometheus_2, Format::OpenMetrics),
            (prometheus_3, Format::OpenMetrics),
            ("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;version=1.0.0;q=0.8", Format::Text),
            ("Application/OpenMetrics-Text ; Q=0.5 , text/plain ; q=0.5", Format::OpenMetrics),
            ("application/openmetrics-text;version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=0, text/plain", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=0.1, */*", Format::Text),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily, text/plain;q=0.5", Format::Text),
            ("application/json", Format::Text),
            (";;,=;q=,", Format::Text),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accepted.parse().expect("a value"));
            assert_eq!(Format::accepted(&headers), expected, "{accepted}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Text);
        let mut twice = HeaderMap::new();
        twice.append(ACCEPT, "text/plain;q=0.1".parse().expect("a value"));
        twice.append(ACCEPT, "application/openmetrics-text".parse().expect("a value"));
        assert_eq!(Format::accepted(&twice), Format::OpenMetrics);
    }
}
