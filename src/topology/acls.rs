//! The rules that each role needs, and no more, as `kafka-acls.sh` commands.
//!
//! They are what a broker with an authorizer asks for, tried role by role (`tests/broker/acls.rs`). Read, Write and Alter imply
//! Describe with Kafka's own authorizers, and since Kafka 2.8 Write on a topic implies writing to it idempotently, so neither is
//! granted by itself.
//!
//! Every worker reads the state topic before it begins: whether the ladder is held, and whose it is, stands there.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::LadderConfig;
use crate::core::ladder::{Hops, Ladder, Mode, Redelivery};
use crate::core::topics::{mover_group, router_group, transactional_id};

/// Who works with a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AclRole {
    /// Moves due records from the tiers to redeliver.
    Mover,
    /// Consumes source and redeliver (push).
    Deliverer,
    /// Consumes the inbox (relay).
    Router,
    /// Feeds the index of dead letters.
    Index,
    /// Redrives, discards, holds and resumes.
    Redrive,
    /// `kladder setup`
    Setup,
    /// `kladder status`, without `--exact`: that one reads the records, dead letters too.
    Status,
    /// The application that puts failed records into the inbox and consumes redeliver (relay).
    App,
}

/// What a rule is about; always by its literal name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
    /// A transactional.id
    TransactionalId(String),
}

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Fetch, or commit offsets. Implies describing.
    Read,
    /// Produce, or use a transactional.id. Implies describing.
    Write,
    /// Make a topic.
    Create,
    /// Add partitions. Implies describing.
    Alter,
    /// Look at it.
    Describe,
    /// Look at its settings.
    DescribeConfigs,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// On what.
    pub resource: Resource,
    /// Which operations.
    pub operations: BTreeSet<Operation>,
}

impl AclRole {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Mover, Self::Deliverer, Self::Router, Self::Index, Self::Redrive, Self::Setup, Self::Status, Self::App];

    /// Whether a ladder of this mode has this role.
    #[must_use]
    pub fn is_of(self, mode: Mode) -> bool {
        match self {
            Self::Deliverer => mode == Mode::Push,
            Self::Router | Self::App => mode == Mode::Relay,
            _ => true,
        }
    }

    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mover => "mover",
            Self::Deliverer => "deliverer",
            Self::Router => "router",
            Self::Index => "index",
            Self::Redrive => "redrive",
            Self::Setup => "setup",
            Self::Status => "status",
            Self::App => "app",
        }
    }
}

/// The rules that a role needs; none where a ladder of this mode has no such role. `instances` are the workers' names.
#[must_use]
pub fn acls(config: &LadderConfig, role: AclRole, instances: &[&str]) -> Vec<Acl> {
    let ladder = &config.ladder;
    if !role.is_of(ladder.mode()) {
        return Vec::new();
    }
    let mut rules = Rules::default();
    match role {
        AclRole::Mover => {
            rules.group(mover_group(ladder.name()), &[Operation::Read]);
            // It hops from tier to tier too: a record whose time is further off than its tier waits on.
            rules.topics(tiers(ladder), &[Operation::Read, Operation::Write]);
            // It reads a broker's clock by a record of its own in the state topic.
            rules.topics(ladder.back_topics().into_iter().chain([ladder.state_topic()]), &[Operation::Write]);
            rules.topics([ladder.state_topic()], &[Operation::Read]);
            if ladder.redelivery() == Redelivery::Origin {
                // What has no origin.
                rules.topics([ladder.dlq_topic()], &[Operation::Write]);
            }
            rules.transactions(ladder, "mover", instances);
        }
        AclRole::Deliverer => {
            rules.group(ladder.group().to_owned(), &[Operation::Read]);
            rules.topics(ladder.sources().iter().cloned(), &[Operation::Read]);
            rules.topics([ladder.redeliver_topic(), ladder.state_topic()], &[Operation::Read]);
            // It tells the others that dead letters are held.
            rules.topics([ladder.state_topic()], &[Operation::Write]);
            rules.topics(tiers(ladder), &[Operation::Write]);
            rules.topics(ladder.dlq_topics(), &[Operation::Write]);
            rules.transactions(ladder, "deliverer", instances);
        }
        AclRole::Router => {
            rules.group(router_group(ladder.name()), &[Operation::Read]);
            // Success is presumed from what the application's group has committed.
            rules.group(ladder.group().to_owned(), &[Operation::Describe]);
            rules.topics([ladder.inbox_topic(), ladder.state_topic()], &[Operation::Read]);
            // It holds the ladder where the application drops the headers, and dead letters where there are too many.
            rules.topics([ladder.state_topic()], &[Operation::Write]);
            // What was redelivered, to know it again without its headers.
            rules.topics(ladder.back_topics(), &[Operation::Read]);
            rules.topics(tiers(ladder), &[Operation::Write]);
            rules.topics(ladder.dlq_topics(), &[Operation::Write]);
            rules.transactions(ladder, "router", instances);
        }
        AclRole::Index => rules.topics(ladder.dlq_topics().into_iter().chain([ladder.state_topic()]), &[Operation::Read]),
        AclRole::Redrive => {
            rules.topics(ladder.dlq_topics(), &[Operation::Read]);
            rules.topics([ladder.state_topic()], &[Operation::Read, Operation::Write]);
            rules.topics(ladder.back_topics(), &[Operation::Write]);
            // One for all who write dead-letter state: they take turns by it.
            rules.add(Resource::TransactionalId(ladder.dlq_topic()), &[Operation::Write]);
        }
        AclRole::Setup => setup(&mut rules, ladder),
        AclRole::Status => {
            let read_by_group = ladder.sources().iter().cloned().chain(ladder.back_topics());
            rules.topics(read_by_group.chain(ladder.dlq_topics()), &[Operation::Describe]);
            // The head of a tier is read for its time, the state for whether the ladder is held.
            rules.topics(tiers(ladder), &[Operation::Read]);
            rules.topics([ladder.state_topic()], &[Operation::Read]);
            rules.group(mover_group(ladder.name()), &[Operation::Describe]);
            rules.group(ladder.group().to_owned(), &[Operation::Describe]);
            if ladder.mode() == Mode::Relay {
                rules.topics([ladder.inbox_topic()], &[Operation::Describe]);
                rules.group(router_group(ladder.name()), &[Operation::Describe]);
            }
        }
        AclRole::App => {
            rules.group(ladder.group().to_owned(), &[Operation::Read]);
            // What it may do on its sources is its own affair, also where records come back in them.
            if ladder.redelivery() == Redelivery::Topic {
                rules.topics([ladder.redeliver_topic()], &[Operation::Read]);
            }
            if ladder.dialect().is_none() {
                rules.topics([ladder.inbox_topic()], &[Operation::Write]);
            }
        }
    }
    rules.done()
}

fn setup(rules: &mut Rules, ladder: &Ladder) {
    rules.topics(ladder.sources().iter().cloned(), &[Operation::Describe, Operation::DescribeConfigs]);
    let mut own: Vec<String> = tiers(ladder).collect();
    own.extend(ladder.dlq_topics());
    own.push(ladder.state_topic());
    // To commit an offset takes Read on both the group and the topic.
    let mut committed: Vec<String> = tiers(ladder).collect();
    if ladder.redelivery() == Redelivery::Topic {
        own.push(ladder.redeliver_topic());
        committed.push(ladder.redeliver_topic());
    }
    rules.group(mover_group(ladder.name()), &[Operation::Read]);
    rules.group(ladder.group().to_owned(), &[Operation::Read]);
    match ladder.mode() {
        Mode::Push => committed.extend(ladder.sources().iter().cloned()),
        Mode::Relay => {
            if ladder.dialect().is_none() {
                own.push(ladder.inbox_topic());
            } else {
                rules.topics([ladder.inbox_topic()], &[Operation::Describe, Operation::DescribeConfigs]);
            }
            committed.push(ladder.inbox_topic());
            rules.group(router_group(ladder.name()), &[Operation::Read]);
        }
    }
    rules.topics(own, &[Operation::Create, Operation::Alter, Operation::DescribeConfigs]);
    rules.topics(committed, &[Operation::Read]);
    // It reads whom the ladder belongs to, and puts that down.
    rules.topics([ladder.state_topic()], &[Operation::Read, Operation::Write]);
}

fn tiers(ladder: &Ladder) -> impl Iterator<Item = String> {
    ladder.tiers().iter().map(|t| t.topic().to_owned())
}

#[derive(Default)]
struct Rules(BTreeMap<Resource, BTreeSet<Operation>>);

impl Rules {
    fn add(&mut self, resource: Resource, operations: &[Operation]) {
        self.0.entry(resource).or_default().extend(operations);
    }

    fn topics(&mut self, topics: impl IntoIterator<Item = String>, operations: &[Operation]) {
        for topic in topics {
            self.add(Resource::Topic(topic), operations);
        }
    }

    fn group(&mut self, group: String, operations: &[Operation]) {
        self.add(Resource::Group(group), operations);
    }

    /// What a worker needs for its hops besides the topics.
    fn transactions(&mut self, ladder: &Ladder, role: &str, instances: &[&str]) {
        if ladder.hops() == Hops::ExactlyOnce {
            for instance in instances {
                let id = transactional_id(ladder.name(), role, instance);
                self.add(Resource::TransactionalId(id), &[Operation::Write]);
            }
        }
    }

    /// Without what is implied.
    fn done(self) -> Vec<Acl> {
        let implies_describe = [Operation::Read, Operation::Write, Operation::Alter];
        let rule = |(resource, mut operations): (Resource, BTreeSet<Operation>)| {
            if implies_describe.iter().any(|o| operations.contains(o)) {
                operations.remove(&Operation::Describe);
            }
            Acl { resource, operations }
        };
        self.0.into_iter().map(rule).collect()
    }
}

/// The commands that add these rules for a principal; resources with the same operations share one.
#[must_use]
pub fn commands(acls: &[Acl], principal: &str, bootstrap_servers: &str) -> Vec<String> {
    let mut by_operations: BTreeMap<(u8, &BTreeSet<Operation>), Vec<&Resource>> = BTreeMap::new();
    for acl in acls {
        let kind = match acl.resource {
            Resource::Topic(_) => 0,
            Resource::Group(_) => 1,
            Resource::TransactionalId(_) => 2,
        };
        by_operations.entry((kind, &acl.operations)).or_default().push(&acl.resource);
    }
    let start =
        format!("kafka-acls.sh --bootstrap-server {} --add --allow-principal {}", quoted(bootstrap_servers), quoted(principal));
    by_operations
        .into_iter()
        .map(|((_, operations), resources)| {
            let operations = operations.iter().map(|o| format!(" --operation {o:?}"));
            std::iter::once(start.clone()).chain(operations).chain(resources.into_iter().map(option)).collect()
        })
        .collect()
}

fn option(resource: &Resource) -> String {
    match resource {
        Resource::Topic(name) => format!(" --topic {}", quoted(name)),
        Resource::Group(name) => format!(" --group {}", quoted(name)),
        Resource::TransactionalId(name) => format!(" --transactional-id {}", quoted(name)),
    }
}

/// Quoted for a shell where that is needed: groups and principals may hold spaces (`User:CN=a b`).
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/=,@+%".contains(&b));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::fixtures::{push, relay, relay_to_origin};

    #[test]
    fn each_role_gets_what_it_needs_and_no_more() {
        let mut text = String::new();
        for (mode, config) in [("push", push()), ("relay", relay()), ("relay to origin", relay_to_origin())] {
            for role in AclRole::ALL {
                text += &["# ", mode, ", ", role.name(), "\n"].concat();
                for command in commands(&acls(&config, role, &["pod-0", "pod-1"]), "User:kladder", "kafka:9092") {
                    text += &command;
                    text.push('\n');
                }
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn without_redelivery_to_the_origin_nobody_may_write_to_a_source() {
        let writes = |config: &LadderConfig, role| {
            acls(config, role, &["a"])
                .iter()
                .any(|a| a.resource == Resource::Topic("orders".into()) && a.operations.contains(&Operation::Write))
        };
        for role in AclRole::ALL {
            assert!(!writes(&push(), role) && !writes(&relay(), role), "{role:?}");
            assert_eq!(writes(&relay_to_origin(), role), matches!(role, AclRole::Mover | AclRole::Redrive), "{role:?}");
        }
    }

    #[test]
    fn only_setup_may_create() {
        for role in AclRole::ALL {
            let creates = acls(&push(), role, &["a"]).iter().any(|a| a.operations.contains(&Operation::Create));
            assert_eq!(creates, role == AclRole::Setup, "{role:?}");
        }
    }

    #[test]
    fn what_a_shell_would_read_is_quoted() {
        assert_eq!(quoted("User:kladder"), "User:kladder");
        assert_eq!(quoted("User:CN=it's me"), r"'User:CN=it'\''s me'");
    }
}
