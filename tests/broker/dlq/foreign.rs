//! Dead-letter topics of other frameworks: read without configuration, and redriven where the configuration names them.

use super::PARTITIONS;
use crate::support::broker;
use crate::support::process::{self, Finished};
use crate::support::raw::{Headers, NewRecord, RawProducer, Record};
use crate::support::scene::path;

const COUNT: usize = 120;

struct Foreign {
    name: String,
    source: String,
    dlt: String,
    config: std::path::PathBuf,
    folder: tempfile::TempDir,
}

/// The headers of a dialect, for a record from the source.
type Dialect = fn(source: &str, number: usize) -> Headers;

fn text(pairs: &[(&str, String)]) -> Headers {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), Some(value.clone().into_bytes()))).collect()
}

fn spring(source: &str, number: usize) -> Headers {
    let mut headers = text(&[
        ("kafka_dlt-original-topic", source.to_owned()),
        ("kafka_dlt-exception-fqcn", "org.springframework.kafka.listener.ListenerExecutionFailedException".to_owned()),
        ("kafka_dlt-exception-cause-fqcn", "java.lang.IllegalStateException".to_owned()),
        ("kafka_dlt-exception-message", format!("no account {number}")),
    ]);
    let partition = i32::try_from(number).expect("few") % PARTITIONS;
    headers.push((b"kafka_dlt-original-partition".to_vec(), Some(partition.to_be_bytes().to_vec())));
    headers.push((b"kafka_dlt-original-offset".to_vec(), Some(i64::try_from(number).expect("few").to_be_bytes().to_vec())));
    headers
}

fn decimal(prefix: &str, class: &str, message: &str, source: &str, number: usize) -> Headers {
    text(&[
        (&format!("{prefix}topic"), source.to_owned()),
        (&format!("{prefix}partition"), (number % 3).to_string()),
        (&format!("{prefix}offset"), number.to_string()),
        (&format!("{prefix}{class}"), "java.lang.IllegalStateException".to_owned()),
        (&format!("{prefix}{message}"), format!("no account {number}")),
    ])
}

fn connect(source: &str, number: usize) -> Headers {
    decimal("__connect.errors.", "exception.class.name", "exception.message", source, number)
}

fn streams(source: &str, number: usize) -> Headers {
    decimal("__streams.errors.", "exception", "message", source, number)
}

fn smallrye(source: &str, number: usize) -> Headers {
    decimal("dead-letter-", "cause-class-name", "reason", source, number)
}

fn share_group(source: &str, number: usize) -> Headers {
    decimal("__dlq.errors.", "group", "message", source, number)
}

impl Foreign {
    fn new(theme: &str, headers: Dialect) -> Self {
        let name = broker::unique(theme);
        let (source, dlt) = (format!("{name}.orders"), format!("{name}.orders-dlt"));
        for topic in [&source, &dlt] {
            broker::create_topic(topic, PARTITIONS, &[]);
        }
        let records: Vec<NewRecord> = (0..COUNT)
            .map(|number| NewRecord {
                partition: i32::try_from(number).expect("few") % PARTITIONS,
                key: Some(format!("k{}", number % 10).into_bytes()),
                value: Some(format!("{{\"id\":{number}}}").into_bytes()),
                headers: [vec![(b"number".to_vec(), Some(number.to_string().into_bytes()))], headers(&source, number)].concat(),
            })
            .collect();
        RawProducer::new(broker::brokers()).write(&dlt, &records);
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("kladder.toml");
        let text = format!(
            "[kafka]\nbootstrap.servers = \"{}\"\n\n[dlq.{name}]\ntopic = \"{dlt}\"\ntargets = [\"{source}\"]\n",
            broker::brokers()
        );
        std::fs::write(&config, text).expect("a file");
        Self { name, source, dlt, config, folder }
    }

    fn dlq(&self, arguments: &[&str]) -> Finished {
        let mut all = vec!["dlq"];
        all.extend(arguments);
        all.extend(["-c", path(&self.config), "--state-dir", path(self.folder.path())]);
        process::kladder(&all)
    }

    fn count(&self, filter: &str) -> usize {
        self.dlq(&["list", "--count", filter]).succeeds().stdout.trim().parse().expect("a number")
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            broker::delete_topics(&[&format!("{}.", self.name)]);
        }
    }
}

fn works(theme: &str, headers: Dialect, has_class: bool) {
    let foreign = Foreign::new(theme, headers);
    // With only brokers and a topic.
    let anywhere = foreign.folder.path().join("other");
    let arguments = ["dlq", "groups", "-b", broker::brokers(), "-t", &foreign.dlt, "--state-dir", path(&anywhere), "-o", "json"];
    let told: serde_json::Value = serde_json::from_str(&process::kladder(&arguments).succeeds().stdout).expect("JSON");
    let groups = told["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 1, "{groups:#?}");
    assert_eq!((&groups[0]["count"], &groups[0]["message"]), (&COUNT.into(), &"no account …".into()));
    assert_eq!(groups[0]["origins"][&foreign.source], COUNT);
    if has_class {
        assert_eq!(groups[0]["class"], "java.lang.IllegalStateException");
    }
    // With its own section it can be redriven.
    foreign.dlq(&["redrive", "--all", "--to", "origin", "--yes"]).refuses(1, &["state", "kladder setup"]);
    process::kladder(&["setup", "-c", path(&foreign.config), "--yes"]).succeeds();
    process::kladder(&["setup", "-c", path(&foreign.config), "--dry-run"]).succeeds();
    foreign.dlq(&["redrive", "--all", "--yes"]).refuses(2, &["--to origin", &foreign.source]);
    foreign.dlq(&["resolve", "key:k3", "--yes"]).succeeds();
    foreign.dlq(&["redrive", "text:\"account 7\"", "--to", "origin", "--yes"]).succeeds();
    foreign.dlq(&["redrive", "--all", "--to", "origin", "--rate", "max", "--yes"]).succeeds();
    assert_eq!((foreign.count("state:resolved"), foreign.count("state:redriven"), foreign.count("state:open")), (12, 108, 0));
    let letters = broker::read(&foreign.dlt);
    let sent: Vec<Record> = broker::read(&foreign.source);
    assert_eq!(sent.len(), 108);
    for record in &sent {
        let letter = letters.iter().find(|l| l.text("number") == record.text("number")).expect("its letter");
        assert_eq!((&record.key, &record.value, record.partition), (&letter.key, &letter.value, letter.partition));
        let user: Vec<_> = record.headers.iter().filter(|(name, _)| !name.starts_with(b"kladder-")).collect();
        assert_eq!(user.len(), 1, "the headers that would drive its framework are gone: {user:?}");
    }
    // It is dead again, as its framework writes it: with the headers that it received, and the
    // framework's.
    let again: Vec<NewRecord> = sent[..20]
        .iter()
        .map(|record| NewRecord {
            partition: record.partition,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: [record.headers.clone(), headers(&foreign.source, 900)].concat(),
        })
        .collect();
    RawProducer::new(broker::brokers()).write(&foreign.dlt, &again);
    assert_eq!((foreign.count("state:failed-again"), foreign.count("state:open redrives:1")), (20, 20));
}

#[test]
fn a_spring_dead_letter_topic() {
    works("dlq-spring", spring, true);
}

#[test]
fn a_connect_dead_letter_topic() {
    works("dlq-connect", connect, true);
}

#[test]
fn a_streams_dead_letter_topic() {
    works("dlq-streams", streams, true);
}

#[test]
fn a_smallrye_dead_letter_topic() {
    works("dlq-smallrye", smallrye, true);
}

#[test]
fn a_share_group_dead_letter_topic() {
    works("dlq-share", share_group, false);
}
