//! Handles calls without a good answer, and the failures whose effect depends on later answers.

use std::time::Duration;

use crate::core::backoff::Doubling;
use crate::core::dispatch::calls::Row;
use crate::core::dispatch::health::HealthChange;
use crate::core::dispatch::policy::Policy;
use crate::core::dispatch::standing::Trouble;
use crate::core::dispatch::suspects::Lost;
use crate::core::dispatch::{Departure, Dispatch, DispatchEntry, Kind, Over, Pending, failed_since, hung_share};
use crate::core::leader_clock::LocalTime;

/// Pauses between tries of a call that could not be sent.
const UNSENT_PAUSES: Doubling = Doubling::new(Duration::from_millis(100), Duration::from_secs(1));

/// Without a breaker, those tries go on for this long; then the attempt has failed.
const LONGEST_IN_PLACE: Duration = Duration::from_secs(30);

/// Number of lost connections as a probe, each followed by an unreachable handler, after which a record counts as failed: it may be what
/// kills the handler.
const MOST_LOST_PROBES: u8 = 10;

impl<J, P: Policy> Dispatch<J, P> {
    pub(super) fn in_trouble(
        &mut self,
        mut entry: DispatchEntry<J>,
        trouble: Trouble,
        again: Option<Duration>,
        (kind, row): (Kind, Row),
        now: LocalTime,
    ) {
        match trouble {
            Trouble::Unreachable => {
                self.free(kind);
                self.unreachable_at = Some(now);
                // It has had no turn.
                self.suspects_turn |= entry.tries.is_suspect;
                let since = *entry.tries.unsent_since.get_or_insert(now);
                if self.settings.breaker.is_none() && now.since(since) >= LONGEST_IN_PLACE {
                    self.leave(entry, Departure::Counts, None);
                } else {
                    let pause = entry.tries.unsent_pauses.get_or_insert(UNSENT_PAUSES).take();
                    self.put_later(entry, pause, now);
                }
            }
            Trouble::LostConnections => {
                self.free(kind);
                entry.tries.unsent_since = None;
                entry.tries.lost_first.get_or_insert(now);
                if self.health.is_down() && !entry.tries.is_suspect {
                    self.failed_as_probe(entry, trouble, now);
                } else {
                    self.lanes.set_aside(&mut entry, true);
                    self.suspects.lose(entry, now);
                }
            }
            Trouble::Errors | Trouble::Timeouts => {
                if row == Row::Hung && trouble == Trouble::Timeouts {
                    self.hung_allowed = hung_share(self.settings.places);
                }
                entry.tries.unsent_since = None;
                self.suspects.came_back(&mut entry);
                match again {
                    Some(pause) if !self.health.is_down() => self.repeat(entry, kind, pause, now),
                    _ => self.failed(entry, trouble, Some(kind), now),
                }
            }
        }
    }

    /// An attempt has failed, unless the handler is down.
    fn failed(&mut self, mut entry: DispatchEntry<J>, trouble: Trouble, place: Option<Kind>, now: LocalTime) {
        let answers = self.health.answers_since(failed_since(&entry.tries, trouble));
        if self.health.patience().is_none() || (answers && (trouble == Trouble::LostConnections || !self.health.is_down())) {
            self.leave(entry, Departure::Counts, place);
            return;
        }
        if let Some(kind) = place {
            self.free(kind);
        }
        if self.health.is_down() {
            self.failed_as_probe(entry, trouble, now);
            return;
        }
        self.lanes.set_aside(&mut entry, true);
        self.pending.push(Pending { entry, trouble, since: now });
    }

    /// A call for several records has failed, so that no attempt is counted.
    pub(super) fn failed_in_company(&mut self, mut entry: DispatchEntry<J>, now: LocalTime) {
        self.suspects.came_back(&mut entry);
        if self.health.is_down() {
            self.failed_as_probe(entry, Trouble::Errors, now);
        } else {
            self.back(entry);
        }
    }

    /// A failure while the handler is down does not count; the record waits behind the others of its
    /// partition.
    fn failed_as_probe(&mut self, mut entry: DispatchEntry<J>, trouble: Trouble, now: LocalTime) {
        if trouble == Trouble::LostConnections {
            entry.tries.lost_at = Some(now);
            if entry.tries.lost_probes >= MOST_LOST_PROBES {
                self.leave(entry, Departure::Counts, None);
                return;
            }
        }
        self.lanes.set_aside(&mut entry, true);
        if self.lanes.is_crowded(entry.ticket.lane) {
            self.leave(entry, Departure::Postponed, None);
            return;
        }
        if self.policy.probe_goes_to_the_end() {
            entry.tries.was_tried = true;
            self.lanes.push_back(Row::Tried, entry);
        } else {
            self.lanes.push_front(Row::Usual, entry);
        }
    }

    pub(super) fn follow(&mut self, change: HealthChange, now: LocalTime) {
        if change == HealthChange::None {
            return;
        }
        // The handler may have died of a record that lost its connection.
        let may_explain = |trouble| change == HealthChange::WentAway && trouble == Trouble::LostConnections;
        self.pending_are_probes(|trouble| !may_explain(trouble), now);
        if change == HealthChange::WentDown {
            for entry in self.suspects.acquit() {
                self.back(entry);
            }
        }
    }

    /// Failures of this kind do not count, since the handler is down.
    pub(super) fn pending_are_probes(&mut self, is_meant: impl Fn(Trouble) -> bool, now: LocalTime) {
        for pending in std::mem::take(&mut self.pending) {
            if is_meant(pending.trouble) {
                self.failed_as_probe(pending.entry, pending.trouble, now);
            } else {
                self.pending.push(pending);
            }
        }
    }

    fn decide_losses(&mut self, now: LocalTime) {
        let since = self.suspects.lost_since();
        let is_older = |began: LocalTime| since.is_some_and(|since| began < since);
        let others_live = std::mem::take(&mut self.outlived) || self.calls.iter().flatten().any(|call| is_older(call.began));
        let (decided, has_died) = self.suspects.decide(others_live);
        if has_died {
            self.health.died(now);
            self.died_at = Some(now);
        }
        for decided in decided {
            match decided {
                // Behind those that have not failed: a record that always loses its connection must not be called before them again
                // and again.
                Lost::Again(mut entry) => {
                    entry.tries.was_tried = true;
                    self.lanes.push_back(Row::Tried, entry);
                }
                Lost::Failed(entry) => self.failed(entry, Trouble::LostConnections, None, now),
            }
        }
    }

    pub(super) fn pass_time(&mut self, now: LocalTime) {
        if self.lanes.recount(now) {
            self.present.forget(now);
        }
        if self.suspects.due().is_some_and(|due| due <= now) {
            self.decide_losses(now);
        }
        if !self.later.is_empty() {
            let due: Vec<usize> = (0..self.later.len()).filter(|index| self.later[*index].0 <= now).collect();
            for index in due.into_iter().rev() {
                let (_, entry) = self.later.swap_remove(index);
                self.back(entry);
            }
        }
        if self.health.is_restless(now) {
            let change = self.health.pass_time(now, &self.present);
            self.follow(change, now);
        }
        if let Some(patience) = self.health.patience().filter(|_| !self.pending.is_empty() && !self.health.is_down()) {
            for pending in std::mem::take(&mut self.pending) {
                if now.since(pending.since) >= patience {
                    self.leave(pending.entry, Departure::Counts, None);
                } else {
                    self.pending.push(pending);
                }
            }
        }
    }

    /// Returns a record to the head of its queue, or to the suspects.
    pub(super) fn back(&mut self, mut entry: DispatchEntry<J>) {
        if entry.tries.is_suspect {
            self.suspects.put_back(entry);
            return;
        }
        let row = entry.row();
        self.lanes.set_aside(&mut entry, row != Row::Usual);
        self.lanes.push_front(row, entry);
    }

    /// A failed attempt is retried in place.
    pub(super) fn repeat(&mut self, mut entry: DispatchEntry<J>, kind: Kind, pause: Duration, now: LocalTime) {
        entry.tries.has_failed = true;
        self.free(kind);
        self.put_later(entry, pause, now);
    }

    fn put_later(&mut self, mut entry: DispatchEntry<J>, pause: Duration, now: LocalTime) {
        self.lanes.set_aside(&mut entry, true);
        self.later.push((now.later(pause), entry));
    }

    pub(super) fn leave(&mut self, mut entry: DispatchEntry<J>, fate: Departure, place: Option<Kind>) {
        self.suspects.came_back(&mut entry);
        self.lanes.leave(entry.ticket.lane, entry.tries.is_aside);
        self.present.leaves(&entry.ticket.witness());
        self.over.push(Over { job: entry.job, fate, place });
    }
}
