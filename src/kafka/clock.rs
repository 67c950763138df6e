//! The clock adapter: the only place that reads the time.
//!
//! Workers wait and measure by the monotonic clock, so that a jump of the machine's wall clock neither makes a record early nor
//! delays it. It is anchored to the wall clock once, at the first use in the process.

use std::sync::OnceLock;
#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::core::leader_clock::LocalTime;

/// Returns the time; cheap to clone and to call.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    /// Epoch microseconds; constant until advanced.
    #[cfg(test)]
    Manual(Arc<AtomicI64>),
}

#[derive(Debug)]
struct Anchor {
    wall_micros: i64,
    monotonic: Instant,
}

impl Clock {
    /// The clock of this machine; all in a process share one anchor.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock for tests, which moves only by [`Clock::advance`].
    #[cfg(test)]
    #[must_use]
    pub fn manual(start: LocalTime) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.as_micros()))))
    }

    /// Advances a manual clock; no effect on the system clock.
    #[cfg(test)]
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(micros) = &self.0 {
            micros.fetch_add(whole_micros(by), Ordering::Relaxed);
        }
    }

    /// The worker's own time: the wall clock at the first use, advanced by the monotonic clock.
    #[must_use]
    pub fn now(&self) -> LocalTime {
        match &self.0 {
            Source::System => {
                let anchor = anchor();
                LocalTime::from_micros(anchor.wall_micros.saturating_add(whole_micros(anchor.monotonic.elapsed())))
            }
            #[cfg(test)]
            Source::Manual(micros) => LocalTime::from_micros(micros.load(Ordering::Relaxed)),
        }
    }

    /// The time since the process first read the clock: never decreases.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System => anchor().monotonic.elapsed(),
            #[cfg(test)]
            Source::Manual(micros) => Duration::from_micros(u64::try_from(micros.load(Ordering::Relaxed)).unwrap_or(0)),
        }
    }

    /// The current wall clock, including jumps: only for dates written by others, such as `Retry-After`.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System => system_time(),
            #[cfg(test)]
            Source::Manual(_) => UNIX_EPOCH + self.monotonic(),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

fn anchor() -> &'static Anchor {
    static ANCHOR: OnceLock<Anchor> = OnceLock::new();
    ANCHOR.get_or_init(|| Anchor {
        wall_micros: whole_micros(system_time().duration_since(UNIX_EPOCH).unwrap_or_default()),
        monotonic: instant(),
    })
}

fn whole_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the clock adapter")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the clock adapter")]
fn instant() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_near_the_wall_and_never_goes_back() {
        let clock = Clock::system();
        let (first, second) = (clock.now(), clock.now());
        assert!(second >= first);
        let wall = whole_micros(clock.wall().duration_since(UNIX_EPOCH).unwrap());
        assert!((wall - second.as_micros()).abs() < 5_000_000, "{wall} {second:?}");
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(LocalTime::from_micros(1_000));
        clock.clone().advance(Duration::from_millis(2));
        assert_eq!(clock.now(), LocalTime::from_micros(3_000));
        assert_eq!(clock.monotonic(), Duration::from_millis(3));
    }
}
