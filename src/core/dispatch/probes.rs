//! Selects the records that are called while the handler is in doubt or down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::dispatch::present::Witness;
use crate::core::dispatch::standing::BreakerSettings;
use crate::core::leader_clock::LocalTime;

/// Number of probes that may fail in a round; if they are of a single partition, whose records may be to blame, it doubles in each
/// following round.
const FIRST_ROUND: usize = 12;
const LARGEST_ROUND: usize = 256;

/// Maximum number of probes in one round that fail as their records failed before, which is no
/// evidence.
const MOST_DOUBTFUL: usize = 64;

/// A failed probe that took longer than this counts as several: a hanging handler need not be probed
/// as often.
const SLOW_PROBE: Duration = Duration::from_secs(1);
const SLOW_COUNTS: usize = 3;

/// Initial interval of probing an unreachable handler: a refused connection costs it nothing.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(250);

/// While it is down, partitions not probed yet may be probed at this interval.
const UNHEARD_PAUSE: Duration = Duration::from_millis(100);

/// How a call was admitted; passed back when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Without condition.
    Free,
    /// While the handler was in doubt.
    InDoubt,
    /// As a probe of this round, or of none if its partition had not been probed before.
    Probe(u64),
}

/// While it is in doubt, a partition that has failed is not tried again before this.
const DOUBT_PAUSE: Duration = Duration::from_millis(100);

/// A record that asks for a call while the handler is in doubt or down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub witness: &'a Witness,
    /// The last round in which the record was a probe.
    pub round: u64,
    /// Whether no other partition has records.
    pub is_everything: bool,
}

/// The handler is in doubt.
#[derive(Debug)]
pub(super) struct Doubt {
    /// The partitions of running calls.
    pub running: Vec<u64>,
    /// When a call of each partition last failed.
    pub failed: BTreeMap<u64, LocalTime>,
    /// Calls cannot be sent.
    pub unreachable: bool,
    /// When the last of them began.
    pub began: LocalTime,
}

/// The handler is down.
#[derive(Debug)]
pub(super) struct Down {
    pub since: LocalTime,
    /// When the next round of probes begins.
    pub until: LocalTime,
    pub unreachable: bool,
    /// Probes have lost their connections: one of them may kill the handler, which would lose the others too.
    pub one_at_a_time: bool,
    /// Partitions with a failed call since the last good answer.
    pub failed: BTreeSet<u64>,
    /// When a partition not probed yet last began a probe.
    asked: Option<LocalTime>,
    pub asking: usize,
    /// Number of rounds with a single partition.
    lonely: u32,
    pub round: Option<Round>,
}

/// A running round of probes.
#[derive(Debug)]
pub(super) struct Round {
    pub number: u64,
    /// The partitions of running probes.
    pub running: Vec<u64>,
    /// When the last of them began.
    pub began: LocalTime,
    pub failed: usize,
    pub partitions: BTreeSet<u64>,
    pub doubtful: usize,
    /// Partitions probed since all had been.
    pub asked: BTreeSet<u64>,
}

/// How many probes run at a time, and how many of a round may fail.
#[derive(Debug, Clone, Copy)]
struct Probes {
    at_a_time: usize,
    most_failed: usize,
}

/// A call of a partition has ended.
pub(super) fn leave(running: &mut Vec<u64>, partition: u64) {
    if let Some(index) = running.iter().position(|other| *other == partition) {
        running.swap_remove(index);
    }
}

impl Doubt {
    /// The handler is in doubt: calls of these partitions have failed since these times, or cannot
    /// be sent.
    pub fn new(failed: BTreeMap<u64, LocalTime>, unreachable: bool, now: LocalTime) -> Self {
        Self { running: Vec::new(), failed, unreachable, began: now }
    }

    /// Admits a few calls of partitions that have failed, one at a time each, and as many more of those that have not, which
    /// are the better evidence.
    pub fn admits(&mut self, candidate: Candidate<'_>, probes: usize, now: LocalTime) -> Option<Admission> {
        let partition = candidate.witness.partition;
        if self.unreachable {
            // A refused connection costs nothing, and says little.
            let may = self.running.is_empty() && now >= self.began.later(DOUBT_PAUSE);
            return may.then(|| self.begin(partition, now));
        }
        let of_failed = self.running.iter().filter(|other| self.failed.contains_key(other)).count();
        let may = match self.failed.get(&partition) {
            Some(failed) => {
                let differs = candidate.is_everything || !self.running.contains(&partition);
                now >= failed.later(DOUBT_PAUSE) && of_failed < probes && differs
            }
            None => self.running.len() - of_failed < probes,
        };
        may.then(|| self.begin(partition, now))
    }

    fn begin(&mut self, partition: u64, now: LocalTime) -> Admission {
        self.running.push(partition);
        self.began = now;
        Admission::InDoubt
    }
}

impl Down {
    /// The handler is down since then, by the evidence of these partitions.
    pub fn new(since: LocalTime, failed: BTreeSet<u64>, unreachable: bool, settings: &BreakerSettings, now: LocalTime) -> Self {
        let pause = if unreachable { UNREACHABLE_PAUSE.min(settings.open_for) } else { settings.open_for };
        Self {
            since,
            until: now.later(pause),
            unreachable,
            one_at_a_time: false,
            failed,
            asked: None,
            asking: 0,
            lonely: 0,
            round: None,
        }
    }

    /// Admits a record: in a round of probes, whose number is returned and which may begin here; or because its partition has not been
    /// probed.
    pub fn admits(
        &mut self,
        candidate: Candidate<'_>,
        next_round: u64,
        settings: &BreakerSettings,
        now: LocalTime,
    ) -> Option<Admission> {
        if self.round.is_none() && now >= self.until {
            self.round = Some(Round::new(next_round, now));
        }
        let Some(round) = &mut self.round else { return self.admits_unheard(candidate.witness, now) };
        let most_failed = (FIRST_ROUND << self.lonely.min(8)).min(LARGEST_ROUND);
        let probes = match (self.unreachable, self.one_at_a_time) {
            (true, _) => Probes { at_a_time: 1, most_failed: 1 },
            (false, true) => Probes { at_a_time: 1, most_failed },
            (false, false) => Probes { at_a_time: settings.probes, most_failed },
        };
        round.admits(candidate, probes, now)
    }

    fn admits_unheard(&mut self, witness: &Witness, now: LocalTime) -> Option<Admission> {
        let may = !self.unreachable
            && self.asking == 0
            && witness.failed_before.is_none()
            && !self.failed.contains(&witness.partition)
            && self.asked.is_none_or(|asked| now >= asked.later(UNHEARD_PAUSE));
        may.then(|| {
            (self.asking, self.asked) = (1, Some(now));
            Admission::Probe(0)
        })
    }

    pub fn end_round(&mut self, settings: &BreakerSettings, conclusive: bool, now: LocalTime) {
        let outage = now.since(self.since);
        let pause = if self.unreachable {
            (outage / 4).clamp(UNREACHABLE_PAUSE.min(settings.open_for), settings.open_for)
        } else if conclusive {
            (outage / 2).clamp(settings.open_for, settings.open_most.max(settings.open_for))
        } else {
            settings.open_for
        };
        self.until = now.later(pause);
        let is_lonely = self.round.take().is_some_and(|round| round.partitions.len() < 2);
        self.lonely = if is_lonely { self.lonely + 1 } else { 0 };
    }
}

impl Round {
    fn new(number: u64, now: LocalTime) -> Self {
        Self {
            number,
            running: Vec::new(),
            began: now,
            failed: 0,
            partitions: BTreeSet::new(),
            doubtful: 0,
            asked: BTreeSet::new(),
        }
    }

    fn admits(
        &mut self,
        Candidate { witness, round, is_everything }: Candidate<'_>,
        probes: Probes,
        now: LocalTime,
    ) -> Option<Admission> {
        let has_place = self.running.len() < probes.at_a_time;
        let goes_on = self.failed < probes.most_failed && self.doubtful < MOST_DOUBTFUL;
        let differs = is_everything || !self.running.contains(&witness.partition);
        (has_place && goes_on && differs && round != self.number).then(|| {
            if !self.asked.insert(witness.partition) {
                self.asked = BTreeSet::from([witness.partition]);
            }
            self.running.push(witness.partition);
            self.began = now;
            Admission::Probe(self.number)
        })
    }

    pub fn failed_one(&mut self, witness: &Witness, says_nothing: bool, took: Duration) {
        let counts = if took > SLOW_PROBE { SLOW_COUNTS } else { 1 };
        if says_nothing {
            self.doubtful += counts;
        } else {
            self.failed += counts;
            self.partitions.insert(witness.partition);
        }
    }
}
