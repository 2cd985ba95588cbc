//! Carries out the steps of a proof, and interprets the answers of the service.

use super::running::{ProofContext, Running};
use super::schedule::Basis;
use super::steps::{Action, Attempt, Step, StepAnswer};
use crate::check::canary::{CLOCK_UNCERTAINTY_SECONDS, content, exceeds};
use crate::model::LockMode;
use crate::s3::{ObjectApi, Retention, S3Failure, StoredVersion};

/// Carries out one step.
pub(super) async fn act(api: &dyn ObjectApi, context: ProofContext<'_>, running: &mut Running) -> StepAnswer {
    let (text, step, requested) = (context.names.text(&running.key), running.proof.step, running.proof.requested);
    tracing::debug!(?step, key = text, "lock proof");
    let version = running.version.clone();
    let version = version.as_deref();
    let seen = match step {
        Step::Put => match api.put(&text, content(running.key.id), Some(requested)).await {
            Ok(version) => {
                running.version = version;
                Ok(StepAnswer::Written { has_version: running.version.is_some() })
            }
            Err(failure) => Err(failure),
        },
        Step::Inspect => api.head(&text, version).await.map(|stored| inspected(stored, requested, &running.basis)),
        Step::Look(_) | Step::LookAfterControl => {
            api.head(&text, version).await.map(|stored| StepAnswer::Found(stored.retention))
        }
        Step::Try(Attempt { action, bypass }) => {
            let accepted = match action {
                Action::Delete => api.delete(&text, version, bypass).await,
                // One second is enough: no service that enforces the lock accepts any earlier end.
                Action::Shorten => {
                    let shorter = Retention { until: requested.until - 1, ..requested };
                    api.put_retention(&text, version, Some(shorter), bypass).await
                }
                Action::Remove => api.put_retention(&text, version, None, bypass).await,
                Action::ChangeMode => {
                    let other = Retention { mode: LockMode::Governance, ..requested };
                    api.put_retention(&text, version, Some(other), bypass).await
                }
            };
            accepted.map(|at| StepAnswer::Accepted { at: at.unwrap_or_else(|| context.clock.now()) })
        }
        Step::Control => {
            let deleted = api.delete(&text, version, false).await;
            deleted.map(|at| StepAnswer::Accepted { at: at.unwrap_or_else(|| context.clock.now()) })
        }
        Step::Await => Ok(StepAnswer::Found(Some(requested))),
    };
    match seen {
        // If a retention has ended on arrival, services refuse it in the same way as a missing permission or a change
        // of a locked version.
        Err(failure) if step.sets_retention() && context.clock.may_be_past(requested.until) => {
            StepAnswer::Unclear(format!(
                "{failure}, when the requested retention of the canary was nearly over: raise [s3.canary] retention"
            ))
        }
        seen => seen.unwrap_or_else(|failure| seen_failure(step, &failure)),
    }
}

/// Compares the retention of a canary that was just put with the storage's own clock.
fn inspected(stored: StoredVersion, requested: Retention, basis: &Basis) -> StepAnswer {
    match stored.modified.map(|modified| requested.until.saturating_sub(modified)) {
        Some(left) if stored.retention == Some(requested) && exceeds(left, basis.canary.retention) => {
            StepAnswer::TooLong(left)
        }
        Some(left) if stored.retention == Some(requested) && left <= CLOCK_UNCERTAINTY_SECONDS => {
            StepAnswer::TooShort(left)
        }
        _ => StepAnswer::Found(stored.retention),
    }
}

pub(super) fn seen_failure(step: Step, failure: &S3Failure) -> StepAnswer {
    let is_change = matches!(step, Step::Try(attempt) if attempt.action != Action::Delete);
    let is_not_accepted = match step {
        Step::Put => failure.may_concern_the_retention(),
        // The HEAD after a change decides, unless the service refused the request before it looked at the retention.
        _ if is_change => failure.is_digest_refusal(),
        _ => failure.will_never_be_accepted() && !failure.is_lock_refusal(),
    };
    if is_not_accepted {
        return StepAnswer::NotAccepted(failure.to_string());
    }
    let is_refusal = match step {
        // Services refuse a change of the retention in many ways.
        _ if is_change => failure.is_final_refusal(),
        Step::Try(_) | Step::Control => failure.is_lock_refusal(),
        _ => failure.is_refusal(),
    };
    if failure.is_gone() {
        StepAnswer::NotFound
    } else if is_refusal {
        StepAnswer::Refused(failure.to_string())
    } else {
        StepAnswer::Unclear(failure.to_string())
    }
}
