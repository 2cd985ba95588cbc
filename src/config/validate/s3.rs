//! The `[s3]` section: who may do what with buckets, and what is written to them to prove it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{INTERVALS, Valid, absolute, duration, limited, location, one_of, secret_file_or_credential, wrong};
use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::config::error::WrongValue;
use crate::config::raw::{self, Text};
use crate::model::LockMode;
use crate::model::settings::{
    LockProofSettings, S3AccessRule, S3Addressing, S3CanarySettings, S3CredentialSource, S3ListingSettings,
};

/// How long a canary is locked where it must be. It must outlast the calls that are made meanwhile, and
/// the difference of two clocks of whole seconds; more than an hour would prove nothing more.
const CANARY_RETENTIONS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3600);

/// Times between two lock proofs. Each writes an object that cannot be deleted at once.
const PROOF_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(600)..=Duration::from_secs(30 * 24 * 3600);

/// Times between two runs of a listing. A month is the longest that a count can be of any use.
const LISTING_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(30 * 24 * 3600);

/// Requests of one run of a listing, each for a thousand entries.
const LISTING_REQUESTS: RangeInclusive<u32> = 1..=10_000;

/// The longest prefix of canaries, in bytes. With what is added a key stays below S3's 1024.
const PREFIX_MAX_BYTES: usize = 200;

/// Access to buckets.
pub(super) fn access(raw: &[raw::S3Credentials]) -> Valid<Vec<S3AccessRule>> {
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
                let problem = "expected either profile, or access_key_id_file together with secret_access_key_file, or none of them";
                return Err(wrong(&entry.location, SECTION, problem));
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
            ca_bundle: ca_bundle
                .map(|path| absolute(path, path.get_ref(), "[[s3.credentials]] ca_bundle"))
                .transpose()?,
            addressing,
            read_only: entry.read_only,
        });
    }
    Ok(rules)
}

/// The canary object.
pub(super) fn canary(raw: &raw::S3Canary) -> Valid<S3CanarySettings> {
    const KEY: &str = "[s3.canary] prefix";
    let prefix = raw.prefix.get_ref();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'=');
    let segments_are_names = prefix.split('/').rev().skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if !prefix.ends_with('/') || prefix.len() > PREFIX_MAX_BYTES || !prefix.bytes().all(is_plain) || !segments_are_names
    {
        let problem = format!(
            "{prefix:?} is no prefix; expected names of letters, digits and -_.= that each end with /, at most {PREFIX_MAX_BYTES} bytes"
        );
        return Err(wrong(&raw.prefix, KEY, problem));
    }
    let interval = duration(&raw.interval, "[s3.canary] interval", INTERVALS)?;
    let retention = duration(&raw.retention, "[s3.canary] retention", CANARY_RETENTIONS)?;
    if retention > interval {
        let problem = format!(
            "{:?} is longer than the interval of {} s, so that canaries would pile up; expected at most that",
            raw.retention.get_ref(),
            interval.as_secs()
        );
        return Err(wrong(&raw.retention, "[s3.canary] retention", problem));
    }
    Ok(S3CanarySettings { enabled: raw.enabled, interval, prefix: prefix.clone(), retention })
}

/// The lock proof.
pub(super) fn lock_proof(raw: &raw::LockProof) -> Valid<LockProofSettings> {
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

/// The listing of buckets.
pub(super) fn listing(raw: &raw::S3Listing) -> Valid<S3ListingSettings> {
    let requests = &raw.requests_max;
    if !LISTING_REQUESTS.contains(requests.get_ref()) {
        let (least, most) = (LISTING_REQUESTS.start(), LISTING_REQUESTS.end());
        let problem = format!("expected {least} to {most}, found {}", requests.get_ref());
        return Err(WrongValue::new(requests.span(), "[s3.listing] requests_max", problem));
    }
    Ok(S3ListingSettings {
        enabled: raw.enabled,
        interval: duration(&raw.interval, "[s3.listing] interval", LISTING_INTERVALS)?,
        requests_max: *requests.get_ref(),
    })
}

/// A time that may be told in days, of 24 hours.
fn days(text: &Text, key: &str) -> Valid<Duration> {
    let span = text.get_ref().parse::<Span>().ok();
    let exact = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    exact.and_then(|exact: SignedDuration| Duration::try_from(exact).ok()).ok_or_else(|| {
        wrong(
            text,
            key,
            format!("{:?} is no time; expected text such as \"30d\" or \"12h\", or \"0s\"", text.get_ref()),
        )
    })
}
