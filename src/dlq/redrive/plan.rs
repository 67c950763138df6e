//! What a redrive would send: the chosen letters, the terms, and a preview of both. Nothing is written here.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::core::dead_letter::{Job, LetterKey, LetterState, Terms, Verb};
use crate::core::rate::Rate;
use crate::core::time::Timestamp;
use crate::dlq::content::Content;
use crate::dlq::desk::{Desk, DeskError};
use crate::dlq::filter::{Filter, LetterPlace, Term};
use crate::dlq::index::Index;
use crate::dlq::queue::Queue;
use crate::dlq::redrive::outgoing::Target;
use crate::kafka::error::ClientError;

/// Default rate, in letters per second.
const DEFAULT_RATE: f64 = 100.0;

/// Default share of failures above which a redrive stops.
pub const DEFAULT_STOP_AT: f64 = 0.5;

/// Number of letters in the preview.
pub const SAMPLE: usize = 3;

/// A job is one record, which contains its filter.
const MOST_IDS: usize = 20_000;

/// Letters of a file are named one by one in the job's filter up to this number.
const MOST_NAMED: usize = 100;

/// Why a redrive cannot be planned as asked for.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Too many letters are named one by one.
    #[error("{0} letters are more than {MOST_IDS} at once: give a filter, or several files")]
    TooMany(usize),
    /// Outcomes are not reported for this target.
    #[error(
        "--canary waits for outcomes, which are not reported for letters sent to {0}: leave it out, and try a few with --max 10 first"
    )]
    NoOutcomes(String),
    /// Not a rate.
    #[error("{0}")]
    Rate(String),
    /// Not a share.
    #[error("must be above 0 and at most 1")]
    Share,
}

/// The letters asked for.
#[derive(Debug, Clone)]
pub struct Selection {
    filter: Filter,
    brought: Option<BTreeMap<LetterKey, Content>>,
}

impl Selection {
    /// All that match.
    #[must_use]
    pub fn of_filter(filter: Filter) -> Self {
        Self { filter, brought: None }
    }

    /// Those at these places that match.
    ///
    /// # Errors
    /// There are more than 20,000.
    pub fn of_places(places: Vec<LetterPlace>, filter: Filter) -> Result<Self, PlanError> {
        if places.len() > MOST_IDS {
            return Err(PlanError::TooMany(places.len()));
        }
        Ok(Self::of_filter(filter.and(Filter::Term(Term::Id(places)))))
    }

    /// These, with the given content. They are not looked up by the filter, which is only shown.
    #[must_use]
    pub fn brought(letters: BTreeMap<LetterKey, Content>) -> Self {
        let filter = if letters.len() <= MOST_NAMED {
            let place = |letter: &LetterKey| LetterPlace { partition: letter.partition, offset: letter.offset };
            Filter::Term(Term::Id(letters.keys().map(place).collect()))
        } else {
            Filter::Term(Term::Text(vec![letters.len().to_string(), "letters".to_owned(), "file".to_owned()]))
        };
        Self { filter, brought: Some(letters) }
    }

    /// As a filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The given content, if there is any.
    #[must_use]
    pub fn into_brought(self) -> Option<BTreeMap<LetterKey, Content>> {
        self.brought
    }
}

/// A rate as asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as possible.
    Max,
    /// Letters per second.
    PerSecond(f64),
}

impl FromStr for Speed {
    type Err = PlanError;

    /// `100/s`, `30/m`, `100` (a second) or `max`.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let text = if text.contains('/') { text.to_owned() } else { format!("{text}/s") };
        let rate: Rate = text.parse().map_err(|error| PlanError::Rate(format!("{error}")))?;
        Ok(Self::PerSecond(rate.per_second()))
    }
}

/// Parses a share: above 0, at most 1.
///
/// # Errors
/// It is out of range, or not a number.
pub fn share(text: &str) -> Result<f64, PlanError> {
    text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= 1.0).ok_or(PlanError::Share)
}

/// The options of a redrive as asked for.
#[derive(Debug, Clone)]
pub struct RedriveOptions {
    /// The rate; default: 100 a second.
    pub speed: Option<Speed>,
    /// Time over which the rate rises from a tenth to its full value.
    pub ramp: Duration,
    /// Maximum number of letters to send.
    pub max: Option<u64>,
    /// Send this many first and wait for their outcome.
    pub canary: u64,
    /// Stop when more than this share of the finished letters has failed again (above 0, at most 1).
    pub stop_at: f64,
    /// Include parked letters.
    pub force: bool,
    /// The jq program applied to each value.
    pub transform: Option<String>,
    /// The reason in the user's words.
    pub note: Option<String>,
}

impl RedriveOptions {
    /// Whether they fit the target.
    ///
    /// # Errors
    /// A canary waits for outcomes, and the target reports none.
    pub fn check(&self, queue: &Queue, target: &Target) -> Result<(), PlanError> {
        if self.canary > 0 && !target.has_verdicts(queue) {
            return Err(PlanError::NoOutcomes(target.to_stored()));
        }
        Ok(())
    }

    fn terms(&self, brought: bool) -> Terms {
        Terms {
            rate: match self.speed {
                None => Some(DEFAULT_RATE),
                Some(Speed::PerSecond(rate)) => Some(rate),
                Some(Speed::Max) => None,
            },
            ramp: u64::try_from(self.ramp.as_millis()).unwrap_or(u64::MAX),
            max: self.max,
            canary: self.canary,
            stop_at: self.stop_at,
            force: self.force,
            transform: self.transform.clone(),
            brought,
        }
    }
}

/// A redrive that has not begun.
#[derive(Debug, Clone)]
pub struct RedrivePlan {
    /// The job.
    pub job: Job,
    /// The letters that would be sent now.
    pub letters: Vec<LetterKey>,
    /// The preview.
    pub preview: Preview,
}

/// What a plan would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Number of letters by target topic.
    pub targets: BTreeMap<String, u64>,
    /// Number of parked letters that would be skipped.
    pub parked: u64,
    /// Some of the letters, the latest first.
    pub samples: Vec<Sample>,
    /// Letters per second, and the time for all of them; `None` without a limit.
    pub pace: Option<(f64, Duration)>,
}

/// A letter of the preview.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The letter.
    pub at: LetterKey,
    /// The class of its error.
    pub class: Option<String>,
    /// The message of its error.
    pub message: Option<String>,
}

/// Why nothing would be sent: none of the letters is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPlanned {
    /// Number of letters that match, whatever their state.
    pub any: u64,
    /// Number of parked letters among them.
    pub parked: u64,
}

impl RedrivePlan {
    /// Chooses the letters and describes what would be done with them. `now` is the time of the request, from which ages count.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn make(
        desk: &mut Desk,
        (id, by, now): (&str, &str, Timestamp),
        selection: &Selection,
        target: &Target,
        options: &RedriveOptions,
    ) -> Result<Result<Self, NotPlanned>, DeskError> {
        let below = desk.feed().letters_below()?;
        let prefix = desk.queue().prefix.clone();
        let mut job = Job::new(id, Verb::Redrive, &prefix, &selection.filter.to_string(), below, by, now);
        job.note.clone_from(&options.note);
        job.target = Some(target.to_stored());
        let terms = options.terms(selection.brought.is_some());
        let rate = terms.rate;
        job.terms = Some(terms);
        let index = desk.index();
        let letters = match &selection.brought {
            Some(brought) => brought.keys().copied().collect(),
            None => left(index, &job)?,
        };
        if letters.is_empty() {
            let any = index.count(&selection.filter, now)?;
            let parked = index.count(&selection.filter.clone().and_in(&[LetterState::Parked]), now)?;
            return Ok(Err(NotPlanned { any, parked }));
        }
        let (targets, parked) = targets(index, selection, &letters, target, options.force, now)?;
        let mut samples = Vec::new();
        for letter in letters.iter().rev().take(SAMPLE) {
            let row = index.letter(letter.partition, letter.offset)?;
            samples.extend(row.map(|row| Sample { at: row.at, class: row.class, message: row.message }));
        }
        let pace = rate.map(|rate| {
            #[expect(clippy::cast_precision_loss, reason = "a time for people")]
            let seconds = (letters.len() as f64 / rate.max(0.001)).ceil().min(1e9);
            (rate, Duration::from_secs_f64(seconds))
        });
        Ok(Ok(Self { job, letters, preview: Preview { targets, parked, samples, pace } }))
    }
}

/// Number of letters by target topic, and of parked ones that are skipped.
fn targets(
    index: &Index,
    selection: &Selection,
    letters: &[LetterKey],
    target: &Target,
    force: bool,
    now: Timestamp,
) -> Result<(BTreeMap<String, u64>, u64), DeskError> {
    let mut targets: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |origin: Option<&str>, count: u64| {
        *targets.entry(target.topic_for(origin).unwrap_or("(unknown origin)").to_owned()).or_default() += count;
    };
    if selection.brought.is_some() || letters.len() <= SAMPLE {
        for letter in letters {
            let row = index.letter(letter.partition, letter.offset)?;
            add(row.as_ref().and_then(|row| row.origin_topic.as_deref()), 1);
        }
        return Ok((targets, 0));
    }
    // One query of the groups gives the origins of all letters.
    let open = selection.filter.clone().and_in(LetterState::may_be_sent(force));
    for group in index.groups(&open, now, None)? {
        for (origin, count) in group.origins {
            add(Some(origin.as_str()).filter(|origin| !origin.is_empty()), count);
        }
    }
    let all_parked = selection.filter.clone().and_in(&[LetterState::Parked]);
    let parked = if force { 0 } else { index.count(&all_parked, now)? };
    Ok((targets, parked))
}

/// The remaining letters of a job: open, below its offsets, and matching its filter. Parked ones only if forced.
///
/// # Errors
/// The index fails, or the filter of the job cannot be parsed.
pub(super) fn left(index: &Index, job: &Job) -> Result<Vec<LetterKey>, DeskError> {
    let filter = Filter::parse(&job.filter)
        .map_err(|error| ClientError::text(format!("reading the filter of job {}", job.id), error.to_string()))?;
    let forced = job.terms.as_ref().is_some_and(|terms| terms.force);
    let filter = filter.and_in(LetterState::may_be_sent(forced));
    let at = Timestamp::from_millis(job.at);
    Ok(index.select(&filter, &job.below, at)?)
}

/// Those of these letters that are open, indexed or not: letters of a file may no longer be in the topic.
pub(super) fn letters_open(index: &Index, letters: &[LetterKey], force: bool) -> Result<Vec<LetterKey>, DeskError> {
    let mut open = Vec::new();
    for letter in letters {
        let state = match index.letter(letter.partition, letter.offset)?.filter(|row| row.at.appended == letter.appended) {
            Some(row) => row.state,
            None => index.fate(*letter)?.map_or(LetterState::Open, |fate| fate.state),
        };
        if LetterState::may_be_sent(force).contains(&state) {
            open.push(*letter);
        }
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_per_time_or_max() {
        let of = |text: &str| text.parse::<Speed>().ok();
        assert_eq!(
            [of("max"), of("100"), of("100/s"), of("30/m")],
            [Some(Speed::Max), Some(Speed::PerSecond(100.0)), Some(Speed::PerSecond(100.0)), Some(Speed::PerSecond(0.5))]
        );
        assert_eq!(of("fast"), None);
        assert!(share("0").is_err() && share("1.1").is_err() && share("1").is_ok());
    }

    #[test]
    fn letters_of_a_file_are_named_while_they_are_few() {
        let content =
            Content { appended: Timestamp::default(), key: None, value: None, headers: Vec::new(), fault: None, diff: None };
        let letters = |count: i64| {
            let letter = |offset| LetterKey { partition: 0, offset, appended: Timestamp::default() };
            Selection::brought((0..count).map(|offset| (letter(offset), content.clone())).collect())
        };
        assert_eq!(letters(2).filter().to_string(), "id:0/0,0/1");
        assert!(letters(101).filter().to_string().contains("101"));
        assert!(Selection::of_places(Vec::new(), Filter::All).is_ok());
    }
}
