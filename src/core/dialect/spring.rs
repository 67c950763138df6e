//! Spring Kafka: `DeadLetterPublishingRecoverer` (`kafka_dlt-…`) and retry topics (`kafka_original-…`, `kafka_exception-…`,
//! `retry_topic-…`), as `KafkaHeaders` and `RetryTopicHeaders` name them; and the Kafka binder of Spring Cloud Stream (`x-original-…`,
//! `x-exception-…`), as its `KafkaMessageChannelBinder` does.

use crate::core::dialect::{Foreign, ForeignHeaders, PartialCoordinates};
use crate::core::time::Timestamp;

pub(super) fn read(headers: &Foreign<'_>) -> ForeignHeaders {
    // Retry topics keep the record's origin under these names, also in their dead-letter topic.
    let has = |name: &str| headers.last(name).is_some();
    let (original, exception) = if has("kafka_original-topic") {
        ("kafka_original-", "kafka_exception-")
    } else if !has("kafka_dlt-original-topic") && (has("x-original-topic") || has("x-exception-fqcn")) {
        ("x-original-", "x-exception-")
    } else {
        ("kafka_dlt-original-", "kafka_dlt-exception-")
    };
    let of = |prefix: &str, name: &str| format!("{prefix}{name}");
    let place = PartialCoordinates {
        topic: headers.text(&of(original, "topic")),
        partition: headers.last(&of(original, "partition")).and_then(int32),
        offset: headers.last(&of(original, "offset")).and_then(int64),
        timestamp: headers.last(&of(original, "timestamp")).and_then(int64).map(Timestamp::from_millis),
    };
    // The exception is usually the listener container's own and says nothing; its cause is the application's.
    let class = headers.text(&of(exception, "cause-fqcn")).or_else(|| headers.text(&of(exception, "fqcn")));
    // Deserialisation failures of key or value have their own headers.
    let class = class.or_else(|| headers.text("kafka_dlt-key-exception-fqcn"));
    let message = headers.text(&of(exception, "message")).or_else(|| headers.text("kafka_dlt-key-exception-message"));
    let stack = headers.text(&of(exception, "stacktrace")).or_else(|| headers.text("kafka_dlt-key-exception-stacktrace"));
    ForeignHeaders { place, attempts: headers.last("retry_topic-attempts").and_then(attempts), class, message, stack }
}

fn int32(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(binary(bytes)?.try_into().ok()?))
}

fn int64(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(binary(bytes)?.try_into().ok()?))
}

/// Some producers of these headers write numbers as text. Read as binary, digits would be numbers that no partition or offset has.
fn binary(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.iter().all(u8::is_ascii_digit)).then_some(bytes)
}

/// Four bytes, or one by an older version; 1 to 32,767.
fn attempts(bytes: &[u8]) -> Option<u32> {
    let number = if let [one] = bytes { i32::from(*one) } else { int32(bytes)? };
    u32::try_from(number).ok().filter(|n| (1..=32_767).contains(n))
}
