//! Operations of the SDK: how it serializes their requests and parses their answers.

use std::error::Error;
use std::fmt::Debug;
use std::sync::LazyLock;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::abort_multipart_upload::{
    AbortMultipartUpload, AbortMultipartUploadError, AbortMultipartUploadInput, AbortMultipartUploadOutput,
};
use aws_sdk_s3::operation::create_multipart_upload::{
    CreateMultipartUpload, CreateMultipartUploadError, CreateMultipartUploadInput, CreateMultipartUploadOutput,
};
use aws_sdk_s3::operation::delete_object::{DeleteObject, DeleteObjectError, DeleteObjectInput, DeleteObjectOutput};
use aws_sdk_s3::operation::get_bucket_location::{
    GetBucketLocation, GetBucketLocationError, GetBucketLocationInput, GetBucketLocationOutput,
};
use aws_sdk_s3::operation::get_bucket_versioning::{
    GetBucketVersioning, GetBucketVersioningError, GetBucketVersioningInput, GetBucketVersioningOutput,
};
use aws_sdk_s3::operation::get_object::{GetObject, GetObjectError, GetObjectInput, GetObjectOutput};
use aws_sdk_s3::operation::get_object_lock_configuration::{
    GetObjectLockConfiguration, GetObjectLockConfigurationError, GetObjectLockConfigurationInput,
    GetObjectLockConfigurationOutput,
};
use aws_sdk_s3::operation::head_bucket::{HeadBucket, HeadBucketError, HeadBucketInput, HeadBucketOutput};
use aws_sdk_s3::operation::head_object::{HeadObject, HeadObjectError, HeadObjectInput, HeadObjectOutput};
use aws_sdk_s3::operation::list_multipart_uploads::{
    ListMultipartUploads, ListMultipartUploadsError, ListMultipartUploadsInput, ListMultipartUploadsOutput,
};
use aws_sdk_s3::operation::list_object_versions::{
    ListObjectVersions, ListObjectVersionsError, ListObjectVersionsInput, ListObjectVersionsOutput,
};
use aws_sdk_s3::operation::list_objects_v2::{
    ListObjectsV2, ListObjectsV2Error, ListObjectsV2Input, ListObjectsV2Output,
};
use aws_sdk_s3::operation::put_object::{PutObject, PutObjectError, PutObjectInput, PutObjectOutput};
use aws_sdk_s3::operation::put_object_retention::{
    PutObjectRetention, PutObjectRetentionError, PutObjectRetentionInput, PutObjectRetentionOutput,
};
use aws_sdk_s3::operation::upload_part::{UploadPart, UploadPartError, UploadPartInput, UploadPartOutput};
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin;
use aws_smithy_types::config_bag::FrozenLayer;

/// One operation, with the types of its request and its answer.
pub(super) trait SdkOperation {
    /// Parameters of the request.
    type Input: Debug + Send + Sync + 'static;
    /// Content of a successful answer.
    type Output: Debug + Send + Sync + 'static;
    /// Content of a refusal.
    type Error: ProvideErrorMetadata + Error + Send + Sync + 'static;

    /// Name in the S3 API reference.
    const NAME: &'static str;

    /// Returns the configuration of the operation in the SDK, which has its serializer and its parser.
    fn configuration() -> Option<&'static FrozenLayer>;
}

macro_rules! operations {
    ($($name:ident($input:ident) -> $output:ident or $error:ident,)*) => {$(
        impl SdkOperation for $name {
            type Input = $input;
            type Output = $output;
            type Error = $error;

            const NAME: &'static str = stringify!($name);

            fn configuration() -> Option<&'static FrozenLayer> {
                static CONFIGURATION: LazyLock<Option<FrozenLayer>> = LazyLock::new(|| $name::new().config());
                CONFIGURATION.as_ref()
            }
        }
    )*};
}

operations! {
    AbortMultipartUpload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput or AbortMultipartUploadError,
    CreateMultipartUpload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput or CreateMultipartUploadError,
    DeleteObject(DeleteObjectInput) -> DeleteObjectOutput or DeleteObjectError,
    GetBucketLocation(GetBucketLocationInput) -> GetBucketLocationOutput or GetBucketLocationError,
    GetBucketVersioning(GetBucketVersioningInput) -> GetBucketVersioningOutput or GetBucketVersioningError,
    GetObject(GetObjectInput) -> GetObjectOutput or GetObjectError,
    GetObjectLockConfiguration(GetObjectLockConfigurationInput)
        -> GetObjectLockConfigurationOutput or GetObjectLockConfigurationError,
    HeadBucket(HeadBucketInput) -> HeadBucketOutput or HeadBucketError,
    HeadObject(HeadObjectInput) -> HeadObjectOutput or HeadObjectError,
    ListMultipartUploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput or ListMultipartUploadsError,
    ListObjectVersions(ListObjectVersionsInput) -> ListObjectVersionsOutput or ListObjectVersionsError,
    ListObjectsV2(ListObjectsV2Input) -> ListObjectsV2Output or ListObjectsV2Error,
    PutObject(PutObjectInput) -> PutObjectOutput or PutObjectError,
    PutObjectRetention(PutObjectRetentionInput) -> PutObjectRetentionOutput or PutObjectRetentionError,
    UploadPart(UploadPartInput) -> UploadPartOutput or UploadPartError,
}
