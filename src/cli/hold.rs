//! `kladder hold`, and what it shares with `kladder resume`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::cli::confirm::confirmed;
use crate::cli::exit::Exit;
use crate::cli::output::{self, tell};
use crate::cli::who::who;
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file};
use crate::config::LadderConfig;
use crate::core::delay::format_duration;
use crate::core::state::{DLQ_ACCEPTED_KEY, DLQ_BREAKER_KEY, DlqBreakerRecord, HOLD_KEY, HoldRecord, LadderState, StateValue};
use crate::core::time::Timestamp;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::topology::ClusterError;

/// Exit codes and the fields of `-o json`, of both commands.
pub const AFTER_HELP: &str = "\
Exit codes:
  0  done, or nothing to do
  1  the cluster could not be reached, or refused a request; the ladders left unchanged are named
  2  usage or configuration, or no terminal to confirm on

Fields of -o json:
  ladders[].ladder               the name
  ladders[].held                 whether the ladder is held now
  ladders[].changed              whether this command changed anything
  ladders[].dead_letters_let_go  whether held dead letters were released (resume)
  ladders[].by, at, at_ms, why   the last hold or resume: by whom, when, why; null if there was none or it cannot be read";

/// Hold ladders: their workers move no record and start no delivery until they are resumed
///
/// One command stops all workers of a ladder, wherever they run, within two seconds, and also those that start later. Deliveries
/// in flight finish and their outcomes are written; no attempt is counted, offsets do not move and the workers stay ready. Holding
/// a held ladder changes nothing.
///
/// Without --ladder, all ladders of the configuration are held; if there are several, that needs confirmation or
/// --yes.
///
/// Records wait in their topics, but no longer than retention keeps them: `outage_budget` of [ladder.NAME.topics] (default 7
/// days), and on the source its own retention.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct HoldArgs {
    #[command(flatten)]
    which: Which,
}

/// Which ladders, why, and the output format.
#[derive(Debug, Args)]
pub struct Which {
    #[command(flatten)]
    config: ConfigArg,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,

    /// Reason, shown to anyone who finds the ladder held
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,

    /// Do not ask for confirmation when all of several ladders are meant
    #[arg(short, long)]
    yes: bool,

    /// Output format of the result; text goes to stderr
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,
}

#[derive(Debug, Serialize)]
struct HoldReport {
    ladders: Vec<HoldOutcome>,
}

/// The state of one ladder after the command.
#[derive(Debug, Serialize)]
pub struct HoldOutcome {
    ladder: String,
    held: bool,
    changed: bool,
    dead_letters_let_go: bool,
    by: Option<String>,
    at: Option<String>,
    at_ms: Option<i64>,
    why: Option<String>,
}

pub fn run(args: HoldArgs) -> anyhow::Result<Exit> {
    change(&args.which, true, None)
}

/// Holds or resumes ladders.
///
/// # Errors
/// A ladder is unknown or not set up, or the cluster refuses the write.
pub fn change(which: &Which, held: bool, accept: Option<Duration>) -> anyhow::Result<Exit> {
    let config = config_file::load(&which.config)?.config;
    let ladders = chosen_ladders(&config, &which.ladders)?;
    if which.ladders.is_empty() && ladders.len() > 1 && !which.yes {
        let names: Vec<&str> = ladders.iter().map(|l| l.ladder.name()).collect();
        let verb = if held { "hold" } else { "resume" };
        let question = format!("{verb} all {} ladders ({})?", names.len(), names.join(", "));
        let instead = format!("name one with --ladder NAME, or add --yes to {verb} all {}: {}", names.len(), names.join(", "));
        if !confirmed(&question, &instead)? {
            return Ok(Exit::Usage);
        }
    }
    let cluster = KafkaCluster::connect(&config.kafka)?;
    let topics: Vec<String> = ladders.iter().map(|l| l.ladder.state_topic()).collect();
    // All states are read before any is written: a ladder that is not set up must not leave half of them held.
    let states = cluster.states(&topics)?;
    let now = Clock::system().now().timestamp();
    let who = who();
    let mut outcomes = Vec::new();
    let mut untold = Vec::new();
    for ladder in ladders {
        let state = states.get(&ladder.ladder.state_topic()).cloned().unwrap_or_default();
        if state.other_owner(ladder.ladder.group()).is_some() {
            tell!("note: ladder {} belongs to another group than {}", ladder.ladder.name(), ladder.ladder.group());
        }
        let word = HoldCommand { held, who: &who, why: which.why.as_deref(), accept, now };
        match word.give(&cluster, ladder, &state, &mut |said| tell!("{said}")) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => {
                tell!("error: {error}");
                untold.push(ladder.ladder.name());
            }
        }
    }
    if which.output == Output::Json {
        output::print_json(&HoldReport { ladders: outcomes })?;
    }
    if !untold.is_empty() {
        bail!("not {}: {}", if held { "held" } else { "resumed" }, untold.join(", "));
    }
    Ok(Exit::Done)
}

/// A hold or resume of a ladder, and by whom.
pub struct HoldCommand<'a> {
    /// Hold, or resume.
    pub held: bool,
    /// The user.
    pub who: &'a str,
    /// The reason in their words.
    pub why: Option<&'a str>,
    /// For how long dead letters are accepted from now on, however many there are.
    pub accept: Option<Duration>,
    /// When.
    pub now: Timestamp,
}

impl HoldCommand<'_> {
    /// Holds or resumes one ladder whose state is `state`. Messages are passed to `say` line by line.
    ///
    /// # Errors
    /// The cluster refuses the write.
    pub fn give(
        &self,
        cluster: &KafkaCluster,
        ladder: &LadderConfig,
        state: &LadderState,
        say: &mut dyn FnMut(String),
    ) -> Result<HoldOutcome, ClusterError> {
        let let_go = !self.held && self.let_dead_letters_go(cluster, ladder, state, say)?;
        let outcome = self.tell(cluster, ladder, state, say)?;
        let changed = outcome.changed || let_go || self.accept.is_some();
        Ok(HoldOutcome { dead_letters_let_go: let_go, changed, ..outcome })
    }

    fn tell(
        &self,
        cluster: &KafkaCluster,
        ladder: &LadderConfig,
        state: &LadderState,
        say: &mut dyn FnMut(String),
    ) -> Result<HoldOutcome, ClusterError> {
        let (name, held, now) = (ladder.ladder.name(), self.held, self.now);
        // An unreadable hold record counts as a hold, but is worth overwriting with a readable one.
        let known = !matches!(state.hold, StateValue::Unreadable(_));
        if known && state.is_held() == held {
            let last = match &state.hold {
                StateValue::Read(last) => Some(last),
                _ => None,
            };
            say(match (held, last) {
                (true, Some(last)) => format!("ladder {name} is already held, {}", last.since(now)),
                (_, Some(last)) => format!("ladder {name} is not held; it was resumed {}", last.since(now)),
                (_, None) => format!("ladder {name} is not held"),
            });
            return Ok(HoldOutcome::of(name, held, false, last));
        }
        let record = HoldRecord { held, by: self.who.to_owned(), at: now, why: self.why.map(str::to_owned) };
        cluster.write_state(&ladder.ladder.state_topic(), HOLD_KEY, &record.to_value())?;
        match &state.hold {
            StateValue::Unreadable(error) => say(format!("the previous record could not be read ({error}) and is overwritten")),
            StateValue::Read(before) if !held => say(format!("ladder {name} was held {}", before.since(now))),
            _ => {}
        }
        say(format!("ladder {name} is {} {record}", if held { "held" } else { "resumed" }));
        Ok(HoldOutcome::of(name, held, true, Some(&record)))
    }

    /// Releases held dead letters, and accepts further ones for the given time.
    fn let_dead_letters_go(
        &self,
        cluster: &KafkaCluster,
        ladder: &LadderConfig,
        state: &LadderState,
        say: &mut dyn FnMut(String),
    ) -> Result<bool, ClusterError> {
        let held = state.dead_letters_held_until(self.now);
        if held.is_none() && self.accept.is_none() {
            return Ok(false);
        }
        let (by, why) = (self.who.to_owned(), self.why.map(str::to_owned));
        let (topic, accepted_until) = (ladder.ladder.state_topic(), self.accept.map(|time| self.now + time));
        let record = |until| DlqBreakerRecord { until, by: by.clone(), at: self.now, why: why.clone() }.to_value();
        // An earlier acceptance stays in force unless a new one is given.
        if accepted_until.is_some() {
            cluster.write_state(&topic, DLQ_ACCEPTED_KEY, &record(accepted_until))?;
        }
        cluster.write_state(&topic, DLQ_BREAKER_KEY, &record(None))?;
        let name = ladder.ladder.name();
        if let Some((until, record)) = held {
            say(format!(
                "dead letters of ladder {name} were held {}; they are released: each gets its last attempt again when it is due",
                record.text(until, self.now)
            ));
        }
        if let (Some(time), Some(until)) = (self.accept, accepted_until) {
            say(format!(
                "dead letters of ladder {name} are accepted for {}, until {}: none are held, however many there are. If there are always \
                 that many, raise `share` in [ladder.{name}.dlq_breaker]",
                format_duration(time),
                until.to_rfc3339()
            ));
        }
        Ok(held.is_some())
    }
}

impl HoldOutcome {
    fn of(ladder: &str, held: bool, changed: bool, record: Option<&HoldRecord>) -> Self {
        Self {
            ladder: ladder.to_owned(),
            held,
            changed,
            dead_letters_let_go: false,
            by: record.map(|r| r.by.clone()),
            at: record.map(|r| r.at.to_rfc3339()),
            at_ms: record.map(|r| r.at.as_millis()),
            why: record.and_then(|r| r.why.clone()),
        }
    }
}
