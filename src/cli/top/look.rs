//! Observes the ladders on a separate thread: a cluster that does not answer must not freeze the picture.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::cli::hold::HoldCommand;
use crate::cli::top::observation::TopObservation;
use crate::cli::who::who;
use crate::config::{Config, LadderConfig};
use crate::kafka::clock::Clock;
use crate::observe::{Depth, Observer, Scraper};
use crate::topology::ClusterError;

/// A message from the observer.
pub(super) enum News {
    /// A new observation.
    Seen(Box<TopObservation>),
    /// Why an observation failed.
    Unseen(String),
    /// The result of a command.
    Told(String),
}

/// Holds or resumes the ladder of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    pub chosen: usize,
    pub held: bool,
}

/// Observes some ladders of a configuration.
pub(super) struct Looker {
    observer: Observer,
    scraper: Scraper,
    clock: Clock,
}

impl Looker {
    /// Connects.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub fn connect(config: &Config, ladders: &[&LadderConfig]) -> anyhow::Result<Self> {
        Ok(Self {
            observer: Observer::connect(&config.kafka, ladders)?,
            scraper: Scraper::new(config.health.listen)?,
            clock: Clock::system(),
        })
    }

    /// Observes at once and then at each interval, and carries out commands in between, until the channel is closed.
    pub fn keep_looking(mut self, every: Duration, commands: &Receiver<Command>, tell: impl Fn(News) -> bool) {
        loop {
            let news = match self.look() {
                Ok(seen) => News::Seen(Box::new(seen)),
                Err(error) => News::Unseen(error.to_string()),
            };
            if !tell(news) {
                return;
            }
            match commands.recv_timeout(every) {
                Ok(command) => {
                    if !tell(News::Told(self.obey(command))) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The same as `kladder hold` and `kladder resume`.
    fn obey(&mut self, command: Command) -> String {
        let Some(ladder) = self.observer.ladders().get(command.chosen).cloned() else { return "no such ladder".to_owned() };
        let mut said = Vec::new();
        let who = who();
        let outcome = self.observer.state(&ladder.ladder.state_topic()).and_then(|state| {
            let word = HoldCommand { held: command.held, who: &who, why: None, accept: None, now: self.clock.now().timestamp() };
            word.give(self.observer.cluster(), &ladder, &state, &mut |line| said.push(line))
        });
        match outcome {
            Ok(_) => said.join("; "),
            Err(error) => format!("not {}: {error}", if command.held { "held" } else { "resumed" }),
        }
    }

    /// One observation.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn look(&mut self) -> Result<TopObservation, ClusterError> {
        // The worker first: the request is quick or hangs, and the offsets must not be older by that time.
        let samples = self.scraper.scrape().ok();
        let worker = samples.is_some().then(|| self.scraper.worker().to_string());
        let observed = self.observer.look(samples.as_ref(), Depth { members: true, ..Depth::default() })?;
        TopObservation::of(observed, self.observer.ladders(), worker)
    }
}
