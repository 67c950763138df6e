//! `kladder generate acls`

use clap::{Args, ValueEnum};

use crate::cli::exit::Exit;
use crate::cli::{ConfigArg, chosen_ladders, config_file, stdout};
use crate::topology::{AclRole, acl_commands, acls};

/// Print the kafka-acls.sh commands that a role needs, and no more
///
/// For the authorizers of Kafka 2.8 and later, with which Read, Write and Alter imply Describe, and Write on a topic implies
/// idempotence. `status --exact` reads the records, so it needs Read on the redeliver topic and the DLQ too.
///
/// Resources are named literally. A tier that is taken out of the configuration is still emptied by the mover: leave its rules
/// until it is empty.
#[derive(Debug, Args)]
pub struct AclsArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// For whom; all roles that the ladder's mode has unless said; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<AclRole>,

    /// Who is allowed
    #[arg(long, value_name = "PRINCIPAL", default_value = "User:kladder")]
    principal: String,

    /// The name of a worker, for its transactional.id; `worker.instance` unless said; may be repeated
    #[arg(long = "instance", value_name = "NAME")]
    instances: Vec<String>,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,
}

impl ValueEnum for AclRole {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

pub fn run(args: &AclsArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let ladders = chosen_ladders(&config, &args.ladders)?;
    let instances: Vec<&str> = if args.instances.is_empty() {
        vec![config.worker.instance.as_str()]
    } else {
        args.instances.iter().map(String::as_str).collect()
    };
    let chosen: &[AclRole] = if args.roles.is_empty() { &AclRole::ALL } else { &args.roles };
    let mut text = String::new();
    for ladder in ladders {
        for role in chosen {
            let rules = acls(ladder, *role, &instances);
            if rules.is_empty() {
                if !args.roles.is_empty() {
                    eprintln!("ladder {} has no {} in its mode", ladder.ladder.name(), role.name());
                }
                continue;
            }
            text += &["# ladder ", ladder.ladder.name(), ", ", role.name(), "\n"].concat();
            for command in acl_commands(&rules, &args.principal, config.kafka.brokers()) {
                text += &command;
                text.push('\n');
            }
        }
    }
    stdout::print(&text)?;
    Ok(Exit::Done)
}
