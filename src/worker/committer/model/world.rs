//! One run: two members over the cluster in memory, in virtual time, with faults by the seed.
//!
//! Nothing is concurrent and yet everything interleaves: inside every call of a port its process may stand still, and then the
//! other member goes on until it is continued.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::core::chance::Chance;
use crate::core::ladder::{Hops, Ladder};
use crate::core::leader_clock::LocalTime;
use crate::kafka::clock::Clock;
use crate::kafka::error::ClientError;
use crate::telemetry::events::DelivererMetrics;
use crate::worker::committer::model::check::{Check, Invariant, Life, Plan, Violation};
use crate::worker::committer::model::cluster::Cluster;
use crate::worker::committer::model::member::Member;

/// What may go wrong. Each seed has some of them, each at a rate of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Crash,
    StandStill,
    Stop,
    Rebalance,
    Serve,
    Fetch,
    Committed,
    PlainCommitLost,
    PlainCommitLate,
    PlainCommitUnanswered,
    NoLiveGroup,
    Connect,
    Begin,
    Write,
    Settle,
    SendOffsets,
    CommitRefused,
    CommitUnknown,
    Abort,
}

const BEGINNING: LocalTime = LocalTime::from_micros(1_000_000_000_000);

const FAULTS: usize = Fault::Abort as usize + 1;

/// How long everything may take to drain once nothing goes wrong any more: longer than the longest pauses and all tiers.
const DRAIN: Duration = Duration::from_secs(600);

/// A process: one incarnation of a member.
pub(super) struct Process {
    pub(super) life: Life,
    /// It has crashed: whatever it still calls has no effect.
    pub(super) dead: Cell<bool>,
}

/// Where a member is.
enum Slot {
    Down {
        until: LocalTime,
    },
    Up(Box<Member>),
    /// Its step is under way.
    Busy,
}

/// One run.
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) chance: RefCell<Chance>,
    pub(super) cluster: RefCell<Cluster>,
    pub(super) ladder: Arc<Ladder>,
    pub(super) metrics: DelivererMetrics,
    pub(super) partitions: i32,
    rates: [u64; FAULTS],
    quiet: Cell<bool>,
    slots: [RefCell<Slot>; 2],
    incarnations: Cell<u64>,
    standing: Cell<bool>,
    traced: bool,
}

impl World {
    fn new(seed: u64, hops: Hops, traced: bool) -> Rc<Self> {
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
        let mut cluster = Cluster::new(ladder.clone(), partitions, check);
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
        // What any call may meet has to be rarer than what one call in many may.
        for often in [Fault::Crash, Fault::StandStill, Fault::Serve, Fault::Stop] {
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
            slots: [down(), down()],
            clock,
            chance: RefCell::new(chance),
            cluster: RefCell::new(cluster),
            metrics: DelivererMetrics::new(&ladder),
            ladder,
            partitions,
            rates,
            quiet: Cell::new(false),
            incarnations: Cell::new(0),
            standing: Cell::new(false),
            traced,
        })
    }

    /// Runs a seed and gives the first thing that did not hold.
    pub(super) fn run(seed: u64, hops: Hops, traced: bool) -> Result<(), Violation> {
        let world = Self::new(seed, hops, traced);
        // What goes wrong by the thousand here is nobody's news, whoever has installed a log.
        let outcome = tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || world.go());
        // The members hold the world.
        for slot in &world.slots {
            slot.replace(Slot::Busy);
        }
        outcome
    }

    fn go(self: &Rc<Self>) -> Result<(), Violation> {
        let steps = self.chance.borrow_mut().between(30, 200);
        for _ in 0..steps {
            let member = self.chance.borrow_mut().index(2);
            self.step(member);
            if self.strikes(Fault::Rebalance) {
                self.cluster.borrow_mut().group.rebalance(&mut self.chance.borrow_mut());
            }
            self.pass(1, 150);
            self.judge()?;
        }
        self.quiet.set(true);
        self.note(|| "from here on nothing goes wrong".to_owned());
        let deadline = self.clock.now().later(DRAIN);
        while !self.cluster.borrow().is_at_rest() {
            self.step(0);
            self.step(1);
            self.pass(20, 400);
            self.judge()?;
            if self.clock.now() > deadline {
                let cluster = self.cluster.borrow();
                let text = format!("unfinished: {:?}", cluster.check.unfinished(&cluster.group.committed));
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
                let process = Rc::new(Process { life: (index, self.incarnations.get()), dead: Cell::new(false) });
                self.note(|| format!("{:?} starts", process.life));
                self.cluster.borrow_mut().group.started(process.life, self.clock.now());
                Member::start(self, process)
            }
            Slot::Up(mut member) => member.step().map(|()| *member),
        };
        let slot = match member {
            Ok(member) => Slot::Up(Box::new(member)),
            Err(reason) => {
                self.note(|| format!("member {index} ends: {reason}"));
                if reason.needs_decision() {
                    self.cluster.borrow_mut().check.fail(Invariant::Liveness, format!("member {index}: {reason}"));
                }
                self.cluster.borrow_mut().group.members[index].alive = false;
                let long = self.chance.borrow_mut().below(4) == 0;
                let pause = self.chance.borrow_mut().between(50, if long { 20_000 } else { 2_000 });
                Slot::Down { until: self.clock.now().later(Duration::from_millis(pause)) }
            }
        };
        self.slots[index].replace(slot);
    }

    /// Every call of a port begins with this: it takes a moment, and the process may crash or stand still.
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

    /// A process stands still, and the other goes on. Stopped, it sends no heartbeats; waiting for an answer, it does.
    pub(super) fn stand_still(self: &Rc<Self>, process: &Process) {
        if self.standing.replace(true) {
            return;
        }
        let index = process.life.0;
        let stopped = self.chance.borrow_mut().coin();
        let pause = self.chance.borrow_mut().between(1, if stopped { 30_000 } else { 12_000 });
        self.note(|| format!("{:?} stands still for {pause} ms, stopped: {stopped}", process.life));
        self.cluster.borrow_mut().group.members[index].stopped = stopped;
        let until = self.clock.now().later(Duration::from_millis(pause));
        while self.clock.now() < until {
            self.step(1 - index);
            self.pass(1, 700);
        }
        self.note(|| format!("{:?} is continued", process.life));
        self.cluster.borrow_mut().group.members[index].stopped = false;
        self.standing.set(false);
    }

    /// Whether this goes wrong now.
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

    /// Tells what happens, when a seed is run alone.
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
