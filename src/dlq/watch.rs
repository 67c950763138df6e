//! Keeps the indexes of a process up to date while it runs, and exports counts as metrics.
//!
//! One thread and one client read the dead-letter topics and state topics of all ladders. A command run on the same machine uses the
//! same index file, and finds most of its work done. If the state directory cannot be written, there is no index and there are no
//! such metrics, which is logged once; nothing else depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::dead_letter::{Job, Verb};
use crate::core::leader_clock::LocalTime;
use crate::core::time::Timestamp;
use crate::dlq::feed::{FeedError, keep, tail_of, taken};
use crate::dlq::index::{Index, IndexError, Sizes, Taken};
use crate::dlq::queue::Queue;
use crate::kafka::admin::KafkaCluster;
use crate::kafka::clock::Clock;
use crate::kafka::tail::{ASK_WITHIN, Ends, TopicTail};
use crate::telemetry::standing::{DlqMetrics, IndexMetrics, RedriveMetrics};

/// Maximum wait for the next record.
const TICK: Duration = Duration::from_millis(500);

/// Interval of counting, and of checking retention and its setting.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Interval of checking whether the thread has ended, after it was told to.
const END_LOOK: Duration = Duration::from_millis(50);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Updates indexes until it is dropped.
pub struct IndexWatch {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl IndexWatch {
    /// Starts the thread. Several queues may belong to one ladder.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn start(kafka: &KafkaConfig, queues: Vec<Kept>, state_dir: PathBuf) -> std::io::Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let watching = Watching { kafka: kafka.clone(), queues, state_dir, end: end.clone(), clock: Clock::system() };
        let thread = std::thread::Builder::new().name("index".to_owned()).spawn(move || watching.run())?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for IndexWatch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        // It may be waiting for brokers that do not answer, and needs no orderly end: unwritten records are read again.
        let Some(thread) = self.thread.take() else { return };
        for _ in 0..20 {
            if thread.is_finished() {
                return;
            }
            std::thread::sleep(END_LOOK);
        }
    }
}

/// A queue of a ladder, and its retention.
pub struct Kept {
    /// The ladder.
    pub ladder: String,
    /// Its dead letters.
    pub queue: Queue,
    /// As configured; the brokers' setting takes precedence.
    pub retention: Duration,
}

struct Watching {
    kafka: KafkaConfig,
    queues: Vec<Kept>,
    state_dir: PathBuf,
    end: Arc<AtomicBool>,
    clock: Clock,
}

/// One queue and its state.
struct IndexedQueue {
    ladder: String,
    queue: Queue,
    index: Index,
    batch: Vec<Taken>,
    retention: Duration,
}

impl Watching {
    fn run(self) {
        let mut told = String::new();
        let failures = self.gauges(IndexMetrics::new);
        while !self.is_over() {
            let outcome = self.watch();
            let Err(error) = outcome else { return };
            failures.values().for_each(IndexMetrics::failed);
            // Once, not every five seconds.
            let text = error.to_string();
            if text != told {
                tracing::warn!(error = %text, "cannot index dead letters at the moment; nothing else depends on it");
                told = text;
            }
            let until = self.clock.now().later(RETRY);
            while !self.is_over() && self.clock.now() < until {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }

    fn watch(&self) -> Result<(), FeedError> {
        let cluster = KafkaCluster::connect(&self.kafka)?;
        let id = cluster.cluster_id();
        let mut all = Vec::new();
        for Kept { ladder, queue, retention } in &self.queues {
            let index = Index::open(&queue.index_path(&self.state_dir, &id), queue.park_after)?;
            index.be_small()?;
            let (ladder, queue, retention) = (ladder.clone(), queue.clone(), *retention);
            all.push(IndexedQueue { ladder, queue, index, batch: Vec::new(), retention });
        }
        let mut tail = self.open_tail(&cluster, &mut all)?;
        // Created when there is something to report: a gauge exports 0 from its creation on.
        let mut metrics: Option<(Gauges<DlqMetrics>, Gauges<RedriveMetrics>)> = None;
        let mut goal = Some(goal_of(&tail)?);
        let (mut count_at, mut prune_at) = (self.clock.now(), self.clock.now());
        while !self.is_over() {
            tail.poll(TICK, |tp, record| {
                for watched in &mut all {
                    watched.batch.extend(taken(&watched.queue, tp, record));
                }
            })?;
            let mut made_anew = false;
            for watched in &mut all {
                let batch = std::mem::take(&mut watched.batch);
                match watched.index.take(&batch, &keep(&tail, &watched.queue)) {
                    Ok(_) => {}
                    Err(IndexError::MadeAnew) => {
                        watched.index.clear()?;
                        made_anew = true;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let now = self.clock.now();
            if made_anew {
                tail = self.open_tail(&cluster, &mut all)?;
                goal = Some(goal_of(&tail)?);
            }
            if goal.as_ref().is_some_and(|goal| tail.has_reached(goal)) {
                goal = None;
            }
            if now >= prune_at {
                prune(&cluster, &mut all)?;
                prune_at = now.later(PRUNE_INTERVAL);
            }
            if now >= count_at && goal.is_none() {
                let (sizes, redrives) =
                    metrics.get_or_insert_with(|| (self.gauges(DlqMetrics::new), self.gauges(RedriveMetrics::new)));
                count(&all, sizes, now)?;
                count_redrives(&all, redrives, now.timestamp())?;
                count_at = now.later(COUNT_INTERVAL);
            }
        }
        Ok(())
    }

    fn gauges<T>(&self, make: impl Fn(&str) -> T) -> Gauges<T> {
        self.queues.iter().map(|kept| (kept.ladder.clone(), make(&kept.ladder))).collect()
    }

    fn open_tail(&self, cluster: &KafkaCluster, all: &mut [IndexedQueue]) -> Result<TopicTail, FeedError> {
        for watched in &mut *all {
            crate::dlq::feed::forget_what_was_made_anew(&mut watched.index, &watched.queue, cluster)?;
        }
        tail_of(&self.kafka, all.iter().map(|watched| (&watched.queue, &watched.index)))
    }
}

/// Metrics by ladder.
type Gauges<T> = BTreeMap<String, T>;

/// The current ends of all topics.
fn goal_of(tail: &TopicTail) -> Result<Ends, FeedError> {
    let topics: BTreeSet<String> = tail.partitions().into_iter().map(|tp| tp.topic.to_string()).collect();
    Ok(tail.ends(&topics.iter().map(String::as_str).collect::<Vec<_>>(), ASK_WITHIN)?)
}

fn prune(cluster: &KafkaCluster, all: &mut [IndexedQueue]) -> Result<(), FeedError> {
    for watched in all {
        // Without permission to read the setting, the configured value is used.
        watched.retention = cluster.retention(&watched.queue.topic).unwrap_or(watched.retention);
        for (partition, marks) in (0..).zip(cluster.bounds(&watched.queue.topic)?) {
            watched.index.forget_below(partition, marks.low)?;
        }
    }
    Ok(())
}

/// Running and waiting jobs, without abandoned ones.
fn count_redrives(all: &[IndexedQueue], metrics: &Gauges<RedriveMetrics>, now: Timestamp) -> Result<(), FeedError> {
    let mut running: BTreeMap<&str, BTreeMap<String, Job>> = BTreeMap::new();
    for watched in all {
        // Several queues of a ladder share one state topic, so that several indexes may contain the
        // same job.
        let jobs = running.entry(&watched.ladder).or_default();
        let is_running = |job: &Job| !job.status.is_over() && !job.is_left(now) && matches!(job.verb, Verb::Redrive | Verb::Edit);
        jobs.extend(watched.index.jobs()?.into_iter().filter(is_running).map(|job| (job.id.clone(), job)));
    }
    for (ladder, jobs) in running {
        let sent = jobs.values().map(|job| job.done).sum();
        let left = jobs.values().map(|job| job.total.saturating_sub(job.done + job.skipped)).sum();
        if let Some(metrics) = metrics.get(ladder) {
            metrics.running(jobs.len() as u64, sent, left);
        }
    }
    Ok(())
}

fn count(all: &[IndexedQueue], metrics: &Gauges<DlqMetrics>, now: LocalTime) -> Result<(), FeedError> {
    let now: Timestamp = now.timestamp();
    let mut totals: BTreeMap<&str, Sizes> = BTreeMap::new();
    for watched in all {
        let sizes = watched.index.sizes(now, watched.retention)?;
        let total = totals.entry(&watched.ladder).or_default();
        total.letters += sizes.letters;
        total.open += sizes.open;
        total.at_risk += sizes.at_risk;
        total.new_groups += sizes.new_groups;
        total.oldest_open = [total.oldest_open, sizes.oldest_open].into_iter().flatten().min();
    }
    for (ladder, sizes) in totals {
        if let Some(metrics) = metrics.get(ladder) {
            let oldest = sizes.oldest_open.map_or(Duration::ZERO, |oldest| now.since(oldest));
            metrics.sizes(sizes.letters, sizes.open, oldest, sizes.at_risk, sizes.new_groups);
        }
    }
    Ok(())
}
