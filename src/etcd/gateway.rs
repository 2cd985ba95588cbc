//! The JSON of etcd's gateway: keys and values in base64, 64-bit numbers as strings, fields with zero left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::error::EtcdError;
use super::key_value::{AnswerHeader, EtcdRevision, KeyRange, KeyValue, LeaseId, RangeAnswer, RangeRequest};
use super::member_status::MemberStatus;
use super::transaction::{Compare, CompareCondition, Txn, TxnAnswer, TxnOperation, TxnResult};

/// Longest part of a message of a server that an error repeats, in characters.
const MESSAGE_MAX_CHARS: usize = 200;

fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn key_range(range: &KeyRange) -> Value {
    match &range.end {
        None => json!({"key": encoded(&range.start)}),
        Some(end) => json!({"key": encoded(&range.start), "range_end": encoded(end)}),
    }
}

/// Body of a read.
pub(super) fn range(request: &RangeRequest) -> Value {
    let mut body = key_range(&request.keys);
    body["serializable"] = request.is_serializable.into();
    body["keys_only"] = request.is_keys_only.into();
    if let Some(limit) = request.limit {
        body["limit"] = limit.to_string().into();
    }
    if let Some(revision) = request.revision {
        body["revision"] = revision.to_string().into();
    }
    if let Some(EtcdRevision(revision)) = request.written_after {
        body["min_mod_revision"] = revision.saturating_add(1).to_string().into();
    }
    body
}

fn compare(compare: &Compare) -> Value {
    let result = if compare.condition == CompareCondition::Exists { "GREATER" } else { "EQUAL" };
    let (target, field, value) = match &compare.condition {
        CompareCondition::Exists => ("CREATE", "create_revision", "0".to_owned()),
        CompareCondition::CreateRevision(revision) => ("CREATE", "create_revision", revision.to_string()),
        CompareCondition::ModRevision(revision) => ("MOD", "mod_revision", revision.to_string()),
        CompareCondition::Value(value) => ("VALUE", "value", encoded(value)),
        CompareCondition::Lease(lease) => ("LEASE", "lease", lease.map_or(0, |lease| lease.0).to_string()),
    };
    json!({"key": encoded(&compare.key), "target": target, "result": result, field: value})
}

fn operation(operation: &TxnOperation) -> Value {
    match operation {
        TxnOperation::Put { key, value, lease } => {
            let lease = lease.map_or(0, |lease| lease.0).to_string();
            json!({"request_put": {"key": encoded(key), "value": encoded(value), "lease": lease}})
        }
        TxnOperation::Delete(keys) => json!({"request_delete_range": key_range(keys)}),
        TxnOperation::Range(request) => json!({"request_range": range(request)}),
    }
}

/// Body of a transaction.
pub(super) fn txn(txn: &Txn) -> Value {
    json!({
        "compare": txn.compares.iter().map(compare).collect::<Vec<_>>(),
        "success": txn.success.iter().map(operation).collect::<Vec<_>>(),
        "failure": txn.failure.iter().map(operation).collect::<Vec<_>>(),
    })
}

/// Reads a number that is a string or a number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Text(String),
        Signed(i64),
        Unsigned(u64),
    }
    match Number::deserialize(deserializer)? {
        // Identifiers of clusters and members use all 64 bits.
        Number::Text(text) => text
            .parse()
            .or_else(|_| text.parse::<u64>().map(u64::cast_signed))
            .map_err(|_| serde::de::Error::custom("a number is not a 64-bit integer")),
        Number::Signed(number) => Ok(number),
        Number::Unsigned(number) => Ok(number.cast_signed()),
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map(Bytes::from).map_err(|_| serde::de::Error::custom("a key or value is not base64"))
}

fn revision(number: i64) -> EtcdRevision {
    EtcdRevision(u64::try_from(number).unwrap_or(0))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HeaderJson {
    #[serde(deserialize_with = "number")]
    cluster_id: i64,
    #[serde(deserialize_with = "number")]
    member_id: i64,
    #[serde(deserialize_with = "number")]
    revision: i64,
    #[serde(deserialize_with = "number")]
    raft_term: i64,
}

impl From<HeaderJson> for AnswerHeader {
    fn from(header: HeaderJson) -> Self {
        Self {
            cluster_id: header.cluster_id.cast_unsigned(),
            member_id: header.member_id.cast_unsigned(),
            revision: revision(header.revision),
            raft_term: header.raft_term.cast_unsigned(),
        }
    }
}

#[derive(Deserialize)]
struct KeyValueJson {
    #[serde(deserialize_with = "bytes")]
    key: Bytes,
    #[serde(default, deserialize_with = "bytes")]
    value: Bytes,
    #[serde(default, deserialize_with = "number")]
    create_revision: i64,
    #[serde(default, deserialize_with = "number")]
    mod_revision: i64,
    #[serde(default, deserialize_with = "number")]
    lease: i64,
}

impl From<KeyValueJson> for KeyValue {
    fn from(entry: KeyValueJson) -> Self {
        Self {
            key: entry.key,
            value: entry.value,
            create_revision: revision(entry.create_revision),
            mod_revision: revision(entry.mod_revision),
            lease: (entry.lease != 0).then_some(LeaseId(entry.lease)),
        }
    }
}

#[derive(Deserialize)]
struct RangeJson {
    #[serde(default)]
    header: HeaderJson,
    #[serde(default)]
    kvs: Vec<KeyValueJson>,
    #[serde(default, deserialize_with = "number")]
    count: i64,
    #[serde(default)]
    more: bool,
}

impl From<RangeJson> for RangeAnswer {
    fn from(answer: RangeJson) -> Self {
        Self {
            header: answer.header.into(),
            entries: answer.kvs.into_iter().map(Into::into).collect(),
            total: answer.count.try_into().unwrap_or_default(),
            has_more: answer.more,
        }
    }
}

#[derive(Deserialize)]
struct DeletedJson {
    #[serde(default, deserialize_with = "number")]
    deleted: i64,
}

#[derive(Deserialize)]
enum ResultJson {
    #[serde(rename = "response_put")]
    Put(serde::de::IgnoredAny),
    #[serde(rename = "response_delete_range")]
    Deleted(DeletedJson),
    #[serde(rename = "response_range")]
    Range(RangeJson),
}

#[derive(Deserialize)]
struct TxnJson {
    header: HeaderJson,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<ResultJson>,
}

/// Answer to the grant of a lease.
#[derive(Deserialize)]
pub(super) struct GrantJson {
    header: HeaderJson,
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: i64,
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    pub(super) ttl: i64,
}

/// Answer to the renewal of a lease: the first one of a stream.
#[derive(Deserialize)]
pub(super) struct RenewalJson {
    result: RenewalResultJson,
}

#[derive(Deserialize)]
struct RenewalResultJson {
    header: HeaderJson,
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: i64,
}

#[derive(Deserialize)]
struct TokenJson {
    token: String,
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, EtcdError> {
    // The message of serde may quote the answer, which may contain secrets.
    serde_json::from_slice(body)
        .map_err(|error| EtcdError::Unexpected(format!("unexpected content at column {} of an answer", error.column())))
}

/// Parses the answer to a read.
pub(super) fn range_answer(body: &[u8]) -> Result<RangeAnswer, EtcdError> {
    let answer: RangeAnswer = parsed::<RangeJson>(body)?.into();
    // Every answer has a header. An empty object is not from etcd.
    if answer.header.revision == EtcdRevision(0) {
        return Err(EtcdError::Unexpected("an answer without a header".to_owned()));
    }
    Ok(answer)
}

/// Parses the answer to a transaction with these numbers of operations.
pub(super) fn txn_answer(body: &[u8], txn: &Txn) -> Result<TxnAnswer, EtcdError> {
    let answer: TxnJson = parsed(body)?;
    let result = |result| match result {
        ResultJson::Put(_) => TxnResult::Put,
        ResultJson::Deleted(answer) => TxnResult::Deleted(answer.deleted.cast_unsigned()),
        ResultJson::Range(answer) => TxnResult::Range(answer.into()),
    };
    let results: Vec<TxnResult> = answer.responses.into_iter().map(result).collect();
    let expected = if answer.succeeded { txn.success.len() } else { txn.failure.len() };
    if results.len() != expected {
        return Err(EtcdError::Unexpected(format!("{} results of {expected} operations", results.len())));
    }
    Ok(TxnAnswer { header: answer.header.into(), succeeded: answer.succeeded, results })
}

/// Parses the answer to the grant of a lease.
pub(super) fn grant_answer(body: &[u8]) -> Result<(AnswerHeader, GrantJson), EtcdError> {
    let mut answer: GrantJson = parsed(body)?;
    Ok((std::mem::take(&mut answer.header).into(), answer))
}

/// Parses the answer to the renewal of a lease. Returns its time to live in seconds, which is 0 if it has ended.
pub(super) fn renewal_answer(body: &[u8]) -> Result<(AnswerHeader, i64), EtcdError> {
    let RenewalJson { result } = parsed(body)?;
    Ok((result.header.into(), result.ttl))
}

/// State of a member.
#[derive(Deserialize)]
struct StatusJson {
    header: HeaderJson,
    version: String,
    #[serde(rename = "dbSize", default, deserialize_with = "number")]
    database_bytes: i64,
    /// Only of members from 3.6.
    #[serde(rename = "dbSizeQuota", default, deserialize_with = "number")]
    quota_bytes: i64,
    #[serde(default)]
    errors: Vec<String>,
}

/// Parses the state of a member.
pub(super) fn member_status(body: &[u8]) -> Result<MemberStatus, EtcdError> {
    let status: StatusJson = parsed(body)?;
    let size = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    Ok(MemberStatus {
        version: status.version,
        revision: revision(status.header.revision),
        database_bytes: size(status.database_bytes),
        quota_bytes: Some(size(status.quota_bytes)).filter(|bytes| *bytes > 0),
        problems: status.errors,
    })
}

/// Parses an issued token.
pub(super) fn token(body: &[u8]) -> Result<String, EtcdError> {
    parsed::<TokenJson>(body).map(|answer| answer.token)
}

/// Codes of gRPC that the errors of etcd have.
mod code {
    pub(super) const INVALID_ARGUMENT: i64 = 3;
    pub(super) const PERMISSION_DENIED: i64 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i64 = 8;
    pub(super) const FAILED_PRECONDITION: i64 = 9;
    pub(super) const OUT_OF_RANGE: i64 = 11;
    pub(super) const UNAUTHENTICATED: i64 = 16;
}

/// Errors that say that the token is missing, unknown or older than the latest change of users and roles.
const TOKEN_ERRORS: &[&str] = &["invalid auth token", "user name is empty", "revision of auth store is old"];

/// Errors of a cluster without a leader, or of one that could not complete the request.
const QUORUM_ERRORS: &[&str] = &["no leader", "timed out", "leader changed", "server stopped", "not healthy"];

/// Error of an answer, and whether another token may help.
pub(super) fn error(status: http::StatusCode, body: &[u8]) -> (EtcdError, bool) {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    // The error of a stream is an object.
    let error = if answer["error"].is_object() { &answer["error"] } else { &answer };
    let message = [&error["message"], &error["error"]].into_iter().find_map(Value::as_str);
    let code = [&error["code"], &error["grpc_code"]].into_iter().find_map(Value::as_i64);
    let (Some(message), Some(code)) = (message, code) else {
        let detail = format!("HTTP status {status}");
        let is_proxy = status.is_server_error();
        return (if is_proxy { EtcdError::NoAnswer(detail) } else { EtcdError::Unexpected(detail) }, false);
    };
    let says = |part: &&str| message.contains(*part);
    let text: String = message.chars().filter(|char| !char.is_control()).take(MESSAGE_MAX_CHARS).collect();
    let is_token = code == code::UNAUTHENTICATED || TOKEN_ERRORS.iter().any(says);
    let error = match code {
        _ if is_token => EtcdError::Unauthenticated(text),
        _ if QUORUM_ERRORS.iter().any(says) => EtcdError::NoQuorum(text),
        _ if says(&"requested lease not found") => EtcdError::LeaseNotFound,
        _ if says(&"request is too large") => EtcdError::TooLarge(text),
        code::INVALID_ARGUMENT if says(&"authentication failed") => EtcdError::Unauthenticated(text),
        code::PERMISSION_DENIED => EtcdError::PermissionDenied,
        code::RESOURCE_EXHAUSTED if says(&"database space exceeded") => EtcdError::NoSpace,
        code::RESOURCE_EXHAUSTED if says(&"too many requests") => EtcdError::Overloaded(text),
        code::OUT_OF_RANGE if says(&"has been compacted") => EtcdError::Compacted,
        code::INVALID_ARGUMENT | code::FAILED_PRECONDITION | code::OUT_OF_RANGE => EtcdError::Refused(text),
        _ => EtcdError::NoAnswer(text),
    };
    (error, is_token)
}

/// Whether a login failed because etcd needs none.
pub(super) fn is_auth_disabled(error: &EtcdError) -> bool {
    matches!(error, EtcdError::Refused(text) if text.contains("authentication is not enabled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_code_and_message() {
        let body = |code: i64, message: &str| json!({"error": message, "message": message, "code": code}).to_string();
        for (code, message, expected, is_uncertain) in [
            (8, "etcdserver: mvcc: database space exceeded", "NoSpace", false),
            (11, "etcdserver: mvcc: required revision has been compacted", "Compacted", false),
            (11, "etcdserver: mvcc: required revision is a future revision", "Refused", false),
            (5, "etcdserver: requested lease not found", "LeaseNotFound", false),
            (5, "something else is not found", "NoAnswer", true),
            (7, "etcdserver: permission denied", "PermissionDenied", false),
            (3, "etcdserver: authentication failed, invalid user ID or password", "Unauthenticated", false),
            (16, "etcdserver: invalid auth token", "Unauthenticated", false),
            (14, "etcdserver: no leader", "NoQuorum", true),
            (14, "etcdserver: request timed out", "NoQuorum", true),
            (14, "transport is closing", "NoAnswer", true),
            (2, "never seen before", "NoAnswer", true),
            (3, "etcdserver: request is too large", "TooLarge", false),
        ] {
            let (error, _) = error(http::StatusCode::BAD_REQUEST, body(code, message).as_bytes());
            assert!(format!("{error:?}").starts_with(expected), "{message}: {error:?}");
            assert_eq!(error.is_uncertain(), is_uncertain, "{message}");
        }
        let (proxy, _) = error(http::StatusCode::SERVICE_UNAVAILABLE, b"<html>No server is available");
        assert!(matches!(proxy, EtcdError::NoAnswer(_)) && proxy.is_uncertain());
        let (stream, _) = error(
            http::StatusCode::OK,
            br#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#,
        );
        assert!(matches!(stream, EtcdError::NoQuorum(_)));
    }

    #[test]
    fn answer_that_is_not_from_etcd_is_refused() {
        for body in [&b"{}"[..], b"", b"<html>", br#"{"header":{"revision":"x"}}"#] {
            assert!(matches!(range_answer(body), Err(EtcdError::Unexpected(_))));
        }
        let txn = Txn { success: vec![TxnOperation::put("a", "b")], ..Txn::default() };
        assert!(txn_answer(br#"{"header":{},"succeeded":true}"#, &txn).is_err(), "a result is missing");
    }
}
