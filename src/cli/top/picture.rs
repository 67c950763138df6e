//! The live picture as data: two observations and the time of drawing. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cli::top::observation::{DeadLetters, LadderSeen, MemberSeen, QueueSeen, TierSeen, TopObservation};
use crate::core::time::Timestamp;
use crate::observe::Lateness;

/// What is drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    /// The ladders that can be chosen.
    pub names: Vec<String>,
    /// The chosen one, from 0.
    pub chosen: usize,
    /// Time of the picture.
    pub now: Timestamp,
    /// Age of the data.
    pub freshness: Freshness,
    /// The chosen ladder, once it was observed.
    pub ladder: Option<LadderPicture>,
    /// The overlay.
    pub overlay: Overlay,
    /// The result of the last command.
    pub told: Option<String>,
    /// An additional line above the table.
    pub caption: Option<String>,
}

/// Age of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Freshness {
    /// No data yet.
    Awaited,
    /// Up to date.
    Fresh,
    /// Outdated, and why if known.
    Stale { age: Duration, error: Option<String> },
}

/// The overlay on the picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Overlay {
    #[default]
    Nothing,
    Help,
    /// The confirmation of a hold or resume.
    Confirm {
        hold: bool,
    },
}

/// One ladder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LadderPicture {
    /// The last observation.
    pub seen: LadderSeen,
    /// Address of the worker whose metrics are shown.
    pub worker: Option<String>,
    /// Its topics, from the source to the dead letters.
    pub rows: Vec<Row>,
    /// Its members, one line per worker; `None` if unknown.
    pub workers: Option<Vec<WorkerLine>>,
}

/// The kind of topic in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    Source,
    Inbox,
    Tier,
    Redeliver,
    DeadLetters,
}

/// A topic of the ladder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub kind: RowKind,
    pub name: String,
    pub waiting: i64,
    /// Tiers only.
    pub due: Option<i64>,
    /// Tiers with waiting records only.
    pub next: Option<NextDue>,
    /// Dead letters only, if known.
    pub open: Option<i64>,
    /// Incoming records per second, once there were two observations.
    pub rate_in: Option<f64>,
    /// Outgoing records per second.
    pub rate_out: Option<f64>,
    pub lateness: Option<Lateness>,
}

/// When the oldest record of a tier is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NextDue {
    /// Time until then, or since then.
    pub distance: Duration,
    /// Whether it is due.
    pub is_due: bool,
    /// The part of its delay that has passed, from 0 to 1.
    pub over: f64,
}

/// A worker and its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkerLine {
    pub name: String,
    pub host: String,
    /// `deliverer orders 0-5; mover retry-5s 0-5`; the ladder's topics without the ladder's name.
    pub has: String,
}

impl LadderPicture {
    /// From the latest observation and, for the rates, an earlier one.
    pub fn of(latest: &TopObservation, earlier: Option<&TopObservation>, chosen: usize, now: Timestamp) -> Option<Self> {
        let seen = latest.ladders.get(chosen)?;
        let before = earlier.and_then(|earlier| {
            let ladder = earlier.ladders.iter().find(|ladder| ladder.name == seen.name)?;
            Some((ladder, latest.at.since(earlier.at)))
        });
        Some(Self {
            worker: latest.worker.clone(),
            rows: rows(seen, before, now),
            workers: seen.members.as_ref().map(|members| workers(&seen.name, members)),
            seen: seen.clone(),
        })
    }
}

fn rows(seen: &LadderSeen, before: Option<(&LadderSeen, Duration)>, now: Timestamp) -> Vec<Row> {
    let short = |topic: &str| without_ladder(&seen.name, topic).to_owned();
    let queue = |kind: RowKind, queue: &QueueSeen| {
        let earlier = before.and_then(|(ladder, over)| Some((ladder.queue(&queue.topic)?, over)));
        Row {
            kind,
            name: short(&queue.topic),
            waiting: queue.waiting,
            due: None,
            next: None,
            open: None,
            rate_in: earlier.and_then(|(earlier, over)| rate(earlier.ends, queue.ends, over)),
            rate_out: earlier.and_then(|(earlier, over)| rate(earlier.done, queue.done, over)),
            lateness: None,
        }
    };
    let tier = |tier: &TierSeen| {
        let next = tier.next_due.map(|due| NextDue::of(due, tier.delay, now));
        // The due count was looked up a moment before; the oldest may have become due since.
        let least = i64::from(next.is_some_and(|next| next.is_due));
        let row = queue(RowKind::Tier, &tier.queue);
        Row { due: Some(tier.due.max(least)), next, lateness: tier.lateness, ..row }
    };
    let dead_letters = |letters: &DeadLetters| {
        let earlier = before.and_then(|(ladder, over)| Some((ladder.dead_letters.as_ref()?, over)));
        Row {
            waiting: letters.records,
            open: letters.open,
            rate_in: earlier.and_then(|(earlier, over)| rate(earlier.ends, letters.ends, over)),
            ..queue(RowKind::DeadLetters, &QueueSeen { topic: "dead letters".to_owned(), ..QueueSeen::default() })
        }
    };
    let mut rows: Vec<Row> = seen.sources.iter().map(|source| queue(RowKind::Source, source)).collect();
    rows.extend(seen.inbox.iter().map(|inbox| queue(RowKind::Inbox, inbox)));
    rows.extend(seen.tiers.iter().map(tier));
    rows.extend(seen.redeliver.iter().map(|redeliver| queue(RowKind::Redeliver, redeliver)));
    rows.extend(seen.dead_letters.iter().map(dead_letters));
    rows
}

/// `billing-orders.retry-5s` becomes `retry-5s`, since the ladder is named above.
fn without_ladder<'a>(ladder: &str, topic: &'a str) -> &'a str {
    topic.strip_prefix(ladder).and_then(|rest| rest.strip_prefix('.')).unwrap_or(topic)
}

/// Increase per second. A topic that was recreated counts from zero.
fn rate(earlier: i64, latest: i64, over: Duration) -> Option<f64> {
    let more = u32::try_from(latest.saturating_sub(earlier).max(0)).unwrap_or(u32::MAX);
    (!over.is_zero()).then(|| f64::from(more) / over.as_secs_f64())
}

impl LadderSeen {
    fn queue(&self, topic: &str) -> Option<&QueueSeen> {
        let tiers = self.tiers.iter().map(|tier| &tier.queue);
        self.sources.iter().chain(&self.inbox).chain(&self.redeliver).chain(tiers).find(|queue| queue.topic == topic)
    }
}

impl NextDue {
    fn of(due: Timestamp, delay: Duration, now: Timestamp) -> Self {
        let left = due.since(now);
        let over = if delay.is_zero() { 1.0 } else { 1.0 - left.as_secs_f64() / delay.as_secs_f64() };
        let is_due = left.is_zero();
        Self { distance: if is_due { now.since(due) } else { left }, is_due, over: over.clamp(0.0, 1.0) }
    }
}

/// One line per worker, for all its roles in the ladder.
fn workers(ladder: &str, members: &[MemberSeen]) -> Vec<WorkerLine> {
    let mut lines: BTreeMap<(&str, &str), Vec<&MemberSeen>> = BTreeMap::new();
    for member in members {
        lines.entry((&member.worker, &member.host)).or_default().push(member);
    }
    let has = |member: &&MemberSeen| {
        let topics = member.partitions.iter().map(|(topic, p)| format!("{} {}", without_ladder(ladder, topic), ranges(p)));
        let topics: Vec<String> = topics.collect();
        let topics = if topics.is_empty() { "nothing".to_owned() } else { topics.join(", ") };
        format!("{} {topics}", member.role)
    };
    let line = |((name, host), members): ((&str, &str), Vec<&MemberSeen>)| WorkerLine {
        name: name.to_owned(),
        // Brokers report it with a leading slash.
        host: host.trim_start_matches('/').to_owned(),
        has: members.iter().map(has).collect::<Vec<_>>().join("; "),
    };
    lines.into_iter().map(line).collect()
}

/// `0-3,7`
fn ranges(partitions: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for partition in partitions {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *partition => *last = *partition,
            _ => ranges.push((*partition, *partition)),
        }
    }
    let told = |(first, last): (i32, i32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.into_iter().map(told).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
