//! The dead-letter topic of another framework as an inbox: real Spring Kafka, Kafka Connect and `SmallRye`, and records written as
//! others would write them.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::port::free_port;
use crate::support::process::{self, Kladder};
use crate::support::raw::{Headers, NewRecord, RawProducer, Record};
use crate::support::scene::{Scene, path};

const PARTITIONS: i32 = 2;

/// A ladder whose inbox is the dead-letter topic of another framework.
fn scene(theme: &str, dialect: &str, inbox: &str) -> Scene {
    let mut scene = Scene::of_relay(theme, &["500ms", "1s"], PARTITIONS);
    let inbox = inbox.replace("SOURCE", &scene.source);
    scene.settings = format!(
        "mode = \"relay\"\nredeliver = \"origin\"\nreaches_all_groups = true\nstart = \"earliest\"\n\
         inbox = {{ topic = \"{inbox}\", dialect = \"{dialect}\" }}"
    );
    scene
}

/// The class path of a pom, fetched by Maven if it is missing.
fn jars(name: &'static str) -> PathBuf {
    static FETCHED: OnceLock<std::sync::Mutex<()>> = OnceLock::new();
    let _one_at_a_time = FETCHED.get_or_init(std::sync::Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pom = broker::in_house(&format!("tests/broker/dialects/{name}.pom.xml"));
    let folder = broker::in_house("target/dialects").join(name);
    // Fetched again when the versions change.
    let stamp = folder.join("pom.xml");
    let wanted = std::fs::read(&pom).expect("a pom");
    if std::fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return folder;
    }
    let _ = std::fs::remove_dir_all(&folder);
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(&pom).args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    command.arg(format!("-DoutputDirectory={}", folder.display())).stdin(Stdio::null());
    let fetched = command.output().expect("Maven is installed: scripts/install test");
    let said = String::from_utf8_lossy(&fetched.stdout);
    assert!(fetched.status.success(), "Maven could not fetch what {} names: {said}", pom.display());
    std::fs::write(&stamp, wanted).expect("a file");
    folder
}

/// A program of another framework; stopped when dropped.
struct Foreign {
    child: Child,
    folder: tempfile::TempDir,
}

impl Foreign {
    fn start(class_path: &str, arguments: &[&str], folder: tempfile::TempDir) -> Self {
        let file = |name: &str| File::create(folder.path().join(name)).expect("a file");
        let mut command = Command::new("java");
        command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", class_path]);
        command.args(arguments).stdin(Stdio::null()).stdout(file("said")).stderr(file("errors"));
        Self { child: command.spawn().expect("java is installed: scripts/install test"), folder }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "it has ended ({ended:?}):\n{}", self.text("errors"));
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let errors = self.text("errors");
            let end: Vec<&str> = errors.lines().rev().take(40).collect();
            eprintln!("--- the end of what the other framework said");
            end.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn spring(scene: &Scene, mode: &str) -> Foreign {
    java("spring", "Spring", &[&scene.brokers, &scene.group, &scene.source, mode])
}

/// The application of `SmallRye`, with the dead-letter topic behind its last retry topic.
fn smallrye(scene: &Scene, mode: &str) -> Foreign {
    let retries = ["100", "200"].map(|millis| format!("{}_retry_{millis}", scene.source));
    if mode == "delayed" {
        for topic in &retries {
            broker::create_topic(topic, PARTITIONS, &[]);
        }
    }
    java("smallrye", "SmallRye", &[&scene.brokers, &scene.group, &scene.source, mode, &retries.join(",")])
}

/// A program of `tests/broker/dialects`, on the class path of its pom.
fn java(pom: &'static str, class: &str, arguments: &[&str]) -> Foreign {
    let jars = jars(pom);
    let folder = tempfile::tempdir().expect("a folder");
    let source = broker::in_house("tests/broker/dialects").join(format!("{class}.java"));
    let jars = format!("{}/*", jars.display());
    let compiled = Command::new("javac").args(["-proc:none", "-cp", &jars, "-d"]).arg(folder.path()).arg(source).output();
    let compiled = compiled.expect("a Java compiler is installed: scripts/install test");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let class_path = format!("{}:{jars}", folder.path().display());
    Foreign::start(&class_path, &[&[class], arguments].concat(), folder)
}

fn record(number: i32, value: &str) -> NewRecord {
    let headers: Headers = vec![(b"x-mine".to_vec(), Some(value.as_bytes().to_vec()))];
    let key = format!("key-{number}").into_bytes();
    NewRecord { partition: number % PARTITIONS, key: Some(key), value: Some(value.as_bytes().to_vec()), headers }
}

const FOREIGN: [&str; 11] = [
    "kafka_dlt-",
    "kafka_original-",
    "kafka_exception-",
    "retry_topic-",
    "__connect.",
    "__streams.",
    "__dlq.",
    "dead-letter-",
    "delayed-retry-",
    "x-original-",
    "x-exception-",
];

/// No header of the framework is left on the redelivered record, and all of the user's are.
fn assert_clean(records: &[Record]) {
    for record in records {
        let is_foreign = |name: &[u8]| FOREIGN.iter().any(|prefix| name.starts_with(prefix.as_bytes()));
        let names: Vec<String> = record.headers.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        assert!(!record.headers.iter().any(|(name, _)| is_foreign(name)), "{names:?}");
        assert_eq!(record.text("x-mine").map(str::as_bytes), record.value.as_deref());
    }
}

fn climbs_behind_spring(theme: &str, mode: &str) {
    climbs_behind(theme, "spring", |scene| spring(scene, mode));
}

/// An application on the class path of a pom, whose dead letters are in `SOURCE-dlt`.
fn climbs_behind(theme: &str, dialect: &str, start: impl Fn(&Scene) -> Foreign) {
    let scene = scene(theme, dialect, "SOURCE-dlt");
    broker::create_topic(&format!("{}-dlt", scene.source), PARTITIONS, &[]);
    let config = scene.set_up();
    let mut kladder = Kladder::run(&config);
    let mut application = start(&scene);
    let values = ["ok", "fail 1", "fail 2", "fail 99"];
    let all: Vec<NewRecord> = (0..).zip(values).map(|(number, value)| record(number, value)).collect();
    RawProducer::new(&scene.brokers).write(&scene.source, &all);
    clock::eventually("three are done and one is dead", PATIENCE * 2, || {
        application.assert_running();
        kladder.assert_running();
        application.text("said").lines().count() == 3 && broker::read(&scene.dlq_topic()).len() == 1
    });
    let mut said: Vec<String> = application.text("said").lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(said, ["fail 1 after 1", "fail 2 after 2", "ok after 0"]);
    let back = broker::read(&scene.source);
    // Once, twice and twice.
    assert_eq!(back.len(), values.len() + 5);
    assert_clean(&back);
    let dead = broker::read(&scene.dlq_topic()).remove(0);
    assert_eq!(dead.value.as_deref(), Some(&b"fail 99"[..]));
    assert_eq!((dead.text("kladder-reason"), dead.text("kladder-attempts")), (Some("exhausted"), Some("3")));
    assert_eq!(dead.text("kladder-error-class"), Some("java.lang.IllegalStateException"));
    if dialect == "spring" {
        assert!(dead.text("kladder-error-stack").is_some_and(|stack| stack.contains("not yet: fail 99")), "its stack trace");
    }
    assert_eq!(dead.text("kladder-error-message").map(|message| message.contains("not yet: fail 99")), Some(true));
    let origin = ["topic", "partition", "offset"].map(|name| dead.text(&format!("kladder-origin-{name}")).map(str::to_owned));
    // The fourth record over two partitions is the second one of the second partition.
    assert_eq!(origin, [Some(scene.source.clone()), Some("1".to_owned()), Some("1".to_owned())]);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn dead_letters_of_a_spring_application_climb() {
    climbs_behind_spring("dialect-spring", "plain");
}

#[test]
fn dead_letters_of_springs_retry_topics_climb() {
    climbs_behind_spring("dialect-spring-retry", "retry");
}

#[test]
fn dead_letters_of_a_smallrye_application_climb() {
    climbs_behind("dialect-smallrye-dlq", "smallrye", |scene| smallrye(scene, "plain"));
}

#[test]
fn dead_letters_of_smallryes_delayed_retries_climb() {
    climbs_behind("dialect-smallrye-retry", "smallrye", |scene| smallrye(scene, "delayed"));
}

#[test]
fn dead_letters_of_a_connector_climb() {
    let scene = scene("dialect-connect", "connect", "SOURCE-dlq");
    let dlq = format!("{}-dlq", scene.source);
    broker::create_topic(&dlq, PARTITIONS, &[]);
    let config = scene.set_up();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let worker = format!(
        "bootstrap.servers={}\nkey.converter=org.apache.kafka.connect.converters.ByteArrayConverter\n\
         value.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter.schemas.enable=false\n\
         offset.storage.file.filename={}\noffset.flush.interval.ms=500\nlisteners=http://127.0.0.1:{}\nplugin.path={}\n",
        scene.brokers,
        at("offsets"),
        free_port(),
        // It must not be empty; the class path is found anyway.
        at("plugins"),
    );
    std::fs::create_dir(at("plugins")).expect("a folder");
    let sink = format!(
        "name={0}\nconnector.class=org.apache.kafka.connect.file.FileStreamSinkConnector\ntasks.max=1\ntopics={1}\nfile={2}\n\
         consumer.override.isolation.level=read_committed\nerrors.tolerance=all\nerrors.deadletterqueue.topic.name={3}\n\
         errors.deadletterqueue.topic.replication.factor=1\nerrors.deadletterqueue.context.headers.enable=true\n",
        scene.ladder,
        scene.source,
        at("sunk"),
        dlq,
    );
    std::fs::write(at("worker.properties"), worker).expect("a file");
    std::fs::write(at("sink.properties"), sink).expect("a file");
    let (worker, sink) = (at("worker.properties"), at("sink.properties"));
    let class_path = format!("{}/*", jars("connect").display());
    let mut kladder = Kladder::run(&config);
    let mut connect = Foreign::start(&class_path, &["org.apache.kafka.connect.cli.ConnectStandalone", &worker, &sink], folder);
    RawProducer::new(&scene.brokers).write(&scene.source, &[record(0, "{\"order\":0}"), record(1, "no json")]);
    clock::eventually("one is done and one is dead", PATIENCE * 2, || {
        connect.assert_running();
        kladder.assert_running();
        connect.text("sunk").contains("order=0") && broker::read(&scene.dlq_topic()).len() == 1
    });
    let dead = broker::read(&scene.dlq_topic()).remove(0);
    assert_eq!((dead.key.as_deref(), dead.value.as_deref()), (Some(&b"key-1"[..]), Some(&b"no json"[..])));
    assert_eq!((dead.text("kladder-reason"), dead.text("kladder-attempts")), (Some("exhausted"), Some("3")));
    assert_eq!(dead.text("kladder-error-class"), Some("org.apache.kafka.connect.errors.DataException"));
    assert_eq!((dead.text("kladder-origin-topic"), dead.text("kladder-origin-offset")), (Some(scene.source.as_str()), Some("0")));
    let back = broker::read(&scene.source);
    assert_eq!(back.len(), 4, "it came back twice");
    assert_clean(&back);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

/// A dead letter as a framework writes it.
fn dead_letter(of: &NewRecord, value: Option<&[u8]>, told: &[(&str, String)]) -> NewRecord {
    let told = told.iter().map(|(name, value)| (name.as_bytes().to_vec(), Some(value.clone().into_bytes())));
    let headers = of.headers.iter().cloned().chain(told).collect();
    NewRecord { partition: of.partition, key: of.key.clone(), value: value.map(<[u8]>::to_vec), headers }
}

fn come_back(theme: &str, dialect: &str, letters: impl Fn(&str, &NewRecord, i64) -> NewRecord) {
    let scene = scene(theme, dialect, "SOURCE.dead");
    let inbox = format!("{}.dead", scene.source);
    broker::create_topic(&inbox, PARTITIONS, &[]);
    let config = scene.set_up();
    let kladder = Kladder::run(&config);
    let all: Vec<NewRecord> = (0..4).map(|number| record(number, &format!("value {number}"))).collect();
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &all);
    let dead: Vec<NewRecord> = (0_i64..).zip(&all).map(|(number, of)| letters(&scene.source, of, number / 2)).collect();
    producer.write(&inbox, &dead);
    // One of a topic that is not a source, and one without a topic.
    producer.write(&inbox, &[letters("elsewhere", &all[0], 0), record(1, "value x")]);
    clock::eventually("four came back, two have no origin", PATIENCE, || {
        broker::read(&scene.source).len() == 8 && broker::read(&scene.dlq_topic()).len() == 2
    });
    let records = broker::read(&scene.source);
    assert_clean(&records);
    for (number, of) in (0_i64..).zip(&all) {
        let alike: Vec<&Record> = records.iter().filter(|record| record.value == of.value).collect();
        assert_eq!(alike.len(), 2, "record {number}");
        let back = alike.iter().find(|record| record.text("kladder-attempts").is_some()).expect("one that came back");
        assert_eq!((back.partition, back.key.as_deref()), (of.partition, of.key.as_deref()));
        assert_eq!((back.text("kladder-attempts"), back.text("kladder-tier")), (Some("1"), Some("1")));
        assert_eq!(back.text("kladder-origin-offset"), Some((number / 2).to_string().as_str()));
    }
    for dead in broker::read(&scene.dlq_topic()) {
        assert_eq!(dead.text("kladder-reason"), Some("no-origin"));
    }
    // Stray records are logged and counted.
    let told = kladder.log().lines().filter(|line| line.contains("WARN") && line.contains("no-origin")).count();
    assert!((1..=2).contains(&told), "its log:\n{}", kladder.log());
    clock::eventually("they are counted", PATIENCE, || {
        scene.metric("kladder_dead_letters_total", "reason=\"no-origin\"") == Some(2.0)
    });
    drop(kladder);
}

#[test]
fn dead_letters_as_kafka_streams_writes_them_come_back() {
    come_back("dialect-streams", "streams", |topic, of, offset| {
        let told = [
            ("__streams.errors.exception", "java.lang.ArithmeticException".to_owned()),
            ("__streams.errors.message", "/ by zero".to_owned()),
            ("__streams.errors.topic", topic.to_owned()),
            ("__streams.errors.partition", of.partition.to_string()),
            ("__streams.errors.offset", offset.to_string()),
        ];
        dead_letter(of, of.value.as_deref(), &told)
    });
}

#[test]
fn dead_letters_of_three_hops_of_smallrye_come_back() {
    come_back("dialect-smallrye", "smallrye", |topic, of, offset| {
        let hop = |topic: &str, partition: i32, offset: i64| {
            [
                ("delayed-retry-exception-class-name", "java.lang.IllegalStateException".to_owned()),
                ("delayed-retry-reason", "no account".to_owned()),
                ("delayed-retry-topic", topic.to_owned()),
                ("delayed-retry-partition", partition.to_string()),
                ("delayed-retry-offset", offset.to_string()),
            ]
        };
        // Each hop's headers come before those of earlier hops, and all of them before the user's; the count comes
        // last.
        let hops = [hop("retry_1000", 1, 4), hop("retry_500", 0, 3), hop(topic, of.partition, offset)].concat();
        let mut letter = dead_letter(of, of.value.as_deref(), &hops);
        letter.headers.rotate_left(of.headers.len());
        letter.headers.extend((0..3).map(|count: i32| (b"delayed-retry-count".to_vec(), Some(count.to_string().into_bytes()))));
        letter
    });
}

#[test]
fn dead_letters_as_the_binder_of_spring_cloud_stream_writes_them_come_back() {
    come_back("dialect-binder", "spring", |topic, of, offset| {
        let mut letter =
            dead_letter(of, of.value.as_deref(), &[("x-exception-fqcn", "java.lang.IllegalStateException".to_owned())]);
        let told: [(&str, Vec<u8>); 4] = [
            ("x-original-topic", topic.as_bytes().to_vec()),
            ("x-original-partition", of.partition.to_be_bytes().to_vec()),
            ("x-original-offset", offset.to_be_bytes().to_vec()),
            ("x-original-timestampType", b"CreateTime".to_vec()),
        ];
        letter.headers.extend(told.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), Some(value))));
        letter
    });
}

fn shared(topic: &str, of: &NewRecord, offset: i64, value: Option<&[u8]>) -> NewRecord {
    let told = [
        ("__dlq.errors.topic", topic.to_owned()),
        ("__dlq.errors.partition", of.partition.to_string()),
        ("__dlq.errors.offset", offset.to_string()),
        ("__dlq.errors.group", "billing".to_owned()),
        ("__dlq.errors.delivery.count", "5".to_owned()),
    ];
    dead_letter(of, value, &told)
}

#[test]
fn dead_letters_of_a_share_group_come_back() {
    come_back("dialect-share-group", "share-group", |topic, of, offset| shared(topic, of, offset, of.value.as_deref()));
}

#[test]
fn dead_letters_of_a_share_group_that_come_without_their_records_are_completed() {
    come_back("dialect-share-bare", "share-group", |topic, of, offset| {
        let mut letter = shared(topic, of, offset, None);
        letter.key = None;
        letter.headers.retain(|(name, _)| name != b"x-mine");
        letter
    });
}

#[test]
fn a_dead_letter_whose_record_is_gone_is_never_redelivered_as_null() {
    let scene = scene("dialect-share-gone", "share-group", "SOURCE.dead");
    let inbox = format!("{}.dead", scene.source);
    broker::create_topic(&inbox, PARTITIONS, &[]);
    let config = scene.set_up();
    let producer = RawProducer::new(&scene.brokers);
    let all: Vec<NewRecord> = (0..6).map(|number| record(number, &format!("value {number}"))).collect();
    producer.write(&scene.source, &all);
    broker::delete_records(&scene.source, 0, 2);
    producer.write(
        &inbox,
        &[
            shared(&scene.source, &all[0], 0, None),
            shared(&scene.source, &all[1], 900, None),
            shared(&scene.source, &all[4], 2, None),
        ],
    );
    let _kladder = Kladder::run(&config);
    clock::eventually("two are dead and one came back", PATIENCE, || {
        broker::read(&scene.dlq_topic()).len() == 2
            && broker::read(&scene.source).iter().any(|r| r.text("kladder-attempts").is_some())
    });
    for dead in broker::read(&scene.dlq_topic()) {
        assert_eq!((dead.text("kladder-reason"), dead.value.as_deref()), (Some("no-origin"), None));
    }
    let back: Vec<Record> = broker::read(&scene.source).into_iter().filter(|r| r.text("kladder-attempts").is_some()).collect();
    assert_eq!(back.iter().map(|r| r.value.as_deref()).collect::<Vec<_>>(), [Some(&b"value 4"[..])]);
}

#[test]
fn setup_never_touches_the_dead_letter_topic_of_another_framework() {
    let mut scene = scene("dialect-setup", "connect", "SOURCE-dlq");
    let dlq = format!("{}-dlq", scene.source);
    let absent = scene.setup();
    absent.refuses(2, &[&dlq, "does not exist"]);
    assert!(!broker::topics().contains_key(&dlq));
    broker::create_topic(&dlq, 1, &[]);
    let said = scene.setup().succeeds();
    assert!(!said.stdout.contains(&format!("create {dlq}")), "{said}");
    assert_eq!(broker::committed(&format!("{}.router", scene.ladder), &dlq, 0).0, Some(0));
    assert!(!broker::topics().contains_key(&scene.inbox_topic()));
    let checked = process::kladder(&["check", "-c", path(&scene.write())]).succeeds();
    assert!(checked.stdout.contains("dead letters as connect writes them"), "{checked}");
    // Old dead letters are redelivered only where configured.
    scene.settings = scene.settings.replace("start = \"earliest\"\n", "");
    scene.ladder.push_str("-2");
    scene.setup().refuses(2, &["`start` is not set", "start ="]);
}
