//! A path within the configuration file: `ladder.billing.tiers[1]`.

use std::fmt::{self, Write as _};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Into a table.
    Key(String),
    /// Into an array, counted from 0.
    Index(usize),
}

/// A path, as written in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<Segment>);

impl Path {
    /// The path of a top-level key.
    pub fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    /// Appends a key.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// Appends several keys.
    #[must_use]
    pub fn keys(&self, keys: &[&str]) -> Self {
        keys.iter().fold(self.clone(), |path, key| path.key(key))
    }

    /// Appends an array index.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// All steps.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The last key of the path.
    pub fn last_key(&self) -> &str {
        self.0.iter().rev().find_map(|s| if let Segment::Key(key) = s { Some(key.as_str()) } else { None }).unwrap_or("")
    }

    /// Without quotes, so that `"sasl.password"` and `[kafka.sasl] password` are the same.
    pub fn dotted(&self) -> String {
        self.write(false)
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    fn write(&self, quoted: bool) -> String {
        let mut text = String::new();
        for segment in &self.0 {
            let dot = if text.is_empty() { "" } else { "." };
            // Writing into a string cannot fail.
            let _ = match segment {
                Segment::Index(index) => write!(text, "[{index}]"),
                Segment::Key(key) if quoted && !is_bare(key) => write!(text, "{dot}{key:?}"),
                Segment::Key(key) => write!(text, "{dot}{key}"),
            };
        }
        text
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write(true))
    }
}

impl From<&serde_path_to_error::Path> for Path {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment as Theirs;
        Self(
            path.iter()
                .filter_map(|segment| match segment {
                    Theirs::Map { key } => Some(Segment::Key(key.clone())),
                    Theirs::Seq { index } => Some(Segment::Index(*index)),
                    Theirs::Enum { .. } | Theirs::Unknown => None,
                })
                .collect(),
        )
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_toml_writes_it() {
        let path = Path::of("kafka").key("sasl.password");
        assert_eq!(path.to_string(), r#"kafka."sasl.password""#);
        assert_eq!(path.dotted(), "kafka.sasl.password");
        assert_eq!(Path::of("ladder").keys(&["billing", "tiers"]).index(1).to_string(), "ladder.billing.tiers[1]");
    }
}
