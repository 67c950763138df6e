//! A dead-letter topic and everything known about it: owner, state topic, redrive targets.

use std::path::{Path, PathBuf};

use crate::core::dialect::Dialect;
use crate::core::ladder::Ladder;
use crate::core::topics::own_dlq_topic;
use crate::dlq::groups::hash;

/// A dead-letter topic.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its name: that of the ladder or the [dlq] section, or the topic.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// The topic of its letters' states; without one the queue is read-only.
    pub state_topic: Option<String>,
    /// Prefix of its letters' keys in that topic, to distinguish several dead-letter topics of one
    /// ladder.
    pub prefix: String,
    /// The framework that writes it; detected per letter if `None`.
    pub dialect: Option<Dialect>,
    /// The ladder that it belongs to.
    pub ladder: Option<Ladder>,
    /// Redrive targets: the ladder's sources, and topics named in the configuration.
    pub targets: Vec<String>,
    /// Number of redrives after which a letter is parked.
    pub park_after: u32,
}

/// Prefix of letters in the main dead-letter topic.
const LETTER: &str = "letter";

impl Queue {
    /// The dead-letter topic of a ladder: its main one, or that of a rule.
    #[must_use]
    pub fn of_ladder(ladder: &Ladder, own: Option<&str>, targets: &[String], park_after: u32) -> Self {
        let mut all: Vec<String> = ladder.sources().to_vec();
        all.extend(targets.iter().filter(|target| !ladder.sources().contains(target)).cloned());
        Self {
            name: own.map_or_else(|| ladder.name().to_owned(), |own| format!("{}/{own}", ladder.name())),
            topic: own.map_or_else(|| ladder.dlq_topic(), |own| own_dlq_topic(ladder.name(), own)),
            state_topic: Some(ladder.state_topic()),
            prefix: own.map_or_else(|| LETTER.to_owned(), |own| format!("{LETTER}.{own}")),
            dialect: None,
            ladder: Some(ladder.clone()),
            targets: all,
            park_after,
        }
    }

    /// A topic that is not in the configuration.
    #[must_use]
    pub fn of_topic(topic: &str, dialect: Option<Dialect>, park_after: u32) -> Self {
        Self {
            name: topic.to_owned(),
            topic: topic.to_owned(),
            state_topic: None,
            prefix: LETTER.to_owned(),
            dialect,
            ladder: None,
            targets: Vec::new(),
            park_after,
        }
    }

    /// The dead-letter topic of another framework, from the configuration.
    #[must_use]
    pub fn of_section(name: &str, topic: &str, dialect: Option<Dialect>, targets: &[String], park_after: u32) -> Self {
        Self {
            name: name.to_owned(),
            state_topic: Some(crate::core::topics::state_topic(name)),
            targets: targets.to_vec(),
            ..Self::of_topic(topic, dialect, park_after)
        }
    }

    /// The topics that its index is built from.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        std::iter::once(self.topic.clone()).chain(self.state_topic.clone()).collect()
    }

    /// The transactional.id shared by all writers of its letters' states, who take turns.
    #[must_use]
    pub fn transactional_id(&self) -> String {
        let name = self.name.split('/').next().unwrap_or(&self.name);
        format!("{name}.dlq")
    }

    /// The path of its index: one file per topic and cluster.
    #[must_use]
    pub fn index_path(&self, state_dir: &Path, cluster: &str) -> PathBuf {
        let safe: String =
            self.topic.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).take(100).collect();
        let of = format!("{cluster}\0{}\0{}", self.topic, self.state_topic.as_deref().unwrap_or_default());
        state_dir.join("dlq").join(format!("{safe}-{:08x}.sqlite", hash(of.as_bytes()) & 0xffff_ffff))
    }
}
