//! Computes what became of every order: pure, from the ledger, the handler's calls and the groups' committed
//! offsets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::demo::ledger::{Call, Ledger, RecordPosition, Topic};
use crate::cli::demo::story::DemoAnswer;
use crate::core::time::Timestamp;

/// Maximum number of faults that are listed.
const TOLD: usize = 20;

/// Input that is not in the ledger.
pub struct ReckoningInput<'a> {
    /// Number of orders that the broker has confirmed to the stream.
    pub confirmed: u64,
    /// The calls that the handler recorded.
    pub calls: &'a [Call],
    /// The committed offset of a topic's group, by partition.
    pub committed: &'a dyn Fn(Topic, i32) -> i64,
    /// Maximum attempts of an order.
    pub attempts: u32,
    /// When the handler was down, if the story got that far.
    pub outage: Option<[Timestamp; 2]>,
    /// When the workers were told to stop: an order that was never delivered stalled until then.
    pub ended: Timestamp,
}

/// What became of the orders. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reckoning {
    /// Orders on the source.
    pub sent: u64,
    /// Orders that the handler has done.
    pub done: u64,
    /// Orders in the dead-letter topic.
    pub dead_lettered: u64,
    /// Dead letters by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Orders on the source, in a tier or in redeliver, which the next worker would continue with.
    pub waiting: u64,
    /// Orders found nowhere.
    pub lost: u64,
    /// Records written twice, and orders that ended twice.
    pub doubled: u64,
    /// Records redelivered before they were due.
    pub early: u64,
    /// From the due time to the append to the redeliver topic.
    pub lateness_ms: Option<Lateness>,
    /// The longest time that a source partition with orders stood still: from the moment that an order could have been delivered
    /// to its first delivery.
    pub longest_stall_ms: StallMs,
    /// Handler calls.
    pub calls: u64,
    /// Handler calls for an attempt that was already made.
    pub repeated_calls: u64,
    /// Records moved into each tier.
    pub hops: Vec<u64>,
    /// Whether all checks passed.
    pub in_order: bool,
    /// The failed checks in words; the first [`TOLD`] of them.
    pub faults: Vec<String>,
}

/// Lateness of all redelivered records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lateness {
    /// The median.
    pub p50: i64,
    /// The 99th percentile.
    pub p99: i64,
    /// The maximum.
    pub max: i64,
}

/// The longest stall.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StallMs {
    /// While the handler was up.
    pub handler_up: i64,
    /// During the outage, when the breaker stops deliveries on purpose.
    pub outage: i64,
}

/// Computes the summary.
pub fn reckon(ledger: &Ledger, facts: &ReckoningInput<'_>) -> Reckoning {
    let mut faults = Vec::new();
    let (early, lateness) = lateness(ledger, &mut faults);
    let doubled_hops = doubled(ledger, &mut faults);
    let mut done_by: BTreeMap<RecordPosition, BTreeSet<u32>> = BTreeMap::new();
    let mut made: HashMap<(RecordPosition, u32), u64> = HashMap::new();
    for call in facts.calls {
        *made.entry((call.place, call.attempt)).or_default() += 1;
        if call.answer == DemoAnswer::Done {
            done_by.entry(call.place).or_default().insert(call.attempt);
        }
    }
    for stranger in made.keys().map(|(place, _)| place).chain(ledger.dead.keys()).filter(|at| !ledger.sent.contains_key(*at)) {
        faults.push(format!("an order that was never sent: {}", shown(*stranger)));
    }
    let (mut done, mut dead, mut waiting, mut lost, mut ended_twice) = (0, 0, 0, 0, 0);
    let mut reasons = BTreeMap::new();
    for order in ledger.sent.keys().copied() {
        let (times_done, letter) = (done_by.get(&order).map_or(0, BTreeSet::len), ledger.dead.get(&order));
        if times_done + usize::from(letter.is_some()) > 1 {
            ended_twice += 1;
            faults.push(format!("ended twice: {}", shown(order)));
        }
        if let Some(letter) = letter.and_then(|letters| letters.first()) {
            dead += 1;
            *reasons.entry(letter.reason.unwrap_or("no reason")).or_default() += 1;
        } else if times_done > 0 {
            done += 1;
        } else {
            let furthest = ledger.furthest(order, facts.attempts);
            let (topic, at) = furthest.map_or((Topic::Source, order), |entry| (entry.topic, entry.at));
            if at.offset >= (facts.committed)(topic, at.partition) {
                waiting += 1;
            } else {
                lost += 1;
                faults.push(format!("lost: {}", shown(order)));
            }
        }
    }
    let sent = count(ledger.sent.len());
    if sent != facts.confirmed {
        faults.push(format!("{} orders were confirmed by the broker, but {sent} are on the source", facts.confirmed));
    }
    let doubled = doubled_hops + ended_twice;
    let holds = sent == done + dead + waiting && [lost, doubled, early] == [0; 3];
    let in_order = holds && faults.is_empty();
    faults.truncate(TOLD);
    Reckoning {
        sent,
        done,
        dead_lettered: dead,
        reasons,
        waiting,
        lost,
        doubled,
        early,
        lateness_ms: lateness,
        longest_stall_ms: stall(ledger, facts),
        calls: count(facts.calls.len()),
        repeated_calls: made.values().map(|calls| calls - 1).sum(),
        hops: hops(ledger),
        in_order,
        faults,
    }
}

/// Number of early records, and the lateness of the others.
fn lateness(ledger: &Ledger, faults: &mut Vec<String>) -> (u64, Option<Lateness>) {
    let (mut early, mut late) = (0, Vec::new());
    for ((order, attempts), trip) in &ledger.trips {
        let Some(due) = trip.there.first().and_then(|entry| ledger.due(entry)) else {
            faults.push(format!("redelivered without a tier record: {} after attempt {attempts}", shown(*order)));
            continue;
        };
        for back in &trip.back {
            let by = back.appended.as_millis() - due;
            if by < 0 {
                early += 1;
                faults.push(format!("early by {} ms: {} after attempt {attempts}", -by, shown(*order)));
            }
            late.push(by);
        }
    }
    late.sort_unstable();
    let at = |percent: usize| late.get((late.len().saturating_sub(1)) * percent / 100).copied();
    let (Some(p50), Some(p99), Some(max)) = (at(50), at(99), at(100)) else { return (early, None) };
    (early, Some(Lateness { p50, p99, max }))
}

/// Records that appear twice in one kind of topic.
fn doubled(ledger: &Ledger, faults: &mut Vec<String>) -> u64 {
    let trips = ledger.trips.iter().flat_map(|((order, _), trip)| [(order, &trip.there), (order, &trip.back)]);
    let mut doubled = 0;
    for (order, entries) in trips.chain(&ledger.dead).filter(|(_, entries)| entries.len() > 1) {
        doubled += count(entries.len() - 1);
        faults.push(format!("written {} times: {} after attempt {}", entries.len(), shown(*order), entries[0].attempts));
    }
    doubled
}

fn hops(ledger: &Ledger) -> Vec<u64> {
    let mut hops = vec![0; ledger.delays.len()];
    for entry in ledger.trips.values().flat_map(|trip| &trip.there) {
        if let Topic::Tier(tier) = entry.topic
            && let Some(count) = hops.get_mut(tier)
        {
            *count += 1;
        }
    }
    hops
}

/// A partition stalls from when its next order was there and the orders before it were delivered, until that order is
/// delivered.
fn stall(ledger: &Ledger, facts: &ReckoningInput<'_>) -> StallMs {
    let mut first_calls: HashMap<RecordPosition, i64> = HashMap::new();
    for call in facts.calls.iter().filter(|call| call.attempt == 1) {
        let at = call.at.as_millis();
        first_calls.entry(call.place).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let mut longest = StallMs::default();
    let mut partition = (-1, i64::MIN);
    for (order, appended) in &ledger.sent {
        if partition.0 != order.partition {
            partition = (order.partition, i64::MIN);
        }
        let since = appended.as_millis().max(partition.1);
        let until = first_calls.get(order).copied().unwrap_or(facts.ended.as_millis());
        let in_outage = facts.outage.is_some_and(|[from, to]| since < to.as_millis() && until > from.as_millis());
        let stalled = if in_outage { &mut longest.outage } else { &mut longest.handler_up };
        *stalled = (until - since).max(*stalled);
        partition.1 = partition.1.max(until);
    }
    longest
}

impl Reckoning {
    /// As text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!("  ({})", reasons.join(", ")) };
        let _ = writeln!(text, "  sent          {:>7}", self.sent);
        let _ = writeln!(text, "  done          {:>7}", self.done);
        let _ = writeln!(text, "  dead-lettered {:>7}{reasons}", self.dead_lettered);
        let _ = writeln!(text, "  waiting       {:>7}\n", self.waiting);
        let _ = writeln!(text, "  lost          {:>7}", self.lost);
        let _ = writeln!(text, "  doubled       {:>7}", self.doubled);
        let _ = writeln!(text, "  early         {:>7}\n", self.early);
        match self.lateness_ms {
            Some(Lateness { p50, p99, max }) => {
                let _ = writeln!(text, "  lateness       p50 {p50} ms, p99 {p99} ms, at most {max} ms");
            }
            None => text.push_str("  lateness       nothing was redelivered\n"),
        }
        let StallMs { handler_up, outage } = self.longest_stall_ms;
        let _ = write!(text, "  longest stall  {handler_up} ms of a source partition");
        let _ = if outage > 0 { writeln!(text, "; {outage} ms during the outage, on purpose") } else { writeln!(text) };
        let (calls, repeated) = (self.calls, self.repeated_calls);
        let hops: Vec<String> = self.hops.iter().map(u64::to_string).collect();
        let _ =
            writeln!(text, "  handler calls  {calls}, {repeated} of them repeated; hops into the tiers {}\n", hops.join(", "));
        if self.in_order {
            text.push_str("  in order: sent = done + dead-lettered + waiting\n");
        } else {
            text.push_str("  NOT IN ORDER:\n");
            for fault in &self.faults {
                let _ = writeln!(text, "    {fault}");
            }
        }
        text
    }
}

fn shown(order: RecordPosition) -> String {
    format!("order at {}/{}", order.partition, order.offset)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "reckoning_tests.rs"]
mod tests;
