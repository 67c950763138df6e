//! The broker that the tests run against, and queries to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::clock::{self, PATIENCE};
use super::raw::{self, Record};

const GROUP_TOOL: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

const TIMEOUT: Duration = Duration::from_secs(20);

/// The bootstrap servers: `KLADDER_TEST_BROKERS`, or those of `scripts/kafka up`.
pub fn brokers() -> &'static str {
    static BROKERS: OnceLock<Result<String, String>> = OnceLock::new();
    // The failure is cached too: otherwise each test would wait for it again.
    let found = BROKERS.get_or_init(|| {
        let brokers = given_or_started("KLADDER_TEST_BROKERS", &["up"])?;
        match plain_consumer(&brokers, "none").fetch_metadata(None, TIMEOUT) {
            Ok(_) => Ok(brokers),
            Err(error) => Err(format!(
                "no Kafka broker answers at {brokers} ({error}): start one with scripts/kafka up, \
                 or say where one is with KLADDER_TEST_BROKERS"
            )),
        }
    });
    found.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

/// The same cluster's `SASL_PLAINTEXT` listener: `KLADDER_TEST_SASL_BROKERS`, or that of `scripts/kafka up --sasl`.
pub fn sasl_brokers() -> &'static str {
    static BROKERS: OnceLock<Result<String, String>> = OnceLock::new();
    let found = BROKERS.get_or_init(|| given_or_started("KLADDER_TEST_SASL_BROKERS", &["up", "--sasl"]));
    found.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

/// The URL of a schema registry: `KLADDER_TEST_REGISTRY`, or that of `scripts/registry up`.
pub fn registry() -> &'static str {
    static REGISTRY: OnceLock<Result<String, String>> = OnceLock::new();
    let found = REGISTRY.get_or_init(|| given_or_run("KLADDER_TEST_REGISTRY", "scripts/registry", &["up"]));
    found.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

fn given_or_started(variable: &str, arguments: &[&str]) -> Result<String, String> {
    given_or_run(variable, "scripts/kafka", arguments)
}

fn given_or_run(variable: &str, script: &str, arguments: &[&str]) -> Result<String, String> {
    if let Some(given) = std::env::var(variable).ok().filter(|text| !text.is_empty()) {
        return Ok(given);
    }
    let words = arguments.join(" ");
    let output = Command::new(in_house(script)).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{script} cannot be run ({error}); set {variable} instead"))?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !printed.is_empty() {
        return Ok(printed);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{script} {words} failed: {said}; or say where one is with {variable}"))
}

/// A path inside the package.
pub fn in_house(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A name that no other test and no other run uses.
pub fn unique(theme: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let run = (clock::epoch_millis() / 100) % 100_000_000;
    format!("{theme}-{run}-{}-{}", std::process::id() % 10_000, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a topic and waits until it can be written to.
pub fn create_topic(name: &str, partitions: i32, settings: &[(&str, &str)]) {
    create_topic_on(brokers(), name, partitions, settings);
}

/// The same on a named cluster.
pub fn create_topic_on(cluster: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let results = block_on(admin(cluster).create_topics([&topic], &AdminOptions::new().operation_timeout(Some(TIMEOUT))));
    for result in results.expect("the broker answers") {
        result.unwrap_or_else(|(topic, error)| panic!("topic {topic} was not created: {error}"));
    }
    let consumer = plain_consumer(cluster, "none");
    clock::eventually(&format!("topic {name} has leaders"), PATIENCE, || {
        let metadata = consumer.fetch_metadata(Some(name), TIMEOUT).expect("metadata");
        let found = metadata.topics().first().map_or(0, |t| t.partitions().iter().filter(|p| p.leader() >= 0).count());
        i32::try_from(found) == Ok(partitions)
    });
}

/// Gives a topic more partitions.
pub fn add_partitions(topic: &str, total: usize) {
    let new = [NewPartitions::new(topic, total)];
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    for result in block_on(admin(brokers()).create_partitions(&new, &options)).expect("the broker answers") {
        result.unwrap_or_else(|(topic, error)| panic!("topic {topic} got no partitions: {error}"));
    }
    let consumer = plain_consumer(brokers(), "none");
    clock::eventually(&format!("the new partitions of {topic} have leaders"), PATIENCE, || {
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
        metadata.topics().first().is_some_and(|t| t.partitions().iter().filter(|p| p.leader() >= 0).count() == total)
    });
}

/// Deletes a group's committed offsets, on one topic or all, with Kafka's own tool.
pub fn delete_offsets(group: &str, topic: Option<&str>) {
    let mut arguments = vec!["--bootstrap-server", brokers(), "--group", group];
    match topic {
        Some(topic) => arguments.extend(["--delete-offsets", "--topic", topic]),
        None => arguments.push("--delete"),
    }
    await_no_members(group);
    kafka_tool(GROUP_TOOL, &arguments);
}

/// Waits until a group has no members: a static member stays until its session expires, and until then its topics count as
/// subscribed.
pub fn await_no_members(group: &str) {
    let consumer = plain_consumer(brokers(), "none");
    clock::eventually(&format!("group {group} has no members"), PATIENCE, || {
        let list = consumer.fetch_group_list(Some(group), TIMEOUT).expect("the broker answers");
        list.groups().iter().all(|found| found.members().is_empty())
    });
}

/// Deletes every topic with this prefix; those that cannot be deleted stay.
pub fn delete_topics(prefixes: &[&str]) {
    delete_topics_on(brokers(), prefixes);
}

/// The same on a named cluster.
pub fn delete_topics_on(cluster: &str, prefixes: &[&str]) {
    let names: Vec<String> = topics_on(cluster).into_keys().filter(|t| prefixes.iter().any(|p| t.starts_with(p))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let _ = block_on(admin(cluster).delete_topics(&names, &AdminOptions::new()));
}

/// All topics with their partition counts.
pub fn topics() -> BTreeMap<String, usize> {
    topics_on(brokers())
}

/// The same on a named cluster.
pub fn topics_on(cluster: &str) -> BTreeMap<String, usize> {
    let consumer = plain_consumer(cluster, "none");
    let metadata = consumer.fetch_metadata(None, TIMEOUT).expect("metadata");
    metadata.topics().iter().map(|t| (t.name().to_owned(), t.partitions().len())).collect()
}

/// The partition count of a topic that must exist.
pub fn partitions_of(consumer: &BaseConsumer, topic: &str) -> i32 {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
    let count = metadata.topics().first().map_or(0, |t| t.partitions().len());
    assert!(count > 0, "topic {topic} does not exist");
    i32::try_from(count).expect("a partition count")
}

/// All committed records of a topic.
pub fn read(topic: &str) -> Vec<Record> {
    raw::read_topic(brokers(), topic)
}

/// A group's lag on a topic, over all partitions, by offsets alone. Without a committed offset everything counts.
pub fn lag(group: &str, topic: &str) -> i64 {
    lag_on(brokers(), group, topic).expect("the broker answers")
}

/// The same on a named cluster; `None` if one of its brokers does not answer.
pub fn lag_on(cluster: &str, group: &str, topic: &str) -> Option<i64> {
    let consumer = plain_consumer(cluster, group);
    let mut asked = TopicPartitionList::new();
    for partition in 0..partitions_of(&consumer, topic) {
        asked.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(asked, TIMEOUT).ok()?;
    let behind = committed.elements().into_iter().map(|element| {
        let (low, high) = consumer.fetch_watermarks(topic, element.partition(), TIMEOUT).ok()?;
        Some(match element.offset() {
            Offset::Offset(offset) => high - offset,
            _ => high - low,
        })
    });
    behind.sum()
}

/// The committed offset of a group, with its metadata.
pub fn committed(group: &str, topic: &str, partition: i32) -> (Option<i64>, String) {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let found = plain_consumer(brokers(), group).committed_offsets(asked, TIMEOUT).expect("committed offsets");
    let element = found.find_partition(topic, partition).expect("what was asked for");
    let offset = if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None };
    (offset, element.metadata().to_owned())
}

/// Commits an offset for a group that has no members.
pub fn commit(group: &str, topic: &str, partition: i32, offset: i64, metadata: &str) {
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(topic, partition);
    element.set_offset(Offset::Offset(offset)).expect("an offset");
    element.set_metadata(metadata);
    plain_consumer(brokers(), group).commit(&list, CommitMode::Sync).expect("a group without members");
}

/// Deletes the records below an offset, as retention does.
pub fn delete_records(topic: &str, partition: i32, below: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(below)).expect("an offset");
    let deleted = block_on(admin(brokers()).delete_records(&list, &AdminOptions::new())).expect("the broker answers");
    deleted.elements().iter().for_each(|element| element.error().expect("deleted"));
}

/// Changes one setting of a topic with Kafka's own tool, and leaves the others.
pub fn alter_topic(topic: &str, setting: &str) {
    alter_topic_on(brokers(), topic, setting);
}

/// The same on a named cluster.
pub fn alter_topic_on(cluster: &str, topic: &str, setting: &str) {
    let arguments = ["--bootstrap-server", cluster, "--alter", "--topic", topic, "--add-config", setting];
    kafka_tool("kafka.admin.ConfigCommand", &arguments);
}

/// The value of a topic setting.
pub fn setting(topic: &str, name: &str) -> String {
    let asked = [ResourceSpecifier::Topic(topic)];
    let found = block_on(admin(brokers()).describe_configs(&asked, &AdminOptions::new())).expect("the broker answers");
    let found = found.into_iter().next().expect("an answer").expect("the topic's settings");
    found.entries.into_iter().find(|entry| entry.name == name).and_then(|entry| entry.value).expect("a value")
}

/// The brokers that lead the partitions of a topic.
pub fn leaders_on(cluster: &str, topic: &str) -> Option<Vec<i32>> {
    let metadata = plain_consumer(cluster, "none").fetch_metadata(Some(topic), TIMEOUT).ok()?;
    Some(metadata.topics().first()?.partitions().iter().map(rdkafka::metadata::MetadataPartition::leader).collect())
}

/// One line of Kafka's own `ConsumerGroupCommand --describe`; what it prints as `-` is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLine {
    pub topic: String,
    pub partition: i32,
    pub committed: Option<i64>,
    pub end: Option<i64>,
    pub lag: Option<i64>,
}

/// The output of Kafka's own tool for a group.
pub fn describe_group(group: &str) -> Vec<GroupLine> {
    let arguments = ["--bootstrap-server", brokers(), "--describe", "--group", group];
    parse_group(&kafka_tool(GROUP_TOOL, &arguments))
}

pub fn parse_group(text: &str) -> Vec<GroupLine> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, topic, partition, committed, end, lag, ..] = columns.as_slice() else { continue };
        let Ok(partition) = partition.parse() else { continue };
        lines.push(GroupLine {
            topic: (*topic).to_owned(),
            partition,
            committed: committed.parse().ok(),
            end: end.parse().ok(),
            lag: lag.parse().ok(),
        });
    }
    lines
}

/// Runs one of Kafka's console tools and returns what it printed.
pub fn kafka_tool(class: &str, arguments: &[&str]) -> String {
    let output = Command::new(in_house("scripts/kafka"))
        .args(["tool", class])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("scripts/kafka can be run");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{class} failed: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// A client that joins no group: for queries only.
fn plain_consumer(brokers: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer")
}

fn admin(cluster: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", cluster).create().expect("an admin client")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
