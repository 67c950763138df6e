//! `tiers`: a list of delays, or steps by a factor.

use std::time::Duration;

use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::{RawSteps, RawTiers};
use crate::config::values::{duration_in, hint, note_missing, texts, whole_in};
use crate::core::delay::{Delay, format_duration};

/// The delays of a ladder as texts, each with its index in the list if it has one.
#[derive(Debug, Default)]
pub struct TierDelays {
    /// In the order of the file.
    pub delays: Vec<(Option<usize>, String)>,
    /// The attempts that the steps stand for, if several steps share the maximum delay.
    pub attempts: Option<u32>,
}

impl TierDelays {
    /// The index of this delay's `which`-th occurrence, counting from the first.
    pub fn position(&self, delay: Delay, which: usize) -> Option<usize> {
        self.delays.iter().filter(|(_, text)| text.parse() == Ok(delay)).nth(which).and_then(|(at, _)| *at)
    }
}

/// The tiers in either form.
pub fn expand(raw: &RawTiers, path: &Path, mistakes: &mut Mistakes) -> TierDelays {
    match raw {
        RawTiers::List(items) => {
            let delays = texts(items, path, mistakes).into_iter().map(|(i, text)| (Some(i), text)).collect();
            TierDelays { delays, attempts: None }
        }
        RawTiers::Steps(steps) => expand_steps(steps, path, mistakes).unwrap_or_default(),
    }
}

fn expand_steps(steps: &RawSteps, path: &Path, mistakes: &mut Mistakes) -> Option<TierDelays> {
    for (key, is_there) in
        [("first", steps.first.is_some()), ("factor", steps.factor.is_some()), ("count", steps.count.is_some())]
    {
        if !is_there {
            note_missing(&path.key(key), mistakes);
        }
    }
    let shortest = Duration::from_millis(1);
    let first = steps.first.and_then(|span| duration_in(span, shortest..=Delay::MAX, &path.key("first"), mistakes));
    let most = match steps.max {
        None => Some(Delay::MAX),
        Some(span) => duration_in(span, first.unwrap_or(shortest)..=Delay::MAX, &path.key("max"), mistakes),
    };
    let factor = steps.factor.filter(|factor| {
        let fits = factor.0 > 1.0 && factor.0 <= 1000.0;
        if !fits {
            let path = path.key("factor");
            mistakes.note(&path, "is out of range", hint(&path));
        }
        fits
    });
    let count: Option<u32> = steps.count.and_then(|count| whole_in(count, 1..=32, &path.key("count"), mistakes));
    let (first, most, factor, count) = (first?, most?, factor?, count?);

    let mut delays: Vec<(Option<usize>, String)> = Vec::new();
    let mut seconds = first.as_secs_f64();
    for _ in 0..count {
        // Whole milliseconds, at most the maximum; steps that reach it are merged into one tier.
        let millis = (seconds.min(most.as_secs_f64()) * 1000.0).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 ms and 365 days")]
        let text = format_duration(Duration::from_millis(millis as u64));
        if delays.last().is_none_or(|(_, last)| *last != text) {
            delays.push((None, text));
        }
        seconds *= factor.0;
    }
    Some(TierDelays { delays, attempts: Some(count + 1) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::raw::{Decimal, Span, Whole};
    use crate::core::ladder::Ladder;

    fn steps(first: Duration, factor: f64, count: i64, max: Option<Duration>) -> RawSteps {
        RawSteps { first: Some(Span(first)), factor: Some(Decimal(factor)), count: Some(Whole(count)), max: max.map(Span) }
    }

    fn expanded(steps: &RawSteps) -> (Vec<String>, Option<u32>, Mistakes) {
        let mut mistakes = Mistakes::default();
        let tiers = expand_steps(steps, &Path::of("tiers"), &mut mistakes).unwrap_or_default();
        (tiers.delays.into_iter().map(|(_, text)| text).collect(), tiers.attempts, mistakes)
    }

    #[test]
    fn steps_multiply_up_to_the_limit_and_keep_the_attempts() {
        let second = Duration::from_secs(1);
        assert_eq!(expanded(&steps(5 * second, 12.0, 3, None)).0, ["5s", "1m", "12m"]);
        let (delays, attempts, _) = expanded(&steps(5 * second, 12.0, 6, Some(3600 * second)));
        assert_eq!(delays, ["5s", "1m", "12m", "1h"]);
        assert_eq!(attempts, Some(7));
    }

    proptest! {
        #[test]
        fn steps_that_are_taken_make_a_ladder(first in 1_u64..100_000_000, factor in 1.0_f64..1001.0, count in 1_i64..33, max in proptest::option::of(1_u64..40_000_000_000)) {
            let (delays, attempts, mistakes) = expanded(&steps(Duration::from_millis(first), factor, count, max.map(Duration::from_millis)));
            if mistakes.is_empty() {
                let ladder = Ladder::builder("a", "g").source("s").tiers(delays).attempts(attempts.unwrap()).build();
                prop_assert!(ladder.is_ok(), "{:?}", ladder);
            }
        }
    }
}
