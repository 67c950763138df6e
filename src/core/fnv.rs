//! A hash that is the same wherever and whenever it is made: FNV-1a, 64 bits
//! (<http://www.isthe.com/chongo/tech/comp/fnv/index.html>). Where nobody gains by a collision.

/// Of nothing yet.
pub const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with a hash by these bytes.
#[must_use]
pub fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_one() {
        assert_eq!(fnv(OFFSET, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(OFFSET, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
    }
}
