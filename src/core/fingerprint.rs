//! A bounded memory of redelivered records, against applications that drop their headers.
//!
//! Without headers a returning record looks like a first failure, and would loop in tier 1 for ever. So the router remembers
//! redelivered records; an arrival without headers whose key and value equal those of an outstanding record is treated as its
//! return, and continues with its envelope. If the arrival names the offset at which it was consumed, that decides instead.
//!
//! - Nothing is matched twice: each attempt of each record returns once, by its headers or by its content. For the same arrival
//!   again (its transaction was aborted), the answer is the same.
//! - Different records may have the same content (heartbeats), so a match may be a coincidence. That becomes visible when the
//!   matched record comes back with headers; then the match is no longer counted, and the content is ambiguous from then on: its
//!   arrivals without headers are fresh.
//! - The memory is bounded: the oldest entries are removed first, and counted. A removed entry costs at most one
//!   loop.
//! - If several outstanding records have the same content, it is unknown which one came back. That is no evidence against the
//!   application, and once the application was seen to copy headers, such an arrival is fresh.
//! - It belongs to one process. After a restart it is rebuilt from the records of the redeliver topic (or the sources) that the
//!   application has not consumed yet, or that were redelivered within the last minutes.
//!
//! The order matters: a record must be noted before its return is judged. A return with headers that comes first is remembered,
//! so that the record does not stay outstanding for ever when it is noted afterwards.
//!
//! The history of attempts is not kept, since it may be ten times as large as the rest: it starts again when headers were lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::envelope::Envelope;
use crate::core::time::Timestamp;

/// Default number of redelivered records remembered. An entry has 144 bytes; with its places in the three indices and
/// shared topic names about 300, so this is 30 MB at most.
pub const DEFAULT_LIMIT: usize = 100_000;

/// Number of latest returns that the judgement is based on, and the minimum for one.
const WINDOW: usize = 100;
const FEWEST_RETURNS: usize = 20;

/// Maximum number of topic names shared between entries; no configuration has more sources, but hostile headers may name any
/// number.
const SHARED_TOPICS: usize = 256;

/// The content of a record: key and value, null and empty being different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// For this content.
    #[must_use]
    pub fn of(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        // An Option hashes its presence and a slice its length, so the two cannot be confused.
        (key, value).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The judgement about the application, from the latest returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderJudgement {
    /// No evidence against it, or too few returns.
    Fine,
    /// Most came without headers: the ladder should be held until the application is fixed.
    HoldAdvised,
}

/// One attempt of one record, which can return once. A redrive starts the attempts again under the same
/// id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    id: u64,
    redrives: u32,
    attempts: u32,
}

impl Attempt {
    fn of(envelope: &Envelope) -> Self {
        let mut hasher = DefaultHasher::new();
        envelope.id.hash(&mut hasher);
        Self { id: hasher.finish(), redrives: envelope.redrives, attempts: envelope.attempts }
    }
}

/// What is needed to continue with a record that comes back without its headers.
#[derive(Debug, Clone)]
struct OutstandingRecord {
    print: Fingerprint,
    attempt: Attempt,
    /// `None` if it is derived from the origin, as usual.
    id: Option<Box<str>>,
    origin: Place,
    origin_timestamp: Timestamp,
    first_failed_at: Option<Timestamp>,
    redelivered: Place,
    redelivered_at: Timestamp,
    tier: Option<u32>,
}

/// Records presumed done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presumed {
    /// The attempt at which each of them succeeded, from 1.
    pub attempts: Vec<u32>,
    /// Ids and number of redrives of those that were sent back from the DLQ.
    pub redriven: Vec<(String, u32)>,
}

impl Presumed {
    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.attempts.len() as u64
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
}

/// The outstanding redelivered records.
#[derive(Debug)]
pub struct Memory {
    ladder: String,
    limit: usize,
    topics: BTreeSet<Arc<str>>,
    /// Outstanding records, in the order in which they were noted.
    out: BTreeMap<u64, OutstandingRecord>,
    by_print: BTreeSet<(Fingerprint, u64)>,
    by_place: BTreeMap<Place, u64>,
    by_id: BTreeMap<u64, u64>,
    next: u64,
    /// Attempts that came back without headers, with the matched arrival.
    matched: Bounded<Attempt, Matched>,
    /// The same by arrival.
    by_arrival: Bounded<(i32, i64), Attempt>,
    /// Attempts that came back with headers.
    confirmed: Bounded<Attempt, ()>,
    ambiguous: Bounded<Fingerprint, ()>,
    /// The latest returns: whether they came without headers.
    window: VecDeque<bool>,
    /// Whether the application was seen to copy headers.
    copies_headers: bool,
    /// Arrivals without headers since then that could be the return of several records.
    alike_since: usize,
    returns: u64,
    headers_missing: u64,
    forgotten: u64,
}

#[derive(Debug)]
struct Matched {
    entry: OutstandingRecord,
    /// Number of the return, from 0; `None` if it is no evidence.
    nth: Option<u64>,
}

impl Memory {
    /// An empty memory for this ladder, with room for `limit` outstanding records.
    #[must_use]
    pub fn new(ladder: &str, limit: usize) -> Self {
        let limit = limit.max(1);
        // Past returns matter only until their last copies have been seen.
        let past = limit.div_ceil(10);
        Self {
            ladder: ladder.to_owned(),
            limit,
            topics: BTreeSet::new(),
            out: BTreeMap::new(),
            by_print: BTreeSet::new(),
            by_place: BTreeMap::new(),
            by_id: BTreeMap::new(),
            next: 0,
            matched: Bounded::new(past),
            by_arrival: Bounded::new(past),
            confirmed: Bounded::new(past),
            ambiguous: Bounded::new(past),
            window: VecDeque::new(),
            copies_headers: false,
            alike_since: 0,
            returns: 0,
            headers_missing: 0,
            forgotten: 0,
        }
    }

    /// Notes a record redelivered at `at`.
    pub fn note(&mut self, print: Fingerprint, envelope: &Envelope, at: &Coordinates) {
        let attempt = Attempt::of(envelope);
        // It has come back already: its redelivery was read late, or again after a restart.
        if self.confirmed.get(&attempt).is_some() || self.matched.get(&attempt).is_some() {
            return;
        }
        if let Some(known) = self.by_id.get(&attempt.id).copied() {
            if self.out.get(&known).is_some_and(|entry| entry.attempt >= attempt) {
                return;
            }
            // Its earlier attempt came back through another router.
            self.take(known);
        }
        let derived = Envelope::fresh(&self.ladder, &envelope.origin).id;
        let entry = OutstandingRecord {
            print,
            attempt,
            id: (derived != envelope.id).then(|| envelope.id.as_str().into()),
            origin: self.place(&envelope.origin),
            origin_timestamp: envelope.origin.timestamp,
            first_failed_at: envelope.first_failed_at,
            redelivered: self.place(at),
            redelivered_at: at.timestamp,
            tier: envelope.tier,
        };
        // Another record at the same position means that the topic was recreated.
        if let Some(gone) = self.by_place.get(&entry.redelivered).copied() {
            self.take(gone);
        }
        self.by_print.insert((print, self.next));
        self.by_place.insert(entry.redelivered.clone(), self.next);
        self.by_id.insert(attempt.id, self.next);
        self.out.insert(self.next, entry);
        self.next += 1;
        if self.out.len() > self.limit {
            let oldest = self.out.keys().next().copied();
            oldest.and_then(|oldest| self.take(oldest));
            self.forgotten += 1;
        }
    }

    /// An arrival with this envelope: the record came back with its headers.
    pub fn returned(&mut self, envelope: &Envelope) {
        let attempt = Attempt::of(envelope);
        if let Some(known) = self.by_id.get(&attempt.id).copied()
            && self.out.get(&known).is_some_and(|entry| entry.attempt <= attempt)
        {
            self.take(known);
        }
        if self.confirmed.get(&attempt).is_some() {
            // A copy, or a repeated arrival after an aborted transaction.
            return;
        }
        if let Some(matched) = self.matched.remove(&attempt) {
            // Another arrival was matched with it.
            self.headers_missing = self.headers_missing.saturating_sub(1);
            let oldest_kept = self.returns - self.window.len() as u64;
            let place = matched.nth.and_then(|nth| nth.checked_sub(oldest_kept));
            if let Some(place) = place.and_then(|place| usize::try_from(place).ok()) {
                self.window[place] = false;
            }
            self.ambiguous.insert(matched.entry.print, ());
        }
        self.confirmed.insert(attempt, ());
        self.copies_headers = true;
        self.alike_since = 0;
        self.count_return(false);
    }

    /// An arrival without an envelope, at this partition and offset of the inbox: returns the envelope of the record that came
    /// back, or `None` for a first failure. The arrival's own failure is not counted in it.
    ///
    /// `consumed` is the position at which the application says that it consumed the record, if given
    /// ([`Arrival::told_origin`]): then the content does not matter.
    ///
    /// [`Arrival::told_origin`]: crate::core::inbox::Arrival::told_origin
    pub fn without_headers(
        &mut self,
        print: Fingerprint,
        consumed: Option<&Coordinates>,
        partition: i32,
        offset: i64,
    ) -> Option<Envelope> {
        if let Some(matched) = self.by_arrival.get(&(partition, offset)).and_then(|attempt| self.matched.get(attempt)) {
            return Some(self.envelope(&matched.entry));
        }
        let (nth, is_evidence) = match consumed {
            Some(at) => {
                let place = self.place(at);
                (*self.by_place.get(&place)?, true)
            }
            None if self.ambiguous.get(&print).is_some() => return None,
            None => {
                let mut alike = self.by_print.range((print, 0)..=(print, u64::MAX));
                let (_, first) = *alike.next()?;
                let is_alone = alike.next().is_none();
                if !is_alone && self.copies_headers {
                    // The application may have changed since: if nothing at all comes back with headers any more, there must
                    // be no loop.
                    self.alike_since += 1;
                    self.copies_headers = self.alike_since <= WINDOW;
                    return None;
                }
                (first, is_alone)
            }
        };
        let entry = self.take(nth)?;
        let envelope = self.envelope(&entry);
        self.by_arrival.insert((partition, offset), entry.attempt);
        self.matched.insert(entry.attempt, Matched { entry, nth: is_evidence.then_some(self.returns) });
        self.headers_missing += 1;
        if is_evidence {
            self.count_return(true);
        }
        Some(envelope)
    }

    /// Removes records presumed done: redelivered at least `settle` ago, not come back, and the application's group has committed past
    /// them, according to `committed` (by topic and partition). Returns those that are `ours` to count, by topic, partition and time
    /// of redelivery: several routers see the same redeliveries, and a router that has just started does not know what came back
    /// before.
    pub fn presume_done(
        &mut self,
        now: Timestamp,
        settle: Duration,
        committed: impl Fn(&str, i32) -> Option<i64>,
        ours: impl Fn(&str, i32, Timestamp) -> bool,
    ) -> Presumed {
        // Sources may have producers' timestamps, so the oldest entry is not always the first redelivery.
        let is_done = |entry: &OutstandingRecord| {
            let at = &entry.redelivered;
            now.since(entry.redelivered_at) >= settle
                && committed(&at.topic, at.partition).is_some_and(|committed| at.offset < committed)
        };
        let done: Vec<u64> = self.out.iter().filter(|(_, entry)| is_done(entry)).map(|(nth, _)| *nth).collect();
        let mut presumed = Presumed::default();
        for nth in done {
            let Some(entry) = self.take(nth) else { continue };
            if !ours(&entry.redelivered.topic, entry.redelivered.partition, entry.redelivered_at) {
                continue;
            }
            presumed.attempts.push(entry.attempt.attempts.saturating_add(1));
            if entry.attempt.redrives > 0 {
                let origin = Coordinates {
                    topic: entry.origin.topic.to_string(),
                    partition: entry.origin.partition,
                    offset: entry.origin.offset,
                    timestamp: entry.origin_timestamp,
                };
                let id = entry.id.map_or_else(|| Envelope::fresh(&self.ladder, &origin).id, String::from);
                presumed.redriven.push((id, entry.attempt.redrives));
            }
        }
        presumed
    }

    /// The judgement about the application, from the latest returns.
    #[must_use]
    pub fn judgement(&self) -> HeaderJudgement {
        let without = self.window.iter().filter(|without| **without).count();
        if self.window.len() >= FEWEST_RETURNS && without * 2 > self.window.len() {
            HeaderJudgement::HoldAdvised
        } else {
            HeaderJudgement::Fine
        }
    }

    /// Restarts the judgement: the ladder was resumed, so the application is supposed to be fixed.
    pub fn restart_judgement(&mut self) {
        self.window.clear();
        self.copies_headers = false;
    }

    /// Number of records that came back without headers, without known coincidences.
    #[cfg(test)]
    #[must_use]
    pub fn headers_missing(&self) -> u64 {
        self.headers_missing
    }

    /// Number of outstanding records that were removed for lack of room.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Number of outstanding records.
    #[cfg(test)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there are no outstanding records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    fn count_return(&mut self, without_headers: bool) {
        self.returns += 1;
        self.window.push_back(without_headers);
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
    }

    fn take(&mut self, nth: u64) -> Option<OutstandingRecord> {
        let entry = self.out.remove(&nth)?;
        self.by_print.remove(&(entry.print, nth));
        self.by_place.remove(&entry.redelivered);
        self.by_id.remove(&entry.attempt.id);
        Some(entry)
    }

    fn place(&mut self, at: &Coordinates) -> Place {
        let known = self.topics.get(at.topic.as_str()).cloned();
        let topic = known.unwrap_or_else(|| at.topic.as_str().into());
        if self.topics.len() < SHARED_TOPICS {
            self.topics.insert(topic.clone());
        }
        Place { topic, partition: at.partition, offset: at.offset }
    }

    fn envelope(&self, entry: &OutstandingRecord) -> Envelope {
        let origin = Coordinates {
            topic: entry.origin.topic.to_string(),
            partition: entry.origin.partition,
            offset: entry.origin.offset,
            timestamp: entry.origin_timestamp,
        };
        let fresh = Envelope::fresh(&self.ladder, &origin);
        Envelope {
            id: entry.id.as_deref().map_or_else(|| fresh.id.clone(), str::to_owned),
            attempts: entry.attempt.attempts,
            redrives: entry.attempt.redrives,
            tier: entry.tier,
            first_failed_at: entry.first_failed_at,
            ..fresh
        }
    }
}

/// A map that removes its oldest entry when full.
#[derive(Debug)]
struct Bounded<K, V> {
    limit: usize,
    values: BTreeMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Ord + Copy, V> Bounded<K, V> {
    fn new(limit: usize) -> Self {
        Self { limit, values: BTreeMap::new(), order: VecDeque::new() }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.values.remove(key)?;
        self.order.retain(|k| k != key);
        Some(value)
    }
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
mod tests;
