//! `kladder hold`, and what it has in common with `kladder resume`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::cli::confirm::confirmed;
use crate::cli::exit::Exit;
use crate::cli::who::who;
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file, stdout};
use crate::config::LadderConfig;
use crate::core::delay::format_duration;
use crate::core::state::{DLQ_BREAKER_KEY, DlqBreakerRecord, Entry, HOLD_KEY, HoldRecord, LadderState};
use crate::core::time::Timestamp;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::topology::ClusterError;

/// Exit codes and the fields of `-o json`, of both commands.
pub const AFTER_HELP: &str = "\
Exit codes:
  0  done, or there was nothing to do
  1  the cluster could not be reached, or refused something; ladders that were told nothing are named
  2  usage or configuration, or there was nobody to confirm it

Fields of -o json:
  ladders[].ladder               the name
  ladders[].held                 whether it is held now
  ladders[].changed              whether anything is new
  ladders[].dead_letters_let_go  whether dead letters were held that are let go (resume)
  ladders[].by, at, at_ms, why   who said so last, when and why; null where nobody ever did, or it cannot be read";

/// Hold ladders: their workers move nothing, begin no delivery and take nothing from an inbox until they are resumed
///
/// One command stops all workers of a ladder, wherever they run, within two seconds, and those that are started later. What the
/// handler has in its hands is finished and what follows is written; nothing is counted as an attempt, offsets stay where they are
/// and the workers stay ready. Holding what is held changes nothing.
///
/// With no --ladder all ladders of the file are meant; where there are several that is asked about, or needs --yes.
///
/// Records wait in their topics, no longer than those keep them: `outage_budget` of [ladder.NAME.topics], 7 days unless said, and
/// on the source its own retention.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct HoldArgs {
    #[command(flatten)]
    which: Which,
}

/// Which ladders, why, and how it is told.
#[derive(Debug, Args)]
pub struct Which {
    #[command(flatten)]
    config: ConfigArg,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,

    /// Why, for whoever finds it so
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,

    /// Do not ask, where all of several ladders are meant
    #[arg(short, long)]
    yes: bool,

    /// How the outcome is printed; text goes to stderr
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report {
    ladders: Vec<Outcome>,
}

/// How one ladder stands after that.
#[derive(Debug, Serialize)]
pub struct Outcome {
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

/// Holds or releases.
///
/// # Errors
/// When a ladder is unknown or not set up, or the cluster does not do it.
pub fn change(which: &Which, held: bool, accept: Option<Duration>) -> anyhow::Result<Exit> {
    let config = config_file::load(&which.config)?.config;
    let ladders = chosen_ladders(&config, &which.ladders)?;
    if which.ladders.is_empty() && ladders.len() > 1 && !which.yes {
        let names: Vec<&str> = ladders.iter().map(|l| l.ladder.name()).collect();
        let verb = if held { "hold" } else { "resume" };
        let question = format!("{verb} all {} ladders ({})?", names.len(), names.join(", "));
        let instead = format!("say which with --ladder NAME, or add --yes to {verb} all {}: {}", names.len(), names.join(", "));
        if !confirmed(&question, &instead)? {
            return Ok(Exit::Usage);
        }
    }
    let cluster = KafkaCluster::connect(&config.kafka)?;
    let topics: Vec<String> = ladders.iter().map(|l| l.ladder.state_topic()).collect();
    // All are looked at before the first is told anything: a name that is not set up must not leave half of them held.
    let states = cluster.states(&topics)?;
    let now = Clock::system().now().timestamp();
    let who = who();
    let mut outcomes = Vec::new();
    let mut untold = Vec::new();
    for ladder in ladders {
        let state = states.get(&ladder.ladder.state_topic()).cloned().unwrap_or_default();
        if state.other_owner(ladder.ladder.group()).is_some() {
            eprintln!("note: ladder {} belongs to another group than {}", ladder.ladder.name(), ladder.ladder.group());
        }
        let word = Word { held, who: &who, why: which.why.as_deref(), accept, now };
        match word.give(&cluster, ladder, &state, &mut |said| eprintln!("{said}")) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => {
                eprintln!("error: {error}");
                untold.push(ladder.ladder.name());
            }
        }
    }
    if which.output == Output::Json {
        stdout::print(&format!("{}\n", serde_json::to_string_pretty(&Report { ladders: outcomes })?))?;
    }
    if !untold.is_empty() {
        bail!("not {}: {}", if held { "held" } else { "resumed" }, untold.join(", "));
    }
    Ok(Exit::Done)
}

/// What is said to a ladder, and by whom.
pub struct Word<'a> {
    /// To be held, or to go on.
    pub held: bool,
    /// Who says so.
    pub who: &'a str,
    /// Why, in their words.
    pub why: Option<&'a str>,
    /// For how long dead letters are fine from now on, however many there are.
    pub accept: Option<Duration>,
    /// When.
    pub now: Timestamp,
}

impl Word<'_> {
    /// Holds or releases one ladder whose state is that. What there is to tell of it is said line by line.
    ///
    /// # Errors
    /// When the cluster does not take it.
    pub fn give(
        &self,
        cluster: &KafkaCluster,
        ladder: &LadderConfig,
        state: &LadderState,
        say: &mut dyn FnMut(String),
    ) -> Result<Outcome, ClusterError> {
        let let_go = !self.held && self.let_dead_letters_go(cluster, ladder, state, say)?;
        let outcome = self.tell(cluster, ladder, state, say)?;
        let changed = outcome.changed || let_go || self.accept.is_some();
        Ok(Outcome { dead_letters_let_go: let_go, changed, ..outcome })
    }

    fn tell(
        &self,
        cluster: &KafkaCluster,
        ladder: &LadderConfig,
        state: &LadderState,
        say: &mut dyn FnMut(String),
    ) -> Result<Outcome, ClusterError> {
        let (name, held, now) = (ladder.ladder.name(), self.held, self.now);
        // A hold that cannot be read is one, and yet worth to be made readable.
        let known = !matches!(state.hold, Entry::Unreadable(_));
        if known && state.is_held() == held {
            let last = match &state.hold {
                Entry::Read(last) => Some(last),
                _ => None,
            };
            say(match (held, last) {
                (true, Some(last)) => format!("ladder {name} is held already, {}", last.since(now)),
                (_, Some(last)) => format!("ladder {name} is not held; it was resumed {}", last.since(now)),
                (_, None) => format!("ladder {name} is not held"),
            });
            return Ok(Outcome::of(name, held, false, last));
        }
        let record = HoldRecord { held, by: self.who.to_owned(), at: now, why: self.why.map(str::to_owned) };
        cluster.write_state(&ladder.ladder.state_topic(), HOLD_KEY, &record.to_value())?;
        match &state.hold {
            Entry::Unreadable(error) => say(format!("what stood there could not be read ({error}) and is overwritten")),
            Entry::Read(before) if !held => say(format!("ladder {name} was held {}", before.since(now))),
            _ => {}
        }
        say(format!("ladder {name} is {} {record}", if held { "held" } else { "resumed" }));
        Ok(Outcome::of(name, held, true, Some(&record)))
    }

    /// Ends that dead letters are held, where they are, and accepts them where that is said.
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
        // That they are accepted stays so, unless it is said anew.
        let accepted = state.dead_letters_accepted_until(self.now).map(|(until, _)| until);
        let accepted_until = self.accept.map(|time| self.now + time).or(accepted);
        let record = DlqBreakerRecord { until: None, accepted_until, by, at: self.now, why };
        cluster.write_state(&ladder.ladder.state_topic(), DLQ_BREAKER_KEY, &record.to_value())?;
        let name = ladder.ladder.name();
        if let Some((until, record)) = held {
            say(format!(
                "dead letters of ladder {name} were held {}; they are let go: each gets its last attempt once more when it is due",
                record.told(until, self.now)
            ));
        }
        if let (Some(time), Some(until)) = (self.accept, accepted_until) {
            say(format!(
                "dead letters of ladder {name} are accepted for {}, until {}: none are held, however many there are. Where they always \
                 will be, set `share` in [ladder.{name}.dlq_breaker] above their share of the records",
                format_duration(time),
                until.to_rfc3339()
            ));
        }
        Ok(held.is_some())
    }
}

impl Outcome {
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
