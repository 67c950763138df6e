//! What must hold for the topics and the handler's calls at the end.
//!
//! It identifies records by the tests' header `x-id` and by their position in the source, never by kladder's headers. Its
//! findings are texts, so that its own tests can plant a defect and see it found.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::handler::Call;
use super::raw::{Headers, Record};
use super::records;

/// The ladder, as far as the checker needs it.
#[derive(Debug, Clone)]
pub struct Shape {
    pub ladder: String,
    pub delays: Vec<Duration>,
    pub attempts: u32,
}

impl Shape {
    /// The tier (from 1) that the nth failed attempt earns.
    fn tier_after(&self, attempt: u32) -> usize {
        usize::try_from(attempt).expect("a small number").min(self.delays.len())
    }

    /// How often the handler is called for a record that fails this often.
    pub fn calls(&self, failures: u32) -> u32 {
        self.attempts.min(failures.saturating_add(1))
    }

    fn dead(&self, failures: u32) -> bool {
        failures >= self.attempts
    }
}

/// The contents of the topics, and the handler's requests.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub source: Vec<Record>,
    pub tiers: Vec<Vec<Record>>,
    pub redeliver: Vec<Record>,
    pub dlq: Vec<Record>,
    pub calls: Vec<Call>,
}

/// Which parts must be exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hops {
    ExactlyOnce,
    AtLeastOnce,
}

/// The checker's findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub faults: Vec<String>,
    /// Handler calls beyond the plan, all records together.
    pub extra_calls: usize,
}

impl Report {
    #[track_caller]
    pub fn assert_no_faults(&self) {
        let shown: Vec<&String> = self.faults.iter().take(30).collect();
        assert!(self.faults.is_empty(), "{} faults, the first of them: {shown:#?}", self.faults.len());
    }
}

/// Compares the contents with what the plan (failures by record number) implies.
pub fn check(shape: &Shape, hops: Hops, observed: &Observed, plan: impl Fn(usize) -> u32) -> Report {
    let mut checker = Checker { shape, hops, faults: Vec::new() };
    let known = checker.source(&observed.source);
    let planned = |id: &str| plan(records::number_of(id).unwrap_or(usize::MAX));
    for (index, tier) in observed.tiers.iter().enumerate() {
        checker.place(&format!("tier {}", index + 1), tier, &known, |id| {
            let failed = shape.attempts.saturating_sub(1).min(planned(id));
            (1..=failed).filter(|attempt| shape.tier_after(*attempt) == index + 1).collect()
        });
    }
    checker
        .place("redeliver", &observed.redeliver, &known, |id| (1..=shape.attempts.saturating_sub(1).min(planned(id))).collect());
    checker.place("dlq", &observed.dlq, &known, |id| shape.dead(planned(id)).then_some(shape.attempts).into_iter().collect());
    checker.waited(observed);
    checker.dead_letters(&observed.dlq);
    let extra_calls = checker.calls(&observed.calls, &known, |id| shape.calls(planned(id)));
    Report { faults: checker.faults, extra_calls }
}

struct Checker<'a> {
    shape: &'a Shape,
    hops: Hops,
    faults: Vec<String>,
}

type Known<'a> = BTreeMap<&'a str, &'a Record>;

impl Checker<'_> {
    fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    fn source<'a>(&mut self, source: &'a [Record]) -> Known<'a> {
        let mut known = Known::new();
        for record in source {
            match record.text(records::ID) {
                None => self.fault(format!("source: a record without its id at {}", at(record))),
                Some(id) => {
                    if known.insert(id, record).is_some() {
                        self.fault(format!("source: {id} stands there twice; the test itself is wrong"));
                    }
                }
            }
        }
        known
    }

    /// In each topic a record exists once for each attempt that leads there, unchanged.
    fn place(&mut self, place: &str, found: &[Record], known: &Known<'_>, expected: impl Fn(&str) -> Vec<u32>) {
        let mut counts: BTreeMap<(&str, u32), u32> = BTreeMap::new();
        for record in found {
            let Some((id, origin)) = record.text(records::ID).and_then(|id| known.get_key_value(id)) else {
                self.fault(format!("{place}: a record that nobody sent at {}", at(record)));
                continue;
            };
            self.same_content(place, id, record, origin);
            match self.envelope(place, id, record, origin) {
                Some(attempts) => *counts.entry((id, attempts)).or_default() += 1,
                None => self.fault(format!("{place}: {id} has no readable kladder-attempts at {}", at(record))),
            }
        }
        for id in known.keys() {
            for attempt in expected(id) {
                match counts.remove(&(*id, attempt)) {
                    None => self.fault(format!("{place}: {id} is missing after attempt {attempt}")),
                    Some(count) if count > 1 && self.hops == Hops::ExactlyOnce => {
                        self.fault(format!("{place}: {id} stands there {count} times after attempt {attempt}"));
                    }
                    Some(_) => {}
                }
            }
        }
        for ((id, attempt), _) in counts {
            self.fault(format!("{place}: {id} must not be there after attempt {attempt}"));
        }
    }

    fn same_content(&mut self, place: &str, id: &str, record: &Record, origin: &Record) {
        if record.key != origin.key {
            self.fault(format!("{place}: {id} has another key"));
        }
        if record.value != origin.value {
            self.fault(format!("{place}: {id} has another value"));
        }
        if users(&record.headers) != users(&origin.headers) {
            self.fault(format!("{place}: {id} has other user headers"));
        }
    }

    /// The headers that every record on the ladder must have, each once. Returns the attempts made.
    fn envelope(&mut self, place: &str, id: &str, record: &Record, origin: &Record) -> Option<u32> {
        let own: Vec<&[u8]> =
            record.headers.iter().map(|(name, _)| name.as_slice()).filter(|name| name.starts_with(b"kladder-")).collect();
        for (index, name) in own.iter().enumerate() {
            if own[..index].contains(name) {
                self.fault(format!("{place}: {id} has {} twice", String::from_utf8_lossy(name)));
            }
        }
        let must = [
            ("kladder-ladder", self.shape.ladder.clone()),
            ("kladder-v", "1".to_owned()),
            ("kladder-origin-topic", origin.topic.clone()),
            ("kladder-origin-partition", origin.partition.to_string()),
            ("kladder-origin-offset", origin.offset.to_string()),
            ("kladder-origin-timestamp", origin.timestamp.to_string()),
            (
                "kladder-id",
                format!("{}/{}/{}/{}/{}", self.shape.ladder, origin.topic, origin.partition, origin.offset, origin.timestamp),
            ),
        ];
        for (name, value) in must {
            if record.text(name) != Some(&value) {
                self.fault(format!("{place}: {id} has {name} {:?}, not {value:?}", record.text(name)));
            }
        }
        record.number("kladder-attempts").and_then(|n| u32::try_from(n).ok())
    }

    /// By the broker's timestamps no record left a tier before its delay was over.
    fn waited(&mut self, observed: &Observed) {
        let mut entered: HashMap<(&str, &str), (i64, usize)> = HashMap::new();
        for (index, tier) in observed.tiers.iter().enumerate() {
            for record in tier {
                let (Some(id), Some(attempts)) = (record.text(records::ID), record.text("kladder-attempts")) else { continue };
                let first = entered.entry((id, attempts)).or_insert((record.timestamp, index));
                first.0 = first.0.min(record.timestamp);
            }
        }
        for record in &observed.redeliver {
            let (Some(id), Some(attempts)) = (record.text(records::ID), record.text("kladder-attempts")) else { continue };
            let Some((since, index)) = entered.get(&(id, attempts)) else {
                self.fault(format!("redeliver: {id} came from no tier after attempt {attempts}"));
                continue;
            };
            let delay = i64::try_from(self.shape.delays[*index].as_millis()).expect("a short delay");
            let waited = record.timestamp - since;
            if waited < delay {
                self.fault(format!("redeliver: {id} is early after attempt {attempts}: {waited} ms of {delay}"));
            }
        }
    }

    /// A dead letter states what happened to the record.
    fn dead_letters(&mut self, dlq: &[Record]) {
        let tier = self.shape.delays.len().to_string();
        for record in dlq {
            let id = record.text(records::ID).unwrap_or("?").to_owned();
            for (name, value) in [("kladder-reason", "exhausted"), ("kladder-tier", tier.as_str()), ("kladder-redrives", "0")] {
                if record.text(name) != Some(value) {
                    self.fault(format!("dlq: {id} has {name} {:?}, not {value:?}", record.text(name)));
                }
            }
            for (name, value) in
                [("kladder-error-class", "HTTP 503"), ("kladder-error-status", "503"), ("kladder-error-message", FAILURE)]
            {
                if record.text(name) != Some(value) {
                    self.fault(format!("dlq: {id} has {name} {:?}, not {value:?}", record.text(name)));
                }
            }
            let (first, last) = (record.number("kladder-first-failed-at"), record.number("kladder-last-failed-at"));
            if first.is_none_or(|first| last.is_none_or(|last| first > last)) {
                self.fault(format!("dlq: {id} failed first at {first:?} and last at {last:?}"));
            }
            let entries = record.text("kladder-history").map_or(0, |text| text.split(';').count());
            if entries != usize::try_from(self.shape.attempts.min(16)).expect("a small number") {
                self.fault(format!("dlq: {id} has a history of {entries} attempts"));
            }
        }
    }

    /// The handler saw each attempt, with the record unchanged. Returns the calls beyond the plan.
    fn calls(&mut self, calls: &[Call], known: &Known<'_>, planned: impl Fn(&str) -> u32) -> usize {
        let by_place: HashMap<(&str, i32, i64), (&str, &Record)> =
            known.iter().map(|(id, r)| ((r.topic.as_str(), r.partition, r.offset), (*id, *r))).collect();
        let mut counts: BTreeMap<(&str, u32), usize> = BTreeMap::new();
        let mut keys: HashMap<&str, &str> = HashMap::new();
        for call in calls {
            let Some((id, record)) = by_place.get(&(call.topic.as_str(), call.partition, call.offset)) else {
                self.fault(format!("handler: called for {}/{}/{}, unknown", call.topic, call.partition, call.offset));
                continue;
            };
            *counts.entry((id, call.attempt)).or_default() += 1;
            if call.method != http::Method::POST {
                self.fault(format!("handler: {id} came by {}", call.method));
            }
            if call.body.as_ref() != record.value.as_deref().unwrap_or_default() {
                self.fault(format!("handler: {id} came with another body"));
            }
            if (call.header("kladder-value") == Some("null")) != record.value.is_none() {
                self.fault(format!("handler: {id} came with Kladder-Value {:?}", call.header("kladder-value")));
            }
            if call.headers.contains_key("x-injected") {
                self.fault(format!("handler: {id} wrote a header of its own into the request"));
            }
            let key = call.header("idempotency-key").unwrap_or_default();
            let quoted = key.len() > 2 && key.starts_with('"') && key.ends_with('"');
            if !quoted || keys.insert(id, key).is_some_and(|before| before != key) {
                self.fault(format!("handler: {id} came with Idempotency-Key {key:?}"));
            }
        }
        let mut extra = 0;
        for id in known.keys() {
            for attempt in 1..=planned(id) {
                match counts.remove(&(*id, attempt)) {
                    None => self.fault(format!("handler: never called for {id}, attempt {attempt}")),
                    Some(count) => extra += count - 1,
                }
            }
        }
        for ((id, attempt), count) in counts {
            self.fault(format!("handler: called for {id}, attempt {attempt}, {count} times, which is not in the plan"));
        }
        extra
    }
}

/// The handler's response when the plan lets it fail.
pub const FAILURE: &str = "the plan says no";

fn users(headers: &Headers) -> Vec<(&[u8], Option<&[u8]>)> {
    headers.iter().map(|(n, v)| (n.as_slice(), v.as_deref())).filter(|(n, _)| !n.starts_with(b"kladder-")).collect()
}

fn at(record: &Record) -> String {
    format!("{}/{}/{}", record.topic, record.partition, record.offset)
}
