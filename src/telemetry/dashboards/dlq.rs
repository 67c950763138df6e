//! The dead letters: number, age, reasons, redrives.

use crate::telemetry::dashboards::panel::{Panel, Unit};
use crate::telemetry::names as n;
use crate::telemetry::promql::{RATE_INTERVAL, increase, max, rate, series, sum};

/// Purpose of the dashboard.
pub const ABOUT: &str = "The dead letters of one ladder or several: how many are open, how old they are, and why.";

const SCOPE: &str = r#"ladder=~"$ladder""#;
const DONE: &str = r#"ladder=~"$ladder",verdict="done""#;
const LADDER: &[&str] = &[n::LADDER];

/// The panels, in order.
pub fn panels() -> Vec<Panel> {
    // Every process with the role index reports all letters of the ladder, so they are not summed over processes.
    let letters = |metric| max(LADDER, &series(metric, SCOPE));
    let all = |metric| sum(&[], &letters(metric));
    vec![
        Panel::stat("Open", n::DLQ_OPEN, Unit::Count, all(n::DLQ_OPEN)).limits(1.0, 1000.0),
        Panel::stat("In the topics", n::DLQ_RECORDS, Unit::Count, all(n::DLQ_RECORDS)),
        Panel::stat("Oldest open", n::DLQ_OLDEST, Unit::Seconds, max(&[], &series(n::DLQ_OLDEST, SCOPE))),
        Panel::stat("Deleted within a day", n::DLQ_AT_RISK, Unit::Count, all(n::DLQ_AT_RISK)).limit(1.0),
        Panel::stat("New groups", n::DLQ_NEW_GROUPS, Unit::Count, all(n::DLQ_NEW_GROUPS)).limits(1.0, 10.0),
        Panel::stat(
            "Ladders that hold them",
            n::DLQ_BREAKER_OPEN,
            Unit::Count,
            sum(&[], &max(LADDER, &series(n::DLQ_BREAKER_OPEN, SCOPE))),
        )
        .limit(1.0),
        Panel::graph("Arrivals by reason", n::DEAD_LETTERS, Unit::PerSecond)
            .size(12, 8)
            .query("{{ladder}} {{reason}}", sum(&[n::LADDER, n::REASON], &rate(n::DEAD_LETTERS, SCOPE, RATE_INTERVAL))),
        Panel::graph("Share of all finished records", n::DEAD_LETTERS, Unit::Share).size(12, 8).query("{{ladder}}", share()),
        Panel::graph("Open", n::DLQ_OPEN, Unit::Count).query("{{ladder}}", letters(n::DLQ_OPEN)),
        Panel::graph("Oldest open", n::DLQ_OLDEST, Unit::Seconds).query("{{ladder}}", letters(n::DLQ_OLDEST)),
        Panel::graph("Deleted within a day", n::DLQ_AT_RISK, Unit::Count).query("{{ladder}}", letters(n::DLQ_AT_RISK)).limit(1.0),
        Panel::graph("New groups", n::DLQ_NEW_GROUPS, Unit::Count).query("{{ladder}}", letters(n::DLQ_NEW_GROUPS)),
        Panel::graph("Held instead of dead", n::DEAD_LETTERS_HELD, Unit::Count)
            .query("{{ladder}}", sum(LADDER, &increase(n::DEAD_LETTERS_HELD, SCOPE, "1h"))),
        Panel::graph("Redrives", n::REDRIVE_JOBS, Unit::Count).query("{{ladder}}", letters(n::REDRIVE_JOBS)),
        Panel::graph("Redriven records", n::REDRIVE_SENT, Unit::Count)
            .query("{{ladder}} sent", letters(n::REDRIVE_SENT))
            .query("{{ladder}} left", letters(n::REDRIVE_LEFT)),
        Panel::table("Dead letters since the workers started", n::DEAD_LETTERS.help).size(8, 8).column(
            "Dead letters",
            Unit::Count,
            sum(&[n::LADDER, n::REASON], &series(n::DEAD_LETTERS, SCOPE)),
        ),
    ]
}

/// Dead letters divided by all finished records.
fn share() -> String {
    let dead = sum(LADDER, &rate(n::DEAD_LETTERS, SCOPE, RATE_INTERVAL));
    let done = sum(LADDER, &rate(n::DELIVERIES, DONE, RATE_INTERVAL));
    format!("{dead} / ({dead} + {done})")
}
