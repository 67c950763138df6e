//! A model of the workers: the real mover, committer, engine, ack tracker and decisions, on a cluster in memory, in virtual time.
//!
//! A seed determines everything: the number of records, partitions and tiers, the handler's answers, the faults and their times.
//! So a failing seed can be repeated: `KLADDER_MODEL_SEED=… cargo test --lib model::tests::a_seed_alone -- --nocapture` runs it
//! alone and prints the events.

mod check;
mod cluster;
mod group;
mod member;
mod planted;
mod sink;
mod source;
mod tests;
mod world;
