//! What each key takes: the hints of mistakes, said once.

use crate::config::path::{Path, Segment};

/// What belongs at this place.
pub fn hint(path: &Path) -> Option<&'static str> {
    if matches!(path.segments(), [Segment::Key(first), _] if first == "ladder") {
        return Some("one table a ladder, headed by its name: [ladder.billing-orders]");
    }
    if matches!(path.segments(), [Segment::Key(first), _] if first == "dlq") {
        return Some("one table a dead-letter topic of another framework, headed by a name for it: [dlq.payments]");
    }
    let key = within_queue(path).or_else(|| within_ladder(path)).unwrap_or_else(|| path.dotted());
    // `tiers[1]` takes another thing than `tiers`; which one it is does not matter.
    let key = without_places(&key);
    HINTS.iter().find(|(known, _)| *known == key).map(|(_, hint)| *hint)
}

/// `classify[2].when` as `classify[].when`.
fn without_places(key: &str) -> String {
    let mut pieces = key.split('[');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |so_far, piece| format!("{so_far}[{}", piece.trim_start_matches(|c: char| c.is_ascii_digit())))
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
        ("schema-registry" | "registry", _) => Some("write it below [schema_registry]"),
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

/// The key of a `[dlq.NAME]` section, as `dlq.key`.
fn within_queue(path: &Path) -> Option<String> {
    match path.segments() {
        [Segment::Key(first), _, Segment::Key(key), ..] if first == "dlq" => Some(format!("dlq.{key}")),
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

const LATER: &[&str] = &["parking", "handler.headers", "handler.tls"];

const LATER_AT_TOP: &[&str] = &["admin.tls", "admin.users", "admin.auth", "health.tls", "schema_registry.tls"];

const HINTS: &[(&str, &str)] = &[
    ("kafka.bootstrap.servers", "name at least one broker: bootstrap.servers = \"localhost:9092\""),
    ("health.listen", "an IP address and a port, as 0.0.0.0:9646 (the default)"),
    ("admin.listen", "a loopback address and a port, as 127.0.0.1:9647; the port after that of health.listen unless said"),
    ("worker.instance", "a name that survives restarts, of a-z, A-Z, 0-9, `.`, `_`, `-`; default: the host name"),
    ("worker.roles", "some of mover, deliverer, router, index; default: all of them"),
    ("worker.roles[]", "one of mover, deliverer, router, index"),
    ("worker.state_dir", "a directory; default: $STATE_DIRECTORY, then the XDG state directory"),
    ("worker.drain", "0s to 1h; default 25s"),
    ("schema_registry", "a table: [schema_registry] with url"),
    ("schema_registry.url", "where the registry's API stands: url = \"http://registry:8081\", with a path where it has one"),
    ("schema_registry.username", "a string; with password, for basic authentication"),
    ("schema_registry.password", "a string, as \"${REGISTRY_PASSWORD}\" or \"${file:/run/secrets/registry}\""),
    ("alerts", "a table: [alerts] with for, lateness, clock_offset, runbook"),
    ("alerts.for", "0s to 1d; default 5m"),
    ("alerts.lateness", "100ms to 30m; default: a tenth of the tier's delay, from 10s to 10m"),
    ("alerts.clock_offset", "100ms to 1h; default 5s"),
    ("alerts.runbook", "the page that tells what to do, as https://wiki.example/kladder; each alert's name is added as #name"),
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
    (
        "max_age",
        "how long after its first failure a record may still come back, as \"2h\": the first tier to 3650d; default: for ever",
    ),
    (
        "max_rate",
        "how many records of each tier come back at most, as \"500/s\", \"30/m\" or \"1000/h\"; default: as many as are due",
    ),
    ("immediate", "a table: immediate = { attempts = 2, backoff = \"100ms\" }"),
    ("immediate.attempts", "how often a failed attempt is repeated in place before it counts: 1 to 10"),
    ("immediate.backoff", "how long after a failure: 0s to 10s; default 100ms"),
    ("classify", "one table a rule, headed by [[ladder.NAME.classify]]; the first one that holds decides"),
    ("classify[]", "one table a rule, headed by [[ladder.NAME.classify]]"),
    ("classify[].name", "a name of a-z, 0-9, `-` for metrics, which no other rule has; default: the rule's number"),
    (
        "classify[].when",
        "when = { … } with at least one of status, error_class, message, header, topic; a rule for everything else: \
         error_class = { regex = \"\" }",
    ),
    ("classify[].when.status", "404, \"5xx\", \"500-504\", or a list of such"),
    ("classify[].when.error_class", "\"Timeout\", { prefix = \"com.acme.\" } or { regex = \"Time(d )?out\" }"),
    ("classify[].when.message", "a regular expression that is looked for in the message"),
    ("classify[].when.header", "a table of header names: header = { kind = \"refund\" }; each may be a prefix or a regex, too"),
    ("classify[].when.topic", "\"orders\", { prefix = \"orders-\" } or { regex = \"^eu-\" }: where the record first came from"),
    ("classify[].then", "\"retry\", \"reject\" (to the dead-letter topic at once) or \"done\" (dropped, and counted)"),
    ("classify[].from_tier", "the number of the first tier that such a record waits in, counted from 1; for then = \"retry\""),
    ("classify[].attempts", "1 to 32767, the first delivery included, instead of the ladder's own; for then = \"retry\""),
    ("classify[].dlq", "a name of a-z, 0-9, `-`: such records go to {ladder}.dlq-NAME; for then = \"reject\""),
    ("handler", "a table: [ladder.NAME.handler] with url"),
    ("handler.url", "where kladder posts the records: url = \"http://127.0.0.1:3000/\""),
    ("handler.timeout", "1ms to 1h; default 10s"),
    ("handler.max_in_flight", "1 to 10000; default 64"),
    ("handler.redeliver_share", "above 0, at most 1; default 0.5"),
    ("breaker", "a table: [ladder.NAME.breaker]; enabled = false switches it off"),
    ("breaker.enabled", "true (the default) or false"),
    (
        "breaker.consecutive",
        "different records in a row that meet trouble before deliveries are slowed down: 1 to 10000; default 20",
    ),
    ("breaker.silence", "time without a good answer after which the handler counts as down: 100ms to 1h; default 1s"),
    ("breaker.probes", "deliveries that probe a handler that is down at the same time: 1 to 100; default 4"),
    ("breaker.open_for", "time before the first probes, and at least between later ones: 100ms to 1h; default 5s"),
    ("breaker.open_most", "longest time between probes: open_for to 1h; default 1m"),
    ("dlq_breaker", "a table: [ladder.NAME.dlq_breaker]; enabled = false switches it off"),
    ("dlq_breaker.enabled", "true (the default) or false"),
    ("dlq_breaker.window", "how far is looked back on how records ended: 1s to 1d; default 10m"),
    ("dlq_breaker.minimum", "so many dead letters in it, at least: 1 to 1000000; default 50"),
    ("dlq_breaker.share", "and this share of all that ended: above 0, at most 1; default 0.5"),
    ("dlq_breaker.hold_for", "for how long dead letters are held at a time: 1s to 7d; default 10m"),
    ("redrive", "a table: [ladder.NAME.redrive]"),
    ("redrive.targets", "topics that dead letters may be sent to beside the redeliver topic and the sources: [\"orders-fixed\"]"),
    ("redrive.park_after", "1 to 1000: a letter that was sent back so often is parked; default 3"),
    ("dlq.topic", "the dead-letter topic: topic = \"payments-dlt\""),
    ("dlq.dialect", "\"spring\", \"connect\", \"streams\", \"smallrye\" or \"share-group\"; found out where absent"),
    ("dlq.targets", "the topics that its letters may be sent to: [\"payments\"]"),
    ("dlq.park_after", "1 to 1000: a letter that was sent back so often is parked; default 3"),
    ("inbox", "inbox = { topic = \"connect-dlq\", dialect = \"connect\" }, with redeliver = \"origin\""),
    ("inbox.topic", "the dead-letter topic of the other framework"),
    ("inbox.dialect", "\"spring\", \"connect\", \"streams\", \"smallrye\" or \"share-group\""),
    ("topics.partitions", "1 to 10000; default: those of the largest source, at most 12"),
    ("topics.replication_factor", "1 to 100; default: that of the source"),
    ("topics.outage_budget", "1m to 3650d; default 7d"),
    ("topics.dlq_retention", "1m to 3650d; default 30d"),
];
