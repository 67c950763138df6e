//! Reads a configuration and reports all mistakes at once.
//!
//! The steps: TOML, substitution of `${…}` in every string, keys and types (see `strict`), meaning of the values. A mistake in one
//! step does not hide those of the next; only broken TOML ends it, since the rest could not be interpreted.

use std::io;
use std::path::Path as FilePath;

use crate::config::across;
use crate::config::document::Document;
use crate::config::kafka_section::{self, PropertyCheck};
use crate::config::ladder_section;
use crate::config::mistake::{ConfigErrors, Mistakes};
use crate::config::path::Path;
use crate::config::scope::Scope;
use crate::config::service_sections;
use crate::config::strict;
use crate::config::substitute::{self, Sources};
use crate::config::types::Config;

/// What a configuration uses besides its own text.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Looks up an environment variable, for `${VAR}`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file, for `${file:PATH}`.
    pub read_file: &'a dyn Fn(&FilePath) -> io::Result<String>,
    /// The host name: the default of the worker's instance name.
    pub host_name: &'a str,
    /// Asks the Kafka client whether it accepts a property with a value.
    pub check_property: PropertyCheck<'a>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("host_name", &self.host_name).finish_non_exhaustive()
    }
}

/// Reads the text of a configuration file.
///
/// # Errors
/// All mistakes at once, each with its place, what is wrong and what to do; secrets are not shown.
pub fn load(text: &str, surroundings: &Surroundings<'_>) -> Result<Config, ConfigErrors> {
    // The byte order mark that some editors write.
    let document = Document::parse(text.trim_start_matches('\u{feff}'))?;
    let mut mistakes = Mistakes::default();
    let mut table = document.table().clone();
    let sources = Sources { env: surroundings.env, read_file: surroundings.read_file };
    substitute::fill_in(&mut table, &Path::default(), sources, &mut mistakes);
    let raw = strict::read(table, &mut mistakes);

    let kafka = kafka_section::read(raw.kafka.as_ref(), &document, surroundings.check_property, &mut mistakes);
    let (health, admin) = service_sections::listeners(raw.health, raw.admin, &mut mistakes);
    let worker = service_sections::worker(raw.worker, surroundings.host_name, &mut mistakes);
    let schema_registry = service_sections::schema_registry(raw.schema_registry, &mut mistakes);
    let alerts = service_sections::alerts(raw.alerts, &mut mistakes);
    let defaults = raw.defaults.unwrap_or_default();
    let (raw_ladders, raw_queues) = (raw.ladder.unwrap_or_default(), raw.dlq.unwrap_or_default());
    if raw_ladders.is_empty() && raw_queues.is_empty() {
        mistakes
            .note_missing(&Path::of("ladder"), "name at least one: [ladder.billing-orders]; `kladder init` prints a whole file");
    }
    let mut ladders = Vec::new();
    for (name, own) in &raw_ladders {
        ladders.extend(ladder_section::read(name, &Scope::new(name, own, &defaults), &mut mistakes));
    }
    let mut queues = Vec::new();
    for (name, own) in &raw_queues {
        queues.extend(ladder_section::queue(name, own, &defaults, &mut mistakes));
        if raw_ladders.contains_key(name) {
            let hint = Some("their topics would have the same names: choose another name".to_owned());
            mistakes.note(&Path::of("dlq").key(name), "is also the name of a ladder", hint);
        }
    }
    across::check(&raw_ladders, &ladders, &mut mistakes);

    match (health, admin) {
        (Some(health), Some(admin)) if mistakes.is_empty() => {
            Ok(Config { kafka, health, admin, worker, schema_registry, alerts, ladders, queues })
        }
        _ => Err(document.errors(mistakes)),
    }
}
