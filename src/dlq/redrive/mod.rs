//! Sends dead letters back, each in one transaction with its state record.
//!
//! A redrive is a job in the state topic: its terms, progress, and whether it is to pause. Each transaction contains some letters,
//! their states, and the job's progress. So a redrive that was killed can be continued: sent letters are no longer open, and the open
//! ones below the previewed offsets remain. The same happens after a lost turn.
//!
//! Transactions are short, since consumers of the target see no later records of other producers until they end.

mod ahead;
mod change;
mod error;
mod outgoing;
mod pace;
mod plan;
mod run;
mod send;
mod watch;

pub use change::{LetterChange, changed};
pub use outgoing::Target;
pub use plan::{DEFAULT_STOP_AT, NotPlanned, RedriveOptions, RedrivePlan, SAMPLE, Selection, Speed, share};
pub use run::{Redrive, RedriveProgress};
