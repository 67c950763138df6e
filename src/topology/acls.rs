//! The minimum ACL rules of each role, as `kafka-acls.sh` commands.
//!
//! They were determined with a real authorizer, role by role (`tests/broker/acls.rs`). With Kafka's own authorizers Read, Write
//! and Alter imply Describe, and since Kafka 2.8 Write on a topic implies idempotent writes, so neither is granted separately.
//!
//! Every worker reads the state topic before it begins, for holds and the owner.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::LadderConfig;
use crate::core::ladder::{Hops, Ladder, Mode, Redelivery};
use crate::core::role::Role;
use crate::core::topics::{mover_group, router_group, transactional_id};

/// A role for ACLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AclRole {
    /// A role of a process.
    Process(Role),
    /// Redrives, discards, holds and resumes.
    Redrive,
    /// `kladder setup`
    Setup,
    /// `kladder status` without `--exact`, which reads the records, dead letters too.
    Status,
    /// The application that puts failed records into the inbox and consumes redeliver (relay).
    App,
}

/// The resource of a rule; a literal name unless noted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
    /// A transactional.id
    TransactionalId(String),
    /// All transactional ids with this prefix: if one is blocked, its worker continues under another.
    TransactionalIds(String),
}

/// An allowed operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Fetch, or commit offsets. Implies Describe.
    Read,
    /// Produce, or use a transactional.id. Implies Describe.
    Write,
    /// Create a topic.
    Create,
    /// Add partitions. Implies Describe.
    Alter,
    /// Describe.
    Describe,
    /// Read settings.
    DescribeConfigs,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// The resource.
    pub resource: Resource,
    /// The operations.
    pub operations: BTreeSet<Operation>,
}

impl AclRole {
    /// All roles.
    pub const ALL: [Self; 8] = [
        Self::Process(Role::Mover),
        Self::Process(Role::Deliverer),
        Self::Process(Role::Router),
        Self::Process(Role::Index),
        Self::Redrive,
        Self::Setup,
        Self::Status,
        Self::App,
    ];

    /// Whether a ladder of this mode has this role.
    #[must_use]
    pub fn is_of(self, mode: Mode) -> bool {
        match self {
            Self::Process(Role::Deliverer) => mode == Mode::Push,
            Self::Process(Role::Router) | Self::App => mode == Mode::Relay,
            _ => true,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process(role) => role.as_str(),
            Self::Redrive => "redrive",
            Self::Setup => "setup",
            Self::Status => "status",
            Self::App => "app",
        }
    }
}

/// The rules of a role; none if ladders of this mode do not have it. `instances` are the workers' instance names.
#[must_use]
pub fn acls(config: &LadderConfig, role: AclRole, instances: &[&str]) -> Vec<Acl> {
    let ladder = &config.ladder;
    if !role.is_of(ladder.mode()) {
        return Vec::new();
    }
    let mut rules = Rules::default();
    match role {
        AclRole::Process(Role::Mover) => {
            rules.group(mover_group(ladder.name()), &[Operation::Read]);
            // It also hops between tiers: a record whose not-before time is later than its tier waits
            // again.
            rules.topics(tiers(ladder), &[Operation::Read, Operation::Write]);
            // It reads a broker's clock by writing a record to the state topic.
            rules.topics(ladder.back_topics().into_iter().chain([ladder.state_topic()]), &[Operation::Write]);
            rules.topics([ladder.state_topic()], &[Operation::Read]);
            // Records without an origin, and records that are too large with their headers.
            rules.topics([ladder.dlq_topic()], &[Operation::Write]);
            rules.transactions(ladder, Role::Mover, instances);
        }
        AclRole::Process(Role::Deliverer) => {
            rules.group(ladder.group().to_owned(), &[Operation::Read]);
            rules.topics(ladder.sources().iter().cloned(), &[Operation::Read]);
            rules.topics([ladder.redeliver_topic(), ladder.state_topic()], &[Operation::Read]);
            // It tells the other workers that dead letters are held.
            rules.topics([ladder.state_topic()], &[Operation::Write]);
            rules.topics(tiers(ladder), &[Operation::Write]);
            rules.topics(ladder.dlq_topics(), &[Operation::Write]);
            rules.transactions(ladder, Role::Deliverer, instances);
        }
        AclRole::Process(Role::Router) => {
            rules.group(router_group(ladder.name()), &[Operation::Read]);
            // Success is presumed from the committed offsets of the application's group.
            rules.group(ladder.group().to_owned(), &[Operation::Describe]);
            rules.topics([ladder.inbox_topic(), ladder.state_topic()], &[Operation::Read]);
            // It holds the ladder if the application drops the headers, and dead letters if there are too many.
            rules.topics([ladder.state_topic()], &[Operation::Write]);
            // It reads redelivered records, to recognise them without their headers.
            rules.topics(ladder.back_topics(), &[Operation::Read]);
            rules.topics(tiers(ladder), &[Operation::Write]);
            rules.topics(ladder.dlq_topics(), &[Operation::Write]);
            rules.transactions(ladder, Role::Router, instances);
        }
        AclRole::Process(Role::Index) => {
            rules.topics(ladder.dlq_topics().into_iter().chain([ladder.state_topic()]), &[Operation::Read]);
        }
        AclRole::Redrive => {
            rules.topics(ladder.dlq_topics(), &[Operation::Read]);
            rules.topics([ladder.state_topic()], &[Operation::Read, Operation::Write]);
            rules.topics(ladder.back_topics(), &[Operation::Write]);
            // One for all writers of dead-letter state: they take turns by it.
            rules.add(Resource::TransactionalId(ladder.dlq_topic()), &[Operation::Write]);
        }
        AclRole::Setup => setup(&mut rules, ladder),
        AclRole::Status => {
            let read_by_group = ladder.sources().iter().cloned().chain(ladder.back_topics());
            rules.topics(read_by_group.chain(ladder.dlq_topics()), &[Operation::Describe]);
            // The head of a tier is read for its timestamp, the state for a hold.
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
            // Its rights on the sources are its own affair, also if records are redelivered to them.
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
    // Committing an offset needs Read on both the group and the topic.
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
    // It reads and writes the owner record.
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

    /// What a worker needs for transactions, besides the topics.
    fn transactions(&mut self, ladder: &Ladder, role: Role, instances: &[&str]) {
        if ladder.hops() == Hops::ExactlyOnce {
            for instance in instances {
                let id = transactional_id(ladder.name(), role, instance);
                self.add(Resource::TransactionalIds(id), &[Operation::Write]);
            }
        }
    }

    /// Without implied operations.
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
            Resource::TransactionalIds(_) => 3,
        };
        by_operations.entry((kind, &acl.operations)).or_default().push(&acl.resource);
    }
    let start =
        format!("kafka-acls.sh --bootstrap-server {} --add --allow-principal {}", quoted(bootstrap_servers), quoted(principal));
    by_operations
        .into_iter()
        .map(|((_, operations), resources)| {
            let operations = operations.iter().map(|o| format!(" --operation {o:?}"));
            let is_prefix = resources.iter().any(|resource| matches!(resource, Resource::TransactionalIds(_)));
            let pattern = is_prefix.then(|| " --resource-pattern-type prefixed".to_owned());
            std::iter::once(start.clone()).chain(operations).chain(pattern).chain(resources.into_iter().map(option)).collect()
        })
        .collect()
}

fn option(resource: &Resource) -> String {
    match resource {
        Resource::Topic(name) => format!(" --topic {}", quoted(name)),
        Resource::Group(name) => format!(" --group {}", quoted(name)),
        Resource::TransactionalId(name) | Resource::TransactionalIds(name) => format!(" --transactional-id {}", quoted(name)),
    }
}

/// Quoted for a shell if necessary: groups and principals may contain spaces (`User:CN=a b`).
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
                text += &["# ", mode, ", ", role.as_str(), "\n"].concat();
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
            assert_eq!(
                writes(&relay_to_origin(), role),
                matches!(role, AclRole::Process(Role::Mover) | AclRole::Redrive),
                "{role:?}"
            );
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
