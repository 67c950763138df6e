//! The checks of `kladder doctor`: actual and possible problems of a ladder, from what was observed.
//!
//! Pure, and changes nothing. The plan of `setup` finds wrong settings; here they are only weighed: what loses records or
//! stops workers is a *hazard*, the rest a *note*. What could not be checked is *unchecked*, never fine.

mod costly_wait;
mod examine;
mod groups;
mod observation;
mod plan_findings;
mod render;

pub use costly_wait::costly_wait;
pub use examine::examine;
pub use groups::own_groups;
pub use observation::LadderObservation;
pub use render::render;

use serde::Serialize;

/// The findings for one ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The ladder's name.
    pub ladder: String,
    /// The group that it is configured for.
    pub group: String,
    /// Most severe first.
    pub findings: Vec<Finding>,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The check that made it.
    pub check: Check,
    /// The topic, group or ladder.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// Why it matters, if that is not obvious.
    pub why: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Severity of a finding, most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Records are lost, early or blocked, or will be.
    Hazard,
    /// It could not be checked.
    Unchecked,
    /// Worth knowing.
    Note,
}

/// The check that a finding comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Headers dropped by a relay application.
    HeadersDropped,
    /// A held ladder.
    Held,
    /// Held dead letters.
    DlqBreaker,
    /// The owner of the ladder.
    Owner,
    /// What `setup` would refuse or create.
    Setup,
    /// The settings and replication of the ladder's topics.
    Settings,
    /// Members of the groups.
    Members,
    /// Offsets of the groups.
    Offsets,
    /// Overdue records.
    Overdue,
    /// Pauses that handlers may ask for.
    RetryAfter,
}

impl Diagnosis {
    /// Number of findings of this severity.
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

    /// Something that could not be checked, and why.
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
