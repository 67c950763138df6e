//! The dialects of other frameworks: what their dead letters say, and which of their headers control the
//! framework.
//!
//! An existing dead-letter topic can be used as an inbox. From its records' headers this reads where a record was consumed, what
//! failed, and how often it was tried. Attempts made by another framework do not count on the ladder: a record comes here when those
//! are exhausted, and starts to climb.
//!
//! Nothing is guessed: invalid numbers, and names that are not UTF-8, count as absent.
//!
//! On a source topic such headers would control the framework of whoever reads it (Spring Kafka counts its own attempts by them,
//! `SmallRye` its delays), so they are removed on the way there, and only then. Whole prefixes are removed if the framework owns them; if
//! the prefix consists of plain words, as with `SmallRye` and Spring Cloud Stream, only the known names, since others may be the
//! application's.

mod connect;
mod share_group;
mod smallrye;
mod spring;
mod streams;

use crate::core::time::Timestamp;

/// A framework whose headers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Spring Kafka, and the Kafka binder of Spring Cloud Stream.
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
    /// All of them, with their names in the configuration.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("spring", Self::Spring),
        ("connect", Self::Connect),
        ("streams", Self::Streams),
        ("smallrye", Self::SmallRye),
        ("share-group", Self::ShareGroup),
    ];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, dialect)| *dialect == self).map_or("", |(name, _)| name)
    }

    /// Reads the headers of a dead letter.
    #[must_use]
    pub fn read<'a>(self, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> ForeignHeaders {
        let headers = Foreign(headers.filter(|(name, _)| is_foreign_control(name)).collect());
        let told = match self {
            Self::Spring => spring::read(&headers),
            Self::Connect => connect::read(&headers),
            Self::Streams => streams::read(&headers),
            Self::SmallRye => smallrye::read(&headers),
            Self::ShareGroup => share_group::read(&headers),
        };
        ForeignHeaders { place: told.place.that_can_be(), ..told }
    }
}

/// What the headers of a foreign dead letter say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignHeaders {
    /// Where it was consumed.
    pub place: PartialCoordinates,
    /// Number of tries, if given.
    pub attempts: Option<u32>,
    /// The class of the error.
    pub class: Option<String>,
    /// Its message.
    pub message: Option<String>,
    /// Its stack trace.
    pub stack: Option<String>,
}

/// Where a record was consumed, as far as given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartialCoordinates {
    /// The topic.
    pub topic: Option<String>,
    /// The partition.
    pub partition: Option<i32>,
    /// The offset.
    pub offset: Option<i64>,
    /// The record's timestamp.
    pub timestamp: Option<Timestamp>,
}

impl PartialCoordinates {
    /// Without impossible values: frameworks write -1 for unknown numbers.
    fn that_can_be(self) -> Self {
        Self {
            topic: self.topic,
            partition: self.partition.filter(|partition| *partition >= 0),
            offset: self.offset.filter(|offset| *offset >= 0),
            timestamp: self.timestamp.filter(|timestamp| timestamp.as_millis() >= 0),
        }
    }
}

/// A record's headers from another framework, in order.
struct Foreign<'a>(Vec<(&'a [u8], Option<&'a [u8]>)>);

impl<'a> Foreign<'a> {
    fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(n, _)| *n == name.as_bytes()).filter_map(|(_, value)| *value)
    }

    fn last(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next_back()
    }

    fn text(&self, name: &str) -> Option<String> {
        text(self.last(name)?)
    }

    /// The values of headers with this name after one of these prefixes, in order.
    fn under<'n>(&'n self, prefixes: &'n [&str], name: &'n str) -> impl DoubleEndedIterator<Item = &'a [u8]> + 'n {
        let is_meant = move |found: &[u8]| {
            prefixes.iter().any(|prefix| found.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest == name.as_bytes()))
        };
        self.0.iter().filter(move |(found, _)| is_meant(found)).filter_map(|(_, value)| *value)
    }

    /// The place as text with decimal numbers: `topic`, `partition` and `offset` after a prefix.
    fn decimal_place(&self, prefix: &str) -> PartialCoordinates {
        let of = |name: &str| self.text(&format!("{prefix}{name}"));
        PartialCoordinates {
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

/// Prefixes owned by frameworks: Spring Kafka's retry topics and dead letters, Kafka Connect, Kafka Streams (KIP-1034), share
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

/// `SmallRye`'s names after either of its prefixes.
const SMALLRYE: [&str; 7] = ["exception-class-name", "cause-class-name", "reason", "cause", "topic", "partition", "offset"];
/// `SmallRye`'s names on records that it will retry.
const SMALLRYE_DELAYED: [&str; 3] = ["count", "original-timestamp", "first-processing-timestamp"];

/// Names written by the Kafka binder of Spring Cloud Stream.
const STREAM_BINDER: [&str; 8] = [
    "x-original-topic",
    "x-original-partition",
    "x-original-offset",
    "x-original-timestamp",
    "x-original-timestampType",
    "x-exception-fqcn",
    "x-exception-message",
    "x-exception-stacktrace",
];

/// Whether a header controls another framework.
#[must_use]
pub fn is_foreign_control(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || STREAM_BINDER.contains(&name) {
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
            "x-original-topic",
            "x-original-timestampType",
            "x-exception-stacktrace",
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
            "x-original-url",
            "x-exception-",
            envelope::ATTEMPTS,
            envelope::ORIGIN_TOPIC,
        ] {
            assert!(!is_foreign_control(name.as_bytes()), "{name}");
        }
        assert!(!is_foreign_control(b"kafka_dlt-\xff"), "no framework writes names that are not text");
    }

    type Given<'a> = (&'a str, &'a [u8]);

    fn told(dialect: Dialect, headers: &[Given<'_>]) -> ForeignHeaders {
        dialect.read(headers.iter().map(|(name, value)| (name.as_bytes(), Some(*value))))
    }

    fn place(topic: &str, partition: i32, offset: i64, timestamp: Option<i64>) -> PartialCoordinates {
        let timestamp = timestamp.map(Timestamp::from_millis);
        PartialCoordinates { topic: Some(topic.to_owned()), partition: Some(partition), offset: Some(offset), timestamp }
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
            // The times of retry topics have as many bytes as needed.
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

    /// The headers written by 4.27.0 for a record consumed from `orders` that also failed in each of these retry topics, as observed in
    /// a dead-letter topic: each hop puts its headers before those of earlier hops, and the count after them.
    fn after_delays(retried_in: &[&'static str]) -> Vec<(&'static str, Vec<u8>)> {
        let hop = |(number, topic): (usize, &&'static str)| {
            [
                ("delayed-retry-exception-class-name", format!("a.Failure{number}")),
                ("delayed-retry-reason", format!("reason {number}")),
                ("delayed-retry-cause-class-name", format!("a.Cause{number}")),
                ("delayed-retry-cause", format!("cause {number}")),
                ("delayed-retry-topic", (*topic).to_owned()),
                ("delayed-retry-partition", (number + 2).to_string()),
                ("delayed-retry-offset", (number + 17).to_string()),
            ]
        };
        let consumed: Vec<&'static str> = std::iter::once("orders").chain(retried_in.iter().copied()).collect();
        let mut headers: Vec<(&str, String)> = consumed.iter().enumerate().rev().flat_map(hop).collect();
        headers.push(("x-mine", "yes".to_owned()));
        headers.push(("delayed-retry-original-timestamp", "1795988964935".to_owned()));
        headers.push(("delayed-retry-first-processing-timestamp", "1795989000109".to_owned()));
        headers.extend((0..consumed.len()).map(|count| ("delayed-retry-count", count.to_string())));
        headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect()
    }

    #[test]
    fn of_smallryes_hops_the_first_tells_the_origin_and_the_last_the_error() {
        for (retried_in, attempts, last) in
            [(&[][..], 1, 0), (&["orders_retry_500"][..], 2, 1), (&["orders_retry_500", "orders_retry_1000"][..], 3, 2)]
        {
            let headers = after_delays(retried_in);
            let given: Vec<Given<'_>> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
            let read = told(Dialect::SmallRye, &given);
            assert_eq!(read.place, place("orders", 2, 17, Some(1_795_988_964_935)), "{retried_in:?}");
            assert_eq!(read.attempts, Some(attempts), "{retried_in:?}");
            assert_eq!(read.class, Some(format!("a.Cause{last}")));
            assert_eq!(read.message, Some(format!("reason {last}")));
        }
    }

    #[test]
    fn of_smallryes_dead_letters_of_dead_letters_the_first_death_tells_the_origin() {
        let twice: &[Given<'_>] = &[
            ("dead-letter-exception-class-name", b"a.New"),
            ("dead-letter-reason", b"new"),
            ("dead-letter-topic", b"orders-dlq"),
            ("dead-letter-partition", b"7"),
            ("dead-letter-offset", b"1"),
            ("dead-letter-exception-class-name", b"a.Old"),
            ("dead-letter-reason", b"old"),
            ("dead-letter-cause-class-name", b"a.OldCause"),
            ("dead-letter-topic", b"orders"),
            ("dead-letter-partition", b"2"),
            ("dead-letter-offset", b"17"),
        ];
        let read = told(Dialect::SmallRye, twice);
        assert_eq!((read.place, read.attempts), (place("orders", 2, 17, None), None));
        // The cause belongs to an earlier death.
        assert_eq!((read.message.as_deref(), read.class.as_deref()), (Some("new"), Some("a.New")));
        // A record retried with a delay that then died in a queue, and the other way round.
        let delayed = after_delays(&["orders_retry_500"]);
        let delayed: Vec<Given<'_>> = delayed.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let died = told(Dialect::SmallRye, &[&twice[..5], &delayed].concat());
        assert_eq!((died.place.topic.as_deref(), died.place.offset), (Some("orders"), Some(17)));
        assert_eq!((died.message.as_deref(), died.class.as_deref(), died.attempts), (Some("new"), Some("a.New"), Some(2)));
        let plain = told(Dialect::SmallRye, &[("dead-letter-topic", b"orders"), ("dead-letter-partition", b"x")]);
        assert_eq!((plain.place.topic.as_deref(), plain.place.partition), (Some("orders"), None));
    }

    #[test]
    fn what_the_binder_of_spring_cloud_stream_writes_is_read() {
        let binder: &[Given<'_>] = &[
            ("x-original-topic", b"orders"),
            ("x-original-partition", &3_i32.to_be_bytes()),
            ("x-original-offset", &17_i64.to_be_bytes()),
            ("x-original-timestamp", &1_760_000_000_000_i64.to_be_bytes()),
            ("x-original-timestampType", b"CreateTime"),
            ("x-exception-fqcn", b"a.B"),
            ("x-exception-message", b"no account"),
            ("x-exception-stacktrace", b"a.B: no account\n\tat a.C"),
        ];
        let read = told(Dialect::Spring, binder);
        assert_eq!(read.place, place("orders", 3, 17, Some(1_760_000_000_000)));
        assert_eq!((read.class.as_deref(), read.message.as_deref()), (Some("a.B"), Some("no account")));
        assert!(read.stack.is_some_and(|stack| stack.starts_with("a.B: ")));
        // Other producers use such names too, and write numbers as text; four digits are not a
        // partition.
        let text = told(Dialect::Spring, &[("x-original-topic", b"orders"), ("x-original-partition", b"1234")]);
        assert_eq!((text.place.topic.as_deref(), text.place.partition), (Some("orders"), None));
    }

    #[test]
    fn places_below_zero_are_none_in_every_dialect() {
        let text: &[Given<'_>] = &[
            ("__dlq.errors.topic", b"orders"),
            ("__dlq.errors.partition", b"-1"),
            ("__dlq.errors.offset", b"-5"),
            ("__connect.errors.topic", b"orders"),
            ("__connect.errors.partition", b"-1"),
            ("__connect.errors.offset", b"-9223372036854775808"),
            ("__streams.errors.topic", b"orders"),
            ("__streams.errors.partition", b"-2147483648"),
            ("__streams.errors.offset", b"-1"),
            ("dead-letter-topic", b"orders"),
            ("dead-letter-partition", b"-1"),
            ("dead-letter-offset", b"-1001"),
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", &(-1_i32).to_be_bytes()),
            ("kafka_dlt-original-offset", &(-2_i64).to_be_bytes()),
            ("kafka_dlt-original-timestamp", &(-1_i64).to_be_bytes()),
        ];
        for (name, dialect) in Dialect::NAMES {
            let read = told(dialect, text).place;
            assert_eq!(read, PartialCoordinates { topic: Some("orders".to_owned()), ..PartialCoordinates::default() }, "{name}");
        }
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
