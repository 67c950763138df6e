//! What stands in the topics of the demo, record by record, and what the handler was called for: all that the reckoning is made of.
//! Nothing in here comes from metrics, or from what the workers say of themselves.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::cli::demo::story::Answer;
use crate::core::time::Timestamp;

/// Where an order stands on the source: that is how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A call of the handler.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// For this order.
    pub place: Place,
    /// Counted from 1.
    pub attempt: u32,
    /// When it came in.
    pub at: Timestamp,
    /// How it was answered.
    pub answer: Answer,
}

/// A topic of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The orders.
    Source,
    /// A tier, numbered from 0.
    Tier(usize),
    /// Where due records come back.
    Redeliver,
    /// The dead letters.
    Dlq,
}

/// A record that was read.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The topic that it was read from.
    pub topic: Topic,
    /// Where it stands there.
    pub at: Place,
    /// When it was appended.
    pub appended: Timestamp,
    /// The order that it is of, by its headers.
    pub order: Place,
    /// Attempts made, by its headers.
    pub attempts: u32,
    /// Why it is dead, by its headers.
    pub reason: Option<&'static str>,
}

/// One way through a tier: an order, after so many attempts.
#[derive(Debug, Default)]
pub struct Trip {
    /// Into the tiers.
    pub there: Vec<Entry>,
    /// Back by the redeliver topic.
    pub back: Vec<Entry>,
}

/// All records that were read.
#[derive(Debug)]
pub struct Ledger {
    /// The delays of the tiers.
    pub delays: Vec<Duration>,
    /// When each order was appended.
    pub sent: BTreeMap<Place, Timestamp>,
    /// By order and attempts made.
    pub trips: HashMap<(Place, u32), Trip>,
    /// Dead letters, by order.
    pub dead: BTreeMap<Place, Vec<Entry>>,
}

impl Ledger {
    /// Nothing was read yet.
    pub fn new(delays: Vec<Duration>) -> Self {
        Self { delays, sent: BTreeMap::new(), trips: HashMap::new(), dead: BTreeMap::new() }
    }

    /// Puts a record down. Records of different topics may come in any order.
    pub fn saw(&mut self, entry: Entry) {
        match entry.topic {
            Topic::Source => drop(self.sent.insert(entry.at, entry.appended)),
            Topic::Tier(_) => self.trips.entry((entry.order, entry.attempts)).or_default().there.push(entry),
            Topic::Redeliver => self.trips.entry((entry.order, entry.attempts)).or_default().back.push(entry),
            Topic::Dlq => self.dead.entry(entry.order).or_default().push(entry),
        }
    }

    /// How many orders wait in each tier.
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
    pub fn due(&self, entry: &Entry) -> Option<i64> {
        let Topic::Tier(tier) = entry.topic else { return None };
        let delay = i64::try_from(self.delays.get(tier)?.as_millis()).ok()?;
        Some(entry.appended.as_millis() + delay)
    }

    /// The record that an order has come to by the ladder; `None` while it only stands on the source.
    pub fn furthest(&self, order: Place, attempts: u32) -> Option<&Entry> {
        (1..=attempts).rev().find_map(|made| {
            let trip = self.trips.get(&(order, made))?;
            trip.back.last().or(trip.there.last())
        })
    }
}
