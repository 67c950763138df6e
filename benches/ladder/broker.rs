//! Queries of the benchmark to the broker.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection for queries.
pub struct Broker {
    pub servers: String,
    admin: AdminClient<DefaultClientContext>,
    consumer: BaseConsumer,
    runtime: tokio::runtime::Runtime,
}

impl Broker {
    pub fn new(servers: &str) -> Self {
        let admin = ClientConfig::new().set("bootstrap.servers", servers).create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { servers: servers.to_owned(), admin, consumer: reader(servers, &[]), runtime }
    }

    pub fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
        let made =
            self.runtime.block_on(self.admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(TIMEOUT))));
        for outcome in made.expect("an answer of the broker") {
            outcome.unwrap_or_else(|(topic, code)| panic!("topic {topic} was not made: {code}"));
        }
        // The broker answers before it knows the topic itself.
        let wanted = usize::try_from(partitions).expect("a count");
        let is_there = || {
            let metadata = self.consumer.fetch_metadata(Some(name), TIMEOUT).ok();
            metadata.is_some_and(|m| m.topics().iter().any(|t| t.error().is_none() && t.partitions().len() == wanted))
        };
        let began = Instant::now();
        while !is_there() {
            assert!(began.elapsed() < TIMEOUT, "topic {name} did not appear");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Deletes all topics whose names begin with this prefix.
    pub fn delete_topics(&self, prefix: &str) {
        let metadata = self.consumer.fetch_metadata(None, TIMEOUT).expect("the broker's topics");
        let names: Vec<&str> = metadata
            .topics()
            .iter()
            .map(rdkafka::metadata::MetadataTopic::name)
            .filter(|name| name.starts_with(prefix))
            .collect();
        let _ = self.runtime.block_on(self.admin.delete_topics(&names, &AdminOptions::new()));
    }

    /// The number of records visible to `read_committed` consumers, over all partitions; commit
    /// markers count.
    pub fn committed_end(&self, topic: &str, partitions: i32) -> i64 {
        (0..partitions).map(|p| self.consumer.fetch_watermarks(topic, p, TIMEOUT).map_or(0, |(_, high)| high)).sum()
    }

    /// Waits until this many records are visible.
    pub fn wait_for(&self, topic: &str, partitions: i32, records: usize, patience: Duration) -> Instant {
        let wanted = i64::try_from(records).expect("a count");
        let began = Instant::now();
        while self.committed_end(topic, partitions) < wanted {
            assert!(began.elapsed() < patience, "{topic} did not come to hold {records} records within {patience:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Instant::now()
    }

    /// When the first record of a topic was appended, in epoch milliseconds.
    pub fn first_append(&self, topic: &str, partitions: i32) -> i64 {
        let assignment: Vec<(String, i32, Offset)> = (0..partitions).map(|p| (topic.to_owned(), p, Offset::Beginning)).collect();
        let consumer = reader(&self.servers, &assignment);
        let (mut seen, mut first, began) = (std::collections::BTreeSet::new(), i64::MAX, Instant::now());
        while seen.len() < usize::try_from(partitions).expect("a count") && began.elapsed() < TIMEOUT {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            if seen.insert(message.partition()) {
                first = first.min(message.timestamp().to_millis().unwrap_or(i64::MAX));
            }
        }
        first
    }
}

impl Broker {
    /// When the last record of a topic was appended, in epoch milliseconds.
    pub fn last_append(&self, topic: &str, partitions: i32) -> i64 {
        // The last offset of a partition may be a commit marker, so a few before it are read too.
        let end = |p: i32| self.consumer.fetch_watermarks(topic, p, TIMEOUT).map_or(0, |(_, high)| high);
        let assignment: Vec<(String, i32, Offset)> =
            (0..partitions).map(|p| (topic.to_owned(), p, Offset::Offset((end(p) - 50).max(0)))).collect();
        let consumer = reader(&self.servers, &assignment);
        let (mut last, mut heard) = (0, Instant::now());
        while heard.elapsed() < Duration::from_secs(2) {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            last = last.max(message.timestamp().to_millis().unwrap_or(0));
            heard = Instant::now();
        }
        last
    }
}

/// A reader that sees committed records only.
pub fn reader(servers: &str, assignment: &[(String, i32, Offset)]) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "kladder-bench")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "16384")
        .create()
        .expect("a consumer");
    if !assignment.is_empty() {
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in assignment {
            list.add_partition_offset(topic, *partition, *offset).expect("a partition");
        }
        consumer.assign(&list).expect("an assignment");
    }
    consumer
}
