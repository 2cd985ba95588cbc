//! Meaning of a refusal: the reason that follows from status, code and message of a service's error answer.

mod region;

use crate::model::Reason;
pub(super) use region::{CODE_LIMIT_BYTES, expected_region, is_region};

/// Codes for a request time that the service does not accept.
pub(super) const CLOCK_SKEW_CODES: [&str; 2] = ["RequestTimeTooSkewed", "RequestExpired"];

/// Codes for a request that was signed for, or sent to, a region other than the bucket's.
const REGION_CODES: [&str; 4] =
    ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "IncorrectEndpoint"];

/// Topic of a service's message. Some services refuse with an unspecific code, and only the message tells the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageTopic {
    /// A lock or a retention (MinIO: `InvalidRequest`, "Object is WORM protected").
    Lock,
    /// A bucket without object lock (AWS: `InvalidRequest`, "Bucket is missing Object Lock Configuration").
    NoLock,
    /// A quota that is used up (Garage: `AccessDenied`, "Bucket size quota is reached").
    Quota,
    /// Storage without free space (MinIO: `InternalError`, "no space left on device").
    Full,
    /// Another region than that of the request (AWS: `InvalidArgument`, "the region 'a' is wrong; expecting 'b'").
    Region,
}

impl MessageTopic {
    /// Returns the topic of a message, except a region, which needs the region of the request.
    pub(super) fn of(message: &str) -> Option<Self> {
        let words = plain_words(message);
        let has = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(&format!(" {phrase} ")));
        let is_reached = has(&["reached", "exceed", "exceeds", "exceeded"]);
        let is_limit = has(&["limit", "cap", "maximum"]) && has(&STORAGE_WORDS) && !has(&REQUEST_WORDS);
        if (is_reached && (has(&["quota"]) || is_limit)) || has(&["bucket is full", "bucket full"]) {
            Some(Self::Quota)
        } else if has(&FULL_PHRASES) && !has(&["full of"]) {
            Some(Self::Full)
        } else if has(&NO_LOCK_PHRASES) {
            Some(Self::NoLock)
        } else {
            has(&LOCK_PHRASES).then_some(Self::Lock)
        }
    }

    /// Returns the topic of a code about a retention or a lock.
    pub(super) fn of_code(code: &str) -> Option<Self> {
        let code = plain_code(code);
        let has = |parts: &[&str]| parts.iter().any(|part| code.contains(part));
        if has(&["objectlock"]) && has(&["notfound", "nosuch", "missing", "notconfigured", "notenabled", "disabled"]) {
            return Some(Self::NoLock);
        }
        has(&["retention", "objectlock", "worm", "immutab"]).then_some(Self::Lock)
    }
}

/// Words for what a quota limits.
const STORAGE_WORDS: [&str; 9] =
    ["storage", "bucket", "size", "capacity", "space", "disk", "object", "objects", "account"];

/// Words for what a limit of requests limits.
const REQUEST_WORDS: [&str; 6] = ["rate", "request", "requests", "bandwidth", "connections", "transactions"];

/// Messages about storage without free space.
const FULL_PHRASES: [&str; 14] = [
    "no space left",
    "not enough space",
    "not enough disk space",
    "not enough storage",
    "insufficient space",
    "insufficient disk space",
    "insufficient storage",
    "insufficient capacity",
    "out of space",
    "out of disk space",
    "disk full",
    "storage is full",
    "storage full",
    "free disk threshold",
];

/// Messages about a retention or a lock.
const LOCK_PHRASES: [&str; 8] =
    ["worm", "object lock", "locked", "retention", "retain", "immutable", "immutability", RETENTION_ACTION];

/// Messages of AWS, MinIO, Ceph and others about a PUT with a retention in a bucket without object lock.
const NO_LOCK_PHRASES: [&str; 5] = [
    "missing object lock configuration",
    "missing objectlockconfiguration",
    "object lock not configured",
    "object lock is not configured",
    "object lock is not enabled",
];

/// Action of a PUT with a retention, in lower case. A policy may deny it and still allow other PUTs.
const RETENTION_ACTION: &str = "s3:putobjectretention";

/// Returns the words of a message in lower case, each between spaces. Leaves out names such as
/// `arn:aws:s3:::locked-box`, because the name of a resource says nothing about the cause of the refusal.
fn plain_words(message: &str) -> String {
    let message = message.to_ascii_lowercase();
    let texts = message.split(|letter: char| letter.is_whitespace() || "\"'()[]{},;".contains(letter));
    let texts = texts.map(|text| text.trim_end_matches(['.', ':', '!', '?']));
    let words: Vec<&str> = texts
        .filter(|text| *text == RETENTION_ACTION || text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .collect();
    format!(" {} ", words.join(" "))
}

/// Returns the letters and digits of a code, in lower case.
fn plain_code(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Whether an answer with this code is about the region of the bucket.
pub(super) fn is_region_code(code: Option<&str>) -> bool {
    code.is_some_and(|code| REGION_CODES.contains(&code) || names_a_region(code))
}

/// Whether a code is about a region, such as `InvalidRegionName`.
fn names_a_region(code: &str) -> bool {
    plain_code(code).contains("region")
}

/// Returns the reason of a refusal by its status, its code, whether it names a region, and the topic of its message.
pub(super) fn service_reason(status: u16, code: &str, names_region: bool, topic: Option<MessageTopic>) -> Reason {
    let by_code = match code {
        "SignatureDoesNotMatch" => Reason::WrongSecret,
        "InvalidAccessKeyId" | "InvalidToken" => Reason::UnknownAccessKey,
        "UserSuspended" => Reason::UserSuspended,
        code if CLOCK_SKEW_CODES.contains(&code) => Reason::ClockSkewed,
        "NoSuchBucket" => Reason::BucketNotFound,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "ExpiredToken" | "TokenRefreshRequired" => {
            Reason::AccessDenied
        }
        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => Reason::WrongRegion,
        code if names_a_region(code) => Reason::WrongRegion,
        "PermanentRedirect" | "TemporaryRedirect" | "IncorrectEndpoint" if names_region => Reason::WrongRegion,
        "PermanentRedirect" | "TemporaryRedirect" | "Redirect" | "IncorrectEndpoint" => Reason::Redirected,
        "SlowDown"
        | "ServiceUnavailable"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "Throttling"
        | "ThrottlingException" => Reason::Throttled,
        "NotImplemented" | "MethodNotAllowed" => Reason::NotImplemented,
        "InternalError" => Reason::ServerError,
        "ObjectLockConfigurationNotFoundError" => Reason::ObjectLockMissing,
        code => limit_reason(status, code).unwrap_or_else(|| status_reason(status, code, names_region)),
    };
    match (by_code, topic) {
        (Reason::AccessDenied | Reason::RequestRefused | Reason::ServerError, Some(MessageTopic::Quota)) => {
            Reason::QuotaExceeded
        }
        (Reason::AccessDenied | Reason::RequestRefused | Reason::ServerError, Some(MessageTopic::Full)) => {
            Reason::StorageFull
        }
        (Reason::AccessDenied | Reason::RequestRefused | Reason::WrongSecret, Some(MessageTopic::Region)) => {
            Reason::WrongRegion
        }
        (Reason::Throttled, Some(MessageTopic::Full)) if code != "SlowDown" => Reason::StorageFull,
        _ => by_code,
    }
}

/// Returns the reason for a limit of the storage. Services name a quota in many ways: `QuotaExceeded` (Ceph),
/// `XMinioAdminBucketQuotaExceeded` (MinIO), `XRustfsQuotaExceeded`, `QUOTA_EXCEEDED` (Ozone),
/// `ObjectQuotaExceeded` (NooBaa). Swift answers that the object is too large, which is never true for a canary. Codes
/// of storage without free space are `XMinioStorageFull`, `InsufficientStorage` or only status 507 (RFC 4918 §11.5).
/// Codes of other services are recognized by their parts.
fn limit_reason(status: u16, code: &str) -> Option<Reason> {
    let code = plain_code(code);
    let has = |parts: &[&str]| parts.iter().any(|part| code.contains(part));
    let is_of_storage = status != 404 && !has(&OTHER_LIMITS);
    if status == 413 || (status != 404 && has(&["entitytoolarge"])) || (is_of_storage && has(&["quota"])) {
        return Some(Reason::QuotaExceeded);
    }
    let is_full = has(&["space", "storage", "disk", "capacity", "pool", "device", "volume", "cluster"])
        && has(&["full", "insufficient", "notenough", "outof", "nospace", "exhausted"]);
    if status == 507 || (is_of_storage && is_full) {
        return Some(Reason::StorageFull);
    }
    let is_quota = has(&["storage", "bucket", "object", "size", "cap", "space", "disk", "usage"])
        && has(&["exceeded", "limit", "toomany", "full"]);
    (is_of_storage && is_quota).then_some(Reason::QuotaExceeded)
}

/// Parts of codes about other limits, or about the configuration of a quota.
const OTHER_LIMITS: [&str; 11] = [
    "nosuch",
    "notfound",
    "configuration",
    "invalid",
    "rate",
    "request",
    "bandwidth",
    "toomanybuckets",
    "storageclass",
    "metadata",
    "message",
];

/// Whether a code is about a missing permission. Services use status 403 for other refusals too.
fn is_denial_code(code: &str) -> bool {
    let code = plain_code(code);
    ["denied", "forbidden", "unauthorized", "notauthorized", "permission", "privilege", "accessdisabled"]
        .iter()
        .any(|part| code.contains(part))
}

fn status_reason(status: u16, code: &str, names_region: bool) -> Reason {
    match status {
        300..=399 if names_region => Reason::WrongRegion,
        // A refused HEAD has no code.
        400 if names_region && code.is_empty() => Reason::WrongRegion,
        300..=399 => Reason::Redirected,
        401 | 403 if code.is_empty() || is_denial_code(code) => Reason::AccessDenied,
        // Also without a code, for a HEAD. A GET without a code is handled before (`S3Failure::of_a_get`).
        404 => Reason::BucketNotFound,
        405 | 501 => Reason::NotImplemented,
        429 => Reason::Throttled,
        500..=599 => Reason::ServerError,
        _ if code.is_empty() => Reason::NotS3,
        _ => Reason::RequestRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::S3Failure;

    #[test]
    fn service_code_maps_to_reason() {
        for (status, code, region, reason) in [
            (403, Some("SignatureDoesNotMatch"), None, Reason::WrongSecret),
            (403, Some("InvalidAccessKeyId"), None, Reason::UnknownAccessKey),
            (403, Some("UserSuspended"), None, Reason::UserSuspended),
            (403, Some("RequestTimeTooSkewed"), None, Reason::ClockSkewed),
            (404, Some("NoSuchBucket"), None, Reason::BucketNotFound),
            (404, Some("ObjectLockConfigurationNotFoundError"), None, Reason::ObjectLockMissing),
            (403, Some("AccessDenied"), None, Reason::AccessDenied),
            (403, Some("QuotaExceeded"), None, Reason::QuotaExceeded),
            (301, Some("PermanentRedirect"), Some("eu-west-1"), Reason::WrongRegion),
            (301, Some("PermanentRedirect"), None, Reason::Redirected),
            (301, None, Some("eu-west-1"), Reason::WrongRegion),
            (400, Some("AuthorizationHeaderMalformed"), None, Reason::WrongRegion),
            (307, Some("TemporaryRedirect"), None, Reason::Redirected),
            (302, None, None, Reason::Redirected),
            (503, Some("SlowDown"), None, Reason::Throttled),
            (501, Some("NotImplemented"), None, Reason::NotImplemented),
            (500, Some("InternalError"), None, Reason::ServerError),
            (502, None, None, Reason::ServerError),
            (403, None, None, Reason::AccessDenied),
            (404, None, None, Reason::BucketNotFound),
            (400, None, None, Reason::NotS3),
            (400, Some("InvalidArgument"), None, Reason::RequestRefused),
            (400, Some("InvalidRegionName"), None, Reason::WrongRegion),
            (400, Some("InvalidRegion"), Some("eu-1"), Reason::WrongRegion),
            (400, Some("InvalidRequest"), Some("us-east-1"), Reason::RequestRefused),
            (409, Some("OperationAborted"), None, Reason::RequestRefused),
            (411, Some("MissingContentLength"), None, Reason::RequestRefused),
        ] {
            assert_eq!(S3Failure::service(status, code, region).reason(), reason, "{status} {code:?} {region:?}");
        }
    }

    #[test]
    fn codes_for_full_storage_and_quotas_map_to_reasons() {
        for (status, code, reason) in [
            (403, Some("QuotaExceeded"), Reason::QuotaExceeded),
            (400, Some("XMinioAdminBucketQuotaExceeded"), Reason::QuotaExceeded),
            (400, Some("XRustfsQuotaExceeded"), Reason::QuotaExceeded),
            (403, Some("QUOTA_EXCEEDED"), Reason::QuotaExceeded),
            (403, Some("ObjectQuotaExceeded"), Reason::QuotaExceeded),
            (400, Some("EntityTooLarge"), Reason::QuotaExceeded),
            (507, Some("EntityTooLarge"), Reason::QuotaExceeded),
            (413, None, Reason::QuotaExceeded),
            (507, Some("XMinioStorageFull"), Reason::StorageFull),
            (507, Some("InsufficientStorage"), Reason::StorageFull),
            (503, Some("InsufficientStorage"), Reason::StorageFull),
            (507, None, Reason::StorageFull),
            (404, Some("NoSuchQuotaConfiguration"), Reason::BucketNotFound),
            (400, Some("XMinioAdminNoSuchQuotaConfiguration"), Reason::RequestRefused),
            (403, Some("NotEnoughSpace"), Reason::StorageFull),
            (403, Some("OutOfSpace"), Reason::StorageFull),
            (403, Some("InsufficientCapacity"), Reason::StorageFull),
            (503, Some("InsufficientDiskSpace"), Reason::StorageFull),
            (500, Some("PoolFull"), Reason::StorageFull),
            (403, Some("CapacityExceeded"), Reason::QuotaExceeded),
            (403, Some("StorageLimitExceeded"), Reason::QuotaExceeded),
            (403, Some("StorageCapExceeded"), Reason::QuotaExceeded),
            (409, Some("BucketFull"), Reason::QuotaExceeded),
            (400, Some("BucketMaxSizeExceeded"), Reason::QuotaExceeded),
            (403, Some("BucketSizeExceeded"), Reason::QuotaExceeded),
            (403, Some("BUCKET_SIZE_LIMIT_REACHED"), Reason::QuotaExceeded),
            (409, Some("TooManyObjects"), Reason::QuotaExceeded),
            (400, Some("MaxMessageLengthExceeded"), Reason::RequestRefused),
            (400, Some("TooManyBuckets"), Reason::RequestRefused),
            (400, Some("InvalidStorageClass"), Reason::RequestRefused),
            (409, Some("InvalidBucketState"), Reason::RequestRefused),
            (503, Some("RequestLimitExceeded"), Reason::Throttled),
            (403, Some("LimitExceeded"), Reason::RequestRefused),
            (403, Some("NotSignedUp"), Reason::RequestRefused),
            (403, Some("InvalidPayer"), Reason::RequestRefused),
            (403, Some("RequestNotAllowedInReadOnlyMode"), Reason::RequestRefused),
            (403, Some("AllAccessDisabled"), Reason::AccessDenied),
            (403, Some("Forbidden"), Reason::AccessDenied),
            (401, Some("Unauthorized"), Reason::AccessDenied),
            (403, Some("AccessForbidden"), Reason::AccessDenied),
            (403, Some("InsufficientPermissions"), Reason::AccessDenied),
            (403, Some("AccessDeniedByPolicy"), Reason::AccessDenied),
            (503, Some("SlowDown"), Reason::Throttled),
            (400, Some("EntityTooSmall"), Reason::RequestRefused),
        ] {
            assert_eq!(S3Failure::service(status, code, None).reason(), reason, "{status} {code:?}");
        }
        for (status, code, message, reason) in [
            (403, "AccessDenied", "Bucket size quota is reached, maximum total size is 5", Reason::QuotaExceeded),
            (500, "InternalError", "cause(no space left on device)", Reason::StorageFull),
            (403, "AccessDenied", "not authorized to perform s3:PutObject on quota-bucket", Reason::AccessDenied),
            (403, "AccessDenied", "storage full of secrets", Reason::AccessDenied),
            (503, "SlowDown", "request quota exceeded", Reason::Throttled),
            (503, "ServiceUnavailable", "storage is full", Reason::StorageFull),
            (403, "LimitExceeded", "The storage limit of your account is reached", Reason::QuotaExceeded),
            (403, "AccessDenied", "Cannot upload files, storage cap exceeded.", Reason::QuotaExceeded),
            (400, "InvalidRequest", "Bucket size limit reached", Reason::QuotaExceeded),
            (403, "AccessDenied", "Not enough space on the volume", Reason::StorageFull),
            (400, "InvalidRequest", "Bucket is full", Reason::QuotaExceeded),
            (403, "AccessDenied", "The rate limit of the bucket is exceeded", Reason::AccessDenied),
            (403, "Weird", "The request was refused", Reason::RequestRefused),
        ] {
            let failure = S3Failure::service(status, Some(code), None).with_message(message, None);
            assert_eq!(failure.reason(), reason, "{message}");
        }
    }

    #[test]
    fn region_in_the_message_of_any_code_is_told() {
        let (wrong, signed) = ("the region 'us-east-1' is wrong; expecting 'eu-1'", Reason::WrongRegion);
        for (status, code, message, reason) in [
            (400, "AuthorizationHeaderMalformed", wrong, signed),
            (400, "AuthorizationQueryParametersError", wrong, signed),
            (400, "InvalidArgument", wrong, signed),
            (403, "SignatureDoesNotMatch", wrong, signed),
            (403, "AccessDenied", wrong, signed),
            (400, "InvalidRegion", "Region does not match; expecting 'eu-1'.", signed),
            (400, "InvalidRegionName", "The region name 'a' is not valid. Must be one of: eu-1", signed),
            (301, "PermanentRedirect", "The bucket is in this region: eu-1. Please use this region", signed),
            (404, "NoSuchBucket", "The bucket is in this region: eu-1", Reason::BucketNotFound),
        ] {
            let failure = S3Failure::service(status, Some(code), None).with_message(message, None);
            assert_eq!(failure.reason(), reason, "{code}");
            let message = failure.finding_of("backups").message;
            assert!(message.contains("region = \"eu-1\""), "{message}");
        }
        for (status, code) in [(500, "InternalError"), (503, "SlowDown"), (507, "XMinioStorageFull")] {
            let failure = S3Failure::service(status, Some(code), None).with_message(wrong, None);
            let message = failure.finding_of("backups").message;
            assert!(!message.contains("region"), "{message}");
        }
        let header = S3Failure::service(400, Some("InvalidArgument"), Some("eu-2")).with_message(wrong, None);
        assert!(header.finding_of("backups").message.contains("eu-2"), "{header}");
    }

    #[test]
    fn topic_of_a_message_ignores_names_of_resources() {
        use MessageTopic::{Full, Lock, NoLock, Quota};
        for (message, topic) in [
            ("Object is WORM protected and cannot be overwritten", Some(Lock)),
            ("The object is locked.", Some(Lock)),
            ("object lock: retention is too short", Some(Lock)),
            ("Retention \"GOVERNANCE\" is not allowed", Some(Lock)),
            ("Bucket is missing Object Lock Configuration", Some(NoLock)),
            ("object retention can't be set if bucket object lock not configured", Some(NoLock)),
            ("not authorized to put into missing-object-lock-configuration", None),
            ("Bucket quota exceeded", Some(Quota)),
            ("write failed (no space left on device)", Some(Full)),
            ("User is not authorized to perform: s3:PutObject on resource: \"arn:aws:s3:::locked-backups/a\"", None),
            ("User is not authorized to perform: s3:PutObjectRetention on resource: arn:aws:s3:::box", Some(Lock)),
            ("Public access is blocked by the account", None),
            ("The bucket quota-reached/worm does not permit this", None),
        ] {
            assert_eq!(MessageTopic::of(message), topic, "{message}");
        }
    }

    #[test]
    fn region_element_counts_only_for_answers_about_the_region() {
        for (status, code, element, region) in [
            (400, "AuthorizationHeaderMalformed", "garage", Some("garage")),
            (301, "PermanentRedirect", "eu-west-1", Some("eu-west-1")),
            (307, "TemporaryRedirect", "eu-west-1", Some("eu-west-1")),
            (400, "AuthorizationHeaderMalformed", "a b", None),
            (400, "InvalidRegionName", "eu-1", Some("eu-1")),
            (403, "InvalidRegion", "eu-1", Some("eu-1")),
            (400, "WrongRegionException", "eu-1", Some("eu-1")),
            // Garage names its region in every error.
            (400, "InvalidRequest", "garage", None),
            (403, "AccessDenied", "garage", None),
        ] {
            let failure = S3Failure::service(status, Some(code), None).with_region_element(Some(element));
            let S3Failure::Service { region: found, .. } = &failure else { panic!("{failure}") };
            assert_eq!(found.as_deref(), region, "{code}");
        }
    }
}
