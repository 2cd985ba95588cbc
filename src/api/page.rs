//! Pages of lists: the query parameters `limit` and `marker`, as in other APIs of OpenStack.

use std::num::NonZeroUsize;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::fault::Fault;

/// Query parameters of a list. Unknown ones are ignored.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParameters {
    /// Largest number of items in the answer.
    #[param(value_type = Option<usize>, minimum = 1)]
    limit: Option<String>,
    /// Id of the last item of the previous page.
    #[param(value_type = Option<Uuid>)]
    marker: Option<String>,
}

/// Part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// Largest number of items.
    pub(crate) limit: Option<NonZeroUsize>,
    /// Id of the last item of the previous page.
    pub(crate) marker: Option<Uuid>,
}

impl Page {
    /// The whole list.
    pub(crate) const WHOLE: Self = Self { limit: None, marker: None };
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let Query(PageParameters { limit, marker }) =
            Query::try_from_uri(&parts.uri).map_err(|error| Fault::bad_request(error.body_text()))?;
        let limit = limit.map(|text| {
            let problem = || format!("limit: {text:?} is not a positive integer, expected the number of items");
            text.parse().map_err(|_| Fault::bad_request(problem()))
        });
        let marker = marker.map(|text| text.parse().map_err(|_| unknown_marker(&text)));
        Ok(Self { limit: limit.transpose()?, marker: marker.transpose()? })
    }
}

/// Returns the fault of a marker that is not the id of an item that the caller sees.
pub(crate) fn unknown_marker(marker: &str) -> Fault {
    Fault::bad_request(format!("marker: {marker:?} is not in the list, expected the id of the last item of a page"))
}
