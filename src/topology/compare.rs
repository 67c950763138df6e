//! One topic as it is against what it should be.

use crate::core::delay::format_duration;
use crate::core::topics::TopicRole;
use crate::topology::desired::{
    CLEANUP_POLICY, MAX_MESSAGE_BYTES, MIN_INSYNC_REPLICAS, REPLICATION_FACTOR, RETENTION_BYTES, RETENTION_MS, TIMESTAMP_TYPE,
};
use crate::topology::{DesiredTopic, Drift, Limits, Refusal, TopicFacts};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub drift: Vec<Drift>,
    pub refusals: Vec<Refusal>,
}

/// Compares the settings of a topic that exists. What would lose records or make them early is refused; the rest is drift.
pub(super) fn compare(topic: &DesiredTopic, facts: &TopicFacts, limits: &Limits) -> Found {
    let mut found = Found::default();
    for (name, want) in &topic.settings {
        // A broker that does not tell a setting does not know it.
        let Some(have) = facts.setting(name) else { continue };
        if let Some(problem) = danger(topic, name, have) {
            // Records that are there keep the time that they have, but what comes after them will be due in time.
            let remedy = alter(topic, name, want, limits);
            found.refusals.push(Refusal { subject: topic.name.clone(), problem, remedy });
        } else if !serves(topic, facts, name, have, want) {
            let want = &attainable(facts, name, want);
            found.drift.push(Drift {
                topic: topic.name.clone(),
                setting: name.clone(),
                have: have.to_owned(),
                want: want.clone(),
                command: alter(topic, name, want, limits),
            });
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

/// Why no worker may run with this, where that is so.
fn danger(topic: &DesiredTopic, name: &str, have: &str) -> Option<String> {
    match (name, &topic.role) {
        (CLEANUP_POLICY, role) if *role != TopicRole::State && have != "delete" => {
            Some(format!("{name} is {have}: compaction deletes records that wait or were given up"))
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

/// Whether a setting is what is wanted, or as good.
fn serves(topic: &DesiredTopic, facts: &TopicFacts, name: &str, have: &str, want: &str) -> bool {
    let (Ok(have_number), Ok(want_number)) = (have.parse::<i128>(), want.parse::<i128>()) else { return have == want };
    match name {
        // Dead letters may hold what must not be kept for longer than it was said.
        RETENTION_MS if topic.role == TopicRole::Dlq => have_number == want_number,
        RETENTION_MS => have_number < 0 || have_number >= want_number,
        RETENTION_BYTES => have_number == want_number,
        MAX_MESSAGE_BYTES => have_number >= want_number,
        // More of it than there are replicas refuses every write.
        MIN_INSYNC_REPLICAS => {
            let replicas = i128::from(facts.replication_factor);
            (want_number.min(replicas)..=replicas).contains(&have_number)
        }
        _ => have == want,
    }
}

/// A topic with fewer replicas than it should have cannot have as many of them in sync.
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
