//! What is known at once about the sender of a request.

use std::sync::Arc;

use super::cache::PendingValidation;
use super::credential::TokenOwner;
use crate::model::Caller;

/// The sender of a request.
pub(super) enum Identity {
    /// The request needs no token.
    NoToken(Arc<Caller>),
    /// The owner of a valid token.
    Owner(Arc<TokenOwner>),
    /// Keystone is validating the token.
    Pending(PendingValidation),
}
