//! The state of the screen as changed by keys and observations. Pure: commands are returned, not carried out.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cli::top::keys::Action;
use crate::cli::top::look::{Command, News};
use crate::cli::top::observation::{HoldSeen, TopObservation};
use crate::cli::top::picture::{Freshness, LadderPicture, Overlay, Picture};
use crate::core::time::Timestamp;

/// Rates are measured over this time: over less, they would jump with each batch of the mover.
const RATE_OVER: Duration = Duration::from_secs(10);

/// Number of missed observations after which the data is called stale.
const MISSED: u32 = 3;

/// The effect of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    Quit,
    Send(Command),
}

/// The state of the picture between two drawings.
pub(super) struct View {
    names: Vec<String>,
    every: Duration,
    chosen: usize,
    overlay: Overlay,
    /// Oldest first.
    looks: VecDeque<TopObservation>,
    error: Option<String>,
    told: Option<String>,
}

impl View {
    /// For ladders of these names, observed at this interval.
    pub fn new(names: Vec<String>, every: Duration) -> Self {
        Self { names, every, chosen: 0, overlay: Overlay::Nothing, looks: VecDeque::new(), error: None, told: None }
    }

    /// The refresh interval.
    pub fn every(&self) -> Duration {
        self.every
    }

    pub fn overlay(&self) -> Overlay {
        self.overlay
    }

    /// Applies a message from the observer.
    pub fn hear(&mut self, news: News) {
        match news {
            News::Seen(look) => {
                self.error = None;
                // One observation older than ten seconds is kept, so that rates always span that time.
                while self.looks.get(1).is_some_and(|second| look.at.since(second.at) >= RATE_OVER) {
                    self.looks.pop_front();
                }
                self.looks.push_back(*look);
            }
            News::Unseen(error) => self.error = Some(error),
            News::Told(told) => self.told = Some(told),
        }
    }

    /// Applies a key's action.
    pub fn apply(&mut self, action: Action) -> Effect {
        let many = self.names.len().max(1);
        // The message of the last command has been read by now.
        self.told = None;
        match action {
            Action::Quit => return Effect::Quit,
            Action::NextLadder => self.chosen = (self.chosen + 1) % many,
            Action::PreviousLadder => self.chosen = (self.chosen + many - 1) % many,
            Action::Ladder(number) if number < many => self.chosen = number,
            Action::Ladder(_) => {}
            Action::Help => self.overlay = Overlay::Help,
            Action::Ask => self.overlay = Overlay::Confirm { hold: !self.is_held() },
            Action::Close => self.overlay = Overlay::Nothing,
            Action::Confirm => {
                let overlay = std::mem::take(&mut self.overlay);
                if let Overlay::Confirm { hold } = overlay {
                    self.told = Some(if hold { "holding…".to_owned() } else { "resuming…".to_owned() });
                    return Effect::Send(Command { chosen: self.chosen, held: hold });
                }
            }
        }
        Effect::Nothing
    }

    fn is_held(&self) -> bool {
        let ladder = self.looks.back().and_then(|look| look.ladders.get(self.chosen));
        ladder.is_some_and(|ladder| matches!(ladder.hold, HoldSeen::Held(_)))
    }

    /// The ladders that can be chosen.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The picture at this moment.
    pub fn picture(&self, now: Timestamp) -> Picture {
        let latest = self.looks.back();
        let earlier = self.looks.front().filter(|_| self.looks.len() > 1);
        Picture {
            names: self.names.clone(),
            chosen: self.chosen,
            now,
            freshness: self.freshness(now),
            ladder: latest.and_then(|latest| LadderPicture::of(latest, earlier, self.chosen, now)),
            overlay: self.overlay,
            told: self.told.clone(),
            caption: None,
        }
    }

    fn freshness(&self, now: Timestamp) -> Freshness {
        let Some(latest) = self.looks.back() else { return Freshness::Awaited };
        let age = now.since(latest.at);
        if self.error.is_some() || age > (self.every * MISSED).max(Duration::from_secs(3)) {
            Freshness::Stale { age, error: self.error.clone() }
        } else {
            Freshness::Fresh
        }
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
