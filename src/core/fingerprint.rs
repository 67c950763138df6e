//! The bounded memory against applications that drop the headers of what was redelivered to them.
//!
//! Without headers a returning record looks like a first failure, and would loop in tier 1 for ever. So the router notes what was
//! redelivered; an arrival without headers whose key and value equal those of a record that is still out is taken as its return,
//! and the envelope goes on from there. Where such an arrival says at which offset it was consumed, that decides instead.
//!
//! - Nothing is matched twice: each attempt of each record returns once, by its headers or by its content. Asked again of the same
//!   arrival (its transaction was aborted), the memory answers the same.
//! - Records may have the same content (heartbeats), so a match may be a coincidence. It shows when the record that was matched
//!   comes back with headers after all; then the match is taken back from the count, and that content is ambiguous from then on:
//!   its arrivals without headers are fresh.
//! - The memory is bounded: the oldest entries go first, which is counted. What is forgotten costs a loop at most.
//! - Of content that several records share which are out, nobody can say which it is that came back. It is no evidence against the
//!   application, and once that has been seen to copy headers such an arrival is fresh.
//! - It is of one process. After a restart the redeliver topic (or the sources) tells again what the application has not consumed yet,
//!   and what was redelivered within the last minutes.
//!
//! The order matters: a record is to be noted before its return is judged. A return with headers that comes first is remembered,
//! so that noting it afterwards does not leave it out for ever.
//!
//! Not kept is the history of attempts, which may be ten times as large as all the rest: it begins anew where headers were lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::envelope::Envelope;
use crate::core::time::Timestamp;

/// How many redelivered records are remembered, unless told otherwise. An entry has 144 bytes; with its places in the three
/// indices, its topics shared, it comes to about 300, so this is 30 MB at most.
pub const DEFAULT_LIMIT: usize = 100_000;

/// How many of the latest returns the verdict looks at, and how many it wants to have seen.
const WINDOW: usize = 100;
const FEWEST_RETURNS: usize = 20;

/// So many topic names are shared between entries; nobody has more sources, but hostile headers may name as many as they like.
const SHARED_TOPICS: usize = 256;

/// A record's content: its key and its value, null and empty being different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of this content.
    #[must_use]
    pub fn of(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        // An Option hashes whether it is there, and a slice its length, so neither runs into the other.
        (key, value).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What the latest returns say of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing against it, or too few to tell.
    Fine,
    /// Most came without headers: the ladder should be held until the application is mended.
    HoldAdvised,
}

/// One attempt of one record: what may return once. A redrive begins the attempts anew under the same id.
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

/// What is needed to go on with a record that comes back without its headers.
#[derive(Debug, Clone)]
struct Entry {
    print: Fingerprint,
    attempt: Attempt,
    /// `None` where it is made of the origin, as most are.
    id: Option<Box<str>>,
    origin: Place,
    origin_timestamp: Timestamp,
    first_failed_at: Option<Timestamp>,
    redelivered: Place,
    redelivered_at: Timestamp,
    tier: Option<u32>,
}

/// What is presumed done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presumed {
    /// The attempt at which each of them succeeded, from 1.
    pub attempts: Vec<u32>,
    /// Those of them that were sent back from the DLQ: their ids, and how often.
    pub redriven: Vec<(String, u32)>,
}

impl Presumed {
    /// How many records.
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

/// The redelivered records that have not come back.
#[derive(Debug)]
pub struct Memory {
    ladder: String,
    limit: usize,
    topics: BTreeSet<Arc<str>>,
    /// What is out, in the order in which it was noted.
    out: BTreeMap<u64, Entry>,
    by_print: BTreeSet<(Fingerprint, u64)>,
    by_place: BTreeMap<Place, u64>,
    by_id: BTreeMap<u64, u64>,
    next: u64,
    /// Attempts that came back without headers, with the arrival that was taken for them.
    matched: Bounded<Attempt, Matched>,
    /// The same by their arrivals.
    by_arrival: Bounded<(i32, i64), Attempt>,
    /// Attempts that came back with headers.
    confirmed: Bounded<Attempt, ()>,
    ambiguous: Bounded<Fingerprint, ()>,
    /// The latest returns: whether they came without headers.
    window: VecDeque<bool>,
    /// The application was seen to.
    copies_headers: bool,
    /// Arrivals without headers since then that could be the return of several records.
    alike_since: usize,
    returns: u64,
    headers_missing: u64,
    forgotten: u64,
}

#[derive(Debug)]
struct Matched {
    entry: Entry,
    /// Which return it was, counted from 0; `None` where it is no evidence.
    nth: Option<u64>,
}

impl Memory {
    /// An empty one for this ladder, with room for so many records that are out.
    #[must_use]
    pub fn new(ladder: &str, limit: usize) -> Self {
        let limit = limit.max(1);
        // What has come back matters only until the last copies of it have been seen.
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

    /// Notes that a record stands redelivered at `at`.
    pub fn note(&mut self, print: Fingerprint, envelope: &Envelope, at: &Coordinates) {
        let attempt = Attempt::of(envelope);
        // It has come back already: this is the record of a redelivery that was seen late, or again after a restart.
        if self.confirmed.get(&attempt).is_some() || self.matched.get(&attempt).is_some() {
            return;
        }
        if let Some(known) = self.by_id.get(&attempt.id).copied() {
            if self.out.get(&known).is_some_and(|entry| entry.attempt >= attempt) {
                return;
            }
            // Its earlier attempt came back where another member saw it.
            self.take(known);
        }
        let derived = Envelope::fresh(&self.ladder, &envelope.origin).id;
        let entry = Entry {
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
        // Of another record at the same place only the memory is left: its topic was made anew.
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

    /// An arrival that carries this envelope: its record came back as it should.
    pub fn returned(&mut self, envelope: &Envelope) {
        let attempt = Attempt::of(envelope);
        if let Some(known) = self.by_id.get(&attempt.id).copied()
            && self.out.get(&known).is_some_and(|entry| entry.attempt <= attempt)
        {
            self.take(known);
        }
        if self.confirmed.get(&attempt).is_some() {
            // A copy of it, or its transaction was aborted.
            return;
        }
        if let Some(matched) = self.matched.remove(&attempt) {
            // Something else was taken for it.
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

    /// An arrival without an envelope, at this partition and offset of the inbox: the envelope of the record that it is the return
    /// of, or `None` where it is a first failure. The arrival's own failure is one more.
    ///
    /// `consumed` is where the application says that it consumed the record, where it does ([`Arrival::told_origin`]): then its
    /// content does not matter.
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
                    // It may have been changed since: that nothing at all comes back with headers any more must not be a loop.
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

    /// Forgets what is presumed done: redelivered at least `settle` ago, not come back, and the application's group has committed
    /// past it, as `committed` tells of a topic and partition. Returns those of them that are `ours` to count, by topic, partition and
    /// the time of redelivery: several routers see the same redeliveries, and one that has just started does not know what came
    /// back before.
    pub fn presume_done(
        &mut self,
        now: Timestamp,
        settle: Duration,
        committed: impl Fn(&str, i32) -> Option<i64>,
        ours: impl Fn(&str, i32, Timestamp) -> bool,
    ) -> Presumed {
        // A source may have its producers' timestamps, so the oldest entry is not always the one that was redelivered first.
        let is_done = |entry: &Entry| {
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

    /// What the latest returns say of the application.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        let without = self.window.iter().filter(|without| **without).count();
        if self.window.len() >= FEWEST_RETURNS && without * 2 > self.window.len() {
            Judgement::HoldAdvised
        } else {
            Judgement::Fine
        }
    }

    /// Judges from here on by what comes from here on: the ladder was resumed, so its application is said to be mended.
    pub fn judge_anew(&mut self) {
        self.window.clear();
        self.copies_headers = false;
    }

    /// How many records came back without headers, less the coincidences known.
    #[must_use]
    pub fn headers_missing(&self) -> u64 {
        self.headers_missing
    }

    /// How many records were forgotten for want of room while they were out.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many records are out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether none is out.
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

    fn take(&mut self, nth: u64) -> Option<Entry> {
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

    fn envelope(&self, entry: &Entry) -> Envelope {
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

/// A map that forgets what was put into it first.
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
