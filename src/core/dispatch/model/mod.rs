//! The dispatch at work in virtual time: a simulated broker and handler, mixes of records that misbehave, restarts and outages, and what
//! healthy records see of them.

mod handler;
mod mix;
mod report;
mod world;

#[cfg(test)]
mod planted_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod table_tests;
