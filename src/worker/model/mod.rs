//! A model of the workers: the real mover, the real committer, engine, ack tracker and decisions over a cluster in memory, in virtual time.
//!
//! A seed says everything: how many records, partitions and tiers there are, what the handler says, what goes wrong and when. So
//! a seed that fails, fails again: `KLADDER_MODEL_SEED=… cargo test --lib model::tests::a_seed_alone -- --nocapture` runs it alone
//! and tells what happens.

mod check;
mod cluster;
mod group;
mod member;
mod planted;
mod sink;
mod source;
mod tests;
mod world;
