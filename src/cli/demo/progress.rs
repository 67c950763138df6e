//! The demo's progress: a snapshot, and how it is printed.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::demo::story::Scene;
use crate::cli::output;
use crate::core::dispatch::BreakerState;

/// The demo's current state.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Since the first order.
    pub elapsed: Duration,
    /// The current scene.
    pub scene: Scene,
    /// Orders that the broker has confirmed.
    pub sent: u64,
    /// Orders that the handler has done.
    pub done: u64,
    /// The tiers by their delays, and the number of waiting orders in each.
    pub waiting: Vec<(String, u64)>,
    /// Dead letters.
    pub dead: u64,
    /// State of the handler's breaker.
    pub breaker: BreakerState,
}

/// Prints the progress line on stderr.
pub fn show(snapshot: &Snapshot) {
    output::tell_line(&line(snapshot));
}

/// The progress line above the picture, which shows the tiers and the breaker itself.
pub fn caption(snapshot: &Snapshot) -> String {
    let Snapshot { sent, done, dead, scene, .. } = snapshot;
    format!("{}  sent {sent:<5} done {done:<5} dead {dead:<4}  {}", time(snapshot), scene.words())
}

fn time(snapshot: &Snapshot) -> String {
    let seconds = snapshot.elapsed.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn line(snapshot: &Snapshot) -> String {
    let Snapshot { scene, sent, done, waiting, dead, breaker, .. } = snapshot;
    let mut tiers = String::new();
    for (delay, count) in waiting {
        let _ = write!(tiers, " {delay} {count:<3}");
    }
    let breaker = match breaker {
        BreakerState::Closed => "closed",
        BreakerState::Open => "OPEN",
        BreakerState::HalfOpen => "half-open",
    };
    let (time, words) = (time(snapshot), scene.words());
    format!("{time}  sent {sent:<5} done {done:<5} waiting{tiers} dead {dead:<4} breaker {breaker:<9}  {words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_all_of_it() {
        let snapshot = Snapshot {
            elapsed: Duration::from_secs(77),
            scene: Scene::Usual,
            sent: 400,
            done: 380,
            waiting: vec![("1s".to_owned(), 7), ("3s".to_owned(), 0)],
            dead: 13,
            breaker: BreakerState::HalfOpen,
        };
        let expected =
            "1:17  sent 400   done 380   waiting 1s 7   3s 0   dead 13   breaker half-open  orders come in, a few fail";
        assert_eq!(line(&snapshot), expected);
        assert_eq!(caption(&snapshot), "1:17  sent 400   done 380   dead 13    orders come in, a few fail");
    }
}
