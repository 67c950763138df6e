//! One run: two deliverers and two movers on the cluster in memory, in virtual time, with faults determined by
//! the seed.
//!
//! Nothing runs concurrently, and yet everything interleaves: within any call of a port the process may be suspended, and then
//! the others run until it is resumed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::core::chance::Chance;
use crate::core::ladder::{Hops, Ladder};
use crate::core::leader_clock::LocalTime;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::kafka::partition::TopicPartition;
use crate::telemetry::events::{DelivererMetrics, MoverMetrics};
use crate::worker::model::check::{Check, Invariant, Life, Plan, Violation};
use crate::worker::model::cluster::{Cluster, PROCESSES, REDELIVER};
use crate::worker::model::member::Member;
use crate::worker::model::planted::Bug;

/// Possible faults. Each seed has some of them, each at its own rate.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Crash,
    StandStill,
    Stop,
    Rebalance,
    Serve,
    Fetch,
    GoBack,
    Committed,
    PlainCommitLost,
    PlainCommitLate,
    PlainCommitUnanswered,
    NoLiveGroup,
    Connect,
    Begin,
    Write,
    /// A record takes long to be handed over.
    Slow,
    /// A record has so many headers that processing them takes long.
    HeaderFlood,
    /// A partition has no leader for a while.
    Leaderless,
    Settle,
    SendOffsets,
    CommitRefused,
    CommitUnknown,
    Abort,
}

const BEGINNING: LocalTime = LocalTime::from_micros(1_000_000_000_000);

const FAULTS: usize = Fault::Abort as usize + 1;

/// Time limit for draining after the last fault: longer than the longest pauses and all tiers.
const DRAIN: Duration = Duration::from_secs(600);

/// A process: one incarnation of a member.
pub(super) struct Process {
    pub(super) life: Life,
    /// The positions of its queues after they went back.
    pub(super) positions: RefCell<BTreeMap<TopicPartition, i64>>,
    /// Whether it has crashed: its further calls have no effect.
    pub(super) dead: Cell<bool>,
}

/// The state of a member.
enum Slot {
    Down {
        until: LocalTime,
    },
    Up(Box<Member>),
    /// Its step is running.
    Busy,
}

/// One run.
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) chance: RefCell<Chance>,
    pub(super) cluster: RefCell<Cluster>,
    pub(super) ladder: Arc<Ladder>,
    pub(super) metrics: DelivererMetrics,
    pub(super) mover_metrics: MoverMetrics,
    pub(super) partitions: i32,
    rates: [u64; FAULTS],
    /// The planted bug.
    bug: Option<Bug>,
    quiet: Cell<bool>,
    slots: [RefCell<Slot>; PROCESSES],
    incarnations: Cell<u64>,
    standing: Cell<bool>,
    traced: bool,
}

impl World {
    fn new(seed: u64, hops: Hops, bug: Option<Bug>, traced: bool) -> Rc<Self> {
        let mut chance = Chance::new(seed);
        let tiers = ["1s", "3s", "10s"];
        let count = 2 + chance.index(2);
        let attempts = u32::try_from(count + chance.index(3)).unwrap_or(2);
        let ladder = Ladder::builder("model", "group").source("source").tiers(tiers.into_iter().take(count)).attempts(attempts);
        let ladder = Arc::new(ladder.hops(hops).build().expect("a ladder"));
        let records = 4 + chance.index(9);
        let plans = (0..records).map(|_| plan(&mut chance, attempts)).collect();
        let partitions = 2 + i32::from(chance.coin());
        let clock = Clock::manual(BEGINNING);
        let check = Check::new(ladder.clone(), hops == Hops::ExactlyOnce, plans);
        let mut cluster = Cluster::new(ladder.clone(), partitions, check, clock.now());
        for record in 0..records {
            let partition = i32::try_from(chance.below(u64::from(partitions.unsigned_abs()))).unwrap_or(0);
            for _ in 0..chance.below(3) {
                cluster.produce(partition, None, clock.now());
            }
            cluster.produce(partition, Some(record), clock.now());
        }
        let mut rates = [0; FAULTS];
        for rate in &mut rates {
            *rate = [0, 0, 3, 15, 60][chance.index(5)];
        }
        // Faults that any call may have must be rarer than those of a few calls.
        for often in
            [Fault::Crash, Fault::StandStill, Fault::Serve, Fault::Stop, Fault::Slow, Fault::HeaderFlood, Fault::Leaderless]
        {
            rates[often as usize] /= 3;
        }
        let plainly = [Fault::PlainCommitLost, Fault::PlainCommitLate, Fault::PlainCommitUnanswered];
        let rarely =
            [Fault::Committed, Fault::Settle, Fault::SendOffsets, Fault::CommitRefused, Fault::CommitUnknown, Fault::Abort];
        for rare in plainly.into_iter().chain(rarely) {
            rates[rare as usize] *= 5;
        }
        let down = || RefCell::new(Slot::Down { until: clock.now() });
        Rc::new(Self {
            slots: std::array::from_fn(|_| down()),
            clock,
            chance: RefCell::new(chance),
            cluster: RefCell::new(cluster),
            metrics: DelivererMetrics::new(&ladder),
            mover_metrics: MoverMetrics::new(&ladder),
            ladder,
            partitions,
            rates,
            bug,
            quiet: Cell::new(false),
            incarnations: Cell::new(0),
            standing: Cell::new(false),
            traced,
        })
    }

    /// Runs a seed and returns the first violation.
    pub(super) fn run(seed: u64, hops: Hops, bug: Option<Bug>, traced: bool) -> Result<(), Violation> {
        let world = Self::new(seed, hops, bug, traced);
        // Thousands of simulated failures must not appear in a log installed by the test.
        let outcome = tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || world.go());
        // The members keep the world alive.
        for slot in &world.slots {
            slot.replace(Slot::Busy);
        }
        outcome
    }

    /// A world without faults, whose members a test starts by itself.
    pub(super) fn calm(seed: u64, hops: Hops) -> Rc<Self> {
        let world = Self::new(seed, hops, None, false);
        world.quiet.set(true);
        world
    }

    fn go(self: &Rc<Self>) -> Result<(), Violation> {
        let steps = self.chance.borrow_mut().between(30, 200);
        for _ in 0..steps {
            let member = self.chance.borrow_mut().index(PROCESSES);
            self.step(member);
            if self.strikes(Fault::Rebalance) {
                let mut chance = self.chance.borrow_mut();
                self.cluster.borrow_mut().any_group(&mut chance).rebalance(&mut chance);
            }
            if self.strikes(Fault::Leaderless) {
                self.lose_leader();
            }
            self.pass(1, 150);
            self.judge()?;
        }
        self.quiet.set(true);
        self.note(|| "from here on nothing goes wrong".to_owned());
        let deadline = self.clock.now().later(DRAIN);
        while !self.cluster.borrow().is_at_rest() {
            (0..PROCESSES).for_each(|process| self.step(process));
            self.pass(20, 400);
            self.judge()?;
            if self.clock.now() > deadline {
                let cluster = self.cluster.borrow();
                let text = format!("unfinished: {:?}", cluster.check.unfinished(&cluster.all_committed()));
                return Err(Violation { invariant: Invariant::Liveness, text });
            }
        }
        self.cluster.borrow_mut().check.at_rest();
        self.judge()
    }

    fn judge(&self) -> Result<(), Violation> {
        self.cluster.borrow().check.violation().map_or(Ok(()), |violation| Err(violation.clone()))
    }

    fn step(self: &Rc<Self>, index: usize) {
        let slot = self.slots[index].replace(Slot::Busy);
        let member = match slot {
            Slot::Busy => return,
            Slot::Down { until } if until > self.clock.now() => {
                self.slots[index].replace(Slot::Down { until });
                return;
            }
            Slot::Down { .. } => {
                self.incarnations.set(self.incarnations.get() + 1);
                let life = (index, self.incarnations.get());
                let process = Rc::new(Process { life, positions: RefCell::default(), dead: Cell::new(false) });
                self.note(|| format!("{life:?} starts"));
                self.cluster.borrow_mut().group(life).started(life, self.clock.now());
                Member::start(self, process)
            }
            Slot::Up(mut member) => member.step(self).map(|()| *member),
        };
        let slot = match member {
            Ok(member) => Slot::Up(Box::new(member)),
            Err(reason) => {
                self.note(|| format!("member {index} ends: {reason}"));
                if reason.needs_decision() {
                    self.cluster.borrow_mut().check.fail(Invariant::Liveness, format!("member {index}: {reason}"));
                }
                self.cluster.borrow_mut().group((index, 0)).member((index, 0)).alive = false;
                let long = self.chance.borrow_mut().below(4) == 0;
                let pause = self.chance.borrow_mut().between(50, if long { 20_000 } else { 2_000 });
                Slot::Down { until: self.clock.now().later(Duration::from_millis(pause)) }
            }
        };
        self.slots[index].replace(slot);
    }

    /// Every call of a port begins with this: time passes, and the process may crash or be suspended.
    pub(super) fn enter(self: &Rc<Self>, process: &Process) -> Result<(), ClientError> {
        if !process.dead.get() {
            self.pass(0, 3);
            if self.strikes(Fault::Crash) {
                self.note(|| format!("{:?} crashes", process.life));
                process.dead.set(true);
            } else if self.strikes(Fault::StandStill) {
                self.stand_still(process);
            }
        }
        if process.dead.get() { Err(ClientError::fatal()) } else { Ok(()) }
    }

    /// A process is suspended, and the others run. Stopped, it sends no heartbeats; waiting for an answer, it does.
    pub(super) fn stand_still(self: &Rc<Self>, process: &Process) {
        if self.standing.replace(true) {
            return;
        }
        let life = process.life;
        let stopped = self.chance.borrow_mut().coin();
        let pause = self.chance.borrow_mut().between(1, if stopped { 30_000 } else { 12_000 });
        self.note(|| format!("{:?} stands still for {pause} ms, stopped: {stopped}", process.life));
        self.cluster.borrow_mut().group(life).member(life).stopped = stopped;
        let until = self.clock.now().later(Duration::from_millis(pause));
        while self.clock.now() < until {
            let other = 1 + self.chance.borrow_mut().index(PROCESSES - 1);
            self.step((life.0 + other) % PROCESSES);
            self.pass(1, 400);
        }
        self.note(|| format!("{:?} is continued", process.life));
        self.cluster.borrow_mut().group(life).member(life).stopped = false;
        self.standing.set(false);
    }

    /// Whether this bug is planted in this process.
    pub(super) fn has(&self, bug: Bug, life: Life) -> bool {
        self.bug == Some(bug) && bug.is_of_movers() == (life.0 >= PROCESSES / 2)
    }

    /// A partition loses its leader for a while.
    fn lose_leader(&self) {
        let (topics, seconds) = (self.cluster.borrow().state(), self.chance.borrow_mut().between(1, 40));
        let topic = REDELIVER + self.chance.borrow_mut().index(topics - REDELIVER);
        let partition = i32::try_from(self.chance.borrow_mut().below(u64::from(self.partitions.unsigned_abs()))).unwrap_or(0);
        self.note(|| format!("{topic}/{partition} is without leader for {seconds} s"));
        let until = self.clock.now().later(Duration::from_secs(seconds));
        self.cluster.borrow_mut().lose_leader((topic, partition), until);
    }

    /// Whether this fault happens now.
    pub(super) fn strikes(&self, fault: Fault) -> bool {
        !self.quiet.get() && self.chance.borrow_mut().per_mille(self.rates[fault as usize])
    }

    fn pass(&self, least: u64, most: u64) {
        let millis = self.chance.borrow_mut().between(least, most);
        self.advance(millis);
    }

    /// Time passes.
    pub(super) fn advance(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
        self.cluster.borrow_mut().tick(self.clock.now(), &mut self.chance.borrow_mut());
    }

    /// Prints an event, if a seed is run alone.
    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.traced {
            println!("{:>10.1?}  {}", self.clock.now().since(BEGINNING), text());
        }
    }
}

fn plan(chance: &mut Chance, attempts: u32) -> Plan {
    let fails = u32::try_from(chance.below(u64::from(attempts) + 1)).unwrap_or(0);
    let rejects = fails > 0 && fails < attempts && chance.below(5) == 0;
    let after = (chance.below(6) == 0).then(|| Duration::from_millis(chance.between(100, 15_000)));
    Plan { fails, rejects, after }
}
