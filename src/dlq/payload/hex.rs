//! A hex dump in the format of `hexdump -C`.

use std::fmt::Write as _;

const BYTES_A_LINE: usize = 16;

/// Offset, 16 bytes in hex, the same in ASCII; one line per row, none for no bytes.
pub fn dump(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 5);
    for (row, line) in bytes.chunks(BYTES_A_LINE).enumerate() {
        // Writing into a string cannot fail.
        let _ = write!(text, "{:08x} ", row * BYTES_A_LINE);
        for column in 0..BYTES_A_LINE {
            let gap = if column == BYTES_A_LINE / 2 { " " } else { "" };
            let _ = match line.get(column) {
                Some(byte) => write!(text, "{gap} {byte:02x}"),
                None => write!(text, "{gap}   "),
            };
        }
        let shown = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' };
        let _ = writeln!(text, "  |{}|", line.iter().map(shown).collect::<String>());
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_offsets_bytes_and_ascii() {
        let bytes: Vec<u8> = (0x1a..0x2c).chain(*b"\x7fkladder\xff").collect();
        assert_eq!(
            dump(&bytes),
            "00000000  1a 1b 1c 1d 1e 1f 20 21  22 23 24 25 26 27 28 29  |...... !\"#$%&'()|\n\
             00000010  2a 2b 7f 6b 6c 61 64 64  65 72 ff                 |*+.kladder.|"
        );
        assert_eq!(dump(b""), "");
    }
}
