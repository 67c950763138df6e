//! Payloads for people: JSON, text, or bytes in hex.

use std::fmt::Write as _;

use crate::dlq::payload::Decoder;

/// More of a payload is not shown, unless asked for, in bytes.
pub const SHOWN: usize = 16 * 1024;

/// What a payload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// `null`, `json`, `text` or `hex`.
    pub format: &'static str,
    /// As it is shown.
    pub text: String,
}

/// Reads a payload as well as it can be.
pub fn decode(bytes: Option<&[u8]>, most: usize) -> Decoded {
    let Some(bytes) = bytes else { return Decoded { format: "null", text: "(null)".to_owned() } };
    let Ok(text) = std::str::from_utf8(bytes) else { return hex(bytes, most) };
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return hex(bytes, most);
    }
    let is_document = text.trim_start().starts_with(['{', '[']);
    if is_document && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Decoded { format: "json", text: cut(indented(text), most) };
    }
    Decoded { format: "text", text: cut(text.to_owned(), most) }
}

/// The same of a payload that may name a schema: what it is, and what a person should know of it.
pub fn decode_by(decoder: &mut Decoder, bytes: Option<&[u8]>, most: usize) -> (String, String) {
    let decoded = decoder.decode(bytes);
    let note = decoded.note.as_deref().map(|note| format!("\nnote: {note}")).unwrap_or_default();
    match &decoded.schema {
        Some(schema) if decoded.json.is_some() => {
            (format!("{}, {schema}", decoded.format), format!("{}{note}", cut(decoded.text, most)))
        }
        // What has no schema is shown as it is written, numbers too.
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
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}\n… {} more bytes: --full", &text[..end], text.len() - end)
}

/// JSON over several lines. Its numbers and strings stay as they were written: what goes through a parser may change a number.
pub fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut chars = json.chars().filter(|_| true).peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// 16 bytes a line: where, in hex, and as ASCII where they are some.
fn hex(bytes: &[u8], most: usize) -> Decoded {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(16).take(most.div_ceil(64).max(1)).enumerate() {
        let _ = write!(text, "{:08x} ", line * 16);
        for column in 0..16 {
            let gap = if column == 8 { "  " } else { " " };
            match chunk.get(column) {
                Some(byte) => {
                    let _ = write!(text, "{gap}{byte:02x}");
                }
                None => {
                    let _ = write!(text, "{gap}  ");
                }
            }
        }
        let ascii: String = chunk.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' }).collect();
        let _ = writeln!(text, "  |{ascii}|");
    }
    let shown = (most.div_ceil(64).max(1) * 16).min(bytes.len());
    if shown < bytes.len() {
        let _ = writeln!(text, "… {} more bytes: --full", bytes.len() - shown);
    }
    Decoded { format: "hex", text: text.trim_end().to_owned() }
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
        let hex = of(&[0, 1, b'a', 0xff]);
        assert_eq!(hex.format, "hex");
        assert_eq!(hex.text, "00000000  00 01 61 ff                                       |..a.|");
        assert!(decode(Some(&[b'x'; 100]), 10).text.ends_with("… 90 more bytes: --full"));
    }
}
