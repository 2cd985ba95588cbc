//! Write canary of a bucket: when one is due, and the record of the last one.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::facts::Learnt;
use super::{S3Driver, rule_for};
use crate::check::canary::{CanaryNames, Swept, sweep};
use crate::check::lock_proof::ids;
use crate::check::object_canary::{CanaryPlan, object_canary};
use crate::check::{CheckLog, Checked};
use crate::driver::Depth;
use crate::model::report::Finding;
use crate::model::settings::{AgentSettings, S3AccessRule, S3CanarySettings};
use crate::model::{CheckName, Outcome, Reason, S3Location};
use crate::s3::aws::AwsBucket;
use crate::s3::{S3Failure, within};

/// Identifies this host among hosts of the same name (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// Why no canary is written if the configuration disables it.
const TURNED_OFF: &str = "turned off in [s3.canary]";

/// The last canary that was written and read back.
pub(super) struct CanaryRecord {
    at: Instant,
    written_at: Timestamp,
    settings: S3CanarySettings,
    /// Requested retention.
    retention: Option<Duration>,
}

impl S3Driver {
    /// Whether this probe must write a canary.
    pub(super) fn canary_is_due(&self, settings: &S3CanarySettings, rule: Option<&S3AccessRule>, depth: Depth) -> bool {
        not_written(settings.enabled, TURNED_OFF, rule).is_none() && self.good_canary(settings, depth).is_none()
    }

    /// Returns the latest canary if it is recent enough. A failed canary leaves no record, so each probe
    /// tries again until one passes.
    fn good_canary(&self, settings: &S3CanarySettings, depth: Depth) -> Option<&CanaryRecord> {
        let last = self.canary.as_ref().filter(|_| depth == Depth::Routine)?;
        (last.settings == *settings && last.at.elapsed() < settings.interval).then_some(last)
    }

    /// Writes the canary if one is due.
    pub(super) async fn canary_if_due(
        &mut self,
        api: &AwsBucket,
        settings: &AgentSettings,
        rule: Option<&S3AccessRule>,
        learnt: &Learnt,
        depth: Depth,
        log: &mut CheckLog,
    ) {
        let canary = &settings.s3_canary;
        if let Some(why) = not_written(canary.enabled, TURNED_OFF, rule) {
            log.skip(CheckName::WriteCanary, format!("{why}: writing is not verified"));
            return;
        }
        // An object that is put without a retention stays for days if the bucket has a default one.
        let Some(locks_by_default) = learnt.locks_by_default() else {
            if !log.has_failure() {
                let untold = lock_untold(&self.location);
                log.run(CheckName::WriteCanary, async { Checked::<()>::skipped(untold) }).await;
            }
            return;
        };
        let names = self.names(canary).await;
        let retention = locks_by_default.then_some(canary.retention);
        let still_good = self.good_canary(canary, depth).filter(|last| last.retention == retention);
        if let Some(last) = still_good {
            let mut detail = format!(
                "written at {:.0}; the next one is due {} s after that",
                last.written_at,
                canary.interval.as_secs()
            );
            if self.locked.is_some_and(|(_, removable)| removable <= Instant::now()) {
                let in_use = ids(&[self.prover.in_use()]);
                let sweeping = sweep(api, &names, learnt.is_versioned(), learnt.clock, &in_use);
                match within(settings.probe.deadline, sweeping).await {
                    Ok(_) => self.locked = None,
                    Err(failure) => {
                        detail = format!("{detail}; it is still there, since removing it failed: {failure}")
                    }
                }
            }
            log.skip(CheckName::WriteCanary, detail);
            return;
        }
        (self.canary, self.locked) = (None, None);
        let in_use = ids(&[self.prover.in_use()]);
        let plan = CanaryPlan {
            names: &names,
            versioned: learnt.is_versioned(),
            retention,
            clock: learnt.clock,
            in_use: &in_use,
        };
        self.may_have_left = true;
        let mut is_clean = false;
        let writing = async {
            let checked = object_canary(api, &self.location, &plan, settings.probe.deadline).await;
            is_clean = checked.outcome() == Outcome::Passed && checked.findings().is_empty();
            checked
        };
        let written = log.run(CheckName::WriteCanary, writing).await;
        self.may_have_left = !is_clean;
        if let Some(locked) = written {
            let (at, written_at, settings) = (Instant::now(), Timestamp::now(), canary.clone());
            self.locked = locked.map(|key| (key, at + learnt.clock.wait_until_past(key.until)));
            self.canary = Some(CanaryRecord { at, written_at, settings, retention });
        }
    }

    /// Removes all canaries of this node, since an interrupted probe may have left any of them.
    pub(super) async fn remove_canaries(&mut self, settings: &AgentSettings) -> Result<Swept, S3Failure> {
        let names = self.names(&settings.s3_canary).await;
        let api = self.connector.connect(rule_for(settings, &self.location)).await?;
        // In a bucket that never had versions, the only version of an object has this id too.
        sweep(&api, &names, true, self.clock, &[]).await
    }

    /// Returns the names of canaries.
    pub(super) async fn names(&self, settings: &S3CanarySettings) -> CanaryNames {
        let machine = tokio::fs::read_to_string(std::path::Path::new(MACHINE_ID)).await.unwrap_or_default();
        let node = format!("{} {}", self.host.hostname, machine.trim());
        CanaryNames::new(&settings.prefix, &node, &self.location.to_string(), self.host.role, self.instance)
    }
}

/// Returns why nothing is written to a bucket: its access rule is read-only, or the check is turned off.
pub(super) fn not_written(
    enabled: bool,
    turned_off: &'static str,
    rule: Option<&S3AccessRule>,
) -> Option<&'static str> {
    match rule {
        _ if !enabled => Some(turned_off),
        Some(rule) if rule.read_only => Some("read_only in [[s3.credentials]]"),
        _ => None,
    }
}

fn lock_untold(location: &S3Location) -> Finding {
    Finding::new(
        Reason::AccessDenied,
        format!(
            "{location}: whether it locks new objects by default is not told, and a canary could be locked for as long, so none is put and writing is not verified: grant the credentials s3:GetBucketObjectLockConfiguration on it"
        ),
    )
}

/// Describes what the last sweep could not remove.
pub(super) fn left_behind(location: &S3Location, swept: &Swept) -> Option<String> {
    let nobody = "stays there, since nobody is left to remove it";
    if let Some(key) = &swept.overlong {
        return Some(format!("a canary in {location} is locked for longer than it asked to be and {nobody}: {key}"));
    }
    if let Some((key, failure)) = &swept.undeletable {
        return Some(format!("a canary in {location} was not deleted ({failure}) and {nobody}: {key}"));
    }
    if let Some(failure) = &swept.refused {
        return Some(format!("a canary in {location} was not deleted ({failure}) and {nobody}"));
    }
    let until = swept.locked.iter().map(|key| key.until).max()?;
    Some(format!("a canary in {location} is locked until second {until} and {nobody}"))
}
