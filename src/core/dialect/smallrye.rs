//! `SmallRye` Reactive Messaging (Quarkus): `dead-letter-queue` and `delayed-retry-topic`. On repeated hops the values of before stand
//! behind the new ones, so here the first counts.

use crate::core::dialect::{Foreign, Place, Told};
use crate::core::time::Timestamp;

pub(super) fn read(headers: &Foreign<'_>) -> Told {
    // What was tried again with a delay, and then died, has both: the dead letter is the later one.
    let prefix = if headers.first("dead-letter-reason").is_some() || headers.first("dead-letter-topic").is_some() {
        "dead-letter-"
    } else {
        "delayed-retry-"
    };
    let text = |name: &str| headers.first_text(&format!("{prefix}{name}"));
    let number = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
    let delayed = |name: &str| headers.first_text(&format!("delayed-retry-{name}"));
    // A delayed retry keeps the topic in which it first stood, which a dead letter after it does not: it names the retry topic.
    let place = Place {
        topic: delayed("topic").or_else(|| text("topic")),
        partition: delayed("partition").or_else(|| text("partition")).and_then(|text| text.parse().ok()),
        offset: delayed("offset").or_else(|| text("offset")).and_then(|text| text.parse().ok()),
        timestamp: number("original-timestamp").map(Timestamp::from_millis),
    };
    Told {
        place,
        attempts: delayed("count").and_then(|text| text.parse().ok()),
        class: text("cause-class-name").or_else(|| text("exception-class-name")),
        message: text("reason"),
        stack: None,
    }
}
