//! Ceilings: the simplest loops that do what kladder does, with the same clients and nothing that can be left out.

mod copy;
mod push;

pub use self::copy::copy;
pub use self::push::{COMMAND as PUSH, Work, push, run as run_push};
