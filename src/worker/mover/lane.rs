//! One partition of a tier: its queue, and the records taken from its head, rarely more than one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::backoff::Backoff;
use crate::core::coordinates::Coordinates;
use crate::core::delay::Delay;
use crate::core::due::due_time;
use crate::core::leader_clock::LocalTime;
use crate::core::role::Role;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::Next;
use crate::kafka::error::WriteFault;
use crate::kafka::headers::HeaderFault;
use crate::kafka::outgoing::{Outgoing, TopicId};
use crate::kafka::partition::TopicPartition;
use crate::telemetry::events::TierMetrics;
use crate::worker::hop::barred::BarredTargets;
use crate::worker::hop::bisect::Bisect;
use crate::worker::hop::denied_partition::Denied;
use crate::worker::hop::leaders::Leaders;
use crate::worker::hop::ports::{RecordQueue, SourceRecord};
use crate::worker::hop::targets::Target;
use crate::worker::mover::given_up::DroppedParts;

/// A record taken from its partition and not moved yet.
pub(super) struct HeldRecord<R> {
    pub(super) offset: i64,
    pub(super) appended: Timestamp,
    pub(super) broker: i32,
    /// Whether the broker set the timestamp, not the producer.
    by_broker: bool,
    /// Whether it was fetched right after the previous end of its partition.
    is_fresh: bool,
    /// Why it cannot be moved with all its headers.
    pub(super) fault: Option<HeaderFault>,
    content: HeldContent<R>,
}

enum HeldContent<R> {
    /// Still in its fetch buffer, which it keeps alive: for records that move at once.
    Fetched(Box<R>),
    /// Copied out: for a record that waits, perhaps for hours.
    Detached { key: Option<Vec<u8>>, value: Option<Vec<u8>>, headers: NativeHeaders },
}

impl<R: SourceRecord> HeldRecord<R> {
    /// Whether it has a key, if only an empty one.
    pub(super) fn has_key(&self) -> bool {
        match &self.content {
            HeldContent::Fetched(record) => record.key().is_some(),
            HeldContent::Detached { key, .. } => key.is_some(),
        }
    }

    fn new(record: Box<R>, is_fresh: bool) -> Self {
        Self {
            offset: record.offset(),
            appended: record.timestamp(),
            broker: record.broker(),
            by_broker: record.has_append_time(),
            is_fresh,
            fault: record.header_fault(),
            content: HeldContent::Fetched(record),
        }
    }

    /// Updates the clock of the record's leader, unless the timestamp is its producer's.
    pub(super) fn tell_clock(&self, leaders: &mut Leaders, now: LocalTime) {
        match (self.by_broker, self.is_fresh) {
            (true, true) => leaders.fetched_fresh(self.broker, self.appended, now),
            (true, false) => leaders.fetched(self.broker, self.appended, now),
            (false, _) => {}
        }
    }

    /// Copies the record out of its fetch buffer, which may be a megabyte.
    fn detach(&mut self) {
        if let HeldContent::Fetched(record) = &mut self.content {
            let headers = record.take_headers();
            let (key, value) = (record.key().map(<[u8]>::to_vec), record.value().map(<[u8]>::to_vec));
            self.content = HeldContent::Detached { key, value, headers };
        }
    }

    pub(super) fn outgoing(&self) -> Outgoing<'_> {
        match &self.content {
            HeldContent::Fetched(record) => Outgoing { key: record.key(), value: record.value() },
            HeldContent::Detached { key, value, .. } => Outgoing { key: key.as_deref(), value: value.as_deref() },
        }
    }

    pub(super) fn size(&self) -> usize {
        let out = self.outgoing();
        out.key.map_or(0, <[u8]>::len) + out.value.map_or(0, <[u8]>::len)
    }

    /// Takes the headers; leaves none behind.
    pub(super) fn take_headers(&mut self) -> NativeHeaders {
        match &mut self.content {
            HeldContent::Fetched(record) => record.take_headers(),
            HeldContent::Detached { headers, .. } => std::mem::take(headers),
        }
    }

    /// Returns the taken headers: it is sent later.
    pub(super) fn give_headers_back(&mut self, headers: NativeHeaders) {
        self.detach();
        if let HeldContent::Detached { headers: place, .. } = &mut self.content {
            *place = headers;
        }
    }

    pub(super) fn coordinates(&self, tp: &TopicPartition) -> Coordinates {
        Coordinates { topic: tp.topic.to_string(), partition: tp.partition, offset: self.offset, timestamp: self.appended }
    }
}

/// Whether a queue has come to the end of its partition since its last record, which tells the age of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartitionEnd {
    NotReached,
    /// It has; a record after it may have been there since the queue was last polled.
    Reached,
    /// It has, and then there was nothing after it.
    Confirmed,
}

/// Whether the client fetches a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// It does.
    Open,
    /// Paused, and fetched records discarded. Then there is a head that waits for long.
    Paused,
    /// Resumed, and nothing has arrived since.
    Resumed,
}

/// A partition of a tier assigned to this member.
pub(super) struct Lane<Q: RecordQueue> {
    queue: Q,
    /// Identifies this assignment.
    pub(super) token: u64,
    pub(super) delay: Delay,
    pub(super) metrics: TierMetrics,
    /// Records taken from the queue, in order.
    held: VecDeque<HeldRecord<Q::Record>>,
    /// One past the last record taken: records repeated after a pause are skipped.
    taken: i64,
    pub(super) flow: Flow,
    /// One past the last record moved.
    pub(super) position: i64,
    /// The end of the partition as last reported by the queue: markers before it are skipped once no record is
    /// held.
    told_end: i64,
    pub(super) committed: i64,
    /// When to poll an empty queue again.
    poll_at: LocalTime,
    partition_end: PartitionEnd,
    /// The record at this offset can be written nowhere, and is paused.
    pub(super) rest: Option<(i64, Backoff)>,
    /// The target of the head, to which it could not be written last time.
    pub(super) waits_for: Option<(TopicId, i32)>,
    denied: Denied,
    has_told_refusal: bool,
    /// What the record at this offset has dropped because its origin refused it.
    pub(super) given_up: Option<(i64, DroppedParts)>,
    /// The last known end of the partition, for the number of waiting records.
    end: i64,
    /// The offset at which this member began, and the number of records that it has moved since.
    began_at: i64,
    moved: u64,
}

/// The result of taking from a lane's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakeOutcome {
    /// There is a head.
    Head,
    /// Nothing now.
    Nothing,
    /// The broker has lost the offset.
    OffsetLost,
}

impl<Q: RecordQueue> Lane<Q> {
    pub(super) fn new(queue: Q, token: u64, delay: Delay, metrics: TierMetrics, position: i64) -> Self {
        Self {
            queue,
            token,
            delay,
            metrics,
            held: VecDeque::new(),
            taken: position,
            flow: Flow::Open,
            position,
            told_end: position,
            committed: position,
            poll_at: LocalTime::from_micros(0),
            partition_end: PartitionEnd::NotReached,
            rest: None,
            waits_for: None,
            denied: Denied::default(),
            has_told_refusal: false,
            given_up: None,
            end: position,
            began_at: position,
            moved: 0,
        }
    }

    pub(super) fn tp(&self) -> &TopicPartition {
        self.queue.partition()
    }

    pub(super) fn head(&self) -> Option<&HeldRecord<Q::Record>> {
        self.held.front()
    }

    pub(super) fn pop(&mut self) -> Option<HeldRecord<Q::Record>> {
        self.held.pop_front()
    }

    /// The head is sent later: its target is not available now.
    pub(super) fn put_back(&mut self, held: HeldRecord<Q::Record>, waits_for: (TopicId, i32)) {
        self.held.push_front(held);
        self.waits_for = Some(waits_for);
    }

    /// Records taken since the last move were not moved: they will come from the queue again. So the end is unknown too, or it
    /// would be committed beyond these records.
    pub(super) fn go_back(&mut self) {
        self.held.clear();
        (self.waits_for, self.partition_end) = (None, PartitionEnd::NotReached);
        (self.taken, self.told_end) = (self.position, self.position);
        self.poll_at = LocalTime::from_micros(0);
    }

    /// The due time of the head.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.held.front().map(|h| due_time(h.appended, self.delay))
    }

    /// Microseconds until the head is due by its leader's clock; negative if it is overdue.
    pub(super) fn wait(&self, leaders: &Leaders, now: LocalTime) -> Option<i64> {
        let (due, head) = self.due().zip(self.head())?;
        Some(due.as_micros().saturating_sub(leaders.now(head.broker, now)))
    }

    /// Whether the head is due by its leader's clock.
    pub(super) fn is_due(&self, leaders: &Leaders, now: LocalTime) -> bool {
        self.wait(leaders, now).is_some_and(|wait| wait <= 0)
    }

    /// How long the head has been due.
    pub(super) fn overdue(&self, leaders: &Leaders, now: LocalTime) -> Option<Duration> {
        self.wait(leaders, now).map(|wait| Duration::from_micros(u64::try_from(wait.saturating_neg()).unwrap_or(0)))
    }

    /// Makes sure that there is a head, if the queue has one.
    pub(super) fn take(&mut self, now: LocalTime) -> TakeOutcome {
        if !self.held.is_empty() {
            return TakeOutcome::Head;
        }
        if self.poll_at > now {
            return TakeOutcome::Nothing;
        }
        loop {
            let next = self.queue.poll();
            if next.is_some() && self.flow == Flow::Resumed {
                self.flow = Flow::Open;
                self.partition_end = PartitionEnd::NotReached;
            }
            let before = self.partition_end;
            self.partition_end = match (&next, before) {
                (Some(Next::End(_)), _) => PartitionEnd::Reached,
                (None, PartitionEnd::Reached | PartitionEnd::Confirmed) => PartitionEnd::Confirmed,
                _ => PartitionEnd::NotReached,
            };
            match next {
                Some(Next::Record(record)) => {
                    self.denied.may_be_read(self.queue.partition());
                    if record.offset() < self.taken {
                        continue;
                    }
                    self.taken = record.offset() + 1;
                    self.end = self.end.max(self.taken);
                    self.held.push_back(HeldRecord::new(record, before == PartitionEnd::Confirmed));
                    return TakeOutcome::Head;
                }
                Some(Next::End(offset)) => {
                    self.denied.may_be_read(self.queue.partition());
                    self.told_end = self.told_end.max(offset);
                    self.end = self.end.max(offset);
                }
                Some(Next::OffsetLost) => return TakeOutcome::OffsetLost,
                Some(Next::Denied) => self.denied.may_not_be_read(self.queue.partition(), Role::Mover),
                Some(Next::Passing) => {}
                None => {
                    self.poll_at = LocalTime::from_micros(now.as_micros() + self.idle_micros());
                    return TakeOutcome::Nothing;
                }
            }
        }
    }

    /// Removes records from the queue that were fetched before the partition was paused.
    ///
    /// The client intends to do so itself, but stops at the barrier that it puts in front of it (librdkafka #5218; also in 2.12).
    /// Polling the queue gets past both.
    ///
    /// Only records fetched before can be there, but events that the client does not repeat must not be lost: a record, missing permission
    /// to read, a lost offset.
    pub(super) fn drop_fetched(&mut self) -> TakeOutcome {
        self.partition_end = PartitionEnd::NotReached;
        match self.queue.poll() {
            Some(Next::Record(record)) if record.offset() >= self.taken => {
                self.taken = record.offset() + 1;
                let mut held = HeldRecord::new(record, false);
                held.detach();
                self.held.push_back(held);
                TakeOutcome::Head
            }
            Some(Next::Denied) => {
                self.denied.may_not_be_read(self.queue.partition(), Role::Mover);
                TakeOutcome::Nothing
            }
            Some(Next::OffsetLost) => TakeOutcome::OffsetLost,
            Some(Next::Record(_) | Next::End(_) | Next::Passing) | None => TakeOutcome::Nothing,
        }
    }

    /// Copies the head out of its fetch buffer: it is going to wait.
    pub(super) fn settle_to_wait(&mut self) {
        if let Some(head) = self.held.front_mut() {
            head.detach();
        }
    }

    /// How long an empty queue is not polled: a record that arrives meanwhile waits for its delay
    /// anyway.
    pub(super) fn idle_micros(&self) -> i64 {
        let quarter = i64::try_from(self.delay.duration().as_micros() / 8).unwrap_or(i64::MAX);
        quarter.clamp(1_000, 25_000)
    }

    /// When to poll the lane next; `None` while it has a head.
    pub(super) fn next_poll(&self) -> Option<LocalTime> {
        self.held.is_empty().then_some(self.poll_at)
    }

    /// The record at this offset was too large for its target. Returns whether there is more to drop.
    pub(super) fn give_up_more(&mut self, offset: i64, target: Target) -> bool {
        let so_far = self.given_up.filter(|(of, _)| *of == offset).map_or(DroppedParts::NOTHING, |(_, given_up)| given_up);
        let more = matches!(target, Target::Source(_)).then(|| so_far.more()).flatten();
        self.given_up = more.map(|more| (offset, more)).or(self.given_up);
        more.is_some()
    }

    /// The origin of the record at this offset refuses it permanently. Returns whether it can go
    /// elsewhere.
    pub(super) fn is_refused(&mut self, offset: i64, (target, topic): (Target, &str), words: &'static str) -> bool {
        if !matches!(target, Target::Source(_)) {
            return false;
        }
        self.given_up = Some((offset, DroppedParts::Refused(words)));
        // Logged once; the number is a metric, and each record has the message.
        if !std::mem::replace(&mut self.has_told_refusal, true) {
            let (partition, remedy) = (self.queue.partition(), WriteFault::Refused(words).remedy());
            tracing::warn!(
                %partition, offset, topic, refusal = words,
                "origin refuses a record, which goes to the DLQ with reason refused, as will further ones ({remedy})"
            );
        }
        true
    }

    /// Whether it is stopped: it may not be read, or its head cannot be written anywhere, or not now.
    pub(super) fn is_stopped(&self, barred: &BarredTargets) -> bool {
        self.denied.is_so() || self.rest.is_some() || self.waits_for.is_some_and(|target| barred.is_barred(target))
    }

    /// Until when nothing of it is tried, because of barred targets or refused records.
    pub(super) fn rests_until(&self, barred: &BarredTargets) -> Option<LocalTime> {
        let bar = self.waits_for.and_then(|target| barred.until(target));
        self.rest.map(|(_, rest)| rest.until()).into_iter().chain(bar).max()
    }

    /// Maximum number of its records to send at once, with no others, during the search for a refused record.
    pub(super) fn limit(&self, bisect: &Bisect) -> Option<usize> {
        if self.rest.is_some() || self.given_up.is_some() { Some(1) } else { bisect.limit(self.token) }
    }

    /// The offset to commit once everything below `moved` is moved: that, or the end of the partition if no record is held, since
    /// only transaction markers are in between. (The client reports an end only once.)
    pub(super) fn commit_position(&self, moved: i64) -> i64 {
        if self.held.is_empty() { moved.max(self.told_end) } else { moved }
    }

    /// Sets the end of the partition, as reported by the broker.
    pub(super) fn ends_at(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    /// Records below `position` were moved.
    pub(super) fn moved_to(&mut self, position: i64, records: u64) {
        self.moved += records;
        self.position = position;
        (self.rest, self.given_up, self.waits_for) = (None, None, None);
    }

    /// Estimated number of waiting records: offsets, some of which are transaction markers, times the ratio of records to
    /// offsets observed so far.
    pub(super) fn waiting(&self, known_end: Option<i64>) -> u64 {
        let end = known_end.map_or(self.end, |e| e.max(self.end));
        let offsets = u64::try_from(end - self.commit_position(self.position)).unwrap_or(0);
        let taken = u64::try_from(self.commit_position(self.position) - self.began_at).unwrap_or(0);
        let estimate = if self.moved == 0 { offsets } else { offsets.saturating_mul(self.moved) / taken.max(1) };
        estimate.max(self.held.len() as u64)
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
