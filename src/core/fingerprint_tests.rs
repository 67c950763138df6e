//! Applications that drop headers, records with the same content, and the bound.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SETTLE: Duration = Duration::from_secs(120);

fn at(topic: &str, offset: i64) -> Coordinates {
    Coordinates { topic: topic.into(), partition: 0, offset, timestamp: Timestamp::from_millis(1_000) }
}

/// The nth record of the source after this many attempts, redelivered at the same offset.
fn envelope(nth: i64, attempts: u32) -> Envelope {
    let fresh = Envelope::fresh("l", &at("s", nth));
    Envelope { attempts, tier: Some(attempts), first_failed_at: Some(Timestamp::from_millis(5)), ..fresh }
}

fn print(content: &str) -> Fingerprint {
    Fingerprint::of(Some(b"key"), Some(content.as_bytes()))
}

fn noted(memory: &mut Memory, content: &str, nth: i64, attempts: u32) {
    memory.note(print(content), &envelope(nth, attempts), &at("l.redeliver", nth * 100 + i64::from(attempts)));
}

fn memory() -> Memory {
    Memory::new("l", 1_000)
}

#[test]
fn null_and_empty_and_where_the_key_ends_make_a_difference() {
    let pairs = [
        (None::<&[u8]>, None::<&[u8]>),
        (Some(b""), None),
        (None, Some(b"")),
        (Some(b""), Some(b"")),
        (Some(b"ab"), Some(b"c")),
        (Some(b"a"), Some(b"bc")),
        (Some(b"abc"), None),
        (None, Some(b"abc")),
    ];
    let prints: BTreeSet<Fingerprint> = pairs.iter().map(|(key, value)| Fingerprint::of(*key, *value)).collect();
    assert_eq!(prints.len(), pairs.len());
    assert_eq!(Fingerprint::of(Some(b"a"), Some(b"b")), Fingerprint::of(Some(b"a"), Some(b"b")));
}

#[test]
fn an_entry_is_as_small_as_it_is_said_to_be() {
    assert_eq!(size_of::<OutstandingRecord>(), 144);
}

#[test]
fn an_application_that_drops_headers_has_no_more_attempts_than_another() {
    let mut memory = memory();
    let mut attempts = 1;
    for arrival in 0..10 {
        noted(&mut memory, "a", 7, attempts);
        let back = memory.without_headers(print("a"), None, 0, arrival).expect("its return");
        assert_eq!(back, envelope(7, attempts));
        attempts = back.attempts + 1;
    }
    assert_eq!((attempts, memory.headers_missing(), memory.len()), (11, 10, 0));
}

#[test]
fn an_id_that_is_not_made_of_the_origin_is_kept() {
    let mut memory = memory();
    let named = Envelope { id: "l/l.inbox/0/3/9".into(), redrives: 2, ..envelope(7, 1) };
    memory.note(print("a"), &named, &at("s", 900));
    assert_eq!(memory.without_headers(print("a"), None, 0, 0), Some(named));
}

#[test]
fn a_first_failure_is_no_return() {
    let mut memory = memory();
    noted(&mut memory, "a", 7, 1);
    assert_eq!(memory.without_headers(print("b"), None, 0, 0), None);
    memory.returned(&envelope(7, 1));
    assert_eq!(memory.without_headers(print("a"), None, 0, 1), None, "it came back by its headers");
    assert_eq!((memory.headers_missing(), memory.len()), (0, 0));
}

#[test]
fn an_aborted_transaction_is_answered_as_before() {
    let mut memory = memory();
    noted(&mut memory, "a", 7, 1);
    let first = memory.without_headers(print("a"), None, 3, 50);
    assert_eq!(memory.without_headers(print("a"), None, 3, 50), first);
    assert_eq!(memory.without_headers(print("a"), None, 3, 51), None, "another arrival is another record");
    assert_eq!(memory.headers_missing(), 1);
}

#[test]
fn where_it_was_consumed_decides_over_what_it_holds() {
    let mut memory = memory();
    noted(&mut memory, "a", 7, 1);
    assert_eq!(memory.without_headers(print("a"), Some(&at("s", 8)), 0, 0), None, "alike, and from elsewhere");
    let back = memory.without_headers(print("changed"), Some(&at("l.redeliver", 701)), 0, 1);
    assert_eq!(back, Some(envelope(7, 1)));
}

#[test]
fn a_coincidence_is_taken_back_and_its_content_ambiguous_from_then_on() {
    let mut memory = memory();
    noted(&mut memory, "heartbeat", 7, 1);
    assert!(memory.without_headers(print("heartbeat"), None, 0, 0).is_some());
    assert_eq!(memory.headers_missing(), 1);
    memory.returned(&envelope(7, 1));
    assert_eq!(memory.headers_missing(), 0);
    noted(&mut memory, "heartbeat", 8, 1);
    assert_eq!(memory.without_headers(print("heartbeat"), None, 0, 1), None);
    assert_eq!(memory.without_headers(print("heartbeat"), None, 0, 0), None, "nor does the first match stand");
}

#[test]
fn what_has_come_back_is_not_out_again_when_its_redelivery_is_seen_late() {
    let mut memory = memory();
    memory.returned(&envelope(7, 1));
    noted(&mut memory, "a", 7, 1);
    assert!(memory.is_empty());
    // Sent back from the DLQ it has the same id, and starts again at attempt 1.
    memory.note(print("a"), &Envelope { redrives: 1, ..envelope(7, 1) }, &at("l.redeliver", 5));
    assert_eq!(memory.len(), 1);
}

#[test]
fn a_later_attempt_takes_the_place_of_an_earlier_one() {
    let mut memory = memory();
    noted(&mut memory, "a", 7, 1);
    noted(&mut memory, "a", 7, 2);
    noted(&mut memory, "a", 7, 1);
    assert_eq!(memory.len(), 1);
    assert_eq!(memory.without_headers(print("a"), None, 0, 0), Some(envelope(7, 2)));
}

#[test]
fn a_topic_made_anew_may_hold_another_record_at_the_same_place() {
    let mut memory = memory();
    memory.note(print("a"), &envelope(7, 1), &at("l.redeliver", 0));
    memory.note(print("b"), &envelope(8, 1), &at("l.redeliver", 0));
    assert_eq!(memory.without_headers(print("b"), None, 0, 0), Some(envelope(8, 1)));
    assert!(memory.is_empty());
}

#[test]
fn where_most_come_without_headers_the_ladder_should_be_held() {
    let mut memory = memory();
    let back = |memory: &mut Memory, nth: i64, with_headers: bool| {
        noted(memory, &nth.to_string(), nth, 1);
        if with_headers {
            memory.returned(&envelope(nth, 1));
        } else {
            assert!(memory.without_headers(print(&nth.to_string()), None, 0, nth).is_some());
        }
        memory.judgement()
    };
    for nth in 0..19 {
        assert_eq!(back(&mut memory, nth, false), HeaderJudgement::Fine, "too few to tell");
    }
    assert_eq!(back(&mut memory, 19, false), HeaderJudgement::HoldAdvised);
    memory.restart_judgement();
    for nth in 20..60 {
        assert_eq!(back(&mut memory, nth, nth % 2 == 0), HeaderJudgement::Fine, "half are not most");
    }
    assert_eq!(back(&mut memory, 60, false), HeaderJudgement::HoldAdvised);
    for nth in 61..200 {
        back(&mut memory, nth, true);
    }
    assert_eq!(memory.judgement(), HeaderJudgement::Fine, "mended");
}

#[test]
fn coincidences_do_not_hold_a_ladder() {
    let mut memory = memory();
    for nth in 0..30 {
        noted(&mut memory, &nth.to_string(), nth, 1);
        assert!(memory.without_headers(print(&nth.to_string()), None, 0, nth).is_some());
    }
    assert_eq!(memory.judgement(), HeaderJudgement::HoldAdvised);
    for nth in 0..30 {
        memory.returned(&envelope(nth, 1));
    }
    assert_eq!((memory.judgement(), memory.headers_missing()), (HeaderJudgement::Fine, 0));
}

/// Heartbeats: copies of many outstanding records have the same content, and so have new records.
#[test]
fn records_that_look_alike_are_no_evidence_against_the_application() {
    let mut memory = memory();
    for nth in 0..60 {
        noted(&mut memory, "beat", nth, 1);
    }
    for offset in 0..40 {
        assert!(memory.without_headers(print("beat"), None, 0, offset).is_some(), "an application that drops all must not loop");
    }
    assert_eq!(memory.judgement(), HeaderJudgement::Fine);
    memory.returned(&envelope(50, 1));
    assert_eq!(memory.without_headers(print("beat"), None, 0, 100), None, "it copies headers, so this one is fresh");
    let counts_again = (0..200).position(|nth| memory.without_headers(print("beat"), None, 1, nth).is_some());
    assert_eq!(counts_again, Some(WINDOW), "nothing has come back with headers for so long that it may copy none any more");
}

#[test]
fn success_is_presumed_once_settled_and_committed_past() {
    let mut memory = memory();
    for nth in 0..4 {
        noted(&mut memory, "a", nth, 1);
    }
    let settled = Timestamp::from_millis(1_000) + SETTLE;
    let all = |_: &str, _: i32, _: Timestamp| true;
    // The records are at 1, 101, 201 and 301.
    let committed = |offset: i64| move |topic: &str, _: i32| (topic == "l.redeliver").then_some(offset);
    assert_eq!(
        memory.presume_done(settled - Duration::from_millis(1), SETTLE, committed(999), all).count(),
        0,
        "it may still come back"
    );
    assert_eq!(memory.presume_done(settled, SETTLE, |_, _| None, all).count(), 0, "nobody says that it was consumed");
    assert_eq!(memory.presume_done(settled, SETTLE, committed(102), all).count(), 2);
    assert_eq!(memory.presume_done(settled, SETTLE, committed(201), all).count(), 0, "committed up to it is not past it");
    assert_eq!(memory.presume_done(settled, SETTLE, committed(202), |_, _, _| false).count(), 0, "another router counts it");
    assert_eq!(memory.len(), 1, "and it is forgotten here nevertheless");
    assert_eq!(memory.without_headers(print("a"), None, 0, 0).map(|e| e.origin.offset), Some(3));
}

#[derive(Debug, Clone)]
enum Step {
    Note { nth: i64, attempts: u32 },
    Return { nth: i64, attempts: u32 },
    Without { content: i64, offset: i64 },
    Settle { committed: i64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..60_i64, 1..4_u32).prop_map(|(nth, attempts)| Step::Note { nth, attempts }),
        1 => (0..60_i64, 1..4_u32).prop_map(|(nth, attempts)| Step::Return { nth, attempts }),
        2 => (0..8_i64, 0..1_000_i64).prop_map(|(content, offset)| Step::Without { content, offset }),
        1 => (0..6_000_i64).prop_map(|committed| Step::Settle { committed }),
    ]
}

proptest! {
    /// The bound holds, the indices agree, no attempt is matched by two arrivals, and a return with headers after a match makes
    /// that content ambiguous.
    #[test]
    fn nothing_is_matched_twice_and_the_bound_holds(steps in proptest::collection::vec(any_step(), 0..300), limit in 1..40_usize) {
        let mut memory = Memory::new("l", limit);
        // Larger than the number of steps, so that no return is forgotten on the way.
        memory.matched = Bounded::new(1_000);
        memory.by_arrival = Bounded::new(1_000);
        memory.confirmed = Bounded::new(1_000);
        memory.ambiguous = Bounded::new(1_000);
        let mut matches: BTreeMap<(i64, u32), i64> = BTreeMap::new();
        let mut ambiguous = BTreeSet::new();
        for step in steps {
            match step {
                // Eight contents for sixty records.
                Step::Note { nth, attempts } => noted(&mut memory, &(nth % 8).to_string(), nth, attempts),
                Step::Return { nth, attempts } => {
                    memory.returned(&envelope(nth, attempts));
                    if matches.contains_key(&(nth, attempts)) {
                        ambiguous.insert(nth % 8);
                        matches.remove(&(nth, attempts));
                    }
                }
                Step::Without { content, offset } => {
                    let asked_before = memory.by_arrival.get(&(0, offset)).is_some();
                    if let Some(back) = memory.without_headers(print(&content.to_string()), None, 0, offset) {
                        let of = (back.origin.offset, back.attempts);
                        let arrival = *matches.entry(of).or_insert(offset);
                        prop_assert_eq!(arrival, offset, "{:?} is matched twice", of);
                        prop_assert_eq!(&back, &envelope(of.0, of.1));
                        prop_assert!(asked_before || !ambiguous.contains(&content));
                    }
                }
                Step::Settle { committed } => {
                    memory.presume_done(Timestamp::from_millis(i64::MAX), SETTLE, |_, _| Some(committed), |_, _, _| true);
                }
            }
            prop_assert!(memory.len() <= limit);
            prop_assert_eq!(memory.by_print.len(), memory.len());
            prop_assert_eq!(memory.by_place.len(), memory.len());
            prop_assert_eq!(memory.by_id.len(), memory.len());
            prop_assert_eq!(memory.headers_missing(), matches.len() as u64);
        }
    }

    /// The memory of returns is bounded too.
    #[test]
    fn what_has_come_back_is_forgotten_in_its_turn(returns in 0..200_i64, limit in 1..30_usize) {
        let mut memory = Memory::new("l", limit);
        for nth in 0..returns {
            noted(&mut memory, "same", nth, 1);
            memory.without_headers(print("same"), None, 0, nth);
            memory.returned(&envelope(nth, 1));
        }
        let past = limit.div_ceil(10);
        prop_assert!(memory.matched.values.len() <= past && memory.confirmed.values.len() <= past);
        prop_assert!(memory.by_arrival.values.len() <= past && memory.ambiguous.values.len() <= past);
        prop_assert!(memory.window.len() <= WINDOW);
    }
}
