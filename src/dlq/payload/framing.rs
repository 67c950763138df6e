//! The frame that Confluent's serializers put before a body.
//!
//! Source: Confluent's documentation of its wire format. Byte 0 is zero, bytes 1 to 4 are the schema's id, big-endian. For Protobuf
//! the way to the message follows: how many indexes, then each of them, as zigzag varints; a single zero stands for `[0]`.

/// Deeper than anybody nests messages.
const MOST_INDEXES: usize = 64;
const ID_ENDS: usize = 5;

/// The schema's id, and what follows it; `None` where no frame begins.
pub fn split(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_at_checked(ID_ENDS)?;
    match head {
        [0, id @ ..] => Some((u32::from_be_bytes(id.try_into().ok()?), rest)),
        _ => None,
    }
}

/// The way to a Protobuf message within its file, and the body; `None` where it makes no sense.
pub fn message_indexes(bytes: &[u8]) -> Option<(Vec<usize>, &[u8])> {
    let mut rest = bytes;
    let count = usize::try_from(zigzag(&mut rest)?).ok()?;
    if count == 0 {
        return Some((vec![0], rest));
    }
    if count > MOST_INDEXES {
        return None;
    }
    let indexes: Option<Vec<usize>> = (0..count).map(|_| usize::try_from(zigzag(&mut rest)?).ok()).collect();
    Some((indexes?, rest))
}

/// Reads a zigzag varint of up to 64 bits: also Avro's `long`.
pub fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // Of the tenth byte only one bit is left.
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// Writes a zigzag varint.
pub fn put_zigzag(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).expect("7 bits") | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("7 bits"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_is_read_big_endian_behind_the_magic_byte() {
        assert_eq!(split(&[0, 0, 0, 1, 2, 9]), Some((258, &[9][..])));
        assert_eq!(split(&[0, 255, 255, 255, 255]), Some((u32::MAX, &[][..])));
        assert_eq!(split(&[1, 0, 0, 1, 2, 9]), None);
        assert_eq!(split(&[0, 0, 0, 1]), None);
        assert_eq!(split(b""), None);
    }

    #[test]
    fn the_way_to_a_message_is_read_in_both_forms() {
        assert_eq!(message_indexes(&[0, 7]), Some((vec![0], &[7][..])));
        assert_eq!(message_indexes(&[2, 2, 7]), Some((vec![1], &[7][..])));
        assert_eq!(message_indexes(&[4, 2, 0]), Some((vec![1, 0], &[][..])));
        assert_eq!(message_indexes(&[2, 0]), Some((vec![0], &[][..])));
        for broken in [&[][..], &[1], &[2], &[2, 1], &[0xff; 12]] {
            assert_eq!(message_indexes(broken), None, "{broken:?}");
        }
        let mut many = Vec::new();
        put_zigzag(1 << 40, &mut many);
        assert_eq!(message_indexes(&many), None);
    }

    #[test]
    fn zigzag_varints_are_those_of_the_avro_specification() {
        for (value, bytes) in [(0, &[0][..]), (-1, &[1]), (1, &[2]), (-64, &[0x7f]), (64, &[0x80, 1])] {
            let mut out = Vec::new();
            put_zigzag(value, &mut out);
            assert_eq!(out, bytes);
        }
    }

    proptest! {
        #[test]
        fn zigzag_varints_come_back(value in any::<i64>()) {
            let mut out = Vec::new();
            put_zigzag(value, &mut out);
            let mut rest = &out[..];
            prop_assert_eq!(zigzag(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
