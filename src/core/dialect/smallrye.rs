//! `SmallRye` Reactive Messaging (Quarkus): `dead-letter-queue` and `delayed-retry-topic`.
//!
//! Each hop puts its headers before those of earlier hops, of either kind. So the first values are those of the last failure, and the last
//! place is the record's origin. Only the count of delayed retries is appended, so its last value is the newest. (Version 4.27.0, observed
//! over three hops and read in `KafkaDelayedRetryTopic` and `KafkaDeadLetterQueue`.)

use crate::core::dialect::{Foreign, ForeignHeaders, PartialCoordinates, text};
use crate::core::time::Timestamp;

const PREFIXES: [&str; 2] = ["dead-letter-", "delayed-retry-"];

pub(super) fn read(headers: &Foreign<'_>) -> ForeignHeaders {
    let origin = |name: &str| headers.under(&PREFIXES, name).next_back().and_then(text);
    let number = |name: &str| headers.text(name).and_then(|text| text.parse::<i64>().ok());
    let place = PartialCoordinates {
        topic: origin("topic"),
        partition: origin("partition").and_then(|text| text.parse().ok()),
        offset: origin("offset").and_then(|text| text.parse().ok()),
        timestamp: number("delayed-retry-original-timestamp").map(Timestamp::from_millis),
    };
    let last = LastFailure::of(headers);
    let text_of = |name: &str| last.value(name).and_then(text);
    ForeignHeaders {
        place,
        // It counts the retries, from 0 at the first failure.
        attempts: number("delayed-retry-count").and_then(|retries| u32::try_from(retries.checked_add(1)?).ok()),
        class: text_of("cause-class-name").or_else(|| text_of("exception-class-name")),
        message: text_of("reason"),
        stack: None,
    }
}

/// The headers of the last hop: they come first, and end where any of them appears a second time. Not every failure has a cause, and
/// the cause of another failure must not be used.
struct LastFailure<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> LastFailure<'a> {
    fn of(headers: &Foreign<'a>) -> Self {
        let mut told: Vec<(&[u8], &[u8])> = Vec::new();
        for (name, value) in &headers.0 {
            let rest = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix.as_bytes()));
            let Some(rest) = rest.filter(|rest| super::SMALLRYE.iter().any(|known| known.as_bytes() == *rest)) else { continue };
            if told.iter().any(|(known, _)| *known == rest) {
                break;
            }
            told.push((rest, value.unwrap_or_default()));
        }
        Self(told)
    }

    fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| *value)
    }
}
