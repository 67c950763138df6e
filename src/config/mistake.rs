//! Mistakes in a configuration, collected so that all of them are told at once.

use std::fmt;

use thiserror::Error;

use crate::config::document::Document;
use crate::config::path::Path;

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Mistake {
    /// Where: `ladder.billing.tiers[1]`; empty for a file that is no TOML.
    pub path: String,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// What stands there, as it was written; what may be a secret is not shown.
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

/// Collects mistakes; of those at one place only the first counts, the others mostly follow from it.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<(Path, String, Option<String>)>);

impl Mistakes {
    /// Notes a mistake.
    pub fn note(&mut self, path: &Path, what: impl Into<String>, hint: Option<String>) {
        if !self.0.iter().any(|(noted, ..)| noted == path) {
            self.0.push((path.clone(), what.into(), hint));
        }
    }

    /// Notes that something is missing, unless it is there and was refused before.
    pub fn note_missing(&mut self, path: &Path, hint: &str) {
        if !self.touches(path) {
            self.note(path, "is missing", Some(hint.to_owned()));
        }
    }

    /// Whether a mistake was noted at this path, above it or below it.
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With lines and values, in the order of the file.
    pub(super) fn finish(self, document: &Document<'_>) -> ConfigErrors {
        let mut placed: Vec<_> = self.0.into_iter().map(|mistake| (document.offset(&mistake.0), mistake)).collect();
        // What has no place is missing altogether: first, since the rest may follow from it.
        placed.sort_by_key(|(offset, _)| *offset);
        let mistakes = placed.into_iter().map(|(offset, (path, what, hint))| Mistake {
            line: offset.map(|offset| document.line_at(offset)),
            value: document.shown_value(&path),
            path: path.to_string(),
            what,
            hint,
        });
        ConfigErrors(mistakes.collect())
    }
}
