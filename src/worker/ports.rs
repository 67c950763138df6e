//! The two ports of a worker: where records come from, and where hops go.
//!
//! Behind them stands Kafka, and in the model of the committer a cluster in virtual time. Nothing else of a worker is ever
//! replaced.

use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::{Committed, GroupConsumer, LiveGroup, Next, PartitionQueue, Rebalance, Record, TopicPartition};
use crate::kafka::error::{ClientError, TxnError, WriteFault};
use crate::kafka::producer::{HopProducer, Outgoing, Settled, TopicId};
use crate::kafka::topic_consumers::TopicConsumers;

/// Makes, for one partition after the other, what is called when its queue has something.
pub type Wake<'a> = &'a (dyn Fn() -> Box<dyn Fn() + Send + Sync> + 'a);

/// Where records come from: a worker's membership of a consumer group. What the calls mean and how they fail stands at
/// [`GroupConsumer`].
pub trait RecordSource {
    /// The records of one partition.
    type Queue: RecordQueue;
    /// A live membership, without which no offset may be sent.
    type Group;

    /// Serves the group and says what changed.
    fn serve(&self, timeout: Duration) -> Result<Option<Rebalance>, ClientError>;
    /// The committed positions.
    fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, ClientError>;
    /// The oldest offset of a partition and its end.
    fn bounds(&self, tp: &TopicPartition) -> Result<(i64, i64), ClientError>;
    /// Where a partition ends, as far as that is known without asking.
    fn known_end(&self, tp: &TopicPartition) -> Option<i64>;
    /// Where partitions end, as their leaders say.
    fn ends(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError>;
    /// Takes over what was assigned, each partition at its offset.
    fn start(&self, assigned: &[(TopicPartition, i64)], wake: Option<Wake<'_>>) -> Result<Vec<Self::Queue>, ClientError>;
    /// Gives away what was revoked.
    fn release(&self, partitions: &[TopicPartition]) -> Result<(), ClientError>;
    /// Commits outside of a transaction and waits for the answer.
    fn commit(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError>;
    /// The membership, if it is live.
    fn live_group(&self) -> Option<Self::Group>;
    /// Whether partitions were lost already, although nobody was told yet.
    fn assignment_lost(&self) -> bool;
    /// The group.
    fn group(&self) -> &str;
}

/// The records of one partition, in order.
pub trait RecordQueue {
    /// One of them.
    type Record: SourceRecord;

    /// The next, if there is something now.
    fn poll(&self) -> Option<Next<Box<Self::Record>>>;
    /// Which partition it is.
    fn partition(&self) -> &TopicPartition;
}

/// A record that was fetched.
pub trait SourceRecord {
    /// The offset.
    fn offset(&self) -> i64;
    /// The timestamp.
    fn timestamp(&self) -> Timestamp;
    /// The key; null and empty are different.
    fn key(&self) -> Option<&[u8]>;
    /// The value; null and empty are different.
    fn value(&self) -> Option<&[u8]>;
    /// A copy of the headers.
    fn copy_headers(&self) -> NativeHeaders;
}

/// Where hops go: transactions, or idempotent writes. What the calls mean and how they fail stands at [`HopProducer`].
pub trait HopSink {
    /// What offsets are sent under.
    type Group;

    /// Whether hops are transactions.
    fn is_transactional(&self) -> bool;
    /// Connects, and ends what a predecessor of the same name left open.
    fn connect(&mut self) -> Result<(), TxnError>;
    /// Before then the last transaction's markers are hardly written, and the next one would be held up by them.
    fn ready_at(&self) -> LocalTime;
    /// Opens a transaction.
    fn begin(&mut self) -> Result<(), TxnError>;
    /// Hands a record over.
    fn send(
        &mut self,
        topic: TopicId,
        partition: i32,
        record: Outgoing<'_>,
        headers: NativeHeaders,
        tag: usize,
    ) -> Result<(), WriteFault>;
    /// Waits until every record is written or not.
    fn settle(&mut self) -> Result<Settled, TxnError>;
    /// Puts consumed offsets into the transaction.
    fn send_offsets(&mut self, group: &Self::Group, points: &[(TopicPartition, CommitPoint)]) -> Result<(), TxnError>;
    /// Commits the transaction.
    fn commit(&mut self) -> Result<(), TxnError>;
    /// Aborts the transaction.
    fn abort(&mut self);
    /// Does what an error demands before anything is written again.
    fn recover(&mut self, error: &TxnError);
    /// Serves the client between transactions.
    fn idle(&mut self);
    /// Looks at a topic again that could not be written to.
    fn look_again(&self, topic: TopicId);
    /// The name of a topic.
    fn topic_name(&self, topic: TopicId) -> &str;
}

/// Both have these calls of their own, under the same names.
macro_rules! record_sources {
    ($($source:ty),+) => {$(
        impl RecordSource for $source {
            type Queue = PartitionQueue;
            type Group = LiveGroup;

            fn serve(&self, timeout: Duration) -> Result<Option<Rebalance>, ClientError> {
                self.serve(timeout)
            }

            fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, ClientError> {
                self.committed(partitions)
            }

            fn bounds(&self, tp: &TopicPartition) -> Result<(i64, i64), ClientError> {
                self.bounds(tp)
            }

            fn known_end(&self, tp: &TopicPartition) -> Option<i64> {
                self.known_end(tp)
            }

            fn ends(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError> {
                self.ends(partitions, within)
            }

            fn start(&self, assigned: &[(TopicPartition, i64)], wake: Option<Wake<'_>>) -> Result<Vec<PartitionQueue>, ClientError> {
                self.start(assigned, wake)
            }

            fn release(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
                self.release(partitions)
            }

            fn commit(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError> {
                self.commit(points)
            }

            fn live_group(&self) -> Option<LiveGroup> {
                self.live_group()
            }

            fn assignment_lost(&self) -> bool {
                self.assignment_lost()
            }

            fn group(&self) -> &str {
                self.group()
            }
        }
    )+};
}

record_sources!(GroupConsumer, TopicConsumers);

impl RecordQueue for PartitionQueue {
    type Record = Record;

    fn poll(&self) -> Option<Next<Box<Record>>> {
        self.poll()
    }

    fn partition(&self) -> &TopicPartition {
        self.partition()
    }
}

impl SourceRecord for Record {
    fn offset(&self) -> i64 {
        self.offset()
    }

    fn timestamp(&self) -> Timestamp {
        self.timestamp()
    }

    fn key(&self) -> Option<&[u8]> {
        self.key()
    }

    fn value(&self) -> Option<&[u8]> {
        self.value()
    }

    fn copy_headers(&self) -> NativeHeaders {
        self.copy_headers()
    }
}

impl HopSink for HopProducer {
    type Group = LiveGroup;

    fn is_transactional(&self) -> bool {
        self.is_transactional()
    }

    fn connect(&mut self) -> Result<(), TxnError> {
        self.connect()
    }

    fn ready_at(&self) -> LocalTime {
        self.ready_at()
    }

    fn begin(&mut self) -> Result<(), TxnError> {
        self.begin()
    }

    fn send(
        &mut self,
        topic: TopicId,
        partition: i32,
        record: Outgoing<'_>,
        headers: NativeHeaders,
        tag: usize,
    ) -> Result<(), WriteFault> {
        self.send(topic, partition, record, headers, tag)
    }

    fn settle(&mut self) -> Result<Settled, TxnError> {
        self.settle()
    }

    fn send_offsets(&mut self, group: &LiveGroup, points: &[(TopicPartition, CommitPoint)]) -> Result<(), TxnError> {
        self.send_offsets(group, points)
    }

    fn commit(&mut self) -> Result<(), TxnError> {
        self.commit()
    }

    fn abort(&mut self) {
        self.abort();
    }

    fn recover(&mut self, error: &TxnError) {
        self.recover(error);
    }

    fn idle(&mut self) {
        self.idle();
    }

    fn look_again(&self, topic: TopicId) {
        self.look_again(topic);
    }

    fn topic_name(&self, topic: TopicId) -> &str {
        self.topic_name(topic)
    }
}
