//! The 64-bit FNV-1a hash (<http://www.isthe.com/chongo/tech/comp/fnv/>), for names that must stay the same.
//!
//! The standard library's hasher may change with any release.

/// Hash of no bytes.
pub const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Continues a hash with more bytes.
#[must_use]
pub const fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(PRIME);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_the_published_vectors() {
        for (text, hash) in [("", FNV_OFFSET_BASIS), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
            assert_eq!(fnv1a(FNV_OFFSET_BASIS, text.as_bytes()), hash, "{text}");
        }
        let parts = fnv1a(fnv1a(FNV_OFFSET_BASIS, b"foo"), b"bar");
        assert_eq!(parts, fnv1a(FNV_OFFSET_BASIS, b"foobar"));
    }
}
