//! `kladder setup` and `kladder status` as binaries on a real broker.
//!
//! `KLADDER_TEST_BROKERS` names it, as `scripts/kafka up` prints it. Every test has its own topics.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(20);

/// A ladder with a unique name, its file, and the cluster.
struct Bench {
    name: String,
    brokers: String,
    directory: tempfile::TempDir,
}

/// The result of the command.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Bench {
    fn new(test: &str) -> Self {
        let brokers =
            std::env::var("KLADDER_TEST_BROKERS").expect("KLADDER_TEST_BROKERS: run scripts/kafka up and export what it prints");
        let directory = tempfile::tempdir().unwrap();
        // Unique on a broker that outlives the test: the process id, and what makes the directory
        // unique.
        let unique = directory.path().file_name().unwrap().to_string_lossy().trim_start_matches('.').to_ascii_lowercase();
        let bench = Self { name: format!("setup-{test}-{}-{unique}", std::process::id()), brokers, directory };
        bench.configure("start = \"earliest\"\ntiers = [\"5s\", \"1m\"]");
        bench
    }

    fn with_source(test: &str, partitions: i32) -> Self {
        let bench = Self::new(test);
        bench.create(&bench.source(), partitions, &[]);
        bench
    }

    fn source(&self) -> String {
        format!("{}-orders", self.name)
    }

    fn topic(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("kladder.toml")
    }

    fn configure(&self, ladder: &str) {
        let Self { name, brokers, .. } = self;
        let text = format!(
            r#"
            [kafka]
            bootstrap.servers = "{brokers}"
            [health]
            listen = "127.0.0.1:1"
            [ladder.{name}.handler]
            url = "http://127.0.0.1:1/"
            [ladder.{name}]
            sources = ["{name}-orders"]
            group = "{name}"
            {ladder}
            "#
        );
        std::fs::write(self.file(), text).unwrap();
    }

    fn kladder(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_kladder"))
            .args(arguments)
            .arg("-c")
            .arg(self.file())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn setup(&self) -> Ended {
        self.kladder(&["setup", "--yes"]).expect(0)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", &self.name);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new = settings.iter().fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), |new, (k, v)| new.set(k, v));
        for result in wait(self.admin().create_topics([&new], &AdminOptions::new())).unwrap() {
            result.unwrap();
        }
    }

    /// All settings set on the topic, with this one changed: the call replaces the whole set.
    fn alter(&self, topic: &str, setting: &str, value: &str) {
        let admin = self.admin();
        let described = wait(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new())).unwrap();
        let entries = described.into_iter().next().unwrap().unwrap().entries;
        let mut own: BTreeMap<String, String> =
            entries.into_iter().filter(|e| !e.is_default).filter_map(|e| Some((e.name, e.value?))).collect();
        own.insert(setting.to_owned(), value.to_owned());
        let config = own.iter().fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |c, (k, v)| c.set(k, v));
        for result in wait(admin.alter_configs([&config], &AdminOptions::new())).unwrap() {
            result.unwrap();
        }
    }

    fn topics(&self) -> BTreeMap<String, usize> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let metadata = consumer.fetch_metadata(None, WITHIN).unwrap();
        let own = metadata.topics().iter().filter(|t| t.name().starts_with(&self.name));
        own.map(|t| (t.name().trim_start_matches(&self.name).to_owned(), t.partitions().len())).collect()
    }

    fn committed(&self, group: &str, topic: &str, partitions: i32) -> Vec<Offset> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        consumer.committed_offsets(list, WITHIN).unwrap().elements().iter().map(TopicPartitionListElem::offset).collect()
    }

    fn commit(&self, group: &str, topic: &str, offsets: &[i64]) {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(*offset)).unwrap();
        }
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    fn produce(&self, topic: &str, partition: i32, count: usize) {
        let producer: BaseProducer = self.client().create().unwrap();
        for _ in 0..count {
            producer.send(BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(b"x")).map_err(|(e, _)| e).unwrap();
        }
        producer.flush(WITHIN).unwrap();
    }

    /// A transaction of this many records, aborted: offsets without records.
    fn produce_aborted(&self, topic: &str, partition: i32, count: usize) {
        let producer: BaseProducer = self.client().set("transactional.id", &self.name).create().unwrap();
        producer.init_transactions(WITHIN).unwrap();
        producer.begin_transaction().unwrap();
        for _ in 0..count {
            producer.send(BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(b"x")).map_err(|(e, _)| e).unwrap();
        }
        producer.flush(WITHIN).unwrap();
        producer.abort_transaction(WITHIN).unwrap();
    }
}

impl Ended {
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text) || self.err.contains(text), "`{text}` is not in\n{}{}", self.out, self.err);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn an_empty_cluster_is_set_up_and_the_second_run_changes_nothing() {
    let bench = Bench::with_source("empty", 3);
    let ladder =
        |list: &[(&str, usize)]| -> BTreeMap<String, usize> { list.iter().map(|(n, p)| ((*n).to_owned(), *p)).collect() };
    bench.setup().says("applied, and in order");
    let expected = ladder(&[("-orders", 3), (".retry-5s", 3), (".retry-1m", 3), (".redeliver", 3), (".dlq", 3), (".state", 1)]);
    assert_eq!(bench.topics(), expected);
    let zero = vec![Offset::Offset(0); 3];
    assert_eq!(bench.committed(&bench.topic("mover"), &bench.topic("retry-5s"), 3), zero);
    assert_eq!(bench.committed(&bench.topic("mover"), &bench.topic("retry-1m"), 3), zero);
    assert_eq!(bench.committed(&bench.name, &bench.topic("redeliver"), 3), zero);
    assert_eq!(bench.committed(&bench.name, &bench.source(), 3), zero);

    let again = bench.kladder(&["setup", "--yes", "-o", "json"]).expect(0);
    assert_eq!(again.json()["outcome"], "in-order");
    assert_eq!(again.json()["plan"]["ladders"][0]["changes"], serde_json::json!([]));
    assert_eq!(bench.topics(), expected);
}

#[test]
fn relay_gets_an_inbox_and_leaves_the_source_alone() {
    let bench = Bench::with_source("relay", 2);
    bench.configure("mode = \"relay\"\ntiers = [\"5s\"]");
    let file = std::fs::read_to_string(bench.file()).unwrap();
    // Relay has no handler.
    let handler = format!("[ladder.{}.handler]\n            url = \"http://127.0.0.1:1/\"", bench.name);
    std::fs::write(bench.file(), file.replace(&handler, "")).unwrap();
    bench.setup();
    assert_eq!(bench.committed(&bench.topic("router"), &bench.topic("inbox"), 2), [Offset::Offset(0); 2]);
    assert_eq!(bench.committed(&bench.name, &bench.source(), 2), [Offset::Invalid; 2]);
}

#[test]
fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let bench = Bench::with_source("dry", 1);
    bench.kladder(&["setup", "--dry-run"]).expect(3).says("+ create topic");
    assert_eq!(bench.topics().len(), 1);
    bench.setup();
    bench.kladder(&["setup", "--dry-run"]).expect(0).says("in order");
}

#[test]
fn nobody_to_ask_is_a_refusal() {
    let bench = Bench::with_source("ask", 1);
    bench.kladder(&["setup"]).expect(2).says("--yes");
    assert_eq!(bench.topics().len(), 1);
}

#[test]
fn retention_that_was_changed_is_drift_and_told_with_its_command() {
    let bench = Bench::with_source("drift", 1);
    bench.setup();
    bench.alter(&bench.topic("retry-1m"), "retention.ms", "3600000");
    let command = format!(
        "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} --add-config retention.ms=604860000",
        bench.brokers,
        bench.topic("retry-1m")
    );
    bench.kladder(&["setup", "--yes"]).expect(3).says(&command);
    let json = bench.kladder(&["setup", "--dry-run", "-o", "json"]).expect(3).json();
    assert_eq!(json["outcome"], "drift");
    assert_eq!(json["plan"]["ladders"][0]["drift"][0]["command"], command);
}

#[test]
fn drift_that_is_left_after_applying_has_its_exit_code() {
    let bench = Bench::with_source("left", 1);
    bench.create(&bench.topic("dlq"), 1, &[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "1000")]);
    bench.kladder(&["setup", "--yes"]).expect(3).says("creating 4 topics");
    assert_eq!(bench.topics().len(), 6);
}

#[test]
fn tiers_that_would_lose_records_or_be_early_are_refused() {
    for (test, settings, text) in [
        ("compacted", [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")], "cleanup.policy is compact"),
        ("short", [("retention.ms", "1000"), ("message.timestamp.type", "LogAppendTime")], "less than the tier's delay of 5s"),
        (
            "create-time",
            [("retention.ms", "-1"), ("message.timestamp.type", "CreateTime")],
            "message.timestamp.type is CreateTime",
        ),
    ] {
        let bench = Bench::with_source(test, 1);
        bench.create(&bench.topic("retry-5s"), 1, &settings);
        bench.kladder(&["setup", "--yes"]).expect(2).says(text).says("nothing was changed");
        assert_eq!(bench.topics().len(), 2, "{test}");
    }
}

#[test]
fn a_source_that_is_missing_is_refused() {
    let bench = Bench::new("nosource");
    bench.kladder(&["setup", "--yes"]).expect(2).says("source topic does not exist");
    assert_eq!(bench.topics().len(), 0);
}

#[test]
fn a_start_must_be_said_while_the_group_has_no_offsets() {
    let bench = Bench::with_source("start", 2);
    bench.configure("tiers = [\"5s\"]");
    let remedy = format!("add start = \"earliest\" or \"latest\" to [ladder.{}]", bench.name);
    bench.kladder(&["setup", "--yes"]).expect(2).says(&remedy);
    bench.produce(&bench.source(), 1, 4);
    bench.commit(&bench.name, &bench.source(), &[0]);
    bench.setup();
    // The partition without an offset counts as an added one, the other keeps its offset.
    assert_eq!(bench.committed(&bench.name, &bench.source(), 2), [Offset::Offset(0), Offset::Offset(0)]);
}

#[test]
fn a_start_at_the_end_skips_what_is_there() {
    let bench = Bench::with_source("latest", 2);
    bench.produce(&bench.source(), 1, 4);
    bench.configure("start = \"latest\"\ntiers = [\"5s\"]");
    bench.setup().says("about 4 existing records will be skipped");
    assert_eq!(bench.committed(&bench.name, &bench.source(), 2), [Offset::Offset(0), Offset::Offset(4)]);
}

#[test]
fn a_tier_with_too_few_partitions_gets_more_and_a_place_on_them() {
    let bench = Bench::with_source("under", 3);
    bench.create(&bench.topic("retry-5s"), 1, &[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "-1")]);
    bench.alter(&bench.topic("retry-5s"), "max.message.bytes", "1064972");
    bench.commit(&bench.topic("mover"), &bench.topic("retry-5s"), &[0]);
    bench.setup().says("~ add partitions").says("1 -> 3");
    assert_eq!(bench.topics()[".retry-5s"], 3);
    assert_eq!(bench.committed(&bench.topic("mover"), &bench.topic("retry-5s"), 3), [Offset::Offset(0); 3]);
    bench.setup().says("in order");
}

#[test]
fn a_removed_tier_is_told_with_what_waits_in_it() {
    let bench = Bench::with_source("removed", 1);
    bench.setup();
    bench.produce(&bench.topic("retry-1m"), 0, 3);
    bench.configure("start = \"earliest\"\ntiers = [\"5s\"]");
    bench.setup().says("holds about 3 waiting records and is still emptied by the mover");
    assert!(bench.topics().contains_key(".retry-1m"));
}

#[test]
fn a_group_with_members_is_not_given_offsets() {
    // The client cannot describe the members of a group with the newer protocol: there the broker refuses the
    // commit.
    for (protocol, code, text) in [("classic", 2, "has 1 active members"), ("consumer", 1, "because it has active members")] {
        let bench = Bench::with_source(protocol, 1);
        let mut config = bench.client();
        config.set("group.protocol", protocol).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[&bench.source()]).unwrap();
        let joined = (0..100).any(|_| {
            let _ = consumer.poll(Duration::from_millis(100));
            consumer.assignment().unwrap().count() > 0
        });
        assert!(joined, "{protocol}");
        bench.kladder(&["setup", "--yes"]).expect(code).says(text);
        assert_eq!(bench.committed(&bench.name, &bench.source(), 1), [Offset::Invalid]);
    }
}

#[test]
fn nobody_there_is_told_within_its_time() {
    let mut bench = Bench::new("nobody");
    bench.brokers = "127.0.0.1:1".to_owned();
    bench.configure("tiers = [\"5s\"]");
    bench.kladder(&["setup", "--yes"]).expect(1).says("no broker answered at 127.0.0.1:1 within 10s").says("bootstrap.servers");
}

#[test]
fn status_tells_what_waits_and_what_is_due() {
    let bench = Bench::with_source("status", 2);
    bench.configure("start = \"earliest\"\ntiers = [\"50ms\", \"1h\"]");
    bench.setup();
    bench.produce(&bench.topic("retry-50ms"), 0, 2);
    bench.produce(&bench.topic("retry-1h"), 1, 3);
    bench.produce_aborted(&bench.topic("retry-1h"), 0, 5);
    bench.produce(&bench.topic("dlq"), 1, 1);
    bench.produce(&bench.source(), 0, 7);
    std::thread::sleep(Duration::from_millis(100));

    let estimated = bench.kladder(&["status", "-o", "json"]).expect(0).says("no worker answered").json();
    let ladder = &estimated["ladders"][0];
    assert_eq!(ladder["tiers"][0]["waiting"], 2);
    assert_eq!(ladder["tiers"][0]["due"], 2);
    assert!(ladder["tiers"][0]["oldest_due_ms"].as_i64().unwrap() > 0);
    // Three records, five aborted ones, and their marker.
    assert_eq!(ladder["tiers"][1]["waiting"], 9);
    assert_eq!(ladder["tiers"][1]["due"], 0);
    assert!(ladder["tiers"][1]["oldest_due_ms"].as_i64().unwrap() < 0);
    assert_eq!(ladder["dlq"]["records"], 1);
    let lags: Vec<(&str, i64)> =
        ladder["reads"].as_array().unwrap().iter().map(|r| (r["role"].as_str().unwrap(), r["lag"].as_i64().unwrap())).collect();
    assert_eq!(lags, [("redeliver", 0), ("source", 7)]);

    let exact = bench.kladder(&["status", "--exact", "-o", "json"]).expect(0).json();
    assert_eq!(exact["ladders"][0]["tiers"][1]["waiting"], 3);
    assert_eq!(exact["ladders"][0]["tiers"][0]["due"], 2);
    assert_eq!(exact["ladders"][0]["dlq"]["records"], 1);
}
