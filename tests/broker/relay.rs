//! Relay: an application in another language with its own client, and every way in which it may copy failed records.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kladder::{Consumed, Failure, Ladder, Mode, Timestamp};

use crate::support::app::{self, App, Copy, FAIL, Told, failures};
use crate::support::broker;
use crate::support::checker::{self, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::process::{self, Kladder};
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::{self, Scene};

const PARTITIONS: i32 = 3;

/// Odd keys and values; headers that any client can write.
fn written(count: usize) -> Vec<NewRecord> {
    let odd = |n: usize| NewRecord { headers: records::plain(n, PARTITIONS).headers, ..records::hostile(n, PARTITIONS, "none") };
    (0..count).map(odd).collect()
}

/// Whether all topics of the ladder are read to the end. With at-least-once hops kills leave repeated calls and dead letters, which make
/// their numbers reach the plan before every record has come to its end. Of no use with transactions: the application's offset stays
/// before the marker that ends a topic.
fn nothing_waits(scene: &Scene) -> bool {
    let router = format!("{}.router", scene.ladder);
    let mover = scene.mover_group();
    broker::lag(&scene.group, &scene.source) == 0
        && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
        && broker::lag(&router, &scene.inbox_topic()) == 0
        && scene.tiers.iter().all(|tier| broker::lag(&mover, &scene.tier_topic(tier)) == 0)
}

fn climbs_with_a_python_application(theme: &str, hops: Hops) {
    const RECORDS: usize = 600;
    let mut scene = Scene::of_relay(theme, &["1s", "2s"], PARTITIONS);
    scene.ask_for(hops);
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &written(RECORDS));
    let (calls, dead) = app::planned(&scene.shape(), RECORDS);
    let kladder = Kladder::run(&config);
    let mut app = App::start(&scene, &FAIL, Copy::Introduce, false);
    // Killed while failures arrive, and while records are redelivered.
    app.await_deliveries(RECORDS / 2, PATIENCE);
    kladder.kill_dash_nine();
    let kladder = Kladder::run(&config);
    app.await_deliveries(RECORDS + RECORDS / 3, PATIENCE);
    kladder.kill_dash_nine();
    let mut kladder = Kladder::run(&config);
    clock::eventually("every record is done or dead", PATIENCE * 2, || {
        kladder.assert_running();
        app.assert_running();
        app.told().len() >= calls
            && broker::read(&scene.dlq_topic()).len() >= dead
            // Twice, since a record may move from one topic to another between two looks.
            && (hops == Hops::ExactlyOnce || (0..2).all(|_| nothing_waits(&scene)))
    });
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    let report = checker::check(&scene.shape(), hops, &app.observe(&scene), failures);
    report.assert_no_faults();
    println!("{RECORDS} records, {} deliveries, {} of them beyond the plan", app.told().len(), report.extra_calls);
    if hops == Hops::ExactlyOnce {
        assert_eq!(report.extra_calls, 0, "the application was asked more often than planned");
    }
}

#[test]
fn what_a_python_application_cannot_handle_climbs_exactly_once_from_the_inbox_on() {
    climbs_with_a_python_application("relay", Hops::ExactlyOnce);
}

#[test]
fn at_least_once_hops_of_a_relay_lose_nothing() {
    climbs_with_a_python_application("relay-alo", Hops::AtLeastOnce);
}

/// The attempts of a record, in each of these copies of it.
fn attempts_by_id(found: &[Record]) -> BTreeMap<String, Vec<i64>> {
    let mut by_id: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in found {
        let id = record.text(records::ID).expect("its id").to_owned();
        by_id.entry(id).or_default().push(record.number("kladder-attempts").expect("attempts"));
    }
    for attempts in by_id.values_mut() {
        attempts.sort_unstable();
    }
    by_id
}

#[test]
fn an_application_that_only_copies_and_appends_gives_each_record_its_full_attempts() {
    const RECORDS: usize = 60;
    let scene = Scene::of_relay("relay-append", &["1s", "2s"], PARTITIONS);
    let config = scene.set_up();
    let foreign = |n: usize| {
        let mut record = records::plain(n, PARTITIONS);
        let header = |name: &str, value: &str| (name.into(), Some(value.as_bytes().to_vec()));
        match n % 4 {
            // Another ladder's, copied by the service that produced the record.
            0 => record.headers.extend([
                header("kladder-ladder", "another"),
                header("kladder-v", "1"),
                header("kladder-attempts", "2"),
                header("kladder-error-class", "Theirs"),
            ]),
            1 => record.headers.extend([header("kladder-ladder", &scene.ladder), header("kladder-attempts", "-7")]),
            2 => record.headers.extend([header("retry_topic-attempts", "\0\0\0\u{9}"), header("kladder-v", "nonsense")]),
            _ => {}
        }
        record
    };
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..RECORDS).map(foreign).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    let mut app = App::start(&scene, &[-1], Copy::Append, false);
    app.await_deliveries(RECORDS * 3, PATIENCE * 2);
    clock::eventually("all are dead", PATIENCE, || {
        kladder.assert_running();
        broker::read(&scene.dlq_topic()).len() >= RECORDS
    });
    let back = attempts_by_id(&broker::read(&scene.redeliver_topic()));
    let dlq = broker::read(&scene.dlq_topic());
    let dead = attempts_by_id(&dlq);
    assert_eq!((back.len(), dead.len()), (RECORDS, RECORDS));
    assert!(back.values().all(|attempts| *attempts == [1, 2]), "{back:?}");
    assert!(dead.values().all(|attempts| *attempts == [3]), "{dead:?}");
    for record in &dlq {
        let said = ["reason", "error-class", "error-status"].map(|name| record.text(&format!("kladder-{name}")));
        assert_eq!(said, [Some("exhausted"), Some("HTTP 503"), Some("503")]);
    }
    assert_eq!(scene.metric("kladder_relay_headers_missing_total", ""), Some(0.0));
    assert_eq!(scene.metric("kladder_malformed_headers_total", "router"), Some(15.0), "one a record, when it first failed");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn records_come_back_to_their_origin_where_that_is_asked_for() {
    climbs_by_its_origin("relay-origin", Hops::ExactlyOnce);
}

#[test]
fn at_least_once_hops_to_the_origin_lose_nothing() {
    climbs_by_its_origin("relay-origin-alo", Hops::AtLeastOnce);
}

fn climbs_by_its_origin(theme: &str, hops: Hops) {
    const RECORDS: usize = 120;
    let mut scene = Scene::of_relay(theme, &["1s", "2s"], PARTITIONS);
    scene.settings += "\nredeliver = \"origin\"\nreaches_all_groups = true";
    scene.ask_for(hops);
    let config = scene.set_up();
    let foreign = |n: usize| {
        let mut record = records::plain(n, PARTITIONS);
        record.headers.push(("retry_topic-attempts".into(), Some(vec![0, 0, 0, 4])));
        record
    };
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..RECORDS).map(foreign).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    let mut app = App::start(&scene, &FAIL, Copy::Introduce, true);
    let (calls, dead) = app::planned(&scene.shape(), RECORDS);
    app.await_deliveries(calls, PATIENCE * 2);
    clock::eventually("the dead are in the DLQ", PATIENCE, || {
        kladder.assert_running();
        broker::read(&scene.dlq_topic()).len() >= dead
    });
    let source = broker::read(&scene.source);
    let came_back: Vec<Record> = source.iter().filter(|r| r.text("kladder-attempts").is_some()).cloned().collect();
    assert_eq!(source.len() - came_back.len(), RECORDS);
    let mut back = attempts_by_id(&came_back);
    if hops == Hops::AtLeastOnce {
        back.values_mut().for_each(Vec::dedup);
    }
    for number in 0..RECORDS {
        let times = i64::from(failures(number).min(scene.shape().attempts - 1));
        let expected: Vec<i64> = (1..=times).collect();
        assert_eq!(back.get(&format!("r-{number}")).cloned().unwrap_or_default(), expected, "record {number}");
    }
    for record in &came_back {
        assert!(record.text("retry_topic-attempts").is_none(), "it would drive the other framework");
        assert_eq!(record.number("kladder-origin-partition"), Some(i64::from(record.partition)));
    }
    assert_eq!(attempts_by_id(&broker::read(&scene.dlq_topic())).len(), dead);
    assert!(!broker::topics().contains_key(&scene.redeliver_topic()), "nobody would read it");
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

#[test]
fn an_arrival_that_tells_no_origin_cannot_come_back_there() {
    let mut scene = Scene::of_relay("relay-nowhere", &["1s"], 1);
    scene.settings += "\nredeliver = \"origin\"\nreaches_all_groups = true";
    let config = scene.set_up();
    let header = |name: &str, value: &str| (name.into(), Some(value.as_bytes().to_vec()));
    let record = |n: usize, origin: Option<&str>| {
        let mut record = records::plain(n, 1);
        if let Some(origin) = origin {
            record.headers.extend([header("kladder-ladder", &scene.ladder), header("kladder-origin-topic", origin)]);
        }
        record
    };
    let own = scene.dlq_topic();
    let inbox = [record(0, None), record(1, Some("not-listed")), record(2, Some(&own)), record(3, Some(&scene.source))];
    RawProducer::new(&scene.brokers).write(&scene.inbox_topic(), &inbox);
    let _kladder = Kladder::run(&config);
    clock::eventually("the fourth comes back to its origin", PATIENCE, || broker::read(&scene.source).len() == 1);
    let dlq = broker::read(&scene.dlq_topic());
    let said: Vec<_> = dlq.iter().map(|r| (r.text(records::ID).unwrap(), r.text("kladder-reason").unwrap())).collect();
    assert_eq!(said, [("r-0", "no-origin"), ("r-1", "no-origin"), ("r-2", "no-origin")]);
    assert_eq!(broker::read(&scene.source)[0].text(records::ID), Some("r-3"));
}

/// The verdict of an application with the embedded library on a consumed record.
fn relayed(ladder: &Ladder, record: &Record, failure: &Failure) -> NewRecord {
    let timestamp = Timestamp::from_millis(record.timestamp);
    let consumed = Consumed {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone().into(),
        ..Consumed::at(&record.topic, record.partition, record.offset, timestamp)
    };
    let made = ladder.relay(consumed, failure);
    assert_eq!(made.topic, ladder.inbox_topic());
    let headers = made.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
    NewRecord { partition: 0, key: made.key, value: made.value, headers }
}

#[test]
fn what_the_library_puts_into_the_inbox_is_done_as_it_says() {
    let scene = Scene::of_relay("relay-library", &["1s", "3s"], PARTITIONS);
    let config = scene.set_up();
    let ladder = Ladder::builder(&scene.ladder, &scene.group).source(&scene.source).tiers(scene.tiers.clone());
    let ladder = ladder.mode(Mode::Relay).build().expect("a ladder");
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &(0..4).map(|n| records::hostile(n, PARTITIONS, &scene.ladder)).collect::<Vec<_>>());
    let mut source = broker::read(&scene.source);
    source.sort_by_key(|record| record.text(records::ID).map(str::to_owned));
    let failure = || Failure::retry("Timeout", "no answer");
    let verdicts = [failure(), failure().reject(), failure().after(Duration::from_millis(2_500)), failure().class("Other")];
    let inbox: Vec<NewRecord> = source.iter().zip(&verdicts).map(|(record, failure)| relayed(&ladder, record, failure)).collect();
    producer.write(&scene.inbox_topic(), &inbox);
    let _kladder = Kladder::run(&config);

    clock::eventually("three come back", PATIENCE, || broker::read(&scene.redeliver_topic()).len() == 3);
    let back = broker::read(&scene.redeliver_topic());
    let of = |id: &str| back.iter().find(|r| r.text(records::ID) == Some(id)).expect("it came back").clone();
    for (id, tier, class) in [("r-0", 1, "Timeout"), ("r-2", 2, "Timeout"), ("r-3", 1, "Other")] {
        let record = of(id);
        assert_eq!((record.number("kladder-attempts"), record.number("kladder-tier")), (Some(1), Some(tier)), "{id}");
        assert_eq!(record.text("kladder-error-class"), Some(class), "{id}");
        assert_eq!(record.text("kladder-origin-topic"), Some(scene.source.as_str()), "{id}");
        assert!(record.all("kladder-retry-after").is_empty() && record.all("kladder-verdict").is_empty(), "{id}");
    }
    let dlq = broker::read(&scene.dlq_topic());
    let said = ["x-id", "kladder-reason", "kladder-attempts"].map(|name| dlq[0].text(name));
    assert_eq!((dlq.len(), said), (1, [Some("r-1"), Some("rejected"), Some("1")]));

    // Redelivered records fail again, for the last time.
    producer.write(&scene.inbox_topic(), &[relayed(&ladder, &of("r-0"), &failure())]);
    clock::eventually("it comes back again", PATIENCE, || broker::read(&scene.redeliver_topic()).len() == 4);
    let again = broker::read(&scene.redeliver_topic());
    let last = again.iter().find(|r| r.number("kladder-attempts") == Some(2)).expect("its second attempt");
    assert_eq!(last.text("kladder-id"), of("r-0").text("kladder-id"), "one id over all attempts");
    producer.write(&scene.inbox_topic(), &[relayed(&ladder, last, &failure())]);
    clock::eventually("it is dead", PATIENCE, || broker::read(&scene.dlq_topic()).len() == 2);
    let dead = broker::read(&scene.dlq_topic());
    let dead = dead.iter().find(|r| r.text("kladder-reason") == Some("exhausted")).expect("exhausted");
    assert_eq!((dead.number("kladder-attempts"), dead.text("kladder-id")), (Some(3), last.text("kladder-id")));
    assert_eq!((&dead.key, &dead.value), (&source[0].key, &source[0].value));
}

/// How often each record was delivered, over all processes of the application.
fn deliveries(told: &[Told], records: usize) -> Vec<usize> {
    // Without headers a record has no id: it is identified by its value.
    let mut counts = vec![0; records];
    for t in told {
        counts[number_in(t)] += 1;
    }
    counts
}

fn number_in(told: &Told) -> usize {
    let body = String::from_utf8_lossy(told.body()).into_owned();
    body.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("{\"order\":N}")
}

#[test]
fn a_few_records_that_lose_their_headers_end_after_their_attempts() {
    const RECORDS: usize = 6;
    let scene = Scene::of_relay("relay-drops", &["1s", "2s"], PARTITIONS);
    let config = scene.set_up();
    RawProducer::new(&scene.brokers)
        .write(&scene.source, &(0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    let app = App::start(&scene, &[-1], Copy::Nothing, false);
    clock::eventually("all are dead", PATIENCE * 2, || {
        kladder.assert_running();
        broker::read(&scene.dlq_topic()).len() >= RECORDS
    });
    assert_eq!(deliveries(&app.told(), RECORDS), [3; RECORDS], "as many loops as there are attempts");
    let dlq = broker::read(&scene.dlq_topic());
    assert!(dlq.iter().all(|r| r.number("kladder-attempts") == Some(3)), "{dlq:?}");
    assert_eq!(scene.metric("kladder_relay_headers_missing_total", ""), Some(12.0));
    assert_eq!(scene.metric("kladder_held", ""), Some(0.0), "too few to judge the application by");
}

#[test]
fn an_application_that_drops_the_headers_is_stopped_and_reported() {
    const RECORDS: usize = 60;
    let mut scene = Scene::of_relay("relay-held", &["1s", "2s"], PARTITIONS);
    // Shorter than the hold: records that wait in the inbox meanwhile are not presumed done, and keep their
    // attempts.
    scene.settings += "\nsettle = \"3s\"";
    let config = scene.set_up();
    RawProducer::new(&scene.brokers)
        .write(&scene.source, &(0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    let app = App::start(&scene, &[-1], Copy::Nothing, false);
    clock::eventually("the ladder is held", PATIENCE, || {
        kladder.assert_running();
        scene.metric("kladder_held", "") == Some(1.0)
    });
    let log = kladder.log();
    assert!(log.contains("have lost their kladder headers") && log.contains("copy all headers"), "its log:\n{log}");
    let status = process::kladder(&["status", "-c", scene::path(&config)]).succeeds();
    assert!(status.stdout.contains("have lost their kladder headers"), "{status}");
    // By the router's hold and by the worker's metric.
    let came_back = format!("records came back to {}", scene.inbox_topic());
    process::kladder(&["doctor", "-c", scene::path(&config)])
        .refuses(4, &["the application drops the headers, so the ladder is held since ", &came_back, "copy all headers"]);
    assert!(scene.metric("kladder_relay_headers_missing_total", "").is_some_and(|n| n >= 20.0));
    // It stops: no more records are redelivered and lose their headers.
    clock::pause(Duration::from_secs(4));
    let then = app.told().len();
    clock::pause(Duration::from_secs(3));
    assert_eq!(app.told().len(), then, "the ladder goes on although it is held");
    let mut told = app.end();

    // Fixed and resumed: every record gets its remaining attempts, and no more.
    let app = App::start(&scene, &[-1], Copy::Append, false);
    resume(&config);
    clock::eventually("all are dead", PATIENCE * 2, || {
        kladder.assert_running();
        broker::read(&scene.dlq_topic()).len() >= RECORDS
    });
    told.extend(app.end());
    assert_eq!(deliveries(&told, RECORDS), [3; RECORDS]);
    assert_eq!(broker::read(&scene.dlq_topic()).len(), RECORDS);
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
}

fn resume(config: &Path) {
    process::kladder(&["resume", "-c", scene::path(config)]).succeeds();
}

#[test]
fn success_is_presumed_once_the_application_has_gone_past_a_record_that_does_not_come_back() {
    const RECORDS: usize = 30;
    let mut scene = Scene::of_relay("relay-settle", &["1s"], PARTITIONS);
    scene.settings += "\nsettle = \"3s\"";
    let config = scene.set_up();
    RawProducer::new(&scene.brokers)
        .write(&scene.source, &(0..RECORDS).map(|n| records::plain(n, PARTITIONS)).collect::<Vec<_>>());
    let _kladder = Kladder::run(&config);
    // Ten are done at once, ten fail once, ten always.
    let mut app = App::start(&scene, &[0, 1, -1], Copy::Introduce, false);
    app.await_deliveries(RECORDS + 20, PATIENCE);
    let done = || scene.metric("kladder_deliveries_total", "verdict=\"done\"");
    clock::eventually("ten are presumed done", PATIENCE, || done() == Some(10.0));
    // Failed once in the application, and done after redelivery.
    let attempts = |bound: &str| scene.metric("kladder_attempts_until_done_bucket", bound);
    assert_eq!((attempts("le=\"1\""), attempts("le=\"2\"")), (Some(0.0), Some(10.0)));
    clock::pause(Duration::from_secs(6));
    assert_eq!(done(), Some(10.0), "those that came back are not among them");
    assert_eq!(scene.metric("kladder_deliveries_total", "verdict=\"retry\""), Some(30.0), "20 first failures, and 10 more");
}

/// A router whose predecessors died is careful for as many records as may have killed them; each of those waits for the records
/// redelivered before it. That must not take a second each.
fn works_off_one_at_a_time(theme: &str, hops: Hops) {
    const RECORDS: usize = 600;
    let mut scene = Scene::of_relay(theme, &["1s", "2s"], PARTITIONS);
    scene.ask_for(hops);
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &written(RECORDS));
    let mut app = App::start(&scene, &[1], Copy::Introduce, false);
    app.await_deliveries(RECORDS, PATIENCE);
    let group = format!("{}.router", scene.ladder);
    for partition in 0..PARTITIONS {
        broker::commit(&group, &scene.inbox_topic(), partition, 0, "v1;;starts=3");
    }
    let began = clock::now();
    let mut kladder = Kladder::run(&config);
    clock::eventually("all are redelivered once", PATIENCE * 2, || {
        kladder.assert_running();
        app.told().len() >= RECORDS * 2 && broker::lag(&group, &scene.inbox_topic()) == 0
    });
    println!("{theme}: {RECORDS} records in {:?}", began.elapsed());
    assert!(kladder.log().contains("starts=4"), "its log:\n{}", kladder.log());
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());
    checker::check(&scene.shape(), hops, &app.observe(&scene), |_| 1).assert_no_faults();
}

#[test]
fn a_router_whose_predecessors_died_works_off_one_record_at_a_time() {
    works_off_one_at_a_time("relay-alone", Hops::ExactlyOnce);
}

#[test]
fn at_least_once_such_a_router_loses_nothing() {
    works_off_one_at_a_time("relay-alone-alo", Hops::AtLeastOnce);
}
