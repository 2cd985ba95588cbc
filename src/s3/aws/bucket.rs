//! One bucket through the SDK: the calls that ask about it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::{BucketVersioningStatus, DefaultRetention, ObjectLockEnabled};

use super::answer::{ReadHeaders, Told};
use super::errors::failure;
use crate::s3::{BucketApi, BucketUsage, ObjectLock, S3Failure, Versioning};

/// One bucket through the SDK, with the credentials of one probe.
pub struct AwsBucket {
    client: Client,
    bucket: String,
    asks_for_stats: bool,
}

impl AwsBucket {
    pub(super) fn new(client: Client, bucket: &str, asks_for_stats: bool) -> Self {
        Self { client, bucket: bucket.to_owned(), asks_for_stats }
    }
}

#[async_trait]
impl BucketApi for AwsBucket {
    async fn head_bucket(&self) -> Result<BucketUsage, S3Failure> {
        let told = Arc::new(Mutex::new(Told::default()));
        let asks_for_stats = self.asks_for_stats;
        self.client
            .head_bucket()
            .bucket(&self.bucket)
            .customize()
            .mutate_request(move |request| {
                // Ceph from release 20 on tells the use only when asked; other services ignore it.
                if asks_for_stats {
                    let separator = if request.uri().contains('?') { '&' } else { '?' };
                    let uri = format!("{}{separator}read-stats", request.uri());
                    let _kept_on_error = request.set_uri(uri);
                }
            })
            .interceptor(ReadHeaders(told.clone()))
            .send()
            .await
            .map_err(|error| match failure(error) {
                // The SDK makes up a code for a HEAD from the status alone.
                S3Failure::Service { status, region, .. } => S3Failure::Service { status, code: None, region },
                other => other,
            })?;
        let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
        if told.is_html {
            return Err(S3Failure::NotS3("a web page came back".to_owned()));
        }
        Ok(told.usage)
    }

    async fn bucket_location(&self) -> Result<(), S3Failure> {
        self.client.get_bucket_location().bucket(&self.bucket).send().await.map(|_| ()).map_err(failure)
    }

    async fn versioning(&self) -> Result<Versioning, S3Failure> {
        let answer = self.client.get_bucket_versioning().bucket(&self.bucket).send().await.map_err(failure)?;
        match answer.status() {
            None => Ok(Versioning::Off),
            Some(BucketVersioningStatus::Enabled) => Ok(Versioning::Enabled),
            Some(BucketVersioningStatus::Suspended) => Ok(Versioning::Suspended),
            Some(_) => Err(S3Failure::NotS3("its versioning status is neither Enabled nor Suspended".to_owned())),
        }
    }

    async fn object_lock(&self) -> Result<ObjectLock, S3Failure> {
        let answer =
            match self.client.get_object_lock_configuration().bucket(&self.bucket).send().await.map_err(failure) {
                Ok(answer) => answer,
                Err(S3Failure::Service { code: Some(code), .. }) if code == "ObjectLockConfigurationNotFoundError" => {
                    return Ok(ObjectLock { enabled: false, default_retention: None });
                }
                Err(failure) => return Err(failure),
            };
        let configuration = answer.object_lock_configuration();
        Ok(ObjectLock {
            enabled: configuration
                .and_then(|found| found.object_lock_enabled())
                .is_some_and(|enabled| *enabled == ObjectLockEnabled::Enabled),
            default_retention: configuration
                .and_then(|found| found.rule()?.default_retention())
                .and_then(written_retention),
        })
    }
}

/// `GOVERNANCE 30 days`; none when a part is missing, since then it is not in force.
fn written_retention(retention: &DefaultRetention) -> Option<String> {
    let mode = retention.mode()?.as_str();
    let (count, unit) = match (retention.days(), retention.years()) {
        (Some(days), _) if days > 0 => (days, "day"),
        (_, Some(years)) if years > 0 => (years, "year"),
        _ => return None,
    };
    Some(format!("{mode} {count} {unit}{}", if count == 1 { "" } else { "s" }))
}
