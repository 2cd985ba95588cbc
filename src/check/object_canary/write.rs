//! The requests of one canary: PUT, GET, HEAD for a retention, and DELETE.

use uuid::Uuid;

use super::memory::CanaryMemory;
use super::plan::CanaryPlan;
use crate::check::canary::sweep::is_denial;
use crate::check::canary::{content, exceeds, is_content};
use crate::model::{CanaryLeftover, LockMode, Reason};
use crate::s3::{ObjectApi, Retention, S3Failure};

/// What a PUT with a wrong digest, or a multipart upload, showed.
pub(super) enum Permission {
    /// The service refused only the digest, stored the object, or started the upload.
    Granted,
    /// The service would refuse every PUT, or does not answer.
    Refused(S3Failure),
    /// The answer shows neither.
    Unknown,
}

impl Permission {
    pub(super) fn is_granted(&self) -> bool {
        matches!(self, Self::Granted)
    }
}

/// The request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CanaryStep {
    /// Listing of canaries.
    List,
    /// DELETE of an earlier canary.
    DeleteEarlier,
    /// GET of an earlier canary.
    ReadEarlier,
    Put,
    /// Start of a multipart upload.
    Upload,
    Get,
    /// HEAD, for the retention of a locked canary.
    Head,
    Delete,
}

impl CanaryStep {
    /// Describes the request, and those that passed before it.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::List => "the listing of canaries",
            Self::DeleteEarlier => "the DELETE of an earlier canary",
            Self::ReadEarlier => "the GET of an earlier canary",
            Self::Put => "the PUT of a canary",
            Self::Upload => "the start of a multipart upload",
            Self::Get => "the GET of a canary, after its PUT passed,",
            Self::Head => "the HEAD of a canary, after its PUT and GET passed,",
            Self::Delete => "the DELETE of a canary, after its PUT and GET passed,",
        }
    }
}

/// A canary whose PUT passed.
pub(super) struct Written {
    pub(super) end: CanaryEnd,
    /// Denial of its GET.
    pub(super) unread: Option<S3Failure>,
}

/// State of a canary after its last request.
pub(super) enum CanaryEnd {
    Removed,
    /// Its DELETE was denied.
    Kept(S3Failure),
    Locked,
    LockedLonger,
    Differs,
}

/// Whether the service refuses to read an object to these credentials.
pub(super) fn denies_reading(failure: &S3Failure) -> bool {
    failure.is_refusal() && matches!(failure.reason(), Reason::AccessDenied | Reason::RequestRefused)
}

/// Writes the remembered canary, and updates the memory.
pub(super) async fn write(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    canary: &CanaryLeftover,
    memory: &mut CanaryMemory,
    step: &mut CanaryStep,
) -> Result<Written, S3Failure> {
    let key = canary.key.as_str();
    let retention = (canary.until > 0).then_some(Retention { mode: LockMode::Governance, until: canary.until });
    let (version, found) = match put_and_get(api, plan, key, retention, memory, step).await? {
        // A PUT of an earlier run may have been applied late to the same key.
        (None, Found::OtherCanary) => put_and_get(api, plan, key, retention, memory, step).await?,
        found => found,
    };
    let version = version.as_deref();
    let (is_same, unread) = match found {
        Found::Same => (true, None),
        Found::Unread(denied) => (true, Some(denied)),
        Found::OtherCanary | Found::Different => (false, None),
    };
    *step = CanaryStep::Head;
    let is_locked_longer = match retention {
        // Its HEAD needs the same permission as its GET.
        Some(_) if unread.is_some() => Some(false),
        Some(asked) => {
            let stored = api.head(key, version).await?;
            let left = stored.modified.map(|modified| asked.until.saturating_sub(modified));
            let is_longer = left.zip(plan.retention).is_some_and(|(left, retention)| exceeds(left, retention));
            // A service without object lock may ignore the retention.
            let is_ignored = plan.is_lock_unknown && stored.retention.is_none();
            (!is_ignored).then_some(stored.retention != Some(asked) || is_longer)
        }
        None => None,
    };
    let mut denied = None;
    if is_locked_longer.is_none() {
        *step = CanaryStep::Delete;
        match api.delete(key, version, false).await {
            Err(failure) if is_denial(&failure) => denied = Some(failure),
            Err(failure) if !failure.is_gone() => return Err(failure),
            _ => memory.forget(),
        }
    }
    let end = match (is_same, is_locked_longer, denied) {
        (false, ..) => CanaryEnd::Differs,
        (true, None, None) => CanaryEnd::Removed,
        (true, None, Some(denied)) => CanaryEnd::Kept(denied),
        (true, Some(false), _) => CanaryEnd::Locked,
        (true, Some(true), _) => CanaryEnd::LockedLonger,
    };
    Ok(Written { end, unread })
}

/// What a GET found.
enum Found {
    Same,
    /// Content of another canary.
    OtherCanary,
    /// Other content, or none.
    Different,
    /// The GET was denied.
    Unread(S3Failure),
}

/// Returns the version of the canary, and what its GET found.
async fn put_and_get(
    api: &dyn ObjectApi,
    plan: &CanaryPlan<'_>,
    key: &str,
    retention: Option<Retention>,
    memory: &mut CanaryMemory,
    step: &mut CanaryStep,
) -> Result<(Option<String>, Found), S3Failure> {
    // New content for each PUT, because a canary may be overwritten.
    let content = content(Uuid::new_v4());
    *step = CanaryStep::Put;
    let named = plan.version(api.put(key, content.clone(), retention).await?);
    memory.written(named.clone());
    let version = named.as_deref();
    *step = CanaryStep::Get;
    let mut back = api.get(key, version).await;
    // Not every part of the service may know the object yet. It counts as lost only if it is missing twice.
    if back.as_ref().is_err_and(S3Failure::is_gone) {
        back = api.get(key, version).await;
    }
    memory.set_readable(back.is_ok());
    let found = match back {
        Ok(back) if back == content => Found::Same,
        Ok(back) if is_content(&back) => Found::OtherCanary,
        Ok(_) => Found::Different,
        Err(failure) if failure.is_gone() => Found::Different,
        Err(failure) if denies_reading(&failure) => Found::Unread(failure),
        Err(failure) => {
            if retention.is_none() && api.delete(key, version, false).await.is_ok() {
                memory.forget();
            }
            return Err(failure);
        }
    };
    Ok((named, found))
}
