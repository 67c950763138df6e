//! Which records fail, and what a request says about its record.

use super::*;

fn plan() -> StubPlan {
    StubPlan { fail_rate: 0.3, fail_times: None, reject_rate: 0.1, status: StatusCode::SERVICE_UNAVAILABLE, seed: 0 }
}

fn ids() -> impl Iterator<Item = String> {
    (0..30_000).map(|i| format!("billing/orders/0/{i}/1700000000000"))
}

#[test]
fn shares_are_kept_and_failures_split_in_thirds() {
    let plan = plan();
    let share = |attempt: u32, outcome: StubOutcome| {
        let count = ids().filter(|id| plan.outcome(id, attempt) == outcome).count();
        f64::from(u32::try_from(count).unwrap()) / 30_000.0
    };
    for (attempt, outcome, expected) in [
        (1, StubOutcome::Reject, 0.1),
        (4, StubOutcome::Reject, 0.1),
        (1, StubOutcome::Fail, 0.3),
        (2, StubOutcome::Fail, 0.2),
        (3, StubOutcome::Fail, 0.1),
        (40, StubOutcome::Fail, 0.1),
        (1, StubOutcome::Done, 0.6),
    ] {
        let got = share(attempt, outcome);
        assert!((got - expected).abs() < 0.01, "attempt {attempt} {outcome:?}: {got}");
    }
}

#[test]
fn verdicts_are_frozen() {
    let plan = plan();
    let fates: String = ids()
        .take(24)
        .map(|id| match (plan.outcome(&id, 1), plan.outcome(&id, 2), plan.outcome(&id, 3)) {
            (StubOutcome::Done, ..) => '.',
            (StubOutcome::Reject, ..) => 'r',
            (_, StubOutcome::Done, _) => '1',
            (_, _, StubOutcome::Done) => '2',
            _ => 'x',
        })
        .collect();
    assert_eq!(fates, ".x1.....1.r.2x...x..x.12");
}

#[test]
fn another_seed_lets_other_records_fail() {
    let other = StubPlan { seed: 1, ..plan() };
    let differ = ids().filter(|id| plan().outcome(id, 1) != other.outcome(id, 1)).count();
    assert!(differ > 10_000, "{differ}");
}

#[test]
fn the_number_of_failures_can_be_fixed() {
    let plan = StubPlan { fail_rate: 1.0, reject_rate: 0.0, fail_times: Some(2), ..plan() };
    let outcomes: Vec<StubOutcome> = (1..=4).map(|attempt| plan.outcome("a", attempt)).collect();
    assert_eq!(outcomes, [StubOutcome::Fail, StubOutcome::Fail, StubOutcome::Done, StubOutcome::Done]);
    assert_eq!(plan.outcome("", 1), StubOutcome::Done, "without a key");
}

#[test]
fn a_request_is_recorded_with_what_it_tells() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("idempotency-key", r#""a\"b\\c""#),
        ("kladder-attempt", "2"),
        ("kladder-topic", "orders"),
        ("kladder-partition", "3"),
        ("kladder-offset", "42"),
        ("kladder-key", "AAc="),
        ("kladder-key-encoding", "base64"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let seen = StubRequest::from(&headers);
    assert_eq!(seen.line(StatusCode::OK), "attempt 2  orders/3@42  200\n");
    let json: serde_json::Value = serde_json::from_str(&seen.json(StatusCode::OK, 5)).unwrap();
    let expected = serde_json::json!({
        "id": "a\"b\\c", "attempt": 2, "status": 200, "time": 5, "topic": "orders", "partition": 3, "offset": 42,
        "key": "AAc=", "key_encoding": "base64",
    });
    assert_eq!(json, expected);
}
