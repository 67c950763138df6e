//! Groups dead letters: the same error class and reason, and the same message except for numbers, ids, hex and quoted values.
//!
//! The rest of the message is its *shape*. It is computed in one pass without a regular expression, since every dead letter
//! goes through it.

use crate::core::fnv::{OFFSET, fnv};

/// Only the beginning of a message counts, in bytes.
const SHAPE_LIMIT: usize = 300;

/// Replaces the removed parts.
const GAP: char = '…';

/// A message without the parts that vary between letters.
#[must_use]
pub fn shape(message: &str) -> String {
    let mut out = String::with_capacity(message.len().min(SHAPE_LIMIT));
    let mut rest = message;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        if out.len() >= SHAPE_LIMIT {
            break;
        }
        // An apostrophe inside a word is not an opening quote.
        if matches!(first, '"' | '\'' | '`')
            && !before.is_alphanumeric()
            && let Some(end) = rest[1..].find(first).filter(|end| is_quote(&rest[1..], *end, first))
        {
            gap(&mut out);
            before = first;
            rest = &rest[end + 2..];
            continue;
        }
        if first.is_alphanumeric() {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            word_shape(word, &mut out);
            before = word.chars().next_back().unwrap_or(' ');
            rest = after;
            continue;
        }
        // `30.5`, `10.0.0.7:9092`.
        if matches!(first, '.' | ':' | ',') && out.ends_with(GAP) && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            before = first;
            rest = &rest[1..];
            continue;
        }
        let blank = first.is_whitespace() || first.is_control();
        if !blank {
            out.push(first);
        } else if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
        before = first;
        rest = &rest[first.len_utf8()..];
    }
    out.truncate(out.trim_end().len());
    out
}

/// Whether the quote that ends here closes a value: it is not followed by a letter, as in `don't`.
fn is_quote(text: &str, end: usize, quote: char) -> bool {
    !text[end + quote.len_utf8()..].chars().next().is_some_and(char::is_alphanumeric)
}

/// Words and parts of `dashed-words` stay, unless they contain a digit, or are long and all hex.
fn word_shape(word: &str, out: &mut String) {
    if !word.bytes().any(|b| b.is_ascii_digit()) && !is_hex(word) {
        out.push_str(word);
        return;
    }
    for (i, part) in word.split('-').enumerate() {
        let differs = part.bytes().any(|b| b.is_ascii_digit()) || is_hex(part);
        if i > 0 && !(differs && out.ends_with(GAP)) {
            out.push('-');
        }
        if differs { gap(out) } else { out.push_str(part) }
    }
}

fn is_hex(word: &str) -> bool {
    word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Several gaps in a row are merged: the length of a list of ids does not matter.
fn gap(out: &mut String) {
    if !out.ends_with(GAP) {
        out.push(GAP);
    }
}

/// The id of a group: 10 hex digits, the same everywhere (FNV-1a of class, reason and shape).
#[must_use]
pub fn group_id(class: &str, reason: &str, shape: &str) -> String {
    let parts = [class, "\0", reason, "\0", shape];
    format!("{:010x}", parts.iter().fold(OFFSET, |hash, part| fnv(hash, part.as_bytes())) >> 24)
}

/// A hash that is the same everywhere (FNV-1a).
#[must_use]
pub fn hash(bytes: &[u8]) -> i64 {
    fnv(OFFSET, bytes).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_letter_to_letter_is_taken_out() {
        for (message, expected) in [
            ("no account 4711", "no account …"),
            ("order 6f1c2ab0-77aa-4c1d-9a63-0123456789ab is gone", "order … is gone"),
            ("user 'anna' has no \"plan B\"", "user … has no …"),
            ("can't connect, isn't there", "can't connect, isn't there"),
            ("at 0xdeadbeef, trace deadbeefcafe", "at …, trace …"),
            ("timeout after 30.5s on 10.0.0.7:9092.", "timeout after … on …."),
            ("read-only", "read-only"),
            ("shard-17 of cluster-b", "shard-… of cluster-b"),
            ("  two\n lines\t", "two lines"),
            ("", ""),
        ] {
            assert_eq!(shape(message), expected, "{message}");
        }
    }

    #[test]
    fn messages_that_differ_by_values_alone_have_one_shape() {
        let of = |n: usize| shape(&format!("HTTP 503 from https://bank/accounts/{n}?trace={n:016x} after {}ms", n * 3));
        assert_eq!(of(17), of(98_231));
        assert_ne!(shape("no account"), shape("no bank"));
    }

    #[test]
    fn groups_have_one_name_everywhere() {
        assert_eq!(group_id("a.Timeout", "exhausted", "no …"), group_id("a.Timeout", "exhausted", "no …"));
        assert_ne!(group_id("a", "bc", ""), group_id("ab", "c", ""));
        assert_eq!(group_id("a", "b", "c").len(), 10);
    }

    proptest::proptest! {
        #[test]
        fn any_message_has_a_shape_that_is_bounded(message in ".{0,600}") {
            let made = shape(&message);
            proptest::prop_assert!(made.len() <= SHAPE_LIMIT + 600);
            proptest::prop_assert!(!made.bytes().any(|b| b.is_ascii_digit()));
        }
    }
}
