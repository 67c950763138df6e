//! `[ladder.NAME]` merged with `[defaults]`: a ladder's own value takes precedence, key by key.

use std::time::Duration;

use crate::config::handler_section::{breaker, handler, immediate};
use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::{RawDlqBreaker, RawLadder, RawQueue, Span, Whole};
use crate::config::rules_section;
use crate::config::scope::{Scope, refuse_in_relay};
use crate::config::tiers;
use crate::config::topic_settings;
use crate::config::types::{DEFAULT_PARK_AFTER, LadderConfig, QueueConfig, RedriveConfig, Start, TopicSettings, TopicsConfig};
use crate::config::values::{duration_in, hint, note_missing, one_of, share, texts, topic_names, whole_in};
use crate::core::dialect::Dialect;
use crate::core::dlq_breaker::DlqBreakerSettings;
use crate::core::ladder::{Hops, Ladder, LadderError, LadderErrors, Mode, Redelivery, RuleError, is_topic_name};
use crate::core::rate::Rate;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a ladder; `None` if it has mistakes.
pub fn read(name: &str, scope: &Scope<'_>, mistakes: &mut Mistakes) -> Option<LadderConfig> {
    let own = &scope.own.1;
    let sources: Vec<(usize, String)> = match &scope.own.0.sources {
        Some(items) => texts(items, &own.key("sources"), mistakes),
        None => Vec::new(),
    };
    if scope.own.0.sources.is_none() {
        note_missing(&own.key("sources"), mistakes);
    }
    if scope.own.0.group.is_none() {
        note_missing(&own.key("group"), mistakes);
    }
    let mode = mode(scope, mistakes);
    let hops = [("exactly-once", Hops::ExactlyOnce), ("at-least-once", Hops::AtLeastOnce)];
    let hops = scope.pick(&["hops"], |l| l.hops.as_deref()).and_then(|(text, path)| one_of(text, &hops, &path, mistakes));

    let tiers_path = scope.path(&["tiers"], |l| l.tiers.is_some());
    let tiers = if let Some((raw, path)) = scope.pick(&["tiers"], |l| l.tiers.as_ref()) {
        tiers::expand(raw, &path, mistakes)
    } else {
        note_missing(&tiers_path, mistakes);
        tiers::TierDelays::default()
    };
    let attempts = scope.pick(&["attempts"], |l| l.attempts).map(|(n, path)| whole_in(n, 1..=32_767, &path, mistakes));
    let max_not_before = scope
        .pick(&["max_not_before"], |l| l.max_not_before)
        .and_then(|(span, path)| duration_in(span, Duration::from_secs(1)..=365 * DAY, &path, mistakes));

    let max_age = scope
        .pick(&["max_age"], |l| l.max_age)
        .and_then(|(span, path)| duration_in(span, Duration::from_millis(1)..=3650 * DAY, &path, mistakes));
    let max_rate = scope
        .pick(&["max_rate"], |l| l.max_rate.as_deref())
        .and_then(|(text, path)| text.parse::<Rate>().map_err(|error| mistakes.note(&path, error.to_string(), hint(&path))).ok());
    let immediate = immediate(scope, mode, mistakes);
    let rules_path = scope.path(&["classify"], |l| l.classify.is_some());
    let rules = scope.pick(&["classify"], |l| l.classify.as_ref()).map(|(raw, path)| rules_section::read(raw, &path, mistakes));

    let relay = relay_keys(scope, mode, mistakes);

    let mut builder = Ladder::builder(name, scope.own.0.group.as_deref().unwrap_or_default())
        .mode(mode.unwrap_or(Mode::Push))
        .hops(hops.unwrap_or(Hops::ExactlyOnce))
        .max_not_before(max_not_before.unwrap_or(Ladder::DEFAULT_MAX_NOT_BEFORE))
        .redelivery(relay.redelivery)
        .reaches_all_groups(relay.reaches_all_groups)
        .tiers(tiers.delays.iter().map(|(_, text)| text.as_str()));
    for (_, source) in &sources {
        builder = builder.source(source);
    }
    if let Some((topic, dialect)) = relay.inbox {
        builder = builder.foreign_inbox(topic, dialect);
    }
    if let Some(settle) = relay.settle {
        builder = builder.settle(settle);
    }
    if let Some(age) = max_age {
        builder = builder.max_age(age);
    }
    if let Some(rate) = max_rate {
        builder = builder.max_rate(rate);
    }
    if let Some(immediate) = immediate {
        builder = builder.immediate(immediate.attempts, immediate.backoff);
    }
    for rule in rules.flatten().unwrap_or_default() {
        builder = builder.rule(rule);
    }
    // A refused attempt count is not checked again, and is not replaced by the default either.
    if let Some(attempts) = attempts.map_or(tiers.attempts, |given| given.or(Some(1))) {
        builder = builder.attempts(attempts);
    }
    let ladder = builder
        .build()
        .map_err(|errors| note_ladder_errors(errors, scope, &sources, &tiers, &tiers_path, &rules_path, mistakes))
        .ok();

    let start = start(scope, mode, mistakes);
    let handler = handler(scope, mode, mistakes);
    let breaker = breaker(scope, mode, mistakes);
    let dlq_breaker = dlq_breaker(scope, mistakes);
    let redrive = redrive(scope, mistakes);
    let topics = topics(scope, mistakes);
    if mistakes.touches(own) {
        return None;
    }
    Some(LadderConfig { ladder: ladder?, start, handler, breaker, dlq_breaker, redrive, topics })
}

fn mode(scope: &Scope<'_>, mistakes: &mut Mistakes) -> Option<Mode> {
    match scope.pick(&["mode"], |l| l.mode.as_deref()) {
        None if mistakes.touches(&scope.own.1.key("mode")) => None,
        None => Some(Mode::Push),
        Some((text, path)) => one_of(text, &[("push", Mode::Push), ("relay", Mode::Relay)], &path, mistakes),
    }
}

fn start(scope: &Scope<'_>, mode: Option<Mode>, mistakes: &mut Mistakes) -> Option<Start> {
    let known = [("earliest", Start::Earliest), ("latest", Start::Latest)];
    let start = scope.pick(&["start"], |l| l.start.as_deref()).and_then(|(text, path)| one_of(text, &known, &path, mistakes));
    // An inbox of another framework is read like a source.
    if mode == Some(Mode::Relay) && scope.own.0.inbox.is_none() {
        let hint = "in relay mode the application consumes the sources and decides where it starts";
        refuse_in_relay(scope, "start", |l| l.start.is_some(), hint, mistakes);
        return None;
    }
    start
}

/// The keys of relay ladders only.
struct RelayKeys {
    redelivery: Redelivery,
    reaches_all_groups: bool,
    settle: Option<Duration>,
    inbox: Option<(String, Dialect)>,
}

/// The inbox that is another framework's dead-letter topic.
fn foreign_inbox(scope: &Scope<'_>, mistakes: &mut Mistakes) -> Option<(String, Dialect)> {
    let raw = scope.own.0.inbox.as_ref()?;
    let path = scope.own.1.key("inbox");
    for (key, is_there) in [("topic", raw.topic.is_some()), ("dialect", raw.dialect.is_some())] {
        if !is_there {
            note_missing(&path.key(key), mistakes);
        }
    }
    let dialect = one_of(raw.dialect.as_deref()?, &Dialect::NAMES, &path.key("dialect"), mistakes)?;
    Some((raw.topic.clone()?, dialect))
}

fn relay_keys(scope: &Scope<'_>, mode: Option<Mode>, mistakes: &mut Mistakes) -> RelayKeys {
    let known = [("topic", Redelivery::Topic), ("origin", Redelivery::Origin)];
    let redelivery =
        scope.pick(&["redeliver"], |l| l.redeliver.as_deref()).and_then(|(text, path)| one_of(text, &known, &path, mistakes));
    let consent = scope.pick(&["reaches_all_groups"], |l| l.reaches_all_groups).map(|(consent, _)| consent.0);
    let settle = scope
        .pick(&["settle"], |l| l.settle)
        .and_then(|(span, path)| duration_in(span, Duration::from_secs(1)..=DAY, &path, mistakes));
    if mode == Some(Mode::Relay) {
        // Consent is checked once its purpose is clear.
        return RelayKeys {
            redelivery: redelivery.unwrap_or(Redelivery::Topic),
            reaches_all_groups: consent.unwrap_or(false),
            settle,
            inbox: foreign_inbox(scope, mistakes),
        };
    }
    // Defaults for relay ladders do not apply to a push ladder.
    let raw = scope.own.0;
    let keys = [
        ("inbox", raw.inbox.is_some(), "a push ladder consumes its sources itself; remove it, or set mode = \"relay\""),
        (
            "redeliver",
            raw.redeliver.is_some(),
            "a push ladder's deliverer reads the redeliver topic; remove it, or set mode = \"relay\"",
        ),
        ("reaches_all_groups", raw.reaches_all_groups.is_some(), "it permits redeliver = \"origin\", which is for relay ladders"),
        ("settle", raw.settle.is_some(), "in push mode the handler reports success; remove it, or set mode = \"relay\""),
    ];
    for (key, _, hint) in keys.into_iter().filter(|(_, is_there, _)| *is_there && mode.is_some()) {
        mistakes.note(&scope.own.1.key(key), "does not apply to a push ladder", Some(hint.to_owned()));
    }
    RelayKeys { redelivery: Redelivery::Topic, reaches_all_groups: false, settle: None, inbox: None }
}

/// The DLQ breaker; `None` if it is disabled.
fn dlq_breaker(scope: &Scope<'_>, mistakes: &mut Mistakes) -> Option<DlqBreakerSettings> {
    let defaults = DlqBreakerSettings::default();
    let second = Duration::from_secs(1);
    let mut span = |key: &str, get: fn(&RawDlqBreaker) -> Option<Span>, most: Duration, default: Duration| {
        let picked = scope.pick(&["dlq_breaker", key], |l| get(l.dlq_breaker.as_ref()?));
        picked.and_then(|(span, path)| duration_in(span, second..=most, &path, mistakes)).unwrap_or(default)
    };
    let window = span("window", |b| b.window, DAY, defaults.window);
    let hold_for = span("hold_for", |b| b.hold_for, 7 * DAY, defaults.hold_for);
    let minimum = scope
        .pick(&["dlq_breaker", "minimum"], |l| l.dlq_breaker.as_ref()?.minimum)
        .and_then(|(n, path)| whole_in(n, 1..=1_000_000, &path, mistakes))
        .and_then(|n: usize| u64::try_from(n).ok());
    let share =
        scope.pick(&["dlq_breaker", "share"], |l| l.dlq_breaker.as_ref()?.share).map(|(part, path)| share(part, &path, mistakes));
    let (minimum, share) = (minimum.unwrap_or(defaults.minimum), share.unwrap_or(defaults.share));
    let enabled =
        scope.pick(&["dlq_breaker", "enabled"], |l| l.dlq_breaker.as_ref()?.enabled).is_none_or(|(enabled, _)| enabled.0);
    enabled.then_some(DlqBreakerSettings { window, minimum, share, hold_for })
}

/// Redrive targets, and the number of redrives.
fn redrive(scope: &Scope<'_>, mistakes: &mut Mistakes) -> RedriveConfig {
    let targets = scope.pick(&["redrive", "targets"], |l| l.redrive.as_ref()?.targets.as_ref());
    let park_after = scope.pick(&["redrive", "park_after"], |l| l.redrive.as_ref()?.park_after);
    RedriveConfig {
        targets: targets.map(|(items, path)| topic_names(items, &path, mistakes)).unwrap_or_default(),
        park_after: park_after.and_then(|(n, path)| whole_in(n, 1..=1_000, &path, mistakes)).unwrap_or(DEFAULT_PARK_AFTER),
    }
}

/// `[dlq.NAME]`: the dead-letter topic of another framework.
pub fn queue(name: &str, raw: &RawQueue, defaults: &RawLadder, mistakes: &mut Mistakes) -> Option<QueueConfig> {
    let at = Path::of("dlq").key(name);
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') || !(1..=100).contains(&name.len()) {
        mistakes.note(&at, "is not a valid name: 1 to 100 of a-z, 0-9 and `-`", hint(&at));
    }
    let topic_path = at.key("topic");
    match raw.topic.as_deref() {
        None => note_missing(&topic_path, mistakes),
        Some(topic) if !is_topic_name(topic) => mistakes.note(&topic_path, "is not a valid topic name", hint(&topic_path)),
        Some(_) => {}
    }
    let dialect = raw.dialect.as_deref().and_then(|text| one_of(text, &Dialect::NAMES, &at.key("dialect"), mistakes));
    let targets = raw.targets.as_ref().map(|items| topic_names(items, &at.key("targets"), mistakes)).unwrap_or_default();
    let park_after = raw.park_after.and_then(|n| whole_in(n, 1..=1_000, &at.key("park_after"), mistakes));
    let park_after = park_after.unwrap_or(DEFAULT_PARK_AFTER);
    let shared = defaults.topics.as_ref().and_then(|topics| topics.settings.as_ref());
    let mut settings = topic_settings::read(shared, &Path::of("defaults").keys(&["topics", "settings"]), mistakes);
    settings.extend(topic_settings::read(raw.settings.as_ref(), &at.key("settings"), mistakes));
    Some(QueueConfig { name: name.to_owned(), topic: raw.topic.clone()?, dialect, targets, park_after, settings })
}

fn topics(scope: &Scope<'_>, mistakes: &mut Mistakes) -> TopicsConfig {
    let years = MINUTE..=3650 * DAY;
    let defaults = TopicsConfig::default();
    let mut span = |key: &str, get: fn(&RawLadder) -> Option<Span>, default: Duration| {
        let picked = scope.pick(&["topics", key], get);
        picked.and_then(|(span, path)| duration_in(span, years.clone(), &path, mistakes)).unwrap_or(default)
    };
    let outage_budget = span("outage_budget", |l| l.topics.as_ref()?.outage_budget, defaults.outage_budget);
    let dlq_retention = span("dlq_retention", |l| l.topics.as_ref()?.dlq_retention, defaults.dlq_retention);
    let mut whole = |key: &str, get: fn(&RawLadder) -> Option<Whole>, most: i64| {
        scope.pick(&["topics", key], get).and_then(|(n, path)| whole_in::<i32>(n, 1..=most, &path, mistakes))
    };
    let partitions = whole("partitions", |l| l.topics.as_ref()?.partitions, 10_000);
    let replication_factor = whole("replication_factor", |l| l.topics.as_ref()?.replication_factor, 100);
    // Per setting: a ladder that sets one keeps the defaults of the others.
    let mut settings = TopicSettings::new();
    for (raw, path) in [&scope.defaults, &scope.own] {
        let raw = raw.topics.as_ref().and_then(|topics| topics.settings.as_ref());
        settings.extend(topic_settings::read(raw, &path.keys(&["topics", "settings"]), mistakes));
    }
    TopicsConfig { partitions, replication_factor, outage_budget, dlq_retention, settings }
}

/// Adds the ladder's own errors with their places in the file.
fn note_ladder_errors(
    errors: LadderErrors,
    scope: &Scope<'_>,
    sources: &[(usize, String)],
    tiers: &tiers::TierDelays,
    tiers_path: &Path,
    rules_path: &Path,
    mistakes: &mut Mistakes,
) {
    let own = &scope.own.1;
    let source_path = |topic: &str, which: usize| {
        let at = sources.iter().filter(|(_, s)| s == topic).nth(which).map(|(i, _)| *i);
        at.map_or_else(|| own.key("sources"), |i| own.key("sources").index(i))
    };
    let tier_path = |index: Option<usize>| index.map_or_else(|| tiers_path.clone(), |i| tiers_path.index(i));
    for error in errors.0 {
        let path = match &error {
            LadderError::Name(_) => own.clone(),
            LadderError::Group => own.key("group"),
            LadderError::NoSource => own.key("sources"),
            LadderError::SourceTwice(topic) => source_path(topic, 1),
            LadderError::TopicName(topic) | LadderError::SourceIsOwn(topic) => source_path(topic, 0),
            LadderError::NoTier | LadderError::TooManyTiers(_) => tiers_path.clone(),
            LadderError::DelayTwice(delay) => tier_path(tiers.position(*delay, 1)),
            LadderError::NotRising(_, delay) => tier_path(tiers.position(*delay, 0)),
            LadderError::Delay(text, _) => tier_path(tiers.delays.iter().find(|(_, t)| t == text).and_then(|(i, _)| *i)),
            LadderError::Attempts(_) => scope.path(&["attempts"], |l| l.attempts.is_some()),
            LadderError::OriginWithoutRelay => scope.path(&["redeliver"], |l| l.redeliver.is_some()),
            LadderError::OriginWithoutConsent => scope.path(&["reaches_all_groups"], |l| l.reaches_all_groups.is_some()),
            LadderError::InboxName(_) | LadderError::InboxIsSource(_) | LadderError::InboxIsOwn(_) => {
                own.key("inbox").key("topic")
            }
            LadderError::InboxWithoutOrigin => scope.path(&["redeliver"], |l| l.redeliver.is_some()),
            LadderError::Immediate | LadderError::ImmediateWithoutPush => scope.path(&["immediate"], |l| l.immediate.is_some()),
            LadderError::MaxAge(..) => scope.path(&["max_age"], |l| l.max_age.is_some()),
            LadderError::Rule(index, error) => rules_section::path_of(error, &rules_path.index(*index)),
            LadderError::SettleWithoutRelay => scope.path(&["settle"], |l| l.settle.is_some()),
        };
        // `sources = []` is a mistake of its own; a list whose only element was refused is not
        // empty. The same applies to a rule whose condition was refused.
        let follows = mistakes.touches(&path)
            && matches!(
                error,
                LadderError::NoSource
                    | LadderError::NoTier
                    | LadderError::Attempts(_)
                    | LadderError::Rule(_, RuleError::HoldsForAll)
            );
        if !follows {
            let what = match &error {
                LadderError::Delay(_, reason) => reason.to_string(),
                LadderError::Rule(_, reason) => reason.to_string(),
                other => other.to_string(),
            };
            // The messages of these errors need no hint.
            let is_plain = matches!(error, LadderError::SourceTwice(_) | LadderError::SourceIsOwn(_) | LadderError::TopicName(_));
            mistakes.note(&path, what, if is_plain { None } else { hint(&path) });
        }
    }
}
