//! Credentials that the target's `secret_ref` names.
//!
//! An access rule that names files or a profile replaces them: the operator of this node has the last word. Without
//! `[key_manager]` the reference is not used.

use std::sync::Arc;

use super::Input;
use crate::driver::{Depth, Host};
use crate::key_manager::{FoundSecret, Freshness, KeyManagerError};
use crate::model::report::Finding;
use crate::model::secret_ref::SecretRef;
use crate::model::settings::{KeyManagerSettings, S3CredentialSource};
use crate::model::{BucketSecret, S3Location};

/// The reference of one target.
pub(super) struct SecretCredentials {
    reference: Option<SecretRef>,
    host: Arc<Host>,
}

/// Result of reading the secret for one probe. `None` if the target's credentials come from the configuration.
pub(super) struct ReadCredentials(Option<Result<FoundSecret, KeyManagerError>>);

impl SecretCredentials {
    pub(super) fn new(reference: Option<SecretRef>, host: &Arc<Host>) -> Self {
        Self { reference, host: host.clone() }
    }

    /// The reference and the key manager, if the credentials come from there.
    fn in_use<'a>(&'a self, input: Input<'a>) -> Option<(&'a SecretRef, &'a KeyManagerSettings)> {
        let is_configured = input.rule.is_some_and(|rule| rule.source != S3CredentialSource::DefaultChain);
        let used = self.reference.as_ref().zip(input.settings.key_manager.as_ref());
        used.filter(|_| !is_configured)
    }

    /// Reads the secret within the deadline of a check. A requested probe does not use a cached one.
    pub(super) async fn read(&self, input: Input<'_>) -> ReadCredentials {
        let Some((reference, settings)) = self.in_use(input) else { return ReadCredentials(None) };
        let freshness = match input.depth {
            Depth::Routine => Freshness::Cached,
            Depth::Full => Freshness::Now,
        };
        let deadline = input.settings.probe.deadline;
        ReadCredentials(Some(self.host.key_manager.secret(settings, reference, freshness, deadline).await))
    }

    /// Records that the service refused the credentials.
    pub(super) fn refused(&self, input: Input<'_>, read: &ReadCredentials) {
        if let (Some((reference, settings)), Ok(Some(secret))) = (self.in_use(input), read.secret()) {
            self.host.key_manager.refused(settings, reference, secret);
        }
    }
}

impl ReadCredentials {
    /// The credentials to use instead of those of the configuration. `None` if those of the configuration apply.
    ///
    /// # Errors
    /// Why the target has no credentials. Those of the configuration must not be used then.
    pub(super) fn secret(&self) -> Result<Option<&Arc<BucketSecret>>, &KeyManagerError> {
        let Some(read) = &self.0 else { return Ok(None) };
        read.as_ref().map(|found| Some(&found.secret))
    }

    /// Why the credentials may be outdated.
    pub(super) fn warning(&self, location: &S3Location) -> Option<Finding> {
        let error = self.0.as_ref()?.as_ref().ok()?.failure.as_ref()?;
        Some(error.finding(&location.to_string(), true))
    }

    /// A remark about the content of the secret.
    pub(super) fn remark(&self, location: &S3Location) -> Option<String> {
        self.secret().ok()??.remark(location)
    }
}
