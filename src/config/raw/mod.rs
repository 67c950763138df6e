//! The file as deserialised by serde: every key optional, unknown keys refused; the meaning is checked in the
//! sections.

mod ladder;
mod patterns;
mod table;
mod values;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use ladder::{
    LADDER_HINTS, OF_ONE_LADDER, RawBatch, RawBreaker, RawDlqBreaker, RawLadder, RawRule, RawSteps, RawTiers, RawWhen,
    TOPIC_SETTINGS,
};
pub use patterns::RawPattern;
use table::{table, tables};
pub use values::{Decimal, Items, RawSetting, RawSettings, Span, Whole};

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
    pub defaults: Option<RawLadder>,
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
    pub settings: Option<RawSettings>,
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

/// The schema registry for payloads.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawRegistry {
    pub url: Option<String>,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// Thresholds of the alert rules.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RawAlerts {
    pub r#for: Option<Span>,
    pub lateness: Option<Span>,
    pub clock_offset: Option<Span>,
    pub runbook: Option<String>,
}
