//! Calls on the objects of one bucket.

use async_trait::async_trait;
use aws_sdk_s3::operation::abort_multipart_upload::{AbortMultipartUpload, AbortMultipartUploadInput};
use aws_sdk_s3::operation::create_multipart_upload::{CreateMultipartUpload, CreateMultipartUploadInput};
use aws_sdk_s3::operation::delete_object::{DeleteObject, DeleteObjectInput};
use aws_sdk_s3::operation::get_object::{GetObject, GetObjectInput};
use aws_sdk_s3::operation::head_object::{HeadObject, HeadObjectInput};
use aws_sdk_s3::operation::list_multipart_uploads::{ListMultipartUploads, ListMultipartUploadsInput};
use aws_sdk_s3::operation::list_object_versions::{ListObjectVersions, ListObjectVersionsInput};
use aws_sdk_s3::operation::list_objects_v2::{ListObjectsV2, ListObjectsV2Input};
use aws_sdk_s3::operation::put_object::{PutObject, PutObjectInput};
use aws_sdk_s3::operation::put_object_retention::{PutObjectRetention, PutObjectRetentionInput};
use aws_sdk_s3::operation::upload_part::{UploadPart, UploadPartInput};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode, ObjectVersion};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use md5::{Digest as _, Md5};

use super::answer::service_time;
use super::bucket::{AwsBucket, lock_mode};
use crate::model::cause::innermost_cause;
use crate::s3::failure::S3Failure;
use crate::s3::objects::{ListedVersion, ObjectApi, Retention, StoredVersion};
use crate::s3::pages::MARKER_LIMIT_BYTES;

/// Adds the MD5 digest of the body. A request that changes a retention needs a digest (S3 API reference,
/// PutObjectRetention). Older services, such as Ceph and MinIO before 2022, know only MD5. They would refuse the
/// request as incomplete, and the lock proof would take that for a lock.
fn add_content_md5(request: &mut HttpRequest) {
    let digest = STANDARD.encode(Md5::digest(request.body().bytes().unwrap_or_default()));
    request.headers_mut().insert("content-md5", digest);
}

#[async_trait]
impl ObjectApi for AwsBucket {
    async fn put(&self, key: &str, content: Bytes, retention: Option<Retention>) -> Result<Option<String>, S3Failure> {
        let digest = Md5::digest(&content);
        put_object(self, key, content, &digest, retention).await
    }

    async fn put_with_wrong_digest(
        &self,
        key: &str,
        content: Bytes,
        retention: Option<Retention>,
    ) -> Result<Option<String>, S3Failure> {
        let digest = Md5::digest(Md5::digest(&content));
        put_object(self, key, content, &digest, retention).await
    }

    async fn create_upload(&self, key: &str, retention: Option<Retention>) -> Result<String, S3Failure> {
        let create = CreateMultipartUploadInput::builder().bucket(&self.bucket).key(key);
        let create = match retention {
            None => create,
            Some(Retention { mode, until }) => create
                .object_lock_mode(ObjectLockMode::from(mode.as_str()))
                .object_lock_retain_until_date(DateTime::from_secs(until)),
        };
        let mut request = self.request::<CreateMultipartUpload>(create.build())?.requiring_xml();
        self.add_put_headers(&mut request.http);
        let answer = request.send().await?.content;
        let upload = answer.upload_id().filter(|upload| !upload.is_empty() && upload.len() <= MARKER_LIMIT_BYTES);
        upload.map(str::to_owned).ok_or_else(|| S3Failure::NotS3("it names no multipart upload".to_owned()))
    }

    async fn upload_part(&self, key: &str, upload: &str, content: Bytes) -> Result<(), S3Failure> {
        let part = UploadPartInput::builder().bucket(&self.bucket).key(key).upload_id(upload).part_number(1);
        self.request::<UploadPart>(part.body(ByteStream::from(content)).build())?.send().await?;
        Ok(())
    }

    async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), S3Failure> {
        let abort = AbortMultipartUploadInput::builder().bucket(&self.bucket).key(key).upload_id(upload).build();
        self.request::<AbortMultipartUpload>(abort)?.send().await?;
        Ok(())
    }

    async fn uploads(&self, key: &str) -> Result<Vec<String>, S3Failure> {
        let list = ListMultipartUploadsInput::builder().bucket(&self.bucket).prefix(key).build();
        let answer = self.request::<ListMultipartUploads>(list)?.requiring_xml().send().await?.content;
        let of_key = answer.uploads().iter().filter(|upload| upload.key() == Some(key));
        Ok(of_key.filter_map(|upload| upload.upload_id().map(str::to_owned)).collect())
    }

    async fn get(&self, key: &str, version: Option<&str>) -> Result<Bytes, S3Failure> {
        let get = GetObjectInput::builder().bucket(&self.bucket).key(key).set_version_id(version.map(str::to_owned));
        let answer = self.request::<GetObject>(get.build())?.send().await?.content;
        let body = answer.body.collect().await;
        body.map(|body| body.into_bytes()).map_err(|error| S3Failure::ConnectionBroken(innermost_cause(&error)))
    }

    async fn head(&self, key: &str, version: Option<&str>) -> Result<StoredVersion, S3Failure> {
        let head = HeadObjectInput::builder().bucket(&self.bucket).key(key).set_version_id(version.map(str::to_owned));
        let answer = self.request::<HeadObject>(head.build())?.send().await?.content;
        let mode = answer.object_lock_mode().and_then(|mode| lock_mode(mode.as_str()));
        let until = answer.object_lock_retain_until_date().map(DateTime::secs);
        let retention = mode.zip(until).map(|(mode, until)| Retention { mode, until });
        let version = version_id(answer.version_id())?;
        Ok(StoredVersion { version, retention, modified: answer.last_modified().map(DateTime::secs) })
    }

    async fn delete(
        &self,
        key: &str,
        version: Option<&str>,
        bypass_governance: bool,
    ) -> Result<Option<i64>, S3Failure> {
        let delete = DeleteObjectInput::builder().bucket(&self.bucket).key(key);
        let delete = delete
            .set_version_id(version.map(str::to_owned))
            .set_bypass_governance_retention(bypass_governance.then_some(true));
        let answer = self.request::<DeleteObject>(delete.build())?.send().await?;
        Ok(service_time(&answer.http))
    }

    async fn put_retention(
        &self,
        key: &str,
        version: Option<&str>,
        retention: Option<Retention>,
        bypass_governance: bool,
    ) -> Result<Option<i64>, S3Failure> {
        // An empty element removes the retention (PutObjectRetention).
        let element = match retention {
            None => ObjectLockRetention::builder(),
            Some(Retention { mode, until }) => ObjectLockRetention::builder()
                .mode(ObjectLockRetentionMode::from(mode.as_str()))
                .retain_until_date(DateTime::from_secs(until)),
        };
        let put = PutObjectRetentionInput::builder().bucket(&self.bucket).key(key).retention(element.build());
        let put = put
            .set_version_id(version.map(str::to_owned))
            .set_bypass_governance_retention(bypass_governance.then_some(true));
        let mut request = self.request::<PutObjectRetention>(put.build())?;
        add_content_md5(&mut request.http);
        let answer = request.send().await?;
        Ok(service_time(&answer.http))
    }

    async fn list(&self, prefix: &str, versioned: bool, limit: u16) -> Result<Vec<ListedVersion>, S3Failure> {
        let limit = i32::from(limit);
        let modified = |date: Option<&DateTime>| Timestamp::from_second(date?.secs()).ok();
        if !versioned {
            let list = ListObjectsV2Input::builder().bucket(&self.bucket).prefix(prefix).max_keys(limit).build();
            let answer = self.request::<ListObjectsV2>(list)?.requiring_xml().send().await?.content;
            let listed = |object: &aws_sdk_s3::types::Object| {
                let key = object.key()?.to_owned();
                Some(ListedVersion { key, version: None, modified: modified(object.last_modified()) })
            };
            return Ok(answer.contents().iter().filter_map(listed).collect());
        }
        let list = ListObjectVersionsInput::builder().bucket(&self.bucket).prefix(prefix).max_keys(limit).build();
        let answer = self.request::<ListObjectVersions>(list)?.requiring_xml().send().await?.content;
        let listed = |key: Option<&str>, version: Option<&str>, date: Option<&DateTime>| {
            Some(ListedVersion { key: key?.to_owned(), version: Some(version?.to_owned()), modified: modified(date) })
        };
        let version = |found: &ObjectVersion| listed(found.key(), found.version_id(), found.last_modified());
        let versions = answer.versions().iter().filter_map(version);
        let markers = answer.delete_markers().iter();
        Ok(versions.chain(markers.filter_map(|it| listed(it.key(), it.version_id(), it.last_modified()))).collect())
    }
}

impl AwsBucket {
    /// Adds the headers of the configuration that each object has.
    fn add_put_headers(&self, request: &mut HttpRequest) {
        for (name, value) in self.put_headers.iter() {
            request.headers_mut().insert(name.clone(), value.clone());
        }
    }
}

async fn put_object(
    bucket: &AwsBucket,
    key: &str,
    content: Bytes,
    digest: &[u8],
    retention: Option<Retention>,
) -> Result<Option<String>, S3Failure> {
    // AWS refuses a locked PUT without a digest. Every service accepts MD5.
    let put = PutObjectInput::builder().bucket(&bucket.bucket).key(key).content_md5(STANDARD.encode(digest));
    let put = match retention {
        None => put,
        Some(Retention { mode, until }) => put
            .object_lock_mode(ObjectLockMode::from(mode.as_str()))
            .object_lock_retain_until_date(DateTime::from_secs(until)),
    };
    let mut request = bucket.request::<PutObject>(put.body(ByteStream::from(content)).build())?;
    bucket.add_put_headers(&mut request.http);
    version_id(request.send().await?.content.version_id())
}

/// Returns a version ID, unless it is longer than one can be.
fn version_id(named: Option<&str>) -> Result<Option<String>, S3Failure> {
    match named {
        Some(version) if version.len() > MARKER_LIMIT_BYTES => {
            Err(S3Failure::NotS3("its version ID is longer than one can be".to_owned()))
        }
        named => Ok(named.filter(|version| !version.is_empty()).map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::s3::aws::fake_service::{answer, answering};

    /// Puts an object with these headers. Returns the head of the request, and the result of an answer with this
    /// version ID.
    async fn put(headers: &[(&str, &str)], version: &str) -> (String, Result<Option<String>, S3Failure>) {
        let (mut bucket, heads) = answering([answer(&format!("200 OK\nx-amz-version-id: {version}"), "")]).await;
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        bucket.put_headers = Arc::new(headers);
        let result = bucket.put("key", Bytes::from_static(b"content"), None).await;
        let head = heads.lock().expect("no panic").remove(0);
        (head, result)
    }

    #[tokio::test]
    async fn configured_headers_are_sent_and_signed_with_each_object() {
        let (encryption, acl) = ("x-amz-server-side-encryption", "x-amz-acl");
        let (request, result) = put(&[(encryption, "aws:kms"), (acl, "bucket-owner-full-control")], "v1").await;
        assert_eq!(result, Ok(Some("v1".to_owned())));
        for header in ["x-amz-server-side-encryption: aws:kms\r\n", "x-amz-acl: bucket-owner-full-control\r\n"] {
            assert!(request.contains(header), "{request}");
        }
        let signed = request.split_once("signedheaders=").and_then(|(_, rest)| rest.split_once(',')).expect("signed").0;
        assert!([encryption, acl].iter().all(|name| signed.split(';').any(|found| found == *name)), "{signed}");
        let (request, _) = put(&[], "v1").await;
        assert!(!request.contains(encryption) && !request.contains(acl), "{request}");
    }

    #[tokio::test]
    async fn put_with_a_wrong_digest_differs_from_a_put_only_in_the_digest() {
        let (content, header) = (Bytes::from_static(b"content"), ("x-amz-acl".to_owned(), "private".to_owned()));
        let bad = "<Error><Code>BadDigest</Code></Error>";
        let (mut bucket, heads) = answering([answer("200 OK", ""), answer("400 Bad Request", bad)]).await;
        bucket.put_headers = Arc::new([header].into());
        bucket.put("key", content.clone(), None).await.expect("stored");
        let refused = bucket.put_with_wrong_digest("key", content.clone(), None).await.expect_err("refused");
        assert!(refused.is_digest_refusal(), "{refused}");
        let heads = heads.lock().expect("no panic");
        let names = |head: &String| -> Vec<String> {
            head.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names(&heads[0]), names(&heads[1]));
        let digest = format!("content-md5: {}\r\n", STANDARD.encode(Md5::digest(&content)).to_ascii_lowercase());
        assert!(heads[0].contains(&digest) && !heads[1].contains(&digest), "{heads:?}");
        assert!(heads[1].contains("x-amz-acl: private\r\n"), "{heads:?}");
    }

    #[tokio::test]
    async fn multipart_upload_has_the_configured_headers_and_is_aborted_by_its_id() {
        let created = "<InitiateMultipartUploadResult><UploadId>u 1</UploadId></InitiateMultipartUploadResult>";
        let listed = "<ListMultipartUploadsResult><Upload><Key>key</Key><UploadId>u 1</UploadId></Upload>\
            <Upload><Key>key2</Key><UploadId>u 2</UploadId></Upload></ListMultipartUploadsResult>";
        let part = answer("200 OK", "");
        let answers = [answer("200 OK", created), part, answer("200 OK", listed), answer("204 No Content", "")];
        let (mut bucket, heads) = answering(answers).await;
        bucket.put_headers = Arc::new([("x-amz-acl".to_owned(), "private".to_owned())].into());
        assert_eq!(bucket.create_upload("key", None).await, Ok("u 1".to_owned()));
        assert_eq!(bucket.upload_part("key", "u 1", Bytes::from("part")).await, Ok(()));
        assert_eq!(bucket.uploads("key").await, Ok(vec!["u 1".to_owned()]));
        assert_eq!(bucket.abort_upload("key", "u 1").await, Ok(()));
        let heads = heads.lock().expect("no panic");
        assert!(heads[0].starts_with("post /backups/key?uploads") && heads[0].contains("x-amz-acl: private\r\n"));
        assert!(!heads[0].contains("x-amz-object-lock") && !heads[0].contains("x-amz-checksum"), "{}", heads[0]);
        assert!(heads[1].starts_with("put /backups/key?") && heads[1].contains("partnumber=1"), "{heads:?}");
        assert!(heads[2].contains("prefix=key") && heads[3].contains("uploadid=u%201"), "{heads:?}");
    }

    #[tokio::test]
    async fn answer_that_names_no_upload_is_not_of_a_multipart_upload() {
        for body in ["", "<html>", "<InitiateMultipartUploadResult/>"] {
            let (bucket, _) = answering([answer("200 OK", body)]).await;
            assert!(bucket.create_upload("key", None).await.is_err(), "{body}");
        }
    }

    #[tokio::test]
    async fn version_id_that_is_too_long_is_refused() {
        let longest = "v".repeat(MARKER_LIMIT_BYTES);
        assert_eq!(put(&[], &longest).await.1, Ok(Some(longest.clone())));
        assert!(matches!(put(&[], &format!("{longest}v")).await.1, Err(S3Failure::NotS3(_))));
    }
}
