//! One transaction of the mover: what is due goes out, and the offsets that it consumes with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::due::due_time;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::consumer::TopicPartition;
use crate::kafka::error::{TxnError, WriteFault};
#[cfg(feature = "otlp")]
use crate::telemetry::spans;
use crate::worker::error::WorkError;
use crate::worker::mover::lane::{Held, Lane, Standstill};
use crate::worker::mover::route::{Target, route};
use crate::worker::mover::{Mover, fresh};

/// A transaction costs by the partitions that it writes to (measured: 2.5 ms with 1, 10 ms with 20, 19 ms with 50, 83 ms with 200),
/// so they take turns; for each partition it costs least with some 50 of them.
const MOST_TARGETS: usize = 48;

/// The most records of a transaction while nothing but a backlog is due. Its end costs some 10 to 20 ms however large it is, so large
/// ones are what makes a backlog drain fast; they hold up those who read committed for as long as they are filled.
const MOST_RECORDS: usize = 100_000;

/// The most bytes of keys and values of a transaction.
const MOST_BYTES: usize = 128 * 1024 * 1024;

/// How many records of a partition go before it is another's turn.
const TURN: usize = 128;

/// How long a transaction is filled at most: the first of a backlog for the shorter time, since nobody reads of it before it is
/// committed, and each further one for twice as long as the one before.
pub(super) const FIRST_FILL_TIME: Duration = Duration::from_millis(100);
const LONGEST_FILL_TIME: Duration = Duration::from_secs(1);

/// The same beside records that have just become due, which are not to wait for a backlog; and the most bytes then, since what was
/// handed over has to be written before the transaction can end. (Measured, 500 such records a second beside a backlog: half of them
/// within 50 ms and 99 of 100 within 75 to 180 ms; within 240 and 680 ms without the limit to the bytes.)
const SHARED_FILL_TIME: Duration = Duration::from_millis(25);
const SHARED_BYTES: usize = 500_000;

/// A source that seems to lack the partition that a record came from is looked up again, no more often than that.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(10);

/// How long a partition stands still at first, and at most, before what could not be written is tried again.
const FIRST_STANDSTILL: Duration = Duration::from_millis(250);
const LONGEST_STANDSTILL: Duration = Duration::from_secs(60);

/// A record that was handed to the producer. What is in it has been let go: should it have to go once more, its queue gives it
/// again.
#[derive(Clone, Copy)]
struct Sent {
    lane: usize,
    offset: i64,
    appended: Timestamp,
    broker: i32,
    target: Target,
}

/// By their tags, the records that could not be written.
type Faults = Vec<(usize, WriteFault)>;

/// A transaction that is being filled.
struct Filling {
    sent: Vec<Sent>,
    refused: Faults,
    bytes: usize,
}

impl Filling {
    fn is_full(&self) -> bool {
        self.sent.len() >= MOST_RECORDS || self.bytes >= MOST_BYTES
    }
}

impl Mover {
    /// Moves what is due, if anything is.
    pub(super) fn move_due(&mut self) -> Result<(), WorkError> {
        let mut written = BTreeSet::new();
        let turn = self.whose_turn(&mut written);
        if turn.is_empty() {
            return Ok(());
        }
        let Some(group) = self.consumer.live_group() else {
            // No offset may be sent now; the group will say what comes next.
            self.backoff.failed(self.clock.now());
            return Ok(());
        };
        let began = self.clock.now();
        if let Err(error) = self.producer.begin() {
            return self.survive(error);
        }
        if turn.iter().any(|index| self.lanes[*index].was_denied()) {
            self.targets.written().for_each(|topic| self.producer.look_again(topic));
        }
        let (sent, refused) = self.fill(turn, written, began)?;
        let mut faults: Faults = refused;
        let (mut appended, mut denied) = (Vec::new(), false);
        let outcome = self.producer.settle().and_then(|settled| {
            if let Some(reading) = settled.clock {
                self.leaders.read(&reading);
            }
            faults.extend(settled.faults);
            if self.leaders.has_append_times() {
                appended = settled.appended;
            }
            denied = settled.denied;
            if !faults.is_empty() {
                self.producer.abort();
                return Ok(());
            }
            if !self.producer.is_transactional() {
                return Ok(());
            }
            self.producer.send_offsets(&group, &points_of(&self.lanes, &sent))?;
            self.producer.commit()
        });
        match outcome {
            Ok(()) if faults.is_empty() => {
                self.look_for_early(&sent, &appended);
                self.moved(sent, began)?;
            }
            Ok(()) => self.isolate(&sent, &faults, denied)?,
            Err(error) => self.undo(sent, error, began)?,
        }
        Ok(())
    }

    /// The lanes whose heads are due, oldest due first, as many as share few enough target partitions with what is written already.
    fn whose_turn(&mut self, written: &mut BTreeSet<i32>) -> Vec<usize> {
        let now = self.clock.now();
        let mut due: Vec<(Timestamp, usize)> = Vec::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            let may_go = self.limits.get(&lane.delay).is_none_or(|limit| limit.worthwhile_at() <= now);
            if !may_go || lane.stands_still(now) || !lane.is_due(&self.leaders, now) {
                continue;
            }
            due.extend(lane.due().map(|moment| (moment, index)));
        }
        due.sort_unstable();
        // A record that cannot be written is looked for alone: others would fail along with it.
        if let Some((_, index)) = due.iter().find(|(_, index)| self.lanes[*index].limit.is_some()) {
            return vec![*index];
        }
        let is_bounded = self.producer.is_transactional();
        due.into_iter()
            .filter(|(_, index)| {
                if !is_bounded {
                    return true;
                }
                let partition = self.targets.likely_partition(self.lanes[*index].tp().partition);
                written.contains(&partition) || (written.len() < MOST_TARGETS && written.insert(partition))
            })
            .map(|(_, index)| index)
            .collect()
    }

    /// Hands over what is due, in turns, straight from where it was fetched. Who becomes due meanwhile joins in.
    fn fill(&mut self, turn: Vec<usize>, written: BTreeSet<i32>, began: LocalTime) -> Result<(Vec<Sent>, Faults), WorkError> {
        #[cfg(feature = "otlp")]
        self.spans.clear();
        let mut batch = Filling { sent: Vec::new(), refused: Vec::new(), bytes: 0 };
        let (mut turn, mut written) = (turn, written);
        while !turn.is_empty() && batch.refused.is_empty() {
            let shared = self.is_shared();
            let (time, bytes) = if shared { (SHARED_FILL_TIME, SHARED_BYTES) } else { (self.fill_time, MOST_BYTES) };
            for index in turn {
                self.fill_from(index, &mut batch)?;
            }
            if batch.is_full() || batch.bytes >= bytes || self.clock.now().since(began) >= time {
                self.fill_time = if shared { FIRST_FILL_TIME } else { (self.fill_time * 2).min(LONGEST_FILL_TIME) };
                return Ok((batch.sent, batch.refused));
            }
            // A record that cannot be written is looked for alone, and once a transaction.
            if batch.sent.first().is_some_and(|sent| self.lanes[sent.lane].limit.is_some()) {
                break;
            }
            // Also where nothing was when it began: what comes due there is not to wait for a backlog.
            self.take_heads()?;
            turn = self.whose_turn(&mut written);
            turn.retain(|index| self.lanes[*index].limit.is_none());
        }
        // That was all of the backlog.
        self.fill_time = FIRST_FILL_TIME;
        Ok((batch.sent, batch.refused))
    }

    /// Whether records are due that have not waited for long, or will be in a moment, or were a moment ago.
    fn is_shared(&self) -> bool {
        let now = self.clock.now();
        if self.lanes.iter().any(|lane| lane.wait(&self.leaders, now).is_some_and(fresh::is_fresh)) {
            fresh::note(now);
        }
        fresh::was_recent(now)
    }

    /// One partition's turn.
    fn fill_from(&mut self, index: usize, batch: &mut Filling) -> Result<(), WorkError> {
        let now = self.clock.now();
        let holds_dead_letters = self.hold.holds_dead_letters(now.timestamp());
        for _ in 0..self.lanes[index].limit.unwrap_or(TURN) {
            let lane = &mut self.lanes[index];
            if batch.is_full() || !lane.is_due(&self.leaders, now) {
                break;
            }
            if self.limits.get_mut(&lane.delay).is_some_and(|limit| !limit.take(now)) {
                break;
            }
            let mut held = lane.pop().expect("a due head");
            batch.bytes += held.size();
            let leader_now = Timestamp::from_millis(self.leaders.now(held.broker, now).div_euclid(1_000));
            let way = route(&self.ladder, &mut held, lane, leader_now, holds_dead_letters);
            if way.is_malformed {
                self.metrics.worker.malformed_headers();
            }
            if now >= self.recount_at && !self.targets.cover(way.target, way.partition) {
                // The source has grown since it was looked up, or is another one by now.
                self.targets.recount(way.target, &mut self.producer);
                self.recount_at = now.later(RECOUNT_INTERVAL);
            }
            let (topic, partition) = self.targets.resolve(way.target, way.partition);
            #[cfg(feature = "otlp")]
            if spans::are_made() {
                let tp = self.lanes[index].tp();
                let from = (&*tp.topic, tp.partition, held.offset);
                let to = self.producer.topic_name(topic);
                self.spans.extend(spans::wait(&self.ladder, way.headers.iter(), from, held.appended, to));
            }
            let tag = batch.sent.len();
            if let Err(fault) = self.producer.send(topic, partition, held.outgoing(), way.headers, tag) {
                batch.refused.push((tag, fault));
            }
            let Held { offset, appended, broker, .. } = held;
            batch.sent.push(Sent { lane: index, offset, appended, broker, target: way.target });
            self.take_head(index, now)?;
        }
        Ok(())
    }

    /// By what the brokers themselves noted: nothing that is redelivered may have been appended before it was due. (A source may
    /// have its producers' timestamps; then nobody but our own clock says so, and nothing is told.)
    fn look_for_early(&self, sent: &[Sent], appended: &[(usize, Timestamp)]) {
        for (tag, appended) in appended {
            let Some(record) = sent.get(*tag).filter(|record| record.target.is_back()) else { continue };
            let lane = &self.lanes[record.lane];
            if *appended < due_time(record.appended, lane.delay) {
                self.metrics.early();
                tracing::error!(partition = %lane.tp(), offset = record.offset, "record was redelivered early: brokers' clocks differ");
            }
        }
    }

    /// The transaction is committed (or, at least once, every delivery confirmed).
    fn moved(&mut self, sent: Vec<Sent>, began: LocalTime) -> Result<(), WorkError> {
        let now = self.clock.now();
        let mut counts: BTreeMap<Target, u64> = BTreeMap::new();
        let mut by_lane: BTreeMap<usize, (i64, u64)> = BTreeMap::new();
        for record in &sent {
            *counts.entry(record.target).or_default() += 1;
            let lane = &self.lanes[record.lane];
            let entry = by_lane.entry(record.lane).or_default();
            *entry = (record.offset + 1, entry.1 + 1);
            if record.target.is_back() {
                let due = due_time(record.appended, lane.delay).as_micros();
                let late = self.leaders.now(record.broker, now).saturating_sub(due);
                lane.metrics.redelivered(Duration::from_micros(u64::try_from(late).unwrap_or(0)));
            }
        }
        let points = points_of(&self.lanes, &sent);
        #[cfg(feature = "otlp")]
        self.spans.drain(..).for_each(|span| spans::end(Some(span.until(now.timestamp()))));
        if self.producer.is_transactional() {
            self.note_committed(&points);
        } else {
            match self.consumer.commit(&points) {
                Ok(()) => self.note_committed(&points),
                Err(error) if error.is_fatal() || error.is_fenced() => return Err(error.into()),
                // Tried again with the next commit; should the partition move before, its next owner moves them once more.
                Err(error) => tracing::info!(ladder = self.ladder.name(), %error, "moved records may be moved again"),
            }
        }
        for (index, (position, records)) in by_lane {
            let lane = &mut self.lanes[index];
            lane.moved_to(position, records);
            lane.metrics.left(records);
            lane.standstill = None;
            lane.given_up = None;
            lane.limit = lane.limit.map(|limit| limit * 2).filter(|limit| *limit < TURN);
        }
        for (target, records) in counts {
            match target {
                Target::Redeliver | Target::Source(_) => self.metrics.hops.to_redeliver(records),
                Target::Tier(number) => self.metrics.hops.to_tier(number, records),
                Target::Dlq(reason) => (0..records).for_each(|_| self.metrics.hops.dead_lettered(reason)),
            }
        }
        self.metrics.worker.transaction_committed(now.since(began));
        self.backoff.reset();
        self.given_up = false;
        Ok(())
    }

    /// Records could not be written: everything is put back. Where the broker is at fault, only what goes to the partitions
    /// concerned waits a little; where it is the record, its partition is halved until it stands alone, and then only that partition
    /// stops. Where it is the topic that is denied, there is nothing to look for: all that were to go there stop.
    fn isolate(&mut self, sent: &[Sent], faults: &[(usize, WriteFault)], denied: bool) -> Result<(), WorkError> {
        self.metrics.worker.transaction_aborted();
        let mut worst: BTreeMap<usize, WriteFault> = BTreeMap::new();
        if denied {
            // Not told which of the topics it was, so it may be that of any.
            worst.extend(sent.iter().map(|record| (record.lane, WriteFault::Denied)));
        }
        for (tag, fault) in faults.iter().filter(|(_, fault)| *fault != WriteFault::Aborted) {
            let Some(record) = sent.get(*tag) else { continue };
            let known = worst.entry(record.lane).or_insert(*fault);
            if known.is_passing() {
                *known = *fault;
            }
        }
        let nobody = worst.is_empty();
        let now = self.clock.now();
        let target = sent.first().map(|record| record.target).filter(|target| sent.iter().all(|s| s.target == *target));
        let denied_topic = target
            .filter(|_| worst.values().any(|fault| *fault == WriteFault::Denied))
            .map(|target| self.targets.resolve(target, 0).0);
        let (mut longest, mut was_denied) = (Duration::ZERO, false);
        for (index, fault) in worst {
            let taken = sent.iter().filter(|s| s.lane == index).count();
            let alone = taken == sent.len() && taken == 1;
            let lane = &mut self.lanes[index];
            let pause = lane.standstill.as_ref().map_or(FIRST_STANDSTILL, |s| (s.pause * 2).min(LONGEST_STANDSTILL));
            let told = lane.standstill.as_ref().and_then(|s| s.told);
            let mut standstill =
                Standstill { until: now.later(pause), pause, passes: fault.is_passing(), denied: denied_topic.is_some(), told };
            if fault.is_passing() {
                lane.limit = None;
                lane.standstill = Some(standstill);
                tracing::info!(partition = %lane.tp(), %fault, retry_in = ?pause, "due records cannot be written now");
                continue;
            }
            if !alone && denied_topic.is_none() {
                lane.limit = Some((taken / 2).max(1));
                continue;
            }
            let head = sent.first().filter(|_| alone && fault == WriteFault::TooLarge);
            if let Some(sent) = head.filter(|sent| lane.give_up_more(sent.offset, sent.target)) {
                tracing::debug!(partition = %lane.tp(), offset = sent.offset, "record is too large for its origin with all headers");
                continue;
            }
            if let (WriteFault::Refused(_), Some(target)) = (fault, target) {
                self.targets.recount(target, &mut self.producer);
            }
            was_denied |= lane.standstill.as_ref().is_some_and(|before| before.denied);
            let offset = sent.first().map_or(0, |s| s.offset);
            if denied_topic.is_none() {
                standstill.told = Some(offset);
            }
            lane.standstill = Some(standstill);
            longest = longest.max(pause);
            if denied_topic.is_some() {
                continue;
            }
            // An error is told once; that it goes on is a metric.
            if told == Some(offset) {
                tracing::debug!(partition = %lane.tp(), offset, %fault, retry_in = ?pause, "still written nowhere");
                continue;
            }
            tracing::error!(
                partition = %lane.tp(), offset, %fault, retry_in = ?pause,
                "record can be written nowhere, so its partition stands still; the others go on (raise max.message.bytes of the \
                 ladder's topics: `kladder setup` says how)"
            );
        }
        if let Some(topic) = denied_topic.filter(|_| was_denied) {
            tracing::debug!(topic = self.producer.topic_name(topic), retry_in = ?longest, "still not authorised to write to the topic");
        } else if let Some(topic) = denied_topic {
            tracing::error!(
                ladder = self.ladder.name(), topic = self.producer.topic_name(topic), records = sent.len(), retry_in = ?longest,
                "not authorised to write to the topic: what is due waits in its tier; grant Write on it (`kladder generate acls --role \
                 mover` prints the rules), and it will be moved"
            );
        }
        // Given up without any fault of its own, a transaction is begun again at once; the second time it is left alone for a while.
        let again = std::mem::replace(&mut self.given_up, nobody);
        if nobody && again {
            self.backoff.failed(self.clock.now());
            tracing::info!(ladder = self.ladder.name(), retry_in = ?self.backoff.pause(), "mover's transactions are given up by the client");
        }
        self.put_back(sent)
    }

    /// The transaction failed. What it held is put back, unless it turns out to have been committed.
    fn undo(&mut self, sent: Vec<Sent>, error: TxnError, began: LocalTime) -> Result<(), WorkError> {
        let (unknown, fenced) = (matches!(error, TxnError::Unknown(_)), error.cause().is_fenced());
        self.survive(error)?;
        if !unknown {
            return self.put_back(&sent);
        }
        // Initialising under the same transactional.id ends what was open, one way or the other; what is committed then is the
        // truth. A fence says that it has been ended already.
        if !fenced {
            self.producer.connect()?;
        }
        let touched: Vec<usize> = sent.iter().map(|s| s.lane).collect::<BTreeSet<_>>().into_iter().collect();
        let partitions: Vec<TopicPartition> = touched.iter().map(|i| self.lanes[*i].tp().clone()).collect();
        let committed = self.consumer.committed(&partitions)?;
        let committed: BTreeMap<usize, i64> =
            touched.into_iter().zip(committed).filter_map(|(index, committed)| Some((index, committed?.offset))).collect();
        let (moved, left): (Vec<Sent>, Vec<Sent>) =
            sent.into_iter().partition(|s| committed.get(&s.lane).is_some_and(|offset| s.offset < *offset));
        self.put_back(&left)?;
        if moved.is_empty() { Ok(()) } else { self.moved(moved, began) }
    }

    /// None of these was moved: their partitions go back to where they were.
    fn put_back(&mut self, sent: &[Sent]) -> Result<(), WorkError> {
        let touched: BTreeSet<usize> = sent.iter().map(|sent| sent.lane).collect();
        let mut to = Vec::with_capacity(touched.len());
        for index in touched {
            let lane = &mut self.lanes[index];
            lane.go_back();
            to.push((lane.tp().clone(), lane.position));
        }
        if !to.is_empty() {
            self.consumer.go_back(&to)?;
        }
        Ok(())
    }
}

fn points_of(lanes: &[Lane], sent: &[Sent]) -> Vec<(TopicPartition, CommitPoint)> {
    let mut last: BTreeMap<usize, i64> = BTreeMap::new();
    for record in sent {
        last.insert(record.lane, record.offset + 1);
    }
    let point = |index: usize, moved: i64| {
        let lane = &lanes[index];
        let offset = lane.commit_position(moved);
        (lane.tp().clone(), CommitPoint { offset, metadata: String::new() })
    };
    last.into_iter().map(|(index, offset)| point(index, offset)).collect()
}
