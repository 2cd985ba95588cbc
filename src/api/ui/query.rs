//! Query parameters of an overview, and links that contain them.

use std::ops::RangeInclusive;

use axum::extract::Query as Decoded;
use axum::http::Uri;
use form_urlencoded::Serializer;
use serde::Deserialize;
use utoipa::IntoParams;

use super::condition::Condition;

/// Longest text to search for, in characters.
const SEARCH_MAX_CHARS: usize = 255;

/// Accepted times between two reloads, in seconds.
const REFRESH_SECONDS: RangeInclusive<u32> = 5..=3600;

/// Parameters as they were sent. An empty one counts as absent, because a form also sends an empty field.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Show only targets of this condition: offline, not current, not checked, warning or available.
    #[param(value_type = Option<String>)]
    status: Option<String>,
    /// Show only targets whose export, type name, id or reason contains this text.
    #[param(value_type = Option<String>, max_length = 255)]
    q: Option<String>,
    /// Number of the page, from 1.
    #[param(value_type = Option<u32>, minimum = 1)]
    page: Option<String>,
    /// Time between two reloads, in seconds. Without it, the page is not reloaded.
    #[param(value_type = Option<u32>, minimum = 5, maximum = 3600)]
    refresh: Option<String>,
}

/// Valid parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// Path of the overview.
    pub(crate) path: &'static str,
    /// Only targets of this condition.
    pub(crate) status: Option<Condition>,
    /// Only targets that contain this text. Empty for all.
    pub(crate) search: String,
    /// Number of the page, from 1.
    pub(crate) page: usize,
    /// Time between two reloads, in seconds.
    pub(crate) refresh: Option<u32>,
}

impl Query {
    /// The parameters of a request for the overview at `path`.
    ///
    /// # Errors
    /// What is wrong with a parameter.
    pub(crate) fn of(uri: &Uri, path: &'static str) -> Result<Self, String> {
        let Decoded(sent) = Decoded::<Parameters>::try_from_uri(uri).map_err(|error| error.body_text())?;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let status = given(sent.status).map(|text| {
            let expected = || Condition::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>().join(", ");
            Condition::parse(&text).ok_or_else(|| format!("status: {text:?} is not one of: {}", expected()))
        });
        let search = sent.q.unwrap_or_default().trim().to_owned();
        if search.chars().nth(SEARCH_MAX_CHARS).is_some() {
            return Err(format!("q: longer than {SEARCH_MAX_CHARS} characters"));
        }
        let page = given(sent.page).map(|text| {
            let number = text.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| format!("page: {text:?} is not the number of a page, expected 1 or more"))
        });
        let refresh = given(sent.refresh).map(|text| {
            let seconds = text.parse().ok().filter(|seconds| REFRESH_SECONDS.contains(seconds));
            let (min, max) = REFRESH_SECONDS.into_inner();
            seconds.ok_or_else(|| format!("refresh: {text:?} is not a number of seconds from {min} to {max}"))
        });
        let page = page.transpose()?.unwrap_or(1);
        Ok(Self { path, status: status.transpose()?, search, page, refresh: refresh.transpose()? })
    }

    /// The link to the overview with these parameters.
    pub(crate) fn link(&self) -> String {
        let mut pairs = Serializer::new(String::new());
        if let Some(status) = self.status {
            pairs.append_pair("status", status.as_str());
        }
        if !self.search.is_empty() {
            pairs.append_pair("q", &self.search);
        }
        if self.page > 1 {
            pairs.append_pair("page", &self.page.to_string());
        }
        if let Some(seconds) = self.refresh {
            pairs.append_pair("refresh", &seconds.to_string());
        }
        let pairs = pairs.finish();
        if pairs.is_empty() { self.path.to_owned() } else { format!("{}?{pairs}", self.path) }
    }

    /// The link to all targets.
    pub(super) fn link_to_all(&self) -> String {
        Self { status: None, search: String::new(), page: 1, ..self.clone() }.link()
    }

    /// Whether it selects some of the targets.
    pub(crate) fn is_filter(&self) -> bool {
        self.status.is_some() || !self.search.is_empty()
    }
}
