//! The dialects of other frameworks: what their dead letters say, and which of their headers control them.
//!
//! An existing dead-letter topic can be an inbox as it is. Of what stands on its records this reads where a record was consumed, what
//! went wrong, and how often it was tried. The attempts that another framework made are its own, and not the ladder's: a record comes
//! here when those are over, and begins to climb.
//!
//! What cannot be read is not guessed: a number that is none, or a text that is no UTF-8 where a name is told, counts as not told.
//!
//! On a source topic such a header would drive the framework of whoever reads it (Spring Kafka counts its own attempts by them,
//! `SmallRye` its delays), so they are stripped on the way there, and never otherwise. A prefix is taken where the framework owns all
//! of it; where it begins with plain words, as `SmallRye`'s do, only the names that are known, since the rest may be an
//! application's.

mod connect;
mod share_group;
mod smallrye;
mod spring;
mod streams;

use crate::core::time::Timestamp;

/// Whose headers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Spring Kafka.
    Spring,
    /// Kafka Connect.
    Connect,
    /// Kafka Streams.
    Streams,
    /// `SmallRye` Reactive Messaging.
    SmallRye,
    /// The dead-letter queue of a share group.
    ShareGroup,
}

impl Dialect {
    /// All of them, with the names by which the configuration knows them.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("spring", Self::Spring),
        ("connect", Self::Connect),
        ("streams", Self::Streams),
        ("smallrye", Self::SmallRye),
        ("share-group", Self::ShareGroup),
    ];

    /// As the configuration has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, dialect)| *dialect == self).map_or("", |(name, _)| name)
    }

    /// What the headers of a dead letter say.
    #[must_use]
    pub fn read<'a>(self, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Told {
        let headers = Foreign(headers.filter(|(name, _)| is_foreign_control(name)).collect());
        match self {
            Self::Spring => spring::read(&headers),
            Self::Connect => connect::read(&headers),
            Self::Streams => streams::read(&headers),
            Self::SmallRye => smallrye::read(&headers),
            Self::ShareGroup => share_group::read(&headers),
        }
    }
}

/// What a dead letter of another framework says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Where it was consumed.
    pub place: Place,
    /// How often it was tried, where that is told.
    pub attempts: Option<u32>,
    /// The class of the error.
    pub class: Option<String>,
    /// Its message.
    pub message: Option<String>,
    /// Its stack trace.
    pub stack: Option<String>,
}

/// Where a record was consumed, as far as it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: Option<String>,
    /// The partition.
    pub partition: Option<i32>,
    /// The offset.
    pub offset: Option<i64>,
    /// The record's timestamp.
    pub timestamp: Option<Timestamp>,
}

/// A record's headers that are another framework's, in order.
struct Foreign<'a>(Vec<(&'a [u8], Option<&'a [u8]>)>);

impl<'a> Foreign<'a> {
    fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(n, _)| *n == name.as_bytes()).filter_map(|(_, value)| *value)
    }

    fn last(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next_back()
    }

    fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    fn text(&self, name: &str) -> Option<String> {
        text(self.last(name)?)
    }

    fn first_text(&self, name: &str) -> Option<String> {
        text(self.first(name)?)
    }

    /// The place as text, numbers in decimal: `topic`, `partition` and `offset` behind a prefix.
    fn decimal_place(&self, prefix: &str) -> Place {
        let of = |name: &str| self.text(&format!("{prefix}{name}"));
        Place {
            topic: of("topic"),
            partition: of("partition").and_then(|text| text.parse().ok()),
            offset: of("offset").and_then(|text| text.parse().ok()),
            timestamp: None,
        }
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The prefixes that a framework owns: Spring Kafka's retry topics and dead letters, Kafka Connect, Kafka Streams (KIP-1034), share
/// groups (KIP-1191).
const PREFIXES: [&str; 7] = [
    "retry_topic-",
    "kafka_original-",
    "kafka_exception-",
    "kafka_dlt-",
    "__connect.errors.",
    "__streams.errors.",
    "__dlq.errors.",
];

/// What `SmallRye` writes behind either of its prefixes.
const SMALLRYE: [&str; 7] = ["exception-class-name", "cause-class-name", "reason", "cause", "topic", "partition", "offset"];
/// What it writes only on what it will try again.
const SMALLRYE_DELAYED: [&str; 3] = ["count", "original-timestamp", "first-processing-timestamp"];

/// Whether a header of this name controls another framework.
#[must_use]
pub fn is_foreign_control(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return true;
    }
    if let Some(rest) = name.strip_prefix("dead-letter-") {
        return SMALLRYE.contains(&rest);
    }
    name.strip_prefix("delayed-retry-").is_some_and(|rest| SMALLRYE.contains(&rest) || SMALLRYE_DELAYED.contains(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::envelope;

    #[test]
    fn the_control_headers_of_every_dialect_are_known() {
        for name in [
            "retry_topic-attempts",
            "retry_topic-backoff-timestamp",
            "retry_topic-original-timestamp",
            "kafka_original-topic",
            "kafka_original-timestamp-type",
            "kafka_dlt-original-consumer-group",
            "kafka_dlt-exception-fqcn",
            "kafka_dlt-key-exception-message",
            "kafka_exception-stacktrace",
            "__connect.errors.exception.class.name",
            "__streams.errors.offset",
            "__dlq.errors.delivery.count",
            "dead-letter-reason",
            "dead-letter-topic",
            "delayed-retry-count",
            "delayed-retry-cause-class-name",
        ] {
            assert!(is_foreign_control(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn users_headers_and_kladders_own_are_none() {
        for name in [
            "traceparent",
            "ce_type",
            "kafka_messageKey",
            "kafka_",
            "dead-letter-box",
            "dead-letter-count",
            "delayed-retry-",
            "retry_topic",
            "x-retry_topic-attempts",
            envelope::ATTEMPTS,
            envelope::ORIGIN_TOPIC,
        ] {
            assert!(!is_foreign_control(name.as_bytes()), "{name}");
        }
        assert!(!is_foreign_control(b"kafka_dlt-\xff"), "no framework writes names that are no text");
    }

    type Given<'a> = (&'a str, &'a [u8]);

    fn told(dialect: Dialect, headers: &[Given<'_>]) -> Told {
        dialect.read(headers.iter().map(|(name, value)| (name.as_bytes(), Some(*value))))
    }

    fn place(topic: &str, partition: i32, offset: i64, timestamp: Option<i64>) -> Place {
        let timestamp = timestamp.map(Timestamp::from_millis);
        Place { topic: Some(topic.to_owned()), partition: Some(partition), offset: Some(offset), timestamp }
    }

    #[test]
    fn springs_dead_letters_are_read() {
        let plain = told(
            Dialect::Spring,
            &[
                ("kafka_dlt-original-topic", b"old"),
                ("kafka_dlt-original-topic", b"orders"),
                ("kafka_dlt-original-partition", &3_i32.to_be_bytes()),
                ("kafka_dlt-original-offset", &70_000_000_000_i64.to_be_bytes()),
                ("kafka_dlt-original-timestamp", &1_760_000_000_000_i64.to_be_bytes()),
                ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
                ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
                ("kafka_dlt-exception-message", b"no account"),
            ],
        );
        assert_eq!(plain.place, place("orders", 3, 70_000_000_000, Some(1_760_000_000_000)), "the last value counts");
        assert_eq!(plain.class.as_deref(), Some("java.lang.IllegalStateException"));
        assert_eq!((plain.message.as_deref(), plain.attempts), (Some("no account"), None));
    }

    #[test]
    fn springs_retry_topics_are_read() {
        let headers: &[Given<'_>] = &[
            ("kafka_original-topic", b"orders"),
            ("kafka_original-partition", &[0, 0, 0, 1]),
            ("kafka_original-offset", &[0, 0, 0, 0, 0, 0, 0, 9]),
            // The times of retry topics have as many bytes as they need.
            ("retry_topic-backoff-timestamp", &[0x01, 0x99, 0xc0, 0x12, 0x34, 0x56]),
            ("kafka_exception-fqcn", b"a.B"),
        ];
        for (bytes, attempts) in
            [(&[0, 0, 0, 4][..], Some(4)), (&[4], Some(4)), (&[0], None), (&[0xff, 0xff, 0xff, 0xff], None), (&[1, 2], None)]
        {
            let told = told(Dialect::Spring, &[headers, &[("retry_topic-attempts", bytes)]].concat());
            assert_eq!((told.attempts, &told.place), (attempts, &place("orders", 1, 9, None)), "{bytes:?}");
            assert_eq!(told.class.as_deref(), Some("a.B"));
        }
    }

    #[test]
    fn those_that_tell_in_decimals_are_read() {
        for (dialect, prefix, class, message) in [
            (Dialect::Connect, "__connect.errors.", "exception.class.name", "exception.message"),
            (Dialect::Streams, "__streams.errors.", "exception", "message"),
        ] {
            let name = |rest: &str| format!("{prefix}{rest}");
            let names = [name("topic"), name("partition"), name("offset"), name(class), name(message)];
            let values: [&[u8]; 5] = [b"orders", b"2", b"17", b"a.B", b"no"];
            let headers: Vec<Given<'_>> = names.iter().map(String::as_str).zip(values).collect();
            let read = told(dialect, &headers);
            assert_eq!(read.place, place("orders", 2, 17, None), "{prefix}");
            assert_eq!((read.class.as_deref(), read.message.as_deref()), (Some("a.B"), Some("no")));
        }
        let shared: &[Given<'_>] = &[
            ("__dlq.errors.topic", b"orders"),
            ("__dlq.errors.partition", b"0"),
            ("__dlq.errors.offset", b"5"),
            ("__dlq.errors.group", b"billing"),
            ("__dlq.errors.delivery.count", b"5"),
        ];
        let read = told(Dialect::ShareGroup, shared);
        assert_eq!((read.place, read.attempts, read.class), (place("orders", 0, 5, None), Some(5), None));
    }

    #[test]
    fn of_smallrye_the_first_value_counts_and_the_place_before_its_delays() {
        let read = told(
            Dialect::SmallRye,
            &[
                ("dead-letter-reason", b"new"),
                ("dead-letter-cause-class-name", b"a.Cause"),
                ("dead-letter-topic", b"orders_retry"),
                ("dead-letter-partition", b"7"),
                ("dead-letter-offset", b"1"),
                ("dead-letter-reason", b"old"),
                ("delayed-retry-topic", b"orders"),
                ("delayed-retry-partition", b"2"),
                ("delayed-retry-offset", b"17"),
                ("delayed-retry-count", b"3"),
            ],
        );
        assert_eq!(read.place, place("orders", 2, 17, None));
        assert_eq!((read.message.as_deref(), read.class.as_deref(), read.attempts), (Some("new"), Some("a.Cause"), Some(3)));
        let plain = told(Dialect::SmallRye, &[("dead-letter-topic", b"orders"), ("dead-letter-partition", b"x")]);
        assert_eq!((plain.place.topic.as_deref(), plain.place.partition), (Some("orders"), None));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_header_holds_breaks_a_reader(
            values in proptest::collection::vec((0_usize..12, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..12)), 0..20)
        ) {
            let names = [
                "retry_topic-attempts", "kafka_original-topic", "kafka_original-partition", "kafka_original-offset",
                "kafka_dlt-original-timestamp", "__connect.errors.partition", "__connect.errors.topic", "__streams.errors.offset",
                "__dlq.errors.delivery.count", "dead-letter-offset", "delayed-retry-count", "dead-letter-reason",
            ];
            for (_, dialect) in Dialect::NAMES {
                let _ = dialect.read(values.iter().map(|(name, value)| (names[*name].as_bytes(), Some(value.as_slice()))));
                let _ = dialect.read(values.iter().map(|(name, _)| (names[*name].as_bytes(), None)));
            }
        }
    }
}
