//! JSON text: pretty-printed without loss, and what would be lost in converting it to values.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

/// A parsed JSON text.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonText {
    /// Its value.
    pub value: Value,
    /// Pretty-printed; the order of keys, duplicate keys and the spelling of numbers are preserved.
    pub pretty: String,
    /// What the value does not contain.
    pub loss: Option<String>,
}

/// May precede JSON and is not part of it.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// Parses JSON; `None` if the bytes are not JSON (or nested deeper than 128 levels).
pub fn read(bytes: &[u8]) -> Option<JsonText> {
    // Some editors and serialisers write a byte order mark, which parsers may ignore (RFC 8259, 8.1).
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let value = serde_json::from_str(text).ok()?;
    let mut layout = Layout { source: text, at: 0, out: String::new(), open: Vec::new(), key_is_next: false, loss: None };
    layout.run();
    Some(JsonText { value, pretty: layout.out, loss: layout.loss })
}

/// A pretty-printed value.
pub fn pretty(value: &Value) -> String {
    without_controls(&format!("{value:#}"))
}

/// Terminals obey control characters: those allowed unescaped in JSON strings are escaped.
fn without_controls(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_control() && char != '\n' {
            // Writing into a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(char));
        } else {
            out.push(char);
        }
    }
    out
}

/// Walks over valid JSON text.
struct Layout<'a> {
    source: &'a str,
    at: usize,
    out: String,
    /// The enclosing containers; for an object the keys so far.
    open: Vec<Option<BTreeSet<String>>>,
    key_is_next: bool,
    loss: Option<String>,
}

impl Layout<'_> {
    fn run(&mut self) {
        while let Some(&byte) = self.source.as_bytes().get(self.at) {
            match byte {
                b'{' | b'[' => self.opening(byte),
                b'}' | b']' => {
                    self.open.pop();
                    self.new_line();
                    self.take(1);
                }
                b',' => {
                    self.take(1);
                    self.new_line();
                    self.key_is_next = matches!(self.open.last(), Some(Some(_)));
                }
                b':' => {
                    self.take(1);
                    self.out.push(' ');
                    self.key_is_next = false;
                }
                b'"' => self.string(),
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => self.scalar(),
            }
        }
    }

    fn take(&mut self, bytes: usize) {
        self.out.push_str(&self.source[self.at..self.at + bytes]);
        self.at += bytes;
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", self.open.len()));
    }

    fn opening(&mut self, byte: u8) {
        self.take(1);
        let inside = self.source[self.at..].trim_start();
        if inside.starts_with(['}', ']']) {
            self.at = self.source.len() - inside.len();
            self.take(1);
            return;
        }
        let is_object = byte == b'{';
        self.open.push(is_object.then(BTreeSet::new));
        self.key_is_next = is_object;
        self.new_line();
    }

    fn string(&mut self) {
        let mut escaped = false;
        let length = self.source.as_bytes()[self.at + 1..]
            .iter()
            .position(|&byte| {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends
            })
            .map_or(self.source.len() - self.at, |inside| inside + 2);
        let token = &self.source[self.at..self.at + length];
        if self.key_is_next
            && let Some(Some(keys)) = self.open.last_mut()
            && !keys.insert(serde_json::from_str(token).unwrap_or_else(|_| token.to_owned()))
        {
            self.loss.get_or_insert_with(|| format!("duplicate key {} in an object", without_controls(token)));
        }
        self.out.push_str(&without_controls(token));
        self.at += length;
    }

    fn scalar(&mut self) {
        let rest = &self.source[self.at..];
        let length = rest.find([',', '}', ']', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        let token = &rest[..length];
        if token.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && !is_kept(token) {
            self.loss.get_or_insert_with(|| format!("the number {token} has too many digits to be kept exactly"));
        }
        self.take(length);
    }
}

/// Whether a number keeps its value as an `i64`, a `u64` or an `f64`.
fn is_kept(number: &str) -> bool {
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return true;
    }
    // If two shortest numbers denote one double, writers choose either, and serde_json chooses differently from the
    // standard library.
    let is_written = |float: f64| {
        let written = serde_json::to_string(&float).unwrap_or_default();
        [format!("{float:e}"), written].iter().any(|text| digits(text) == digits(number))
    };
    number.parse::<f64>().is_ok_and(|float| float.is_finite() && is_written(float))
}

/// The significant digits of a decimal number, and the power of ten of the last one.
fn digits(number: &str) -> (String, i64) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{}{part}", whole.trim_start_matches('-'));
    let kept = all.trim_end_matches('0');
    let dropped = i64::try_from(all.len() - kept.len()).unwrap_or(i64::MAX);
    let kept = kept.trim_start_matches('0');
    if kept.is_empty() {
        return (String::new(), 0);
    }
    // A number with such an exponent is out of range for a double too.
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX);
    let power = exponent.saturating_sub(i64::try_from(part.len()).unwrap_or(i64::MAX)).saturating_add(dropped);
    (kept.to_owned(), power)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_laid_out_in_its_own_order_and_spelling() {
        let read = read(br#" {"b":[1.50,{ }, [] ,"a\"}"],"a":{"x":-1E+2,"y":null} } "#).unwrap();
        assert_eq!(
            read.pretty,
            "{\n  \"b\": [\n    1.50,\n    {},\n    [],\n    \"a\\\"}\"\n  ],\n  \"a\": {\n    \"x\": -1E+2,\n    \"y\": null\n  }\n}"
        );
        assert_eq!((read.value, read.loss), (json!({"a": {"x": -100.0, "y": null}, "b": [1.5, {}, [], "a\"}"]}), None));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let read = read("\"a\u{7f}\u{9b}31m\"".as_bytes()).unwrap();
        assert_eq!(read.pretty, r#""a\u007f\u009b31m""#);
        assert_eq!(pretty(&read.value), r#""a\u007f\u009b31m""#);
    }

    #[test]
    fn what_a_value_cannot_hold_is_named() {
        let loss = |text: &str| read(text.as_bytes()).unwrap().loss;
        for kept in [
            "0.1",
            "1e2",
            "100.00",
            "-0",
            "0.0",
            "18446744073709551615",
            "-9223372036854775808",
            "1e300",
            "1000e18",
            "5e-324",
            "199552633742962.62",
            "199552633742962.63",
        ] {
            assert_eq!(loss(kept), None, "{kept}");
        }
        for lost in ["18446744073709551617", "0.12345678901234567891", "-9223372036854775809", "1e-400"] {
            assert!(loss(&format!("[{lost}]")).unwrap().contains(lost), "{lost}");
        }
        assert_eq!(loss(r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":2}]}"#), None);
        assert!(loss("{\"a\":1,\"\\u0061\":2}").unwrap().contains("duplicate key"));
    }

    #[test]
    fn what_is_no_json_is_not_read() {
        for text in ["", "{", "abc", "{\"a\":1} x", "1\u{feff}", "\u{feff}"] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read(b"\"\xff\""), None);
    }

    #[test]
    fn a_byte_order_mark_is_no_mistake() {
        let read = read("\u{feff}{\"a\":1}".as_bytes()).unwrap();
        assert_eq!((read.value, read.pretty.as_str(), read.loss), (json!({ "a": 1 }), "{\n  \"a\": 1\n}", None));
    }

    proptest! {
        #[test]
        fn every_double_is_kept(float in any::<f64>().prop_filter("a number", |f| f.is_finite())) {
            let text = serde_json::to_string(&float).unwrap();
            prop_assert!(is_kept(&text), "{}", text);
            prop_assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), float.to_bits());
        }

        #[test]
        fn the_layout_of_a_value_means_the_value(words in proptest::collection::vec(".*", 0..5), number in any::<i64>()) {
            let value = json!({ "words": words, "deep": [[number, {}], { "\u{9b}": [] }] });
            let read = read(value.to_string().as_bytes()).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&read.pretty).unwrap(), value);
        }
    }
}
