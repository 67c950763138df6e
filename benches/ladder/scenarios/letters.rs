//! Dead letters: the time to build an index, to query it, and to redrive letters.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kladder::Timestamp;
use kladder::internals::{Filter, Index, Order};
use rdkafka::Offset;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use crate::broker::reader;
use crate::ceiling;
use crate::clock::epoch_micros;
use crate::load::VALUE_BYTES;
use crate::progress::Progress;
use crate::report::{Figure, Target, count, figure, percentile};
use crate::scenarios::{Bench, Plan, Stage, unique};

const PARTITIONS: i32 = 6;

/// How often each query runs.
const ASKED: usize = 40;

/// The queries: for many letters, few, and none.
const QUESTIONS: [&str; 12] = [
    "",
    "state:open",
    "reason:rejected",
    "class:Timeout topic:orders",
    "class:~illegal",
    "key:customer-4711",
    "key:nobody",
    "header.region:eu",
    "header.trace:500000",
    "text:\"no account\"",
    "text:\"account 500002\"",
    "age:>1h status:>=500",
];

const KINDS: [(&str, &str, &str, &str); 4] = [
    ("Timeout", "exhausted", "504", "no answer from the bank within"),
    ("Invalid", "rejected", "422", "no account"),
    ("java.lang.IllegalStateException", "exhausted", "500", "order is locked by"),
    ("java.lang.NullPointerException", "exhausted", "500", "value is null at"),
];

fn pour(bench: &Bench, plan: &Plan<'_>, letters: usize, progress: &Progress) {
    progress.step("writing dead letters");
    let topic = format!("{}.dlq", plan.name);
    let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", &bench.broker.servers)
        .set("linger.ms", "20")
        .set("batch.num.messages", "10000")
        .set("compression.type", "zstd")
        .set("queue.buffering.max.messages", "200000")
        .create()
        .expect("a producer");
    let filling = "x".repeat(VALUE_BYTES - 60);
    for number in 0..letters {
        let (class, reason, status, message) = KINDS[number % KINDS.len()];
        let partition = i32::try_from(number % 6).expect("few");
        let value = format!("{{\"n\":{number:010},\"filling\":\"{filling}\"}}");
        let key = format!("customer-{}", number % 20_000);
        let texts = [
            ("region", if number.is_multiple_of(2) { "eu".to_owned() } else { "us".to_owned() }),
            ("trace", number.to_string()),
            ("kladder-ladder", plan.name.clone()),
            ("kladder-v", "1".to_owned()),
            ("kladder-id", format!("{}/orders/{partition}/{number}/1760000000000", plan.name)),
            ("kladder-origin-topic", "orders".to_owned()),
            ("kladder-origin-partition", partition.to_string()),
            ("kladder-origin-offset", number.to_string()),
            ("kladder-origin-timestamp", "1760000000000".to_owned()),
            ("kladder-attempts", "4".to_owned()),
            ("kladder-first-failed-at", "1760000000000".to_owned()),
            ("kladder-last-failed-at", "1760000600000".to_owned()),
            ("kladder-error-class", class.to_owned()),
            ("kladder-error-status", status.to_owned()),
            ("kladder-reason", reason.to_owned()),
            ("kladder-redrives", "0".to_owned()),
            ("kladder-error-message", format!("{message} {number}")),
            ("kladder-history", format!("1760000000000,0,{class};1760000005000,1,{class};1760000065000,2,{class}")),
        ];
        let mut headers = OwnedHeaders::new_with_capacity(texts.len());
        for (name, text) in &texts {
            headers = headers.insert(Header { key: name, value: Some(text) });
        }
        let mut record = BaseRecord::to(&topic).partition(partition).key(&key).payload(&value).headers(headers);
        while let Err((_, back)) = producer.send(record) {
            std::thread::sleep(Duration::from_millis(5));
            record = back;
        }
    }
    producer.flush(Duration::from_secs(60)).expect("all letters are written");
}

/// The time of a reader that only reads the records.
fn bare_read(bench: &Bench, plan: &Plan<'_>, letters: usize) -> Duration {
    let topic = format!("{}.dlq", plan.name);
    let all: Vec<(String, i32, Offset)> = (0..PARTITIONS).map(|p| (topic.clone(), p, Offset::Beginning)).collect();
    let consumer = reader(&bench.broker.servers, &all);
    let (mut began, mut taken) = (None, 0);
    while taken < letters {
        if matches!(consumer.poll(Duration::from_millis(100)), Some(Ok(_))) {
            began.get_or_insert_with(Instant::now);
            taken += 1;
        }
    }
    consumer.unassign().expect("a consumer");
    began.map_or(Duration::ZERO, |began| began.elapsed())
}

pub fn index(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let letters = bench.records(1_000_000);
    let plan = Plan { name: unique(), tiers: &["1s"], partitions: PARTITIONS, hops: "exactly-once", handler: None, timeout: "" };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    pour(bench, &plan, letters, progress);
    progress.step("reading them bare");
    let bare = bare_read(bench, &plan, letters);
    progress.step("indexing");
    let state = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let (peak_rss, cpu) = stage.setup.dlq(&["list", "--count", "--state-dir", &state.path().display().to_string()]);
    let took = began.elapsed();
    progress.step("asking");
    let file: PathBuf = std::fs::read_dir(state.path().join("dlq"))
        .expect("a folder")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "sqlite"))
        .expect("an index");
    let bytes = std::fs::metadata(&file).map_or(0, |file| file.len());
    let index = Index::open(&file, 3).expect("an index");
    let now = Timestamp::from_millis(epoch_micros() / 1_000);
    let mut times = Vec::new();
    for question in QUESTIONS.iter().cycle().take(QUESTIONS.len() * ASKED) {
        let filter = Filter::parse(question).expect("a filter");
        let began = Instant::now();
        index.list(&filter, now, Order::Newest, 50).expect("an answer");
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let mut groups = Vec::new();
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(index.groups(&Filter::All, now, None).expect("groups").len(), KINDS.len());
        groups.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let rate = count(letters) / took.as_secs_f64();
    vec![
        figure("indexed", "letters/s", rate, Target::AtLeast(50_000.0)),
        figure("bare read", "letters/s", count(letters) / bare.as_secs_f64(), Target::Told),
        figure("CPU", "s a million", cpu / count(letters) * 1e6, Target::Told),
        figure("peak RSS", "MiB", peak_rss, Target::Told),
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        figure("index", "bytes a letter", bytes as f64 / count(letters), Target::Told),
        figure("list p50", "ms", percentile(&times, 50.0), Target::Told),
        figure("list p99", "ms", percentile(&times, 99.0), Target::AtMost(100.0)),
        figure("groups", "ms", percentile(&groups, 99.0), Target::AtMost(500.0)),
    ]
}

pub fn redrive(bench: &Bench, progress: &Progress) -> Vec<Figure> {
    let letters = bench.records(200_000);
    let plan = Plan { name: unique(), tiers: &["1s"], partitions: PARTITIONS, hops: "exactly-once", handler: None, timeout: "" };
    let stage = Stage::set(bench, std::slice::from_ref(&plan), progress);
    pour(bench, &plan, letters, progress);
    let copy = format!("{}.copy", plan.name);
    bench.broker.create_topic(&copy, PARTITIONS);
    let dlq = format!("{}.dlq", plan.name);
    let ceiling = || {
        progress.step("the ceiling");
        ceiling::copy(&bench.broker.servers, &dlq, &copy, PARTITIONS, letters)
    };
    let before = ceiling();
    progress.step("indexing");
    let state = tempfile::tempdir().expect("a folder");
    let folder = state.path().display().to_string();
    stage.setup.dlq(&["list", "--count", "--state-dir", &folder]);
    progress.step("sending back");
    let (peak_rss, cpu) = stage.setup.dlq(&["redrive", "--all", "--rate", "max", "--yes", "--state-dir", &folder]);
    let began = bench.broker.first_append(&plan.redeliver(), PARTITIONS);
    let ended = bench.broker.last_append(&plan.redeliver(), PARTITIONS);
    let after = ceiling();
    let most = 2.0 * count(letters) / (before.time + after.time).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let rate = count(letters) / ((ended - began) as f64 / 1e3);
    vec![
        figure("of the ceiling", "", rate / most, Target::AtLeast(0.5)),
        figure("rate", "letters/s", rate, Target::Told),
        figure("ceiling", "letters/s", most, Target::Told),
        figure("CPU", "s a million", cpu / count(letters) * 1e6, Target::Told),
        figure("peak RSS", "MiB", peak_rss, Target::Told),
    ]
}
