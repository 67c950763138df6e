//! What each key accepts: the hints for mistakes. Those of a ladder's keys stand with the keys, in `raw/ladder.rs`.

use crate::config::path::{Path, Segment};
use crate::config::raw::{self, TOPIC_SETTINGS};

/// The hint for this path.
pub fn hint(path: &Path) -> Option<&'static str> {
    if matches!(path.segments(), [Segment::Key(first), _] if first == "ladder") {
        return Some("one table per ladder, with its name in the header: [ladder.billing-orders]");
    }
    if matches!(path.segments(), [Segment::Key(first), _] if first == "dlq") {
        return Some("one table per dead-letter topic of another framework, with a name for it in the header: [dlq.payments]");
    }
    let key = within_queue(path).or_else(|| within_ladder(path)).unwrap_or_else(|| path.dotted());
    // `tiers[1]` has another hint than `tiers`; the index does not matter.
    let key = without_places(&key);
    HINTS.iter().chain(raw::LADDER_HINTS).find(|(known, _)| *known == key).map(|(_, hint)| *hint)
}

/// `classify[2].when` as `classify[].when`.
fn without_places(key: &str) -> String {
    let mut pieces = key.split('[');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |so_far, piece| format!("{so_far}[{}", piece.trim_start_matches(|c: char| c.is_ascii_digit())))
}

/// Whether the key is planned, but not implemented in this version.
pub fn is_later(path: &Path) -> bool {
    within_ladder(path).is_some_and(|key| LATER.contains(&key.as_str())) || LATER_AT_TOP.contains(&path.dotted().as_str())
}

/// Where a misplaced key belongs.
pub fn misplaced(path: &Path) -> Option<&'static str> {
    match (path.dotted().as_str(), path.last_key()) {
        ("defaults.name", _) => Some("set it in each ladder"),
        (_, "name") if within_ladder(path).as_deref() == Some("name") => {
            Some("a ladder's name is in the table header: [ladder.NAME]")
        }
        ("ladders", _) => Some("write one table per ladder: [ladder.NAME]"),
        ("schema-registry" | "registry", _) => Some("write it in [schema_registry]"),
        ("bootstrap.servers" | "bootstrap", _) => Some("write it in [kafka]"),
        (_, "url" | "timeout" | "max_in_flight" | "max_unsettled" | "redeliver_share" | "batch")
            if within_ladder(path).is_some() =>
        {
            Some("write it in [ladder.NAME.handler]")
        }
        (_, "partitions" | "replication_factor" | "outage_budget" | "dlq_retention" | "settings")
            if within_ladder(path).is_some() =>
        {
            Some("write it in [ladder.NAME.topics]")
        }
        _ => None,
    }
}

/// The key of a `[dlq.NAME]` section, as `dlq.key`.
fn within_queue(path: &Path) -> Option<String> {
    match path.segments() {
        [Segment::Key(first), _, Segment::Key(key), ..] if first == "dlq" => Some(format!("dlq.{key}")),
        _ => None,
    }
}

/// The part of the path within a ladder or the defaults.
fn within_ladder(path: &Path) -> Option<String> {
    let depth = match path.segments() {
        [Segment::Key(first), _, ..] if first == "defaults" => 1,
        [Segment::Key(first), _, _, ..] if first == "ladder" => 2,
        _ => return None,
    };
    let below = path.segments()[depth..].iter().fold(Path::default(), |below, segment| match segment {
        Segment::Key(key) => below.key(key),
        Segment::Index(index) => below.index(*index),
    });
    Some(below.dotted())
}

const LATER: &[&str] = &["parking", "handler.headers", "handler.tls"];

const LATER_AT_TOP: &[&str] = &["admin.tls", "admin.users", "admin.auth", "health.tls", "schema_registry.tls"];

const HINTS: &[(&str, &str)] = &[
    ("kafka.bootstrap.servers", "name at least one broker: bootstrap.servers = \"localhost:9092\""),
    ("health.listen", "an IP address and a portsuch as 0.0.0.0:9646 (the default)"),
    ("admin.listen", "a loopback address and a portsuch as 127.0.0.1:9647; default port: that of health.listen + 1"),
    ("worker.instance", "a name that survives restarts, of a-z, A-Z, 0-9, `.`, `_`, `-`; default: the host name"),
    ("worker.roles", "some of mover, deliverer, router, index; default: all of them"),
    ("worker.roles[]", "one of mover, deliverer, router, index"),
    ("worker.state_dir", "a directory; default: $STATE_DIRECTORY, then the XDG state directory"),
    ("worker.drain", "0s to 1h; default 25s"),
    ("schema_registry", "a table: [schema_registry] with url"),
    ("schema_registry.url", "URL of the registry's API: url = \"http://registry:8081\", with its path if it has one"),
    ("schema_registry.username", "a string; with password, for basic authentication"),
    ("schema_registry.password", "a string, such as \"${REGISTRY_PASSWORD}\" or \"${file:/run/secrets/registry}\""),
    ("alerts", "a table: [alerts] with for, lateness, clock_offset, runbook"),
    ("alerts.for", "0s to 1d; default 5m"),
    ("alerts.lateness", "100ms to 30m; default: a tenth of the tier's delay, from 10s to 10m"),
    ("alerts.clock_offset", "100ms to 1h; default 5s"),
    (
        "alerts.runbook",
        "URL of the runbook page, such as https://wiki.example/kladder; each alert's name is added as #name; default: none",
    ),
    ("dlq.topic", "the dead-letter topic: topic = \"payments-dlt\""),
    ("dlq.dialect", "\"spring\", \"connect\", \"streams\", \"smallrye\" or \"share-group\"; detected if absent"),
    ("dlq.targets", "topics that its letters may be sent to: [\"payments\"]"),
    ("dlq.park_after", "1 to 1000: number of redrives after which a letter is parked; default 3"),
    ("dlq.settings", TOPIC_SETTINGS),
];
