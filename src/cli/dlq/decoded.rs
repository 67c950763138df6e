//! Payloads as readable text: JSON, text, or a hex dump.

use std::fmt::Write as _;

use crate::core::envelope;
use crate::dlq::payload::json_text::{self, BYTE_ORDER_MARK};
use crate::dlq::payload::{Decoder, Named, hex};

/// Maximum size shown of a payload without --full, in bytes.
pub const SHOWN: usize = 16 * 1024;

/// A readable payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadablePayload {
    /// `null`, `json`, `text` or `hex`.
    pub format: &'static str,
    /// The text shown.
    pub text: String,
}

/// Chooses the most readable form of a payload.
pub fn decode(bytes: Option<&[u8]>, most: usize) -> ReadablePayload {
    let Some(bytes) = bytes else { return ReadablePayload { format: "null", text: "(null)".to_owned() } };
    let Ok(text) = std::str::from_utf8(bytes) else { return hex(bytes, most) };
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return hex(bytes, most);
    }
    if text.trim_start_matches(BYTE_ORDER_MARK).trim_start().starts_with(['{', '['])
        && let Some(json) = json_text::read(bytes)
    {
        return ReadablePayload { format: "json", text: cut(json.pretty, most) };
    }
    ReadablePayload { format: "text", text: cut(text.to_owned(), most) }
}

/// The same for a payload that may name a schema: its format with the schema, and its text with a
/// note if there is one.
pub fn decode_by(decoder: &mut Decoder, bytes: Option<&[u8]>, named: Option<&Named>, most: usize) -> (String, String) {
    let decoded = decoder.decode(bytes, named);
    let note = decoded.note.as_deref().map(|note| format!("\nnote: {note}")).unwrap_or_default();
    match &decoded.schema {
        Some(schema) if decoded.json.is_some() => {
            (format!("{}, {schema}", decoded.format), format!("{}{note}", cut(decoded.text, most)))
        }
        // Payloads without a schema are shown as written, numbers included.
        _ => {
            let plain = decode(bytes, most);
            (plain.format.to_owned(), format!("{}{note}", plain.text))
        }
    }
}

fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let shown = envelope::cut(&text, most);
    format!("{shown}\n… {} more bytes: --full", text.len() - shown.len())
}

fn hex(bytes: &[u8], most: usize) -> ReadablePayload {
    // A line for 16 bytes takes more than four times as many characters.
    let shown = (most.div_ceil(64).max(1) * 16).min(bytes.len());
    let mut text = hex::dump(&bytes[..shown]);
    if shown < bytes.len() {
        let _ = write!(text, "\n… {} more bytes: --full", bytes.len() - shown);
    }
    ReadablePayload { format: "hex", text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_shown_as_what_they_are() {
        let of = |bytes: &[u8]| decode(Some(bytes), SHOWN);
        assert_eq!(decode(None, SHOWN).format, "null");
        assert_eq!(of(b"").format, "text");
        assert_eq!(of(b"plain\ntext").text, "plain\ntext");
        assert_eq!(of(b"{broken").format, "text");
        let json = of(br#"{"a":[1,2.50],"b":{},"c":"x\",{y","n":12345678901234567890}"#);
        assert_eq!(json.format, "json");
        assert_eq!(
            json.text,
            "{\n  \"a\": [\n    1,\n    2.50\n  ],\n  \"b\": {},\n  \"c\": \"x\\\",{y\",\n  \"n\": 12345678901234567890\n}"
        );
        let marked = of(b"\xef\xbb\xbf{\"a\":1}");
        assert_eq!((marked.format, marked.text.as_str()), ("json", "{\n  \"a\": 1\n}"));
        let hex = of(&[0, 1, b'a', 0xff]);
        assert_eq!(hex.format, "hex");
        assert_eq!(hex.text, "00000000  00 01 61 ff                                       |..a.|");
        assert!(decode(Some(&[b'x'; 100]), 10).text.ends_with("… 90 more bytes: --full"));
    }
}
