//! Records that are hard to transport, and how often the handler refuses each.

use super::raw::{Headers, NewRecord};

/// The header that identifies a record for the tests, whatever kladder writes or drops.
pub const ID: &str = "x-id";

/// The number in a record's id.
pub fn number_of(id: &str) -> Option<usize> {
    id.strip_prefix("r-")?.parse().ok()
}

/// A plain record: key and value are text, the only header is its id.
pub fn plain(number: usize, partitions: i32) -> NewRecord {
    NewRecord {
        partition: partition(number, partitions),
        key: Some(format!("key-{number}").into_bytes()),
        value: Some(format!("{{\"order\":{number}}}").into_bytes()),
        headers: vec![(ID.into(), Some(format!("r-{number}").into_bytes()))],
    }
}

/// A plain record with an incompressible value of this size.
pub fn incompressible(number: usize, partition: i32, size: usize) -> NewRecord {
    let mut state = u64::try_from(number).expect("a small number") | 0x9E37_79B9_0000_0000;
    let value = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    NewRecord { partition, value: Some(value.take(size).collect()), ..plain(number, 1) }
}

/// A record with an unusual key, value and headers; the oddities come in all combinations.
pub fn hostile(number: usize, partitions: i32, ladder: &str) -> NewRecord {
    let mut headers = odd_headers(number % 8, ladder);
    // In the middle, so that the headers before and after it must keep their places.
    headers.insert(headers.len() / 2, (ID.into(), Some(format!("r-{number}").into_bytes())));
    NewRecord { partition: partition(number, partitions), key: odd_key(number), value: odd_value(number), headers }
}

fn partition(number: usize, partitions: i32) -> i32 {
    i32::try_from(number).expect("few records") % partitions
}

fn odd_key(number: usize) -> Option<Vec<u8>> {
    match number % 5 {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(vec![0, 0xff, 0xfe, b'\n', 0x80]),
        3 => Some(format!("Schlüssel {number}\r\nX-Injected: yes").into_bytes()),
        _ => Some(format!("key-{number}").into_bytes()),
    }
}

fn odd_value(number: usize) -> Option<Vec<u8>> {
    match number % 7 {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some((0..=255).collect()),
        3 => Some(vec![0xc3, 0x28, 0xff]),
        4 => Some(format!("{number} ").repeat(3000).into_bytes()),
        _ => Some(format!("{{\"order\":{number}}}").into_bytes()),
    }
}

fn odd_headers(kind: usize, ladder: &str) -> Headers {
    let some = |value: &[u8]| Some(value.to_vec());
    let named = |name: &[u8], value| (name.to_vec(), value);
    match kind {
        0 => Vec::new(),
        1 => vec![
            named(b"twice", some(b"a")),
            named(b"other", some(b"b")),
            named(b"twice", some(b"c")),
            named(b"twice", some(b"a")),
        ],
        2 => vec![named(b"null", None), named(b"empty", some(b"")), named(b"null", some(b"")), named(b"null", None)],
        3 => vec![named(b"\xff\xfe\x80", some(&[0, 1, 0xff])), named(b"na\xc3me", None), named(b"", some(b"no name"))],
        4 => vec![
            // What a service copies from a received record to a produced one.
            named(b"kladder-ladder", Some(ladder.as_bytes().to_vec())),
            named(b"kladder-v", some(b"1")),
            named(b"kladder-attempts", some(b"3")),
            named(b"kladder-id", some(b"stolen")),
            named(b"kladder-reason", some(b"rejected")),
            named(b"kladder-future-name", None),
        ],
        5 => (0..100).map(|i| named(format!("many-{}", i % 40).as_bytes(), some(&[i]))).collect(),
        6 => vec![
            named(b"x y\r\nX-Injected", some(b"yes")),
            named(b"line", some(b"a\r\nX-Injected: yes")),
            named(b"content-length", some(b"0")),
            named(b"Kladder-Attempt", some(b"77")),
            named("größe".as_bytes(), some("∞".as_bytes())),
        ],
        _ => vec![named(b"binary", Some((0..=255).collect())), named(b"long", Some(vec![b'l'; 4000]))],
    }
}
