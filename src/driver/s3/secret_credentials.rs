//! Credentials that the target's `secret_ref` names.
//!
//! An access rule that names files or a profile replaces them: the operator of this node has the last word. Without
//! `[key_manager]` the reference is not used.

use std::sync::Arc;

use super::input::Input;
use crate::driver::driver_trait::Depth;
use crate::driver::host::Host;
use crate::key_manager::{FoundSecret, Freshness, KeyManagerError};
use crate::model::report::Finding;
use crate::model::secret_ref::SecretRef;
use crate::model::settings::{KeyManagerSettings, S3CredentialSource};
use crate::model::{BucketSecret, S3Location, SecretMismatch};

/// The reference of one target.
pub(super) struct SecretCredentials {
    reference: Option<SecretRef>,
    host: Arc<Host>,
}

/// Result of reading the secret for one probe.
pub(super) struct ReadCredentials {
    /// `None` if the target's credentials come from the configuration.
    found: Option<Result<FoundSecret, KeyManagerError>>,
    /// A remark about the content of the secret.
    remark: Option<String>,
}

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

    /// Reads the secret within the deadline of a check. A requested probe does not use a cached one. A secret that
    /// belongs to another target is an error, because its keys must not be sent to this one.
    pub(super) async fn read(&self, input: Input<'_>) -> ReadCredentials {
        let Some((reference, settings)) = self.in_use(input) else {
            return ReadCredentials { found: None, remark: None };
        };
        let freshness = match input.depth {
            Depth::Routine => Freshness::Cached,
            Depth::Full => Freshness::Now,
        };
        let deadline = input.settings.probe.deadline;
        let read = self.host.key_manager.secret(settings, reference, freshness, deadline).await;
        let fitting = read.and_then(|found| Ok((remark(&found.secret, input.location, settings)?, found)));
        let (remark, found) = match fitting {
            Ok((remark, found)) => (remark, Ok(found)),
            Err(error) => (None, Err(error)),
        };
        ReadCredentials { found: Some(found), remark }
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
        let Some(read) = &self.found else { return Ok(None) };
        read.as_ref().map(|found| Some(&found.secret))
    }

    /// Why the credentials may be outdated.
    pub(super) fn warning(&self, location: &S3Location) -> Option<Finding> {
        let error = self.found.as_ref()?.as_ref().ok()?.failure.as_ref()?;
        Some(error.finding(&location.to_string(), true))
    }

    /// A remark about the content of the secret.
    pub(super) fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }
}

/// Returns a remark about a secret that may be used for a bucket.
fn remark(
    secret: &BucketSecret,
    location: &S3Location,
    settings: &KeyManagerSettings,
) -> Result<Option<String>, SecretMismatch> {
    if let Some(mismatch) = secret.other_bucket(location) {
        return Err(mismatch);
    }
    let other_endpoint = match secret.other_endpoint(location) {
        Some(SecretMismatch::Endpoint { secret, target }) if settings.accept_other_endpoints => Some(format!(
            "vault_s3_endpoint_url of the secret is \"{secret}\", and the endpoint of the target, {target}, is used"
        )),
        Some(mismatch) => return Err(mismatch),
        None => None,
    };
    let remarks: Vec<_> = secret.missing().into_iter().chain(other_endpoint).collect();
    Ok((!remarks.is_empty()).then(|| remarks.join(", ")))
}
