//! When a handler counts as down, how it stands, and what people are told of it.

use std::time::Duration;

use crate::core::leader_clock::LocalTime;

/// When a handler counts as down, and for how long it is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Deliveries are slowed down when this many different records met trouble since the last good answer (1 to 10,000); default 20.
    pub consecutive: usize,
    /// The handler is down when there was no good answer for this long (100 ms to 1 h), or for longer where answers usually take half of
    /// that, or come seldom; default 1 s.
    pub silence: Duration,
    /// How many probes run at the same time while it is down (1 to 100); default 4.
    pub probes: usize,
    /// How long no delivery begins before the first probes, and at least between later ones (100 ms to 1 h); default 5 s.
    pub open_for: Duration,
    /// The time between probes grows to half of what the outage has lasted, and at most to this; default 1 m.
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

/// What kind of trouble a call met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// It was answered with an error that tells of the handler: 5xx, 401, 403.
    Errors,
    /// There was no complete answer in time.
    Timeouts,
    /// The connection was lost after the request was sent.
    LostConnections,
    /// Nothing could be sent: refused, unknown host, TLS.
    Unreachable,
}

impl Trouble {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Errors, Self::Timeouts, Self::LostConnections, Self::Unreachable];

    /// What an HTTP status says of the handler.
    #[must_use]
    pub fn of_status(status: Option<u16>) -> Option<Self> {
        matches!(status, Some(401 | 403 | 500..=599)).then_some(Self::Errors)
    }

    /// As metrics and messages name it.
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

/// How a handler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers.
    Up,
    /// It answers, and fewer calls run than there are places.
    Degraded {
        /// At most this many.
        allowed: usize,
    },
    /// Many calls in a row have failed: a few go on.
    InDoubt,
    /// It is down, and probes ask whether it is back.
    Probing,
    /// It is down, and no call is made.
    Down {
        /// When the next probes may go.
        until: LocalTime,
    },
}

/// How the breaker of a handler stands, as metrics and messages tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Deliveries go on.
    Closed,
    /// A few go on: the handler is in doubt, or probed.
    HalfOpen,
    /// None does.
    Open,
}

impl Standing {
    /// As the breaker tells it.
    #[must_use]
    pub fn breaker(self) -> BreakerState {
        match self {
            Self::Up | Self::Degraded { .. } => BreakerState::Closed,
            Self::InDoubt | Self::Probing => BreakerState::HalfOpen,
            Self::Down { .. } => BreakerState::Open,
        }
    }
}

/// By what a handler is known to be down or in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// When the first of the calls failed.
    pub since: Option<LocalTime>,
    /// How many calls met trouble since the last good answer, by [`Trouble::ALL`].
    pub calls: [u64; Trouble::ALL.len()],
    /// Of how many different records.
    pub records: usize,
    /// And partitions.
    pub partitions: usize,
}

impl Evidence {
    /// The kind of trouble that most calls met.
    #[must_use]
    pub fn mostly(&self) -> Option<Trouble> {
        let most = Trouble::ALL.into_iter().max_by_key(|kind| self.calls[*kind as usize])?;
        (self.calls[most as usize] > 0).then_some(most)
    }
}
