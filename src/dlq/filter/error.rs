//! A filter that cannot be parsed, printed with the mistake and its place.

use std::fmt;

use thiserror::Error;

/// A filter that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct FilterError {
    /// Column of the mistake, in characters from 1.
    pub column: usize,
    /// The mistake.
    pub message: String,
    pub(super) text: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        write!(f, "{}\n  {shown}\n  {:>width$}", self.message, '^', width = self.column)
    }
}
