//! A real Prometheus and a real Alertmanager for one test: each on a free port, with its data in a directory that is deleted
//! with it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::clock::{self, PATIENCE};
use super::port::free_port;
use super::scene::{get, path};

/// A server, killed when dropped.
struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    /// Starts it and waits until it answers.
    fn start(program: &str, port: u16, folder: TempDir, arguments: &[String]) -> Self {
        let log = File::create(folder.path().join("log")).expect("a file");
        let child = Command::new(program)
            .args(arguments)
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be run ({error}); scripts/install test makes it"));
        let server = Self { child, port, folder };
        clock::eventually(program, PATIENCE, || matches!(get(server.port, "/-/ready"), Some((200, _))));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}

/// An Alertmanager that sends everything to one webhook at once.
pub struct Alertmanager(Server);

impl Alertmanager {
    pub fn start(webhook: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "route: {{receiver: hook, group_wait: 1s, group_interval: 1s}}\nreceivers: [{{name: hook, webhook_configs: [{{url: '{webhook}'}}]}}]\n"
        );
        fs::write(folder.path().join("alertmanager.yml"), config).expect("a file");
        let arguments = ["--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address="];
        Self(Server::start("prometheus-alertmanager", free_port(), folder, &arguments.map(str::to_owned)))
    }
}

/// A Prometheus that scrapes one target every second.
pub struct Prometheus(Server);

impl Prometheus {
    pub fn start(target: u16) -> Self {
        Self::start_with(target, None)
    }

    /// With rules, whose alerts go to an Alertmanager.
    pub fn alerting(target: u16, rules: &Path, alertmanager: &Alertmanager) -> Self {
        Self::start_with(target, Some((rules, alertmanager.0.port)))
    }

    fn start_with(target: u16, alerts: Option<(&Path, u16)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let alerting = alerts.map_or_else(String::new, |(rules, port)| {
            let to = format!("alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]}}");
            format!("rule_files: ['{}']\n{to}\n", path(rules))
        });
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             scrape_configs: [{{job_name: kladder, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n{alerting}"
        );
        fs::write(folder.path().join("prometheus.yml"), config).expect("a file");
        let arguments = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"];
        Self(Server::start("prometheus", free_port(), folder, &arguments.map(str::to_owned)))
    }

    fn ask(&self, api: &str, query: &str) -> Vec<Value> {
        let page = format!("/api/v1/{api}query={}", encoded(query));
        let (status, body) = get(self.0.port, &page).expect("Prometheus answers");
        assert_eq!(status, 200, "{query}: {body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        answer["data"]["result"].as_array().expect("a vector or a matrix").clone()
    }

    /// The current values of a query, by one label of each series (`""` where it is missing).
    pub fn by(&self, label: &str, query: &str) -> BTreeMap<String, f64> {
        let series = self.ask("query?", query);
        series.iter().map(|one| (text(&one["metric"][label]), number(&one["value"]))).collect()
    }

    /// The single current value of a query, if there is one.
    pub fn value(&self, query: &str) -> Option<f64> {
        let series = self.ask("query?", query);
        assert!(series.len() <= 1, "{query} gives several series: {series:?}");
        series.first().map(|one| number(&one["value"]))
    }

    /// All current values of a query.
    pub fn numbers_now(&self, query: &str) -> Vec<f64> {
        self.ask("query?", query).iter().map(|one| number(&one["value"])).filter(|value| !value.is_nan()).collect()
    }

    /// All values of a query within the last minutes.
    pub fn numbers(&self, query: &str) -> Vec<f64> {
        let now = clock::epoch_millis() / 1000;
        let series = self.ask(&format!("query_range?start={}&end={now}&step=2&", now - 300), query);
        let samples = series.iter().flat_map(|one| one["values"].as_array().cloned().unwrap_or_default());
        samples.map(|sample| number(&sample)).filter(|value| !value.is_nan()).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The value of a sample: a time and a text.
fn number(sample: &Value) -> f64 {
    sample[1].as_str().and_then(|text| text.parse().ok()).expect("a sample")
}

fn encoded(query: &str) -> String {
    query
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
