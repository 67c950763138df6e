//! `tiers`: a list of delays, or steps by a factor.

use std::time::Duration;

use crate::config::keys;
use crate::config::ladder_section::{duration_in, whole_in};
use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::{Items, RawSteps, RawTiers};
use crate::core::delay::{Delay, format_duration};

/// The delays of a ladder as texts, each with its place in the list where it has one.
#[derive(Debug, Default)]
pub struct Tiers {
    /// In the order of the file.
    pub delays: Vec<(Option<usize>, String)>,
    /// How many attempts are meant by steps, of which some fell together at the maximum.
    pub attempts: Option<u32>,
}

impl Tiers {
    /// Where this delay stands, counting from its first occurrence.
    pub fn position(&self, delay: Delay, which: usize) -> Option<usize> {
        self.delays.iter().filter(|(_, text)| text.parse() == Ok(delay)).nth(which).and_then(|(at, _)| *at)
    }
}

/// The strings of a list with their places; what is no string is noted.
pub fn texts(items: &Items, path: &Path, mistakes: &mut Mistakes) -> Vec<(usize, String)> {
    let mut texts = Vec::new();
    for (i, item) in items.0.iter().enumerate() {
        let path = path.index(i);
        match &item.0 {
            Ok(text) => texts.push((i, text.clone())),
            Err(kind) => mistakes.note(&path, format!("is {kind}, not a string"), keys::hint(&path).map(str::to_owned)),
        }
    }
    texts
}

/// The tiers in either form.
pub fn expand(raw: &RawTiers, path: &Path, mistakes: &mut Mistakes) -> Tiers {
    match raw {
        RawTiers::List(items) => {
            let delays = texts(items, path, mistakes).into_iter().map(|(i, text)| (Some(i), text)).collect();
            Tiers { delays, attempts: None }
        }
        RawTiers::Steps(steps) => expand_steps(steps, path, mistakes).unwrap_or_default(),
    }
}

fn expand_steps(steps: &RawSteps, path: &Path, mistakes: &mut Mistakes) -> Option<Tiers> {
    for (key, is_there) in
        [("first", steps.first.is_some()), ("factor", steps.factor.is_some()), ("count", steps.count.is_some())]
    {
        if !is_there {
            let path = path.key(key);
            mistakes.note_missing(&path, keys::hint(&path).unwrap_or_default());
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
            mistakes.note(&path, "is out of range", keys::hint(&path).map(str::to_owned));
        }
        fits
    });
    let count: Option<u32> = steps.count.and_then(|count| whole_in(count, 1..=32, &path.key("count"), mistakes));
    let (first, most, factor, count) = (first?, most?, factor?, count?);

    let mut delays: Vec<(Option<usize>, String)> = Vec::new();
    let mut seconds = first.as_secs_f64();
    for _ in 0..count {
        // Whole milliseconds, and never longer than the limit; the steps that reach it are one tier.
        let millis = (seconds.min(most.as_secs_f64()) * 1000.0).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 365 days of milliseconds")]
        let text = format_duration(Duration::from_millis(millis as u64));
        if delays.last().is_none_or(|(_, last)| *last != text) {
            delays.push((None, text));
        }
        seconds *= factor.0;
    }
    Some(Tiers { delays, attempts: Some(count + 1) })
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
