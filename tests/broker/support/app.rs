//! The application of a relay ladder: `relay_app.py` as a process, and its report of its deliveries.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::broker;
use super::checker::{Observed, Shape};
use super::clock::{self, PATIENCE};
use super::handler::Call;
use super::independent;
use super::raw;
use super::scene::Scene;

/// A third never fails, the others fail once, twice or always.
pub const FAIL: [i32; 6] = [0, 1, 0, 2, -1, 1];

/// How often a record fails by that plan.
pub fn failures(number: usize) -> u32 {
    u32::try_from(FAIL[number % FAIL.len()]).unwrap_or(u32::MAX)
}

/// The deliveries that this many records need by that plan, and the number of dead ones.
pub fn planned(shape: &Shape, records: usize) -> (usize, usize) {
    let calls = (0..records).map(|n| usize::try_from(shape.calls(failures(n))).expect("a small number")).sum();
    (calls, (0..records).filter(|n| failures(*n) >= shape.attempts).count())
}

/// How the application copies failed records; see `relay_app.py`.
#[derive(Debug, Clone, Copy)]
pub enum Copy {
    Introduce,
    Append,
    Nothing,
}

/// One delivery, as reported by the application.
#[derive(Debug, Clone)]
pub struct Told {
    call: Call,
}

/// The application as a process; stopped when dropped.
pub struct App {
    child: Child,
    told: PathBuf,
    errors: PathBuf,
    _folder: TempDir,
}

impl App {
    /// Consumes the source, and the redeliver topic if there is one. Record N fails `fail[N % len]` times, -1 means always.
    pub fn start(scene: &Scene, fail: &[i32], copy: Copy, origin: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (told, errors) = (folder.path().join("told"), folder.path().join("errors"));
        let mut topics = vec![scene.source.clone()];
        if !origin {
            topics.push(scene.redeliver_topic());
        }
        let settings = json!({
            "brokers": scene.cluster,
            "group": scene.group,
            "sources": [scene.source],
            "topics": topics,
            "inbox": scene.inbox_topic(),
            "ladder": scene.ladder,
            "fail": fail,
            "copy": format!("{copy:?}").to_lowercase(),
        });
        let child = Command::new(independent::python())
            .arg(broker::in_house("tests/broker/relay_app.py"))
            .arg(settings.to_string())
            .stdin(Stdio::null())
            .stdout(File::create(&told).expect("a file"))
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("Python can be run; scripts/install test makes it");
        Self { child, told, errors, _folder: folder }
    }

    /// All its deliveries so far.
    pub fn told(&self) -> Vec<Told> {
        let text = std::fs::read_to_string(&self.told).expect("a file");
        // The last line may be incomplete.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| Told::of(&serde_json::from_str(line).expect("JSON"))).collect()
    }

    /// The same as handler calls for the checker.
    pub fn calls(&self) -> Vec<Call> {
        self.told().into_iter().map(|told| told.call).collect()
    }

    /// All topics of the ladder, and the application's deliveries in place of the handler's.
    pub fn observe(&self, scene: &Scene) -> Observed {
        let read = |topic: &str| raw::read_topic(&scene.cluster, topic);
        Observed {
            source: read(&scene.source),
            tiers: scene.tiers.iter().map(|tier| read(&scene.tier_topic(tier))).collect(),
            redeliver: read(&scene.redeliver_topic()),
            dlq: read(&scene.dlq_topic()),
            calls: self.calls(),
        }
    }

    /// Stops it gracefully and returns its deliveries.
    pub fn end(mut self) -> Vec<Told> {
        self.assert_running();
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill can be run");
        assert!(sent.success());
        let ended = clock::poll(PATIENCE, || self.child.try_wait().expect("a child"));
        assert!(ended.is_some_and(|status| status.success()), "{}", self.errors());
        self.told()
    }

    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "the application has ended ({ended:?}): {}", self.errors());
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Waits until it has had this many deliveries.
    pub fn await_deliveries(&mut self, count: usize, within: Duration) {
        clock::eventually(&format!("the application has had {count} deliveries"), within, || {
            self.assert_running();
            self.told().len() >= count
        });
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Told {
    /// The record's value.
    pub fn body(&self) -> &[u8] {
        &self.call.body
    }

    fn of(told: &Value) -> Self {
        let text = |name: &str| told[name].as_str().map(str::to_owned);
        let number = |name: &str| told[name].as_u64().and_then(|n| u32::try_from(n).ok()).expect("a number");
        let value = text("value").map(|v| base64::engine::general_purpose::STANDARD.decode(v).expect("base64"));
        let mut headers = HeaderMap::new();
        let place = (text("origin-topic"), text("origin-partition"), text("origin-offset"));
        // The application has no idempotency key; the checker needs one that is the same for all deliveries of a
        // record.
        let key = format!("\"{}\"", [&place.0, &place.1, &place.2].map(|part| part.as_deref().unwrap_or("?")).join("/"));
        headers.insert("idempotency-key", key.parse().expect("a value"));
        if value.is_none() {
            headers.insert("kladder-value", "null".parse().expect("a value"));
        }
        let call = Call {
            method: Method::POST,
            headers,
            body: Bytes::from(value.unwrap_or_default()),
            topic: place.0.unwrap_or_default(),
            partition: place.1.and_then(|p| p.parse().ok()).unwrap_or(-1),
            offset: place.2.and_then(|o| o.parse().ok()).unwrap_or(-1),
            attempt: number("attempt"),
        };
        Self { call }
    }
}
