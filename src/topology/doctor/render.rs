//! Findings as text.

use std::fmt::{self, Write};

use crate::core::harmless::OneLine;
use crate::topology::doctor::{Diagnosis, Finding, Severity};

/// All findings by ladder, most severe first.
#[must_use]
pub fn render(diagnoses: &[Diagnosis]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = diagnoses.iter().try_for_each(|diagnosis| write_ladder(&mut text, diagnosis));
    text
}

fn write_ladder(out: &mut String, diagnosis: &Diagnosis) -> fmt::Result {
    let Diagnosis { ladder, group, findings } = diagnosis;
    write!(out, "ladder {ladder} (group {group}): ")?;
    let counted = [(Severity::Hazard, "hazard"), (Severity::Unchecked, "unchecked"), (Severity::Note, "note")]
        .map(|(severity, word)| (diagnosis.count(severity), word));
    let told: Vec<String> =
        counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| plural(count, word)).collect();
    writeln!(out, "{}", if told.is_empty() { "nothing found".to_owned() } else { told.join(", ") })?;
    findings.iter().try_for_each(|finding| write_finding(out, finding))?;
    writeln!(out)
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 || word == "unchecked" { format!("{count} {word}") } else { format!("{count} {word}s") }
}

fn write_finding(out: &mut String, finding: &Finding) -> fmt::Result {
    let Finding { severity, subject, problem, why, remedy, .. } = finding;
    let word = match severity {
        Severity::Hazard => "HAZARD",
        Severity::Unchecked => "NOT CHECKED",
        Severity::Note => "note",
    };
    writeln!(out, "  {word}  {}: {}", OneLine(subject), OneLine(problem))?;
    for (label, text) in [("why", why), ("remedy", remedy)] {
        if let Some(text) = text {
            writeln!(out, "    {label}: {}", OneLine(text))?;
        }
    }
    Ok(())
}
