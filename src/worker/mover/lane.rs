//! One partition of a tier: its queue, and the records at its head that were taken from it: hardly ever more than one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::coordinates::Coordinates;
use crate::core::delay::Delay;
use crate::core::due::due_time;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::Next;
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::{Outgoing, TopicId};
use crate::telemetry::events::TierMetrics;
use crate::worker::hop::barred::BarredTargets;
use crate::worker::hop::bisect::Bisect;
use crate::worker::hop::denied_partition::Denied;
use crate::worker::hop::engine::Rest;
use crate::worker::hop::leaders::Leaders;
use crate::worker::hop::ports::{RecordQueue, SourceRecord};
use crate::worker::hop::targets::Target;
use crate::worker::mover::given_up::GivenUp;

/// A record taken from its partition and not yet moved.
pub(super) struct Held<R> {
    pub(super) offset: i64,
    pub(super) appended: Timestamp,
    pub(super) broker: i32,
    /// The broker set the timestamp, not whoever produced the record.
    by_broker: bool,
    content: Content<R>,
}

enum Content<R> {
    /// Still in the memory that it was fetched into, which it keeps: for those that move at once.
    Fetched(Box<R>),
    /// Copied out: for the one that waits, perhaps for hours.
    Detached { key: Option<Vec<u8>>, value: Option<Vec<u8>>, headers: NativeHeaders },
}

impl<R: SourceRecord> Held<R> {
    fn new(record: Box<R>) -> Self {
        Self {
            offset: record.offset(),
            appended: record.timestamp(),
            broker: record.broker(),
            by_broker: record.has_append_time(),
            content: Content::Fetched(record),
        }
    }

    /// What the record tells of its leader's clock: nothing if the timestamp is its producer's.
    pub(super) fn tell_clock(&self, leaders: &mut Leaders, now: LocalTime) {
        if self.by_broker {
            leaders.fetched(self.broker, self.appended, now);
        }
    }

    /// Copies the record out of its fetch, which may be a megabyte.
    fn detach(&mut self) {
        if let Content::Fetched(record) = &mut self.content {
            let headers = record.take_headers();
            let (key, value) = (record.key().map(<[u8]>::to_vec), record.value().map(<[u8]>::to_vec));
            self.content = Content::Detached { key, value, headers };
        }
    }

    pub(super) fn outgoing(&self) -> Outgoing<'_> {
        match &self.content {
            Content::Fetched(record) => Outgoing { key: record.key(), value: record.value() },
            Content::Detached { key, value, .. } => Outgoing { key: key.as_deref(), value: value.as_deref() },
        }
    }

    pub(super) fn size(&self) -> usize {
        let out = self.outgoing();
        out.key.map_or(0, <[u8]>::len) + out.value.map_or(0, <[u8]>::len)
    }

    /// The headers, to be written on; it has none from then on.
    pub(super) fn take_headers(&mut self) -> NativeHeaders {
        match &mut self.content {
            Content::Fetched(record) => record.take_headers(),
            Content::Detached { headers, .. } => std::mem::take(headers),
        }
    }

    /// The headers, which were taken out of it, are back: it goes later.
    pub(super) fn give_headers_back(&mut self, headers: NativeHeaders) {
        self.detach();
        if let Content::Detached { headers: place, .. } = &mut self.content {
            *place = headers;
        }
    }

    pub(super) fn coordinates(&self, tp: &TopicPartition) -> Coordinates {
        Coordinates { topic: tp.topic.to_string(), partition: tp.partition, offset: self.offset, timestamp: self.appended }
    }
}

/// Whether the client fetches for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// It does.
    Open,
    /// It was told not to, and what it had fetched is thrown away. There is a head then that waits for long.
    Paused,
    /// It was told to go on, and nothing has come since.
    Resumed,
}

/// A partition of a tier that this member owns.
pub(super) struct Lane<Q: RecordQueue> {
    queue: Q,
    /// Names this assignment.
    pub(super) token: u64,
    pub(super) delay: Delay,
    pub(super) metrics: TierMetrics,
    /// Taken from the queue, in order.
    held: VecDeque<Held<Q::Record>>,
    /// One past the last record that was taken: what the client gives again after it was paused is passed over.
    taken: i64,
    pub(super) flow: Flow,
    /// One past the last record that was moved.
    pub(super) position: i64,
    /// The end of the partition when the queue last told it: the markers before it are passed once nothing is held.
    told_end: i64,
    pub(super) committed: i64,
    /// An empty queue is looked at again from then on.
    poll_at: LocalTime,
    /// The record at this offset can be written nowhere, and rests.
    pub(super) rest: Option<(i64, Rest)>,
    /// The head has to go there, which could not be at the last try.
    pub(super) waits_for: Option<(TopicId, i32)>,
    denied: Denied,
    /// What the record at this offset has given up because it was too large for its origin.
    pub(super) given_up: Option<(i64, GivenUp)>,
    /// The end of the partition as last seen, for the count of waiting records.
    end: i64,
    /// Where this member began, and how many records it has moved since.
    began_at: i64,
    moved: u64,
}

/// What taking from a lane's queue gave.
pub(super) enum Taken {
    /// There is a head.
    Head,
    /// There is nothing now.
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
            rest: None,
            waits_for: None,
            denied: Denied::default(),
            given_up: None,
            end: position,
            began_at: position,
            moved: 0,
        }
    }

    pub(super) fn tp(&self) -> &TopicPartition {
        self.queue.partition()
    }

    pub(super) fn head(&self) -> Option<&Held<Q::Record>> {
        self.held.front()
    }

    pub(super) fn pop(&mut self) -> Option<Held<Q::Record>> {
        self.held.pop_front()
    }

    /// The head goes later: it has to go where that is not possible now.
    pub(super) fn put_back(&mut self, held: Held<Q::Record>, waits_for: (TopicId, i32)) {
        self.held.push_front(held);
        self.waits_for = Some(waits_for);
    }

    /// What was taken since the last move was not moved after all: it will come from the queue once more. So nothing is known of
    /// the end either, or it would be committed over the heads of these.
    pub(super) fn go_back(&mut self) {
        self.held.clear();
        self.waits_for = None;
        (self.taken, self.told_end) = (self.position, self.position);
        self.poll_at = LocalTime::from_micros(0);
    }

    /// The due time of the head.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.held.front().map(|h| due_time(h.appended, self.delay))
    }

    /// Microseconds until the head is due by its leader's clock, fewer than none when it is overdue.
    pub(super) fn wait(&self, leaders: &Leaders, now: LocalTime) -> Option<i64> {
        let (due, head) = self.due().zip(self.head())?;
        Some(due.as_micros().saturating_sub(leaders.now(head.broker, now)))
    }

    /// Whether the head is due by its leader's clock.
    pub(super) fn is_due(&self, leaders: &Leaders, now: LocalTime) -> bool {
        self.wait(leaders, now).is_some_and(|wait| wait <= 0)
    }

    /// For how long the head has been due.
    pub(super) fn overdue(&self, leaders: &Leaders, now: LocalTime) -> Option<Duration> {
        self.wait(leaders, now).map(|wait| Duration::from_micros(u64::try_from(wait.saturating_neg()).unwrap_or(0)))
    }

    /// Sees to it that there is a head, if the queue has one.
    pub(super) fn take(&mut self, now: LocalTime) -> Taken {
        if !self.held.is_empty() {
            return Taken::Head;
        }
        if self.poll_at > now {
            return Taken::Nothing;
        }
        loop {
            let next = self.queue.poll();
            if next.is_some() && self.flow == Flow::Resumed {
                self.flow = Flow::Open;
            }
            match next {
                Some(Next::Record(record)) => {
                    self.denied.may_be_read(self.queue.partition());
                    if record.offset() < self.taken {
                        continue;
                    }
                    self.taken = record.offset() + 1;
                    self.end = self.end.max(self.taken);
                    self.held.push_back(Held::new(record));
                    return Taken::Head;
                }
                Some(Next::End(offset)) => {
                    self.denied.may_be_read(self.queue.partition());
                    self.told_end = self.told_end.max(offset);
                    self.end = self.end.max(offset);
                }
                Some(Next::OffsetLost) => return Taken::OffsetLost,
                Some(Next::Denied) => self.denied.may_not_be_read(self.queue.partition(), "mover"),
                Some(Next::Passing) => {}
                None => {
                    self.poll_at = LocalTime::from_micros(now.as_micros() + self.idle_micros());
                    return Taken::Nothing;
                }
            }
        }
    }

    /// Rids the queue of what was fetched before the partition was paused.
    ///
    /// The client means to do so itself, and yet stops at the mark that it puts in front of it (librdkafka #5218; so it is in 2.12).
    /// Whoever takes from the queue passes both.
    pub(super) fn drop_fetched(&mut self) {
        // Nothing but what was fetched before may be there, but a record that is given must not vanish.
        match self.queue.poll() {
            Some(Next::Record(record)) if record.offset() >= self.taken => {
                self.taken = record.offset() + 1;
                let mut held = Held::new(record);
                held.detach();
                self.held.push_back(held);
            }
            // Nor may this, which the client does not say twice.
            Some(Next::Denied) => self.denied.may_not_be_read(self.queue.partition(), "mover"),
            _ => {}
        }
    }

    /// Copies the head out of its fetch: it is going to wait.
    pub(super) fn settle_to_wait(&mut self) {
        if let Some(head) = self.held.front_mut() {
            head.detach();
        }
    }

    /// How long an empty queue is left alone: a record that comes meanwhile waits for its delay anyway.
    pub(super) fn idle_micros(&self) -> i64 {
        let quarter = i64::try_from(self.delay.duration().as_micros() / 8).unwrap_or(i64::MAX);
        quarter.clamp(1_000, 25_000)
    }

    /// When the lane has to be looked at next for what may have arrived; `None` while it has a head.
    pub(super) fn next_poll(&self) -> Option<LocalTime> {
        self.held.is_empty().then_some(self.poll_at)
    }

    /// The record at this offset was too large for where it had to go. Whether there is more that it can give up.
    pub(super) fn give_up_more(&mut self, offset: i64, target: Target) -> bool {
        let so_far = self.given_up.filter(|(of, _)| *of == offset).map_or(GivenUp::NOTHING, |(_, given_up)| given_up);
        let more = matches!(target, Target::Source(_)).then(|| so_far.more()).flatten();
        self.given_up = more.map(|more| (offset, more)).or(self.given_up);
        more.is_some()
    }

    /// Whether it stands still: it may not be read, or what is first in it can be written nowhere, or not now.
    pub(super) fn is_stopped(&self, barred: &BarredTargets) -> bool {
        self.denied.is_so() || self.rest.is_some() || self.waits_for.is_some_and(|target| barred.is_barred(target))
    }

    /// Until when nothing of it is tried, as far as targets and records that no target takes go.
    pub(super) fn rests_until(&self, barred: &BarredTargets) -> Option<LocalTime> {
        let bar = self.waits_for.and_then(|target| barred.until(target));
        self.rest.map(|(_, rest)| rest.until).into_iter().chain(bar).max()
    }

    /// So many of it go at once, and with no others, while a record that no target takes is looked for, or tried again.
    pub(super) fn limit(&self, bisect: &Bisect) -> Option<usize> {
        if self.rest.is_some() || self.given_up.is_some() { Some(1) } else { bisect.limit(self.token) }
    }

    /// What may be committed once everything below `moved` is moved: that, or the end of the partition when nothing is held, since
    /// only transaction markers lie between. (The client tells an end only once.)
    pub(super) fn commit_position(&self, moved: i64) -> i64 {
        if self.held.is_empty() { moved.max(self.told_end) } else { moved }
    }

    /// Notes where the partition ends, as the broker was asked.
    pub(super) fn ends_at(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    /// Notes that records below `position` were moved.
    pub(super) fn moved_to(&mut self, position: i64, records: u64) {
        self.moved += records;
        self.position = position;
        (self.rest, self.given_up, self.waits_for) = (None, None, None);
    }

    /// Records that wait here, as an estimate: offsets, of which some are transaction markers, times the records an offset that
    /// were seen so far.
    pub(super) fn waiting(&self, known_end: Option<i64>) -> u64 {
        let end = known_end.map_or(self.end, |e| e.max(self.end));
        let offsets = u64::try_from(end - self.commit_position(self.position)).unwrap_or(0);
        let taken = u64::try_from(self.commit_position(self.position) - self.began_at).unwrap_or(0);
        let estimate = if self.moved == 0 { offsets } else { offsets.saturating_mul(self.moved) / taken.max(1) };
        estimate.max(self.held.len() as u64)
    }
}
