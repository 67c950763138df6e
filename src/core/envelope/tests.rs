//! Envelope round trips, with hostile input.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn ladder() -> Ladder {
    Ladder::builder("l", "g").source("s").tiers(["5s", "1m"]).build().unwrap()
}

fn at() -> Coordinates {
    Coordinates { topic: "l.retry-5s".into(), partition: 1, offset: 9, timestamp: Timestamp::from_millis(1_000) }
}

fn full() -> Envelope {
    let origin = Coordinates { topic: "s".into(), partition: 3, offset: 42, timestamp: Timestamp::from_millis(7) };
    let error = ErrorInfo {
        class: "HTTP 503".into(),
        message: Some("come back later".into()),
        status: Some(503),
        stack: Some("at a\nat b".into()),
    };
    Envelope { tier: Some(1), ..Envelope::fresh("l", &origin).failed(&error, Timestamp::from_millis(900)) }
}

fn written(envelope: &Envelope) -> Headers {
    let mut headers = Headers::new();
    envelope.replace_in(&mut headers, Trim::Nothing);
    headers
}

fn read(headers: &Headers) -> EnvelopeReading {
    Envelope::read(&ladder(), &at(), headers.iter())
}

#[test]
fn what_is_written_reads_back() {
    let reading = read(&written(&full()));
    assert_eq!(reading, EnvelopeReading { envelope: full(), malformed: None, was_present: true });
}

#[test]
fn a_hop_replaces_and_never_appends() {
    let mut headers = Headers::new();
    headers.push("user", Some("1"));
    full().replace_in(&mut headers, Trim::Nothing);
    let once = headers.clone();
    full().replace_in(&mut headers, Trim::Nothing);
    assert_eq!(headers, once);
}

#[test]
fn another_ladders_envelope_does_not_count() {
    let mut envelope = full();
    envelope.ladder = "other".into();
    let reading = read(&written(&envelope));
    assert_eq!((reading.envelope.attempts, reading.malformed, reading.was_present), (0, None, false));
}

#[test]
fn what_is_malformed_is_never_trusted() {
    for (name, value) in [
        (ATTEMPTS, Some(b"two".as_slice())),
        (ATTEMPTS, Some(b"-1")),
        (ATTEMPTS, Some(b"+1")),
        (ATTEMPTS, Some(b"01")),
        (ATTEMPTS, Some(b"99999999999")),
        (ATTEMPTS, Some(b"")),
        (ATTEMPTS, None),
        (ORIGIN_TOPIC, Some(b"\xff\xfe")),
        (ORIGIN_TOPIC, Some(b"")),
        (ORIGIN_TOPIC, Some(&[b't'; 250])),
        (ID, Some(b"")),
        (ID, Some(&[b'i'; 513])),
        (V, Some(b"2")),
        (REASON, Some(b"bored")),
        (HISTORY, Some(b"1,2")),
        (HISTORY, Some(b"1,2,c,d")),
        (NOT_BEFORE, Some(b"99999999999999")),
    ] {
        let mut headers = written(&full());
        headers.remove_if(|n| n == name.as_bytes());
        headers.push(name, value);
        let reading = read(&headers);
        assert!(reading.malformed.is_some(), "{name} {value:?}");
        assert_eq!(reading.envelope, Envelope::fresh("l", &at()));
    }
    let mut doubled = written(&full());
    doubled.push(ATTEMPTS, Some("1"));
    assert_eq!(read(&doubled).malformed, Some(Malformed::Doubled(ATTEMPTS)));
    let mut missing = written(&full());
    missing.remove_if(|n| n == ID.as_bytes());
    assert_eq!(read(&missing).malformed, Some(Malformed::Missing(ID)));
}

#[test]
fn diagnostics_are_given_up_in_order() {
    let has = |trim, name: &str| full().headers(trim).iter().any(|(n, _)| *n == name);
    for (trim, stack, history, message) in [
        (Trim::Nothing, true, true, true),
        (Trim::Stack, false, true, true),
        (Trim::History, false, false, true),
        (Trim::Message, false, false, false),
    ] {
        assert_eq!((has(trim, ERROR_STACK), has(trim, HISTORY), has(trim, ERROR_MESSAGE)), (stack, history, message));
        assert!(has(trim, ERROR_CLASS));
    }
}

#[test]
fn history_and_texts_are_bounded() {
    let error =
        ErrorInfo {
            class: "é".repeat(1_000), message: Some("ü".repeat(5_000)), status: None, stack: Some("x".repeat(100_000))
        };
    let mut envelope = full();
    for i in 0..100 {
        envelope = envelope.failed(&error, Timestamp::from_millis(i));
    }
    let size: usize = envelope.headers(Trim::Nothing).iter().map(|(n, v)| n.len() + v.len()).sum();
    assert!(size < 16 * 1024, "within the header budget of 16 KiB: {size}");
    assert_eq!(envelope.history.len(), 16);
    assert!(read(&written(&envelope)).malformed.is_none());
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..20)
}

prop_compose! {
    fn any_envelope()(
        partition in 0..100_i32, offset in 0..i64::MAX, timestamp in -1..i64::MAX, attempts in 0..40_000_u32,
        tier in proptest::option::of(1..33_u32), not_before in proptest::option::of(0..80_000_000_i64),
        failures in proptest::collection::vec(("\\PC{0,80}", proptest::option::of("\\PC{0,1500}"), proptest::option::of(any::<u16>())), 0..20),
        reason in proptest::option::of(0..6_usize), redrives in any::<u32>(),
    ) -> Envelope {
        let origin = Coordinates { topic: "s.t_1-x".into(), partition, offset, timestamp: Timestamp::from_millis(timestamp) };
        let mut envelope = Envelope { attempts, ..Envelope::fresh("l", &origin) };
        for (class, message, status) in failures {
            let error = ErrorInfo { class, message, status, stack: None };
            envelope = envelope.failed(&error, Timestamp::from_millis(5));
        }
        envelope.tier = tier;
        envelope.not_before = not_before.map(Timestamp::from_millis);
        envelope.reason = reason.map(|i| Reason::ALL[i]);
        envelope.redrives = redrives;
        envelope
    }
}

proptest! {
    /// Users' headers keep their bytes, order, duplicates and nulls through any number of hops, and the envelope can be read
    /// again.
    #[test]
    fn headers_survive_a_round_trip(
        user in proptest::collection::vec((any_bytes(), proptest::option::of(any_bytes())), 0..20),
        first in any_envelope(), second in any_envelope(),
    ) {
        prop_assume!(user.iter().all(|(name, _)| !is_own(name)));
        let user = Headers::from(user);
        let mut headers = user.clone();
        first.replace_in(&mut headers, Trim::Nothing);
        second.replace_in(&mut headers, Trim::Nothing);
        let reading = read(&headers);
        prop_assert_eq!(&reading.malformed, &None);
        // Texts are cut when written, so compare what is written again.
        prop_assert_eq!(reading.envelope.headers(Trim::Nothing), second.headers(Trim::Nothing));
        headers.remove_if(is_own);
        prop_assert_eq!(headers, user);
    }

    /// No header causes a panic in reading, and nothing foreign counts as an attempt.
    #[test]
    fn hostile_headers_are_survived(
        hostile in proptest::collection::vec(
            (prop_oneof![any_bytes(), proptest::sample::select(NAMES.to_vec()).prop_map(|n| n.as_bytes().to_vec())],
             proptest::option::of(prop_oneof![any_bytes(), Just(b"l".to_vec()), Just(b"1".to_vec())])), 0..30),
    ) {
        let headers = Headers::from(hostile);
        let reading = read(&headers);
        if reading.malformed.is_some() || !reading.was_present {
            prop_assert_eq!(reading.envelope, Envelope::fresh("l", &at()));
        }
    }
}

#[test]
fn a_moment_within_the_limit_is_trusted() {
    let mut envelope = full();
    envelope.not_before = Some(at().timestamp + Duration::from_secs(24 * 3600));
    assert_eq!(read(&written(&envelope)).envelope.not_before, envelope.not_before);
}
