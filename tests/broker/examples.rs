//! The handlers and applications of `examples/`, each started as a user would, with a real ladder.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::independent;
use crate::support::port::free_port;
use crate::support::process::{self, Kladder};
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 2;

/// A program of the examples; stopped when dropped.
struct Program {
    child: Child,
    folder: tempfile::TempDir,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| File::create(folder.path().join(name)).expect("a file");
        command.stdin(Stdio::null()).stdout(file("said")).stderr(file("errors"));
        Self { child: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/install test")), folder }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect("a file")
    }

    /// The lines of its output, sorted.
    fn said(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.text("said").lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "it has ended ({ended:?}):\n{}", self.text("errors"));
    }

    fn terminate(mut self) {
        self.assert_running();
        process::signal(&self.child, "TERM");
        let ended = clock::poll(PATIENCE, || self.child.try_wait().expect("a child"));
        assert!(ended.is_some(), "it goes on after SIGTERM:\n{}", self.text("errors"));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example(path: &str) -> PathBuf {
    broker::in_house("examples").join(path)
}

/// The input, and the expected output.
struct Order {
    key: Option<&'static [u8]>,
    value: Option<&'static str>,
    /// For each delivery.
    verdicts: &'static [&'static str],
    /// Reason and class of its dead letter.
    dead: Option<(&'static str, &'static str)>,
}

const ORDERS: [Order; 7] = [
    Order { key: Some(b"a"), value: Some(r#"{"order":0}"#), verdicts: &["done"], dead: None },
    Order { key: Some(b"b"), value: Some(r#"{"order":1,"fail":1}"#), verdicts: &["retry", "done"], dead: None },
    Order {
        key: Some(b"c"),
        value: Some(r#"{"order":2,"fail":9}"#),
        verdicts: &["retry", "retry", "retry"],
        dead: Some(("exhausted", "OutOfStock")),
    },
    Order { key: Some(b"d"), value: Some("nothing"), verdicts: &["reject"], dead: Some(("rejected", "InvalidOrder")) },
    Order { key: Some(b"e"), value: None, verdicts: &["done"], dead: None },
    Order { key: Some(b"\x00\xff\n"), value: Some(r#"{"order":5}"#), verdicts: &["done"], dead: None },
    Order { key: None, value: Some(r#"{"order":6,"wait":2}"#), verdicts: &["retry", "done"], dead: None },
];

fn written(scene: &Scene) {
    let record = |(number, order): (usize, &Order)| NewRecord {
        partition: i32::try_from(number).expect("a small number") % PARTITIONS,
        key: order.key.map(<[u8]>::to_vec),
        value: order.value.map(|value| value.as_bytes().to_vec()),
        headers: records::plain(number, PARTITIONS).headers,
    };
    RawProducer::new(&scene.brokers).write(&scene.source, &ORDERS.iter().enumerate().map(record).collect::<Vec<_>>());
}

/// The dead letter of each order, byte for byte except for kladder's headers.
fn check_dead_letters(scene: &Scene, expected: impl Fn(&Order) -> Option<(&'static str, &'static str)>) {
    let dead = broker::read(&scene.dlq_topic());
    for (number, order) in ORDERS.iter().enumerate() {
        let id = format!("r-{number}");
        let own: Vec<&Record> = dead.iter().filter(|record| record.text(records::ID) == Some(&id)).collect();
        let found: Vec<_> = own.iter().map(|r| (r.text("kladder-reason"), r.text("kladder-error-class"))).collect();
        let wanted: Vec<_> = expected(order).into_iter().map(|(reason, class)| (Some(reason), Some(class))).collect();
        assert_eq!(found, wanted, "order {number}");
        for record in own {
            assert_eq!(record.key.as_deref(), order.key);
            assert_eq!(record.value.as_deref(), order.value.map(str::as_bytes));
            assert_eq!(record.text("kladder-origin-topic"), Some(scene.source.as_str()));
        }
    }
}

/// Each in a request of its own, and in batches.
fn handles_orders(theme: &str, batch: &'static str, command: impl Fn(&str) -> Command) {
    handles_orders_with(theme, "", &command);
    handles_orders_with(&format!("{theme}-batch"), batch, &command);
}

fn handles_orders_with(theme: &str, settings: &'static str, command: &impl Fn(&str) -> Command) {
    let port = free_port();
    let mut program = Program::start(&mut command(&port.to_string()));
    clock::eventually("the handler listens", PATIENCE, || {
        program.assert_running();
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let mut scene = Scene::with_source(theme, &["500ms", "3s"], PARTITIONS);
    scene.handler = format!("http://127.0.0.1:{port}/");
    scene.handler_settings = settings;
    let config = scene.set_up();
    written(&scene);
    let mut kladder = Kladder::run(&config);
    let mut expected = Vec::new();
    for order in &ORDERS {
        let key = order.key.map_or("none".to_owned(), |key| BASE64.encode(key));
        let value = order.value.map_or("null".to_owned(), |value| value.len().to_string());
        let line = |(n, verdict): (usize, &&str)| format!("key={key} value={value} attempt={} {verdict}", n + 1);
        expected.extend(order.verdicts.iter().enumerate().map(line));
    }
    expected.sort();
    clock::eventually("all deliveries are made", PATIENCE, || {
        program.assert_running();
        program.said().len() >= expected.len()
    });
    assert_eq!(program.said(), expected, "{}", program.text("errors"));
    clock::eventually("all is committed", PATIENCE, || {
        broker::lag(&scene.group, &scene.source) == 0 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    check_dead_letters(&scene, |order| order.dead);
    // The one that asked for 2 s has waited in the smallest tier that is long enough.
    let waited = broker::read(&scene.tier_topic("3s"));
    assert!(waited.iter().any(|record| record.text(records::ID) == Some("r-6") && record.text("kladder-attempts") == Some("1")));
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    program.terminate();
}

#[test]
fn the_handler_in_python() {
    handles_orders("handler-python", "batch = { wait = \"200ms\" }", |port| {
        let mut command = Command::new("python3");
        command.arg(example("handlers/handler.py")).arg(port);
        command
    });
}

#[test]
fn the_handler_in_node() {
    handles_orders("handler-node", "batch = { wait = \"200ms\", across = true }", |port| {
        let mut command = Command::new("node");
        command.arg(example("handlers/handler.mjs")).arg(port);
        command
    });
}

#[test]
fn the_handler_in_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let binary = folder.path().join("handler");
    // `go run` would not forward a signal.
    let built = Command::new("go").arg("build").arg("-o").arg(&binary).arg(example("handlers/handler.go")).output();
    let built = built.expect("go is installed: scripts/install test");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    handles_orders("handler-go", "batch = { wait = \"200ms\", format = \"ndjson\" }", |port| {
        let mut command = Command::new(&binary);
        command.arg(port);
        command
    });
}

#[test]
fn the_handler_in_java() {
    handles_orders("handler-java", "batch = { wait = \"200ms\", format = \"multipart\" }", |port| {
        let mut command = Command::new("java");
        command.arg(example("handlers/Handler.java")).arg(port);
        command
    });
}

fn relays_orders(theme: &str, command: impl FnOnce(&Path) -> Command) {
    let scene = Scene::of_relay(theme, &["500ms", "1s"], PARTITIONS);
    let config = scene.set_up();
    let file = if theme.ends_with("java") { "relay_apps/App.java" } else { "relay_apps/app.py" };
    let mut command = command(&example(file));
    let mut program = Program::start(command.args([&scene.brokers, &scene.ladder, &scene.group, &scene.source]));
    let mut kladder = Kladder::run(&config);
    written(&scene);
    // Nothing is rejected here: orders that can never be handled climb to the end.
    let class = |order: &Order| order.dead.map(|(_, class)| ("exhausted", class));
    clock::eventually("two are dead", PATIENCE, || {
        program.assert_running();
        broker::read(&scene.dlq_topic()).len() == 2
    });
    clock::eventually("all is committed", PATIENCE, || {
        broker::lag(&scene.group, &scene.source) == 0 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    check_dead_letters(&scene, class);
    for record in broker::read(&scene.dlq_topic()) {
        assert_eq!(record.text("kladder-attempts"), Some("3"));
    }
    let said = program.said();
    let count = |what: &str| said.iter().filter(|line| line.contains(what)).count();
    assert_eq!((count("attempt=1 "), count("attempt=2 "), count("attempt=3 ")), (7, 3, 2), "{said:#?}");
    assert_eq!((count("attempt=1 done"), count("attempt=2 done"), count("failed: OutOfStock")), (4, 1, 4), "{said:#?}");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    program.terminate();
}

#[test]
fn the_relay_application_in_python() {
    relays_orders("relay-app-python", |file| {
        let mut command = Command::new(independent::python());
        command.arg(file);
        command
    });
}

#[test]
fn the_relay_application_in_java() {
    let printed = Command::new(broker::in_house("scripts/kafka")).arg("classpath").output().expect("scripts/kafka can be run");
    let classpath = String::from_utf8(printed.stdout).expect("text");
    relays_orders("relay-app-java", |file| {
        let mut command = Command::new("java");
        command.args(["-cp", classpath.trim()]).arg(file);
        command
    });
}
