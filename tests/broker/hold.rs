//! `kladder hold` and `resume`, and the owner of a ladder: one command stops all workers, wherever they run and whenever they
//! start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::broker;
use crate::support::checker::{self, FAILURE, Hops};
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, ClosedPort, Handler};
use crate::support::independent;
use crate::support::load;
use crate::support::process::{self, Finished, Kladder};
use crate::support::raw::{NewRecord, RawProducer};
use crate::support::records;
use crate::support::scene::{self, Scene, path};

const PARTITIONS: i32 = 6;

/// For this long after a confirmed hold, no handler call may begin and no record may be
/// redelivered.
const OBEYED_WITHIN: Duration = Duration::from_secs(2);

fn failures(number: usize) -> u32 {
    [0, 1, 0, 2, u32::MAX, 1][number % 6]
}

/// When each handler call began.
#[derive(Clone, Default)]
struct Begun(Arc<Mutex<Vec<Instant>>>);

impl Begun {
    fn note(&self) {
        self.0.lock().expect("no panic while locked").push(clock::now());
    }

    fn last(&self) -> Option<Instant> {
        self.0.lock().expect("no panic while locked").last().copied()
    }

    fn first_after(&self, moment: Instant) -> Option<Instant> {
        self.0.lock().expect("no panic while locked").iter().copied().find(|at| *at > moment)
    }
}

fn hold(config: &std::path::Path, more: &[&str]) -> Finished {
    process::kladder(&[&["hold", "-c", path(config)], more].concat())
}

fn resume(config: &std::path::Path, more: &[&str]) -> Finished {
    process::kladder(&[&["resume", "-c", path(config)], more].concat())
}

fn is_held(port: u16) -> bool {
    scene::metric_at(port, "kladder_held", "") == Some(1.0)
}

fn is_ready(port: u16) -> bool {
    matches!(scene::get(port, "/readyz"), Some((200, _)))
}

fn status(config: &std::path::Path) -> Value {
    let said = process::kladder(&["status", "-c", path(config), "-o", "json"]).succeeds();
    serde_json::from_str(&said.stdout).expect("JSON")
}

/// A record of a state topic, written by somebody else.
fn state_record(key: &str, value: &str) -> NewRecord {
    NewRecord { partition: 0, key: Some(key.into()), value: Some(value.into()), headers: Vec::new() }
}

#[test]
fn a_hold_stops_three_workers_outlives_kill_9_and_burns_no_attempt() {
    three_workers_are_held("hold", Duration::from_millis(40), Hops::ExactlyOnce);
}

#[test]
fn at_least_once_a_hold_stops_three_workers_too_and_nothing_is_lost() {
    three_workers_are_held("hold-alo", Duration::from_millis(80), Hops::AtLeastOnce);
}

fn three_workers_are_held(theme: &str, every: Duration, hops: Hops) {
    let begun = Begun::default();
    let noted = begun.clone();
    let handler = Handler::start(move |call| {
        noted.note();
        let fails = call.attempt <= failures(load::number_of(call, PARTITIONS));
        let answer = if fails { Answer::fail(503, FAILURE) } else { Answer::ok() };
        answer.after(Duration::from_millis(20))
    });
    // When it is held, some records in the last tier become due only after every worker must know
    // it.
    let mut scene = Scene::with_source(theme, &["500ms", "1s", "5s"], PARTITIONS);
    scene.ask_for(hops);
    handler.url().clone_into(&mut scene.handler);
    scene.max_in_flight = 16;
    let config = scene.set_up();
    let workers = ["first", "second", "third"].map(|name| scene.write_worker(name));
    let start = || workers.iter().map(|(config, _)| Kladder::run(config)).collect::<Vec<_>>();
    let redelivered = || broker::read(&scene.redeliver_topic()).len();
    let all_deliver = || {
        clock::eventually("all three deliver, and records wait in the last tier", PATIENCE, || {
            let delivered = |port| scene::metric_at(port, "kladder_deliveries_total", "").is_some_and(|count| count > 20.0);
            workers.iter().all(|(_, port)| delivered(*port)) && broker::lag(&scene.mover_group(), &scene.tier_topic("5s")) > 0
        });
    };

    let (mut running, sent) = load::under_load(&scene, PARTITIONS, every, || {
        let running = start();
        all_deliver();
        let said = hold(&config, &["--why", "the handler is being replaced"]).succeeds();
        let held_at = clock::now();
        assert!(said.stderr.contains(&format!("ladder {} is held by ", scene.ladder)), "{said}");
        assert!(said.stderr.contains("the handler is being replaced"), "{said}");
        clock::pause(OBEYED_WITHIN);
        let in_redeliver = redelivered();
        let waiting = || broker::lag(&scene.mover_group(), &scene.tier_topic("5s"));
        assert!(waiting() > 0, "nothing waits that the mover would have to hold back");
        // Long enough for every record of the tiers to become due.
        clock::pause(Duration::from_secs(4));
        let late = begun.last().map_or(Duration::ZERO, |last| last.saturating_duration_since(held_at));
        println!("the last call began {late:?} after the hold was confirmed");
        assert!(late < OBEYED_WITHIN, "a call began {late:?} after the hold");
        assert_eq!(redelivered(), in_redeliver, "something was redelivered in spite of the hold");
        assert!(workers.iter().all(|(_, port)| is_held(*port) && is_ready(*port)), "held, and ready nevertheless");
        let log = running[0].log();
        let told = log.lines().filter(|line| line.contains("ladder is held by") && line.contains("being replaced")).count();
        assert_eq!(told, 1, "its log:\n{log}");

        let again = hold(&config, &[]).succeeds();
        assert!(again.stderr.contains("is already held, since") && again.stderr.contains("being replaced"), "{again}");
        let shown = process::kladder(&["status", "-c", path(&config)]).succeeds();
        assert!(shown.stdout.contains("HELD since ") && shown.stdout.contains("being replaced"), "{shown}");
        let ladder = &status(&config)["ladders"][0];
        assert_eq!(ladder["held"], true);
        assert_eq!(ladder["hold"]["why"], "the handler is being replaced");
        assert!(ladder["hold"]["by"].as_str().is_some_and(|by| by.contains('@')), "{ladder}");

        let (calls, in_redeliver) = (handler.count(), redelivered());
        running.into_iter().for_each(Kladder::kill_dash_nine);
        let running = start();
        clock::eventually("the new ones have joined, and are held", PATIENCE, || {
            workers.iter().all(|(_, port)| is_ready(*port) && is_held(*port))
        });
        clock::pause(Duration::from_secs(3));
        assert_eq!((handler.count(), redelivered()), (calls, in_redeliver), "a restart has released the ladder");

        resume(&config, &[]).succeeds();
        let resumed_at = clock::now();
        all_deliver();
        let first = begun.first_after(resumed_at).map(|first| first.duration_since(resumed_at));
        println!("a call began {first:?} after the resume was confirmed");
        assert!(workers.iter().all(|(_, port)| !is_held(*port)));
        let said = resume(&config, &[]).succeeds();
        assert!(said.stderr.contains("is not held; it was resumed since "), "{said}");
        running
    });

    let shape = scene.shape();
    let planned: usize = (0..sent).map(|n| usize::try_from(shape.calls(failures(n))).expect("a small number")).sum();
    clock::eventually("every record is done or dead", PATIENCE * 2, || {
        running.iter_mut().for_each(Kladder::assert_running);
        handler.count() >= planned
            && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
            && broker::lag(&scene.group, &scene.source) == 0
            && scene.tiers.iter().all(|tier| broker::lag(&scene.mover_group(), &scene.tier_topic(tier)) == 0)
    });
    for mut worker in running {
        assert_eq!(worker.terminate(PATIENCE).code(), Some(0), "its log:\n{}", worker.log());
    }
    let observed = independent::observe(&scene, &handler);
    assert_eq!(observed.source.len(), sent);
    let report = checker::check(&shape, hops, &observed, failures);
    report.assert_no_faults();
    println!("{sent} records, {} calls, {} of them beyond the plan", observed.calls.len(), report.extra_calls);
    // No delivery was in flight when they were killed.
    assert_eq!(report.extra_calls, 0, "deliveries were repeated");
}

#[test]
fn what_the_handler_has_is_finished_and_what_only_waits_for_its_turn_is_not_begun() {
    const RECORDS: usize = 8;
    // Their order is not guaranteed: more are taken than may be in flight, and they compete for the slot.
    let first = AtomicBool::new(true);
    let handler = Handler::start(move |_| {
        let fails = first.swap(false, Ordering::SeqCst);
        if fails { Answer::fail(503, FAILURE).after(Duration::from_secs(4)) } else { Answer::ok() }
    });
    let mut scene = Scene::with_source("hold-turn", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 1;
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &(0..RECORDS).map(|n| records::plain(n, 1)).collect::<Vec<_>>());
    let mut kladder = Kladder::run(&config);
    clock::eventually("the first is in the handler's hands", PATIENCE, || handler.count() == 1);
    hold(&config, &[]).succeeds();
    clock::eventually("its hop is written", PATIENCE, || broker::read(&scene.tier_topic("500ms")).len() == 1);
    clock::pause(Duration::from_secs(3));
    assert_eq!(handler.count(), 1, "a delivery was begun that had only been queued");
    assert_eq!(broker::read(&scene.redeliver_topic()).len(), 0);
    // Records that wait for their turn do not keep a held worker from stopping, and are not lost.
    assert_eq!(kladder.terminate(Duration::from_secs(5)).code(), Some(0), "its log:\n{}", kladder.log());
    assert_eq!(handler.count(), 1);
    let mut kladder = Kladder::run(&config);
    resume(&config, &[]).succeeds();
    clock::eventually("all are delivered", PATIENCE, || {
        kladder.assert_running();
        handler.count() == RECORDS + 1 && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
    });
    let attempts: Vec<(i64, u32)> = handler.calls().iter().map(|call| (call.offset, call.attempt)).collect();
    let again = attempts.iter().filter(|(_, attempt)| *attempt > 1);
    assert_eq!(again.collect::<Vec<_>>(), [&(attempts[0].0, 2)], "{attempts:?}");
}

#[test]
fn what_could_not_be_sent_is_not_tried_again_while_held() {
    let port = ClosedPort::reserve();
    let mut scene = Scene::with_source("hold-unsent", &["500ms"], 1);
    scene.handler = port.url();
    let config = scene.set_up();
    RawProducer::new(&scene.brokers).write(&scene.source, &[records::plain(0, 1)]);
    let mut kladder = Kladder::run(&config);
    let tries = || scene.metric("kladder_deliveries_total", "unsent").unwrap_or(0.0);
    clock::eventually("it is tried in place", PATIENCE, || tries() > 2.0);
    hold(&config, &[]).succeeds();
    clock::pause(OBEYED_WITHIN);
    let (before, handler) = (tries(), port.open(|_| Answer::ok()));
    clock::pause(Duration::from_secs(3));
    assert_eq!((tries(), handler.count()), (before, 0));
    resume(&config, &[]).succeeds();
    clock::eventually("it is delivered", PATIENCE, || {
        kladder.assert_running();
        broker::lag(&scene.group, &scene.source) == 0
    });
    assert_eq!(handler.calls().iter().map(|call| call.attempt).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_hold_stops_no_other_ladder_and_one_that_was_written_while_nobody_ran_is_obeyed() {
    let (held_handler, free_handler) = (Handler::start(|_| Answer::ok()), Handler::start(|_| Answer::ok()));
    let mut held = Scene::with_source("hold-one", &["500ms"], 1);
    let mut free = Scene::with_source("hold-other", &["500ms"], 1);
    held_handler.url().clone_into(&mut held.handler);
    free_handler.url().clone_into(&mut free.handler);
    let toml = free.toml();
    let both = held.toml() + &toml[toml.find("[ladder.").expect("a ladder")..];
    let config = held.write_text(&both);
    process::kladder(&["setup", "-c", path(&config), "--yes"]).succeeds();

    // With several ladders, all are held only with the option for it.
    hold(&config, &[]).refuses(2, &["--yes", "--ladder", &held.ladder, &free.ladder]);
    assert_eq!(status(&config)["ladders"][0]["held"], false);
    let said = hold(&config, &["--ladder", &held.ladder, "-o", "json"]).succeeds();
    let told: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((&told["ladders"][0]["held"], &told["ladders"][0]["changed"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(told["ladders"].as_array().map(Vec::len), Some(1));

    let mut kladder = Kladder::run(&config);
    let producer = RawProducer::new(&held.brokers);
    for number in 0..20 {
        producer.write(&held.source, &[records::plain(number, 1)]);
        producer.write(&free.source, &[records::plain(number, 1)]);
    }
    clock::eventually("the other goes on", PATIENCE, || free_handler.count() == 20);
    clock::pause(Duration::from_secs(2));
    assert_eq!(held_handler.count(), 0, "what was written while nobody ran is not obeyed");
    assert_eq!(held.metric("kladder_held", &held.ladder), Some(1.0));
    assert_eq!(held.metric("kladder_held", &free.ladder), Some(0.0));

    let told: Value = serde_json::from_str(&resume(&config, &["--yes", "-o", "json"]).succeeds().stdout).expect("JSON");
    let changed: Vec<bool> =
        ["ladders"].iter().flat_map(|k| told[*k].as_array().unwrap()).map(|l| l["changed"] == true).collect();
    assert_eq!(changed.iter().filter(|changed| **changed).count(), 1, "{told}");
    clock::eventually("both go on", PATIENCE, || {
        kladder.assert_running();
        held_handler.count() == 20
    });
}

#[test]
fn a_hold_that_nobody_can_read_holds_and_resume_overwrites_it() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("hold-odd", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let state = format!("{}.state", scene.ladder);
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &[records::plain(0, 1)]);
    // A record of a newer version, and foreign ones.
    let mut foreign = state_record("dead/0/1", "\u{1}not ours");
    foreign.headers.push((b"\xff\xfe".to_vec(), None));
    producer.write(&state, &[state_record("hold", r#"{"v":9,"held":"softly"}"#), foreign]);
    let mut kladder = Kladder::run(&config);
    clock::eventually("the log says so", PATIENCE, || {
        kladder.assert_running();
        let log = kladder.log();
        log.lines().any(|l| l.contains("ERROR") && l.contains("format version 9") && l.contains("kladder resume"))
    });
    let shown = process::kladder(&["status", "-c", path(&config)]).succeeds();
    assert!(shown.stdout.contains("HELD by an unreadable record"), "{shown}");
    clock::pause(Duration::from_secs(2));
    assert_eq!(handler.count(), 0);
    let said = resume(&config, &[]).succeeds();
    assert!(said.stderr.contains("could not be read") && said.stderr.contains("overwritten"), "{said}");
    clock::eventually("it goes on", PATIENCE, || handler.count() == 1);
    assert_eq!(status(&config)["ladders"][0]["held"], false);
}

#[test]
fn mistakes_of_whoever_holds_are_told() {
    let scene = Scene::with_source("hold-wrong", &["1s"], 1);
    let config = scene.write();
    hold(&config, &[]).refuses(1, &[&format!("{}.state", scene.ladder), "kladder setup"]);
    resume(&config, &[]).refuses(1, &[&format!("{}.state", scene.ladder), "kladder setup"]);
    hold(&config, &["--ladder", "nobody"]).refuses(2, &["nobody", &scene.ladder]);
    hold(std::path::Path::new("/nowhere/kladder.toml"), &[]).refuses(2, &["/nowhere/kladder.toml"]);
    hold(&config, &["--reason", "typo"]).refuses(2, &["--reason", "--help"]);
    process::kladder(&["setup", "-c", path(&config), "--take-over", "--yes"]).refuses(2, &["--ladder"]);
    let mut away = Scene::new("hold-away", &["1s"]);
    away.brokers = "127.0.0.1:9".to_owned();
    hold(&away.write(), &[]).refuses(1, &["127.0.0.1:9", "bootstrap.servers"]);
    scene.set_up();
    let said = resume(&config, &[]).succeeds();
    assert!(said.stderr.contains("is not held"), "{said}");
}

#[test]
fn a_ladder_of_another_group_is_refused_until_it_is_taken_over() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("owner", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let again = process::kladder(&["setup", "-c", path(&config), "--dry-run"]).succeeds();
    assert!(again.stdout.contains("in order"), "{again}");
    let mut old = Kladder::run(&config);
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&scene.source, &[records::plain(0, 1)]);
    clock::eventually("it delivers", PATIENCE, || handler.count() == 1);

    let group = std::mem::replace(&mut scene.group, format!("{}.shipping", scene.ladder));
    let (other, _) = scene.write_worker("other");
    let words = ["belongs to group", group.as_str(), scene.group.as_str(), "--take-over"];
    process::kladder(&["setup", "-c", path(&other), "--yes"]).refuses(2, &words);
    process::kladder(&["run", "-c", path(&other)]).refuses(1, &words);
    assert_eq!(broker::committed(&scene.group, &scene.source, 0).0, None, "a refused setup has left something");

    let taken = process::kladder(&["setup", "-c", path(&other), "--take-over", "--ladder", &scene.ladder, "--yes"]).succeeds();
    assert!(taken.stdout.contains(&format!("group {group} -> group {}", scene.group)), "{taken}");
    clock::eventually("the old worker stands still and says why", PATIENCE, || {
        old.assert_running();
        scene_is_held(&scene) && old.log().lines().any(|l| l.contains("ERROR") && l.contains("taken the ladder over"))
    });
    producer.write(&scene.source, &[records::plain(1, 1)]);
    clock::pause(Duration::from_secs(2));
    assert_eq!(handler.count(), 1, "two groups share a ladder");
    old.kill_dash_nine();
    process::kladder(&["run", "-c", path(&config)]).refuses(1, &["belongs to group", "--take-over"]);

    let mut new = Kladder::run(&other);
    // From the beginning: the group had no offsets.
    clock::eventually("the new group delivers", PATIENCE, || {
        new.assert_running();
        handler.count() == 3
    });
}

fn scene_is_held(scene: &Scene) -> bool {
    scene.metric("kladder_held", &scene.ladder) == Some(1.0)
}

#[test]
fn a_ladder_that_was_set_up_before_owners_were_put_down_runs_and_is_claimed_by_setup() {
    let handler = Handler::start(|_| Answer::ok());
    let mut scene = Scene::with_source("owner-none", &["500ms"], 1);
    scene.handler = handler.url().to_owned();
    let config = scene.set_up();
    let mut tombstone = state_record("owner", "");
    tombstone.value = None;
    let producer = RawProducer::new(&scene.brokers);
    producer.write(&format!("{}.state", scene.ladder), &[tombstone]);
    producer.write(&scene.source, &[records::plain(0, 1)]);
    let mut kladder = Kladder::run(&config);
    clock::eventually("it delivers", PATIENCE, || handler.count() == 1);
    let log = kladder.log();
    assert!(
        log.lines().any(|l| l.contains("WARN") && l.contains("the ladder has no owner record") && l.contains("kladder setup")),
        "{log}"
    );
    let claimed = process::kladder(&["setup", "-c", path(&config), "--yes"]).succeeds();
    assert!(claimed.stdout.contains(&format!("+ record group {} as", scene.group)), "{claimed}");
    kladder.assert_running();
    assert!(!scene_is_held(&scene));
}
