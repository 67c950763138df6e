//! Inbox records: the router reads what the application meant.

use proptest::prelude::*;

use super::*;
use crate::core::failure::ErrorInfo;
use crate::core::headers::Header;
use crate::core::inbox::{self, Carried};
use crate::core::ladder::Mode;

fn ladder(redelivery: Redelivery) -> Ladder {
    let builder = Ladder::builder("l", "g").source("orders").source("l.orders").tiers(["5s", "1m"]).mode(Mode::Relay);
    builder.redelivery(redelivery).reaches_all_groups(true).build().unwrap()
}

fn at(topic: &str) -> Coordinates {
    Coordinates { topic: topic.into(), partition: 3, offset: 42, timestamp: Timestamp::from_millis(7) }
}

/// An envelope of two failed attempts.
fn envelope(ladder: &Ladder) -> Envelope {
    let error = ErrorInfo { class: "Old".into(), message: Some("old".into()), status: Some(500), stack: Some("old".into()) };
    let origin = Coordinates { offset: 5, ..at("orders") };
    let failed = Envelope::fresh(ladder.name(), &origin).failed(&error, Timestamp::from_millis(100));
    Envelope { tier: Some(2), ..failed.failed(&error, Timestamp::from_millis(200)) }
}

fn with_envelope(ladder: &Ladder, topic: &str) -> Consumed {
    let mut headers = Headers::new();
    headers.push("a", Some("1"));
    envelope(ladder).replace_in(&mut headers, Trim::Nothing);
    Consumed { at: at(topic), key: None, value: Some(Vec::new()), headers }
}

fn arrival(ladder: &Ladder, record: &Record) -> inbox::Arrival {
    let at = Coordinates { topic: ladder.inbox_topic(), partition: 0, offset: 900, timestamp: Timestamp::from_millis(9_000) };
    inbox::read(ladder, &at, record.headers.iter())
}

#[test]
fn a_redelivered_record_keeps_its_attempts_and_tells_the_new_error_alone() {
    let cases = [(Redelivery::Topic, "l.redeliver"), (Redelivery::Origin, "orders")];
    for (redelivery, topic) in cases {
        let ladder = ladder(redelivery);
        let record = ladder.relay(with_envelope(&ladder, topic), &Failure::retry("New", "new"));
        let arrival = arrival(&ladder, &record);
        assert_eq!((arrival.carried, arrival.malformed), (Carried::Envelope, None));
        assert_eq!((arrival.envelope.attempts, arrival.envelope.origin.offset), (2, 5));
        assert_eq!(arrival.envelope.id, envelope(&ladder).id);
        assert_eq!(arrival.failure, Failure::retry("New", "new"), "no status and no stack of the failure before");
    }
}

#[test]
fn elsewhere_an_envelope_is_a_copy_and_the_record_a_first_failure() {
    let cases = [(Redelivery::Topic, "orders"), (Redelivery::Origin, "l.orders"), (Redelivery::Topic, "payments")];
    for (redelivery, topic) in cases {
        let ladder = ladder(redelivery);
        let record = ladder.relay(with_envelope(&ladder, topic), &Failure::retry("New", "new"));
        let arrival = arrival(&ladder, &record);
        assert_eq!(arrival.carried, Carried::Introduction { whole: true });
        assert_eq!(arrival.envelope, Envelope::fresh("l", &at(topic)));
    }
}

#[test]
fn what_shall_follow_travels_and_does_not_stick() {
    let ladder = ladder(Redelivery::Topic);
    let mut consumed = with_envelope(&ladder, "l.redeliver");
    // From an application that copies what it produced before.
    consumed.headers.push(VERDICT, Some("reject"));
    consumed.headers.push(RETRY_AFTER, Some("77"));
    let failures = [
        Failure::retry("C", "m"),
        Failure::retry("C", "m").reject(),
        Failure::retry("C", "m").after(Duration::from_millis(1_500)),
        Failure::retry("C", "m").after(Duration::ZERO),
    ];
    for failure in failures {
        assert_eq!(arrival(&ladder, &ladder.relay(consumed.clone(), &failure)).failure, failure);
    }
    assert_eq!(whole_millis(Duration::from_micros(1_001)), 2);
    assert_eq!(whole_millis(Duration::MAX), i64::MAX);
}

#[test]
fn what_is_too_long_is_cut_also_at_the_first_failure() {
    let ladder = ladder(Redelivery::Topic);
    let stack = Some("s".repeat(20_000));
    let error = ErrorInfo { class: "C".into(), message: Some("m".repeat(5_000)), status: Some(418), stack };
    let failure = Failure::new(Disposition::Reject, error);
    for consumed in [with_envelope(&ladder, "l.redeliver"), with_envelope(&ladder, "orders")] {
        let record = ladder.relay(consumed, &failure);
        let length = |name| record.headers.last(name).map(<[u8]>::len);
        assert_eq!((length(ERROR_MESSAGE), length(ERROR_STACK), length(ERROR_STATUS)), (Some(1_024), Some(8 * 1_024), Some(3)));
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..12)
}

fn header() -> impl Strategy<Value = Header> {
    let own = prop_oneof![Just(LADDER), Just("kladder-attempts"), Just(ERROR_CLASS), Just(VERDICT), Just("kladder-future-name")];
    let name = prop_oneof![bytes(), Just(b"twice".to_vec()), own.prop_map(|name: &str| name.as_bytes().to_vec())];
    (name, prop::option::of(bytes())).prop_map(|(name, value)| Header { name, value })
}

proptest! {
    #[test]
    fn a_relayed_record_keeps_key_value_and_user_headers_and_has_each_of_ours_once(
        key in prop::option::of(bytes()),
        value in prop::option::of(bytes()),
        headers in prop::collection::vec(header(), 0..12),
        topic in prop_oneof![Just("orders"), Just("l.redeliver"), Just("l.orders")],
        enveloped in any::<bool>(),
        to_origin in any::<bool>(),
        class in ".{0,8}",
    ) {
        let ladder = ladder(if to_origin { Redelivery::Origin } else { Redelivery::Topic });
        let mut headers: Headers = headers.into_iter().collect();
        if enveloped {
            envelope(&ladder).replace_in(&mut headers, Trim::Nothing);
        }
        let user = |headers: &Headers| {
            let owned = headers.iter().filter(|(name, _)| !is_own(name));
            owned.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect::<Vec<_>>()
        };
        let consumed = Consumed { at: at(topic), key: key.clone(), value: value.clone(), headers: headers.clone() };
        let record = ladder.relay(consumed, &Failure::retry(class, "m").after(Duration::from_secs(3)));
        prop_assert_eq!(&record.topic, "l.inbox");
        prop_assert_eq!((&record.key, &record.value), (&key, &value));
        prop_assert_eq!(user(&record.headers), user(&headers));
        let mut own: Vec<&[u8]> = record.headers.iter().map(|(name, _)| name).filter(|name| is_own(name)).collect();
        let count = own.len();
        own.sort_unstable();
        own.dedup();
        prop_assert_eq!(own.len(), count);
        let arrival = arrival(&ladder, &record);
        prop_assert_eq!(arrival.malformed, None);
        let back = if to_origin { "orders" } else { "l.redeliver" };
        let attempts = if enveloped && topic == back { 2 } else { 0 };
        prop_assert_eq!(arrival.envelope.attempts, attempts);
        prop_assert_eq!(arrival.failure.disposition(), Disposition::Retry { after: Some(Duration::from_secs(3)) });
    }
}
