//! The changes of a letter as text.

use std::fmt::Write as _;

use similar::{ChangeTag, TextDiff};

use crate::cli::dlq::decoded::decode;
use crate::core::harmless::on_one_line;

/// The changed lines with context.
pub fn diff(before: &[u8], after: &[u8]) -> String {
    let lines = |bytes: &[u8]| {
        let decoded = decode(Some(bytes), usize::MAX).text;
        if decoded.ends_with('\n') { decoded } else { format!("{decoded}\n") }
    };
    let (before, after) = (lines(before), lines(after));
    let diff = TextDiff::from_lines(&before, &after);
    let mut text = String::new();
    for group in diff.grouped_ops(2) {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            let line = change.value().trim_end_matches('\n');
            let _ = writeln!(text, "{sign} {}", on_one_line(line));
        }
    }
    text
}
