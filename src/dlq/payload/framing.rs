//! How a payload names its schema: by a frame before the body, or by a header.
//!
//! The frame follows Confluent's documentation of its wire format. Byte 0 is zero, bytes 1 to 4 are the schema id, big-endian. For
//! Protobuf the message indexes follow: their number, then each of them, as zigzag varints; a single zero stands for `[0]`.
//!
//! Headers: `__value_schema_id` and `__key_schema_id`, written by Confluent's `HeaderSchemaIdSerializer`, contain either that frame (byte 0
//! is zero) or a byte of one and the schema's GUID; for Protobuf followed by the message indexes. Apicurio's serializers write
//! `apicurio.value.contentId` or `globalId` (and `key`), a big-endian `long`. A payload with such a header has no frame, whatever its first
//! byte is.

use std::fmt;

use uuid::Uuid;

/// The identifier of a schema in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaName {
    /// Its id.
    Id(u32),
    /// Its GUID.
    Guid([u8; 16]),
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Guid(bytes) => write!(f, "{}", Uuid::from_bytes(*bytes)),
        }
    }
}

/// One of a record's two payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadPart {
    /// The key.
    Key,
    /// The value.
    Value,
}

/// What a header says about a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The schema.
    pub schema: SchemaName,
    /// The Protobuf message indexes, if given.
    pub indexes: Option<Vec<usize>>,
}

const MAGIC_ID: u8 = 0;
const MAGIC_GUID: u8 = 1;

/// What the headers of a record say about a payload's schema; of duplicate headers the last one
/// counts.
pub fn named(headers: &[(Vec<u8>, Option<Vec<u8>>)], part: PayloadPart) -> Option<Named> {
    let part = if part == PayloadPart::Key { "key" } else { "value" };
    let last = |name: String| {
        let found = headers.iter().rev().find(|(known, _)| *known == name.as_bytes());
        found.and_then(|(_, value)| value.as_deref())
    };
    let by_confluent = last(format!("__{part}_schema_id")).and_then(schema_of_header);
    let by_apicurio = || {
        let id = last(format!("apicurio.{part}.contentId")).or_else(|| last(format!("apicurio.{part}.globalId")))?;
        let id = u32::try_from(i64::from_be_bytes(id.try_into().ok()?)).ok()?;
        Some(Named { schema: SchemaName::Id(id), indexes: None })
    };
    by_confluent.or_else(by_apicurio)
}

fn schema_of_header(bytes: &[u8]) -> Option<Named> {
    let (magic, rest) = bytes.split_first()?;
    let (schema, rest) = match *magic {
        MAGIC_ID => {
            let (id, rest) = rest.split_first_chunk::<4>()?;
            (SchemaName::Id(u32::from_be_bytes(*id)), rest)
        }
        MAGIC_GUID => {
            let (guid, rest) = rest.split_first_chunk::<16>()?;
            (SchemaName::Guid(*guid), rest)
        }
        _ => return None,
    };
    let indexes = if rest.is_empty() { None } else { Some(message_indexes(rest)?.0) };
    Some(Named { schema, indexes })
}

/// More nesting than any real message has.
const MOST_INDEXES: usize = 64;
const ID_ENDS: usize = 5;

/// The schema id and the bytes after it; `None` if there is no frame.
pub fn split(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_at_checked(ID_ENDS)?;
    match head {
        [0, id @ ..] => Some((u32::from_be_bytes(id.try_into().ok()?), rest)),
        _ => None,
    }
}

/// The Protobuf message indexes, and the body; `None` if they are invalid.
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

/// Reads a zigzag varint of up to 64 bits, which is also Avro's `long`.
pub fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // Only one bit of the tenth byte is used.
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
#[cfg(any(feature = "schemas", test))]
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
    fn headers_name_a_schema_by_its_id_or_its_guid() {
        let guid: [u8; 16] = std::array::from_fn(|i| u8::try_from(i * 16 + 1).unwrap());
        let header = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), Some(value.to_vec()));
        let by = |headers: &[(Vec<u8>, Option<Vec<u8>>)]| named(headers, PayloadPart::Value);
        let by_guid = by(&[header("__value_schema_id", &[&[1][..], &guid].concat())]).unwrap();
        assert_eq!(by_guid, Named { schema: SchemaName::Guid(guid), indexes: None });
        assert_eq!(by_guid.schema.to_string(), "01112131-4151-6171-8191-a1b1c1d1e1f1");
        let with_way = by(&[header("__value_schema_id", &[&[1][..], &guid, &[2, 2]].concat())]).unwrap();
        assert_eq!(with_way.indexes, Some(vec![1]));
        let id = Some(Named { schema: SchemaName::Id(258), indexes: None });
        assert_eq!(by(&[header("__value_schema_id", &[0, 0, 0, 1, 2])]), id);
        assert_eq!(by(&[header("apicurio.value.contentId", &258_i64.to_be_bytes())]), id);
        assert_eq!(by(&[header("apicurio.value.globalId", &258_i64.to_be_bytes())]), id);
        assert_eq!(named(&[header("__key_schema_id", &[0, 0, 0, 1, 2])], PayloadPart::Key), id);
        for (name, value) in [
            ("__key_schema_id", &[0, 0, 0, 1, 2][..]),
            ("__value_schema_id", &[0, 0, 1, 2]),
            ("__value_schema_id", &[2, 0, 0, 1, 2]),
            ("__value_schema_id", b""),
            ("__value_schema_id", b"17"),
            ("apicurio.value.contentId", &(-1_i64).to_be_bytes()),
            ("apicurio.value.contentId", b"258"),
        ] {
            assert_eq!(by(&[header(name, value)]), None, "{name} {value:?}");
        }
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
