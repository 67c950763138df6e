//! What applications put into the inbox, careless ones included.

use proptest::prelude::*;

use super::*;
use crate::core::envelope::{HISTORY, Trim};
use crate::core::headers::Headers;
use crate::core::ladder::Mode;

fn ladder() -> Ladder {
    Ladder::builder("l", "g").source("s").tiers(["5s", "1m"]).mode(Mode::Relay).build().unwrap()
}

fn at() -> Coordinates {
    Coordinates { topic: "l.inbox".into(), partition: 1, offset: 9, timestamp: Timestamp::from_millis(1_000) }
}

fn origin() -> Coordinates {
    Coordinates { topic: "s".into(), partition: 3, offset: 42, timestamp: Timestamp::from_millis(7) }
}

fn error(class: &str) -> ErrorInfo {
    ErrorInfo { class: class.into(), message: Some("old".into()), status: Some(503), stack: Some("old stack".into()) }
}

/// The record redelivered after its first failure, with a header of the application.
fn redelivered(name: &str) -> Headers {
    let mut headers = Headers::new();
    headers.push("user", Some("1"));
    let envelope =
        Envelope { tier: Some(1), ..Envelope::fresh(name, &origin()).failed(&error("Old"), Timestamp::from_millis(900)) };
    envelope.replace_in(&mut headers, Trim::Nothing);
    headers
}

fn with(mut headers: Headers, more: &[(&str, &str)]) -> Headers {
    for (name, value) in more {
        headers.push(*name, Some(*value));
    }
    headers
}

fn replaced(mut headers: Headers, more: &[(&str, &str)]) -> Headers {
    headers.remove_if(|name| more.iter().any(|(n, _)| n.as_bytes() == name));
    with(headers, more)
}

fn arrival(headers: &Headers) -> Arrival {
    read(&ladder(), &at(), headers.iter())
}

fn said(arrival: &Arrival) -> (&str, Option<&str>, Option<u16>, Option<&str>) {
    let error = arrival.failure.error();
    (error.class.as_str(), error.message.as_deref(), error.status, error.stack.as_deref())
}

#[test]
fn a_copied_record_goes_on_from_where_it_was() {
    let arrival = arrival(&redelivered("l"));
    assert_eq!((arrival.carried, arrival.malformed), (Carried::Envelope, None));
    assert_eq!((arrival.envelope.attempts, arrival.envelope.history.len()), (1, 1));
    assert_eq!(arrival.envelope.origin, origin());
    assert_eq!(arrival.failure.error().class, "Old", "nothing new was said");
}

#[test]
fn a_record_without_a_word_is_a_first_failure_of_unknown_class() {
    let arrival = arrival(&Headers::new());
    assert_eq!(arrival.envelope, Envelope::fresh("l", &at()));
    assert_eq!((arrival.carried, &arrival.malformed), (Carried::Nothing, &None));
    assert_eq!(said(&arrival), ("unknown", None, None, None));
    assert_eq!(arrival.failure.disposition(), Disposition::Retry { after: None });
}

#[test]
fn what_is_appended_or_replaced_is_what_failed_now() {
    let news = [(ERROR_CLASS, "New"), (ERROR_MESSAGE, "new")];
    let appended = arrival(&with(redelivered("l"), &news));
    assert_eq!(said(&appended), ("New", Some("new"), None, None), "the old stack and status are of the old failure");
    let replaced = arrival(&replaced(redelivered("l"), &news));
    assert_eq!((said(&replaced).0, said(&replaced).1), ("New", Some("new")));
    let all = [(ERROR_CLASS, "New"), (ERROR_MESSAGE, "new"), (ERROR_STATUS, "404"), (ERROR_STACK, "at x")];
    let all = arrival(&with(with(redelivered("l"), &news), &all));
    assert_eq!(said(&all), ("New", Some("new"), Some(404), Some("at x")));
    for arrival in [appended, replaced, all] {
        assert_eq!((arrival.envelope.attempts, arrival.carried, arrival.malformed), (1, Carried::Envelope, None));
    }
    let fresh = arrival(&with(Headers::new(), &news));
    assert_eq!((said(&fresh), fresh.carried), (("New", Some("new"), None, None), Carried::Nothing));
}

#[test]
fn under_another_ladders_headers_only_what_was_appended_counts() {
    let copied = arrival(&redelivered("other"));
    assert_eq!((said(&copied), copied.carried), (("unknown", None, None, None), Carried::Nothing));
    let appended = arrival(&with(redelivered("other"), &[(ERROR_CLASS, "New")]));
    assert_eq!(said(&appended), ("New", None, None, None));
    for arrival in [copied, appended] {
        assert_eq!(arrival.envelope, Envelope::fresh("l", &at()));
        assert_eq!(arrival.malformed, None);
    }
}

#[test]
fn the_application_decides() {
    for name in ["l", "other"] {
        let rejected = arrival(&with(redelivered(name), &[(VERDICT, "reject")]));
        assert_eq!((rejected.failure.disposition(), rejected.malformed), (Disposition::Reject, None));
        let later = arrival(&with(redelivered(name), &[(RETRY_AFTER, "90000")]));
        let after = Some(Duration::from_secs(90));
        assert_eq!((later.failure.disposition(), later.malformed), (Disposition::Retry { after }, None));
    }
    for (name, value) in [
        (VERDICT, "perhaps"),
        (VERDICT, ""),
        (RETRY_AFTER, "soon"),
        (RETRY_AFTER, "-1"),
        (RETRY_AFTER, "1.5"),
        (ERROR_STATUS, "99999"),
    ] {
        let doubtful = arrival(&with(redelivered("l"), &[(name, value)]));
        assert_eq!(doubtful.malformed, Some(Malformed::Value(name)), "{value}");
        assert_eq!(doubtful.failure.disposition(), Disposition::Retry { after: None });
        assert_eq!(
            (doubtful.envelope.attempts, doubtful.carried),
            (1, Carried::Envelope),
            "what it says of itself burns nothing"
        );
    }
}

#[test]
fn what_was_decided_never_goes_onto_a_tier() {
    let mut headers = with(redelivered("l"), &[(VERDICT, "reject"), (RETRY_AFTER, "1")]);
    arrival(&headers).envelope.replace_in(&mut headers, Trim::Nothing);
    assert!(headers.last(VERDICT).is_none() && headers.last(RETRY_AFTER).is_none());
    assert_eq!(headers.last("user"), Some(b"1".as_slice()));
}

#[test]
fn an_error_in_another_encoding_costs_no_attempts() {
    let mut headers = redelivered("l");
    headers.push(ERROR_MESSAGE, Some(b"Stra\xdfe".as_slice()));
    let arrival = arrival(&headers);
    assert_eq!(said(&arrival).1, Some("Stra\u{fffd}e"));
    assert_eq!((arrival.envelope.attempts, arrival.malformed), (1, Some(Malformed::Value(ERROR_MESSAGE))));
}

#[test]
fn a_first_failure_may_say_where_it_came_from() {
    let told = [
        (LADDER, "l"),
        (ORIGIN_TOPIC, "s"),
        (ORIGIN_PARTITION, "3"),
        (ORIGIN_OFFSET, "42"),
        (ORIGIN_TIMESTAMP, "7"),
        (ERROR_CLASS, "New"),
    ];
    let whole = arrival(&with(Headers::new(), &told));
    assert_eq!(whole.envelope, Envelope::fresh("l", &origin()));
    assert_eq!((whole.named_origin(), whole.failure.error().class.as_str()), (Some(&origin()), "New"));

    let part = arrival(&with(Headers::new(), &told[..3]));
    assert_eq!((part.carried, part.named_origin()), (Carried::Introduction { whole: false }, None));
    let part = part.envelope;
    assert_eq!(part.origin, Coordinates { topic: "s".into(), partition: 3, ..at() });
    assert_eq!(part.id, Envelope::fresh("l", &at()).id, "half an origin makes no id");
    let none = arrival(&with(Headers::new(), &told[..1]));
    assert_eq!((none.envelope, none.malformed), (Envelope::fresh("l", &at()), None));
}

#[test]
fn an_origin_that_cannot_be_read_is_none() {
    for (more, malformed) in [
        (vec![(ORIGIN_PARTITION, "3")], Malformed::Missing(ORIGIN_TOPIC)),
        (vec![(ORIGIN_TOPIC, "")], Malformed::Value(ORIGIN_TOPIC)),
        (vec![(ORIGIN_TOPIC, "s"), (ORIGIN_PARTITION, "three")], Malformed::Value(ORIGIN_PARTITION)),
        (vec![(ORIGIN_TOPIC, "s"), (ORIGIN_TOPIC, "t")], Malformed::Doubled(ORIGIN_TOPIC)),
        (vec![(LADDER, "l"), (ORIGIN_TOPIC, "s")], Malformed::Doubled(LADDER)),
    ] {
        let arrival = arrival(&with(with(Headers::new(), &[(LADDER, "l")]), &more));
        assert_eq!((arrival.envelope, arrival.malformed), (Envelope::fresh("l", &at()), Some(malformed)));
        assert_eq!(arrival.carried, Carried::Nothing);
    }
}

#[test]
fn all_other_headers_are_read_as_strictly_as_anywhere() {
    for (name, value) in [(ATTEMPTS, "1"), (HISTORY, "1,1,a"), (ORIGIN_TOPIC, "s"), (ID, "x")] {
        let doubled = arrival(&with(redelivered("l"), &[(name, value)]));
        assert_eq!((doubled.envelope, doubled.malformed), (Envelope::fresh("l", &at()), Some(Malformed::Doubled(name))));
        assert_eq!(doubled.carried, Carried::Nothing);
    }
    let garbled = arrival(&with(replaced(redelivered("l"), &[(ATTEMPTS, "many")]), &[(ERROR_CLASS, "New")]));
    assert_eq!((garbled.malformed, garbled.envelope.attempts), (Some(Malformed::Value(ATTEMPTS)), 0));
    assert_eq!(garbled.failure.error().class, "New");
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..20)
}

proptest! {
    /// Whatever the headers are, reading ends, and only an envelope or an introduction of this ladder makes a record other
    /// than fresh.
    #[test]
    fn hostile_headers_are_survived(
        hostile in proptest::collection::vec(
            (prop_oneof![
                any_bytes(),
                proptest::sample::select(vec![LADDER, V, ID, ATTEMPTS, ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET, HISTORY,
                    ERROR_CLASS, ERROR_MESSAGE, ERROR_STATUS, ERROR_STACK, VERDICT, RETRY_AFTER]).prop_map(|n| n.as_bytes().to_vec())],
             proptest::option::of(prop_oneof![any_bytes(), Just(b"l".to_vec()), Just(b"1".to_vec()), Just(b"reject".to_vec())])),
            0..30),
        on_top in any::<bool>(),
    ) {
        let mut headers = if on_top { redelivered("l") } else { Headers::new() };
        for (name, value) in hostile {
            headers.push(name, value);
        }
        let arrival = arrival(&headers);
        if arrival.carried == Carried::Nothing {
            prop_assert_eq!(&arrival.envelope, &Envelope::fresh("l", &at()));
        }
        prop_assert!(!arrival.failure.error().class.is_empty());
        prop_assert!(!arrival.failure.is_unsent() && !arrival.failure.is_connection_lost());
    }

    /// Appending error headers never costs an attempt.
    #[test]
    fn error_headers_never_cost_an_attempt(
        more in proptest::collection::vec((proptest::sample::select(ERROR.to_vec()), proptest::option::of(any_bytes())), 0..10),
    ) {
        let mut headers = redelivered("l");
        for (name, value) in more {
            headers.push(name, value);
        }
        let arrival = arrival(&headers);
        prop_assert_eq!((arrival.envelope.attempts, arrival.carried), (1, Carried::Envelope));
    }
}
