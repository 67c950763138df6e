//! The steps of a transaction.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;

use super::{Began, DELIVERY_TIMEOUT, HopProducer, TRANSACTION_TIMEOUT};
use crate::core::ack_tracker::CommitPoint;
use crate::core::time::Timestamp;
use crate::kafka::consumer::{LiveGroup, points_list};
use crate::kafka::error::{ClientError, TxnError, WriteFault, is_fence};
use crate::kafka::ffi::{self, NativeHeaders};
use crate::kafka::outgoing::{ClockReading, Outgoing, Settled, TopicId};
use crate::kafka::partition::TopicPartition;
use crate::kafka::transaction::Writer;

/// How long a commit is retried before its outcome counts as unknown.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(12);

/// Maximum number of bytes in flight to the brokers; a single larger record is allowed.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

/// The duration of a first delivery is used only if all records were handed over within this time.
const SOON: Duration = Duration::from_millis(5);

/// Maximum wait for an abort by a producer that will be recreated anyway.
const HASTY_ABORT: Duration = Duration::from_secs(3);

impl Writer for HopProducer {
    type Group = LiveGroup;

    fn is_transactional(&self) -> bool {
        self.transactional_id.is_some()
    }

    fn begin(&mut self) -> Result<(), TxnError> {
        self.connect()?;
        self.first_sent = None;
        self.not_taken = false;
        if self.is_transactional() {
            let client = &self.live.as_ref().expect("connected").client;
            client.begin_transaction().map_err(|e| TxnError::of("beginning a transaction", &e))?;
            self.in_transaction = true;
            self.began = Some(Began { at: self.clock.now(), wall: self.clock.wall() });
        }
        Ok(())
    }

    fn send(
        &mut self,
        (topic, partition): (TopicId, i32),
        record: Outgoing<'_>,
        headers: NativeHeaders,
        tag: usize,
    ) -> Result<(), WriteFault> {
        self.first_sent.get_or_insert_with(|| self.clock.now());
        let live = self.live.as_mut().expect("a transaction was begun");
        let rk = live.client.client().native_ptr();
        let mut headers = headers;
        let mut full_since = None;
        let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        loop {
            let has_room = live.on_the_way == 0 || live.on_the_way + size <= WINDOW_BYTES;
            let produced = if has_room {
                ffi::produce(rk, &live.topics[topic.0], partition, record.key, record.value, headers, tag)
            } else {
                Err((RDKafkaErrorCode::QueueFull, headers))
            };
            match produced {
                Ok(()) => {
                    live.on_the_way += size;
                    return Ok(());
                }
                Err((RDKafkaErrorCode::QueueFull, _)) if live.client.in_flight_count() == 0 && live.on_the_way == 0 => {
                    self.not_taken = true;
                    return Err(WriteFault::TooLargeForClient);
                }
                // There is no room, and only serving the reports makes some.
                Err((RDKafkaErrorCode::QueueFull, back)) => {
                    let now = self.clock.now();
                    if now.since(*full_since.get_or_insert(now)) > DELIVERY_TIMEOUT * 2 {
                        return Err(WriteFault::Passing("the client's queue stays full"));
                    }
                    live.serve(Duration::from_millis(20));
                    headers = back;
                }
                Err((code, _)) => {
                    self.not_taken = true;
                    return Err(WriteFault::of(code));
                }
            }
        }
    }

    fn settle(&mut self) -> Result<Settled, TxnError> {
        let Some(live) = self.live.as_mut() else { return Ok(Settled::default()) };
        let started = self.clock.now();
        let (mut stuck, mut first_confirmed) = (false, None);
        while live.client.in_flight_count() > 0 && live.fatal.is_none() && !stuck {
            live.serve(Duration::from_millis(100));
            if !live.reports.is_empty() {
                first_confirmed.get_or_insert_with(|| self.clock.now());
            }
            stuck = self.clock.now().since(started) > DELIVERY_TIMEOUT * 4;
        }
        // Events reported with the last of them.
        live.serve(Duration::ZERO);
        if live.client.in_flight_count() == 0 {
            live.on_the_way = 0;
        }
        let mut settled = Settled { appended: Vec::with_capacity(live.reports.len()), ..Settled::default() };
        let mut last = None;
        for report in live.reports.drain(..) {
            match report.error {
                Some(code) => settled.faults.push((report.tag, WriteFault::of(code))),
                None => {
                    if let Some(appended) = report.append_time {
                        let appended = Timestamp::from_millis(appended);
                        settled.appended.push((report.tag, appended));
                        last = Some((report.broker, appended));
                    }
                }
            }
        }
        if self.in_transaction && (self.not_taken || !settled.faults.is_empty()) {
            settled.denied = live.is_denied();
        }
        // A denial is an answer: no connection was lost.
        live.suspect |= !settled.denied && settled.faults.iter().any(|(_, fault)| fault.is_passing());
        // Of many records the first is confirmed long before it is noticed, so only a few give a
        // useful reading.
        if let (true, Some(sent), Some(confirmed)) = (self.in_transaction, self.first_sent, first_confirmed)
            && started.since(sent) < SOON
        {
            self.gap.first_delivery(confirmed.since(sent));
        }
        if let (Some((broker, appended)), Some(sent)) = (last, self.first_sent.take()) {
            settled.clock = Some(ClockReading { broker, sent, appended, confirmed: self.clock.now() });
        }
        if stuck {
            let cause = ClientError::text("writing", "deliveries were neither confirmed nor refused");
            return Err(TxnError::Rebuild(cause));
        }
        // A fatal error may be reported later than its effect on the records.
        let unsaid = || live.client.client().fatal_error().filter(|_| !settled.faults.is_empty());
        match live.fatal.take().or_else(unsaid) {
            Some(fatal) => Err(self.judge(TxnError::Rebuild(ClientError::beyond_repair("writing", fatal)))),
            None => Ok(settled),
        }
    }

    fn send_offsets(&mut self, group: &LiveGroup, points: &[(TopicPartition, CommitPoint)]) -> Result<(), TxnError> {
        let doing = "sending offsets to the transaction";
        let divided = group.divide(points);
        if divided.iter().map(|(_, own)| own.len()).sum::<usize>() != points.len() {
            // Their transaction must not commit without them.
            return Err(TxnError::Abort(ClientError::text(doing, "they belong to a topic for which this worker has no member")));
        }
        for (member, own) in divided {
            let list = points_list(&own).map_err(|e| TxnError::of(doing, &e))?;
            let live = self.live.as_mut().expect("a transaction is open");
            let outcome = live.client.send_offsets_to_transaction(&list, member, TRANSACTION_TIMEOUT);
            let Err(error) = outcome else { continue };
            live.suspect |= error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut);
            return Err(self.failed(doing, &error));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), TxnError> {
        if !self.is_transactional() {
            return Ok(());
        }
        let started = self.clock.now();
        let live = self.live.as_mut().expect("a transaction is open");
        loop {
            let Err(error) = live.client.commit_transaction(TRANSACTION_TIMEOUT) else {
                (self.in_transaction, self.began) = (false, None);
                self.ready_at = self.clock.now().later(self.gap.width());
                // A connection lost during the commit is reported now.
                live.serve(Duration::ZERO);
                return Ok(());
            };
            live.suspect = true;
            let (retriable, abortable) = match &error {
                KafkaError::Transaction(native) => (native.is_retriable(), native.txn_requires_abort()),
                _ => (false, false),
            };
            if retriable && self.clock.now().since(started) < COMMIT_TIMEOUT {
                continue;
            }
            let doing = "committing a transaction";
            let cause = match self.beyond_repair(&error) {
                Some(fatal) => ClientError::beyond_repair(doing, fatal),
                None => ClientError::new(doing, &error),
            };
            return Err(self.judge(if abortable { TxnError::Abort(cause) } else { TxnError::Unknown(cause) }));
        }
    }

    fn abort(&mut self) {
        // The coordinator has ended it, or is about to. Aborting it nevertheless can harm the current owner of the name: after some
        // errors the client increments its epoch for that, and the coordinator answers such a request by fencing the open transaction
        // before it checks the epoch in the request (measured on 4.3.1).
        if self.in_transaction && self.is_overdue() {
            tracing::info!("transaction exceeded its timeout, recreating the producer");
            self.rest();
            self.rebuild();
            return;
        }
        let Some(live) = self.live.as_mut().filter(|_| self.in_transaction) else { return };
        let outcome = live.client.abort_transaction(if live.suspect { HASTY_ABORT } else { TRANSACTION_TIMEOUT });
        self.in_transaction = false;
        if let Err(error) = outcome {
            tracing::info!(%error, "transaction could not be aborted, recreating the producer");
            // Not a certain sign of a rival: a producer id forgotten by the coordinator also leads to a fence. If there is a rival, it
            // will notice this one.
            if self.beyond_repair(&error).map(|(code, _)| code).or(error.rdkafka_error_code()).is_some_and(is_fence) {
                self.rest();
            }
            self.rebuild();
        }
    }

    fn recover(&mut self, error: &TxnError) {
        match error {
            TxnError::Abort(_) => self.abort(),
            TxnError::Rebuild(cause) | TxnError::Unknown(cause) | TxnError::Rival(cause) => {
                if cause.is_fenced() {
                    self.rest();
                }
                self.rebuild();
            }
        }
    }
}
