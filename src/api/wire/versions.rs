//! Versions of the API on the wire, as OpenStack clients discover them (keystoneauth, `GET` of an endpoint).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The versions of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// The versions.
    pub versions: Vec<Version>,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ApiVersion)]
pub struct Version {
    /// Number of the version, `v1.0`.
    pub id: String,
    /// `CURRENT`.
    pub status: String,
    /// Addresses of the version.
    pub links: Vec<Link>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ApiVersionLink)]
pub struct Link {
    /// `self`.
    pub rel: String,
    /// Path on this server.
    pub href: String,
}

impl Default for Versions {
    fn default() -> Self {
        let link = Link { rel: "self".to_owned(), href: "/v1/".to_owned() };
        Self { versions: vec![Version { id: "v1.0".to_owned(), status: "CURRENT".to_owned(), links: vec![link] }] }
    }
}
