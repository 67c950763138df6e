//! The configuration: a TOML file as domain types. What exists here is valid; see [`load()`] for how mistakes are told.

pub mod load;
pub mod mistake;
pub mod properties;
pub mod types;

mod across;
mod document;
mod kafka_property;
mod kafka_section;
mod keys;
mod ladder_section;
pub mod nearest;
mod owned;
mod path;
mod raw;
mod redact;
mod rules_section;
mod service_sections;
mod strict;
mod substitute;
mod tiers;

#[cfg(test)]
mod load_tests;

pub use kafka_property::PropertyError;
pub use kafka_section::PropertyCheck;
pub use load::{Surroundings, load};
pub use mistake::{ConfigErrors, Mistake};
pub use service_sections::is_instance_name;
pub use types::*;
