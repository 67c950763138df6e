//! A retry storm: redeliveries that all hang until their timeout delay neither the fresh records nor the mover.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::support::broker;
use crate::support::checker::FAILURE;
use crate::support::clock::{self, PATIENCE};
use crate::support::handler::{Answer, Call, Handler};
use crate::support::heavy;
use crate::support::process::Kladder;
use crate::support::raw::{NewRecord, RawProducer, Record};
use crate::support::records;
use crate::support::scene::Scene;

const PARTITIONS: i32 = 6;
/// Of each run.
const FRESH: usize = 10_000;
/// Records that always fail: the redeliver budget of 31 holds each for 2 s, so more than that are always due.
const FAILING: usize = 200;
const TIER: Duration = Duration::from_millis(500);
/// The handler's time for a fresh record.
const LATENCY: Duration = Duration::from_millis(20);
/// Longer than the call timeout.
const HANG: Duration = Duration::from_secs(60);

/// The handler's instructions, and what it has seen.
#[derive(Default)]
struct Weather {
    storm: AtomicBool,
    fresh: Mutex<Vec<Instant>>,
    redelivered: AtomicUsize,
}

impl Weather {
    fn answer(&self, call: &Call) -> Answer {
        if !is_failing(&call.body) {
            self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push(clock::now());
            return Answer::ok().after(LATENCY);
        }
        if call.attempt == 1 {
            return Answer::fail(503, FAILURE);
        }
        self.redelivered.fetch_add(1, Ordering::SeqCst);
        // Far beyond the timeout.
        if self.storm.load(Ordering::SeqCst) { Answer::ok().after(HANG) } else { Answer::ok() }
    }

    fn seen(&self) -> usize {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn redelivered(&self) -> usize {
        self.redelivered.load(Ordering::SeqCst)
    }
}

fn is_failing(body: &[u8]) -> bool {
    body.starts_with(b"fails")
}

/// The records of the test: their numbers continue from run to run.
struct Records {
    producer: RawProducer,
    next: usize,
}

impl Records {
    fn write(&mut self, scene: &Scene, count: usize, failing: impl Fn(usize) -> bool) {
        let batch: Vec<NewRecord> = (0..count)
            .map(|index| {
                let plain = records::plain(self.next + index, PARTITIONS);
                let value = format!("fails {index}").into_bytes();
                if failing(index) { NewRecord { value: Some(value), ..plain } } else { plain }
            })
            .collect();
        self.next += count;
        self.producer.write(&scene.source, &batch);
    }
}

/// The result for 10,000 fresh records.
struct Run {
    /// Fresh records a second, at the handler, from the first to the last.
    rate: f64,
    /// The same of each 500 of them.
    pieces: Vec<f64>,
    /// Redeliveries a second meanwhile.
    redelivered: f64,
}

/// Writes the fresh records, with a failing one after each group, and waits until the handler has had them all.
fn run(scene: &Scene, weather: &Weather, records: &mut Records, each: usize) -> Run {
    let (seen, redelivered) = (weather.seen(), weather.redelivered());
    records.write(scene, FRESH + FRESH / each, |index| index % (each + 1) == each);
    clock::eventually("the handler has had all fresh records", PATIENCE * 2, || weather.seen() >= seen + FRESH);
    let redelivered = weather.redelivered() - redelivered;
    let times = weather.fresh.lock().unwrap_or_else(PoisonError::into_inner);
    let times = &times[seen..seen + FRESH];
    let rate = |times: &[Instant]| float(times.len() - 1) / times[times.len() - 1].duration_since(times[0]).as_secs_f64();
    let redelivered = float(redelivered) * rate(times) / float(FRESH);
    Run { rate: rate(times), pieces: times.chunks(500).map(rate).collect(), redelivered }
}

#[test]
fn a_storm_of_hanging_redeliveries_leaves_fresh_records_half_their_rate_and_the_mover_its_punctuality() {
    const TURNS: usize = 3;
    const NONE_FAILS: usize = usize::MAX - 1;
    let _turn = heavy::turn();
    let weather = Arc::new(Weather::default());
    let asked = Arc::clone(&weather);
    let handler = Handler::start(move |call| asked.answer(call));
    let mut scene = Scene::with_source("storm", &["500ms"], PARTITIONS);
    scene.handler = handler.url().to_owned();
    scene.max_in_flight = 64;
    scene.timeout = "2s";
    // Failed records come back until the storm is over.
    scene.settings += "\nattempts = 10000";
    let config = scene.set_up();
    let mut kladder = Kladder::run(&config);
    let mut records = Records { producer: RawProducer::new(&scene.brokers), next: 0 };
    let calm = |kladder: &mut Kladder| {
        clock::eventually("all is done", PATIENCE * 2, || {
            kladder.assert_running();
            broker::lag(&scene.group, &scene.source) == 0
                && broker::lag(&scene.mover_group(), &scene.tier_topic("500ms")) == 0
                && broker::lag(&scene.group, &scene.redeliver_topic()) == 0
        });
    };
    // Nothing is measured while the group forms.
    records.write(&scene, 60, |_| false);
    calm(&mut kladder);

    let (mut undisturbed, mut stormy, mut storms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        undisturbed.push(run(&scene, &weather, &mut records, NONE_FAILS));
        calm(&mut kladder);

        weather.storm.store(true, Ordering::SeqCst);
        let before = weather.redelivered();
        let began = records.next;
        records.write(&scene, FAILING, |_| true);
        clock::eventually("redeliveries hang, and others wait for their places", PATIENCE, || {
            weather.redelivered() >= before + 80
        });
        stormy.push(run(&scene, &weather, &mut records, NONE_FAILS));
        storms.push(began..records.next);
        weather.storm.store(false, Ordering::SeqCst);
        calm(&mut kladder);
    }

    // At least as many redeliveries, but the handler answers each of them at once.
    let each = mean(&undisturbed, |run| run.rate) / mean(&stormy, |run| run.redelivered) / 2.0;
    let began = records.next;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number above 0")]
    let brisk = run(&scene, &weather, &mut records, (each as usize).max(1));
    calm(&mut kladder);
    let brisk_records = began..records.next;
    assert_eq!(kladder.terminate(PATIENCE).code(), Some(0), "its log:\n{}", kladder.log());

    let calls = handler.calls();
    let fresh: Vec<&Call> = calls.iter().filter(|call| !is_failing(&call.body)).collect();
    let places: HashSet<(i32, i64)> = fresh.iter().map(|call| (call.partition, call.offset)).collect();
    assert_eq!(fresh.len(), places.len(), "fresh records were delivered again");
    assert_eq!(fresh.len(), 60 + (2 * TURNS + 1) * FRESH);
    assert!(broker::read(&scene.dlq_topic()).is_empty());

    let waits = waits(&broker::read(&scene.tier_topic("500ms")), &broker::read(&scene.redeliver_topic()));
    let late = |numbers: &[std::ops::Range<usize>]| {
        let of = |number: &usize| numbers.iter().any(|range| range.contains(number));
        Lateness::of(waits.iter().filter(|(number, _)| of(number)).map(|(_, late)| *late).collect())
    };
    let (in_storm, in_peace) = (late(&storms), late(&[brisk_records]));
    // Both at their best quarter, so that other load of the machine is not what is compared.
    let ratio = upper_quartile(&stormy) / upper_quartile(&undisturbed);
    let plain = mean(&stormy, |run| run.rate) / mean(&undisturbed, |run| run.rate);
    for (name, runs) in [("undisturbed", &undisturbed), ("in the storm", &stormy), ("redelivered at once", &vec![brisk])] {
        for run in runs {
            println!("{name}: {:.0} fresh records a second, beside {:.1} redeliveries a second", run.rate, run.redelivered);
        }
    }
    println!("in the storm fresh records finish at {ratio:.2} of the undisturbed rate (first to last: {plain:.2})");
    println!("lateness of the mover: in the storm {in_storm}; when redeliveries end at once {in_peace}");
    // The budgets leave fresh records 33 of 63 slots, which is 0.52, so a busy machine may change either measure only slightly: the
    // less disturbed one counts.
    let ratio = ratio.max(plain);
    assert!(ratio >= 0.5, "fresh records finish at {ratio:.2} of the undisturbed rate");
    // If the mover waited for the handler, records would be late by the handler's timeout, repeatedly.
    assert!(in_storm.median <= in_peace.median + 500, "the mover is late in a storm");
    assert!(in_storm.p99 <= in_peace.p99 + 1_500, "the mover is late in a storm");
}

fn mean(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    runs.iter().map(of).sum::<f64>() / float(runs.len())
}

fn upper_quartile(runs: &[Run]) -> f64 {
    let mut rates: Vec<f64> = runs.iter().flat_map(|run| run.pieces.iter().copied()).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() * 3 / 4]
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a small number"))
}

/// By the topics' timestamps, how much longer than its delay each record waited in the tier, with its
/// number.
fn waits(tier: &[Record], redeliver: &[Record]) -> Vec<(usize, i64)> {
    let place = |record: &Record| {
        let number = record.text(records::ID).and_then(records::number_of).expect("an id");
        (number, record.number("kladder-attempts").expect("attempts"))
    };
    let entered: HashMap<(usize, i64), i64> = tier.iter().map(|record| (place(record), record.timestamp)).collect();
    let delay = i64::try_from(TIER.as_millis()).expect("a short delay");
    redeliver.iter().map(|record| (place(record).0, record.timestamp - entered[&place(record)] - delay)).collect()
}

struct Lateness {
    records: usize,
    median: i64,
    p99: i64,
    most: i64,
}

impl Lateness {
    fn of(mut late: Vec<i64>) -> Self {
        late.sort_unstable();
        let at = |share: usize| late[(late.len() - 1) * share / 100];
        assert!(late[0] >= 0, "redelivered {} ms early", -late[0]);
        Self { records: late.len(), median: at(50), p99: at(99), most: at(100) }
    }
}

impl std::fmt::Display for Lateness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { records, median, p99, most } = self;
        write!(f, "of {records} records: median {median} ms, p99 {p99} ms, most {most} ms")
    }
}
