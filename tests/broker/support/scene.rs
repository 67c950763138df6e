//! One test's ladder: unique names, a source topic, a configuration file.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::broker;
use super::checker::{Hops, Observed, Shape};
use super::clock;
use super::handler::Handler;
use super::port::free_port;
use super::process::{self, Finished};
use super::raw;

/// All values of the configuration; fields are changed before [`Scene::write`].
pub struct Scene {
    pub ladder: String,
    pub source: String,
    pub group: String,
    pub brokers: String,
    /// The listener that the tests themselves use: the same cluster without authentication.
    pub cluster: String,
    pub tiers: Vec<&'static str>,
    pub handler: String,
    pub max_in_flight: usize,
    pub max_unsettled: usize,
    /// More lines of `[ladder.NAME.handler]`.
    pub handler_settings: &'static str,
    pub timeout: &'static str,
    pub drain: &'static str,
    /// The lines of `[ladder.NAME.breaker]`: most plans have more failures than a breaker
    /// tolerates.
    pub breaker: &'static str,
    /// Those of `[ladder.NAME.dlq_breaker]`, for the same reason.
    pub dlq_breaker: &'static str,
    /// Further lines of `[kafka]`.
    pub kafka: String,
    /// Further lines of `[ladder.NAME]`, such as `start`.
    pub settings: String,
    /// The application consumes by itself: there is no handler.
    pub relay: bool,
    health: u16,
    /// The port of the admin interface.
    pub admin: u16,
    folder: TempDir,
}

impl Scene {
    /// Names and a directory; the source topic does not exist yet.
    pub fn new(theme: &str, tiers: &[&'static str]) -> Self {
        Self::on(broker::brokers(), theme, tiers)
    }

    /// The same on a named cluster.
    pub fn on(cluster: &str, theme: &str, tiers: &[&'static str]) -> Self {
        let name = broker::unique(theme);
        Self {
            source: format!("{name}.orders"),
            group: format!("{name}.billing"),
            ladder: name,
            brokers: cluster.to_owned(),
            cluster: cluster.to_owned(),
            tiers: tiers.to_vec(),
            handler: "http://127.0.0.1:9/nobody".to_owned(),
            max_in_flight: 64,
            max_unsettled: 500,
            handler_settings: "",
            timeout: "10s",
            drain: "10s",
            breaker: "enabled = false",
            dlq_breaker: "enabled = false",
            kafka: String::new(),
            settings: "start = \"earliest\"".to_owned(),
            relay: false,
            health: free_port(),
            admin: free_port(),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// The same in relay mode, with its source topic.
    pub fn of_relay(theme: &str, tiers: &[&'static str], partitions: i32) -> Self {
        let mut scene = Self::with_source(theme, tiers, partitions);
        scene.relay = true;
        "mode = \"relay\"".clone_into(&mut scene.settings);
        scene
    }

    /// With its source topic.
    pub fn with_source(theme: &str, tiers: &[&'static str], partitions: i32) -> Self {
        let scene = Self::new(theme, tiers);
        broker::create_topic(&scene.source, partitions, &[]);
        scene
    }

    /// Requests at-least-once hops, where they are not the default.
    pub fn ask_for(&mut self, hops: Hops) {
        if hops == Hops::AtLeastOnce {
            self.settings.push_str("\nhops = \"at-least-once\"");
        }
    }

    pub fn toml(&self) -> String {
        self.toml_of("worker-1", self.health, self.admin)
    }

    fn toml_of(&self, instance: &str, health: u16, admin: u16) -> String {
        let tiers: Vec<String> = self.tiers.iter().map(|tier| format!("{tier:?}")).collect();
        let handler = if self.relay {
            String::new()
        } else {
            format!(
                "[ladder.{0}.handler]\nurl = \"{1}\"\ntimeout = \"{2}\"\nmax_in_flight = {3}\n\
                 max_unsettled = {4}\n{5}\n\n[ladder.{0}.breaker]\n{6}\n",
                self.ladder,
                self.handler,
                self.timeout,
                self.max_in_flight,
                self.max_unsettled,
                self.handler_settings,
                self.breaker
            )
        };
        format!(
            r#"[kafka]
bootstrap.servers = "{brokers}"
{kafka}

[health]
listen = "127.0.0.1:{health}"

[admin]
listen = "127.0.0.1:{admin}"

[worker]
instance = "{instance}"
drain = "{drain}"
state_dir = "{state_dir}"

[ladder.{ladder}]
sources = ["{source}"]
group = "{group}"
tiers = [{tiers}]
{settings}

[ladder.{ladder}.dlq_breaker]
{dlq_breaker}

{handler}"#,
            dlq_breaker = self.dlq_breaker,
            state_dir = self.folder.path().join("state").display(),
            brokers = self.brokers,
            kafka = self.kafka,
            drain = self.drain,
            ladder = self.ladder,
            source = self.source,
            group = self.group,
            tiers = tiers.join(", "),
            settings = self.settings,
        )
    }

    pub fn write(&self) -> PathBuf {
        self.write_text(&self.toml())
    }

    pub fn write_text(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("kladder.toml");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A configuration file for another worker of the same ladder, and its health port.
    pub fn write_worker(&self, instance: &str) -> (PathBuf, u16) {
        self.write_worker_as(instance, instance)
    }

    /// The same in a file whose name is not the worker's.
    pub fn write_worker_as(&self, instance: &str, file: &str) -> (PathBuf, u16) {
        let path = self.folder.path().join(format!("{file}.toml"));
        let health = free_port();
        std::fs::write(&path, self.toml_of(instance, health, free_port())).expect("a file");
        (path, health)
    }

    /// Writes the file, applies it with `setup`, and returns its path.
    pub fn set_up(&self) -> PathBuf {
        let config = self.write();
        process::kladder(&["setup", "-c", path(&config), "--yes"]).succeeds();
        config
    }

    pub fn setup(&self) -> Finished {
        let config = self.write();
        process::kladder(&["setup", "-c", path(&config), "--yes"])
    }

    pub fn tier_topic(&self, tier: &str) -> String {
        format!("{}.retry-{tier}", self.ladder)
    }

    pub fn redeliver_topic(&self) -> String {
        format!("{}.redeliver", self.ladder)
    }

    pub fn inbox_topic(&self) -> String {
        format!("{}.inbox", self.ladder)
    }

    pub fn dlq_topic(&self) -> String {
        format!("{}.dlq", self.ladder)
    }

    pub fn mover_group(&self) -> String {
        format!("{}.mover", self.ladder)
    }

    /// The ladder as known to the checker.
    pub fn shape(&self) -> Shape {
        Shape {
            ladder: self.ladder.clone(),
            delays: self.tiers.iter().map(|tier| humantime::parse_duration(tier).expect("a delay")).collect(),
            attempts: u32::try_from(self.tiers.len()).expect("few tiers") + 1,
        }
    }

    /// Everything to check, read from the topics and the handler now.
    pub fn observe(&self, handler: &Handler) -> Observed {
        Observed {
            source: raw::read_topic(&self.cluster, &self.source),
            tiers: self.tiers.iter().map(|tier| raw::read_topic(&self.cluster, &self.tier_topic(tier))).collect(),
            redeliver: raw::read_topic(&self.cluster, &self.redeliver_topic()),
            dlq: raw::read_topic(&self.cluster, &self.dlq_topic()),
            calls: handler.calls(),
        }
    }

    /// The health port.
    pub fn health_port(&self) -> u16 {
        self.health
    }

    /// The response to an HTTP GET on the health port.
    pub fn get(&self, page: &str) -> Option<(u16, String)> {
        get(self.health, page)
    }

    /// The response to a request on the admin port.
    pub fn control(&self, method: &str, page: &str, body: &str) -> Option<(u16, String)> {
        self.control_with(method, page, "Host: localhost", body)
    }

    /// The same with given headers.
    pub fn control_with(&self, method: &str, page: &str, headers: &str, body: &str) -> Option<(u16, String)> {
        request(self.admin, &format!("{method} {page} HTTP/1.0\r\n{headers}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    /// A metric, summed over all series whose labels contain the given text; `None` if there is none.
    pub fn metric(&self, name: &str, label: &str) -> Option<f64> {
        sum_metric(&self.get("/metrics")?.1, name, label)
    }

    /// Waits until the process reports that its workers have started.
    pub fn await_ready(&self) {
        clock::eventually("/readyz answers 200", clock::PATIENCE, || matches!(self.get("/readyz"), Some((200, _))));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The files of a failed test are kept as evidence.
        if !std::thread::panicking() {
            broker::delete_topics_on(&self.cluster, &[&format!("{}.", self.ladder)]);
        }
    }
}

/// The response to an HTTP GET on a port of this machine.
pub fn get(port: u16, page: &str) -> Option<(u16, String)> {
    request(port, &format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
}

fn request(port: u16, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(clock::PATIENCE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// A metric of the worker with that health port; see [`Scene::metric`].
pub fn metric_at(port: u16, name: &str, label: &str) -> Option<f64> {
    sum_metric(&get(port, "/metrics")?.1, name, label)
}

pub fn sum_metric(page: &str, name: &str, label: &str) -> Option<f64> {
    let mut sum = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        if !rest.starts_with(['{', ' ']) {
            continue;
        }
        let Some((labels, value)) = rest.rsplit_once(' ') else { continue };
        if labels.contains(label) {
            sum = Some(sum.unwrap_or(0.0) + value.parse::<f64>().expect("a number"));
        }
    }
    sum
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
