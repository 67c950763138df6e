//! Hops of the deliverer: failed records leave in a transaction together with the offsets that they consume.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::envelope::{self, Envelope, Reason, Trim};
use crate::core::leader_clock::LocalTime;
use crate::core::topics;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::TopicPartition;
use crate::kafka::error::{TxnError, WriteFault};
use crate::kafka::producer::{Outgoing, TopicId};
use crate::worker::deliverer::Deliverer;
use crate::worker::deliverer::dispatch::{RecordId, Slots};
use crate::worker::error::WorkError;
use crate::worker::handler::Handler;

/// A transaction costs by the partitions that it writes to.
const MOST_TARGETS: usize = 16;

/// The most records of a transaction.
const MOST_HOPS: usize = 2_000;

/// A failed record on its way to a tier or to the DLQ.
pub(super) struct Hop {
    pub(super) id: RecordId,
    pub(super) target: Target,
    pub(super) envelope: Envelope,
    pub(super) content: Content,
    /// Diagnostics that were given up because the record was too large with them.
    trim: Trim,
    /// To be sent alone: sent with others it could not be written, and it is not known which of them is at fault.
    alone: bool,
    /// Not before then, after it could be written nowhere.
    resting: Option<(LocalTime, Duration)>,
    /// Free again when the hop is committed, or stands still.
    slots: Slots,
}

/// What of a record goes along unchanged.
pub(super) struct Content {
    pub(super) key: Option<bytes::Bytes>,
    pub(super) value: Option<bytes::Bytes>,
    pub(super) headers: NativeHeaders,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Tier(u32),
    Dlq(Reason),
}

/// The topics that a deliverer writes to, with their partition counts.
pub(super) struct Targets {
    pub(super) tiers: Vec<(TopicId, i32)>,
    pub(super) dlq: (TopicId, i32),
}

impl Targets {
    fn resolve(&self, hop: &Hop) -> (TopicId, i32) {
        let (topic, count) = match hop.target {
            Target::Tier(number) => {
                let index = usize::try_from(number).unwrap_or(1).saturating_sub(1);
                self.tiers.get(index).copied().unwrap_or(self.dlq)
            }
            Target::Dlq(_) => self.dlq,
        };
        (topic, topics::target_partition(hop.envelope.origin.partition, count))
    }
}

impl Hop {
    pub(super) fn new(id: RecordId, target: Target, envelope: Envelope, content: Content, slots: Slots) -> Self {
        Self { id, target, envelope, content, trim: Trim::Nothing, alone: false, resting: None, slots }
    }

    fn headers(&self) -> NativeHeaders {
        let mut headers = self.content.headers.clone();
        headers.remove_if(envelope::is_own);
        for (name, value) in self.envelope.headers(self.trim) {
            headers.push(name.as_bytes(), Some(value.as_bytes()));
        }
        headers
    }
}

impl<H: Handler> Deliverer<H> {
    /// Carries out hops until none is left that can go now. An error that passes leaves them for later.
    pub(super) fn run_hops(&mut self) -> Result<(), WorkError> {
        while !self.hops.is_empty() && self.clock.now() >= self.backoff.until() {
            let batch = self.next_batch();
            if batch.is_empty() {
                break;
            }
            self.run_batch(batch)?;
        }
        self.note_standstills();
        Ok(())
    }

    /// Whether a hop waits for somebody to mend something. It may be on its way again, but it has not been written yet.
    pub(super) fn stands_still(&self, hop: &Hop) -> bool {
        hop.resting.is_some() || self.barred.is_barred(self.targets.resolve(hop).0)
    }

    /// The partitions of hops that stand still take nothing new.
    fn note_standstills(&mut self) {
        let mut hops = std::mem::take(&mut self.hops);
        let mut tokens = BTreeSet::new();
        self.standing = 0;
        for hop in &mut hops {
            if self.stands_still(hop) {
                self.standing += 1;
                // It may rest for long, and others are to be delivered meanwhile.
                hop.slots = Slots::default();
                tokens.insert(hop.id.token);
            }
        }
        self.hops = hops;
        self.lanes.iter_mut().for_each(|lane| lane.standstill = tokens.contains(&lane.token));
    }

    /// What goes into the next transaction. Records of partitions that have gone are dropped here: their next owner has them.
    fn next_batch(&mut self) -> Vec<Hop> {
        let now = self.clock.now();
        let lanes: BTreeSet<u64> = self.lanes.iter().map(|lane| lane.token).collect();
        let mut targets = BTreeSet::new();
        let mut batch: Vec<Hop> = Vec::new();
        let mut left = Vec::with_capacity(self.hops.len());
        for hop in std::mem::take(&mut self.hops) {
            if !lanes.contains(&hop.id.token) {
                continue;
            }
            let target = self.targets.resolve(&hop);
            let rests = hop.resting.is_some_and(|(until, _)| until > now) || self.barred.rests(target.0, now);
            let fits = match batch.first() {
                None => true,
                Some(first) => {
                    let topic = self.targets.resolve(first).0;
                    let may_mix = !self.barred.goes_alone(topic) && !self.barred.goes_alone(target.0);
                    !first.alone && !hop.alone && batch.len() < MOST_HOPS && (topic == target.0 || may_mix)
                }
            };
            if !rests && fits && (targets.contains(&target) || targets.len() < MOST_TARGETS) {
                targets.insert(target);
                batch.push(hop);
            } else {
                left.push(hop);
            }
        }
        self.hops = left;
        batch
    }

    fn run_batch(&mut self, batch: Vec<Hop>) -> Result<(), WorkError> {
        let began = self.clock.now();
        let Some(group) = self.consumer.live_group() else {
            // No offset may be sent now; the group will say what comes next.
            self.hops.extend(batch);
            self.backoff.failed(self.clock.now());
            return Ok(());
        };
        let outcome = self.producer.begin().and_then(|()| {
            let mut faults = Vec::new();
            for topic in self.topics_of(&batch).into_iter().filter(|topic| self.barred.is_barred(*topic)) {
                self.producer.look_again(topic);
            }
            for (tag, hop) in batch.iter().enumerate() {
                let (topic, partition) = self.targets.resolve(hop);
                let out = Outgoing { key: hop.content.key.as_deref(), value: hop.content.value.as_deref() };
                if let Err(fault) = self.producer.send(topic, partition, out, hop.headers(), tag) {
                    faults.push((tag, fault));
                }
            }
            let settled = self.producer.settle()?;
            if let Some(reading) = settled.clock {
                self.leaders.read(&reading);
            }
            faults.extend(settled.faults);
            if !faults.is_empty() {
                self.producer.abort();
                return Ok((faults, settled.denied, Vec::new()));
            }
            let points = self.points_with(&batch);
            if self.producer.is_transactional() {
                self.producer.send_offsets(&group, &points)?;
                self.producer.commit()?;
            }
            Ok((faults, false, points))
        });
        match outcome {
            Ok((faults, _, points)) if faults.is_empty() => self.hopped(&batch, points, began),
            Ok((faults, denied, _)) => self.refused(batch, &faults, denied),
            Err(error) => self.undo(batch, error)?,
        }
        Ok(())
    }

    /// What a commit of this batch carries: its own offsets as finished, and along with them whatever else has finished.
    fn points_with(&self, batch: &[Hop]) -> Vec<(TopicPartition, CommitPoint)> {
        let mut also: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        for hop in batch {
            also.entry(hop.id.token).or_default().push(hop.id.offset);
        }
        self.lanes
            .iter()
            .filter_map(|lane| {
                let point = lane.tracker.commit_point_with(also.get(&lane.token).map_or(&[], Vec::as_slice));
                (point != lane.committed).then(|| (lane.tp().clone(), point))
            })
            .collect()
    }

    fn hopped(&mut self, batch: &[Hop], points: Vec<(TopicPartition, CommitPoint)>, began: LocalTime) {
        for hop in batch {
            self.note_hopped(hop);
        }
        if self.producer.is_transactional() {
            self.note_committed(points);
        }
        for topic in self.topics_of(batch) {
            if self.barred.written(topic) {
                tracing::info!(topic = self.producer.topic_name(topic), "topic may be written to again");
            }
        }
        self.metrics.worker.transaction_committed(self.clock.now().since(began));
        self.backoff.reset();
        self.given_up = false;
    }

    fn note_hopped(&mut self, hop: &Hop) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.token == hop.id.token) {
            lane.tracker.finish(hop.id.offset);
        }
        match hop.target {
            Target::Tier(number) => self.metrics.hops.to_tier(number, 1),
            Target::Dlq(reason) => self.metrics.hops.dead_lettered(reason),
        }
        tracing::trace!(ladder = self.ladder.name(), target = ?hop.target, attempts = hop.envelope.attempts, "hopped");
    }

    /// Some could not be written. Where the record is at fault and not the broker, it is looked for by sending each alone; it
    /// gives up diagnostics one after the other, and then only its partition stops.
    fn refused(&mut self, batch: Vec<Hop>, faults: &[(usize, WriteFault)], denied: bool) {
        self.metrics.worker.transaction_aborted();
        let now = self.clock.now();
        let was_alone = batch.len() == 1;
        let mut lasting = self.bar_denied(&batch, faults, denied, now);
        for (tag, mut hop) in batch.into_iter().enumerate() {
            let fault = faults.iter().find(|(t, fault)| *t == tag && fault.lasts()).map(|(_, f)| *f);
            if let Some(fault) = fault {
                lasting = true;
                match (was_alone, fault, hop.trim.next()) {
                    (false, ..) => hop.alone = true,
                    (true, WriteFault::TooLarge, Some(trim)) => hop.trim = trim,
                    (true, ..) => self.stop_partition(&mut hop, fault, now),
                }
            }
            self.hops.push(hop);
        }
        if lasting {
            self.given_up = false;
            self.backoff.reset();
        } else if faults.iter().any(|(_, fault)| *fault != WriteFault::Aborted) || std::mem::replace(&mut self.given_up, true) {
            let fault = faults.first().map(|(_, fault)| fault.to_string()).unwrap_or_default();
            self.backoff.failed(self.clock.now());
            tracing::info!(ladder = self.ladder.name(), fault, retry_in = ?self.backoff.pause(), "deliverer's writes failed");
        }
    }

    /// Bars the topics that were denied. Where it is not told which of them it was (`denied`), all are suspected. Whether there was
    /// any is returned.
    fn bar_denied(&mut self, batch: &[Hop], faults: &[(usize, WriteFault)], denied: bool, now: LocalTime) -> bool {
        let told = faults.iter().filter(|(_, fault)| *fault == WriteFault::Denied).filter_map(|(tag, _)| batch.get(*tag));
        let mut barred: BTreeSet<TopicId> = told.map(|hop| self.targets.resolve(hop).0).collect();
        let topics = self.topics_of(batch);
        if denied && topics.len() == 1 {
            barred = topics;
        } else if denied {
            for topic in &topics {
                self.barred.suspect(*topic);
            }
        }
        for topic in &barred {
            let retry_in = self.barred.bar(*topic, now);
            let records = batch.iter().filter(|hop| self.targets.resolve(hop).0 == *topic).count();
            tracing::error!(
                ladder = self.ladder.name(),
                topic = self.producer.topic_name(*topic),
                records,
                ?retry_in,
                "not authorised to write to the topic: the partitions of records that have to go there stand still, the others go on; \
                 grant Write on it (`kladder generate acls --role deliverer` prints the rules), and they will be written"
            );
        }
        denied || !barred.is_empty()
    }

    fn topics_of(&self, batch: &[Hop]) -> BTreeSet<TopicId> {
        batch.iter().map(|hop| self.targets.resolve(hop).0).collect()
    }

    fn stop_partition(&self, hop: &mut Hop, fault: WriteFault, now: LocalTime) {
        let pause = hop.resting.map_or(Duration::from_secs(1), |(_, pause)| (pause * 2).min(Duration::from_secs(60)));
        hop.resting = Some((now.later(pause), pause));
        let Some(lane) = self.lanes.iter().find(|lane| lane.token == hop.id.token) else { return };
        tracing::error!(
            partition = %lane.tp(), offset = hop.id.offset, %fault, retry_in = ?pause,
            "record can be written nowhere, so its partition stands still; the others go on (raise max.message.bytes of the \
             ladder's topics: `kladder setup` says how)"
        );
    }

    /// The transaction failed: its hops are tried again, unless it turns out to have been committed.
    fn undo(&mut self, batch: Vec<Hop>, error: TxnError) -> Result<(), WorkError> {
        let (unknown, fenced) = (matches!(error, TxnError::Unknown(_)), error.cause().is_fenced());
        self.metrics.worker.transaction_aborted();
        self.producer.recover(&error);
        if matches!(error, TxnError::Rival(_)) {
            return Err(error.into());
        }
        self.backoff.failed(self.clock.now());
        if error.cause().is_denied() {
            tracing::error!(ladder = self.ladder.name(), %error, retry_in = ?self.backoff.pause(), "deliverer is not allowed what it needs");
        } else {
            tracing::info!(ladder = self.ladder.name(), %error, retry_in = ?self.backoff.pause(), "deliverer's transaction failed");
        }
        if !unknown {
            self.hops.extend(batch);
            return Ok(());
        }
        // Initialising under the same transactional.id ends what was open, one way or the other; what is committed then is the
        // truth. A fence says that it has been ended already.
        if !fenced {
            self.producer.connect()?;
        }
        let partitions: Vec<TopicPartition> = self.lanes.iter().map(|lane| lane.tp().clone()).collect();
        let committed = self.consumer.committed(&partitions)?;
        for (lane, committed) in self.lanes.iter_mut().zip(committed) {
            let Some(committed) = committed else { continue };
            lane.committed = CommitPoint { offset: committed.offset, metadata: committed.metadata };
        }
        for hop in batch {
            match self.lanes.iter().find(|lane| lane.token == hop.id.token) {
                Some(lane) if lane.committed.finishes(hop.id.offset) => self.note_hopped(&hop),
                Some(_) => self.hops.push(hop),
                None => {}
            }
        }
        Ok(())
    }
}
