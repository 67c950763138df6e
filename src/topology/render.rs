//! A plan as a diff in text form.

use std::fmt::{self, Display, Write};

use crate::core::harmless::OneLine;
use crate::topology::{Cap, Change, Drift, Plan, Position, Refusal};

/// The plan as a diff: `+` is created, `~` is changed, `!` needs action by the user.
#[must_use]
pub fn render(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_plan(&mut text, plan);
    text
}

fn write_plan(out: &mut String, plan: &Plan) -> fmt::Result {
    for ladder in &plan.ladders {
        if ladder.group.is_empty() {
            writeln!(out, "dead-letter topic {}", ladder.ladder)?;
        } else {
            writeln!(out, "ladder {} (group {})", ladder.ladder, ladder.group)?;
        }
        for change in &ladder.changes {
            writeln!(out, "  {change}")?;
        }
        for drift in &ladder.drift {
            writeln!(out, "  {drift}")?;
        }
        for refusal in &ladder.refusals {
            writeln!(out, "  {refusal}")?;
        }
        if ladder.changes.is_empty() && ladder.drift.is_empty() && ladder.refusals.is_empty() {
            writeln!(out, "  in order")?;
        }
        for cap in &ladder.caps {
            writeln!(out, "  note: {cap}")?;
        }
        for note in &ladder.notes {
            writeln!(out, "  note: {}: {}", OneLine(&note.subject), OneLine(&note.text))?;
        }
        writeln!(out)?;
    }
    for refusal in &plan.refusals {
        writeln!(out, "{refusal}")?;
    }
    let totals = plan.totals;
    writeln!(
        out,
        "in total: {}, {}, {}",
        count(totals.topics, "topic"),
        count(totals.partitions, "partition"),
        count(totals.replicas, "replica")
    )
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTopic { topic, partitions, replication_factor, settings } => {
                write!(
                    f,
                    "+ create topic {topic}: {}, replication factor {replication_factor}",
                    count(i64::from(*partitions), "partition")
                )?;
                for (name, value) in settings {
                    write!(f, "\n      {name}={value}")?;
                }
                Ok(())
            }
            Self::AddPartitions { topic, have, want } => write!(f, "~ add partitions to {topic}: {have} -> {want}"),
            Self::CommitOffsets { group, topic, at, partitions } => {
                let at = match at {
                    Position::Oldest => "oldest record",
                    Position::End => "end",
                };
                write!(f, "+ start group {group} on {topic} at the {at} of {}", spans(partitions))
            }
            Self::Claim { topic, group, from: None } => write!(f, "+ record group {group} as the ladder's owner in {topic}"),
            Self::Claim { topic, group, from: Some(from) } => {
                write!(f, "~ take over the ladder in {topic}: {} -> group {group}", OneLine(from))
            }
        }
    }
}

impl Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, setting, have, want, command } = self;
        write!(f, "! drift: {topic}: {setting} is {}, not {want}\n      {command}", OneLine(have))
    }
}

impl Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, setting, have, want, words } = self;
        write!(f, "{topic}: {setting} is {have}, not {want}, which the cluster does not accept: {}", OneLine(words))
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "! refused: {}: {}\n      {}", OneLine(&self.subject), OneLine(&self.problem), self.remedy)
    }
}

/// `1 topic`, `2 topics`
fn count(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `partition 3`, `partitions 0-5, 7`
fn spans(partitions: &[i32]) -> String {
    let mut text = if partitions.len() == 1 { "partition ".to_owned() } else { "partitions ".to_owned() };
    let mut rest = partitions;
    while let Some(first) = rest.first() {
        let length = rest.iter().zip(*first..).take_while(|(have, want)| **have == *want).count();
        let (span, after) = rest.split_at(length);
        let separator = if rest.len() == partitions.len() { "" } else { ", " };
        let _ = match span {
            [one] => write!(text, "{separator}{one}"),
            _ => write!(text, "{separator}{first}-{}", span[length - 1]),
        };
        rest = after;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_told_in_spans() {
        assert_eq!(spans(&[3]), "partition 3");
        assert_eq!(spans(&[0, 1, 2, 5, 7, 8]), "partitions 0-2, 5, 7-8");
    }
}
