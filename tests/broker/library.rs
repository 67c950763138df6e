//! The library with a broker: a push ladder in this process, and the examples as processes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kladder::{
    BatchHandler, BatchLimits, BatchReport, Delivery, Failure, Handler, KafkaConfig, Ladder, Mode, Report, RunError, Start,
    Worker,
};
use tokio::sync::oneshot;

use crate::support::broker;
use crate::support::clock::{self, PATIENCE};
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::records;

const PARTITIONS: i32 = 3;

/// A ladder with unique names, with its source; the topics are deleted when it is dropped.
struct House {
    ladder: Ladder,
    source: String,
}

impl House {
    fn new(theme: &str, mode: Mode) -> Self {
        let name = broker::unique(theme);
        let source = format!("{name}.orders");
        broker::create_topic(&source, PARTITIONS, &[]);
        let builder = Ladder::builder(name.clone(), format!("{name}.billing")).source(&source).mode(mode);
        Self { ladder: builder.tiers(["1s", "2s"]).build().expect("a ladder"), source }
    }

    fn kafka() -> KafkaConfig {
        KafkaConfig::new(broker::brokers())
    }

    fn worker<H: Handler>(&self, handler: H) -> Worker<H> {
        Worker::new(self.ladder.clone(), Self::kafka(), handler).instance("in-process").drain(Duration::from_secs(10))
    }

    fn write(&self, records: impl Iterator<Item = NewRecord>) {
        RawProducer::new(broker::brokers()).write(&self.source, &records.collect::<Vec<_>>());
    }

    fn in_tiers(&self) -> usize {
        self.ladder.tiers().iter().map(|tier| broker::read(tier.topic()).len()).sum()
    }

    fn dead(&self) -> Vec<Record> {
        broker::read(&self.ladder.dlq_topic())
    }

    /// Everything that was consumed is committed, and no record waits.
    fn is_at_rest(&self) -> bool {
        let group = self.ladder.group();
        let mover = format!("{}.mover", self.ladder.name());
        broker::lag(group, &self.source) == 0
            && self.ladder.tiers().iter().all(|tier| broker::lag(&mover, tier.topic()) == 0)
            && broker::lag(group, &self.ladder.redeliver_topic()) == 0
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            broker::delete_topics(&[&format!("{}.", self.ladder.name())]);
        }
    }
}

/// A worker on its own runtime, as in a program.
struct Running {
    runtime: tokio::runtime::Runtime,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<Report, RunError>>,
}

impl Running {
    fn start<H: Handler>(worker: Worker<H>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let (stop, stopped) = oneshot::channel();
        let ended = runtime.spawn(worker.run_until(async { stopped.await.unwrap_or(()) }));
        Self { runtime, stop, ended }
    }

    fn stop(self) -> Report {
        self.stop.send(()).expect("a worker that runs");
        self.runtime.block_on(self.ended).expect("no panic").expect("a worker that ran well")
    }
}

fn set_up(house: &House) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(kladder::set_up(&house.ladder, &House::kafka(), Start::Earliest)).expect("a cluster that lets us");
}

fn number_of(delivery: &Delivery) -> usize {
    let id = delivery.headers().last(records::ID).and_then(|id| std::str::from_utf8(id).ok());
    id.and_then(records::number_of).expect("a record of the test")
}

/// A typed handler: of five records one is done at once, one fails once, one twice, one always, one is rejected.
struct Fifths;

impl Handler for Fifths {
    async fn handle(&self, delivery: Delivery) -> Result<(), Failure> {
        let failure = Failure::retry("Planned", "as planned");
        match (number_of(&delivery) % 5, delivery.attempt()) {
            (0, _) | (1, 2..) | (2, 3..) => Ok(()),
            (4, _) => Err(failure.reject()),
            (1, _) => Err(failure.after(Duration::from_millis(10))),
            _ => Err(failure),
        }
    }
}

/// The same in batches; a batch with record 9 in it panics at first.
struct FifthsInBatches(AtomicUsize);

impl BatchHandler for FifthsInBatches {
    async fn handle(&self, batch: &[Delivery]) -> Result<BatchReport, Failure> {
        let has_nine = batch.iter().any(|delivery| number_of(delivery) == 9);
        assert!(!has_nine || self.0.fetch_add(1, Ordering::Relaxed) > 1, "as planned");
        let mut report = BatchReport::all_done();
        for delivery in batch {
            if let Err(failure) = Fifths.handle(delivery.clone()).await {
                report.failed(delivery, failure);
            }
        }
        Ok(report)
    }
}

#[test]
fn a_batch_handler_climbs_in_process_and_a_panic_costs_no_record_an_attempt() {
    const EACH: u64 = 60;
    let house = House::new("lib-batches", Mode::Push);
    set_up(&house);
    house.write((0..usize::try_from(5 * EACH).unwrap()).map(|n| records::hostile(n, PARTITIONS, house.ladder.name())));
    let limits = BatchLimits { max: 25, wait: Duration::from_millis(50), ..BatchLimits::default() };
    let worker = Worker::in_batches(house.ladder.clone(), House::kafka(), FifthsInBatches(AtomicUsize::new(0)), limits);
    let running = Running::start(worker.instance("in-process").dlq_breaker(None));
    clock::eventually("all records are done or dead", PATIENCE * 2, || house.dead().len() >= 120 && house.is_at_rest());
    let report = running.stop();
    assert_eq!((report.done, report.rejected, report.hops), (3 * EACH, EACH, 5 * EACH), "{report}");
    for record in house.dead() {
        let number = records::number_of(record.text(records::ID).expect("an id")).expect("a number");
        let expected = if number % 5 == 4 { ("rejected", "1") } else { ("exhausted", "3") };
        let told = ["kladder-reason", "kladder-attempts"].map(|name| record.text(name).unwrap_or_default());
        assert_eq!((told[0], told[1]), expected, "record {number}");
    }
}

#[test]
fn a_typed_handler_climbs_in_process_and_the_report_equals_the_topics() {
    const EACH: u64 = 60;
    let house = House::new("lib-typed", Mode::Push);
    set_up(&house);
    set_up(&house);
    house.write((0..usize::try_from(5 * EACH).unwrap()).map(|n| records::hostile(n, PARTITIONS, house.ladder.name())));
    let running = Running::start(house.worker(Fifths).max_in_flight(32).redeliver_share(0.7).dlq_breaker(None));
    clock::eventually("all records are done or dead", PATIENCE * 2, || house.dead().len() >= 120 && house.is_at_rest());
    let report = running.stop();

    assert_eq!((report.done, report.retried, report.rejected, report.unsent), (3 * EACH, 6 * EACH, EACH, 0), "{report}");
    let hops = usize::try_from(report.hops).unwrap();
    assert_eq!((hops, report.hops, report.redelivered), (house.in_tiers(), 5 * EACH, 5 * EACH), "{report}");
    assert_eq!(broker::read(&house.ladder.redeliver_topic()).len(), hops);
    let dead = house.dead();
    let of = |reason: &str| dead.iter().filter(|r| r.text("kladder-reason") == Some(reason)).count();
    let told: Vec<(&str, usize)> =
        report.dead_letters.iter().map(|(reason, n)| (reason.as_str(), usize::try_from(*n).unwrap())).collect();
    assert_eq!(told, [("exhausted", of("exhausted")), ("rejected", of("rejected"))]);
    assert_eq!((report.dead(), dead.len()), (2 * EACH, 120));
}

#[test]
fn a_closure_is_a_handler_and_its_panics_fail_their_attempts_alone() {
    let house = House::new("lib-panic", Mode::Push);
    set_up(&house);
    house.write((0..30).map(|n| records::plain(n, PARTITIONS)));
    let running = Running::start(house.worker(|delivery: Delivery| async move {
        // Half of them before the third attempt, and one always.
        let number = number_of(&delivery);
        assert!(number != 7 && (number.is_multiple_of(2) || delivery.attempt() > 1), "order {number} is too much");
        Ok(())
    }));
    clock::eventually("all records are done or dead", PATIENCE, || house.dead().len() == 1 && house.is_at_rest());
    let report = running.stop();
    assert_eq!((report.done, report.retried, report.dead()), (29, 15 + 2, 1), "{report}");
    let dead = &house.dead()[0];
    assert_eq!(dead.text(records::ID), Some("r-7"));
    assert_eq!(dead.text("kladder-error-class"), Some("panic"));
    assert_eq!(dead.text("kladder-error-message"), Some("the handler panicked: order 7 is too much"));
}

#[test]
fn stop_waits_for_what_is_in_flight_and_commits_it() {
    let house = House::new("lib-drain", Mode::Push);
    set_up(&house);
    house.write((0..12).map(|n| records::plain(n, PARTITIONS)));
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (begun.clone(), ended.clone());
    let running = Running::start(house.worker(move |_: Delivery| {
        let (begun, ended) = counts.clone();
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(2)).await;
            ended.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }));
    clock::eventually("all are in flight", PATIENCE, || begun.load(Ordering::SeqCst) == 12);
    let report = running.stop();
    assert_eq!((ended.load(Ordering::SeqCst), report.done), (12, 12));
    assert_eq!(broker::lag(house.ladder.group(), &house.source), 0, "what was drained is committed");
}

#[test]
fn a_worker_that_is_dropped_ends_and_another_goes_on() {
    let house = House::new("lib-drop", Mode::Push);
    set_up(&house);
    let seen = Arc::new(AtomicU64::new(0));
    let handler = |seen: Arc<AtomicU64>| {
        move |_: Delivery| {
            seen.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        }
    };
    house.write((0..10).map(|n| records::plain(n, PARTITIONS)));
    let first = Running::start(house.worker(handler(seen.clone())));
    clock::eventually("the first has all", PATIENCE, || broker::lag(house.ladder.group(), &house.source) == 0);
    first.ended.abort();
    // A runtime waits for its blocking threads, so this returns only when the workers have stopped.
    drop(first.runtime);
    house.write((10..20).map(|n| records::plain(n, PARTITIONS)));
    let second = Running::start(house.worker(handler(seen.clone())));
    clock::eventually("the second has the rest", PATIENCE, || broker::lag(house.ladder.group(), &house.source) == 0);
    assert_eq!((second.stop().done, seen.load(Ordering::SeqCst)), (10, 20));
}

#[test]
fn what_keeps_a_worker_from_running_is_told_with_the_remedy() {
    async fn done(_: Delivery) -> Result<(), Failure> {
        Ok(())
    }
    let refused = |worker: Worker<_>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(worker.run_until(std::future::pending())).expect_err("a worker that cannot run")
    };
    let push = House::new("lib-refused", Mode::Push);
    let error = refused(push.worker(done));
    assert!(matches!(error, RunError::NotSetUp(_)), "{error:?}");
    let text = error.to_string();
    for words in ["missing: ", &push.ladder.dlq_topic(), "run `kladder setup`, or call `kladder::set_up`"] {
        assert!(text.contains(words), "{text}");
    }
    let relay = House::new("lib-refused-relay", Mode::Relay);
    let text = refused(relay.worker(done)).to_string();
    assert!(text.contains("is a relay") && text.contains("Ladder::relay"), "{text}");
    let text = refused(push.worker(done).instance("no name")).to_string();
    assert!(text.starts_with("instance is not a valid worker name"), "{text}");
    let text = refused(push.worker(done).max_in_flight(0)).to_string();
    assert!(text.starts_with("max_in_flight must be"), "{text}");
    let text = refused(Worker::new(push.ladder.clone(), KafkaConfig::new("127.0.0.1:9"), done)).to_string();
    assert!(text.contains("no broker answered at 127.0.0.1:9"), "{text}");

    // Another group's: detected by the workers themselves, too late for the check.
    set_up(&push);
    let other = Ladder::builder(push.ladder.name(), "others").source(&push.source).tiers(["1s", "2s"]).build().unwrap();
    let text = refused(Worker::new(other, House::kafka(), done)).to_string();
    assert!(text.contains("others") && text.contains(push.ladder.group()), "{text}");
}

/// An example as a process, killed when dropped. Cargo builds the examples with the tests.
struct Example {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Example {
    fn path(name: &str) -> PathBuf {
        let own = std::env::current_exe().expect("an executable");
        let path = own.ancestors().nth(2).expect("the folder of the build").join("examples").join(name);
        assert!(path.exists(), "{} is not there: `cargo test` builds it, or `cargo build --examples`", path.display());
        path
    }

    fn start(name: &str, arguments: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let file = log.reopen().expect("a file");
        let mut command = Command::new(Self::path(name));
        command.args(arguments).stdin(Stdio::null()).stderr(file.try_clone().expect("a file")).stdout(file);
        Self { child: command.spawn().expect("an example that can be run"), log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("text")
    }

    /// Waits for its end and returns its output.
    fn finish(mut self) -> String {
        let status = clock::poll(PATIENCE, || self.child.try_wait().expect("a child"));
        let said = self.said();
        assert!(status.is_some_and(|status| status.success()), "{status:?}; it said:\n{said}");
        said
    }

    /// Like Ctrl-C.
    fn interrupt(self) -> String {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().expect("kill can be run");
        assert!(sent.success(), "it does not run any more; it said:\n{}", self.said());
        self.finish()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(values: impl Iterator<Item = String>) -> impl Iterator<Item = NewRecord> {
    values.enumerate().map(|(n, value)| NewRecord { value: Some(value.into()), ..records::plain(n, PARTITIONS) })
}

#[test]
fn the_example_climb_prints_the_way_of_a_record() {
    let said = Example::start("climb", &["5s", "1m", "10m"]).finish();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[2].starts_with("attempt 3 after  1505 s, from [3, 3, "), "{said}");
    assert!(lines[3].ends_with("dead: exhausted"), "{said}");
}

#[test]
fn the_example_embed_sets_its_ladder_up_handles_and_reports() {
    let name = broker::unique("lib-embed");
    let source = format!("{name}.orders");
    broker::create_topic(&source, PARTITIONS, &[]);
    let values = (0..20).map(|n| n.to_string()).chain(["no number".to_owned()]);
    RawProducer::new(broker::brokers()).write(&source, &numbers(values).collect::<Vec<_>>());
    let example = Example::start("embed", &[broker::brokers(), &source, &name]);
    let dlq = format!("{name}.dlq");
    clock::eventually("all orders are done or dead", PATIENCE * 2, || {
        let done = example.said().lines().filter(|line| line.contains(" is done")).count();
        done >= 19 && broker::topics().contains_key(&dlq) && broker::read(&dlq).len() >= 2
    });
    let said = example.interrupt();
    // Ten odd orders: nine fail twice, the thirteenth four times.
    assert!(said.contains("done 19, retried 22, rejected 1, hops 21, redelivered 21, dead letters 2"), "{said}");
    broker::delete_topics(&[&format!("{name}.")]);
}

#[test]
fn the_example_relay_puts_what_failed_into_the_inbox() {
    let name = broker::unique("lib-relay");
    let source = format!("{name}.orders");
    broker::create_topic(&source, PARTITIONS, &[]);
    let mut written: Vec<NewRecord> = numbers((0..6).map(|n| format!("o-{n}"))).collect();
    written.push(NewRecord { value: Some(vec![0xff]), ..records::plain(6, PARTITIONS) });
    written.push(NewRecord { value: Some(Vec::new()), ..records::plain(7, PARTITIONS) });
    RawProducer::new(broker::brokers()).write(&source, &written);
    let example = Example::start("relay", &[broker::brokers(), &source, &name]);
    let inbox = format!("{name}.inbox");
    clock::eventually("both failures are in the inbox, and all is committed", PATIENCE, || {
        broker::topics().contains_key(&inbox) && broker::read(&inbox).len() == 2 && broker::lag(&name, &source) == 0
    });
    example.interrupt();
    for (number, class, verdict) in [(6, "Utf8Error", None), (7, "Empty", Some("reject"))] {
        let expected: &NewRecord = &written[number];
        let found = broker::read(&inbox).into_iter().find(|r| r.text(records::ID) == Some(&format!("r-{number}")));
        let found = found.expect("a record of the inbox");
        assert_eq!((&found.key, &found.value), (&expected.key, &expected.value));
        assert_eq!((found.text("kladder-error-class"), found.text("kladder-verdict")), (Some(class), verdict));
        assert_eq!(found.text("kladder-origin-topic"), Some(&*source));
        assert_eq!(found.number("kladder-origin-partition"), Some(i64::from(expected.partition)));
    }
    broker::delete_topics(&[&format!("{name}.")]);
}
