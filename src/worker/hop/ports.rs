//! The two ports of a worker: where records come from, and where hops go.
//!
//! Behind them stands Kafka, and in the model of the workers (`worker::model`) a cluster in virtual time. Nothing else of a worker is ever
//! replaced.

use std::time::Duration;

use crate::core::ack_tracker::CommitPoint;
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::kafka::NativeHeaders;
use crate::kafka::consumer::{Committed, GroupConsumer, LiveGroup, Next, PartitionQueue, Rebalance, Record};
use crate::kafka::error::{ClientError, TxnError};
use crate::kafka::partition::TopicPartition;
use crate::kafka::producer::{HopProducer, TopicId};
use crate::kafka::topic_consumers::TopicConsumers;
use crate::kafka::transaction::Writer;

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
    /// Commits outside of a transaction and waits for the answer. The points are of one topic where there is a member of the group for each.
    fn commit(&self, points: &[(TopicPartition, CommitPoint)]) -> Result<(), ClientError>;
    /// The membership, if it is live.
    fn live_group(&self) -> Option<Self::Group>;
    /// The group.
    fn group(&self) -> &str;
}

/// A source of which partitions can rest, and be read once more.
pub trait TierSource: RecordSource {
    /// Stops fetching partitions and throws away what was fetched of them and not yet taken.
    fn pause(&self, partitions: &[TopicPartition]) -> Result<(), ClientError>;
    /// Fetches partitions again.
    fn resume(&self, partitions: &[TopicPartition]) -> Result<(), ClientError>;
    /// Goes back in partitions: what their queues gave from these offsets on, they give once more.
    fn go_back(&self, to: &[(TopicPartition, i64)]) -> Result<(), ClientError>;
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
    /// The headers, of which it has none from then on.
    fn take_headers(&mut self) -> NativeHeaders;
    /// The broker that it was fetched from.
    fn broker(&self) -> i32;
    /// Whether the broker set the timestamp, not whoever produced the record.
    fn has_append_time(&self) -> bool;
}

/// Where hops go: a producer. What the calls mean and how they fail stands at [`HopProducer`].
pub(crate) trait HopSink: Writer {
    /// Connects, and ends what a predecessor of the same name left open.
    fn connect(&mut self) -> Result<(), TxnError>;
    /// Before then the last transaction's markers are hardly written, and the next one would be held up by them.
    fn ready_at(&self) -> LocalTime;
    /// Serves the client between transactions.
    fn idle(&mut self);
    /// Looks at a topic again that could not be written to, and gives those of its partitions that have no leader.
    fn look_again(&self, topic: TopicId) -> Vec<i32>;
    /// The name of a topic.
    fn topic_name(&self, topic: TopicId) -> &str;
    /// How many partitions a topic has now.
    fn partition_count(&mut self, topic: TopicId) -> Result<i32, ClientError>;
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

    fn look_again(&self, topic: TopicId) -> Vec<i32> {
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
