//! Compares an existing topic with what it should be.

use crate::core::delay::format_duration;
use crate::core::topics::TopicRole;
use crate::topology::desired::{
    CLEANUP_POLICY, MAX_MESSAGE_BYTES, MIN_INSYNC_REPLICAS, REPLICATION_FACTOR, RETENTION_BYTES, RETENTION_MS, TIMESTAMP_TYPE,
};
use crate::topology::{Cap, DesiredTopic, Drift, Limits, Observed, Refusal, TopicFacts};

/// The differences found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub drift: Vec<Drift>,
    pub caps: Vec<Cap>,
    pub refusals: Vec<Refusal>,
}

/// A setting that is not as it should be.
pub(super) struct Difference<'a> {
    pub name: &'a str,
    pub have: &'a str,
    pub want: String,
    /// Why no worker may run with it, if so.
    danger: Option<String>,
}

/// The settings of an existing topic that are not as they should be.
pub(super) fn differences<'a>(topic: &'a DesiredTopic, facts: &'a TopicFacts) -> impl Iterator<Item = Difference<'a>> {
    topic.settings.iter().filter_map(|(name, want)| {
        // A broker does not report a setting that it does not know.
        let have = facts.setting(name)?;
        let danger = danger(topic, name, have);
        let serves = topic.left_to_cluster.contains(name) || serves(topic, facts, name, have, want);
        (danger.is_some() || !serves).then(|| Difference { name, have, want: attainable(facts, name, want), danger })
    })
}

/// Compares the settings of an existing topic. What would lose records or make them early is refused; of the rest, what the cluster
/// would not accept is a cap, and everything else drift.
pub(super) fn compare(topic: &DesiredTopic, facts: &TopicFacts, observed: &Observed, limits: &Limits) -> Found {
    let mut found = Found::default();
    for Difference { name, have, want, danger } in differences(topic, facts) {
        let refused = observed.caps.get(&(topic.name.clone(), name.to_owned()));
        match (danger, refused) {
            (Some(problem), refused) => {
                // Existing records keep their timestamps, but later ones will be due in time.
                let remedy = match refused {
                    None => alter(topic, name, &want, limits),
                    Some(words) => format!(
                        "the cluster does not accept {name}={want} ({words}): ask its operators to allow it, since a ladder needs \
                         it"
                    ),
                };
                found.refusals.push(Refusal { subject: topic.name.clone(), problem, remedy });
            }
            (None, Some(words)) => found.caps.push(Cap {
                topic: topic.name.clone(),
                setting: name.to_owned(),
                have: have.to_owned(),
                want,
                words: words.clone(),
            }),
            (None, None) => found.drift.push(Drift {
                topic: topic.name.clone(),
                setting: name.to_owned(),
                have: have.to_owned(),
                command: alter(topic, name, &want, limits),
                want,
            }),
        }
    }
    if facts.replication_factor != topic.replication_factor {
        found.drift.push(Drift {
            topic: topic.name.clone(),
            setting: REPLICATION_FACTOR.to_owned(),
            have: facts.replication_factor.to_string(),
            want: topic.replication_factor.to_string(),
            command: format!(
                "kafka-reassign-partitions.sh --bootstrap-server {} --reassignment-json-file FILE --execute",
                limits.bootstrap_servers
            ),
        });
    }
    found
}

/// Why no worker may run with this value, if so.
fn danger(topic: &DesiredTopic, name: &str, have: &str) -> Option<String> {
    match (name, &topic.role) {
        (CLEANUP_POLICY, role) if *role != TopicRole::State && have != "delete" => {
            Some(format!("{name} is {have}: compaction deletes waiting records and dead letters"))
        }
        (TIMESTAMP_TYPE, TopicRole::Tier(_)) if have != "LogAppendTime" => {
            Some(format!("{name} is {have}: a record would be due by its producer's clock, early or late"))
        }
        (RETENTION_MS, TopicRole::Tier(delay)) => {
            let retention = have.parse::<i128>().ok().filter(|ms| *ms >= 0)?;
            (retention < i128::from(delay.as_millis())).then(|| {
                let retention = format_duration(std::time::Duration::from_millis(u64::try_from(retention).unwrap_or(0)));
                format!("{name} is {have} ({retention}), less than the tier's delay of {delay}: records would be deleted before they are due")
            })
        }
        _ => None,
    }
}

/// Whether a value is the desired one, or equally good.
fn serves(topic: &DesiredTopic, facts: &TopicFacts, name: &str, have: &str, want: &str) -> bool {
    let (Ok(have_number), Ok(want_number)) = (have.parse::<i128>(), want.parse::<i128>()) else { return have == want };
    match name {
        // Dead letters may contain data that must not be kept longer than configured.
        RETENTION_MS if topic.role == TopicRole::Dlq => have_number == want_number,
        RETENTION_MS => have_number < 0 || have_number >= want_number,
        RETENTION_BYTES => have_number == want_number,
        MAX_MESSAGE_BYTES => have_number >= want_number,
        // More than the number of replicas refuses every write.
        MIN_INSYNC_REPLICAS => {
            let replicas = i128::from(facts.replication_factor);
            (want_number.min(replicas)..=replicas).contains(&have_number)
        }
        _ => have == want,
    }
}

/// A topic with fewer replicas than desired can only have that many in sync.
fn attainable(facts: &TopicFacts, name: &str, want: &str) -> String {
    match want.parse::<i32>() {
        Ok(number) if name == MIN_INSYNC_REPLICAS => number.min(facts.replication_factor).to_string(),
        _ => want.to_owned(),
    }
}

fn alter(topic: &DesiredTopic, name: &str, want: &str, limits: &Limits) -> String {
    format!(
        "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} --add-config {name}={want}",
        limits.bootstrap_servers, topic.name
    )
}
