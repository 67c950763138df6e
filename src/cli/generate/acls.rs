//! `kladder generate acls`

use clap::{Args, ValueEnum};

use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::{ConfigArg, chosen_ladders, config_file};
use crate::core::harmless::is_harmful;
use crate::topology::{AclRole, acl_commands, acls};

/// Print the kafka-acls.sh commands that grant a role its minimum rights
///
/// For the authorizers of Kafka 2.8 and later, where Read, Write and Alter imply Describe, and Write on a topic implies
/// idempotence. `status --exact` reads the records, so it also needs Read on the redeliver topic and the DLQ.
///
/// Resources are named literally. The mover still empties a tier that was removed from the configuration: keep the rules of
/// that tier until it is empty.
#[derive(Debug, Args)]
pub struct AclsArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Role to grant [default: all roles of the ladder's mode]; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<AclRole>,

    /// Principal to allow
    #[arg(long, value_name = "PRINCIPAL", default_value = "User:kladder", value_parser = name)]
    principal: String,

    /// Instance name of a worker, for its transactional.id [default: worker.instance]; may be
    /// repeated
    #[arg(long = "instance", value_name = "NAME", value_parser = name)]
    instances: Vec<String>,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,
}

/// Text that becomes part of a command must not change when pasted.
fn name(text: &str) -> Result<String, String> {
    if text.chars().any(is_harmful) { Err("contains control characters".to_owned()) } else { Ok(text.to_owned()) }
}

impl ValueEnum for AclRole {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.as_str()))
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
                    tell!("ladder {} has no {} in its mode", ladder.ladder.name(), role.as_str());
                }
                continue;
            }
            text += &["# ladder ", ladder.ladder.name(), ", ", role.as_str(), "\n"].concat();
            for command in acl_commands(&rules, &args.principal, config.kafka.brokers()) {
                text += &command;
                text.push('\n');
            }
        }
    }
    output::print(&text)?;
    Ok(Exit::Done)
}
