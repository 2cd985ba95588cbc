//! Names made of a digest, and checksums.

use sha2::{Digest as _, Sha256};

/// Returns the first bytes of the SHA-256 of a content, at most 32, in hexadecimal digits.
#[must_use]
pub fn sha256_hex(content: impl AsRef<[u8]>, bytes: usize) -> String {
    Sha256::digest(content).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_that_of_the_published_vector() {
        // FIPS 180-2, appendix B.1.
        let whole = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex("abc", 32), whole);
        assert_eq!(sha256_hex("abc", 6), whole[..12]);
    }
}
