//! Tests of the state records.

use proptest::prelude::*;

use super::*;

fn hold(held: bool) -> HoldRecord {
    HoldRecord {
        held,
        by: "anna@ops-1".to_owned(),
        at: Timestamp::from_millis(1_700_000_000_000),
        why: Some("a \"new\" one".into()),
    }
}

fn state(records: &[(&str, Option<&str>)]) -> LadderState {
    let mut state = LadderState::default();
    for (key, value) in records {
        state.apply(Some(key.as_bytes()), value.map(str::as_bytes));
    }
    state
}

#[test]
fn the_format_is_frozen() {
    assert_eq!(hold(true).to_value(), r#"{"v":1,"held":true,"by":"anna@ops-1","at":1700000000000,"why":"a \"new\" one"}"#);
    let owner = OwnerRecord { group: "billing".to_owned(), at: Timestamp::from_millis(7) };
    assert_eq!(owner.to_value(), r#"{"v":1,"group":"billing","at":7}"#);
    let at = Timestamp::from_millis(7);
    let breaker = DlqBreakerRecord { until: Some(Timestamp::from_millis(9)), by: "worker a of b".to_owned(), at, why: None };
    assert_eq!(breaker.to_value(), r#"{"v":1,"until":9,"by":"worker a of b","at":7,"why":null}"#);
    assert_eq!(DlqBreakerRecord::read(breaker.to_value().as_bytes()), Ok(breaker));
    assert_eq!(hold(true).to_string(), "by anna@ops-1: a \"new\" one");
}

#[test]
fn the_last_word_counts() {
    let (held, released) = (hold(true).to_value(), hold(false).to_value());
    assert!(!state(&[]).is_held());
    assert!(state(&[("hold", Some(&held))]).is_held());
    assert!(!state(&[("hold", Some(&held)), ("hold", Some(&released))]).is_held());
    assert!(!state(&[("hold", Some(&held)), ("hold", None)]).is_held());
    assert!(state(&[("hold", Some(&released)), ("hold", Some(&held))]).is_held());
}

#[test]
fn dead_letters_are_held_until_a_time_or_a_later_word() {
    let at = Timestamp::from_millis;
    let record = |until: Option<i64>| DlqBreakerRecord { until: until.map(at), by: "a".into(), at: at(1), why: None }.to_value();
    let held = |values: &[Option<&str>], now: i64| {
        let records: Vec<_> = values.iter().map(|value| (DLQ_BREAKER_KEY, *value)).collect();
        state(&records).dead_letters_held_until(at(now)).is_some()
    };
    let (open, let_go) = (record(Some(1_000)), record(None));
    assert!(held(&[Some(&open)], 999) && !held(&[Some(&open)], 1_000));
    assert!(!held(&[Some(&open), Some(&let_go)], 1) && !held(&[Some(&open), None], 1));
    assert!(held(&[Some(&let_go), Some(&open)], 1));
    assert!(!held(&[Some(r#"{"v":2}"#)], 1), "an unreadable record holds nothing");
}

#[test]
fn accepted_dead_letters_are_not_held_by_a_worker_that_has_not_read_it_yet() {
    let at = Timestamp::from_millis;
    let record = |until: i64| DlqBreakerRecord { until: Some(at(until)), by: "a".into(), at: at(1), why: None }.to_value();
    let (accepted, held) = (record(500), record(1_000));
    for order in [
        [(DLQ_ACCEPTED_KEY, Some(&*accepted)), (DLQ_BREAKER_KEY, Some(&*held))],
        [(DLQ_BREAKER_KEY, Some(&*held)), (DLQ_ACCEPTED_KEY, Some(&*accepted))],
    ] {
        let state = state(&order);
        assert!(state.dead_letters_accepted_until(at(499)).is_some() && state.dead_letters_held_until(at(499)).is_none());
        assert!(state.dead_letters_accepted_until(at(500)).is_none() && state.dead_letters_held_until(at(500)).is_some());
    }
}

#[test]
fn a_handler_is_down_until_its_worker_says_otherwise() {
    let record = HandlerDownRecord { at: Timestamp::from_millis(7), why: "6 errors in a row".to_owned() };
    let value = record.to_value();
    assert_eq!(value, r#"{"v":1,"at":7,"why":"6 errors in a row"}"#);
    let down = |records: &[(&str, Option<&str>)]| state(records).handlers_down.into_keys().collect::<Vec<_>>();
    assert_eq!(down(&[("handler-down/a", Some(&value)), ("handler-down/b", Some(&value))]), ["a", "b"]);
    assert!(down(&[("handler-down/a", Some(&value)), ("handler-down/a", None)]).is_empty());
    // An unreadable record means the same.
    assert_eq!(down(&[("handler-down/a", Some("nonsense"))]), ["a"]);
}

#[test]
fn a_hold_that_cannot_be_read_is_a_hold_and_says_why() {
    let newer = r#"{"v":2,"held":false,"mode":"soft"}"#;
    let found = state(&[("hold", Some(newer))]);
    assert!(found.is_held());
    assert_eq!(found.hold, StateValue::Unreadable(StateError::Version(2)));
    for value in ["", "true", "{}", r#"{"v":1}"#, r#"{"v":1,"held":true,"by":"a","at":1,"why":null,"more":1}"#, "\u{0}"] {
        let found = state(&[("hold", Some(value))]);
        assert!(found.is_held(), "{value}");
        assert!(matches!(found.hold, StateValue::Unreadable(StateError::Malformed(_))), "{value}");
    }
    let long = format!("{}\n", "x".repeat(1_000));
    let StateValue::Unreadable(error) = state(&[("hold", Some(&long))]).hold else { panic!("it was read") };
    assert!(error.to_string().len() < 120 && !error.to_string().contains('\n'), "{error}");
}

#[test]
fn what_stands_under_other_keys_is_somebody_elses() {
    let held = hold(true).to_value();
    let mut state = LadderState::default();
    for key in ["clock/worker-1", "hold/", "Hold", "hold2", "dead/0/1", ""] {
        assert!(!state.apply(Some(key.as_bytes()), Some(held.as_bytes())), "{key}");
    }
    assert!(!state.apply(None, Some(held.as_bytes())));
    assert_eq!(state, LadderState::default());
}

#[test]
fn an_owner_is_another_only_when_it_is_known_to_be() {
    let owner = OwnerRecord { group: "billing".to_owned(), at: Timestamp::from_millis(7) }.to_value();
    assert_eq!(state(&[("owner", Some(&owner))]).other_owner("billing"), None);
    assert_eq!(state(&[("owner", Some(&owner))]).other_owner("shipping"), Some("billing"));
    assert_eq!(state(&[]).other_owner("shipping"), None);
    assert_eq!(state(&[("owner", Some("nonsense"))]).other_owner("shipping"), None);
}

proptest! {
    #[test]
    fn what_is_written_is_read(held: bool, by in ".*", at: i64, why in proptest::option::of(".*"), group in ".*") {
        let at = Timestamp::from_millis(at);
        let hold = HoldRecord { held, by, at, why };
        prop_assert_eq!(HoldRecord::read(hold.to_value().as_bytes()), Ok(hold.clone()));
        let owner = OwnerRecord { group, at };
        prop_assert_eq!(OwnerRecord::read(owner.to_value().as_bytes()), Ok(owner.clone()));
        // Neither can be read as the other.
        prop_assert!(OwnerRecord::read(hold.to_value().as_bytes()).is_err());
        prop_assert!(HoldRecord::read(owner.to_value().as_bytes()).is_err());
    }

    #[test]
    fn no_bytes_crash_the_reader(value in proptest::collection::vec(any::<u8>(), 0..80), json in "[{}\\[\\]\":,a-z0-9]{0,40}") {
        for bytes in [value.as_slice(), json.as_bytes()] {
            let mut state = LadderState::default();
            prop_assert!(state.apply(Some(b"hold"), Some(bytes)));
            prop_assert_eq!(state.is_held(), HoldRecord::read(bytes).map_or(true, |hold| hold.held));
        }
    }
}
