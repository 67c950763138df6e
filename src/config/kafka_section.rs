//! `[kafka]`: librdkafka's properties, dotted, quoted or nested.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::config::client_properties::Client;
use crate::config::document::Document;
use crate::config::kafka_property::{self, PropertyRefusal};
use crate::config::keys;
use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::redact;
use crate::config::types::KafkaConfig;

/// Asks librdkafka whether it accepts a value: `Err` has its message.
pub type PropertyCheck<'a> = &'a dyn Fn(&str, &str) -> Result<(), String>;

/// Reads the section. Properties only for producers or only for consumers go to those alone.
pub fn read(table: Option<&Table>, document: &Document<'_>, check: PropertyCheck<'_>, mistakes: &mut Mistakes) -> KafkaConfig {
    let root = Path::of("kafka");
    let mut found = Vec::new();
    if let Some(table) = table {
        flatten(table, &root, "", &mut found, mistakes);
    }
    let mut kafka = KafkaConfig::default();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for property in found {
        if let Some((name, value)) = property.judge(document, check, &mut seen, mistakes) {
            // A value in the client's own section overrides the common one, in any order.
            match kafka_property::home(property.section, &name) {
                Client::Producer if property.section == Client::Any => drop(kafka.producer.entry(name).or_insert(value)),
                Client::Consumer if property.section == Client::Any => drop(kafka.consumer.entry(name).or_insert(value)),
                Client::Producer => drop(kafka.producer.insert(name, value)),
                Client::Consumer => drop(kafka.consumer.insert(name, value)),
                Client::Any => drop(kafka.common.insert(name, value)),
            }
        }
    }
    let servers = root.keys(&["bootstrap", "servers"]);
    match kafka.common.get("bootstrap.servers") {
        Some(brokers) if brokers.trim().is_empty() => {
            mistakes.note(&servers, "names no broker", keys::hint(&servers).map(str::to_owned));
        }
        Some(_) => {}
        None if mistakes.touches(&root.key("metadata.broker.list")) => {}
        None => mistakes.note_missing(&servers, keys::hint(&servers).unwrap_or_default()),
    }
    newer_protocol(&kafka, &root, mistakes);
    kafka
}

/// With the newer group protocol (KIP-848) the broker controls sessions, and librdkafka refuses session settings in the client.
fn newer_protocol(kafka: &KafkaConfig, root: &Path, mistakes: &mut Mistakes) {
    if !kafka.has_newer_group_protocol() {
        return;
    }
    for (name, at_broker) in [
        ("session.timeout.ms", "group.consumer.session.timeout.ms"),
        ("heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ] {
        if kafka.consumer.contains_key(name) {
            let path = root.keys(&name.split('.').collect::<Vec<_>>());
            let hint = format!("remove it: it is a broker setting ({at_broker})");
            mistakes.note(&path, "cannot be combined with group.protocol = \"consumer\"", Some(hint));
        }
    }
}

struct Property {
    path: Path,
    section: Client,
    /// As written, dotted.
    name: String,
    value: String,
}

fn flatten(table: &Table, at: &Path, prefix: &str, found: &mut Vec<Property>, mistakes: &mut Mistakes) {
    for (key, value) in table {
        let path = at.key(key);
        let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let text = match value {
            Value::Table(inner) => {
                flatten(inner, &path, &dotted, found, mistakes);
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            Value::Array(_) | Value::Datetime(_) => {
                let hint = "write it as one string, a list with commas between its parts";
                mistakes.note(&path, "is not a string, a number, true or false", Some(hint.to_owned()));
                continue;
            }
        };
        let (section, name) = kafka_property::section(&dotted);
        found.push(Property { path, section, name: name.to_owned(), value: text });
    }
}

impl Property {
    /// The canonical name and the value, if kladder accepts them.
    fn judge(
        &self,
        document: &Document<'_>,
        check: PropertyCheck<'_>,
        seen: &mut BTreeMap<String, String>,
        mistakes: &mut Mistakes,
    ) -> Option<(String, String)> {
        let mut refuse = |what: String, hint: Option<String>| {
            mistakes.note(&self.path, what, hint);
            None
        };
        let name = match kafka_property::judge(&self.name, self.section, &self.value) {
            Ok(Some(name)) => name,
            Ok(None) => return None,
            Err(PropertyRefusal { what, hint }) => return refuse(what.to_owned(), Some(hint)),
        };
        let slot = format!("{:?}.{name}", self.section);
        if let Some(first) = seen.insert(slot, self.path.to_string()) {
            return refuse("is given twice".to_owned(), Some(format!("it is also given as `{first}`; keep one of them")));
        }
        if let Err(words) = check(name, &self.value) {
            // librdkafka quotes the value in its message.
            let hidden = redact::is_secret(&self.path.dotted()) || document.is_substituted(&self.path);
            return refuse(if hidden { "is refused by librdkafka".to_owned() } else { words }, None);
        }
        Some((name.to_owned(), self.value.clone()))
    }
}
