//! `kladder explain`

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::{ConfigArg, Output, chosen_ladders, config_file};
use crate::config::LadderConfig;
use crate::core::classify::{HttpAnswer, classify_answer};
use crate::core::coordinates::Coordinates;
use crate::core::decide::{Decision, Judgement};
use crate::core::delay::{format_duration, whole_millis};
use crate::core::envelope::Envelope;
use crate::core::failure::{Disposition, ErrorInfo, Failure, Verdict};
use crate::core::inbox;
use crate::core::ladder::{Ladder, Mode};
use crate::core::time::Timestamp;
use crate::kafka::clock::Clock;

/// Explain what a ladder would do with a failure, and which rule decides
///
/// Shows the outcome of a failed attempt: the rule that decides, the next topic, and when the record would come back. Reads only
/// the configuration; no broker is needed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kladder explain --status 503 --attempt 2
  kladder explain --error-class com.acme.Timeout --error-message 'no answer' --header kind=refund
  kladder explain --status 429 --retry-after 90s -o json

JSON: an array of
  ladder, attempt, verdict      what failed; verdict is done, retry or reject, before any rule
  rule.name, number, when, then the rule that decides, or null
  decision                      complete, hop or dead-letter
  reason, topic                 of a dead letter its reason; where the record goes, or null
  tier, due, due_ms, due_in_ms  of a hop")]
pub struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Only this ladder; may be repeated
    #[arg(long, value_name = "NAME")]
    ladder: Vec<String>,
    /// HTTP status of the handler's answer
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(100..=999))]
    status: Option<u16>,
    /// Error class
    #[arg(long, value_name = "CLASS")]
    error_class: Option<String>,
    /// Error message
    #[arg(long, value_name = "TEXT")]
    error_message: Option<String>,
    /// Header of the record; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Origin topic of the record [default: the ladder's first source]
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Number of the failed attempt; the first delivery is attempt 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32_767))]
    attempt: u32,
    /// Verdict in the handler's answer (`Kladder-Verdict`)
    #[arg(long, value_enum, value_name = "VERDICT")]
    verdict: Option<Said>,
    /// Delay in the handler's answer (`Retry-After`), such as 90s
    #[arg(long, value_name = "DELAY", value_parser = humantime::parse_duration)]
    retry_after: Option<Duration>,
    /// Time since the first failed attempt, such as 2h; matters if the ladder has a `max_age`
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration, default_value = "0s")]
    age: Duration,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Said {
    Done,
    Retry,
    Reject,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    if name.is_empty() { Err("the name is empty".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

pub fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    let file = config_file::load(&args.config)?;
    let ladders = chosen_ladders(&file.config, &args.ladder)?;
    let now = Clock::system().now().timestamp();
    let told: Vec<Explained<'_>> = ladders.into_iter().map(|config| explain(config, &args, now)).collect();
    match args.output {
        Output::Text => output::print(&told.iter().map(|told| told.as_text(&args)).collect::<Vec<_>>().join("\n"))?,
        Output::Json => output::print_json(&told.iter().map(|told| told.as_json(&args)).collect::<Vec<_>>())?,
    }
    Ok(Exit::Done)
}

/// The outcome in one ladder.
struct Explained<'a> {
    ladder: &'a Ladder,
    verdict: Verdict,
    judgement: Judgement,
    now: Timestamp,
}

fn explain<'a>(config: &'a LadderConfig, args: &ExplainArgs, now: Timestamp) -> Explained<'a> {
    let ladder = &config.ladder;
    let topic = args.topic.clone().unwrap_or_else(|| ladder.sources()[0].clone());
    let origin = Coordinates { topic, partition: 0, offset: 0, timestamp: now };
    let made = args.attempt - 1;
    let envelope = Envelope {
        attempts: made,
        first_failed_at: (made > 0).then(|| now - args.age),
        tier: (made > 0).then(|| ladder.tier_after(made).number()),
        ..Envelope::fresh(ladder.name(), &origin)
    };
    let verdict = verdict(ladder, args);
    let header = |name: &str| args.header.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let judgement = ladder.judge(&envelope, &verdict, &header, now);
    Explained { ladder, verdict, judgement, now }
}

/// The verdict of the handler or the application, before any rule.
fn verdict(ladder: &Ladder, args: &ExplainArgs) -> Verdict {
    if let (Mode::Push, Some(status)) = (ladder.mode(), args.status) {
        let word = args.verdict.and_then(|said| said.to_possible_value().map(|value| value.get_name().to_owned()));
        let answer = HttpAnswer {
            status,
            verdict: word,
            error_class: args.error_class.clone(),
            retry_after: args.retry_after,
            message: args.error_message.clone(),
        };
        return classify_answer(&answer).0;
    }
    let disposition = match args.verdict {
        Some(Said::Done) => return Ok(()),
        Some(Said::Reject) => Disposition::Reject,
        Some(Said::Retry) | None => Disposition::Retry { after: args.retry_after },
    };
    let class = args.error_class.clone().unwrap_or_else(|| inbox::UNKNOWN_CLASS.to_owned());
    let error = ErrorInfo { class, message: args.error_message.clone(), status: args.status, stack: None };
    Err(Failure::new(disposition, error))
}

impl Explained<'_> {
    fn said(&self) -> &'static str {
        match &self.verdict {
            Ok(()) => "done",
            Err(failure) if failure.disposition() == Disposition::Reject => "reject",
            Err(_) => "retry",
        }
    }

    /// The topic of a hop, and the moment before which the record does not come back.
    fn due(&self) -> Option<(&str, Timestamp)> {
        let Decision::Hop { tier, envelope } = &self.judgement.decision else { return None };
        let tier = self.ladder.tier(*tier)?;
        Some((tier.topic(), envelope.not_before.unwrap_or(self.now + tier.delay().duration())))
    }

    fn as_text(&self, args: &ExplainArgs) -> String {
        let ladder = self.ladder;
        let mut text = format!("ladder {}\n", ladder.name());
        let what = match &self.verdict {
            Ok(()) => "succeeds: no rule applies".to_owned(),
            Err(failure) => format!("fails with {}: verdict {} before any rule", failure.error().class, self.said()),
        };
        let _ = writeln!(text, "attempt {} {what}", args.attempt);
        if let Some(index) = self.judgement.rule {
            let rule = &ladder.rules()[index];
            let name = rule.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
            let _ = writeln!(text, "rule {}{name} matches: {}; verdict {}", index + 1, rule.when, rule.then.as_str());
        } else if self.verdict.is_err() {
            let none = if ladder.rules().is_empty() { "the ladder has no rules" } else { "no rule matches" };
            let _ = writeln!(text, "{none}, so the verdict stands");
        }
        let outcome = match &self.judgement.decision {
            Decision::Complete if self.verdict.is_err() => "dropped and counted".to_owned(),
            Decision::Complete => "complete".to_owned(),
            Decision::Hop { tier, envelope } => {
                let (topic, due) = self.due().expect("a hop goes to a tier of the ladder");
                let further = match envelope.not_before {
                    Some(_) => " (longer than the largest tier, so it passes through tiers until then)",
                    None => "",
                };
                let wait = format_duration(due.since(self.now));
                format!(
                    "to tier {tier}, {topic}; due in {wait}, at {}{further}; then attempt {}",
                    due.to_rfc3339(),
                    args.attempt + 1
                )
            }
            Decision::DeadLetter { reason, topic, .. } => format!("to {topic}, reason {}", reason.as_str()),
        };
        let _ = writeln!(text, "→ {outcome}");
        text
    }

    fn as_json(&self, args: &ExplainArgs) -> Value {
        let ladder = self.ladder;
        let rule = self.judgement.rule.map(|index| {
            let rule = &ladder.rules()[index];
            json!({ "number": index + 1, "name": ladder.rule_name(index), "when": rule.when.to_string(), "then": rule.then.as_str() })
        });
        let (tier, reason, dead) = match &self.judgement.decision {
            Decision::Hop { tier, .. } => (Some(*tier), None, None),
            Decision::DeadLetter { reason, topic, .. } => (None, Some(reason.as_str()), Some(topic.as_str())),
            Decision::Complete => (None, None, None),
        };
        let due = self.due().map(|(_, due)| due);
        json!({
            "ladder": ladder.name(),
            "attempt": args.attempt,
            "verdict": self.said(),
            "rule": rule,
            "decision": self.judgement.decision.name(),
            "reason": reason,
            "tier": tier,
            "topic": self.due().map(|(topic, _)| topic).or(dead),
            "due": due.map(Timestamp::to_rfc3339),
            "due_ms": due.map(Timestamp::as_millis),
            "due_in_ms": due.map(|due| whole_millis(due.since(self.now))),
        })
    }
}
