//! Logs: stderr, as text for people or JSON for collectors.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

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
    source: ParseError,
}

/// Begins to log to stderr at the level of `KLADDER_LOG` or `RUST_LOG`, else `info`. Does nothing where logging has begun already.
///
/// # Errors
/// When the variable holds no filter.
pub fn init(format: LogFormat) -> Result<(), LogFilterError> {
    let filter = filter(|name| std::env::var(name).ok())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours());
    // An error means that the embedding application or an earlier test logs already.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    Ok(())
}

fn filter(variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, LogFilterError> {
    for name in VARIABLES {
        if let Some(value) = variable(name).filter(|v| !v.trim().is_empty()) {
            return EnvFilter::try_new(&value).map_err(|source| LogFilterError { variable: name, value, source });
        }
    }
    Ok(EnvFilter::new("info"))
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
        assert!(level(&[("KLADDER_LOG", "kladder=nonsense")]).unwrap_err().starts_with("KLADDER_LOG=`kladder=nonsense`"));
    }

    #[test]
    fn beginning_twice_does_no_harm() {
        init(LogFormat::Text).unwrap();
        init(LogFormat::Json).unwrap();
    }
}
