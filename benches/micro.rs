//! The cost of the pure work on one record: reading and writing its envelope, deciding about it, tracking it, recognizing
//! it.
//!
//! `cargo bench --locked --bench micro` runs everything in about a second, once it is built; a name after `--` selects the
//! benchmarks that contain it. No broker is needed. The inputs are what the ladder produces: records that climbed by its own
//! decisions, with the headers that a service would have set before. Operations with many steps are measured in items a second,
//! all others in time per call.
//!
//! The mover's path of a record is measured in parts, since the mover itself needs a broker.

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use kladder::internals::{AckTracker, Fingerprint, Glance, Memory, NativeHeaders, Trim, glance, is_foreign_control, is_own};
use kladder::{Consumed, Coordinates, Decision, Envelope, ErrorInfo, Failure, Headers, Ladder, Mode, Timestamp, Verdict};

/// 2026-01-01.
const MORNING: Timestamp = Timestamp::from_millis(1_767_225_600_000);

const MESSAGE: &str = "POST https://payments.internal/v2/charges answered 503 after 4 of 4 connections were refused: upstream connect \
    error or disconnect/reset before headers";

/// Nine frames, as a runtime with stack traces would name them.
const FRAME: &str = "\tat com.example.billing.orders.ChargeHandler.handle(ChargeHandler.java:114)\n";

fn main() {
    divan::main();
}

fn ladder(mode: Mode) -> Ladder {
    let builder =
        Ladder::builder("billing-orders", "billing").source("orders").tiers(["5s", "1m", "10m"]).attempts(20).mode(mode);
    builder.build().expect("a ladder")
}

fn at(offset: i64) -> Coordinates {
    Coordinates { topic: "orders".to_owned(), partition: 7, offset, timestamp: MORNING }
}

fn failure() -> Failure {
    Failure::retry("HTTP 503", MESSAGE)
}

fn retry() -> Verdict {
    Err(failure())
}

/// The envelope of a record that has failed this many times; from sixteen on its history has its maximal
/// length.
fn climbed(ladder: &Ladder, offset: i64, times: u32) -> Envelope {
    let mut envelope = Envelope::fresh(ladder.name(), &at(offset));
    for nth in 0..times {
        match ladder.decide(&envelope, &retry(), MORNING + Duration::from_secs(600) * nth) {
            Decision::Hop { envelope: next, .. } => envelope = *next,
            other => panic!("attempt {nth} is to be tried again, not to end as {}", other.name()),
        }
    }
    envelope
}

/// Headers that a service adds to its records.
fn of_the_service() -> Headers {
    let mut headers = Headers::new();
    headers.push("traceparent", Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    headers.push("content-type", Some("application/json"));
    headers.push("ce_type", Some("com.example.order.placed"));
    headers.push("ce_id", Some("0b7a6c9e-6c0a-4f0e-9a6e-3b1f6d1f0c55"));
    headers
}

/// The headers of a record that waits in a tier.
fn of_a_hop(ladder: &Ladder, times: u32) -> Headers {
    let mut headers = of_the_service();
    climbed(ladder, 1_234_567, times).replace_in(&mut headers, Trim::Nothing);
    headers
}

fn native(headers: &Headers) -> NativeHeaders {
    let mut native = NativeHeaders::new();
    for (name, value) in headers.iter() {
        native.push(name, value);
    }
    native
}

/// Of 1 KB.
fn value() -> Vec<u8> {
    let lines = (0..16).map(|n| format!(r#"{{"sku":"{n:08}","count":{n},"price":"12.{n:02}","note":"none"}}"#));
    let mut value = lines.collect::<Vec<_>>().join(",").into_bytes();
    value.resize(1_024, b' ');
    value
}

/// The numbers below `n`, each once, shuffled but always in the same order.
fn mixed(n: i64) -> Vec<i64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut keyed: Vec<(u64, i64)> = (0..n)
        .map(|number| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state, number)
        })
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, number)| number).collect()
}

mod envelope {
    use super::{
        Bencher, Envelope, ErrorInfo, FRAME, Glance, MORNING, Mode, Trim, at, black_box, climbed, failure, glance, ladder,
        native, of_a_hop, of_the_service,
    };

    /// Failures so far: one, and as many as the history holds.
    const CLIMBED: [u32; 2] = [1, 16];

    #[divan::bench(args = CLIMBED)]
    fn read(bencher: Bencher, times: u32) {
        let ladder = ladder(Mode::Push);
        let headers = of_a_hop(&ladder, times);
        assert!(Envelope::read(&ladder, &at(1), headers.iter()).was_present);
        bencher.bench_local(|| Envelope::read(black_box(&ladder), &at(1), black_box(&headers).iter()));
    }

    /// A first failure: there is no envelope among the headers.
    #[divan::bench]
    fn read_of_none(bencher: Bencher) {
        let ladder = ladder(Mode::Push);
        let headers = of_the_service();
        bencher.bench_local(|| Envelope::read(black_box(&ladder), &at(1), black_box(&headers).iter()));
    }

    /// All that most records need when they are due.
    #[divan::bench(args = CLIMBED)]
    fn glance_at(bencher: Bencher, times: u32) {
        let ladder = ladder(Mode::Push);
        let headers = native(&of_a_hop(&ladder, times));
        assert_eq!(glance(&ladder, headers.iter()), Glance::Plain);
        bencher.bench_local(|| glance(black_box(&ladder), black_box(&headers).iter()));
    }

    #[divan::bench(args = CLIMBED)]
    fn write(bencher: Bencher, times: u32) {
        let ladder = ladder(Mode::Push);
        let envelope = climbed(&ladder, 1_234_567, times);
        bencher.bench_local(|| black_box(&envelope).headers(Trim::Nothing));
    }

    #[divan::bench]
    fn write_with_stack(bencher: Bencher) {
        let ladder = ladder(Mode::Push);
        let error = ErrorInfo { stack: Some(FRAME.repeat(9)), ..failure().error().clone() };
        let envelope = climbed(&ladder, 1_234_567, 15).failed(&error, MORNING);
        bencher.bench_local(|| black_box(&envelope).headers(Trim::Nothing));
    }
}

mod mover {
    use super::{Bencher, Envelope, Mode, Trim, at, black_box, glance, is_foreign_control, is_own, ladder, native, of_a_hop};

    #[divan::bench]
    fn copy(bencher: Bencher) {
        let headers = native(&of_a_hop(&ladder(Mode::Push), 16));
        bencher.bench_local(|| black_box(&headers).clone());
    }

    /// A record that moves on unchanged.
    #[divan::bench]
    fn as_it_is(bencher: Bencher) {
        let ladder = ladder(Mode::Push);
        let headers = native(&of_a_hop(&ladder, 16));
        bencher.bench_local(|| {
            let copy = black_box(&headers).clone();
            black_box(glance(black_box(&ladder), copy.iter()));
            copy
        });
    }

    /// A record whose envelope is read and rewritten, on its way to another tier or to its origin.
    #[divan::bench(args = [1, 16])]
    fn rewritten(bencher: Bencher, times: u32) {
        let ladder = ladder(Mode::Push);
        let headers = native(&of_a_hop(&ladder, times));
        bencher.bench_local(|| {
            let mut copy = black_box(&headers).clone();
            let mut envelope = Envelope::read(black_box(&ladder), &at(1), copy.iter()).envelope;
            envelope.tier = Some(2);
            copy.remove_if(is_foreign_control);
            copy.remove_if(is_own);
            for (name, value) in envelope.headers(Trim::Nothing) {
                copy.push(name.as_bytes(), Some(value.as_bytes()));
            }
            copy
        });
    }

    #[divan::bench]
    fn remove_own(bencher: Bencher) {
        let headers = native(&of_a_hop(&ladder(Mode::Push), 16));
        bencher.with_inputs(|| headers.clone()).bench_local_refs(|headers| headers.remove_if(is_own));
    }
}

mod decide {
    use super::{Bencher, MORNING, Mode, Verdict, black_box, climbed, failure, ladder};

    fn on(bencher: Bencher, times: u32, verdict: Verdict) {
        let ladder = ladder(Mode::Push);
        let envelope = climbed(&ladder, 1_234_567, times);
        bencher.bench_local(|| black_box(&ladder).decide(black_box(&envelope), black_box(&verdict), black_box(MORNING)));
    }

    #[divan::bench]
    fn done(bencher: Bencher) {
        on(bencher, 0, Ok(()));
    }

    #[divan::bench(args = [0, 16])]
    fn retry(bencher: Bencher, times: u32) {
        on(bencher, times, super::retry());
    }

    #[divan::bench(args = [0, 16])]
    fn reject(bencher: Bencher, times: u32) {
        on(bencher, times, Err(failure().reject()));
    }
}

mod ack_tracker {
    use super::{AckTracker, Bencher, ItemsCount, black_box, mixed};

    const RECORDS: i64 = 6_400;
    /// The numbers in flight at a time, and finished between two commits.
    const WINDOW: i64 = 64;

    fn items(n: i64) -> ItemsCount {
        ItemsCount::new(n.unsigned_abs())
    }

    fn fresh() -> AckTracker {
        AckTracker::resume(1_234_567, "").0
    }

    #[divan::bench]
    fn in_order(bencher: Bencher) {
        bencher.counter(items(RECORDS)).with_inputs(fresh).bench_local_refs(|tracker| {
            for offset in 1_234_567..1_234_567 + RECORDS {
                black_box(tracker.arrive(black_box(offset)));
                tracker.finish(offset);
            }
        });
    }

    /// Twice the window is in flight; a window's worth of the older and the newer half finishes in any order, then a commit
    /// follows.
    #[divan::bench]
    fn in_any_order(bencher: Bencher) {
        let order = mixed(2 * WINDOW);
        bencher.counter(items(RECORDS)).with_inputs(fresh).bench_local_refs(|tracker| {
            let (first, last) = (1_234_567, 1_234_567 + RECORDS);
            for start in (first..last).step_by(128) {
                for offset in start..start + 2 * WINDOW {
                    black_box(tracker.arrive(black_box(offset)));
                }
                for (nth, within) in (1..).zip(&order) {
                    tracker.finish(start + within);
                    if nth % WINDOW == 0 {
                        black_box(tracker.commit_point());
                    }
                }
            }
        });
    }

    /// What a transaction asks for its hops: this many records in flight, half of which finish if it
    /// commits.
    #[divan::bench(args = [16, 64, 256])]
    fn commit_with_hops(bencher: Bencher, under_way: i64) {
        let mut tracker = fresh();
        for offset in 1_234_567..1_234_567 + under_way {
            tracker.arrive(offset);
        }
        let half = usize::try_from(under_way / 2).expect("a small number");
        let hops: Vec<i64> = mixed(under_way).into_iter().take(half).map(|within| 1_234_567 + within).collect();
        bencher.bench_local(|| black_box(&tracker).commit_point_with(black_box(&hops)));
    }

    /// The first arrivals after a restart, of which an earlier owner has finished every other one.
    #[divan::bench]
    fn resumed(bencher: Bencher) {
        const AGAIN: i64 = 512;
        let metadata = format!("v1;{}", ["1+1"; 256].join(","));
        bencher.counter(items(AGAIN)).with_inputs(|| AckTracker::resume(1_234_567, &metadata).0).bench_local_refs(|tracker| {
            for offset in 1_234_567..1_234_567 + AGAIN {
                black_box(tracker.arrive(black_box(offset)));
            }
        });
    }
}

mod relay {
    use super::{Bencher, Consumed, Ladder, MORNING, Mode, black_box, failure, ladder, of_a_hop, of_the_service, value};

    fn consumed(ladder: &Ladder, times: u32) -> Consumed {
        let topic = if times == 0 { "orders" } else { "billing-orders.redeliver" };
        let headers = if times == 0 { of_the_service() } else { of_a_hop(ladder, times) };
        Consumed { key: Some(b"order-4711".to_vec()), value: Some(value()), headers, ..Consumed::at(topic, 7, 99, MORNING) }
    }

    /// The inbox record of a first failure, and of a record that has climbed.
    #[divan::bench(args = [0, 16])]
    fn inbox_record(bencher: Bencher, times: u32) {
        let ladder = ladder(Mode::Relay);
        let failure = failure();
        bencher
            .with_inputs(|| consumed(&ladder, times))
            .bench_local_values(|consumed| black_box(&ladder).relay(consumed, black_box(&failure)));
    }
}

mod memory {
    use super::{
        Bencher, BytesCount, Coordinates, Envelope, Fingerprint, Ladder, Memory, Mode, at, black_box, climbed, ladder, value,
    };

    const OUT: i64 = 10_000;

    #[divan::bench]
    fn fingerprint(bencher: Bencher) {
        let value = value();
        bencher
            .counter(BytesCount::new(value.len()))
            .bench_local(|| Fingerprint::of(black_box(Some(b"order-4711")), black_box(Some(&value))));
    }

    /// A record's fingerprint, envelope, and redelivered position.
    fn redelivered(ladder: &Ladder, offset: i64) -> (Fingerprint, Envelope, Coordinates) {
        let print = Fingerprint::of(Some(offset.to_string().as_bytes()), Some(b"{}"));
        let stands = Coordinates { topic: "billing-orders.redeliver".to_owned(), ..at(offset) };
        (print, climbed(ladder, offset, 1), stands)
    }

    /// Ten thousand outstanding ones.
    fn full(ladder: &Ladder) -> Memory {
        let mut memory = Memory::new(ladder.name(), 100_000);
        for offset in 0..OUT {
            let (print, envelope, stands) = redelivered(ladder, offset);
            memory.note(print, &envelope, &stands);
        }
        memory
    }

    /// Another one is noted and comes back, in any way, while ten thousand others are outstanding.
    fn beside_others<T>(bencher: Bencher, comes_back: impl Fn(&mut Memory, Fingerprint, &Envelope, &Coordinates) -> T) {
        let ladder = ladder(Mode::Relay);
        let mut memory = full(&ladder);
        let mut offset = OUT;
        bencher
            .with_inputs(|| {
                offset += 1;
                redelivered(&ladder, offset)
            })
            .bench_local_refs(|(print, envelope, stands)| {
                memory.note(*print, envelope, stands);
                comes_back(&mut memory, *print, envelope, stands)
            });
    }

    /// With its headers.
    #[divan::bench]
    fn noted_and_returned(bencher: Bencher) {
        beside_others(bencher, |memory, _, envelope, _| memory.returned(envelope));
    }

    /// Without its headers.
    #[divan::bench]
    fn noted_and_recognized(bencher: Bencher) {
        beside_others(bencher, |memory, print, _, stands| {
            memory.without_headers(print, None, 0, stands.offset).expect("it is known")
        });
    }
}
