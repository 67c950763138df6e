//! `[health]`, `[admin]`, `[worker]`, `[schema_registry]`, `[alerts]`: settings of the process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::instance::is_instance_name;
use crate::config::mistake::Mistakes;
use crate::config::path::Path;
use crate::config::raw::{RawAlerts, RawListener, RawRegistry, RawWorker};
use crate::config::types::{
    AdminConfig, AlertsConfig, DEFAULT_DRAIN, HealthConfig, RegistryConfig, RegistryCredentials, WorkerConfig,
};
use crate::config::values::{check_url, duration_in, hint, note_missing, one_of};
use crate::core::role::Role;

/// The addresses of both listeners; `None` if they have mistakes.
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
        let hint = format!("it has no authentication yet; use 127.0.0.1:{}", admin.port());
        mistakes.note(&admin_path, "would let anyone on the network act and see payloads", Some(hint));
    }
    if let (Some(health), Some(admin)) = (health, admin) {
        let same_host = health.ip() == admin.ip() || health.ip().is_unspecified() || admin.ip().is_unspecified();
        // Port 0 asks the system for a free one.
        if same_host && health.port() == admin.port() && admin.port() != 0 {
            let at = if mistakes.touches(&admin_path) { &health_path } else { &admin_path };
            mistakes.note(at, "health and admin listen on the same port", Some("give them different ports".to_owned()));
        }
    }
    (health.map(|listen| HealthConfig { listen }), admin.map(|listen| AdminConfig { listen }))
}

/// The default of admin's listen address: the port after that of the probes, so that several processes on one machine need only
/// different probe ports.
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
        mistakes.note(path, "is not an IP address with a port", hint(path));
    }
    address
}

/// The settings of the process.
pub fn worker(raw: Option<RawWorker>, host_name: &str, mistakes: &mut Mistakes) -> WorkerConfig {
    let raw = raw.unwrap_or_default();
    let at = Path::of("worker");
    let instance = raw.instance.unwrap_or_else(|| host_name.to_owned());
    let path = at.key("instance");
    if !is_instance_name(&instance) {
        mistakes.note(&path, "is not a valid worker name: 1 to 120 letters, digits, `.`, `_` or `-`", hint(&path));
    }

    let path = at.key("roles");
    let mut roles = Vec::new();
    match raw.roles {
        None => roles = Role::ALL.to_vec(),
        Some(items) => {
            if items.0.is_empty() {
                mistakes.note(&path, "has no role", hint(&path));
            }
            for (i, item) in items.0.iter().enumerate() {
                let known = Role::ALL.map(|role| (role.as_str(), role));
                let path = path.index(i);
                match &item.0 {
                    Err(kind) => mistakes.note(&path, format!("is {kind}, not a string"), hint(&path)),
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
        mistakes.note(&path, "is empty", hint(&path));
    }
    let hour = Duration::from_secs(60 * 60);
    let drain = raw.drain.and_then(|span| duration_in(span, Duration::ZERO..=hour, &at.key("drain"), mistakes));
    WorkerConfig { instance, roles, state_dir: raw.state_dir.map(PathBuf::from), drain: drain.unwrap_or(DEFAULT_DRAIN) }
}

/// The schema registry; `None` if not configured.
pub fn schema_registry(raw: Option<RawRegistry>, mistakes: &mut Mistakes) -> Option<RegistryConfig> {
    let raw = raw?;
    let at = Path::of("schema_registry");
    let (url_path, username_path, password_path) = (at.key("url"), at.key("username"), at.key("password"));
    match raw.url.as_deref() {
        None => note_missing(&url_path, mistakes),
        Some(url) => {
            if let Err((what, remedy)) = check_url(url) {
                mistakes.note(&url_path, what, remedy.map(str::to_owned).or_else(|| hint(&url_path)));
            } else if url.split("://").nth(1).is_some_and(|rest| rest.split('/').next().is_some_and(|host| host.contains('@'))) {
                let remedy = "set username and password as separate keys";
                mistakes.note(&url_path, "contains a user name or password", Some(remedy.to_owned()));
            } else if url.contains(['?', '#']) {
                mistakes.note(&url_path, "has text after its path", hint(&url_path));
            }
        }
    }
    let credentials = match (raw.username, raw.password) {
        (None, None) => None,
        (Some(username), Some(password)) => {
            if username.contains(':') {
                mistakes.note(&username_path, "contains a colon, which basic authentication does not allow", None);
            }
            Some(RegistryCredentials { username, password })
        }
        (Some(_), None) => {
            mistakes.note_missing(&password_path, "required with username: password = \"${REGISTRY_PASSWORD}\"");
            None
        }
        (None, Some(_)) => {
            mistakes.note_missing(&username_path, "required with password");
            None
        }
    };
    Some(RegistryConfig { url: raw.url?, credentials })
}

/// Thresholds of the alert rules.
pub fn alerts(raw: Option<RawAlerts>, mistakes: &mut Mistakes) -> AlertsConfig {
    let (raw, default) = (raw.unwrap_or_default(), AlertsConfig::default());
    let at = Path::of("alerts");
    let (tenth, hour) = (Duration::from_millis(100), Duration::from_secs(60 * 60));
    let hold = raw.r#for.and_then(|span| duration_in(span, Duration::ZERO..=hour * 24, &at.key("for"), mistakes));
    let lateness = raw.lateness.and_then(|span| duration_in(span, tenth..=hour / 2, &at.key("lateness"), mistakes));
    let offset = raw.clock_offset.and_then(|span| duration_in(span, tenth..=hour, &at.key("clock_offset"), mistakes));
    if let Some(runbook) = raw.runbook.as_deref().filter(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
        let what = if runbook.is_empty() { "is empty" } else { "is not an http or https URL" };
        mistakes.note(&at.key("runbook"), what, hint(&at.key("runbook")));
    }
    AlertsConfig {
        hold: hold.unwrap_or(default.hold),
        lateness,
        clock_offset: offset.unwrap_or(default.clock_offset),
        runbook: raw.runbook,
    }
}
