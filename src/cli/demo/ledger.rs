//! What the demo's topics contain, record by record, and the calls that the handler received: the only input of the summary.
//! Nothing here comes from metrics or from what the workers report about themselves.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::cli::demo::story::DemoAnswer;
use crate::core::time::Timestamp;

/// An order's position on the source, which identifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordPosition {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A call of the handler.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The order.
    pub place: RecordPosition,
    /// Attempt, counted from 1.
    pub attempt: u32,
    /// When the call came in.
    pub at: Timestamp,
    /// The answer.
    pub answer: DemoAnswer,
}

/// A topic of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The orders.
    Source,
    /// A tier, numbered from 0.
    Tier(usize),
    /// The redeliver topic.
    Redeliver,
    /// The dead-letter topic.
    Dlq,
}

/// A record that was read.
#[derive(Debug, Clone, Copy)]
pub struct LedgerEntry {
    /// The topic that it was read from.
    pub topic: Topic,
    /// Its position in that topic.
    pub at: RecordPosition,
    /// When it was appended.
    pub appended: Timestamp,
    /// The order, from its headers.
    pub order: RecordPosition,
    /// Attempts made, from its headers.
    pub attempts: u32,
    /// Reason of a dead letter, from its headers.
    pub reason: Option<&'static str>,
}

/// One pass through a tier: an order after some number of attempts.
#[derive(Debug, Default)]
pub struct Trip {
    /// Records written to the tiers.
    pub there: Vec<LedgerEntry>,
    /// Records written to the redeliver topic.
    pub back: Vec<LedgerEntry>,
}

/// All records that were read.
#[derive(Debug)]
pub struct Ledger {
    /// The delays of the tiers.
    pub delays: Vec<Duration>,
    /// When each order was appended.
    pub sent: BTreeMap<RecordPosition, Timestamp>,
    /// By order and attempts made.
    pub trips: HashMap<(RecordPosition, u32), Trip>,
    /// Dead letters, by order.
    pub dead: BTreeMap<RecordPosition, Vec<LedgerEntry>>,
}

impl Ledger {
    /// Empty.
    pub fn new(delays: Vec<Duration>) -> Self {
        Self { delays, sent: BTreeMap::new(), trips: HashMap::new(), dead: BTreeMap::new() }
    }

    /// Adds a record. Records of different topics may come in any order.
    pub fn saw(&mut self, entry: LedgerEntry) {
        match entry.topic {
            Topic::Source => drop(self.sent.insert(entry.at, entry.appended)),
            Topic::Tier(_) => self.trips.entry((entry.order, entry.attempts)).or_default().there.push(entry),
            Topic::Redeliver => self.trips.entry((entry.order, entry.attempts)).or_default().back.push(entry),
            Topic::Dlq => self.dead.entry(entry.order).or_default().push(entry),
        }
    }

    /// Number of orders waiting in each tier.
    pub fn waiting(&self) -> Vec<u64> {
        let mut waiting = vec![0; self.delays.len()];
        for entry in self.trips.values().filter(|trip| trip.back.is_empty()).flat_map(|trip| &trip.there) {
            if let Topic::Tier(tier) = entry.topic
                && let Some(count) = waiting.get_mut(tier)
            {
                *count += 1;
            }
        }
        waiting
    }

    /// When a record of a tier is due.
    pub fn due(&self, entry: &LedgerEntry) -> Option<i64> {
        let Topic::Tier(tier) = entry.topic else { return None };
        let delay = i64::try_from(self.delays.get(tier)?.as_millis()).ok()?;
        Some(entry.appended.as_millis() + delay)
    }

    /// The last record that the ladder wrote for an order; `None` while the order is only on the
    /// source.
    pub fn furthest(&self, order: RecordPosition, attempts: u32) -> Option<&LedgerEntry> {
        (1..=attempts).rev().find_map(|made| {
            let trip = self.trips.get(&(order, made))?;
            trip.back.last().or(trip.there.last())
        })
    }
}
