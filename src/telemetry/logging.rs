//! Logs: on stderr, as text or as JSON for log collectors.
//!
//! Logging never blocks or ends the process; see [`log_writer`].

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::core::harmless;
use crate::telemetry::log_writer::{self, LogWriter};

/// The variables for the level; the first one set wins.
const VARIABLES: [&str; 2] = ["KLADDER_LOG", "RUST_LOG"];

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The log filter is invalid.
#[derive(Debug, Error)]
#[error("{variable}=`{value}` is not a log filter: write a level (`info`, `debug`) or `target=level` pairs, comma-separated")]
pub struct LogFilterError {
    variable: &'static str,
    value: String,
}

/// The filter cannot be set.
#[derive(Debug, Error)]
pub enum SetFilterError {
    /// The filter is invalid.
    #[error(
        "`{0}` is not a log filter: write a level (error, warn, info, debug, trace, off) or `target=level` pairs, comma-separated"
    )]
    Unreadable(String),
    /// Another subscriber is installed in this process.
    #[error("the log of this process is not kladder's")]
    NotOurs,
}

/// The current filter, and a way to replace it.
struct InForce {
    text: Mutex<String>,
    set: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

static IN_FORCE: OnceLock<InForce> = OnceLock::new();

/// The current log filter; empty if [`init`] was not called.
#[must_use]
pub fn filter_in_force() -> String {
    IN_FORCE.get().map(|now| now.text.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
}

/// Replaces the filter, until the process ends.
///
/// # Errors
/// It is invalid, or [`init`] was not called.
pub fn set_filter(text: &str) -> Result<(), SetFilterError> {
    let filter = parse(text).ok_or_else(|| SetFilterError::Unreadable(text.to_owned()))?;
    let in_force = IN_FORCE.get().ok_or(SetFilterError::NotOurs)?;
    let mut now = in_force.text.lock().unwrap_or_else(PoisonError::into_inner);
    if !(in_force.set)(filter) {
        return Err(SetFilterError::NotOurs);
    }
    text.clone_into(&mut now);
    Ok(())
}

/// Starts logging to stderr at the level of `KLADDER_LOG` or `RUST_LOG`, else `info`. Does nothing if logging has been started.
///
/// # Errors
/// The variable contains an invalid filter.
pub fn init(format: LogFormat) -> Result<(), LogFilterError> {
    let filter = filter(|name| std::env::var(name).ok())?;
    let text = filter.to_string();
    let shape = match format {
        LogFormat::Json => Shape::Json,
        LogFormat::Text if colours() => Shape::Coloured,
        LogFormat::Text => Shape::Text,
    };
    let lines = Lines { shape, writer: log_writer::to_stderr() };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_ansi(shape == Shape::Coloured);
    // They would go to stderr directly, and panic if it is closed.
    let builder = builder.log_internal_errors(false);
    // An error means that the embedding application or an earlier test logs already.
    let set: Option<Box<dyn Fn(EnvFilter) -> bool + Send + Sync>> = match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().is_ok().then(|| Box::new(move |filter| handle.reload(filter).is_ok()) as _)
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_ansi(false).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().is_ok().then(|| Box::new(move |filter| handle.reload(filter).is_ok()) as _)
        }
    };
    if let Some(set) = set {
        let _ = IN_FORCE.set(InForce { text: Mutex::new(text), set });
    }
    Ok(())
}

fn filter(variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, LogFilterError> {
    for name in VARIABLES {
        if let Some(value) = variable(name).filter(|v| !v.trim().is_empty()) {
            return parse(&value).ok_or(LogFilterError { variable: name, value });
        }
    }
    Ok(EnvFilter::new("info"))
}

/// Stricter than [`EnvFilter`], which takes a mistyped level for a target and then logs nothing else.
fn parse(text: &str) -> Option<EnvFilter> {
    let is_clear = |part: &str| part.contains(['=', '[']) || !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    text.split(',').map(str::trim).all(is_clear).then(|| EnvFilter::try_new(text).ok()).flatten()
}

/// Style of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Coloured,
    Json,
}

impl Shape {
    /// A formatted event without control sequences, and in text with further lines indented, so that none of them passes for a line of
    /// its own.
    fn harmless(self, event: &str) -> String {
        let event = event.strip_suffix('\n').unwrap_or(event);
        let line = match self {
            Self::Text => harmless::lines(event),
            Self::Coloured => harmless::coloured_lines(event),
            Self::Json => return format!("{}\n", harmless::json(event)),
        };
        format!("{}\n", line.replace('\n', "\n    "))
    }
}

/// Turns events into lines.
struct Lines {
    shape: Shape,
    writer: &'static LogWriter,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Each write is one event, since events are formatted that way.
impl Write for &Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.writer.pass(self.shape.harmless(&String::from_utf8_lossy(event)).into_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// See <https://no-color.org>: set and not empty means no colours.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(variables: &[(&str, &str)]) -> Result<String, String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        filter(get).map(|f| f.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_level_comes_from_our_variable_before_the_common_one() {
        assert_eq!(level(&[]).unwrap(), "info");
        assert_eq!(level(&[("RUST_LOG", "warn")]).unwrap(), "warn");
        assert_eq!(level(&[("RUST_LOG", "warn"), ("KLADDER_LOG", "debug")]).unwrap(), "debug");
        assert_eq!(level(&[("RUST_LOG", "")]).unwrap(), "info");
        assert!(level(&[("KLADDER_LOG", "debgu")]).unwrap_err().contains("is not a log filter"), "it is not a target");
        assert!(level(&[("KLADDER_LOG", "kladder=nonsense")]).unwrap_err().starts_with("KLADDER_LOG=`kladder=nonsense`"));
    }

    #[test]
    fn nothing_in_a_line_steers_a_terminal_or_passes_for_a_line() {
        let event = "INFO they said a\u{9b}2J\u{202e}b\nERROR forged\x07\n";
        assert_eq!(Shape::Text.harmless(event), "INFO they said a\\u{9b}2J\\u{202e}b\n    ERROR forged\\x07\n");
        assert_eq!(Shape::Coloured.harmless("\x1b[32mINFO\x1b[0m a\x1b[2J\n"), "\x1b[32mINFO\x1b[0m a\\x1b[2J\n");
        assert_eq!(Shape::Json.harmless("{\"m\":\"a\u{9b}\"}\n"), "{\"m\":\"a\\u009b\"}\n");
    }

    #[test]
    fn beginning_twice_does_no_harm() {
        init(LogFormat::Text).unwrap();
        init(LogFormat::Json).unwrap();
        for mistaken in ["", "debgu", "kladder", "kladder=loud", "info,,debug"] {
            assert!(set_filter(mistaken).is_err(), "{mistaken:?}");
        }
        for filter in ["debug", "info,hyper=trace", "off", "info"] {
            set_filter(filter).unwrap();
            assert_eq!(filter_in_force(), filter);
        }
    }
}
