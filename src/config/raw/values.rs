//! Values: numbers, durations and switches, also as strings, and lists.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::config::document::kind;
use crate::config::raw::table::Section;

/// A list whose elements are checked one by one later: a wrong one does not hide the others.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Items(pub Vec<Item>);

/// An element of a list: a string, or the type found instead.
#[derive(Debug, Clone)]
pub struct Item(pub Result<String, &'static str>);

/// Topic settings by name: dotted, quoted or nested. They are checked one by one later.
#[derive(Debug, Clone, Default)]
pub struct RawSettings(pub Vec<RawSetting>);

/// One topic setting.
#[derive(Debug, Clone)]
pub struct RawSetting {
    /// Its name as written, split at the dots.
    pub keys: Vec<String>,
    /// Its value, or the type found instead.
    pub value: Result<String, &'static str>,
}

/// A whole number, also as a string, since `${VAR}` yields a string.
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

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(text),
            other => Err(kind(&other)),
        }))
    }
}

impl RawSettings {
    fn flatten(&mut self, table: toml::Table, above: &[String]) {
        for (key, value) in table {
            let keys: Vec<String> = above.iter().cloned().chain([key]).collect();
            let value = match value {
                toml::Value::Table(inner) => {
                    self.flatten(inner, &keys);
                    continue;
                }
                toml::Value::String(text) => Ok(text),
                toml::Value::Integer(number) => Ok(number.to_string()),
                toml::Value::Float(number) => Ok(number.to_string()),
                toml::Value::Boolean(truth) => Ok(truth.to_string()),
                other => Err(kind(&other)),
            };
            self.0.push(RawSetting { keys, value });
        }
    }
}

impl<'de> Deserialize<'de> for RawSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Section(entries) = Section::<toml::Table>::deserialize(deserializer)?;
        let mut settings = Self::default();
        settings.flatten(entries, &[]);
        Ok(settings)
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

            #[expect(clippy::cast_precision_loss, reason = "values out of range are refused later")]
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
