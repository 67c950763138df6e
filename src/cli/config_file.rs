//! Finds and loads the configuration file, for every command that needs one.

use std::env;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::cli::ConfigArg;
use crate::config::{self, Config, ConfigErrors, Surroundings};
use crate::kafka;

/// The file name that stands for stdin.
const STDIN: &str = "-";

/// A configuration and where it came from.
#[derive(Debug)]
pub struct ConfigFile {
    /// The file's path.
    pub path: PathBuf,
    /// Its content.
    pub config: Config,
}

/// Why there is no configuration; `main` maps this to exit code 2.
#[derive(Debug, Error)]
pub enum ConfigFileError {
    /// No file in any of the searched places.
    #[error("no configuration file: looked for {}\nto create one: kladder init > kladder.toml", list(.looked))]
    NotFound {
        /// The paths searched.
        looked: Vec<PathBuf>,
    },
    /// The file cannot be read.
    #[error("cannot read {}", shown(.path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read, but has mistakes.
    #[error("{} in {}\n{errors}", count(errors), shown(.path))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them.
        errors: ConfigErrors,
    },
}

/// Finds the file and loads it.
///
/// # Errors
/// No file is found, it cannot be read, or it has mistakes.
pub fn load(arg: &ConfigArg) -> Result<ConfigFile, ConfigFileError> {
    let path = find(arg.config.as_deref(), &|name| env::var(name).ok(), &|path| path.is_file())?;
    let text = read(&path).map_err(|source| ConfigFileError::Unreadable { path: path.clone(), source })?;
    match parse(&text, path.parent()) {
        Ok(config) => Ok(ConfigFile { path, config }),
        Err(errors) => Err(ConfigFileError::Mistakes { path, errors }),
    }
}

/// Parses a text with this process's environment; relative paths in it are resolved against
/// `directory`.
///
/// # Errors
/// All mistakes at once.
pub fn parse(text: &str, directory: Option<&Path>) -> Result<Config, ConfigErrors> {
    let read_file = |path: &Path| match directory {
        Some(directory) => std::fs::read_to_string(directory.join(path)),
        None => std::fs::read_to_string(path),
    };
    let host_name = gethostname::gethostname();
    let surroundings = Surroundings {
        env: &|name| env::var(name).ok(),
        read_file: &read_file,
        host_name: &host_name.to_string_lossy(),
        check_property: &kafka::property_check::check,
    };
    config::load(text, &surroundings)
}

impl ConfigFile {
    /// The file's name for display.
    #[must_use]
    pub fn shown_path(&self) -> String {
        shown(&self.path)
    }

    /// The state directory: as configured, else from systemd's or the XDG environment variables.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.config.worker.state_dir.clone().unwrap_or_else(state_dir_of_surroundings)
    }
}

/// The state directory where no configuration sets one.
#[must_use]
pub fn state_dir_of_surroundings() -> PathBuf {
    default_state_dir(&|name| env::var(name).ok())
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An empty variable counts as unset.
fn var(env: Env<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}

fn find(given: Option<&Path>, env: Env<'_>, is_file: &dyn Fn(&Path) -> bool) -> Result<PathBuf, ConfigFileError> {
    // A file named explicitly is never replaced by another; if it is missing, reading it reports
    // that.
    if let Some(path) = given.filter(|path| !path.as_os_str().is_empty()) {
        return Ok(path.to_owned());
    }
    let mut looked = vec![PathBuf::from("./kladder.toml")];
    let xdg = var(env, "XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&var(env, "HOME")?).join(".config")));
    looked.extend(xdg.map(|directory| directory.join("kladder/kladder.toml")));
    looked.push(PathBuf::from("/etc/kladder/kladder.toml"));
    match looked.iter().find(|path| is_file(path)) {
        Some(path) => Ok(path.clone()),
        None => Err(ConfigFileError::NotFound { looked }),
    }
}

fn read(path: &Path) -> io::Result<String> {
    if path != Path::new(STDIN) {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn default_state_dir(env: Env<'_>) -> PathBuf {
    // systemd sets a list if the unit has several; the first is the service's own.
    if let Some(directory) = var(env, "STATE_DIRECTORY").and_then(|list| list.split(':').next().map(PathBuf::from)) {
        return directory;
    }
    let home = || Some(Path::new(&var(env, "HOME")?).join(".local/state"));
    let base = var(env, "XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    base.map_or_else(|| PathBuf::from("/var/lib/kladder"), |base| base.join("kladder"))
}

fn shown(path: &Path) -> String {
    if path == Path::new(STDIN) { "stdin".to_owned() } else { path.display().to_string() }
}

fn count(errors: &ConfigErrors) -> String {
    match errors.0.len() {
        1 => "1 mistake".to_owned(),
        n => format!("{n} mistakes"),
    }
}

fn list(paths: &[PathBuf]) -> String {
    let mut text = String::new();
    for (i, path) in paths.iter().enumerate() {
        let _ = write!(text, "{}{}", if i > 0 { ", " } else { "" }, path.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_nearest_file_wins() {
        let all = |path: &Path| path.starts_with("/etc") || path.starts_with("/xdg");
        let found = |given: Option<&str>, pairs: &[(&str, &str)]| find(given.map(Path::new), &env(pairs), &all).unwrap();
        assert_eq!(found(Some("a.toml"), &[]), Path::new("a.toml"));
        assert_eq!(found(None, &[("XDG_CONFIG_HOME", "/xdg")]), Path::new("/xdg/kladder/kladder.toml"));
        assert_eq!(found(Some(""), &[("HOME", "/home/me")]), Path::new("/etc/kladder/kladder.toml"));
    }

    #[test]
    fn where_it_looked_is_told() {
        let error = find(None, &env(&[("HOME", "/home/me")]), &|_| false).unwrap_err().to_string();
        for part in ["./kladder.toml", "/home/me/.config/kladder/kladder.toml", "/etc/kladder/kladder.toml", "kladder init"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn state_is_kept_where_the_system_says() {
        let dir = |pairs: &[(&str, &str)]| default_state_dir(&env(pairs)).to_str().unwrap().to_owned();
        assert_eq!(dir(&[("STATE_DIRECTORY", "/var/lib/k:/var/lib/l"), ("HOME", "/h")]), "/var/lib/k");
        assert_eq!(dir(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), "/s/kladder");
        assert_eq!(dir(&[("HOME", "/h")]), "/h/.local/state/kladder");
    }
}
