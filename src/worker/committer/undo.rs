//! What follows when hops could not be written, or nobody knows whether they were.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::leader_clock::LocalTime;
use crate::kafka::error::{TxnError, WriteFault};
use crate::kafka::producer::TopicId;
use crate::worker::committer::hop::Hop;
use crate::worker::committer::{Committer, Work};
use crate::worker::error::WorkError;
use crate::worker::ports::{HopSink, RecordSource};

impl<W: Work> Committer<W> {
    /// Some could not be written. Where the record is at fault and not the broker, it is looked for by sending each alone; it
    /// gives up diagnostics one after the other, and then only its partition stops.
    pub(super) fn refused(&mut self, batch: Vec<Hop<W::Place>>, faults: &[(usize, WriteFault)], denied: bool) {
        self.metrics.transaction_aborted();
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
            tracing::info!(ladder = self.ladder.name(), fault, retry_in = ?self.backoff.pause(), "{}'s writes failed", self.role);
        }
    }

    /// Bars the topics that were denied. Where it is not told which of them it was (`denied`), all are suspected. Whether there was
    /// any is returned.
    fn bar_denied(&mut self, batch: &[Hop<W::Place>], faults: &[(usize, WriteFault)], denied: bool, now: LocalTime) -> bool {
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
            // An error is told once; that it goes on is a metric.
            let was_barred = self.barred.is_barred(*topic);
            let retry_in = self.barred.bar(*topic, now);
            if was_barred {
                tracing::debug!(topic = self.sink.topic_name(*topic), ?retry_in, "still not authorised to write to the topic");
                continue;
            }
            let records = batch.iter().filter(|hop| self.targets.resolve(hop).0 == *topic).count();
            tracing::error!(
                ladder = self.ladder.name(),
                topic = self.sink.topic_name(*topic),
                records,
                ?retry_in,
                "not authorised to write to the topic: the partitions of records that have to go there stand still, the others go on; \
                 grant Write on it (`kladder generate acls --role {}` prints the rules), and they will be written",
                self.role
            );
        }
        denied || !barred.is_empty()
    }

    pub(super) fn topics_of(&self, batch: &[Hop<W::Place>]) -> BTreeSet<TopicId> {
        batch.iter().map(|hop| self.targets.resolve(hop).0).collect()
    }

    fn stop_partition(&self, hop: &mut Hop<W::Place>, fault: WriteFault, now: LocalTime) {
        let pause = hop.resting.map_or(Duration::from_secs(1), |(_, pause)| (pause * 2).min(Duration::from_secs(60)));
        let was_told = hop.resting.replace((now.later(pause), pause)).is_some();
        let Some(lane) = self.lane_of(hop.id.token) else { return };
        if was_told {
            tracing::debug!(partition = %lane.tp(), offset = hop.id.offset, %fault, retry_in = ?pause, "still written nowhere");
            return;
        }
        tracing::error!(
            partition = %lane.tp(), offset = hop.id.offset, %fault, retry_in = ?pause,
            "record can be written nowhere, so its partition stands still; the others go on (raise max.message.bytes of the \
             ladder's topics: `kladder setup` says how)"
        );
    }

    /// The transaction failed: its hops are tried again, unless it turns out to have been committed.
    pub(super) fn undo(&mut self, batch: Vec<Hop<W::Place>>, error: TxnError) -> Result<(), WorkError> {
        let (unknown, fenced) = (matches!(error, TxnError::Unknown(_)), error.cause().is_fenced());
        self.metrics.transaction_aborted();
        self.sink.recover(&error);
        if error.cause().is_rival() {
            return Err(error.into());
        }
        self.backoff.failed(self.clock.now());
        if error.cause().is_denied() && self.backoff.is_to_be_told() {
            tracing::error!(ladder = self.ladder.name(), %error, retry_in = ?self.backoff.pause(), "{} is not allowed what it needs", self.role);
        } else {
            tracing::info!(ladder = self.ladder.name(), %error, retry_in = ?self.backoff.pause(), "{}'s transaction failed", self.role);
        }
        if !unknown {
            self.hops.extend(batch);
            return Ok(());
        }
        // Initialising under the same transactional.id ends what was open, one way or the other; what is committed then is the
        // truth. A fence says that it has been ended already.
        if !fenced {
            self.sink.connect()?;
        }
        let partitions = self.owned();
        let committed = self.source.committed(&partitions)?;
        for (lane, committed) in self.lanes.iter_mut().zip(committed) {
            let Some(committed) = committed else { continue };
            lane.committed = CommitPoint { offset: committed.offset, metadata: committed.metadata };
        }
        for hop in batch {
            match self.lane_of(hop.id.token) {
                Some(lane) if lane.committed.finishes(hop.id.offset) => self.note_hopped(&hop),
                Some(_) => self.hops.push(hop),
                None => {}
            }
        }
        Ok(())
    }
}
