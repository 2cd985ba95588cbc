//! S3: reachable, then the bucket, its object lock, its versioning, and how much it holds.
//!
//! Object lock goes before versioning, which comes with it: of a bucket that has neither, the verdict
//! names the lock, since enabling versioning would not give it one.
//!
//! Everything is asked of the service at every probe; only connections are kept. Nothing is
//! written, and nothing is put up on this host, so there is nothing to take down.

use async_trait::async_trait;

use super::{Depth, DetachError, Driver, Probe};
use crate::check::bucket::bucket;
use crate::check::capacity::bucket_capacity;
use crate::check::object_lock::object_lock;
use crate::check::tcp_reachable::tcp_connect;
use crate::check::versioning::versioning;
use crate::check::{CheckLog, Checked};
use crate::model::report::BucketFacts;
use crate::model::settings::{AgentSettings, S3AccessRule};
use crate::model::{CheckName, S3Location};
use crate::s3::aws::BucketConnector;
use crate::s3::{BucketUsage, S3Failure, Versioning};

/// Verifies one bucket.
pub struct S3Driver {
    location: S3Location,
    immutable: bool,
    connector: BucketConnector,
}

impl S3Driver {
    /// A driver of a bucket; `immutable` as the target was declared.
    #[must_use]
    pub fn new(location: S3Location, immutable: bool) -> Self {
        let connector = BucketConnector::new(location.clone());
        Self { location, immutable, connector }
    }

    async fn run(&mut self, settings: &AgentSettings, log: &mut CheckLog) -> Probe {
        let (deadline, immutable) = (settings.probe.deadline, self.immutable);
        let rule = rule_for(settings, &self.location);
        let mut probe = Probe::default();

        let (host, port) = self.connector.service_address(rule).await;
        if log.run(CheckName::Reachable, tcp_connect(&host, port, deadline)).await.is_none() {
            log.skip_after_failure(&[
                CheckName::Bucket,
                CheckName::ObjectLock,
                CheckName::Versioning,
                CheckName::Capacity,
            ]);
            return probe;
        }

        let (location, connector) = (&self.location, &mut self.connector);
        let mut api = None;
        let usage: Option<BucketUsage> = log
            .run(CheckName::Bucket, async {
                let connected = tokio::time::timeout(deadline, connector.connect(rule)).await.unwrap_or_else(|_| {
                    let why = format!("they did not come within {} ms", deadline.as_millis());
                    Err(S3Failure::NoCredentials(why))
                });
                match connected {
                    Ok(connected) => bucket(&*api.insert(connected), location, deadline).await,
                    Err(failure) => Checked::failed(failure.finding(location)),
                }
            })
            .await;
        let (Some(usage), Some(api)) = (usage, api) else {
            log.skip_after_failure(&[CheckName::ObjectLock, CheckName::Versioning, CheckName::Capacity]);
            return probe;
        };

        let lock = log.run(CheckName::ObjectLock, object_lock(&api, location, immutable, deadline)).await;
        let versions = log.run(CheckName::Versioning, versioning(&api, location, immutable, deadline)).await;
        let percent = settings.probe.nearly_full_percent;
        probe.capacity = log.run(CheckName::Capacity, async { bucket_capacity(&usage, percent) }).await;
        probe.bucket = Some(BucketFacts {
            versioning: versions.map(|found| found == Versioning::Enabled),
            object_lock: lock.as_ref().map(|found| found.enabled),
            default_retention: lock.and_then(|found| found.default_retention),
            object_count: usage.object_count,
        });
        probe
    }
}

/// The first rule whose pattern matches the bucket.
fn rule_for<'settings>(settings: &'settings AgentSettings, location: &S3Location) -> Option<&'settings S3AccessRule> {
    let export = location.to_string();
    settings.s3_access.iter().find(|rule| rule.location.matches(&export))
}

#[async_trait]
impl Driver for S3Driver {
    async fn probe(&mut self, settings: &AgentSettings, _depth: Depth) -> Probe {
        let mut log = CheckLog::new(settings.probe.slow_after);
        let probe = self.run(settings, &mut log).await;
        Probe { checks: log.into_results(), ..probe }
    }

    async fn detach(&mut self, _: &AgentSettings) -> Result<Option<String>, DetachError> {
        Ok(None)
    }
}
