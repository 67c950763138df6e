//! `[ladder.NAME]` over `[defaults]`: a ladder's own value wins, key by key.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::keys;
use crate::config::mistake::Mistakes;
use crate::config::nearest::nearest;
use crate::config::path::Path;
use crate::config::raw::{Decimal, Items, RawBreaker, RawDlqBreaker, RawLadder, RawQueue, Span, Whole};
use crate::config::rules_section;
use crate::config::tiers;
use crate::config::types::{
    DEFAULT_MAX_IN_FLIGHT, DEFAULT_PARK_AFTER, DEFAULT_REDELIVER_SHARE, HandlerConfig, LadderConfig, QueueConfig, RedriveConfig,
    Start, TopicsConfig,
};
use crate::core::dialect::Dialect;
use crate::core::dispatch::BreakerSettings;
use crate::core::dlq_breaker::DlqBreakerSettings;
use crate::core::ladder::{Hops, Immediate, Ladder, LadderError, LadderErrors, Mode, Redelivery, RuleError, is_topic_name};
use crate::core::rate::Rate;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A ladder's own keys, and the defaults below them.
pub struct Scope<'a> {
    own: (&'a RawLadder, Path),
    defaults: (&'a RawLadder, Path),
}

impl<'a> Scope<'a> {
    /// The scope of the ladder of this name.
    pub fn new(name: &str, own: &'a RawLadder, defaults: &'a RawLadder) -> Self {
        Self { own: (own, Path::of("ladder").key(name)), defaults: (defaults, Path::of("defaults")) }
    }

    /// The value that counts, and where it stands.
    fn pick<T>(&self, keys: &[&str], get: impl Fn(&'a RawLadder) -> Option<T>) -> Option<(T, Path)> {
        [&self.own, &self.defaults].into_iter().find_map(|(raw, path)| Some((get(raw)?, path.keys(keys))))
    }

    /// Where a value stands or would stand.
    fn path(&self, keys: &[&str], get: impl Fn(&'a RawLadder) -> bool) -> Path {
        let inherited = !get(self.own.0) && get(self.defaults.0);
        if inherited { self.defaults.1.keys(keys) } else { self.own.1.keys(keys) }
    }
}

/// Reads a ladder; `None` where it has mistakes.
pub fn read(name: &str, scope: &Scope<'_>, mistakes: &mut Mistakes) -> Option<LadderConfig> {
    let own = &scope.own.1;
    let sources: Vec<(usize, String)> = match &scope.own.0.sources {
        Some(items) => tiers::texts(items, &own.key("sources"), mistakes),
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
        tiers::Tiers::default()
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
    // An attempt count that was refused is not judged again; nor does it become the default.
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

/// Tries in place, which only a push ladder makes.
fn immediate(scope: &Scope<'_>, mode: Option<Mode>, mistakes: &mut Mistakes) -> Option<Immediate> {
    if mode == Some(Mode::Relay) {
        let hint = "in relay mode the application makes its attempts itself; take it out, or set mode = \"push\"";
        refuse_in_relay(scope, "immediate", |l| l.immediate.is_some(), hint, mistakes);
        return None;
    }
    let backoff = scope
        .pick(&["immediate", "backoff"], |l| l.immediate.as_ref()?.backoff)
        .map(|(span, path)| duration_in(span, Duration::ZERO..=Duration::from_secs(10), &path, mistakes));
    let attempts = scope
        .pick(&["immediate", "attempts"], |l| l.immediate.as_ref()?.attempts)
        .map(|(number, path)| whole_in(number, 1..=10, &path, mistakes));
    let (_, path) = scope.pick(&["immediate"], |l| l.immediate.as_ref())?;
    if attempts.is_none() {
        note_missing(&path.key("attempts"), mistakes);
    }
    Some(Immediate { attempts: attempts??, backoff: backoff.unwrap_or(Some(Duration::from_millis(100)))? })
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

/// What only a relay ladder is told.
struct RelayKeys {
    redelivery: Redelivery,
    reaches_all_groups: bool,
    settle: Option<Duration>,
    inbox: Option<(String, Dialect)>,
}

/// The dead-letter topic of another framework that is the inbox.
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
        // Consent is asked for once it is clear what for.
        return RelayKeys {
            redelivery: redelivery.unwrap_or(Redelivery::Topic),
            reaches_all_groups: consent.unwrap_or(false),
            settle,
            inbox: foreign_inbox(scope, mistakes),
        };
    }
    // What the defaults say for relay ladders is no concern of a push ladder.
    let raw = scope.own.0;
    let keys = [
        ("inbox", raw.inbox.is_some(), "a push ladder consumes its sources itself; take it out, or set mode = \"relay\""),
        (
            "redeliver",
            raw.redeliver.is_some(),
            "a push ladder's deliverer reads the redeliver topic; take it out, or set mode = \"relay\"",
        ),
        (
            "reaches_all_groups",
            raw.reaches_all_groups.is_some(),
            "it consents to redeliver = \"origin\", which is for relay ladders",
        ),
        ("settle", raw.settle.is_some(), "in push mode the handler says what succeeded; take it out, or set mode = \"relay\""),
    ];
    for (key, _, hint) in keys.into_iter().filter(|(_, is_there, _)| *is_there && mode.is_some()) {
        mistakes.note(&scope.own.1.key(key), "has no meaning for a push ladder", Some(hint.to_owned()));
    }
    RelayKeys { redelivery: Redelivery::Topic, reaches_all_groups: false, settle: None, inbox: None }
}

fn handler(scope: &Scope<'_>, mode: Option<Mode>, mistakes: &mut Mistakes) -> Option<HandlerConfig> {
    let own = scope.own.1.key("handler");
    if mode == Some(Mode::Relay) {
        let hint = "in relay mode the application consumes; take the handler out, or set mode = \"push\"";
        refuse_in_relay(scope, "handler", |l| l.handler.is_some(), hint, mistakes);
        return None;
    }
    let timeout = scope
        .pick(&["handler", "timeout"], |l| l.handler.as_ref()?.timeout)
        .and_then(|(span, path)| duration_in(span, Duration::from_millis(1)..=60 * MINUTE, &path, mistakes));
    let max_in_flight = scope
        .pick(&["handler", "max_in_flight"], |l| l.handler.as_ref()?.max_in_flight)
        .and_then(|(n, path)| whole_in::<usize>(n, 1..=10_000, &path, mistakes));
    let redeliver_share = scope
        .pick(&["handler", "redeliver_share"], |l| l.handler.as_ref()?.redeliver_share)
        .map(|(part, path)| share(part, &path, mistakes));
    let Some((url, path)) = scope.pick(&["handler", "url"], |l| l.handler.as_ref()?.url.as_deref()) else {
        // Whether a handler is needed at all is open while the mode is.
        if mode.is_some() {
            note_missing(&own.key("url"), mistakes);
        }
        return None;
    };
    if let Err((what, remedy)) = check_url(url) {
        mistakes.note(&path, what, remedy.map(str::to_owned).or_else(|| hint(&path)));
    }
    Some(HandlerConfig {
        url: url.to_owned(),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        max_in_flight: max_in_flight.unwrap_or(DEFAULT_MAX_IN_FLIGHT),
        redeliver_share: redeliver_share.unwrap_or(DEFAULT_REDELIVER_SHARE),
    })
}

/// When deliveries wait because the handler is down; `None` where that is switched off, or there is no handler.
fn breaker(scope: &Scope<'_>, mode: Option<Mode>, mistakes: &mut Mistakes) -> Option<BreakerSettings> {
    if mode == Some(Mode::Relay) {
        let hint = "in relay mode kladder calls no handler; take it out, or set mode = \"push\"";
        refuse_in_relay(scope, "breaker", |l| l.breaker.is_some(), hint, mistakes);
        return None;
    }
    let defaults = BreakerSettings::default();
    let mut whole = |key: &str, get: fn(&RawBreaker) -> Option<Whole>, default: usize, most: usize| {
        let picked = scope.pick(&["breaker", key], |l| get(l.breaker.as_ref()?));
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        picked.and_then(|(n, path)| whole_in(n, 1..=most, &path, mistakes)).unwrap_or(default)
    };
    let consecutive = whole("consecutive", |b| b.consecutive, defaults.consecutive, 10_000);
    let probes = whole("probes", |b| b.probes, defaults.probes, 100);
    let hour = 60 * MINUTE;
    let mut span = |key: &str, get: fn(&RawBreaker) -> Option<Span>, least: Duration, default: Duration| {
        let picked = scope.pick(&["breaker", key], |l| get(l.breaker.as_ref()?));
        picked.and_then(|(span, path)| duration_in(span, least..=hour, &path, mistakes)).unwrap_or(default)
    };
    let open_for = span("open_for", |b| b.open_for, Duration::from_millis(100), defaults.open_for);
    let open_most = span("open_most", |b| b.open_most, open_for, defaults.open_most.max(open_for));
    let silence = span("silence", |b| b.silence, Duration::from_millis(100), defaults.silence);
    let enabled = scope.pick(&["breaker", "enabled"], |l| l.breaker.as_ref()?.enabled).is_none_or(|(enabled, _)| enabled.0);
    enabled.then_some(BreakerSettings { consecutive, silence, probes, open_for, open_most })
}

/// When what would be a dead letter waits because there are too many; `None` where that is switched off.
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

/// Where dead letters may be sent, and how often.
fn redrive(scope: &Scope<'_>, mistakes: &mut Mistakes) -> RedriveConfig {
    let targets = scope.pick(&["redrive", "targets"], |l| l.redrive.as_ref()?.targets.as_ref());
    let park_after = scope.pick(&["redrive", "park_after"], |l| l.redrive.as_ref()?.park_after);
    RedriveConfig {
        targets: targets.map(|(items, path)| topic_names(items, &path, mistakes)).unwrap_or_default(),
        park_after: park_after.and_then(|(n, path)| whole_in(n, 1..=1_000, &path, mistakes)).unwrap_or(DEFAULT_PARK_AFTER),
    }
}

/// Names of topics.
fn topic_names(items: &Items, path: &Path, mistakes: &mut Mistakes) -> Vec<String> {
    let mut names = Vec::new();
    for (i, item) in items.0.iter().enumerate() {
        match &item.0 {
            Ok(name) if is_topic_name(name) => names.push(name.clone()),
            _ => mistakes.note(&path.index(i), "is no name of a topic", hint(path)),
        }
    }
    names
}

/// `[dlq.NAME]`: the dead-letter topic of another framework.
pub fn queue(name: &str, raw: &RawQueue, mistakes: &mut Mistakes) -> Option<QueueConfig> {
    let at = Path::of("dlq").key(name);
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') || !(1..=100).contains(&name.len()) {
        mistakes.note(&at, "is no name: 1 to 100 of a-z, 0-9 and `-`", hint(&at));
    }
    let topic_path = at.key("topic");
    match raw.topic.as_deref() {
        None => note_missing(&topic_path, mistakes),
        Some(topic) if !is_topic_name(topic) => mistakes.note(&topic_path, "is no name of a topic", hint(&topic_path)),
        Some(_) => {}
    }
    let dialect = raw.dialect.as_deref().and_then(|text| one_of(text, &Dialect::NAMES, &at.key("dialect"), mistakes));
    let targets = raw.targets.as_ref().map(|items| topic_names(items, &at.key("targets"), mistakes)).unwrap_or_default();
    let park_after = raw.park_after.and_then(|n| whole_in(n, 1..=1_000, &at.key("park_after"), mistakes));
    let park_after = park_after.unwrap_or(DEFAULT_PARK_AFTER);
    Some(QueueConfig { name: name.to_owned(), topic: raw.topic.clone()?, dialect, targets, park_after })
}

/// Whether a URL can be called; else what is wrong with it and, where that is not plain, what to do.
pub(super) fn check_url(url: &str) -> Result<(), (&'static str, Option<&'static str>)> {
    let uri: http::Uri = url.parse().map_err(|_| ("is no URL", None))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") if cfg!(feature = "tls") => {}
        Some("https") => {
            return Err((
                "needs TLS, which this kladder was built without",
                Some("build it with the feature `tls`, or use http"),
            ));
        }
        _ => return Err(("is no http or https URL", None)),
    }
    if uri.host().is_none_or(str::is_empty) { Err(("names no host", None)) } else { Ok(()) }
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
    TopicsConfig {
        partitions: whole("partitions", |l| l.topics.as_ref()?.partitions, 10_000),
        replication_factor: whole("replication_factor", |l| l.topics.as_ref()?.replication_factor, 100),
        outage_budget,
        dlq_retention,
    }
}

/// Gives each of the ladder's own complaints its place in the file.
fn note_ladder_errors(
    errors: LadderErrors,
    scope: &Scope<'_>,
    sources: &[(usize, String)],
    tiers: &tiers::Tiers,
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
        // `sources = []` is its own mistake; a list whose only element was refused is not empty.
        // Nor is a rule whose condition was refused.
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
            // The message of these says all that there is to say.
            let is_plain = matches!(error, LadderError::SourceTwice(_) | LadderError::SourceIsOwn(_) | LadderError::TopicName(_));
            mistakes.note(&path, what, if is_plain { None } else { hint(&path) });
        }
    }
}

/// What the defaults say for push ladders is no concern of a relay ladder; what stands in its own table is a mistake.
fn refuse_in_relay(scope: &Scope<'_>, key: &str, is_there: fn(&RawLadder) -> bool, hint: &str, mistakes: &mut Mistakes) {
    if is_there(scope.own.0) {
        mistakes.note(&scope.own.1.key(key), "has no meaning for a relay ladder", Some(hint.to_owned()));
    }
}

/// A part of the whole: above 0, at most 1.
fn share(part: Decimal, path: &Path, mistakes: &mut Mistakes) -> f64 {
    if !(part.0 > 0.0 && part.0 <= 1.0) {
        mistakes.note(path, "is out of range", hint(path));
    }
    part.0
}

fn hint(path: &Path) -> Option<String> {
    keys::hint(path).map(str::to_owned)
}

fn note_missing(path: &Path, mistakes: &mut Mistakes) {
    mistakes.note_missing(path, keys::hint(path).unwrap_or_default());
}

/// The value of a word.
pub fn one_of<T: Copy>(text: &str, known: &[(&str, T)], path: &Path, mistakes: &mut Mistakes) -> Option<T> {
    if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let words = known.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let remedy = nearest(text, known.iter().map(|(word, _)| *word))
        .map_or_else(|| hint(path).unwrap_or_else(|| format!("one of {words}")), |meant| format!("did you mean \"{meant}\"?"));
    mistakes.note(path, format!("is none of {words}"), Some(remedy));
    None
}

/// A number in a range.
pub fn whole_in<T: TryFrom<i64>>(number: Whole, range: RangeInclusive<i64>, path: &Path, mistakes: &mut Mistakes) -> Option<T> {
    if !range.contains(&number.0) {
        mistakes.note(path, "is out of range", hint(path));
        return None;
    }
    T::try_from(number.0).ok()
}

/// A duration in a range.
pub fn duration_in(span: Span, range: RangeInclusive<Duration>, path: &Path, mistakes: &mut Mistakes) -> Option<Duration> {
    if !range.contains(&span.0) {
        mistakes.note(path, "is out of range", hint(path));
        return None;
    }
    Some(span.0)
}
