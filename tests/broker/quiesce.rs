//! The order in which application and sidecar are stopped: after `/quiesce` no delivery is interrupted, and in no order is a record
//! lost.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::support::app;
use crate::support::broker;
use crate::support::checker::{self, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::independent;
use crate::support::load;
use crate::support::port::free_port;
use crate::support::process::{self, Kladder};
use crate::support::raw::{self, RawProducer};
use crate::support::records;
use crate::support::scene::{Scene, path};

const PARTITIONS: i32 = 3;

/// `application.py`: it dies at once on SIGTERM, with deliveries in flight; killed when dropped.
struct Application {
    port: u16,
    log: PathBuf,
    child: Option<Child>,
    _folder: tempfile::TempDir,
}

impl Application {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { port: free_port(), log: folder.path().join("log"), child: None, _folder: folder }
    }

    fn start(&mut self) {
        let mut command = Command::new(independent::python());
        command.arg(broker::in_house("tests/broker/application.py")).arg(self.port.to_string()).arg(&self.log);
        command.arg(PARTITIONS.to_string()).stdin(Stdio::null());
        self.child = Some(command.spawn().expect("Python can be run; scripts/install test makes it"));
        clock::eventually("the application listens", PATIENCE, || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
    }

    /// SIGTERM; it has ended when this returns.
    fn stop(&mut self) {
        let mut child = self.child.take().expect("it was started");
        process::signal(&child, "TERM");
        child.wait().expect("a child");
    }

    fn calls(&self) -> Vec<Call> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|line| call(&serde_json::from_str(line).expect("JSON"))).collect()
    }

    fn count(&self) -> usize {
        std::fs::read_to_string(&self.log).unwrap_or_default().lines().count()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn call(told: &Value) -> Call {
    let number = |name: &str| told[name].as_i64().expect("a number");
    let text = |name: &str| told[name].as_str().expect("a text");
    let mut headers = HeaderMap::new();
    headers.insert("idempotency-key", text("key").parse().expect("a value"));
    Call {
        method: Method::POST,
        headers,
        body: Bytes::from(base64::engine::general_purpose::STANDARD.decode(text("body")).expect("base64")),
        topic: text("topic").to_owned(),
        partition: i32::try_from(number("partition")).expect("a partition"),
        offset: number("offset"),
        attempt: u32::try_from(number("attempt")).expect("an attempt"),
    }
}

/// Stops application and sidecar under load by the closure, restarts both, lets all records finish, and returns the number of calls
/// beyond the plan. A record lost, duplicated in a topic, or with a wrongly counted attempt is a fault.
fn stopped_and_started(theme: &str, stop: impl FnOnce(&Scene, &mut Application, &mut Kladder)) -> usize {
    let mut application = Application::new();
    let mut scene = Scene::with_source(theme, &["500ms", "1s"], PARTITIONS);
    scene.handler = format!("http://127.0.0.1:{}/", application.port);
    scene.max_in_flight = 16;
    let config = scene.set_up();
    application.start();
    let mut kladder = Kladder::run(&config);

    let ((), sent) = load::under_load(&scene, PARTITIONS, Duration::from_millis(20), || {
        clock::eventually("records climb", PATIENCE, || {
            application.count() > 60 && broker::lag(&scene.mover_group(), &scene.tier_topic("500ms")) > 0
        });
        stop(&scene, &mut application, &mut kladder);
        assert_eq!(kladder.ended(PATIENCE).and_then(|status| status.code()), Some(0), "its log:\n{}", kladder.log());
        application.start();
        kladder = Kladder::run(&config);
        let before = application.count();
        clock::eventually("both work again", PATIENCE, || application.count() > before + 30);
    });

    let shape = scene.shape();
    let (calls, dead) = app::planned(&shape, sent);
    clock::eventually(&format!("all {calls} calls are made and all {dead} dead letters written"), PATIENCE, || {
        kladder.assert_running();
        application.count() >= calls
            && broker::read(&scene.dlq_topic()).len() >= dead
            && broker::lag(&scene.group, &scene.source) == 0
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let read = |topic: &str| raw::read_topic(&scene.cluster, topic);
    let observed = checker::Observed {
        source: read(&scene.source),
        tiers: scene.tiers.iter().map(|tier| read(&scene.tier_topic(tier))).collect(),
        redeliver: read(&scene.redeliver_topic()),
        dlq: read(&scene.dlq_topic()),
        calls: application.calls(),
    };
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, Hops::ExactlyOnce, &observed, app::failures);
    report.assert_no_faults();
    report.extra_calls
}

#[test]
fn an_application_stopped_after_quiesce_loses_no_delivery_and_burns_no_attempt() {
    let extra = stopped_and_started("quiesce", |scene, application, kladder| {
        let said = process::finish(hook("preStop", scene.admin), PATIENCE).succeeds();
        assert_eq!(said.stdout, "quiet\n");
        // At once: waiting records are due within a second, and no others follow while nothing is
        // delivered.
        let moved = broker::read(&scene.redeliver_topic()).len();
        let before = application.count();
        application.stop();
        clock::eventually("/readyz tells by whom it is quiesced, and is ready all the same", PATIENCE, || {
            let told = "quiesced: no delivery is in flight (by preStop)";
            scene.get("/readyz").is_some_and(|(status, text)| status == 200 && text.contains(told))
        });
        // Due records still go to redeliver meanwhile, and new records arrive.
        clock::eventually("the mover goes on", PATIENCE, || broker::read(&scene.redeliver_topic()).len() > moved);
        let unsent = scene.metric("kladder_deliveries_total", "verdict=\"unsent\"");
        assert!(unsent.is_none_or(|unsent| unsent == 0.0), "{unsent:?} calls met no application");
        assert_eq!(application.count(), before, "a delivery was begun after quiet");
        // Restarted alone, it reports that it is back.
        application.start();
        process::finish(hook("postStart", scene.admin), PATIENCE).succeeds();
        clock::eventually("deliveries go on", PATIENCE, || application.count() > before + 30);
        process::finish(hook("preStop", scene.admin), PATIENCE).succeeds();
        application.stop();
        kladder.signal("TERM");
    });
    assert_eq!(extra, 0, "calls beyond the plan");
}

#[test]
fn a_sidecar_stopped_before_its_application_ends_its_deliveries_first() {
    let extra = stopped_and_started("sidecar-first", |_, application, kladder| {
        assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
        application.stop();
    });
    assert_eq!(extra, 0, "calls beyond the plan");
}

#[test]
fn an_application_that_stops_without_a_word_costs_no_attempt_but_calls_again() {
    let extra = stopped_and_started("no-quiesce", |scene, application, kladder| {
        application.stop();
        clock::eventually("the sidecar meets no application", PATIENCE, || kladder.log().contains("handler cannot be reached"));
        clock::eventually("it is ready all the same", PATIENCE, || matches!(scene.get("/readyz"), Some((200, _))));
        kladder.signal("TERM");
    });
    // Those in flight.
    assert!(extra <= 16, "{extra} calls beyond the plan, at most 16 were in flight");
}

/// What an application's container runs after its start (`postStart`) or before its stop (`preStop`), by the manifest of
/// `examples/sidecar`.
fn hook(name: &str, admin: u16) -> Command {
    let manifest = std::fs::read_to_string(broker::in_house("examples/sidecar/kubernetes/sidecar.yaml")).expect("the manifest");
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != format!("{name}:"));
    let words = lines.find_map(|line| line.strip_prefix("command: ")).expect("a command");
    let words: Vec<String> = serde_json::from_str(words).expect("a list in one line");
    let mut command = Command::new(&words[0]);
    command.args(words[1..].iter().map(|word| word.replace(":9647", &format!(":{admin}"))));
    command
}

#[test]
fn quiesce_waits_for_a_call_keeps_all_others_and_can_be_lifted() {
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = gate.clone();
    let handler = Handler::start(move |call| {
        if call.offset == 0 {
            // Until the test releases it; other calls of the handler would wait too, and there are none.
            drop(waits.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Answer::ok()
    });
    let mut scene = Scene::with_source("quiesce-wait", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    scene.timeout = "2m";
    let config = scene.set_up();
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &[records::plain(0, 1)]);
    let mut kladder = Kladder::run(&config);
    let ask = |method: &str, page: &str| scene.control(method, page, "");
    let in_flight = || ask("GET", "/quiesce").is_some_and(|(_, text)| text.contains("1 delivery is in flight"));
    clock::eventually("a call is under way", PATIENCE, in_flight);

    assert_eq!(ask("POST", "/quiesce?wait=50ms"), Some((504, "1 delivery is in flight\n".to_owned())));
    let said = process::kladder(&["quiesce", "-c", path(&config), "--wait", "50ms"]);
    said.refuses(1, &["1 delivery is in flight"]);
    // Neither new nor redelivered records are delivered; due ones are still moved on time.
    producer.write(&scene.source, &[records::plain(1, 1)]);
    producer.write(&scene.tier_topic("500ms"), &[records::plain(2, 1)]);
    clock::eventually("it is moved", PATIENCE, || broker::read(&scene.redeliver_topic()).len() == 1);
    drop(held);
    let said = process::kladder(&["quiesce", "-c", path(&config)]).succeeds();
    assert_eq!(said.stderr, "quiet\n");
    clock::eventually("its offset is committed", PATIENCE, || broker::committed(&scene.group, &scene.source, 0).0 == Some(1));
    assert_eq!(handler.count(), 1, "a delivery was begun");

    process::kladder(&["quiesce", "-c", path(&config), "--lift"]).succeeds();
    clock::eventually("both are delivered", PATIENCE, || handler.count() == 3);
    let log = kladder.log();
    assert_eq!(log.matches("quiesced on request").count(), 1, "its log:\n{log}");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{log}");
    assert!(kladder.log().contains("resumed on request"), "its log:\n{log}");
}

#[test]
fn where_no_worker_runs_quiesce_says_so() {
    let scene = Scene::new("quiesce-nobody", &["1s"]);
    let config = scene.write();
    process::kladder(&["quiesce", "-c", path(&config)]).refuses(1, &["cannot reach a worker at 127.0.0.1:", "[admin]"]);
}
