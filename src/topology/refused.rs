//! What a cluster would refuse of a plan, determined before anything is applied, and the remedies.

use crate::topology::{Change, Cluster, ClusterError, Desired, Observed, Plan, Refusal, Refused, RefusedFor, compare};

/// Asks the cluster whether it would accept the changes, and adds those that it would not to the refusals: then nothing is applied, instead
/// of a part. If the cluster does not support dry runs, the changes are assumed to be accepted.
///
/// # Errors
/// The cluster does not answer.
pub fn ask_first(plan: &mut Plan, cluster: &dyn Cluster) -> Result<(), ClusterError> {
    for ladder in &mut plan.ladders {
        let grown: Vec<&Change> = ladder.changes.iter().filter(|change| change.topic_that_grows().is_some()).collect();
        if grown.is_empty() {
            continue;
        }
        let refused = cluster.validate(&grown)?;
        // A ladder belongs to a group; the dead-letter topic of another framework does not.
        let table = if ladder.group.is_empty() {
            format!("[dlq.{}]", ladder.ladder)
        } else {
            format!("[ladder.{}.topics]", ladder.ladder)
        };
        let refusals: Vec<Refusal> = refused.iter().map(|refused| refused.to_refusal(&grown, &table)).collect();
        ladder.refusals.extend(refusals);
    }
    Ok(())
}

/// Asks the cluster for each differing setting whether it would accept the desired value: if not, no command that sets it is suggested,
/// since it would be refused.
///
/// # Errors
/// The cluster does not answer.
pub fn ask_caps(desired: &[Desired], observed: &mut Observed, cluster: &dyn Cluster) -> Result<(), ClusterError> {
    for topic in desired.iter().flat_map(|desired| &desired.topics) {
        let Some(facts) = observed.topics.get(&topic.name) else { continue };
        let mut caps = Vec::new();
        for difference in compare::differences(topic, facts) {
            if let Some(words) = cluster.refuses(&topic.name, difference.name, difference.have, &difference.want)? {
                caps.push(((topic.name.clone(), difference.name.to_owned()), words));
            }
        }
        observed.caps.extend(caps);
    }
    Ok(())
}

impl Refused {
    /// As a refusal of a plan, with remedy. `table` is the part of the configuration for the topic.
    fn to_refusal(&self, changes: &[&Change], table: &str) -> Refusal {
        let change = changes.iter().find(|change| change.topic_that_grows() == Some(self.topic.as_str()));
        let problem = match change {
            Some(Change::AddPartitions { want, .. }) => {
                format!("the cluster would refuse {want} partitions: {}", self.words)
            }
            _ => format!("the cluster would refuse to create it: {}", self.words),
        };
        Refusal { subject: self.topic.clone(), problem, remedy: self.remedy(change.copied(), table) }
    }

    fn remedy(&self, change: Option<&Change>, table: &str) -> String {
        match self.cause {
            RefusedFor::Policy => self.remedy_for_setting(change, table),
            RefusedFor::Name => {
                "choose another name: Kafka treats `.` and `_` in topic names as equal, so two topics that differ \
                                 only in these cannot coexist"
                    .to_owned()
            }
            RefusedFor::Replicas => format!("set replication_factor of {table} to at most the number of brokers"),
            RefusedFor::Partitions => format!("set partitions of {table} to a number that the cluster accepts"),
            RefusedFor::Rights => "`kladder generate acls --role setup` prints the required rules".to_owned(),
            RefusedFor::Other => "follow the cluster's message, or ask its operators".to_owned(),
        }
    }

    /// Policies name the setting that they concern; if this one does not, it may concern anything.
    fn remedy_for_setting(&self, change: Option<&Change>, table: &str) -> String {
        let settings = match change {
            Some(Change::CreateTopic { settings, .. }) => Some(settings),
            _ => None,
        };
        let named = settings.into_iter().flatten().map(|(name, _)| name).find(|name| self.words.contains(name.as_str()));
        match named.map(String::as_str) {
            Some("cleanup.policy") => "ask the cluster's operators to allow it: a ladder needs it".to_owned(),
            Some("retention.ms") if !table.starts_with("[dlq.") => format!(
                "lower outage_budget or dlq_retention of {table}, or leave it to the cluster: settings = {{ \"retention.ms\" = \"default\" }}"
            ),
            Some(name @ "message.timestamp.type") => {
                format!(
                    "leave it to the cluster, if its default is LogAppendTime: settings = {{ {name:?} = \"default\" }} of {table}"
                )
            }
            Some(name) => format!(
                "set a value that the cluster accepts, or leave it to the cluster: settings = {{ {name:?} = \"default\" }} of {table}"
            ),
            None => format!(
                "change what the message names: partitions, replication_factor and settings are in {table}; or ask the cluster's \
                 operators"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{LadderConfig, TopicSetting};
    use crate::topology::fixtures::{applied, limits, push, source, with_sources};
    use crate::topology::{Position, Scope, desired, plan};

    /// A cluster that accepts only some settings, and limits some values.
    #[derive(Default)]
    struct Hosted {
        allowed: Vec<&'static str>,
        most_bytes: i64,
        made: RefCell<usize>,
    }

    impl Hosted {
        fn words(&self, name: &str, value: &str) -> Option<String> {
            if !self.allowed.contains(&name) {
                return Some(format!("Config {name} cannot be set on this cluster"));
            }
            let too_much = name == "max.message.bytes" && value.parse::<i64>().unwrap() > self.most_bytes;
            too_much.then(|| format!("Config {name} has value {value} but must be at most {}", self.most_bytes))
        }
    }

    impl Cluster for Hosted {
        fn observe(&self, _: &Scope) -> Result<Observed, ClusterError> {
            unreachable!("the test observes")
        }

        fn validate(&self, changes: &[&Change]) -> Result<Vec<Refused>, ClusterError> {
            let refused = |change: &&Change| {
                let Change::CreateTopic { topic, settings, .. } = change else { return None };
                let words = settings.iter().find_map(|(name, value)| self.words(name, value))?;
                Some(Refused { topic: topic.clone(), cause: RefusedFor::Policy, words })
            };
            Ok(changes.iter().filter_map(refused).collect())
        }

        fn refuses(&self, _: &str, setting: &str, _: &str, want: &str) -> Result<Option<String>, ClusterError> {
            Ok(self.words(setting, want))
        }

        fn create_topics(&self, topics: &[&Change]) -> Result<Vec<Refused>, ClusterError> {
            *self.made.borrow_mut() += topics.len();
            Ok(Vec::new())
        }

        fn create_partitions(&self, _: &str, _: i32) -> Result<(), ClusterError> {
            Ok(())
        }

        fn wait_usable(&self, _: &BTreeMap<String, i32>) -> Result<(), ClusterError> {
            Ok(())
        }

        fn commit_offsets(&self, _: &str, _: &str, _: &[i32], _: Position) -> Result<(), ClusterError> {
            Ok(())
        }

        fn claim(&self, _: &str, _: &str) -> Result<(), ClusterError> {
            Ok(())
        }
    }

    fn hosted() -> Hosted {
        let allowed = ["cleanup.policy", "max.message.bytes", "message.timestamp.type", "retention.bytes", "retention.ms"];
        Hosted { allowed: allowed.to_vec(), most_bytes: 1_048_588, made: RefCell::default() }
    }

    fn planned(config: &LadderConfig, observed: &mut Observed, cluster: &Hosted) -> Plan {
        let desired = [desired(config, &observed.topics)];
        ask_caps(&desired, observed, cluster).unwrap();
        let mut plan = plan(&desired, observed, &limits());
        ask_first(&mut plan, cluster).unwrap();
        plan
    }

    fn set(config: &mut LadderConfig, name: &str, setting: TopicSetting) {
        config.topics.settings.insert(name.to_owned(), setting);
    }

    /// Following the remedies one after another leads to a ladder that is in order.
    #[test]
    fn remedies_lead_to_a_ladder_that_is_in_order() {
        let (mut config, cluster) = (push(), hosted());
        let mut empty = with_sources(&[("orders", source(3, 3, 2))]);
        let remedies = |plan: &Plan| plan.ladders[0].refusals.iter().map(|r| r.remedy.clone()).collect::<Vec<_>>();

        let first = planned(&config, &mut empty, &cluster);
        assert!(first.is_refused());
        let leave_out = "settings = { \"max.message.bytes\" = \"default\" } of [ladder.billing-orders.topics]";
        assert!(remedies(&first).iter().any(|remedy| remedy.contains(leave_out)), "{:?}", remedies(&first));
        set(&mut config, "max.message.bytes", TopicSetting::Value("1048588".to_owned()));

        let second = planned(&config, &mut empty, &cluster);
        let leave_out = "settings = { \"min.insync.replicas\" = \"default\" }";
        assert!(second.is_refused() && remedies(&second).iter().all(|remedy| remedy.contains(leave_out)));
        set(&mut config, "min.insync.replicas", TopicSetting::OfCluster);

        let third = planned(&config, &mut empty, &cluster);
        assert!(!third.is_refused(), "{third:?}");
        assert!(third.ladders[0].notes.iter().any(|n| n.text.contains("max.message.bytes 1048588 (configured) is less")));
        let mut after = applied(&third, &empty);
        after.topics.get_mut("billing-orders.dlq").unwrap().settings.insert("min.insync.replicas".to_owned(), "1".to_owned());
        assert!(planned(&config, &mut after, &cluster).is_in_order());
        assert_eq!(*cluster.made.borrow(), 0, "asking makes nothing");
    }

    /// Created by hand with what the cluster allows.
    #[test]
    fn what_the_cluster_does_not_take_is_a_note_and_no_drift() {
        let (config, cluster) = (push(), hosted());
        let mut observed = with_sources(&[("orders", source(3, 1, 1))]);
        observed = applied(&plan(&[desired(&config, &observed.topics)], &observed, &limits()), &observed);
        for name in ["billing-orders.retry-5s", "billing-orders.dlq"] {
            observed.topics.get_mut(name).unwrap().settings.insert("max.message.bytes".to_owned(), "1048588".to_owned());
        }
        observed.topics.get_mut("billing-orders.redeliver").unwrap().settings.insert("retention.ms".to_owned(), "1".to_owned());
        let plan = planned(&config, &mut observed, &cluster);
        let capped: Vec<_> = plan.ladders[0].caps.iter().map(|cap| (cap.topic.as_str(), cap.setting.as_str())).collect();
        assert_eq!(capped, [("billing-orders.retry-5s", "max.message.bytes"), ("billing-orders.dlq", "max.message.bytes")]);
        assert!(plan.ladders[0].caps[0].to_string().ends_with(
            "which the cluster does not accept: Config max.message.bytes has value 1064972 but must be at most 1048588"
        ));
        let drifted: Vec<_> = plan.ladders[0].drift.iter().map(|drift| drift.setting.as_str()).collect();
        assert_eq!(drifted, ["retention.ms"], "what can be mended is still drift");
    }

    #[test]
    fn what_no_ladder_can_do_without_is_refused_without_a_command_that_would_be_refused_too() {
        let (config, mut cluster) = (push(), hosted());
        let mut observed = with_sources(&[("orders", source(3, 1, 1))]);
        observed = applied(&plan(&[desired(&config, &observed.topics)], &observed, &limits()), &observed);
        let tier = observed.topics.get_mut("billing-orders.retry-5s").unwrap();
        tier.settings.insert("message.timestamp.type".to_owned(), "CreateTime".to_owned());
        let told = planned(&config, &mut observed, &cluster).ladders[0].refusals[0].remedy.clone();
        assert!(told.starts_with("kafka-configs.sh"), "{told}");
        cluster.allowed.retain(|name| *name != "message.timestamp.type");
        let told = planned(&config, &mut observed, &cluster).ladders[0].refusals[0].remedy.clone();
        assert!(told.contains("cannot be set on this cluster") && !told.contains("kafka-configs.sh"), "{told}");
    }

    #[test]
    fn each_cause_has_its_remedy() {
        let of = |cause, words: &str| {
            let refused = Refused { topic: "a.retry-5s".to_owned(), cause, words: words.to_owned() };
            refused.to_refusal(&[], "[ladder.a.topics]").remedy
        };
        assert!(of(RefusedFor::Name, "Topic 'a.b' collides with existing topic: a_b").contains("`.` and `_`"));
        assert!(of(RefusedFor::Replicas, "").contains("replication_factor of [ladder.a.topics]"));
        assert!(of(RefusedFor::Partitions, "").contains("partitions of [ladder.a.topics]"));
        assert!(of(RefusedFor::Rights, "").contains("generate acls --role setup"));
        assert!(of(RefusedFor::Policy, "names must begin with team-").contains("the message names"));
    }

    #[test]
    fn more_replicas_in_sync_than_there_are_is_refused_before_the_broker_is_asked() {
        let (mut config, cluster) = (push(), hosted());
        set(&mut config, "min.insync.replicas", TopicSetting::Value("3".to_owned()));
        let mut observed = with_sources(&[("orders", source(1, 2, 1))]);
        let plan = planned(&config, &mut observed, &cluster);
        let problem = "min.insync.replicas=3 is more than its replication factor of 2: every write would be refused";
        assert!(plan.ladders[0].refusals.iter().any(|refusal| refusal.problem == problem), "{plan:?}");
    }
}
