//! The exit codes, in one place.

use std::process::ExitCode;
use std::time::Duration;

use crate::telemetry::log_writer;

/// How long `at_once` waits for the log to be written if nobody reads stderr.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: success.
    Done,
    /// 1: failed.
    Failed,
    /// 2: usage or configuration.
    Usage,
    /// 3: the cluster differs from the configuration.
    Drift,
    /// 4: doctor found a hazard.
    Hazard,
    /// 101: kladder panicked, which is a bug in it.
    Defect,
}

impl Exit {
    /// The numeric exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Drift => 3,
            Self::Hazard => 4,
            Self::Defect => 101,
        }
    }

    /// Exits immediately, once the log is written or [`LAST_WORDS`] have passed.
    pub fn at_once(self) -> ! {
        log_writer::flush(LAST_WORDS);
        std::process::exit(self.code().into())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        log_writer::flush(LAST_WORDS);
        Self::from(exit.code())
    }
}
