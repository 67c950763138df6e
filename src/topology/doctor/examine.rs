//! Checks of the ladder as a whole: hold, owner, dropped headers; collects all findings in order.

use crate::config::LadderConfig;
use crate::core::ladder::Mode;
use crate::core::state::StateValue;
use crate::core::time::Timestamp;
use crate::topology::doctor::{Check, Diagnosis, Finding, LadderObservation, costly_wait, groups, plan_findings};
use crate::topology::{Limits, desired, plan};

/// Derives the findings. `client_id` is that of kladder's clients.
#[must_use]
pub fn examine(
    config: &LadderConfig,
    seen: &LadderObservation,
    client_id: &str,
    bootstrap_servers: &str,
    now: Timestamp,
) -> Diagnosis {
    let ladder = &config.ladder;
    let mut observed = seen.observed.clone();
    // Setup needs groups without members; here only missing offsets matter.
    observed.groups.values_mut().for_each(|group| group.members = 0);
    let mut desired = desired(config, &observed.topics);
    if !seen.settings {
        // They would be concluded from settings that could not be read.
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
        findings.extend(plan_findings::of_plan(config, &desired, plan, &observed, bootstrap_servers));
    }
    let costly = costly_wait(ladder);
    findings.extend(costly.map(|(problem, remedy)| Finding::note(Check::RetryAfter, ladder.name(), problem, Some(remedy))));
    findings.extend(groups::members(config, seen, client_id));
    findings.extend(groups::out_of_range(config, &desired, seen, bootstrap_servers));
    findings.extend(groups::overdue(config, seen, now));
    findings.sort_by_key(|finding| finding.severity);
    Diagnosis { ladder: ladder.name().to_owned(), group: ladder.group().to_owned(), findings }
}

const COPY_HEADERS: &str = "let the application copy all headers of what it consumes";

/// What a worker has counted since its start.
fn headers_dropped(config: &LadderConfig, seen: &LadderObservation) -> Option<Finding> {
    let ladder = &config.ladder;
    let count = seen.headers_missing.filter(|count| *count > 0.0)?;
    Some(Finding::hazard(
        Check::HeadersDropped,
        ladder.group(),
        format!("the application drops the headers: {count} records came back to {} without theirs", ladder.inbox_topic()),
        "attempts are counted in the headers; without them only the router's bounded memory stops such records from looping for ever",
        COPY_HEADERS,
    ))
}

fn dead_letters_held(config: &LadderConfig, seen: &LadderObservation, now: Timestamp) -> Option<Finding> {
    let (until, record) = seen.state.as_ref()?.dead_letters_held_until(now)?;
    let name = config.ladder.name();
    Some(Finding::hazard(
        Check::DlqBreaker,
        name,
        format!("dead letters are held {}", record.text(until, now)),
        "when most records fail permanently, the cause is usually not the records; held ones wait in the largest tier",
        format!("find the cause (`kladder status`, the handler's log), fix it, then kladder resume --ladder {name}"),
    ))
}

fn held(config: &LadderConfig, seen: &LadderObservation, now: Timestamp) -> Option<Finding> {
    const WHY: &str = "no record is moved or delivered, and waiting records are deleted when retention ends";
    let name = config.ladder.name();
    let resume = format!("kladder resume --ladder {name}");
    match &seen.state.as_ref()?.hold {
        StateValue::Read(hold) if hold.is_of_router(name) => Some(Finding::hazard(
            Check::HeadersDropped,
            config.ladder.group(),
            format!("the application drops the headers, so the ladder is held {}", hold.since(now)),
            "attempts are counted in the headers, without which records would loop for ever; no record moves while it is held",
            format!("{COPY_HEADERS}, then {resume}"),
        )),
        StateValue::Read(hold) if hold.held => {
            Some(Finding::hazard(Check::Held, name, format!("the ladder is held {}", hold.since(now)), WHY, resume))
        }
        StateValue::Unreadable(error) => Some(Finding::hazard(
            Check::Held,
            name,
            format!("the ladder is held by a record that cannot be read: {error}"),
            WHY,
            format!("find out what wrote it to {}; {resume} overwrites it", config.ladder.state_topic()),
        )),
        StateValue::Read(_) | StateValue::Absent => None,
    }
}
