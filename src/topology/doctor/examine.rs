//! The ladder as a whole: held, whose, an application that drops the headers; and all findings in their order.

use std::collections::BTreeMap;

use crate::config::LadderConfig;
use crate::core::ladder::Mode;
use crate::core::state::{Entry, LadderState};
use crate::core::time::Timestamp;
use crate::topology::doctor::{Check, Diagnosis, Finding, groups, settings};
use crate::topology::{GroupMember, Limits, Observed, desired, plan};

/// What was seen of one ladder. What could not be looked at stands in `unchecked`, and nothing is concluded from its absence.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The topics, where their groups stand, and whose it is.
    pub observed: Observed,
    /// Whether the settings of the topics could be read.
    pub settings: bool,
    /// Offsets that were read before the ends of the topics were: what stands above an end does so in truth.
    pub standing: Observed,
    /// The state of the ladder; `None` where there is no state topic.
    pub state: Option<LadderState>,
    /// The members of the groups that could be described.
    pub members: BTreeMap<String, Vec<GroupMember>>,
    /// When the oldest record that waits in a tier's topic was appended.
    pub oldest: BTreeMap<String, Timestamp>,
    /// How many records came back without headers, by the metric of the worker that answered.
    pub headers_missing: Option<f64>,
    /// What could not be looked at.
    pub unchecked: Vec<Finding>,
}

/// Draws the conclusions. `client_id` is what kladder's clients call themselves.
#[must_use]
pub fn examine(config: &LadderConfig, seen: &Seen, client_id: &str, bootstrap_servers: &str, now: Timestamp) -> Diagnosis {
    let ladder = &config.ladder;
    let mut observed = seen.observed.clone();
    // Setup needs groups without members; here the question is only what they lack.
    observed.groups.values_mut().for_each(|group| group.members = 0);
    let mut desired = desired(config, &observed.topics);
    if !seen.settings {
        // They would be concluded from settings that nobody has seen.
        desired.hazards.clear();
    }
    let limits = Limits { max_partitions: u32::MAX, take_over: false, bootstrap_servers: bootstrap_servers.to_owned() };
    let plan = plan(std::slice::from_ref(&desired), &observed, &limits);

    let mut findings = seen.unchecked.clone();
    if ladder.mode() == Mode::Relay {
        findings.extend(headers_dropped(config, seen));
    }
    findings.extend(held(config, seen, now));
    findings.extend(dead_letters_held(config, seen, now));
    for plan in &plan.ladders {
        findings.extend(settings::of_plan(config, &desired, plan, &observed, bootstrap_servers));
    }
    findings.extend(groups::members(config, seen, client_id));
    findings.extend(groups::out_of_range(config, &desired, seen, bootstrap_servers));
    findings.extend(groups::overdue(config, seen, now));
    findings.sort_by_key(|finding| finding.severity);
    Diagnosis { ladder: ladder.name().to_owned(), group: ladder.group().to_owned(), findings }
}

const COPY_HEADERS: &str = "let the application copy all headers of what it consumes";

/// What a worker has counted since it was started.
fn headers_dropped(config: &LadderConfig, seen: &Seen) -> Option<Finding> {
    let ladder = &config.ladder;
    let count = seen.headers_missing.filter(|count| *count > 0.0)?;
    Some(Finding::hazard(
        Check::HeadersDropped,
        ladder.group(),
        format!("the application drops the headers: {count} records came back to {} without theirs", ladder.inbox_topic()),
        "attempts are counted in the headers; only a bounded memory of the router keeps such records from going round for ever",
        COPY_HEADERS,
    ))
}

fn dead_letters_held(config: &LadderConfig, seen: &Seen, now: Timestamp) -> Option<Finding> {
    let (until, record) = seen.state.as_ref()?.dead_letters_held_until(now)?;
    let name = config.ladder.name();
    Some(Finding::hazard(
        Check::DlqBreaker,
        name,
        format!("dead letters are held {}", record.told(until, now)),
        "when most records fail for good, something else is broken than the records; those that are held wait in the largest tier",
        format!("look at what fails (`kladder status`, the handler's log), mend it, then kladder resume --ladder {name}"),
    ))
}

fn held(config: &LadderConfig, seen: &Seen, now: Timestamp) -> Option<Finding> {
    const WHY: &str = "nothing is moved and nothing delivered, while records wait no longer than their topics keep them";
    let name = config.ladder.name();
    let resume = format!("kladder resume --ladder {name}");
    match &seen.state.as_ref()?.hold {
        Entry::Read(hold) if hold.is_of_router(name) => Some(Finding::hazard(
            Check::HeadersDropped,
            config.ladder.group(),
            format!("the application drops the headers, so the ladder is held {}", hold.since(now)),
            "attempts are counted in the headers, without which records would go round for ever; and nothing moves while it is held",
            format!("{COPY_HEADERS}, then {resume}"),
        )),
        Entry::Read(hold) if hold.held => {
            Some(Finding::hazard(Check::Held, name, format!("the ladder is held {}", hold.since(now)), WHY, resume))
        }
        Entry::Unreadable(error) => Some(Finding::hazard(
            Check::Held,
            name,
            format!("the ladder is held by a record that cannot be read: {error}"),
            WHY,
            format!("ask who wrote it to {}; {resume} overwrites it", config.ladder.state_topic()),
        )),
        Entry::Read(_) | Entry::Absent => None,
    }
}
