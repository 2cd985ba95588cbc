//! What is known at once about the sender of a request.

use std::sync::Arc;

use super::cache::PendingValidation;
use super::credential::TokenOwner;
use crate::model::Caller;

/// The sender of a request.
pub(super) enum Identity {
    /// It needs no token.
    NoToken(Arc<Caller>),
    /// The owner of its token.
    Owner(Arc<TokenOwner>),
    /// Keystone is validating its token.
    Pending(PendingValidation),
}
