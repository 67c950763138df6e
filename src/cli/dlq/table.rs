//! Tables that fit a terminal: the last column gets the rest of the line and is cut there.

use std::time::Duration;

use crate::cli::dlq::pager;
use crate::core::delay::format_duration;
use crate::core::harmless::on_one_line;
use crate::core::time::Timestamp;

/// Spaces between columns. If stdout is not a terminal, nothing is cut.
const GAP: usize = 2;

/// Rows under a head, each column as wide as its widest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// With this head; `right` lists the right-aligned columns.
    pub fn new(head: &[&str], right: &[usize]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()], right: right.to_vec() }
    }

    /// Adds a row. Text from others must neither break a line nor colour a terminal.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| on_one_line(cell)).collect());
    }

    /// As text, for the terminal on stdout.
    pub fn to_text(&self) -> String {
        self.to_text_of(pager::width())
    }

    fn to_text_of(&self, width: Option<usize>) -> String {
        let columns = self.rows[0].len();
        let widest = |column: usize| self.rows.iter().map(|row| chars(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - chars(cell));
                if column > 0 {
                    line.push_str(&" ".repeat(GAP));
                }
                if self.right.contains(&column) {
                    line.push_str(&pad);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&pad);
                }
            }
            let line = line.trim_end();
            text.push_str(&width.map_or_else(|| line.to_owned(), |width| cut(line, width)));
            text.push('\n');
        }
        text
    }
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// At most `most` characters, with `…` where it was cut.
pub fn cut(text: &str, most: usize) -> String {
    if chars(text) <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// How long ago, in one or two units: `17s`, `3m`, `2h5m`, `9d`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    let whole = match seconds {
        0..60 => seconds,
        60..3_600 => seconds / 60 * 60,
        3_600..86_400 => seconds / 300 * 300,
        _ => seconds / 3_600 * 3_600,
    };
    if seconds >= 10 * 86_400 {
        return format!("{}d", seconds / 86_400);
    }
    format_duration(Duration::from_secs(whole))
}

/// A dash for an absent text.
pub fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// Bytes as text if they are text (without NUL); otherwise in base64, marked as such.
pub fn shown(bytes: Option<&[u8]>) -> String {
    use base64::Engine as _;
    match bytes {
        None => "-".to_owned(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            // Harmful characters are escaped when it is printed.
            Ok(text) if !text.contains('\0') => text.to_owned(),
            _ => format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(bytes)),
        },
    }
}

/// A number with thousands separators: `40,000`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 group`, `40,000 groups`
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_one_another_and_lines_end_at_the_edge() {
        let mut table = Table::new(&["ID", "N", "MESSAGE"], &[1]);
        table.row(vec!["0/1".into(), "7".into(), "short".into()]);
        table.row(vec!["11/1042".into(), "12345".into(), "a long\nmessage that goes on".into()]);
        assert_eq!(
            table.to_text_of(None),
            "ID           N  MESSAGE\n0/1          7  short\n11/1042  12345  a long message that goes on\n"
        );
        assert_eq!(table.to_text_of(Some(22)).lines().last(), Some("11/1042  12345  a lon…"));
    }

    #[test]
    fn times_and_numbers_are_short() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        for (seconds, text) in [(5, "5s"), (200, "3m"), (7_500, "2h5m"), (90_000, "1d1h"), (2_000_000, "23d")] {
            assert_eq!(ago(at(0), at(seconds)), text);
        }
        assert_eq!([counted(1, "group"), counted(0, "group"), counted(1_000, "group")], ["1 group", "0 groups", "1,000 groups"]);
        assert_eq!([thousands(7), thousands(1_000), thousands(1_234_567)], ["7", "1,000", "1,234,567"]);
    }
}
