//! The two ports of a worker: the record source and the hop sink.
//!
//! They are implemented by Kafka, and in the model of the workers (`worker::model`) by a cluster in virtual time. Nothing else of a worker
//! is ever replaced.

use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::{Committed, ConsumerRecord, GroupConsumer, LiveGroup, Next, PartitionQueue, Rebalance};
use crate::kafka::error::{ClientError, TxnError};
use crate::kafka::headers::HeaderFault;
use crate::kafka::outgoing::TopicId;
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::{HopProducer, PartitionLook};
use crate::kafka::topic_consumers::TopicConsumers;
use crate::kafka::transaction::Writer;

/// Creates a callback for each partition, which is called when its queue has records.
pub type Wake<'a> = &'a (dyn Fn() -> Box<dyn Fn() + Send + Sync> + 'a);

/// The record source: a worker's membership of a consumer group. For the meaning and errors of the calls see
/// [`GroupConsumer`].
pub trait RecordSource {
    /// The queue of one partition.
    type Queue: RecordQueue;
    /// A live membership, which is needed to send offsets.
    type Group;

    /// Serves the group and returns a change.
    fn serve(&self, timeout: Duration) -> Result<Option<Rebalance>, ClientError>;
    /// The committed positions.
    fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, ClientError>;
    /// The oldest offset of a partition and its end.
    fn bounds(&self, tp: &TopicPartition) -> Result<(i64, i64), ClientError>;
    /// The end of a partition, as far as known without a request.
    fn known_end(&self, tp: &TopicPartition) -> Option<i64>;
    /// The ends of partitions, from their leaders.
    fn ends(&self, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(TopicPartition, i64)>, ClientError>;
    /// Starts assigned partitions, each at its offset.
    fn start(&self, assigned: &[(TopicPartition, i64)], wake: Option<Wake<'_>>) -> Result<Vec<Self::Queue>, ClientError>;
    /// Releases revoked partitions.
    fn release(&self, partitions: &[TopicPartition]) -> Result<(), ClientError>;
    /// Commits outside of a transaction and waits for the answer. If there is one member per topic, all points are of one topic.
    fn commit(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError>;
    /// The membership, if it is live.
    fn live_group(&self) -> Option<Self::Group>;
    /// The group.
    fn group(&self) -> &str;
}

/// A source whose partitions can be paused and read again.
pub trait TierSource: RecordSource {
    /// Stops fetching partitions and discards fetched records that were not taken.
    fn pause(&self, partitions: &[TopicPartition]) -> Result<(), ClientError>;
    /// Fetches partitions again.
    fn resume(&self, partitions: &[TopicPartition]) -> Result<(), ClientError>;
    /// Goes back in partitions: their queues yield the records from these offsets again.
    fn go_back(&self, to: &[(TopicPartition, i64)]) -> Result<(), ClientError>;
}

/// The records of one partition, in order.
pub trait RecordQueue {
    /// The record type.
    type Record: SourceRecord;

    /// The next event, if there is one now.
    fn poll(&self) -> Option<Next<Box<Self::Record>>>;
    /// Its partition.
    fn partition(&self) -> &TopicPartition;
}

/// A fetched record.
pub trait SourceRecord {
    /// The offset.
    fn offset(&self) -> i64;
    /// The timestamp.
    fn timestamp(&self) -> Timestamp;
    /// The key; null and empty are different.
    fn key(&self) -> Option<&[u8]>;
    /// The value; null and empty are different.
    fn value(&self) -> Option<&[u8]>;
    /// Why the record cannot be moved with its headers, if so. Must be called before they are taken.
    fn header_fault(&self) -> Option<HeaderFault>;
    /// A copy of the headers.
    fn copy_headers(&self) -> NativeHeaders;
    /// Takes the headers; leaves none behind.
    fn take_headers(&mut self) -> NativeHeaders;
    /// The broker that it was fetched from.
    fn broker(&self) -> i32;
    /// Whether the broker set the timestamp, not the producer.
    fn has_append_time(&self) -> bool;
}

/// The hop sink: a producer. For the meaning and errors of the calls see [`HopProducer`].
pub(crate) trait HopSink: Writer {
    /// Connects, and ends the open transaction of a predecessor of the same name.
    fn connect(&mut self) -> Result<(), TxnError>;
    /// Before then the last transaction's markers are probably not written, which would delay the next one.
    fn ready_at(&self) -> LocalTime;
    /// Serves the client between transactions.
    fn idle(&mut self);
    /// Describes a topic again that could not be written to, and returns the state of its
    /// partitions.
    fn look_again(&self, topic: TopicId) -> Vec<PartitionLook>;
    /// The name of a topic.
    fn topic_name(&self, topic: TopicId) -> &str;
    /// The current number of partitions of a topic.
    fn partition_count(&mut self, topic: TopicId) -> Result<i32, ClientError>;
}

/// Both types have these methods under the same names.
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

            fn group(&self) -> &str {
                self.group()
            }
        }
    )+};
}

record_sources!(GroupConsumer, TopicConsumers);

impl TierSource for GroupConsumer {
    fn pause(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        self.pause(partitions)
    }

    fn resume(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        self.resume(partitions)
    }

    fn go_back(&self, to: &[(TopicPartition, i64)]) -> Result<(), ClientError> {
        self.go_back(to)
    }
}

impl RecordQueue for PartitionQueue {
    type Record = ConsumerRecord;

    fn poll(&self) -> Option<Next<Box<ConsumerRecord>>> {
        self.poll()
    }

    fn partition(&self) -> &TopicPartition {
        self.partition()
    }
}

impl SourceRecord for ConsumerRecord {
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

    fn header_fault(&self) -> Option<HeaderFault> {
        self.header_fault()
    }

    fn copy_headers(&self) -> NativeHeaders {
        self.copy_headers()
    }

    fn take_headers(&mut self) -> NativeHeaders {
        self.take_headers()
    }

    fn broker(&self) -> i32 {
        self.broker()
    }

    fn has_append_time(&self) -> bool {
        self.has_append_time()
    }
}

impl HopSink for HopProducer {
    fn connect(&mut self) -> Result<(), TxnError> {
        self.connect()
    }

    fn ready_at(&self) -> LocalTime {
        self.ready_at()
    }

    fn idle(&mut self) {
        self.idle();
    }

    fn look_again(&self, topic: TopicId) -> Vec<PartitionLook> {
        self.look_again(topic)
    }

    fn topic_name(&self, topic: TopicId) -> &str {
        self.topic_name(topic)
    }
    fn partition_count(&mut self, topic: TopicId) -> Result<i32, ClientError> {
        let name = self.topic_name(topic).to_owned();
        self.partition_count(&name)
    }
}
