//! The handler's health as seen from outside: settings, states, evidence.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// When a handler counts as down, and how it is probed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Deliveries are slowed down after failures of this many different records since the last good answer (1 to 10,000); default
    /// 20.
    pub consecutive: usize,
    /// The handler is down after this long without a good answer (100 ms to 1 h), or longer if answers usually take half of that or are
    /// rare; default 1 s.
    pub silence: Duration,
    /// Number of concurrent probes while it is down (1 to 100); default 4.
    pub probes: usize,
    /// Time without deliveries before the first probes, and minimum time between later ones (100 ms to 1 h); default 5 s.
    pub open_for: Duration,
    /// The time between probes grows to half of the outage's length, and at most to this; default 1 m.
    pub open_most: Duration,
}

impl BreakerSettings {
    /// Whether every value is in its range.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let (least, hour) = (Duration::from_millis(100), Duration::from_secs(3_600));
        (1..=10_000).contains(&self.consecutive)
            && (1..=100).contains(&self.probes)
            && (least..=hour).contains(&self.silence)
            && (least..=hour).contains(&self.open_for)
            && (self.open_for..=hour).contains(&self.open_most)
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            consecutive: 20,
            silence: Duration::from_secs(1),
            probes: 4,
            open_for: Duration::from_secs(5),
            open_most: Duration::from_secs(60),
        }
    }
}

/// The kind of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// An error answer that concerns the handler: 5xx, 401, 403.
    Errors,
    /// No complete answer within the timeout.
    Timeouts,
    /// The connection was lost after the request was sent.
    LostConnections,
    /// Nothing could be sent: refused, unknown host, TLS.
    Unreachable,
}

impl Trouble {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Errors, Self::Timeouts, Self::LostConnections, Self::Unreachable];

    /// What an HTTP status says about the handler.
    #[must_use]
    pub fn of_status(status: Option<u16>) -> Option<Self> {
        matches!(status, Some(401 | 403 | 500..=599)).then_some(Self::Errors)
    }

    /// The name in metrics and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Timeouts => "timeouts",
            Self::LostConnections => "lost_connections",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The state of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers.
    Up,
    /// It answers, but fewer calls than slots run.
    Degraded {
        /// Maximum number of calls.
        allowed: usize,
    },
    /// Many calls in a row have failed: a few continue.
    InDoubt,
    /// It is down, and is being probed.
    Probing,
    /// It is down, and no calls are made.
    Down {
        /// When the next probes may begin.
        until: LocalTime,
    },
}

/// The state of a handler's breaker, for metrics and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Deliveries run.
    Closed,
    /// A few run: the handler is in doubt, or probed.
    HalfOpen,
    /// None run.
    Open,
}

impl Standing {
    /// The corresponding breaker state.
    #[must_use]
    pub fn breaker(self) -> BreakerState {
        match self {
            Self::Up | Self::Degraded { .. } => BreakerState::Closed,
            Self::InDoubt | Self::Probing => BreakerState::HalfOpen,
            Self::Down { .. } => BreakerState::Open,
        }
    }
}

/// Why a handler is known to be down or in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// When the first of the calls failed.
    pub since: Option<LocalTime>,
    /// Number of failed calls since the last good answer, by [`Trouble::ALL`].
    pub calls: [u64; Trouble::ALL.len()],
    /// Number of different records.
    pub records: usize,
    /// Number of different partitions.
    pub partitions: usize,
}

impl Evidence {
    /// The kind of most failures.
    #[must_use]
    pub fn mostly(&self) -> Option<Trouble> {
        let most = Trouble::ALL.into_iter().max_by_key(|kind| self.calls[*kind as usize])?;
        (self.calls[most as usize] > 0).then_some(most)
    }
}
