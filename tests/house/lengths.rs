//! No file has more than 500 lines, tests not counted.

use std::fs;

use crate::circles::own_lines;
use crate::{assert_none, files, shown};

/// More lines than a file may have.
const LONGEST: usize = 500;

fn is_too_long(text: &str) -> bool {
    own_lines(text).0.len() > LONGEST
}

#[test]
fn files_are_short() {
    let mut faults = Vec::new();
    for path in files("src", ".rs") {
        let name = shown(&path);
        // Tests are read one by one.
        if name.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        if is_too_long(&text) {
            faults.push(format!("{name} has more than {LONGEST} lines without tests: split it by what it is about"));
        }
    }
    assert_none(&faults);
}

#[test]
fn only_lines_of_tests_are_not_counted() {
    let lines = |count: usize| "let x = 1;\n".repeat(count);
    assert!(!is_too_long(&lines(500)) && is_too_long(&lines(501)));
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(100).replace("let", "    let"));
    assert!(!is_too_long(&(lines(500) + &tests)) && is_too_long(&(lines(501) + &tests)));
}
