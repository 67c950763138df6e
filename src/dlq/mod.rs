//! Dead letters: index, search, payloads, redrive.

pub mod content;
pub mod desk;
pub mod feed;
pub mod filter;
pub mod groups;
pub mod index;
pub mod letter;
pub mod payload;
pub mod private;
pub mod queue;
pub mod redrive;
#[cfg(feature = "jq")]
pub mod transform;
#[cfg(not(feature = "jq"))]
#[path = "no_transform.rs"]
pub mod transform;
pub mod watch;
