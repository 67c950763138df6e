//! The dispatch in virtual time: a simulated broker and handler, mixes of misbehaving records, restarts and outages, and their effect on
//! healthy records.

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
