//! From text to domain types, and every mistake on the way.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::ladder::{Hops, Ladder, Mode, Redelivery};
use crate::core::role::Role;

fn load_with(text: &str, env: &BTreeMap<&str, &str>) -> Result<Config, ConfigErrors> {
    let env = |name: &str| env.get(name).map(|value| (*value).to_owned());
    let read_file = |path: &Path| match path.to_str() {
        Some("/run/secrets/pw") => Ok("hunter2\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let check_property = |name: &str, value: &str| match (name, value) {
        ("security.protocol", "tls") => Err(format!("invalid value \"{value}\" for `{name}`")),
        ("sasl.password", "refused") => Err(format!("`{value}` is too weak")),
        ("socket.timeout.ms", "hunter2") => Err(format!("invalid value \"{value}\"")),
        _ => Ok(()),
    };
    load(text, &Surroundings { env: &env, read_file: &read_file, host_name: "host-1", check_property: &check_property })
}

fn load_text(text: &str) -> Result<Config, ConfigErrors> {
    load_with(text, &BTreeMap::new())
}

/// A valid file followed by `more`.
fn with(more: &str) -> String {
    format!(
        "[kafka]\nbootstrap.servers = \"b:9092\"\n[ladder.a]\nsources = [\"s\"]\ngroup = \"g\"\ntiers = [\"5s\", \"1m\"]\nhandler.url = \"http://h/\"\n{more}"
    )
}

/// The paths of all mistakes, and what is wrong there.
fn mistakes(text: &str) -> Vec<(String, String)> {
    match load_text(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.into_iter().map(|m| (m.path, m.what)).collect(),
    }
}

/// The only mistake of a file, as printed.
fn only(text: &str) -> String {
    let errors = load_text(text).expect_err("a mistake");
    assert_eq!(errors.0.len(), 1, "{errors}");
    errors.0[0].to_string()
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = load_text(&with("")).unwrap();
    assert_eq!(config.worker.instance, "host-1");
    assert_eq!(config.worker.drain, Duration::from_secs(25));
    assert_eq!(config.worker.roles, [Role::Mover, Role::Deliverer, Role::Router, Role::Index]);
    assert_eq!(config.health.listen.to_string(), "0.0.0.0:9646");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9647");
    let ladder = &config.ladders[0];
    assert_eq!((ladder.ladder.mode(), ladder.ladder.hops(), ladder.ladder.attempts()), (Mode::Push, Hops::ExactlyOnce, 3));
    assert_eq!((ladder.start, ladder.topics.clone()), (None, TopicsConfig::default()));
    let handler = ladder.handler.as_ref().unwrap();
    assert_eq!((handler.timeout, handler.max_in_flight), (Duration::from_secs(10), 64));
}

#[test]
fn every_key_is_read() {
    let config = load_text(
        r#"
        [kafka]
        bootstrap.servers = "b:9092"
        [health]
        listen = "127.0.0.1:1"
        [admin]
        listen = "[::1]:2"
        [worker]
        instance = "pod-0"
        roles = ["mover", "index"]
        state_dir = "/var/lib/kladder"
        drain = "5s"
        [schema_registry]
        url = "http://registry:8081/apis/ccompat/v7"
        username = "me"
        password = "hunter2"
        [alerts]
        for = "1m"
        lateness = "2s"
        clock_offset = "1s"
        runbook = "https://wiki/kladder"
        [ladder.a]
        sources = ["s", "t"]
        group = "g"
        start = "latest"
        mode = "push"
        hops = "at-least-once"
        tiers = { first = "5s", factor = 2.5, count = 3, max = "20s" }
        attempts = 9
        max_not_before = "2h"
        max_age = "1d"
        max_rate = "500/s"
        immediate = { attempts = 2, backoff = "50ms" }
        [ladder.a.handler]
        url = "http://me:pw@h:1/x?y=z"
        timeout = "3s"
        max_in_flight = 7
        redeliver_share = 1
        [[ladder.a.classify]]
        name = "gone"
        when = { status = [404, "410-411"], topic = "s" }
        then = "reject"
        dlq = "gone"
        [[ladder.a.classify]]
        when = { error_class = { prefix = "com.acme." }, message = "bank [0-9]+", header = { kind = { regex = "^re" } } }
        then = "retry"
        from_tier = 2
        attempts = 3
        [[ladder.a.classify]]
        when.status = "5xx"
        then = "done"
        [ladder.a.breaker]
        consecutive = 7
        silence = "3s"
        probes = 2
        open_for = "2s"
        open_most = "30s"
        [dlq.payments]
        topic = "payments-dlt"
        dialect = "spring"
        targets = ["payments"]
        park_after = 5

        [ladder.a.redrive]
        targets = ["orders-fixed"]
        park_after = "7"

        [ladder.a.dlq_breaker]
        window = "5m"
        minimum = 30
        share = 0.75
        hold_for = "20m"
        [ladder.a.topics]
        partitions = 3
        replication_factor = 2
        outage_budget = "1d"
        dlq_retention = "90d"
        settings = { "min.insync.replicas" = "default", "retention.bytes" = 5000000, compression.type = "zstd" }
        "#,
    )
    .unwrap();
    insta::assert_debug_snapshot!(config);
}

#[test]
fn a_setting_of_topics_is_taken_from_the_defaults_where_the_ladder_does_not_say_it() {
    let config = load_text(
        r#"
        kafka.bootstrap.servers = "b:9092"
        [defaults.topics.settings]
        min.insync.replicas = "default"
        "segment.ms" = 1
        [ladder.a]
        sources = ["s"]
        group = "g"
        tiers = ["1s"]
        topics.settings = { segment.ms = 2, preallocate = false }
        handler.url = "http://h/"
        [dlq.payments]
        topic = "payments-dlt"
        settings = { "segment.ms" = "default" }
        "#,
    )
    .unwrap();
    let value = |text: &str| TopicSetting::Value(text.to_owned());
    let of = |pairs: &[(&str, TopicSetting)]| pairs.iter().map(|(n, s)| ((*n).to_owned(), s.clone())).collect::<TopicSettings>();
    let common = ("min.insync.replicas", TopicSetting::OfCluster);
    assert_eq!(
        config.ladders[0].topics.settings,
        of(&[common.clone(), ("segment.ms", value("2")), ("preallocate", value("false"))])
    );
    assert_eq!(config.queues[0].settings, of(&[common, ("segment.ms", TopicSetting::OfCluster)]));
}

#[test]
fn ten_mistakes_are_told_at_once() {
    let errors = load_text(
        r#"# everything wrong
[kafka]
bootstrap.server = "b:9092"
group.id = "mine"
sasl.pasword = "hunter2"
sasl.jaas.config = "hunter2"

[helth]
listen = "0.0.0.0:1"

[ladder.billing]
sources = ["orders", 7, "billing.dlq"]
group = 5
start = "earlyest"
tiers = ["5s", "soon", "1s", "5000ms"]
attempts = 0
teirs = ["1m"]

[ladder.billing.handler]
url = "ftp://host"
timeout = "2 fortnights"
max_in_flight = 100000

[[ladder.billing.classify]]
when = { status = 404 }
"#,
    )
    .unwrap_err();
    assert!(errors.0.len() >= 10);
    let shown = errors.to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn broken_toml_is_shown_with_line_and_column() {
    insta::assert_snapshot!(load_text("[kafka]\nbootstrap.servers = \"b:9092\"\n\n[ladder.a\nsources = []\n").unwrap_err());
    insta::assert_snapshot!(load_text(&with("[ladder.a]\ngroup = \"h\"\n")).unwrap_err());
}

#[test]
fn a_byte_order_mark_is_no_mistake() {
    assert_eq!(load_text(&format!("\u{feff}{}", with(""))).unwrap().ladders.len(), 1);
}

/// The value of a secret may look like a reference.
#[test]
fn a_piece_of_a_password_is_not_told() {
    let file = "[kafka]\nbootstrap.servers = \"b:1\"\nsasl.password = \"pa${hunter 2}ss\"\nclient.id = \"x${no name}\"\n[schema_registry]\nurl = \"me:hunter2@r/\"";
    let told = load_text(file).unwrap_err().to_string();
    assert!(!told.contains("hunter"), "{told}");
    assert!(told.contains("`${no name}`: is not an environment variable name"), "{told}");
}

#[test]
fn an_empty_file_lacks_brokers_and_ladders() {
    assert_eq!(
        mistakes(""),
        [("kafka.bootstrap.servers".to_owned(), "is missing".to_owned()), ("ladder".to_owned(), "is missing".to_owned())]
    );
}

#[test]
fn a_ladder_without_anything_lacks_four_things() {
    let found = mistakes("[kafka]\nbootstrap.servers = \"b\"\n[ladder.a]\n");
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["ladder.a.sources", "ladder.a.group", "ladder.a.tiers", "ladder.a.handler.url"]);
    assert!(found.iter().all(|(_, what)| what == "is missing"), "{found:?}");
}

#[test]
fn each_mistake_has_its_place_and_says_what_is_wrong() {
    for (more, path, what) in [
        ("attempts = 40000", "ladder.a.attempts", "out of range"),
        ("attempts = 1.5", "ladder.a.attempts", "is a number, not a whole number"),
        ("attempts = \"x\"", "ladder.a.attempts", "is not a whole number"),
        ("mode = \"pull\"", "ladder.a.mode", "is not one of \"push\", \"relay\""),
        ("hops = \"exactly_once\"", "ladder.a.hops", "did you mean \"exactly-once\"?"),
        ("max_not_before = \"1ms\"", "ladder.a.max_not_before", "out of range"),
        ("max_not_before = 5", "ladder.a.max_not_before", "is a whole number, not a duration"),
        ("name = \"b\"", "ladder.a.name", "table header"),
        ("timeout = \"5s\"", "ladder.a.timeout", "[ladder.NAME.handler]"),
        ("breaker.consecutive = 0", "ladder.a.breaker.consecutive = 0", "out of range"),
        ("breaker.probes = 101", "ladder.a.breaker.probes = 101", "out of range"),
        ("breaker.silence = \"1ms\"", "ladder.a.breaker.silence = \"1ms\"", "out of range"),
        ("breaker = { open_for = \"10s\", open_most = \"5s\" }", "ladder.a.breaker.open_most = \"5s\"", "out of range"),
        ("breaker.enabled = \"perhaps\"", "ladder.a.breaker.enabled", "is not true or false"),
        ("redrive.targets = [\"a b\"]", "ladder.a.redrive.targets[0]", "is not a valid topic name"),
        ("redrive.park_after = 0", "ladder.a.redrive.park_after = 0", "out of range"),
        ("dlq_breaker.minimum = 0", "ladder.a.dlq_breaker.minimum = 0", "out of range"),
        ("dlq_breaker.share = 1.5", "ladder.a.dlq_breaker.share = 1.5", "above 0, at most 1"),
        ("dlq_breaker.hold_for = \"8d\"", "ladder.a.dlq_breaker.hold_for = \"8d\"", "out of range"),
        ("inbox = { topic = \"x\", dialect = \"connect\" }", "ladder.a.inbox", "does not apply to a push ladder"),
        ("immediate = { attempts = 11 }", "ladder.a.immediate.attempts = 11", "out of range"),
        ("immediate = {}", "ladder.a.immediate.attempts", "is missing"),
        ("immediate = { attempts = 2, backoff = \"1m\" }", "ladder.a.immediate.backoff", "out of range"),
        ("immediate = 2", "ladder.a.immediate", "is a whole number, not a table"),
        ("max_rate = \"500\"", "ladder.a.max_rate = \"500\"", "\"30/m\""),
        ("max_rate = 500", "ladder.a.max_rate", "is a whole number, not a string"),
        ("handler.redeliver_share = 0", "ladder.a.handler.redeliver_share", "out of range"),
        ("handler.max_in_flight = 0", "ladder.a.handler.max_in_flight", "out of range"),
        ("handler.timeout = \"0s\"", "ladder.a.handler.timeout", "out of range"),
        ("topics.partitions = -1", "ladder.a.topics.partitions", "out of range"),
        ("topics.dlq_retention = \"1s\"", "ladder.a.topics.dlq_retention", "out of range"),
        ("topics.retention = \"1d\"", "ladder.a.topics.retention", "did you mean `dlq_retention`?"),
        ("topics.settings = { \"cleanup.policy\" = \"default\" }", "topics.settings.\"cleanup.policy\"", "records would be lost"),
        (
            "topics.settings.message.timestamp.type = \"CreateTime\"",
            "settings.message.timestamp.type = \"CreateTime\"",
            "\"default\"",
        ),
        ("topics.settings.\"retention.ms\" = 1", "ladder.a.topics.settings.\"retention.ms\"", "outage_budget and dlq_retention"),
        ("topics.settings = { \"min.insync.replicas\" = \"two\" }", "\"min.insync.replicas\" = \"two\"", "whole number above 0"),
        ("topics.settings = { segment.ms = [1] }", "ladder.a.topics.settings.segment.ms", "is a list, not a string"),
        ("topics.settings = { segment.ms = \"\" }", "ladder.a.topics.settings.segment.ms", "has no value"),
        ("topics.settings = { segment.ms = 1, \"segment.ms\" = 2 }", "ladder.a.topics.settings", "is given twice"),
        ("topics.settings = \"x\"", "ladder.a.topics.settings", "is not a table"),
        ("settings.segment.ms = 1", "ladder.a.settings", "[ladder.NAME.topics]"),
        ("topics = [1, 1, \"1d\", \"1d\"]", "ladder.a.topics", "is a list, not a table"),
        ("[[worker]]\ninstance = \"x\"", "worker", "is a list, not a table"),
        ("[ladder]\nsources = [\"x\"]", "ladder.sources", "[ladder.billing-orders]"),
        ("topics.compaction = \"1d\"", "ladder.a.topics.compaction", "known here: partitions"),
        ("[worker]\ninstance = \"a b\"", "worker.instance", "not a valid worker name"),
        ("[worker]\nroles = []", "worker.roles", "no role"),
        ("[worker]\nroles = [\"mover\", \"movr\"]", "worker.roles[1]", "did you mean \"mover\"?"),
        ("[worker]\nroles = [\"mover\", \"mover\"]", "worker.roles[1]", "named twice"),
        ("[worker]\ndrain = \"2h\"", "worker.drain", "out of range"),
        ("[health]\nlisten = \":9646\"", "health.listen", "is not an IP address"),
        ("[admin]\nlisten = \"0.0.0.0:9647\"", "admin.listen", "no authentication"),
        ("[admin]\nlisten = \"127.0.0.1:9646\"", "admin.listen", "same port"),
        ("[ladder.B]\nsources = [\"x\"]\ngroup = \"h\"\ntiers = [\"1s\"]\nhandler.url = \"http://h\"", "ladder.B", "[a-z0-9-]+"),
        ("[defaults]\ngroup = \"g\"", "defaults.group", "set it in each ladder"),
        ("[ladders.b]", "ladders", "[ladder.NAME]"),
    ] {
        let shown = only(&with(&format!("{more}\n")));
        assert!(shown.contains(path) && shown.contains(what), "{more}\n{shown}");
    }
}

#[test]
fn each_rule_is_judged() {
    for (rule, path, what) in [
        ("then = \"done\"", "ladder.a.classify[0].when", "is missing"),
        ("when = {}\nthen = \"done\"", "ladder.a.classify[0].when", "would match every failure"),
        ("when.status = 404", "ladder.a.classify[0].then", "is missing"),
        ("when.status = 404\nthen = \"drop\"", "ladder.a.classify[0].then = \"drop\"", "is not one of \"retry\""),
        ("when.status = 200\nthen = \"retry\"", "ladder.a.classify[0].when.status = 200", "which is a success"),
        ("when.status = [404, \"4x\"]\nthen = \"retry\"", "ladder.a.classify[0].when.status", "\"4x\" is not a status"),
        ("when.status = 404.5\nthen = \"retry\"", "ladder.a.classify[0].when.status", "is a number, not a status such as 404"),
        ("when.message = \"(\"\nthen = \"retry\"", "ladder.a.classify[0].when.message", "unclosed group"),
        (
            "when.error_class = { regx = \"a\" }\nthen = \"retry\"",
            "ladder.a.classify[0].when.error_class.regx",
            "did you mean `regex`?",
        ),
        ("when.error_class = { }\nthen = \"retry\"", "ladder.a.classify[0].when.error_class", "either prefix or regex"),
        ("when.class = \"a\"\nthen = \"retry\"", "ladder.a.classify[0].when.class", "is not a key that kladder knows"),
        (
            "when.status = 404\nthen = \"retry\"\nfrom_tier = 3",
            "ladder.a.classify[0].from_tier = 3",
            "no such tier: the ladder has 2",
        ),
        (
            "when.status = 404\nthen = \"reject\"\nattempts = 3",
            "ladder.a.classify[0].attempts = 3",
            "belongs to then = \"retry\"",
        ),
        ("when.status = 404\nthen = \"done\"\ndlq = \"x\"", "ladder.a.classify[0].dlq = \"x\"", "belongs to then = \"reject\""),
        ("when.status = 404\nthen = \"reject\"\ndlq = \"A b\"", "ladder.a.classify[0].dlq = \"A b\"", "must match [a-z0-9-]+"),
        (
            "when.header = { kladder-tier = \"1\" }\nthen = \"done\"",
            "ladder.a.classify[0].when.header.kladder-tier",
            "kladder's own",
        ),
        ("when.status = 404\nthen = \"done\"\nname = \"1\"", "ladder.a.classify[0].name = \"1\"", "must match"),
    ] {
        let shown = only(&with(&format!("[[ladder.a.classify]]\n{rule}\n")));
        assert!(shown.contains(path) && shown.contains(what), "{rule}\n{shown}");
    }
    for (more, path, what) in [
        ("classify = { then = \"done\" }", "ladder.a.classify", "is a table, not a list of tables"),
        ("classify = [\"404\"]", "ladder.a.classify[0]", "is not a table"),
        ("max_age = \"1s\"", "ladder.a.max_age = \"1s\"", "shorter than the first tier"),
        ("[defaults]\nclassify = [{ when = { status = 404 } }]", "defaults.classify[0].then", "is missing"),
    ] {
        let shown = only(&with(&format!("{more}\n")));
        assert!(shown.contains(path) && shown.contains(what), "{more}\n{shown}");
    }
}

#[test]
fn a_ladder_s_own_rules_take_the_place_of_the_defaults() {
    let rules = |more: &str| load_text(&with(more)).unwrap().ladders.remove(0).ladder.rules().len();
    let defaults = "[defaults]\nclassify = [{ when = { status = 404 }, then = \"done\" }]\n";
    assert_eq!(rules(defaults), 1);
    assert_eq!(rules(&format!("classify = []\n{defaults}")), 0);
}

#[test]
fn each_tier_is_judged() {
    let file = |tiers: &str| with("").replace("[\"5s\", \"1m\"]", tiers);
    for (tiers, path, what) in [
        ("[]", "ladder.a.tiers", "at least one tier"),
        ("\"5s\"", "ladder.a.tiers", "is not a list of delays or a table of steps"),
        ("[\"5s\", 60]", "ladder.a.tiers[1]", "is a whole number, not a string"),
        ("[\"5s\", \"0s\"]", "ladder.a.tiers[1]", "at least 1ms"),
        ("[\"60s\", \"1m\"]", "ladder.a.tiers[1]", "appears twice"),
        ("[\"5m\", \"1m\"]", "ladder.a.tiers[1]", "must rise"),
        ("{ first = \"5s\", factor = 1, count = 3 }", "ladder.a.tiers.factor", "out of range"),
        ("{ first = \"5s\", factor = 2, count = 33 }", "ladder.a.tiers.count", "out of range"),
        ("{ first = \"5s\", factor = 2 }", "ladder.a.tiers.count", "is missing"),
        ("{ first = \"5s\", factor = 2, count = 2, max = \"1s\" }", "ladder.a.tiers.max", "out of range"),
        ("{ first = \"5s\", factor = 2, count = 2, last = \"1s\" }", "ladder.a.tiers.last", "known here"),
    ] {
        let shown = only(&file(tiers));
        assert!(shown.contains(path) && shown.contains(what), "{tiers}\n{shown}");
    }
}

#[test]
fn a_refused_element_does_not_shift_the_others() {
    let found = mistakes(&with("").replace("[\"5s\", \"1m\"]", "[1, 2, \"soon\", \"${NONE}\"]"));
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["ladder.a.tiers[0]", "ladder.a.tiers[1]", "ladder.a.tiers[2]", "ladder.a.tiers[3]"]);
}

#[test]
fn a_handler_needs_a_url_that_it_can_call() {
    for url in ["", "host", "/x", "http://", "ftp://h/", "http://h h/"] {
        let shown = only(&with("").replace("http://h/", url));
        assert!(shown.contains("ladder.a.handler.url"), "{url}: {shown}");
    }
    let tls = load_text(&with("").replace("http://h/", "https://h/"));
    assert_eq!(tls.is_ok(), cfg!(feature = "tls-system"));
}

#[test]
fn a_relay_ladder_has_no_handler() {
    let relay = with("mode = \"relay\"\n");
    assert!(only(&relay).contains("does not apply to a relay ladder"));
    let config = load_text(&relay.replace("handler.url = \"http://h/\"\n", "")).unwrap();
    assert_eq!(config.ladders[0].ladder.mode(), Mode::Relay);
    let inherited =
        relay.replace("handler.url = \"http://h/\"\n", "") + "[defaults]\nstart = \"latest\"\nhandler.timeout = \"1s\"\n";
    assert_eq!(load_text(&inherited).unwrap().ladders[0].handler, None);
}

/// A relay ladder that redelivers to the origin.
fn foreign(more: &str) -> String {
    relay_with(&format!("redeliver = \"origin\"\nreaches_all_groups = true\n{more}"))
}

/// A relay ladder with `more` in its table.
fn relay_with(more: &str) -> String {
    with(&format!("mode = \"relay\"\n{more}\n")).replace("handler.url = \"http://h/\"\n", "")
}

#[test]
fn a_relay_ladder_says_where_due_records_come_back() {
    let ladder = |text: &str| load_text(text).unwrap().ladders.remove(0).ladder;
    let plain = ladder(&relay_with(""));
    assert_eq!((plain.redelivery(), plain.settle()), (Redelivery::Topic, Ladder::DEFAULT_SETTLE));
    let settle = ladder(&relay_with("redeliver = \"topic\"\nsettle = \"30s\"")).settle();
    assert_eq!(settle, Duration::from_secs(30));
    let origin = ladder(&relay_with("redeliver = \"origin\"\nreaches_all_groups = true"));
    assert_eq!(origin.redelivery(), Redelivery::Origin);
    let substituted = ladder(&relay_with("redeliver = \"origin\"\nreaches_all_groups = \"${SURE:-true}\""));
    assert_eq!(substituted.redelivery(), Redelivery::Origin);
    // Settings for all relay ladders may stand in the defaults above push ladders too.
    let defaults = "[defaults]\nredeliver = \"origin\"\nreaches_all_groups = true\nsettle = \"1m\"\n";
    assert_eq!(ladder(&with(defaults)).redelivery(), Redelivery::Topic);
    let inherited = ladder(&relay_with(defaults));
    assert_eq!((inherited.redelivery(), inherited.settle()), (Redelivery::Origin, Duration::from_secs(60)));
}

#[test]
fn mistakes_of_redelivery_are_told_where_they_are() {
    for (text, path, what) in [
        (relay_with("redeliver = \"origin\""), "ladder.a.reaches_all_groups", "reaches_all_groups = true accepts"),
        (
            relay_with("redeliver = \"origin\"\nreaches_all_groups = false"),
            "ladder.a.reaches_all_groups = false",
            "requires consent",
        ),
        (relay_with("redeliver = \"orgin\""), "ladder.a.redeliver", "did you mean \"origin\"?"),
        (relay_with("reaches_all_groups = \"yes\""), "ladder.a.reaches_all_groups", "is not true or false"),
        (relay_with("immediate = { attempts = 2 }"), "ladder.a.immediate", "the application makes its own attempts"),
        (relay_with("breaker.enabled = false"), "ladder.a.breaker", "kladder calls no handler"),
        (relay_with("settle = \"0s\""), "ladder.a.settle", "out of range"),
        (relay_with("settle = \"2d\""), "ladder.a.settle", "1s to 1d"),
        (relay_with("settle = 120"), "ladder.a.settle", "is a whole number, not a duration"),
        (foreign("inbox = { dialect = \"connect\" }"), "ladder.a.inbox.topic", "is missing"),
        (foreign("inbox = { topic = \"x\" }"), "ladder.a.inbox.dialect", "is missing"),
        (foreign("inbox = { topic = \"x\", dialect = \"conect\" }"), "ladder.a.inbox.dialect", "did you mean \"connect\"?"),
        (
            foreign("inbox = { topic = \"a.inbox\", dialect = \"spring\" }"),
            "ladder.a.inbox.topic",
            "a topic of the ladder itself",
        ),
        (relay_with("inbox = { topic = \"x\", dialect = \"spring\" }"), "ladder.a.redeliver", "needs redelivery to the origin"),
        (with("redeliver = \"topic\"\n"), "ladder.a.redeliver", "does not apply to a push ladder"),
        (with("reaches_all_groups = true\n"), "ladder.a.reaches_all_groups", "for relay ladders"),
        (with("settle = \"2m\"\n"), "ladder.a.settle", "the handler reports success"),
    ] {
        let shown = only(&text);
        assert!(shown.contains(path) && shown.contains(what), "{shown}");
    }
    let both = mistakes(&with("redeliver = \"origin\"\nsettle = \"1h\"\n"));
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn the_ladder_s_own_value_wins_over_the_default_key_by_key() {
    let config = load_text(&with(
        "handler.timeout = \"2s\"\n[defaults]\nattempts = 9\ntiers = [\"9s\"]\nhandler = { timeout = \"1s\", max_in_flight = 3 }\n",
    ))
    .unwrap();
    let ladder = &config.ladders[0];
    let handler = ladder.handler.as_ref().unwrap();
    assert_eq!((ladder.ladder.attempts(), ladder.ladder.tiers().len()), (9, 2));
    assert_eq!((handler.timeout, handler.max_in_flight), (Duration::from_secs(2), 3));
}

#[test]
fn a_mistake_in_the_defaults_is_told_once() {
    let shown = only(&with(
        "[ladder.b]\nsources = [\"x\"]\ngroup = \"h\"\ntiers = [\"1s\"]\nhandler.url = \"http://h\"\n[defaults]\nattempts = 0\n",
    ));
    assert!(shown.contains("defaults.attempts = 0"), "{shown}");
}

#[test]
fn ladders_do_not_share_groups_or_feed_on_each_other() {
    let other = |group: &str, source: &str| {
        with(&format!(
            "[ladder.b]\nsources = [\"{source}\"]\ngroup = \"{group}\"\ntiers = [\"1s\"]\nhandler.url = \"http://h\"\n"
        ))
    };
    assert!(load_text(&other("h", "s")).is_ok(), "two groups may consume one topic");
    for (text, path, what) in [
        (other("g", "t"), "ladder.b.group", "already the group of ladder `a`"),
        (other("a.mover", "t"), "ladder.b.group", "of a worker of ladder `a`"),
        (other("h", "a.dlq"), "ladder.b.sources[0]", "is a topic of ladder `a`"),
        (other("h", "a.retry-9h"), "ladder.b.sources[0]", "is a topic of ladder `a`"),
        (other("h", "b.dlq"), "ladder.b.sources[0]", "a topic of the ladder itself"),
        (other("h", "a b"), "ladder.b.sources[0]", "is not a valid topic name"),
    ] {
        let shown = only(&text);
        assert!(shown.contains(path) && shown.contains(what), "{shown}");
    }
}

fn kafka(properties: &str) -> String {
    format!("{}\n[kafka]\n{properties}\n", with("").replace("[kafka]\nbootstrap.servers = \"b:9092\"\n", ""))
}

#[test]
fn properties_are_dotted_quoted_or_nested_and_sorted_by_client() {
    let config = load_text(&kafka(
        r#"
        "bootstrap.servers" = "b:9092"
        client.id = "me"
        socket = { timeout.ms = 1000, keepalive.enable = true }
        queue.buffering.max.ms = 5
        queued.min.messages = 10
        [kafka.sasl]
        password = "${file:/run/secrets/pw}"
        mechanism = "PLAIN"
        [kafka.producer]
        batch.size = 1000
        [kafka.consumer]
        "queued.min.messages" = 20
        "#,
    ))
    .unwrap()
    .kafka;
    let pairs = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
    assert_eq!(
        pairs(&config.common),
        "bootstrap.servers=b:9092 client.id=me sasl.mechanisms=PLAIN sasl.password=hunter2 socket.keepalive.enable=true socket.timeout.ms=1000"
    );
    assert_eq!(pairs(&config.producer), "batch.size=1000 linger.ms=5");
    assert_eq!(pairs(&config.consumer), "queued.min.messages=20");
}

#[test]
fn a_property_is_refused_with_the_reason() {
    for (properties, path, what) in [
        ("acks = 1", "kafka.acks = 1", "always `all`"),
        ("request.required.acks = 0", "kafka.request.required.acks = 0", "always `all`"),
        ("consumer.group.id = \"x\"", "kafka.consumer.group.id", "set by kladder itself"),
        ("isolation.level = \"read_uncommitted\"", "kafka.isolation.level", "read_committed"),
        ("value.serializer = \"x\"", "kafka.value.serializer", "byte for byte"),
        ("max.poll.records = 1", "kafka.max.poll.records", "Java"),
        ("ssl.truststore.location = \"x\"", "kafka.ssl.truststore.location", "ssl.ca.location"),
        ("sasl.mecanism = \"PLAIN\"", "kafka.sasl.mecanism", "did you mean `sasl.mechanism`?"),
        ("bananas = 1", "kafka.bananas", "CONFIGURATION.md"),
        ("producer.queued.min.messages = 1", "kafka.producer.queued.min.messages", "[kafka.consumer]"),
        ("consumer.linger.ms = 1", "kafka.consumer.linger.ms", "[kafka.producer]"),
        ("producer.bootstrap.servers = \"x\"", "kafka.producer.bootstrap.servers", "the same cluster"),
        ("client.id = [\"x\"]", "kafka.client.id", "one string"),
        ("security.protocol = \"tls\"", "kafka.security.protocol = \"tls\"", "invalid value"),
        ("\"sasl.username\" = \"a\"\nsasl.username = \"b\"", "sasl.username", "is given twice"),
        ("consumer.group.protocol = \"consumer\"\nconsumer.session.timeout.ms = 6000", "session.timeout.ms", "remove it"),
        ("retries = 3\nmessage.send.max.retries = 4", "retries", "is given twice"),
    ] {
        let shown = only(&kafka(&format!("bootstrap.servers = \"b\"\n{properties}")));
        assert!(shown.contains(path) && shown.contains(what), "{properties}\n{shown}");
    }
}

#[test]
fn what_kladder_sets_anyway_is_no_mistake() {
    let config = load_text(&kafka("bootstrap.servers = \"b\"\nacks = \"all\"\nenable.idempotence = true\n")).unwrap();
    assert!(config.kafka.producer.is_empty(), "{:?}", config.kafka);
}

#[test]
fn the_newer_group_protocol_is_an_option() {
    let of = |lines: &str| load_text(&kafka(&format!("bootstrap.servers = \"b\"\n{lines}"))).unwrap().kafka;
    assert!(of("consumer.group.protocol = \"consumer\"").has_newer_group_protocol());
    assert!(of("group.protocol = \"Consumer\"").has_newer_group_protocol());
    let classic = of("group.protocol = \"classic\"\nsession.timeout.ms = 6000");
    assert!(!classic.has_newer_group_protocol());
    assert_eq!(classic.session_timeout(), Duration::from_secs(6));
    assert_eq!(of("").session_timeout(), Duration::from_secs(10));
    assert_eq!(of("group.protocol = \"consumer\"").session_timeout(), Duration::from_secs(45), "the brokers' default");
}

#[test]
fn thresholds_of_alerts_have_defaults_and_ranges() {
    assert_eq!(load_text(&with("")).unwrap().alerts, AlertsConfig::default());
    let given = "[alerts]\nfor = \"1m\"\nlateness = \"2s\"\nclock_offset = \"1s\"\nrunbook = \"https://wiki/kladder\"\n";
    let alerts = load_text(&with(given)).unwrap().alerts;
    let seconds = Duration::from_secs;
    assert_eq!((alerts.hold, alerts.lateness, alerts.clock_offset), (seconds(60), Some(seconds(2)), seconds(1)));
    assert_eq!(alerts.runbook.as_deref(), Some("https://wiki/kladder"));
    for (line, at, hint) in [
        ("for = \"2d\"", "alerts.for", "0s to 1d"),
        ("lateness = \"1h\"", "alerts.lateness", "100ms to 30m"),
        ("clock_offset = \"0s\"", "alerts.clock_offset", "100ms to 1h"),
        ("runbook = \"wiki\"", "alerts.runbook", "https://"),
        ("latenes = \"1s\"", "alerts.latenes", "did you mean `lateness`?"),
    ] {
        let shown = only(&with(&format!("[alerts]\n{line}\n")));
        assert!(shown.contains(at) && shown.contains(hint), "{line}: {shown}");
    }
}

#[test]
fn a_schema_registry_needs_a_url_and_both_or_none_of_user_and_password() {
    for (lines, path, what) in [
        ("", "schema_registry.url", "is missing"),
        ("url = \"registry:8081\"", "schema_registry.url = \"registry:8081\"", "http://registry:8081"),
        ("url = \"ftp://registry\"", "schema_registry.url", "is not an http or https URL"),
        ("url = \"http://me:hunter2@registry\"", "schema_registry.url = \"http://***@registry\"", "username and password"),
        ("url = \"http://registry/?x=1\"", "schema_registry.url", "after its path"),
        ("url = \"http://r\"\nusername = \"me\"", "schema_registry.password", "is missing"),
        ("url = \"http://r\"\npassword = \"hunter2\"", "schema_registry.username", "is missing"),
        ("url = \"http://r\"\nusername = \"a:b\"\npassword = \"p\"", "schema_registry.username", "colon"),
        ("url = \"http://r\"\nusername = \"a\"\npassword = 1", "schema_registry.password = (not shown)", "not a string"),
        ("url = \"http://r\"\nusernam = \"a\"", "schema_registry.usernam", "did you mean `username`?"),
    ] {
        let shown = only(&with(&format!("[schema_registry]\n{lines}\n")));
        assert!(shown.contains(path) && shown.contains(what), "{lines}\n{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let shown = only(&with("[registry]\nurl = \"http://r\"\n"));
    assert!(shown.contains("[schema_registry]"), "{shown}");
    let given = "[schema_registry]\nurl = \"http://${HOST}:8081/\"\nusername = \"me\"\npassword = \"${file:/run/secrets/pw}\"\n";
    let config = load_with(&with(given), &BTreeMap::from([("HOST", "registry")])).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let registry = config.schema_registry.unwrap();
    let credentials = RegistryCredentials { username: "me".to_owned(), password: "hunter2".to_owned() };
    assert_eq!((registry.url.as_str(), registry.credentials), ("http://registry:8081/", Some(credentials)));
    assert_eq!(load_text(&with("")).unwrap().schema_registry, None);
}

#[test]
fn no_secret_is_shown() {
    for properties in [
        "sasl.password = \"refused\"",
        "sasl.pwassword = \"hunter2\"",
        "sasl.password = [\"hunter2\"]",
        "ssl.truststore.password = \"hunter2\"",
        "socket.timeout.ms = \"${file:/run/secrets/pw}\"",
        "sasl.jaas.config = \"hunter2\"",
    ] {
        let shown = only(&kafka(&format!("bootstrap.servers = \"b\"\n{properties}")));
        assert!(!shown.contains("hunter2") && !shown.contains("= \"refused\"") && !shown.contains("weak"), "{shown}");
    }
    let shown = only(&with("").replace("http://h/", "ftp://me:hunter2@h/"));
    assert!(!shown.contains("hunter2"), "{shown}");
    let config = load_text(&kafka("bootstrap.servers = \"b\"\nsasl.password = \"hunter2\"")).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let config = load_text(&with("").replace("http://h/", "http://me:hunter2@h/")).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn numbers_may_come_from_the_environment() {
    let text = with("attempts = \"${ATTEMPTS:-7}\"\nhandler.redeliver_share = \"${SHARE}\"\n");
    let config = load_with(&text, &BTreeMap::from([("SHARE", "0.25")])).unwrap();
    assert_eq!(config.ladders[0].ladder.attempts(), 7);
    let share = config.ladders[0].handler.as_ref().unwrap().redeliver_share;
    assert!((share - 0.25).abs() < f64::EPSILON);
}

#[test]
fn a_missing_variable_is_told_at_its_place_and_only_there() {
    let shown = only(&kafka("bootstrap.servers = \"${BROKERS}\""));
    assert!(shown.contains("kafka.bootstrap.servers = \"${BROKERS}\"") && shown.contains("`BROKERS` is not set"), "{shown}");
    let shown = only(&with("").replace("\"g\"", "\"${file:/none}\""));
    assert!(shown.contains("ladder.a.group") && shown.contains("cannot be read"), "{shown}");
}

proptest! {
    #[test]
    fn no_text_panics_and_no_refusal_is_empty(lines in proptest::collection::vec(
        prop_oneof![
            Just("[kafka]".to_owned()), Just("[ladder.a]".to_owned()), Just("[ladder.a.handler]".to_owned()), Just("[defaults]".to_owned()),
            "(tiers|sources|group|attempts|mode|hops|start|url|topics|handler) = (1|-1|1\\.5|true|\"\"|\"5s\"|\\[\\]|\\[1, \"5s\"\\]|\\{\\}|\"\\$\\{X\\}\")",
            ".{0,20}",
        ], 0..12)) {
        if let Err(errors) = load_text(&lines.join("\n")) {
            prop_assert!(!errors.0.is_empty());
        }
    }

    #[test]
    fn any_tier_list_loads_or_is_refused_within_itself(tiers in proptest::collection::vec("[0-9]{1,3}(ms|s|m|h|d|x)?", 0..6)) {
        let text = with("").replace("[\"5s\", \"1m\"]", &format!("{tiers:?}"));
        if let Err(errors) = load_text(&text) {
            prop_assert!(errors.0.iter().all(|m| m.path.starts_with("ladder.a.tiers")), "{}", errors);
        }
    }
}

#[test]
fn the_admin_interface_listens_beside_the_probes_unless_said() {
    let admin = |health: &str| load_text(&with(&format!("[health]\nlisten = \"{health}\"\n"))).unwrap().admin.listen.to_string();
    assert_eq!(admin("0.0.0.0:9646"), "127.0.0.1:9647");
    assert_eq!(admin("127.0.0.1:18000"), "127.0.0.1:18001");
    assert_eq!(admin("127.0.0.1:0"), "127.0.0.1:0");
    assert_eq!(admin("0.0.0.0:65535"), "127.0.0.1:65534");
}
