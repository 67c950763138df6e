//! The file as serde sees it: every key optional, every unknown one refused; what it means is checked in the sections.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, Visitor};

use crate::config::document::kind;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawConfig {
    pub kafka: Option<toml::Table>,
    #[serde(default, deserialize_with = "table")]
    pub health: Option<RawListener>,
    #[serde(default, deserialize_with = "table")]
    pub admin: Option<RawListener>,
    #[serde(default, deserialize_with = "table")]
    pub worker: Option<RawWorker>,
    #[serde(default, deserialize_with = "table")]
    pub schema_registry: Option<RawRegistry>,
    #[serde(default, deserialize_with = "table")]
    pub alerts: Option<RawAlerts>,
    #[serde(default, deserialize_with = "table")]
    pub defaults: Option<RawDefaults>,
    #[serde(default, deserialize_with = "tables")]
    pub ladder: Option<BTreeMap<String, RawLadder>>,
    #[serde(default, deserialize_with = "tables")]
    pub dlq: Option<BTreeMap<String, RawQueue>>,
}

/// The dead-letter topic of another framework.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawQueue {
    pub topic: Option<String>,
    pub dialect: Option<String>,
    pub targets: Option<Items>,
    pub park_after: Option<Whole>,
}

/// What may be done with dead letters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawRedrive {
    pub targets: Option<Items>,
    pub park_after: Option<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawListener {
    pub listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawWorker {
    pub instance: Option<String>,
    pub roles: Option<Items>,
    pub state_dir: Option<String>,
    pub drain: Option<Span>,
}

/// Where schemas of payloads are found.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawRegistry {
    pub url: Option<String>,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// When alert rules fire.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawAlerts {
    pub r#for: Option<Span>,
    pub lateness: Option<Span>,
    pub clock_offset: Option<Span>,
    pub runbook: Option<String>,
}

/// What all ladders share: a ladder's keys but for those that make it that one ladder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawDefaults {
    start: Option<String>,
    mode: Option<String>,
    hops: Option<String>,
    tiers: Option<RawTiers>,
    attempts: Option<Whole>,
    max_not_before: Option<Span>,
    redeliver: Option<String>,
    reaches_all_groups: Option<Switch>,
    settle: Option<Span>,
    max_age: Option<Span>,
    max_rate: Option<String>,
    #[serde(default, deserialize_with = "table")]
    immediate: Option<RawImmediate>,
    #[serde(default, deserialize_with = "list_of_tables")]
    classify: Option<Vec<RawRule>>,
    #[serde(default, deserialize_with = "table")]
    handler: Option<RawHandler>,
    #[serde(default, deserialize_with = "table")]
    breaker: Option<RawBreaker>,
    #[serde(default, deserialize_with = "table")]
    dlq_breaker: Option<RawDlqBreaker>,
    #[serde(default, deserialize_with = "table")]
    redrive: Option<RawRedrive>,
    #[serde(default, deserialize_with = "table")]
    topics: Option<RawTopics>,
}

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

impl From<RawDefaults> for RawLadder {
    fn from(raw: RawDefaults) -> Self {
        let RawDefaults {
            start,
            mode,
            hops,
            tiers,
            attempts,
            max_not_before,
            redeliver,
            reaches_all_groups,
            settle,
            max_age,
            max_rate,
            immediate,
            classify,
            handler,
            breaker,
            dlq_breaker,
            redrive,
            topics,
        } = raw;
        Self {
            sources: None,
            group: None,
            inbox: None,
            start,
            mode,
            hops,
            tiers,
            attempts,
            max_not_before,
            redeliver,
            reaches_all_groups,
            settle,
            max_age,
            max_rate,
            immediate,
            classify,
            handler,
            breaker,
            dlq_breaker,
            redrive,
            topics,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawHandler {
    pub url: Option<String>,
    pub timeout: Option<Span>,
    pub max_in_flight: Option<Whole>,
    pub redeliver_share: Option<Decimal>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawTopics {
    pub partitions: Option<Whole>,
    pub replication_factor: Option<Whole>,
    pub outage_budget: Option<Span>,
    pub dlq_retention: Option<Span>,
}

/// When deliveries wait because the handler is down.
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

/// When what would be a dead letter waits because there are too many.
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

/// Tries in place.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawImmediate {
    pub attempts: Option<Whole>,
    pub backoff: Option<Span>,
}

/// A rule by which failures are classified.
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

/// `404`, `"5xx"`, or a list of such.
#[derive(Debug)]
pub struct RawStatuses(pub Vec<String>);

/// `"Timeout"`, `{ prefix = "com.acme." }` or `{ regex = "^Time" }`.
#[derive(Debug)]
pub enum RawPattern {
    Exact(String),
    Other(RawMatch),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawMatch {
    pub prefix: Option<String>,
    pub regex: Option<String>,
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

/// A list whose elements are judged one by one later: a wrong one does not hide the others.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Items(pub Vec<Item>);

/// An element of a list: a string, or what stands there in its stead.
#[derive(Debug, Clone)]
pub struct Item(pub Result<String, &'static str>);

/// A whole number, also as a string, since that is what `${VAR}` makes.
#[derive(Debug, Clone, Copy)]
pub struct Whole(pub i64);

/// A number, also as a string.
#[derive(Debug, Clone, Copy)]
pub struct Decimal(pub f64);

/// True or false, also as a string.
#[derive(Debug, Clone, Copy)]
pub struct Switch(pub bool);

/// A duration, as `10s`.
#[derive(Debug, Clone, Copy)]
pub struct Span(pub Duration);

/// A table and nothing else: serde's own structs are also read from lists, field by field.
struct Section<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Section<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<Section<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries)).map(Section)
            }
        }

        deserializer.deserialize_any(Entries(PhantomData))
    }
}

fn table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Section::deserialize(deserializer).map(|section| Some(section.0))
}

fn tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, T>>, D::Error> {
    let sections: BTreeMap<String, Section<T>> = BTreeMap::deserialize(deserializer)?;
    Ok(Some(sections.into_iter().map(|(name, section)| (name, section.0)).collect()))
}

fn list_of_tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    struct Elements<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of tables")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(Section(element)) = elements.next_element()? {
                all.push(element);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(Elements(PhantomData)).map(Some)
}

impl<'de> Deserialize<'de> for RawStatuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawStatuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 404, \"5xx\" or \"500-504\", or a list of such")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<RawStatuses, E> {
                Ok(RawStatuses(vec![number.to_string()]))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawStatuses, E> {
                Ok(RawStatuses(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<RawStatuses, A::Error> {
                let mut all = Vec::new();
                while let Some(value) = elements.next_element::<toml::Value>()? {
                    all.push(match value {
                        toml::Value::String(text) => text,
                        toml::Value::Integer(number) => number.to_string(),
                        other => kind(&other).to_owned(),
                    });
                }
                Ok(RawStatuses(all))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for RawPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawPattern;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a table with prefix or regex")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawPattern, E> {
                Ok(RawPattern::Exact(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<RawPattern, A::Error> {
                RawMatch::deserialize(MapAccessDeserializer::new(entries)).map(RawPattern::Other)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(text),
            other => Err(kind(&other)),
        }))
    }
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

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Whole, E> {
                text.trim().parse().map(Whole).map_err(|_| E::invalid_type(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Decimal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Decimal, E> {
                Ok(Decimal(number))
            }

            #[expect(clippy::cast_precision_loss, reason = "what is out of range is refused later, near or far")]
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Decimal, E> {
                Ok(Decimal(number as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
                text.trim().parse().map(Decimal).map_err(|_| E::invalid_type(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E: de::Error>(self, switch: bool) -> Result<Switch, E> {
                Ok(Switch(switch))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Switch, E> {
                text.trim().parse().map(Switch).map_err(|_| E::invalid_type(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"10s\" or \"1m30s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                humantime::parse_duration(text.trim()).map(Span).map_err(|_| E::invalid_type(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Written)
    }
}
