//! What makes a ladder, and what does not.

use super::*;
use crate::core::rules::Rule;

fn ladder() -> Ladder {
    Ladder::builder("billing", "billing").source("orders").tiers(["5s", "1m", "10m"]).build().unwrap()
}

#[test]
fn attempts_default_to_one_more_than_tiers() {
    assert_eq!(ladder().attempts(), 4);
}

#[test]
fn attempts_earn_their_tier_and_then_repeat_the_last() {
    let earned: Vec<u32> = (1..=6).map(|n| ladder().tier_after(n).number()).collect();
    assert_eq!(earned, [1, 2, 3, 3, 3, 3]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let errors = Ladder::builder("Billing", "").source("a b").tiers(["5s", "5s", "soon", "1s"]).attempts(0).build().unwrap_err();
    assert_eq!(errors.0.len(), 7, "{errors}");
}

#[test]
fn a_source_cannot_be_a_topic_of_the_ladder() {
    let errors = Ladder::builder("b", "g").source("b.dlq").tiers(["5s"]).build().unwrap_err();
    assert_eq!(errors.0, [LadderError::SourceIsOwn("b.dlq".into())]);
}

fn relay() -> LadderBuilder {
    Ladder::builder("b", "g").source("orders").source("b.orders").tiers(["5s"]).mode(Mode::Relay)
}

#[test]
fn redelivery_to_the_origin_needs_relay_and_consent() {
    let origin = relay().redelivery(Redelivery::Origin);
    assert_eq!(origin.clone().build().unwrap_err().0, [LadderError::OriginWithoutConsent]);
    let consented = origin.reaches_all_groups(true);
    assert_eq!(consented.clone().build().unwrap().redelivery(), Redelivery::Origin);
    let pushed = consented.mode(Mode::Push).settle(Duration::from_secs(1)).build().unwrap_err();
    assert_eq!(pushed.0, [LadderError::OriginWithoutRelay, LadderError::SettleWithoutRelay]);
    assert_eq!(relay().build().unwrap().settle(), Duration::from_secs(120));
}

fn ruled(then: Then) -> Rule {
    let when = crate::core::rules::When { status: vec!["404".parse().unwrap()], ..Default::default() };
    Rule { name: None, when, then }
}

#[test]
fn mistakes_in_rules_are_told_by_their_place() {
    let reject = |dlq: &str| ruled(Then::Reject { dlq: Some(dlq.into()) });
    let retry = |from_tier: u32, attempts: Option<u32>| ruled(Then::Retry { from_tier, attempts });
    let named = |name: &str| Rule { name: Some(name.into()), ..ruled(Then::Done) };
    let empty = Rule { when: crate::core::rules::When::default(), ..ruled(Then::Done) };
    let rules = [
        reject("parse"),
        reject("A b"),
        retry(1, None),
        retry(2, Some(0)),
        named("x"),
        named("x"),
        named("7"),
        named("X y"),
        empty,
    ];
    let builder = rules.into_iter().fold(relay(), LadderBuilder::rule);
    let told = [
        (1, RuleError::Dlq),
        (3, RuleError::Tier(1)),
        (3, RuleError::Attempts),
        (5, RuleError::NameTwice),
        (6, RuleError::Name),
        (7, RuleError::Name),
        (8, RuleError::HoldsForAll),
    ];
    assert_eq!(builder.build().unwrap_err().0, told.map(|(index, error)| LadderError::Rule(index, error)));
}

#[test]
fn rules_may_have_dead_letter_topics_of_their_own() {
    let own = |name: &str| ruled(Then::Reject { dlq: Some(name.into()) });
    let ladder = relay().rule(own("parse")).rule(own("gone")).rule(own("parse")).build().unwrap();
    assert_eq!(ladder.dlq_topics(), ["b.dlq", "b.dlq-parse", "b.dlq-gone"]);
    assert!(ladder.dlq_topics().iter().all(|topic| ladder.owns_topic(topic)));
    assert_eq!(ladder.rule_name(1), "2");
}

#[test]
fn only_a_source_is_an_origin() {
    let ladder = relay().build().unwrap();
    let of = |topic: &str| {
        let timestamp = crate::core::time::Timestamp::default();
        ladder.origin_of(&Coordinates { topic: topic.into(), partition: 7, offset: 0, timestamp })
    };
    assert_eq!(of("orders"), Ok(0));
    assert_eq!(of("b.orders"), Ok(1));
    for own in ["b.inbox", "b.retry-5s", "b.retry-1h", "b.dlq", "b.redeliver", "b.state"] {
        assert_eq!(of(own), Err(NoOrigin::OwnTopic(own.into())));
    }
    assert_eq!(of("payments"), Err(NoOrigin::NotASource("payments".into())));
    assert_eq!(of(""), Err(NoOrigin::NotASource(String::new())));
}
