//! Observes ladders: what `status`, `top` and `doctor` show is read here, and only here.
//!
//! An [`Observer`] reads the cluster, and the metrics of a worker if one answers; the result is plain data. What could not be read is
//! in it too, with the error: whether that is a note or a failure is decided by whoever shows it.

mod diagnosis;
mod facts;
mod handler;
mod observer;
mod scrape;

pub use diagnosis::diagnose;
pub use facts::{GroupSeen, LadderFacts, Lateness, Observation, Part, QueueFacts, TierFacts, Unseen, held_text};
#[cfg(test)]
pub use handler::TroubleSeen;
pub use handler::{HandlerSeen, HealthSeen};
pub use observer::{Depth, Observer, hops_into};
pub use scrape::{Samples, ScrapeError, Scraper};
