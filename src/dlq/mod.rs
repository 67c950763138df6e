//! Dead letters: what is there, what it is, and what is done with it.

pub mod content;
pub mod desk;
pub mod feed;
pub mod filter;
pub mod groups;
pub mod index;
pub mod letter;
pub mod payload;
pub mod queue;
pub mod redrive;
pub mod transform;
pub mod watch;
