//! Statuses and patterns of classification rules.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, Visitor};

use crate::config::document::kind;

/// `404`, `"5xx"`, or a list of them.
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
