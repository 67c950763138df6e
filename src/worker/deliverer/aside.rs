//! Leaves the partitions to other workers while this worker's handler is down and theirs is not
//! ([`StepAside`]).
//!
//! The workers report handler outages through the ladder's state topic, at each change. The group lists the other
//! workers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::dispatch::Trouble;
use crate::core::leader_clock::LocalTime;
use crate::core::state::HandlerDownRecord;
use crate::core::step_aside::{AsideAction, AsideInput, Peers, StepAside};
use crate::core::topics::worker_of_member;
use crate::kafka::state::{clear_state, write_state};
use crate::worker::deliverer::Deliverer;
use crate::worker::error::WorkError;
use crate::worker::handler::Handler;

/// Interval of checking for an action, and of asking the broker for the other workers.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const PEERS_INTERVAL: Duration = Duration::from_secs(5);

/// Time limit of that request.
const PEERS_WITHIN: Duration = Duration::from_secs(3);

/// Interval of testing an unreachable handler, with a connection that sends nothing.
const REACH_INTERVAL: Duration = Duration::from_secs(2);

/// The deliverer's state for it.
pub(super) struct Aside {
    step: StepAside,
    kafka: KafkaConfig,
    look_at: LocalTime,
    ask_at: LocalTime,
    reach_at: LocalTime,
    peers: Option<Peers>,
    is_reachable: Arc<AtomicBool>,
    /// Whether the handler was unreachable when it left. For a handler that answers with errors, a
    /// connection proves nothing.
    was_unreachable: bool,
    /// Whether the last report could not be written.
    not_told: Arc<AtomicBool>,
    /// Whether the other workers cannot be listed: logged once.
    is_blind: bool,
}

impl Aside {
    /// For a starting worker.
    pub(super) fn new(was_told: bool, kafka: &KafkaConfig) -> Self {
        let never = LocalTime::from_micros(0);
        Self {
            step: StepAside::new(was_told, kafka.session_timeout()),
            kafka: kafka.clone(),
            look_at: never,
            ask_at: never,
            reach_at: never,
            peers: None,
            is_reachable: Arc::default(),
            was_unreachable: false,
            not_told: Arc::default(),
            is_blind: false,
        }
    }
}

impl<H: Handler> Deliverer<H> {
    /// Leaves, or comes back, when it is time. No group event is unanswered then.
    pub(super) fn look_whether_to_step_aside(&mut self) -> Result<(), WorkError> {
        let now = self.clock.now();
        if now < self.aside.look_at {
            return Ok(());
        }
        self.aside.look_at = now.later(LOOK_INTERVAL);
        if self.aside.not_told.swap(false, Ordering::AcqRel) {
            self.aside.step.not_told();
        }
        let down_since = self.places.down_since();
        self.look_at_peers(now, down_since);
        let is_aside = self.aside.step.is_aside().is_some();
        if is_aside && now >= self.aside.reach_at {
            self.aside.reach_at = now.later(REACH_INTERVAL);
            self.dispatcher.look_whether_reachable(self.aside.is_reachable.clone());
        }
        let is_reachable = self.aside.was_unreachable && is_aside && self.aside.is_reachable.load(Ordering::Acquire);
        match self.aside.step.next(&AsideInput { now, down_since, is_reachable, peers: self.aside.peers }) {
            AsideAction::None => {}
            AsideAction::Tell(is_down) => self.tell_others(is_down),
            AsideAction::Leave => self.leave()?,
            AsideAction::Return => self.come_back()?,
        }
        Ok(())
    }

    fn look_at_peers(&mut self, now: LocalTime, down_since: Option<LocalTime>) {
        if !self.aside.step.asks_for_peers(now, down_since) {
            self.aside.peers = None;
            return;
        }
        if now < self.aside.ask_at {
            return;
        }
        self.aside.ask_at = now.later(PEERS_INTERVAL);
        let ladder = self.ladder.name();
        self.aside.peers = match self.committer.engine.sink.group_members(self.ladder.group(), PEERS_WITHIN) {
            Ok(members) => {
                let consumed = self.ladder.consumed_topics();
                let names = members.iter().filter_map(|member| member.instance.as_deref());
                let mut workers: BTreeSet<&str> = names.map(|name| worker_of_member(name, &consumed)).collect();
                workers.remove(self.instance.as_str());
                let down = self.hold.handlers_down();
                let well = workers.iter().filter(|worker| !down.contains(**worker)).count();
                tracing::debug!(ladder, live = workers.len(), well, "other workers");
                Some(Peers { live: workers.len(), well })
            }
            Err(error) => {
                if !std::mem::replace(&mut self.aside.is_blind, true) {
                    tracing::warn!(ladder, %error, "cannot list the other workers: keeping the partitions although the handler is down");
                }
                None
            }
        };
    }

    /// The loop does not wait for it.
    fn tell_others(&self, is_down: bool) {
        let (kafka, topic) = (self.aside.kafka.clone(), self.ladder.state_topic());
        let (key, not_told, ladder) =
            (HandlerDownRecord::key_of(&self.instance), self.aside.not_told.clone(), self.ladder.clone());
        let record = HandlerDownRecord { at: self.clock.now().timestamp(), why: self.places.why() };
        let write = move || {
            let written =
                if is_down { write_state(&kafka, &topic, &key, &record.to_value()) } else { clear_state(&kafka, &topic, &key) };
            if let Err(error) = written {
                tracing::warn!(
                    ladder = ladder.name(), %error,
                    "cannot report the handler's health to other workers: apply the rules of `kladder generate acls` again"
                );
                std::thread::sleep(PEERS_INTERVAL);
                not_told.store(true, Ordering::Release);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("handler-down".to_owned()).spawn(write) {
            tracing::error!(ladder = self.ladder.name(), %error, "cannot report the handler's health to other workers");
        }
    }

    /// Releases all partitions, once nothing of them is with the handler.
    fn leave(&mut self) -> Result<(), WorkError> {
        tracing::warn!(
            ladder = self.ladder.name(),
            "handler is down and another worker's is not: leaving the partitions to other workers until the handler is back"
        );
        self.aside.is_reachable.store(false, Ordering::Release);
        self.aside.was_unreachable = self.places.trouble() == Some(Trouble::Unreachable);
        self.hand_over(self.committer.owned());
        self.release_drained()
    }

    fn come_back(&mut self) -> Result<(), WorkError> {
        tracing::info!(ladder = self.ladder.name(), "taking partitions again, to test whether the handler is back");
        self.places.set_stood_aside(None);
        self.places.probe_now();
        Ok(self.committer.source.join_again()?)
    }

    /// The rest of leaving, after the last partition was released.
    pub(super) fn leave_when_drained(&mut self) {
        if let Some((since, until)) = self.aside.step.is_aside() {
            self.committer.source.leave();
            self.places.set_stood_aside(Some((since, until)));
        }
    }
}
