//! Makes text from others harmless: what records, brokers, handlers and other clients wrote must neither control a terminal nor pass
//! for one of kladder's own lines.
//!
//! Harmful are characters that a terminal obeys or that change how other text is displayed: control characters (C0, DEL, and C1,
//! which many terminals treat like ESC sequences), bidirectional controls, and line breaks of other systems. They are shown as
//! `\x1b` or `\u{202e}`.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// Whether a character must not reach a terminal unescaped.
#[must_use]
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

/// Foreign text within one of kladder's lines: line breaks and tabs become spaces, harmful characters are escaped.
#[derive(Debug, Clone, Copy)]
pub struct OneLine<'a>(pub &'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, self.0, |c| matches!(c, '\t'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}').then_some(' '))
    }
}

/// The same as a string.
#[must_use]
pub fn on_one_line(text: &str) -> String {
    OneLine(text).to_string()
}

/// Text of several lines: line breaks and tabs stay; other harmful characters are escaped. A `\r` before the end of a line is part
/// of it.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    kept(text, |c| matches!(c, '\n' | '\t'))
}

/// A text with its further lines indented, unless they are already.
#[must_use]
pub fn set_in(text: &str) -> Cow<'_, str> {
    if !text.contains('\n') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
            if !line.is_empty() && !line.starts_with(' ') {
                out.push_str("  ");
            }
        }
        out.push_str(line);
    }
    Cow::Owned(out)
}

/// Lines of a text coloured by kladder: colours stay (`ESC [ … m`), other sequences are escaped.
#[must_use]
pub fn coloured_lines(text: &str) -> Cow<'_, str> {
    if !text.contains('\x1b') {
        return lines(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        out.push_str(&lines(&rest[..at]));
        rest = &rest[at..];
        let inside = rest[1..]
            .strip_prefix('[')
            .map_or(0, |inside| inside.len() - inside.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').len());
        let end = 2 + inside;
        if rest[1..].starts_with('[') && rest[end..].starts_with('m') {
            out.push_str(&rest[..=end]);
            rest = &rest[end + 1..];
        } else {
            out.push_str("\\x1b");
            rest = &rest[1..];
        }
    }
    out.push_str(&lines(rest));
    Cow::Owned(out)
}

/// JSON, in which harmful characters can occur only within strings: there they become `\u009b`, which means the
/// same.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    let is_left = |c| matches!(c, '\n' | '\r' | '\t');
    if !text.chars().any(|c| is_harmful(c) && !is_left(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) && !is_left(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn kept(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_harmful(c) && !stays(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let text = if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "\n")) } else { Cow::Borrowed(text) };
    let _ = write_all(&mut out, &text, |c| stays(c).then_some(c));
    Cow::Owned(out)
}

/// Writes a text with harmful characters escaped or replaced.
fn write_all(out: &mut impl Write, text: &str, instead: impl Fn(char) -> Option<char>) -> fmt::Result {
    for c in text.chars() {
        match (is_harmful(c), instead(c)) {
            (false, _) => out.write_char(c)?,
            (true, Some(other)) => out.write_char(other)?,
            (true, None) if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c))?,
            (true, None) => write!(out, "\\u{{{:x}}}", u32::from(c))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sets the title, clears the screen with C1, writes backwards, and forges a line.
    const HOSTILE: &str = "a\x1b]0;title\x07b\u{9b}2Jc\u{202e}d\r\nerror: forged\te\u{2028}f\u{85}g\0";

    #[test]
    fn what_a_terminal_would_obey_is_shown_as_what_it_is() {
        assert_eq!(on_one_line(HOSTILE), "a\\x1b]0;title\\x07b\\u{9b}2Jc\\u{202e}d  error: forged e f g\\x00");
        assert_eq!(lines(HOSTILE), "a\\x1b]0;title\\x07b\\u{9b}2Jc\\u{202e}d\nerror: forged\te\\u{2028}f\\u{85}g\\x00");
        for harmless in ["", "plain", "Grüße, 你好 🦀 👩‍👩‍👧", "a\nb\tc"] {
            assert!(matches!(lines(harmless), Cow::Borrowed(text) if text == harmless));
        }
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let text = serde_json::to_string_pretty(&[HOSTILE, "\u{7f}", "ü🦀"]).unwrap();
        let escaped = json(&text);
        assert!(!escaped.chars().any(|c| is_harmful(c) && c != '\n'), "{escaped}");
        assert!(escaped.contains("\\u009b2J") && escaped.contains("ü🦀"), "{escaped}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), [HOSTILE, "\u{7f}", "ü🦀"]);
    }

    #[test]
    fn lines_that_follow_are_set_in() {
        assert_eq!(set_in("one"), "one");
        assert_eq!(
            set_in("error: said\nerror: forged\n    remedy\n\nend\n"),
            "error: said\n  error: forged\n    remedy\n\n  end\n"
        );
    }

    #[test]
    fn colours_stay_and_nothing_else_does() {
        assert_eq!(coloured_lines("\x1b[1;32mok\x1b[0m\n"), "\x1b[1;32mok\x1b[0m\n");
        assert_eq!(coloured_lines("\x1b[2J \x1b[31"), "\\x1b[2J \\x1b[31");
        assert_eq!(coloured_lines("\x1b]0;x\x07\x1b"), "\\x1b]0;x\\x07\\x1b");
        assert_eq!(coloured_lines("\x1bm\x1b[m\u{9b}31m"), "\\x1bm\x1b[m\\u{9b}31m");
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text in any::<String>()) {
            prop_assert!(!on_one_line(&text).chars().any(is_harmful));
            prop_assert!(!lines(&text).chars().any(|c| is_harmful(c) && c != '\n' && c != '\t'));
            let document = serde_json::to_string(&text).unwrap();
            prop_assert!(!json(&document).chars().any(is_harmful));
            prop_assert_eq!(serde_json::from_str::<String>(&json(&document)).unwrap(), text);
        }
    }
}
