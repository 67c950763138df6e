//! What may go wrong with a ladder, or does already, from what was seen of it: the checks of `kladder doctor`.
//!
//! Pure, and it mends nothing. Whether a setting serves is for the plan of `setup` to say, and only weighed here: what loses
//! records or stops workers is a *hazard*, the rest a *note*. What could not be looked at is *unchecked*, never fine.

mod examine;
mod groups;
mod render;
mod settings;

pub use examine::{Seen, examine};
pub use groups::own_groups;
pub use render::render;

use serde::Serialize;

/// What was found out about one ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The ladder's name.
    pub ladder: String,
    /// The group that it is configured for.
    pub group: String,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which check found it.
    pub check: Check,
    /// The topic, group or ladder.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// Why it matters, where the problem does not say so itself.
    pub why: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// How bad a finding is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Records are lost, early or stand still, or will be.
    Hazard,
    /// It could not be looked at.
    Unchecked,
    /// Worth knowing.
    Note,
}

/// The check that a finding comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// An application in relay that drops the headers.
    HeadersDropped,
    /// Whether the ladder is held.
    Held,
    /// Whether dead letters are held, since too many records would be.
    DlqBreaker,
    /// Whose the ladder is.
    Owner,
    /// What `setup` would refuse or make.
    Setup,
    /// The settings of the ladder's topics, and how many replicas they have.
    Settings,
    /// Who is in the groups.
    Members,
    /// Where the groups stand.
    Offsets,
    /// Records that should have been moved.
    Overdue,
}

impl Diagnosis {
    /// How many findings of this severity there are.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }
}

impl Finding {
    fn hazard(check: Check, subject: &str, problem: impl Into<String>, why: &str, remedy: impl Into<String>) -> Self {
        let (problem, remedy) = (problem.into(), Some(remedy.into()));
        Self { severity: Severity::Hazard, check, subject: subject.to_owned(), problem, why: Some(why.to_owned()), remedy }
    }

    fn note(check: Check, subject: &str, problem: impl Into<String>, remedy: Option<String>) -> Self {
        Self { severity: Severity::Note, check, subject: subject.to_owned(), problem: problem.into(), why: None, remedy }
    }

    /// Something that could not be looked at, and why not.
    #[must_use]
    pub fn unchecked(check: Check, subject: &str, what: &str, reason: &str) -> Self {
        Self {
            severity: Severity::Unchecked,
            check,
            subject: subject.to_owned(),
            problem: what.to_owned(),
            why: Some(reason.to_owned()),
            remedy: None,
        }
    }
}

#[cfg(test)]
mod tests;
