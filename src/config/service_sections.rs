//! `[health]`, `[admin]`, `[worker]`, `[schema_registry]`, `[alerts]`: how this process works, where it listens and whom it asks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::keys;
use crate::config::ladder_section::{check_url, duration_in, one_of};
use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::{RawAlerts, RawListener, RawRegistry, RawWorker};
use crate::config::types::{
    AdminConfig, AlertsConfig, DEFAULT_DRAIN, HealthConfig, RegistryConfig, RegistryCredentials, Role, WorkerConfig,
};

/// Where both listeners stand. `None` where they do not.
pub fn listeners(
    health: Option<RawListener>,
    admin: Option<RawListener>,
    mistakes: &mut Mistakes,
) -> (Option<HealthConfig>, Option<AdminConfig>) {
    let health_path = Path::of("health").key("listen");
    let admin_path = Path::of("admin").key("listen");
    let health = address(health, "0.0.0.0:9646", &health_path, mistakes);
    let admin = address(admin, &beside(health), &admin_path, mistakes);
    if let Some(admin) = admin.filter(|a| !a.ip().is_loopback()) {
        let hint = format!("there is no authentication for it yet; use 127.0.0.1:{}", admin.port());
        mistakes.note(&admin_path, "would let anybody on the network act and see payloads", Some(hint));
    }
    if let (Some(health), Some(admin)) = (health, admin) {
        let same_host = health.ip() == admin.ip() || health.ip().is_unspecified() || admin.ip().is_unspecified();
        // Port 0 asks the system for a free one.
        if same_host && health.port() == admin.port() && admin.port() != 0 {
            let at = if mistakes.touches(&admin_path) { &health_path } else { &admin_path };
            mistakes.note(at, "health and admin listen on the same port", Some("give them two ports".to_owned()));
        }
    }
    (health.map(|listen| HealthConfig { listen }), admin.map(|listen| AdminConfig { listen }))
}

/// Where the admin interface listens unless that is said: the port after that of the probes, so that who gives several processes of
/// one machine ports for their probes has given them all they need.
fn beside(health: Option<SocketAddr>) -> String {
    let port = match health.map_or(9646, |health| health.port()) {
        0 => 0,
        u16::MAX => u16::MAX - 1,
        port => port + 1,
    };
    format!("127.0.0.1:{port}")
}

fn address(raw: Option<RawListener>, default: &str, path: &Path, mistakes: &mut Mistakes) -> Option<SocketAddr> {
    let text = raw.and_then(|raw| raw.listen).unwrap_or_else(|| default.to_owned());
    let address = text.trim().parse().ok();
    if address.is_none() {
        mistakes.note(path, "is no IP address with a port", keys::hint(path).map(str::to_owned));
    }
    address
}

/// Whether a worker may bear this name.
#[must_use]
pub fn is_instance_name(name: &str) -> bool {
    // It becomes group.instance.id, which the broker checks like a topic name, and the end of transactional ids.
    (1..=120).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(name, "." | "..")
}

/// How this process works.
pub fn worker(raw: Option<RawWorker>, host_name: &str, mistakes: &mut Mistakes) -> WorkerConfig {
    let raw = raw.unwrap_or_default();
    let at = Path::of("worker");
    let instance = raw.instance.unwrap_or_else(|| host_name.to_owned());
    let path = at.key("instance");
    if !is_instance_name(&instance) {
        mistakes.note(
            &path,
            "is no name for a worker: 1 to 120 letters, digits, `.`, `_` or `-`",
            keys::hint(&path).map(str::to_owned),
        );
    }

    let path = at.key("roles");
    let mut roles = Vec::new();
    match raw.roles {
        None => roles = vec![Role::Mover, Role::Deliverer, Role::Router, Role::Index],
        Some(items) => {
            if items.0.is_empty() {
                mistakes.note(&path, "leaves the worker nothing to do", keys::hint(&path).map(str::to_owned));
            }
            for (i, item) in items.0.iter().enumerate() {
                let known =
                    [("mover", Role::Mover), ("deliverer", Role::Deliverer), ("router", Role::Router), ("index", Role::Index)];
                let path = path.index(i);
                match &item.0 {
                    Err(kind) => mistakes.note(&path, format!("is {kind}, not a string"), keys::hint(&path).map(str::to_owned)),
                    Ok(text) => match one_of(text, &known, &path, mistakes) {
                        Some(role) if roles.contains(&role) => mistakes.note(&path, "is named twice", None),
                        role => roles.extend(role),
                    },
                }
            }
        }
    }

    let path = at.key("state_dir");
    if raw.state_dir.as_deref().is_some_and(|dir| dir.trim().is_empty()) {
        mistakes.note(&path, "is empty", keys::hint(&path).map(str::to_owned));
    }
    let hour = Duration::from_secs(60 * 60);
    let drain = raw.drain.and_then(|span| duration_in(span, Duration::ZERO..=hour, &at.key("drain"), mistakes));
    WorkerConfig { instance, roles, state_dir: raw.state_dir.map(PathBuf::from), drain: drain.unwrap_or(DEFAULT_DRAIN) }
}

/// Where schemas of payloads are found; `None` where that is not said.
pub fn schema_registry(raw: Option<RawRegistry>, mistakes: &mut Mistakes) -> Option<RegistryConfig> {
    let raw = raw?;
    let at = Path::of("schema_registry");
    let (url_path, username_path, password_path) = (at.key("url"), at.key("username"), at.key("password"));
    let hint = |path: &Path| keys::hint(path).map(str::to_owned);
    match raw.url.as_deref() {
        None => mistakes.note_missing(&url_path, keys::hint(&url_path).unwrap_or_default()),
        Some(url) => {
            if let Err((what, remedy)) = check_url(url) {
                mistakes.note(&url_path, what, remedy.map(str::to_owned).or_else(|| hint(&url_path)));
            } else if url.split("://").nth(1).is_some_and(|rest| rest.split('/').next().is_some_and(|host| host.contains('@'))) {
                let remedy = "write them as username and password beside it";
                mistakes.note(&url_path, "holds a user name or password", Some(remedy.to_owned()));
            } else if url.contains(['?', '#']) {
                mistakes.note(&url_path, "has something behind its path", hint(&url_path));
            }
        }
    }
    let credentials = match (raw.username, raw.password) {
        (None, None) => None,
        (Some(username), Some(password)) => {
            if username.contains(':') {
                mistakes.note(&username_path, "has a colon, which basic authentication cannot carry", None);
            }
            Some(RegistryCredentials { username, password })
        }
        (Some(_), None) => {
            mistakes.note_missing(&password_path, "it goes with username: password = \"${REGISTRY_PASSWORD}\"");
            None
        }
        (None, Some(_)) => {
            mistakes.note_missing(&username_path, "it goes with password");
            None
        }
    };
    Some(RegistryConfig { url: raw.url?, credentials })
}

/// When alert rules fire.
pub fn alerts(raw: Option<RawAlerts>, mistakes: &mut Mistakes) -> AlertsConfig {
    let (raw, default) = (raw.unwrap_or_default(), AlertsConfig::default());
    let at = Path::of("alerts");
    let (tenth, hour) = (Duration::from_millis(100), Duration::from_secs(60 * 60));
    let hold = raw.r#for.and_then(|span| duration_in(span, Duration::ZERO..=hour * 24, &at.key("for"), mistakes));
    let lateness = raw.lateness.and_then(|span| duration_in(span, tenth..=hour / 2, &at.key("lateness"), mistakes));
    let offset = raw.clock_offset.and_then(|span| duration_in(span, tenth..=hour, &at.key("clock_offset"), mistakes));
    if let Some(runbook) = raw.runbook.as_deref().filter(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
        let what = if runbook.is_empty() { "is empty" } else { "is no http or https URL" };
        mistakes.note(&at.key("runbook"), what, keys::hint(&at.key("runbook")).map(str::to_owned));
    }
    AlertsConfig {
        hold: hold.unwrap_or(default.hold),
        lateness,
        clock_offset: offset.unwrap_or(default.clock_offset),
        runbook: raw.runbook,
    }
}
