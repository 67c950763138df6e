//! What each key takes: the hints of mistakes, said once.

use crate::config::path::{Path, Segment};

/// What belongs at this place.
pub fn hint(path: &Path) -> Option<&'static str> {
    if matches!(path.segments(), [Segment::Key(first), _] if first == "ladder") {
        return Some("one table a ladder, headed by its name: [ladder.billing-orders]");
    }
    let key = within_ladder(path).unwrap_or_else(|| path.dotted());
    // `tiers[1]` takes another thing than `tiers`.
    let key = key.find('[').map_or(key.clone(), |bracket| format!("{}[]", &key[..bracket]));
    HINTS.iter().find(|(known, _)| *known == key).map(|(_, hint)| *hint)
}

/// Whether the key is one of kladder's design that this version does not know yet.
pub fn is_later(path: &Path) -> bool {
    within_ladder(path).is_some_and(|key| LATER.contains(&key.as_str())) || LATER_AT_TOP.contains(&path.dotted().as_str())
}

/// Where a key belongs that stands in a wrong place.
pub fn misplaced(path: &Path) -> Option<&'static str> {
    match (path.dotted().as_str(), path.last_key()) {
        ("defaults.sources" | "defaults.group" | "defaults.name", _) => Some("each ladder names its own"),
        (_, "name") if within_ladder(path).as_deref() == Some("name") => {
            Some("a ladder's name stands in its header: [ladder.NAME]")
        }
        ("ladders", _) => Some("write one table a ladder: [ladder.NAME]"),
        ("bootstrap.servers" | "bootstrap", _) => Some("write it below [kafka]"),
        (_, "url" | "timeout" | "max_in_flight" | "redeliver_share") if within_ladder(path).is_some() => {
            Some("write it below [ladder.NAME.handler]")
        }
        (_, "partitions" | "replication_factor" | "outage_budget" | "dlq_retention") if within_ladder(path).is_some() => {
            Some("write it below [ladder.NAME.topics]")
        }
        _ => None,
    }
}

/// The part of the path below a ladder or the defaults.
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

const LATER: &[&str] = &[
    "classify",
    "breaker",
    "dlq_breaker",
    "immediate",
    "max_age",
    "max_rate",
    "inbox",
    "parking",
    "handler.headers",
    "handler.tls",
];

const LATER_AT_TOP: &[&str] = &["admin.tls", "admin.users", "admin.auth", "health.tls"];

const HINTS: &[(&str, &str)] = &[
    ("kafka.bootstrap.servers", "name at least one broker: bootstrap.servers = \"localhost:9092\""),
    ("health.listen", "an IP address and a port, as 0.0.0.0:9646 (the default)"),
    ("admin.listen", "a loopback address and a port, as 127.0.0.1:9647 (the default)"),
    ("worker.instance", "a name that survives restarts, of a-z, A-Z, 0-9, `.`, `_`, `-`; default: the host name"),
    ("worker.roles", "some of mover, deliverer, router, index; default: all of them"),
    ("worker.roles[]", "one of mover, deliverer, router, index"),
    ("worker.state_dir", "a directory; default: $STATE_DIRECTORY, then the XDG state directory"),
    ("worker.drain", "0s to 1h; default 25s"),
    ("sources", "the topics that the group consumes: sources = [\"orders\"]"),
    ("sources[]", "the name of a topic, as \"orders\""),
    ("group", "the consumer group that the ladder belongs to: group = \"billing\""),
    ("start", "\"earliest\" or \"latest\""),
    ("mode", "\"push\" (kladder calls the handler; the default) or \"relay\" (the application consumes)"),
    ("hops", "\"exactly-once\" (the default) or \"at-least-once\""),
    (
        "tiers",
        "1 to 32 rising delays, tiers = [\"5s\", \"1m\", \"10m\"], or { first = \"5s\", factor = 12, count = 3, max = \"1h\" }",
    ),
    ("tiers[]", "rising delays between 1ms and 365d, each once, as \"5s\", \"1m30s\" or \"250ms\""),
    ("tiers.first", "the delay of the first tier: 1ms to 365d"),
    ("tiers.factor", "how much longer each tier is than the one before it: above 1, at most 1000"),
    ("tiers.count", "how many steps there are: 1 to 32"),
    ("tiers.max", "no tier is longer than this: first to 365d"),
    ("attempts", "1 to 32767, the first delivery included; default: tiers + 1"),
    ("max_not_before", "how far off a handler may ask to be called again: 1s to 365d; default 1d"),
    (
        "redeliver",
        "\"topic\" (due records come back in {ladder}.redeliver; the default) or \"origin\" (in the topic that they came from)",
    ),
    (
        "reaches_all_groups",
        "reaches_all_groups = true says that every group that reads the sources may get redelivered records again",
    ),
    ("settle", "how long after its redelivery a record is presumed done that has not failed again: 1s to 1d; default 2m"),
    ("handler", "a table: [ladder.NAME.handler] with url"),
    ("handler.url", "where kladder posts the records: url = \"http://127.0.0.1:3000/\""),
    ("handler.timeout", "1ms to 1h; default 10s"),
    ("handler.max_in_flight", "1 to 10000; default 64"),
    ("handler.redeliver_share", "above 0, at most 1; default 0.5"),
    ("topics.partitions", "1 to 10000; default: those of the largest source, at most 12"),
    ("topics.replication_factor", "1 to 100; default: that of the source"),
    ("topics.outage_budget", "1m to 3650d; default 7d"),
    ("topics.dlq_retention", "1m to 3650d; default 30d"),
];
