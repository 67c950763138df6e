//! `settings` of topics: leaves out settings that a cluster does not allow, and overrides values that it
//! limits.

use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::{RawSetting, RawSettings, TOPIC_SETTINGS};
use crate::config::types::{TopicSetting, TopicSettings};

/// Leaves a setting to the cluster. No topic setting has this word as its value.
const OF_CLUSTER: &str = "default";

/// Reads the table; each wrong setting is a mistake of its own.
pub fn read(raw: Option<&RawSettings>, at: &Path, mistakes: &mut Mistakes) -> TopicSettings {
    let mut settings = TopicSettings::new();
    for RawSetting { keys, value } in raw.into_iter().flat_map(|raw| &raw.0) {
        let name = keys.join(".");
        let path = keys.iter().fold(at.clone(), |path, key| path.key(key));
        let mut refuse = |what: String, hint: &str| mistakes.note(&path, what, Some(hint.to_owned()));
        let value = match value {
            Ok(value) => value.trim(),
            Err(kind) => {
                refuse(format!("is {kind}, not a string, a number, true or false"), TOPIC_SETTINGS);
                continue;
            }
        };
        if settings.contains_key(&name) {
            refuse("is given twice".to_owned(), "keep one of them");
            continue;
        }
        match judge(&name, value) {
            Ok(setting) => drop(settings.insert(name, setting)),
            Err((what, hint)) => refuse(what.to_owned(), hint),
        }
    }
    settings
}

/// Some settings must be as kladder sets them, others have their own keys.
fn judge(name: &str, value: &str) -> Result<TopicSetting, (&'static str, &'static str)> {
    let is_number = || value.parse::<i64>().is_ok_and(|number| number > 0);
    match (name, value) {
        ("cleanup.policy", _) => Err((
            "cannot be configured",
            "remove it: it is delete, or compact for the state topic; with the other one records would be lost",
        )),
        (_, "") => Err(("has no value", TOPIC_SETTINGS)),
        (_, OF_CLUSTER) => Ok(TopicSetting::OfCluster),
        ("message.timestamp.type", value) if value != "LogAppendTime" => Err((
            "would make records early or late",
            "remove it, or write \"default\" if only the cluster may set it and sets LogAppendTime",
        )),
        ("retention.ms", _) => Err((
            "is not configured here",
            "set outage_budget and dlq_retention of [ladder.NAME.topics], or write \"default\" to leave it to the cluster",
        )),
        ("min.insync.replicas" | "max.message.bytes", _) if !is_number() => {
            Err(("is not a whole number above 0", TOPIC_SETTINGS))
        }
        _ => Ok(TopicSetting::Value(value.to_owned())),
    }
}
