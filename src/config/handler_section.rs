//! The keys of a push ladder's handler: `handler`, `breaker` and `immediate`.

use std::time::Duration;

use crate::config::mistake::Mistakes;
use crate::config::raw::{RawBatch, RawBreaker, RawLadder, Span, Whole};
use crate::config::scope::{Scope, refuse_in_relay};
use crate::config::types::{
    DEFAULT_BATCHES_IN_FLIGHT, DEFAULT_MAX_IN_FLIGHT, DEFAULT_MAX_UNSETTLED, DEFAULT_REDELIVER_SHARE, HandlerConfig,
};
use crate::config::values::{check_url, duration_in, hint, note_missing, one_of, share, whole_in};
use crate::core::batch::{BatchFormat, BatchLimits};
use crate::core::dispatch::BreakerSettings;
use crate::core::ladder::{Immediate, Mode};

const MINUTE: Duration = Duration::from_secs(60);

/// In-place retries, only for push ladders.
pub fn immediate(scope: &Scope<'_>, mode: Option<Mode>, mistakes: &mut Mistakes) -> Option<Immediate> {
    if mode == Some(Mode::Relay) {
        let hint = "in relay mode the application makes its own attempts; remove it, or set mode = \"push\"";
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

/// The handler; `None` if there is none.
pub fn handler(scope: &Scope<'_>, mode: Option<Mode>, mistakes: &mut Mistakes) -> Option<HandlerConfig> {
    let own = scope.own.1.key("handler");
    if mode == Some(Mode::Relay) {
        let hint = "in relay mode the application consumes; remove the handler, or set mode = \"push\"";
        refuse_in_relay(scope, "handler", |l| l.handler.is_some(), hint, mistakes);
        return None;
    }
    let timeout = scope
        .pick(&["handler", "timeout"], |l| l.handler.as_ref()?.timeout)
        .and_then(|(span, path)| duration_in(span, Duration::from_millis(1)..=60 * MINUTE, &path, mistakes));
    let max_in_flight = scope
        .pick(&["handler", "max_in_flight"], |l| l.handler.as_ref()?.max_in_flight)
        .and_then(|(n, path)| whole_in::<usize>(n, 1..=10_000, &path, mistakes));
    let max_unsettled = scope
        .pick(&["handler", "max_unsettled"], |l| l.handler.as_ref()?.max_unsettled)
        .and_then(|(n, path)| whole_in::<usize>(n, 0..=100_000, &path, mistakes));
    let redeliver_share = scope
        .pick(&["handler", "redeliver_share"], |l| l.handler.as_ref()?.redeliver_share)
        .map(|(part, path)| share(part, &path, mistakes));
    let batch = batch(scope, mistakes);
    let Some((url, path)) = scope.pick(&["handler", "url"], |l| l.handler.as_ref()?.url.as_deref()) else {
        // Whether a handler is required is unknown while the mode is.
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
        max_in_flight: max_in_flight.unwrap_or(if batch.is_some() { DEFAULT_BATCHES_IN_FLIGHT } else { DEFAULT_MAX_IN_FLIGHT }),
        batch,
        max_unsettled: max_unsettled.unwrap_or(DEFAULT_MAX_UNSETTLED),
        redeliver_share: redeliver_share.unwrap_or(DEFAULT_REDELIVER_SHARE),
    })
}

/// How records are put together; `None` if each is delivered on its own.
fn batch(scope: &Scope<'_>, mistakes: &mut Mistakes) -> Option<(BatchLimits, BatchFormat)> {
    fn of(ladder: &RawLadder) -> Option<&RawBatch> {
        ladder.handler.as_ref()?.batch.as_ref()
    }
    scope.pick(&["handler", "batch"], |l| of(l))?;
    let defaults = BatchLimits::default();
    let max = scope
        .pick(&["handler", "batch", "max"], |l| of(l)?.max)
        .and_then(|(n, path)| whole_in::<usize>(n, 1..=10_000, &path, mistakes));
    let bytes = scope.pick(&["handler", "batch", "bytes"], |l| of(l)?.bytes.as_deref()).and_then(|(text, path)| {
        let bytes = size(text).filter(|bytes| (1024..=64 * 1024 * 1024).contains(bytes));
        if bytes.is_none() {
            mistakes.note(&path, "is not a size in range", hint(&path));
        }
        bytes
    });
    let wait = scope
        .pick(&["handler", "batch", "wait"], |l| of(l)?.wait)
        .and_then(|(span, path)| duration_in(span, Duration::ZERO..=Duration::from_secs(10), &path, mistakes));
    let across = scope.pick(&["handler", "batch", "across"], |l| of(l)?.across).map(|(across, _)| across);
    let formats =
        [("cloudevents", BatchFormat::CloudEvents), ("ndjson", BatchFormat::Ndjson), ("multipart", BatchFormat::Multipart)];
    let format = scope
        .pick(&["handler", "batch", "format"], |l| of(l)?.format.as_deref())
        .and_then(|(text, path)| one_of(text, &formats, &path, mistakes));
    let limits = BatchLimits {
        max: max.unwrap_or(defaults.max),
        bytes: bytes.unwrap_or(defaults.bytes),
        wait: wait.unwrap_or(defaults.wait),
        across: across.unwrap_or(defaults.across),
    };
    Some((limits, format.unwrap_or_default()))
}

/// `1MiB`, `512KiB` or a number of bytes.
fn size(text: &str) -> Option<usize> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "kB" => 1_000,
        "MB" => 1_000_000,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// The handler's breaker; `None` if it is disabled, or there is no handler.
pub fn breaker(scope: &Scope<'_>, mode: Option<Mode>, mistakes: &mut Mistakes) -> Option<BreakerSettings> {
    if mode == Some(Mode::Relay) {
        let hint = "in relay mode kladder calls no handler; remove it, or set mode = \"push\"";
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
