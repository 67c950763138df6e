//! Mistakes in a configuration, collected so that all of them are reported at once.

use std::fmt;

use thiserror::Error;

use crate::config::path::Path;

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Mistake {
    /// The path: `ladder.billing.tiers[1]`; empty if the file is not TOML.
    pub path: String,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// The value as written; values that may be secret are left out.
    pub value: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.path)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, "\n    {}", self.what.replace('\n', "\n    "))?;
        if let Some(hint) = &self.hint {
            write!(f, "\n    hint: {hint}")?;
        }
        Ok(())
    }
}

/// All mistakes of a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigErrors(pub Vec<Mistake>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "  {}", mistake.to_string().replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

/// Collects mistakes; only the first one at a path counts, since others mostly follow from it.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<(Path, String, Option<String>)>);

impl Mistakes {
    /// Adds a mistake.
    pub fn note(&mut self, path: &Path, what: impl Into<String>, hint: Option<String>) {
        if !self.0.iter().any(|(noted, ..)| noted == path) {
            self.0.push((path.clone(), what.into(), hint));
        }
    }

    /// Adds that a key is missing, unless it exists and was refused before.
    pub fn note_missing(&mut self, path: &Path, hint: &str) {
        if !self.touches(path) {
            self.note(path, "is missing", Some(hint.to_owned()));
        }
    }

    /// Whether there is a mistake at, above or below this path.
    pub fn touches(&self, path: &Path) -> bool {
        let path = path.dotted();
        let holds = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.0.iter().any(|(noted, ..)| {
            let noted = noted.dotted();
            holds(&noted, &path) || holds(&path, &noted)
        })
    }

    /// Whether there are no mistakes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each with its path, what is wrong and what to do.
    pub fn into_notes(self) -> Vec<(Path, String, Option<String>)> {
        self.0
    }
}
