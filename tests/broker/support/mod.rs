//! What the tests need around the binary: a broker, records of any shape, a recording handler, a checker.

pub mod app;
pub mod broker;
pub mod checker;
pub mod clock;
pub mod handler;
pub mod heavy;
pub mod hosted;
pub mod independent;
pub mod load;
pub mod misbehaving;
pub mod port;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod records;
pub mod rng;
pub mod rude;
pub mod scene;
pub mod terminal;
