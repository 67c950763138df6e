//! The configuration: a TOML file as domain types. What exists here is valid; see [`load`] for how mistakes are told.

pub mod load;
pub mod types;

pub use types::*;
