//! Logs: stderr, as text for people or JSON for collectors.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, OnceLock, PoisonError};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The variables that are asked for the level, first one first.
const VARIABLES: [&str; 2] = ["KLADDER_LOG", "RUST_LOG"];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging cannot begin.
#[derive(Debug, Error)]
#[error("{variable}=`{value}` is no log filter: write a level (`info`, `debug`) or `target=level` pairs, comma-separated")]
pub struct LogFilterError {
    variable: &'static str,
    value: String,
}

/// The filter cannot be set.
#[derive(Debug, Error)]
pub enum SetFilterError {
    /// It is none.
    #[error(
        "`{0}` is no log filter: write a level (error, warn, info, debug, trace, off) or `target=level` pairs, comma-separated"
    )]
    Unreadable(String),
    /// Somebody else logs in this process.
    #[error("the log of this process is not kladder's")]
    NotOurs,
}

/// The filter in force, and how to set another.
struct InForce {
    text: Mutex<String>,
    set: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

static IN_FORCE: OnceLock<InForce> = OnceLock::new();

/// The filter that log lines pass now; empty where nothing is logged by [`init`].
#[must_use]
pub fn filter_in_force() -> String {
    IN_FORCE.get().map(|now| now.text.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
}

/// Sets another filter, until the process ends.
///
/// # Errors
/// When it cannot be read, or nothing is logged by [`init`].
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

/// Begins to log to stderr at the level of `KLADDER_LOG` or `RUST_LOG`, else `info`. Does nothing where logging has begun already.
///
/// # Errors
/// When the variable holds no filter.
pub fn init(format: LogFormat) -> Result<(), LogFilterError> {
    let filter = filter(|name| std::env::var(name).ok())?;
    let text = filter.to_string();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours());
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

/// Stricter than [`EnvFilter`], to which a mistyped level is a target, of which everything is logged and of others nothing.
fn parse(text: &str) -> Option<EnvFilter> {
    let is_clear = |part: &str| part.contains(['=', '[']) || !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    text.split(',').map(str::trim).all(is_clear).then(|| EnvFilter::try_new(text).ok()).flatten()
}

/// See <https://no-color.org>: set and not empty means none.
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
        assert!(level(&[("KLADDER_LOG", "debgu")]).unwrap_err().contains("is no log filter"), "it is no target");
        assert!(level(&[("KLADDER_LOG", "kladder=nonsense")]).unwrap_err().starts_with("KLADDER_LOG=`kladder=nonsense`"));
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
