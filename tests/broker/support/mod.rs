//! What the tests need around the binary: a broker, records of any shape, a handler that remembers, a checker.

pub mod app;
pub mod broker;
pub mod checker;
pub mod clock;
pub mod handler;
pub mod heavy;
pub mod independent;
pub mod load;
pub mod misbehaving;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod records;
pub mod rng;
pub mod rude;
pub mod scene;
pub mod terminal;
