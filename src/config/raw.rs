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
    pub defaults: Option<RawDefaults>,
    #[serde(default, deserialize_with = "tables")]
    pub ladder: Option<BTreeMap<String, RawLadder>>,
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
    #[serde(default, deserialize_with = "table")]
    handler: Option<RawHandler>,
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
    pub settle: Option<Span>,
    #[serde(default, deserialize_with = "table")]
    pub handler: Option<RawHandler>,
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
            handler,
            topics,
        } = raw;
        Self {
            sources: None,
            group: None,
            start,
            mode,
            hops,
            tiers,
            attempts,
            max_not_before,
            redeliver,
            reaches_all_groups,
            settle,
            handler,
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
