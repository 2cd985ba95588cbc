//! The region that the message of a refusal names as the right one.
//!
//! A message often names the region of the request too, and that one must never be told. So a word counts only after
//! words that announce the right region.

/// Longest service code that is shown, in bytes. Known codes have at most 43.
pub(in crate::s3) const CODE_LIMIT_BYTES: usize = 64;

/// Longest region, in bytes. Known ones have at most 20. A digest in hexadecimal digits is longer.
const REGION_MAX_BYTES: usize = 32;

/// Words that announce what the service expects.
const EXPECTING: [&str; 4] = ["expecting", "expected", "expects", "expect"];

/// Words between an announcement and the region.
const FILLERS: [&str; 10] = ["the", "a", "region", "location", "scope", "credential", "is", "be", "to", "of"];

/// Words before `in region x` that say where the bucket is.
const PLACES: [&str; 7] = ["is", "located", "resides", "lives", "exists", "stored", "hosted"];

/// Words before `the region x` that ask to use it.
const REQUESTS: [&str; 4] = ["use", "try", "specify", "using"];

/// Words of a sentence about a region that is not the right one.
const NEGATIONS: [&str; 5] = ["not", "no", "cannot", "doesn't", "isn't"];

/// Returns the region that a message names as the right one. Known messages:
///
/// - AWS, Swift, Scaleway, SAP: `the region 'a' is wrong; expecting 'b'`; Oracle without quotes
/// - MinIO, RustFS: `the region is wrong; expecting 'b'`, `Region does not match; expecting 'b'`
/// - AWS: `The bucket is in this region: b. Please use this region to retry the request`
/// - AWS: `The b location constraint is incompatible for the region specific endpoint this request was sent to`
/// - Cloudflare R2: `The region name 'a' is not valid. Must be one of: wnam, enam, auto`
///
/// Garage names only the scope of the request (`unexpected scope: 20260519/a/s3/aws4_request`), and its region in the
/// element `<Region>`.
pub(in crate::s3) fn expected_region(message: &str) -> Option<String> {
    let lower = message.to_ascii_lowercase();
    if !["region", "scope", "location constraint"].iter().any(|word| lower.contains(word)) {
        return None;
    }
    let words: Vec<Word> = message.split_whitespace().map(Word::new).collect();
    let found = announced(&words).or_else(|| single_choice(&words)).or_else(|| constraint(&words))?;
    (is_region(found) && !found.eq_ignore_ascii_case("unspecified")).then(|| found.to_owned())
}

/// Whether a text can be the name of a region.
pub(in crate::s3) fn is_region(name: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !name.is_empty() && name.len() <= REGION_MAX_BYTES && name.bytes().all(is_name)
}

struct Word<'message> {
    /// Without quotes and punctuation.
    text: &'message str,
    lower: String,
    is_quoted: bool,
    ends_sentence: bool,
}

impl<'message> Word<'message> {
    fn new(raw: &'message str) -> Self {
        let text = raw.trim_matches(|letter: char| "'\"`.,;:()[]".contains(letter));
        let is_quoted = raw.starts_with(['\'', '"', '`']) && raw.len() > text.len() + 1;
        Self { text, lower: text.to_ascii_lowercase(), is_quoted, ends_sentence: raw.ends_with(['.', ';']) }
    }

    fn is_one_of(&self, words: &[&str]) -> bool {
        words.contains(&self.lower.as_str())
    }

    /// Returns the region that the word names: itself, if it looks like a region, or that of a credential scope.
    fn region(&self) -> Option<&'message str> {
        if self.text.contains('/') {
            let parts: Vec<&str> = self.text.split('/').collect();
            let [.., date, region, _, "aws4_request"] = parts[..] else { return None };
            let is_date = date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit());
            return Some(region).filter(|region| is_date && is_region(region));
        }
        let has_letter = self.text.bytes().any(|byte| byte.is_ascii_alphabetic());
        // Without quotes, only a word like `eu-west-1` or `fr-par-2`.
        let is_shaped =
            self.is_quoted || (self.text.contains('-') && self.text.bytes().any(|byte| byte.is_ascii_digit()));
        Some(self.text).filter(|name| has_letter && is_shaped && is_region(name))
    }
}

/// Returns the region after an announcement.
fn announced<'message>(words: &[Word<'message>]) -> Option<&'message str> {
    (0..words.len()).find_map(|at| {
        let (before, after) = (&words[..at], &words[at + 1..]);
        let word = &words[at];
        if word.is_one_of(&EXPECTING) {
            let next = after.iter().find(|next| !next.is_one_of(&FILLERS))?;
            // Not a date, a digest or a service.
            let is_about_region = before.iter().chain(after).any(|word| word.is_one_of(&["region", "scope"]));
            return next.region().filter(|_| is_about_region);
        }
        if word.lower != "region" {
            return None;
        }
        let mut sentence = before.iter().rev().take_while(|word| !word.ends_sentence);
        if sentence.any(|word| word.is_one_of(&NEGATIONS)) {
            return None;
        }
        let mut earlier = before.iter().rev().filter(|word| !word.is_one_of(&["the", "this", "a", "correct"]));
        let (last, last_but_one) = (earlier.next(), earlier.next());
        let is_place =
            last.is_some_and(|word| word.lower == "in") && last_but_one.is_some_and(|word| word.is_one_of(&PLACES));
        let is_requested = last.is_some_and(|word| word.is_one_of(&REQUESTS));
        let is_demanded = after.first().is_some_and(|word| word.is_one_of(&["should", "must"]));
        let next = after.iter().find(|next| !next.is_one_of(&["should", "must", "be", "is"]))?;
        next.region().filter(|_| is_place || is_requested || is_demanded)
    })
}

/// Returns the only region of a list that is permitted, or `auto` if the service accepts that.
fn single_choice<'message>(words: &[Word<'message>]) -> Option<&'message str> {
    let at = words.windows(2).position(|pair| pair[0].lower == "one" && pair[1].lower == "of")?;
    let choices: Vec<&str> = words[at + 2..].iter().map(|word| word.text).take_while(|text| is_region(text)).collect();
    let auto = choices.iter().find(|choice| **choice == "auto");
    auto.or(choices.first().filter(|_| choices.len() == 1)).copied()
}

/// Returns the region before `location constraint`.
fn constraint<'message>(words: &[Word<'message>]) -> Option<&'message str> {
    let at = words.windows(2).position(|pair| pair[0].lower == "location" && pair[1].lower == "constraint")?;
    words.get(at.checked_sub(1)?).map(|word| word.text).filter(|text| text.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_that_a_message_announces_is_found() {
        for (message, region) in [
            (
                "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
                "eu-west-1",
            ),
            ("The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'NL'", "NL"),
            (
                "The authorization header is malformed; the region us-east-1 is wrong; expecting uk-london-1",
                "uk-london-1",
            ),
            ("The authorization header is malformed; the region is wrong; expecting 'cn-east-hf'.", "cn-east-hf"),
            ("Error parsing the X-Amz-Credential parameter; the region 'a' is wrong; expecting \"b\"", "b"),
            ("Region does not match; expecting 'garage'.", "garage"),
            ("Invalid region: expected eu-central-003, got us-east-1", "eu-central-003"),
            ("unexpected scope: 20260519/a/s3/aws4_request, expected: 20260519/garage/s3/aws4_request", "garage"),
            ("Bad scope, expecting \"AKIA/20260519/eu-2/s3/aws4_request\"", "eu-2"),
            ("The bucket is in this region: us-east-2. Please use this region to retry the request", "us-east-2"),
            ("This bucket is located in the region 'fr-par'", "fr-par"),
            ("The region us-east-1 is wrong. Please use the region eu-central-1 instead", "eu-central-1"),
            ("The signing region must be 'us-west-002'", "us-west-002"),
            ("The signing region should be auto-1", "auto-1"),
            (
                "The region name 'cn-north-1' is not valid. Must be one of: wnam, enam, weur, eeur, apac, oc, auto",
                "auto",
            ),
            ("The region name 'a' is not valid. Must be one of: eu-1", "eu-1"),
            ("The ap-east-1 location constraint is incompatible for the region specific endpoint", "ap-east-1"),
        ] {
            assert_eq!(expected_region(message).as_deref(), Some(region), "{message}");
        }
    }

    #[test]
    fn other_words_of_a_message_are_not_its_region() {
        for message in [
            "expecting ''",
            "the region is wrong; expecting 'a b'",
            "the region is wrong; expecting 'x",
            "the region is wrong; expecting something else",
            "Credential scope is malformed, expected slash-separated values",
            "the credential scope is wrong; expected 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
            "the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".",
            "a non-empty region must be provided in the credential",
            "incorrect date format in the credential scope, expecting '20260519'",
            "Authorization header malformed, unexpected scope: 20260519/made-up/s3/aws4_request",
            "The region name 'cn-north-1' is not valid. Must be one of: eu-1, eu-2",
            "The unspecified location constraint is incompatible for the region specific endpoint",
            "The specified location constraint is not valid",
            "the bucket is not in the region us-east-1",
            "This service is not available in region us-east-1",
            "no bucket of this name is in region us-east-1",
            "the requests of region us-east-1 are refused",
            "Credential should be scoped to a valid region, not 'wrong-region'.",
            "Access to backups in eu-region-1 is denied",
            "expecting 'text-plain'",
        ] {
            assert_eq!(expected_region(message), None, "{message}");
        }
    }
}
