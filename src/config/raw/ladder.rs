//! The keys of a ladder, each with its hint.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, Visitor};

use crate::config::raw::patterns::{RawPattern, RawStatuses};
use crate::config::raw::table::{list_of_tables, table};
use crate::config::raw::values::{Decimal, Items, RawSettings, Span, Switch, Whole};

/// The keys that a ladder does not share with others: not in `[defaults]`.
pub const OF_ONE_LADDER: [&str; 3] = ["sources", "group", "inbox"];

/// The hint for each topic setting.
pub const TOPIC_SETTINGS: &str = "settings = { \"min.insync.replicas\" = 1 }, or \"default\" to leave it to the cluster";

/// The hint for each key.
pub const LADDER_HINTS: &[(&str, &str)] = &[
    ("sources", "the topics that the group consumes: sources = [\"orders\"]"),
    ("sources[]", "a topic name, such as \"orders\""),
    ("group", "the ladder's consumer group: group = \"billing\""),
    ("start", "\"earliest\" or \"latest\""),
    ("mode", "\"push\" (kladder calls the handler; the default) or \"relay\" (the application consumes)"),
    ("hops", "\"exactly-once\" (the default) or \"at-least-once\""),
    (
        "tiers",
        "1 to 32 rising delays, tiers = [\"5s\", \"1m\", \"10m\"], or { first = \"5s\", factor = 12, count = 3, max = \"1h\" }",
    ),
    ("tiers[]", "rising delays between 1ms and 365d, each once, such as \"5s\", \"1m30s\" or \"250ms\""),
    ("tiers.first", "the delay of the first tier: 1ms to 365d"),
    ("tiers.factor", "factor between a tier's delay and the next one's: above 1, at most 1000"),
    ("tiers.count", "number of steps: 1 to 32"),
    ("tiers.max", "longest delay: first to 365d"),
    ("attempts", "1 to 32767, the first delivery included; default: tiers + 1"),
    ("max_not_before", "longest delay that a handler may ask for: 1s to 365d; default 1d"),
    ("redeliver", "\"topic\" (due records come back in {ladder}.redeliver; the default) or \"origin\" (in their origin topic)"),
    (
        "reaches_all_groups",
        "reaches_all_groups = true accepts that every group that reads the sources receives redelivered records",
    ),
    ("settle", "time without another failure after which a redelivered record is presumed done: 1s to 1d; default 2m"),
    (
        "max_age",
        "longest time from a record's first failure to its redelivery, such as \"2h\": the first tier to 3650d; default: unlimited",
    ),
    ("max_rate", "maximum rate of redeliveries per tier, such as \"500/s\", \"30/m\" or \"1000/h\"; default: unlimited"),
    ("immediate", "a table: immediate = { attempts = 2, backoff = \"100ms\" }"),
    ("immediate.attempts", "number of in-place retries before a failure counts as an attempt: 1 to 10"),
    ("immediate.backoff", "pause after a failure: 0s to 10s; default 100ms"),
    ("classify", "one table [[ladder.NAME.classify]] per rule; the first rule that matches decides"),
    ("classify[]", "one table [[ladder.NAME.classify]] per rule"),
    ("classify[].name", "a unique name for metrics, of a-z, 0-9, `-`; default: the rule's number"),
    (
        "classify[].when",
        "when = { … } with at least one of status, error_class, message, header, topic; a rule for everything else: \
         error_class = { regex = \"\" }",
    ),
    ("classify[].when.status", "404, \"5xx\", \"500-504\", or a list of such"),
    ("classify[].when.error_class", "\"Timeout\", { prefix = \"com.acme.\" } or { regex = \"Time(d )?out\" }"),
    ("classify[].when.message", "a regular expression, matched anywhere in the message"),
    (
        "classify[].when.header",
        "a table of header names: header = { kind = \"refund\" }; each value may also be a prefix or a regex",
    ),
    ("classify[].when.topic", "\"orders\", { prefix = \"orders-\" } or { regex = \"^eu-\" }: the record's origin topic"),
    ("classify[].then", "\"retry\", \"reject\" (to the dead-letter topic at once) or \"done\" (dropped and counted)"),
    ("classify[].from_tier", "number of the first tier for such a record, counted from 1; for then = \"retry\""),
    ("classify[].attempts", "1 to 32767, the first delivery included, instead of the ladder's own; for then = \"retry\""),
    ("classify[].dlq", "a name of a-z, 0-9, `-`: such records go to {ladder}.dlq-NAME; for then = \"reject\""),
    ("handler", "a table: [ladder.NAME.handler] with url"),
    ("handler.url", "URL that records are posted to: url = \"http://127.0.0.1:3000/\""),
    ("handler.timeout", "1ms to 1h; default 10s"),
    ("handler.max_in_flight", "1 to 10000; default 64, with a batch 8 (batches)"),
    ("handler.max_unsettled", "finished deliveries that may wait for their commit: 0 to 100000; default 500"),
    ("handler.batch", "a table: batch = { max = 100, bytes = \"1MiB\", wait = \"20ms\" }; without it each record is a request"),
    ("handler.batch.max", "records in a batch: 1 to 10000; default 100"),
    ("handler.batch.bytes", "size of a batch: \"1KiB\" to \"64MiB\"; default \"1MiB\""),
    ("handler.batch.wait", "time that an incomplete batch waits for more records: 0s to 10s; default 20ms"),
    ("handler.batch.across", "whether a batch has records of several partitions: true or false (the default)"),
    ("handler.batch.format", "\"cloudevents\" (the default), \"ndjson\" or \"multipart\""),
    ("handler.redeliver_share", "above 0, at most 1; default 0.5"),
    ("breaker", "a table: [ladder.NAME.breaker]; enabled = false switches it off"),
    ("breaker.enabled", "true (the default) or false"),
    ("breaker.consecutive", "different records failing in a row before deliveries are slowed down: 1 to 10000; default 20"),
    ("breaker.silence", "time without a good answer after which the handler counts as down: 100ms to 1h; default 1s"),
    ("breaker.probes", "concurrent probes of a handler that is down: 1 to 100; default 4"),
    ("breaker.open_for", "time before the first probes, and shortest time between later ones: 100ms to 1h; default 5s"),
    ("breaker.open_most", "longest time between probes: open_for to 1h; default 1m"),
    ("dlq_breaker", "a table: [ladder.NAME.dlq_breaker]; enabled = false switches it off"),
    ("dlq_breaker.enabled", "true (the default) or false"),
    ("dlq_breaker.window", "time over which outcomes are counted: 1s to 1d; default 10m"),
    ("dlq_breaker.minimum", "minimum number of dead letters in the window: 1 to 1000000; default 50"),
    ("dlq_breaker.share", "minimum share of dead letters among all outcomes: above 0, at most 1; default 0.5"),
    ("dlq_breaker.hold_for", "time that dead letters are held at once: 1s to 7d; default 10m"),
    ("redrive", "a table: [ladder.NAME.redrive]"),
    (
        "redrive.targets",
        "topics that dead letters may be sent to besides the redeliver topic and the sources: [\"orders-fixed\"]",
    ),
    ("redrive.park_after", "1 to 1000: number of redrives after which a letter is parked; default 3"),
    ("inbox", "inbox = { topic = \"connect-dlq\", dialect = \"connect\" }, with redeliver = \"origin\""),
    ("inbox.topic", "dead-letter topic of the other framework"),
    ("inbox.dialect", "\"spring\", \"connect\", \"streams\", \"smallrye\" or \"share-group\""),
    ("topics.partitions", "1 to 10000; default: those of the largest source, at most 12"),
    ("topics.replication_factor", "1 to 100; default: that of the source"),
    ("topics.outage_budget", "1m to 3650d; default 7d"),
    ("topics.dlq_retention", "1m to 3650d; default 30d"),
    ("topics.settings", TOPIC_SETTINGS),
];

/// A ladder, or the defaults of all ladders, which have no [`OF_ONE_LADDER`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawLadder {
    pub sources: Option<Items>,
    pub group: Option<String>,
    pub start: Option<String>,
    pub mode: Option<String>,
    pub hops: Option<String>,
    pub tiers: Option<RawTiers>,
    pub attempts: Option<Whole>,
    pub max_not_before: Option<Span>,
    pub redeliver: Option<String>,
    pub reaches_all_groups: Option<Switch>,
    #[serde(default, deserialize_with = "table")]
    pub inbox: Option<RawInbox>,
    pub settle: Option<Span>,
    pub max_age: Option<Span>,
    pub max_rate: Option<String>,
    #[serde(default, deserialize_with = "table")]
    pub immediate: Option<RawImmediate>,
    #[serde(default, deserialize_with = "list_of_tables")]
    pub classify: Option<Vec<RawRule>>,
    #[serde(default, deserialize_with = "table")]
    pub handler: Option<RawHandler>,
    #[serde(default, deserialize_with = "table")]
    pub breaker: Option<RawBreaker>,
    #[serde(default, deserialize_with = "table")]
    pub dlq_breaker: Option<RawDlqBreaker>,
    #[serde(default, deserialize_with = "table")]
    pub redrive: Option<RawRedrive>,
    #[serde(default, deserialize_with = "table")]
    pub topics: Option<RawTopics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawHandler {
    pub url: Option<String>,
    pub timeout: Option<Span>,
    pub max_in_flight: Option<Whole>,
    pub max_unsettled: Option<Whole>,
    pub batch: Option<RawBatch>,
    pub redeliver_share: Option<Decimal>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawBatch {
    pub max: Option<Whole>,
    pub bytes: Option<String>,
    pub wait: Option<Span>,
    pub across: Option<bool>,
    pub format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawTopics {
    pub partitions: Option<Whole>,
    pub replication_factor: Option<Whole>,
    pub outage_budget: Option<Span>,
    pub dlq_retention: Option<Span>,
    pub settings: Option<RawSettings>,
}

/// The breaker of the handler.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawBreaker {
    pub enabled: Option<Switch>,
    pub consecutive: Option<Whole>,
    pub silence: Option<Span>,
    pub probes: Option<Whole>,
    pub open_for: Option<Span>,
    pub open_most: Option<Span>,
}

/// The breaker of dead letters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawDlqBreaker {
    pub enabled: Option<Switch>,
    pub window: Option<Span>,
    pub minimum: Option<Whole>,
    pub share: Option<Decimal>,
    pub hold_for: Option<Span>,
}

/// The dead-letter topic of another framework.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawInbox {
    pub topic: Option<String>,
    pub dialect: Option<String>,
}

/// In-place retries.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawImmediate {
    pub attempts: Option<Whole>,
    pub backoff: Option<Span>,
}

/// A classification rule.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawRule {
    pub name: Option<String>,
    #[serde(default, deserialize_with = "table")]
    pub when: Option<RawWhen>,
    pub then: Option<String>,
    pub from_tier: Option<Whole>,
    pub attempts: Option<Whole>,
    pub dlq: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawWhen {
    pub status: Option<RawStatuses>,
    pub error_class: Option<RawPattern>,
    pub message: Option<String>,
    pub header: Option<BTreeMap<String, RawPattern>>,
    pub topic: Option<RawPattern>,
}

/// `["5s", "1m"]` or `{ first = "5s", factor = 12, count = 3 }`.
#[derive(Debug, Clone)]
pub enum RawTiers {
    List(Items),
    Steps(RawSteps),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawSteps {
    pub first: Option<Span>,
    pub factor: Option<Decimal>,
    pub count: Option<Whole>,
    pub max: Option<Span>,
}

/// The redrive settings of dead letters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawRedrive {
    pub targets: Option<Items>,
    pub park_after: Option<Whole>,
}

impl<'de> Deserialize<'de> for RawTiers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawTiers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of delays or a table of steps")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<RawTiers, A::Error> {
                Items::deserialize(SeqAccessDeserializer::new(items)).map(RawTiers::List)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<RawTiers, A::Error> {
                RawSteps::deserialize(MapAccessDeserializer::new(entries)).map(RawTiers::Steps)
            }
        }

        deserializer.deserialize_any(Either)
    }
}
