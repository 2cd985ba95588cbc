//! Validation of `[s3]`: credentials, canaries, lock proofs and listings.

mod put_headers;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::raw;
use crate::config::validated::{
    INTERVALS, Validated, days, duration, invalid, limited, location, number, one_of, path, secret_file_or_credential,
};
use crate::model::LockMode;
use crate::model::settings::{
    LockProofSettings, S3AccessRule, S3Addressing, S3CanarySettings, S3CredentialSource, S3ListingSettings,
};

/// Accepted lock times of a canary. The lock must outlast the calls of one proof plus the rounding of two
/// clocks to whole seconds. A lock of more than an hour would prove nothing more.
const CANARY_RETENTIONS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3600);

/// Accepted times between two lock proofs. Each proof writes an object that cannot be deleted at once.
const PROOF_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(600)..=Duration::from_secs(30 * 24 * 3600);

/// Time that is added to the shortest retention of a canary. A service counts from the arrival of the request, and the
/// agent knows the service's clock only with an accuracy of a second.
const RETENTION_MARGIN: Duration = Duration::from_secs(60);

/// Accepted times between two runs of a listing. A count that is older than a month is useless.
const LISTING_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(30 * 24 * 3600);

/// Accepted numbers of requests in one run of a listing. Each request lists a thousand entries.
const LISTING_REQUESTS: RangeInclusive<u32> = 1..=10_000;

/// Longest prefix of canaries, in bytes. With the rest of the key it stays below the 1024 bytes of S3.
const PREFIX_MAX_BYTES: usize = 200;

/// Validates `[[s3.credentials]]`.
pub(super) fn access(raw: &[raw::S3Credentials]) -> Validated<Vec<S3AccessRule>> {
    const SECTION: &str = "[[s3.credentials]]";
    let mut rules = Vec::new();
    for entry in limited(raw, SECTION)? {
        let source = match (&entry.profile, &entry.access_key_id_file, &entry.secret_access_key_file) {
            (None, None, None) => S3CredentialSource::DefaultChain,
            (Some(profile), None, None) => S3CredentialSource::Profile(profile.get_ref().clone()),
            (None, Some(id), Some(secret)) => S3CredentialSource::Files {
                access_key_id: secret_file_or_credential(id, "[[s3.credentials]] access_key_id_file")?,
                secret_access_key: secret_file_or_credential(secret, "[[s3.credentials]] secret_access_key_file")?,
            },
            _ => {
                let problem =
                    "expected either profile, or both access_key_id_file and secret_access_key_file, or none of them";
                return Err(invalid(&entry.location, SECTION, problem));
            }
        };
        let addressing = entry.addressing.as_ref().map_or(Ok(S3Addressing::default()), |text| {
            let known = [("path", S3Addressing::Path), ("virtual", S3Addressing::Virtual)];
            one_of(text, "[[s3.credentials]] addressing", &known)
        })?;
        let ca_bundle = entry.ca_bundle.as_ref();
        rules.push(S3AccessRule {
            location: location(&entry.location, "[[s3.credentials]] location")?,
            source,
            region: entry.region.as_ref().map(|region| region.get_ref().clone()),
            ca_bundle: ca_bundle.map(|text| path(text, "[[s3.credentials]] ca_bundle")).transpose()?,
            addressing,
            read_only: entry.read_only,
            append_only: entry.append_only,
            put_headers: Arc::new(put_headers::validate(&entry.put_headers)?),
        });
    }
    Ok(rules)
}

/// Validates `[s3.canary]`, and `min_canary_retention` of `[s3.lock_proof]`, which all locked canaries have.
pub(super) fn canary(raw: &raw::S3Canary, proof: &raw::LockProof) -> Validated<S3CanarySettings> {
    const KEY: &str = "[s3.canary] prefix";
    let prefix = raw.prefix.get_ref();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'=');
    let segments_are_names = prefix.split('/').rev().skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if !prefix.ends_with('/') || prefix.len() > PREFIX_MAX_BYTES || !prefix.bytes().all(is_plain) || !segments_are_names
    {
        let problem = format!(
            "{prefix:?} is not a valid prefix, expected names of letters, digits and -_.= that each end with /, at most {PREFIX_MAX_BYTES} bytes"
        );
        return Err(invalid(&raw.prefix, KEY, problem));
    }
    let interval = duration(&raw.interval, "[s3.canary] interval", INTERVALS)?;
    let retention = duration(&raw.retention, "[s3.canary] retention", CANARY_RETENTIONS)?;
    if retention > interval {
        let problem = format!(
            "{:?} is longer than interval ({} s), so canaries would accumulate, expected at most interval",
            raw.retention.get_ref(),
            interval.as_secs()
        );
        return Err(invalid(&raw.retention, "[s3.canary] retention", problem));
    }
    let retention = retention.max(min_canary_retention(proof)?);
    Ok(S3CanarySettings { enabled: raw.enabled, interval, prefix: prefix.clone(), retention })
}

/// Returns the retention that reaches `[s3.lock_proof] min_canary_retention`, or zero without one.
fn min_canary_retention(raw: &raw::LockProof) -> Validated<Duration> {
    const KEY: &str = "[s3.lock_proof] min_canary_retention";
    let shortest = days(&raw.min_canary_retention, KEY)?;
    if shortest.is_zero() {
        return Ok(shortest);
    }
    let retention = shortest.saturating_add(RETENTION_MARGIN);
    // A verdict counts for two intervals, and its renewal takes as long as the canary is locked.
    if retention > duration(&raw.interval, "[s3.lock_proof] interval", PROOF_INTERVALS)? / 2 {
        let problem = format!(
            "{:?} is longer than half of interval ({:?}) less {} s, so a proof would not be renewed in time. Raise interval",
            raw.min_canary_retention.get_ref(),
            raw.interval.get_ref(),
            RETENTION_MARGIN.as_secs()
        );
        return Err(invalid(&raw.min_canary_retention, KEY, problem));
    }
    Ok(retention)
}

/// Validates `[s3.lock_proof]`.
pub(super) fn lock_proof(raw: &raw::LockProof) -> Validated<LockProofSettings> {
    let modes =
        [("default", None), ("governance", Some(LockMode::Governance)), ("compliance", Some(LockMode::Compliance))];
    Ok(LockProofSettings {
        enabled: raw.enabled,
        interval: duration(&raw.interval, "[s3.lock_proof] interval", PROOF_INTERVALS)?,
        mode: one_of(&raw.mode, "[s3.lock_proof] mode", &modes)?,
        strict: raw.strict,
        min_retention: days(&raw.min_retention, "[s3.lock_proof] min_retention")?,
    })
}

/// Validates `[s3.listing]`.
pub(super) fn listing(raw: &raw::S3Listing) -> Validated<S3ListingSettings> {
    Ok(S3ListingSettings {
        enabled: raw.enabled,
        interval: duration(&raw.interval, "[s3.listing] interval", LISTING_INTERVALS)?,
        requests_max: number(&raw.requests_max, "[s3.listing] requests_max", LISTING_REQUESTS)?,
    })
}
