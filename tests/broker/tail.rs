//! Reading whole topics without a group, with the library's reader.

use std::time::Duration;

use kladder::internals::{ASK_WITHIN, ConsumerRecord, Isolation, TailFrom, TopicPartition, TopicTail};
use kladder::{KafkaConfig, Timestamp};
use rdkafka::producer::Producer;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;

const TIMEOUT: Duration = Duration::from_secs(20);

fn kafka() -> KafkaConfig {
    let mut kafka = KafkaConfig::default();
    kafka.common.insert("bootstrap.servers".to_owned(), broker::brokers().to_owned());
    kafka
}

/// The records of a tail, in the order of each partition.
#[derive(Default)]
struct Seen(Vec<(String, i32, i64, NewRecord)>);

impl Seen {
    fn take(&mut self, tp: &TopicPartition, record: &ConsumerRecord) {
        let headers = record.headers().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
        let (key, value) = (record.key().map(<[u8]>::to_vec), record.value().map(<[u8]>::to_vec));
        let record_of = NewRecord { partition: tp.partition, key, value, headers };
        self.0.push((tp.topic.to_string(), tp.partition, record.offset(), record_of));
    }

    fn values(&self) -> Vec<String> {
        self.0.iter().map(|(.., r)| String::from_utf8_lossy(r.value.as_deref().unwrap_or_default()).into_owned()).collect()
    }
}

fn caught_up(topic: &str, from: TailFrom) -> Seen {
    let mut tail = TopicTail::open(&kafka(), &[topic.to_owned()], from).expect("a tail");
    let mut seen = Seen::default();
    tail.catch_up(TIMEOUT, |tp, record| seen.take(tp, record)).expect("the end");
    seen
}

fn text(partition: i32, value: &str) -> NewRecord {
    NewRecord { partition, key: None, value: Some(value.into()), headers: Vec::new() }
}

#[test]
fn hostile_records_of_several_topics_are_read_to_the_end_byte_for_byte() {
    let topics = [broker::unique("tail-a"), broker::unique("tail-b")];
    let mut written = Vec::new();
    for topic in &topics {
        broker::create_topic(topic, 3, &[]);
        let records: Vec<NewRecord> = (0..560).map(|n| records::hostile(n, 3, "some-ladder")).collect();
        RawProducer::new(broker::brokers()).write(topic, &records);
        written.push(records);
    }
    let mut tail = TopicTail::open(&kafka(), &topics, TailFrom::Beginning).unwrap();
    let mut seen = Seen::default();
    tail.catch_up(TIMEOUT, |tp, record| seen.take(tp, record)).unwrap();
    for (topic, written) in topics.iter().zip(&written) {
        for partition in 0..3 {
            let written: Vec<&NewRecord> = written.iter().filter(|r| r.partition == partition).collect();
            let read = seen.0.iter().filter(|(t, p, ..)| (t, *p) == (topic, partition));
            assert_eq!(read.map(|(.., record)| record).collect::<Vec<_>>(), written, "{topic}[{partition}]");
            let tp = TopicPartition { topic: topic.as_str().into(), partition };
            assert_eq!(tail.position(&tp), Some(i64::try_from(written.len()).unwrap()));
        }
    }
    // At the end there is nothing to wait for.
    tail.catch_up(TIMEOUT, |_, record| panic!("offset {} again", record.offset())).unwrap();
    broker::delete_topics(&[&topics[0], &topics[1]]);
}

#[test]
fn markers_and_open_transactions_do_not_keep_it_from_the_end() {
    let topic = broker::unique("tail-txn");
    broker::create_topic(&topic, 1, &[]);
    // An empty topic.
    assert_eq!(caught_up(&topic, TailFrom::Beginning).values(), [""; 0]);
    let producer = RawProducer::with(broker::brokers(), &[("transactional.id", &topic)]);
    producer.transactions().init_transactions(TIMEOUT).unwrap();
    for (value, commits) in [("one", true), ("two", false), ("three", true), ("four", false)] {
        producer.transactions().begin_transaction().unwrap();
        producer.write(&topic, &[text(0, value)]);
        let transactions = producer.transactions();
        if commits { transactions.commit_transaction(TIMEOUT) } else { transactions.abort_transaction(TIMEOUT) }.unwrap();
    }
    // The last offset is a marker.
    assert_eq!(caught_up(&topic, TailFrom::Beginning).values(), ["one", "three"]);
    producer.transactions().begin_transaction().unwrap();
    producer.write(&topic, &[text(0, "open")]);
    RawProducer::new(broker::brokers()).write(&topic, &[text(0, "behind it")]);
    assert_eq!(caught_up(&topic, TailFrom::Beginning).values(), ["one", "three"]);
    let mut tail = TopicTail::new(&kafka(), TailFrom::Beginning, Isolation::Uncommitted).unwrap();
    tail.add(&topic, ASK_WITHIN).unwrap();
    let mut seen = Seen::default();
    tail.catch_up(TIMEOUT, |tp, record| seen.take(tp, record)).unwrap();
    assert_eq!(seen.values(), ["one", "two", "three", "four", "open", "behind it"]);
    producer.transactions().commit_transaction(TIMEOUT).unwrap();
    assert_eq!(caught_up(&topic, TailFrom::Beginning).values(), ["one", "three", "open", "behind it"]);
    // Behind what retention has deleted.
    broker::delete_records(&topic, 0, 8);
    assert_eq!(caught_up(&topic, TailFrom::Beginning).values(), ["open", "behind it"]);
    broker::delete_topics(&[&topic]);
}

#[test]
fn it_begins_where_it_is_told_and_goes_on_with_what_comes() {
    let topic = broker::unique("tail-from");
    broker::create_topic(&topic, 2, &[("message.timestamp.type", "LogAppendTime")]);
    let producer = RawProducer::new(broker::brokers());
    producer.write(&topic, &[text(0, "old"), text(1, "old")]);
    clock::pause(Duration::from_millis(50));
    let moment = i64::try_from(clock::epoch_millis()).unwrap();
    clock::pause(Duration::from_millis(50));
    producer.write(&topic, &[text(1, "young")]);
    assert_eq!(caught_up(&topic, TailFrom::Time(Timestamp::from_millis(moment), Vec::new())).values(), ["young"]);
    let first = TopicPartition { topic: topic.as_str().into(), partition: 0 };
    let lower = TailFrom::Time(Timestamp::from_millis(moment), vec![(first, 0)]);
    assert_eq!(caught_up(&topic, lower).values(), ["old", "young"], "or at the offset, where that is lower");

    let mut tail = TopicTail::open(&kafka(), std::slice::from_ref(&topic), TailFrom::End).unwrap();
    producer.write(&topic, &[text(0, "later")]);
    let mut seen = Seen::default();
    tail.catch_up(TIMEOUT, |tp, record| seen.take(tp, record)).unwrap();
    assert_eq!(seen.values(), ["later"]);
    // New records wake it: it does not wait for the timeout.
    producer.write(&topic, &[text(1, "at once")]);
    let began = clock::now();
    while seen.values().len() < 2 {
        tail.poll(TIMEOUT, |tp, record| seen.take(tp, record)).unwrap();
    }
    assert!(began.elapsed() < TIMEOUT / 2, "{:?}", began.elapsed());

    broker::add_partitions(&topic, 3);
    clock::eventually("the new partition can be written to", PATIENCE, || broker::topics().get(&topic) == Some(&3));
    producer_of_new_partition(&topic);
    clock::eventually("what is in the new partition is read", PATIENCE, || {
        tail.poll(Duration::from_millis(100), |tp, record| seen.take(tp, record)).unwrap();
        seen.values().contains(&"added".to_owned())
    });
    let added = TopicPartition { topic: topic.as_str().into(), partition: 2 };
    assert_eq!(tail.position(&added), Some(1));
    broker::delete_topics(&[&topic]);
}

/// A producer created before learns of the partition only minutes later.
fn producer_of_new_partition(topic: &str) {
    RawProducer::new(broker::brokers()).write(topic, &[text(2, "added")]);
}

#[test]
fn a_topic_that_is_not_there_or_may_not_be_read_is_told() {
    let topic = broker::unique("tail-none");
    let missing = TopicTail::open(&kafka(), std::slice::from_ref(&topic), TailFrom::Beginning).err().expect("an error");
    assert!(missing.to_string().contains("does not exist") && !missing.is_denied(), "{missing}");
    assert!(!broker::topics().contains_key(&topic), "it was made by being asked for");

    broker::create_topic(&topic, 1, &[]);
    let mut limited = kafka();
    for (name, value) in [
        ("bootstrap.servers", broker::sasl_brokers()),
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "limited"),
        ("sasl.password", "limited-secret"),
    ] {
        limited.common.insert(name.to_owned(), value.to_owned());
    }
    let denied = TopicTail::open(&limited, std::slice::from_ref(&topic), TailFrom::Beginning).err().expect("an error");
    assert!(denied.is_denied(), "{denied}");
    assert!(denied.to_string().contains(&topic) && denied.to_string().contains("kladder generate acls"), "{denied}");
    broker::delete_topics(&[&topic]);
}
