//! A bucket whose answers a test decides.

use async_trait::async_trait;

use crate::model::LockMode;
use crate::model::S3Location;
use crate::s3::{BucketApi, BucketUsage, DefaultRetention, ObjectLock, RetentionLength, S3Failure, Versioning};

const ONE_DAY: DefaultRetention = DefaultRetention { mode: LockMode::Governance, length: RetentionLength::Days(1) };

/// Answers as told, or never.
#[derive(Debug)]
pub struct FakeBucket {
    pub head: Result<BucketUsage, S3Failure>,
    pub location: Result<(), S3Failure>,
    pub versioning: Result<Versioning, S3Failure>,
    pub object_lock: Result<ObjectLock, S3Failure>,
    pub silent: bool,
}

impl FakeBucket {
    pub fn healthy() -> Self {
        Self {
            head: Ok(BucketUsage::default()),
            location: Ok(()),
            versioning: Ok(Versioning::Enabled),
            object_lock: Ok(ObjectLock { enabled: true, default_retention: Some(ONE_DAY) }),
            silent: false,
        }
    }

    pub fn location(&self) -> S3Location {
        S3Location::parse("https://s3.example.com/backups").expect("a location")
    }

    async fn answer<T: Clone>(&self, answer: &Result<T, S3Failure>) -> Result<T, S3Failure> {
        if self.silent {
            std::future::pending::<()>().await;
        }
        answer.clone()
    }
}

#[async_trait]
impl BucketApi for FakeBucket {
    async fn head_bucket(&self) -> Result<BucketUsage, S3Failure> {
        self.answer(&self.head).await
    }

    async fn bucket_location(&self) -> Result<(), S3Failure> {
        self.answer(&self.location).await
    }

    async fn versioning(&self) -> Result<Versioning, S3Failure> {
        self.answer(&self.versioning).await
    }

    async fn object_lock(&self) -> Result<ObjectLock, S3Failure> {
        self.answer(&self.object_lock).await
    }
}
