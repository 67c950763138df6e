//! The configuration: a TOML file as domain types. Every value of these types is valid; see [`load()`] for how mistakes
//! are reported.

pub mod client_properties;
#[cfg(feature = "cli")]
pub mod load;
#[cfg(feature = "cli")]
pub mod mistake;
pub mod types;

#[cfg(feature = "cli")]
mod across;
#[cfg(feature = "cli")]
mod document;
#[cfg(feature = "cli")]
mod handler_section;
mod instance;
mod kafka_property;
#[cfg(feature = "cli")]
mod kafka_section;
#[cfg(feature = "cli")]
mod keys;
#[cfg(feature = "cli")]
mod ladder_section;
pub mod nearest;
mod owned;
#[cfg(feature = "cli")]
mod path;
#[cfg(feature = "cli")]
mod raw;
pub mod redact;
#[cfg(feature = "cli")]
mod rules_section;
#[cfg(feature = "cli")]
mod scope;
#[cfg(feature = "cli")]
mod service_sections;
#[cfg(feature = "cli")]
mod strict;
#[cfg(feature = "cli")]
mod substitute;
#[cfg(feature = "cli")]
mod tiers;
#[cfg(feature = "cli")]
mod topic_settings;
#[cfg(feature = "cli")]
mod values;

#[cfg(all(test, feature = "cli"))]
mod load_tests;

pub use instance::is_instance_name;
pub use kafka_property::PropertyError;
#[cfg(feature = "cli")]
pub use load::{Surroundings, load};
#[cfg(feature = "cli")]
pub use mistake::ConfigErrors;
pub use types::*;
