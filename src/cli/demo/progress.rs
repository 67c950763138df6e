//! How the demo shows where it stands: one snapshot, one function.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::demo::story::Scene;
use crate::core::breaker::BreakerState;

/// Where the demo stands.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Since the first order.
    pub elapsed: Duration,
    /// What is going on.
    pub scene: Scene,
    /// Orders that the broker has confirmed.
    pub sent: u64,
    /// Orders that the handler is done with.
    pub done: u64,
    /// The tiers by their delays, and how many orders wait in each.
    pub waiting: Vec<(String, u64)>,
    /// Dead letters.
    pub dead: u64,
    /// The breaker of the handler.
    pub breaker: BreakerState,
}

/// Tells where the demo stands: a line on stderr.
pub fn show(snapshot: &Snapshot) {
    eprintln!("{}", line(snapshot));
}

fn line(snapshot: &Snapshot) -> String {
    let Snapshot { elapsed, scene, sent, done, waiting, dead, breaker } = snapshot;
    let mut tiers = String::new();
    for (delay, count) in waiting {
        let _ = write!(tiers, " {delay} {count:<3}");
    }
    let breaker = match breaker {
        BreakerState::Closed => "closed",
        BreakerState::Open { .. } => "OPEN",
        BreakerState::HalfOpen => "half-open",
    };
    let (minutes, seconds) = (elapsed.as_secs() / 60, elapsed.as_secs() % 60);
    let words = scene.words();
    format!("{minutes}:{seconds:02}  sent {sent:<5} done {done:<5} waiting{tiers} dead {dead:<4} breaker {breaker:<9}  {words}")
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
    }
}
