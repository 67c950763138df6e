//! One run in virtual time: records arrive, are taken, delivered, fail, wait in their tier and come back, all determined
//! by the seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::core::chance::Chance;
use crate::core::dispatch::model::handler::Handler;
use crate::core::dispatch::model::mix::{Mix, Nature, Weather, ms, s};
use crate::core::dispatch::model::report::{RunReport, Way};
use crate::core::dispatch::{CallId, CallOutcome, Departure, Dispatch, Fair, Kind, Policy, Ticket, Trouble};
use crate::core::leader_clock::LocalTime;

const BEGINNING: LocalTime = LocalTime::from_micros(1_000_000_000_000);

/// A run that continues for longer than this after the last record is stuck.
const DRAIN: Duration = s(900);

/// More steps than this at one moment mean an endless loop.
const MOST_STEPS_AT_ONCE: usize = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A record of the mix arrives.
    Comes(usize),
    /// A record comes back from its tier.
    Redelivered(usize),
    CallEnds(usize),
    /// Worker and kind.
    Committed(usize, usize),
    Dies,
    Rebalances(usize),
    Assigned(usize),
    /// A worker.
    Wake(usize),
}

#[derive(Debug)]
struct Record {
    nature: Nature,
    key: u64,
    failed_before: Option<Trouble>,
    way: Way,
}

struct Running {
    worker: usize,
    call: CallId,
    record: usize,
    outcome: CallOutcome,
    kills: bool,
}

/// One partition of source or redeliver: the records in Kafka, and its current assignment.
struct Partition {
    kind: Kind,
    log: VecDeque<usize>,
    worker: usize,
    lane: Option<u64>,
}

pub(super) struct World<'a, P> {
    mix: &'a Mix,
    now: LocalTime,
    events: BinaryHeap<Reverse<(LocalTime, u64, Event)>>,
    next_event: u64,
    /// Per worker.
    woken_at: Vec<Option<LocalTime>>,
    dispatches: Vec<Dispatch<usize, P>>,
    handler: Handler,
    records: Vec<Record>,
    partitions: Vec<Partition>,
    next_lane: u64,
    calls: Vec<Option<Running>>,
    last: LocalTime,
    /// The most calls that ran at a time, and the most that a crash would have repeated.
    most_running: usize,
    most_repeated: usize,
    /// Whether to print each call.
    is_traced: bool,
}

/// A run with the production policy.
pub(super) fn run(mix: &Mix, seed: u64) -> RunReport {
    run_with(mix, seed, Fair, false)
}

pub(super) fn run_with<P: Policy + Copy>(mix: &Mix, seed: u64, policy: P, is_traced: bool) -> RunReport {
    let mut world = World::new(mix, seed, policy);
    world.is_traced = is_traced;
    world.go();
    let ways = world.records.iter().map(|record| record.way).collect();
    RunReport {
        began: BEGINNING,
        ways,
        deaths: world.handler.deaths,
        most_running: world.most_running,
        most_repeated: world.most_repeated,
    }
}

impl<'a, P: Policy + Copy> World<'a, P> {
    fn new(mix: &'a Mix, seed: u64, policy: P) -> Self {
        let kinds = [Kind::Source, Kind::Redeliver];
        let partitions = kinds.into_iter().flat_map(|kind| (0..mix.partitions).map(move |number| (kind, number % mix.workers)));
        let mut world = Self {
            mix,
            now: BEGINNING,
            events: BinaryHeap::new(),
            next_event: 0,
            woken_at: vec![None; mix.workers],
            dispatches: (0..mix.workers).map(|_| Dispatch::with_policy(mix.settings(), policy)).collect(),
            handler: Handler::new(BEGINNING),
            records: Vec::new(),
            partitions: partitions.map(|(kind, worker)| Partition { kind, log: VecDeque::new(), worker, lane: None }).collect(),
            next_lane: 1,
            calls: Vec::new(),
            last: BEGINNING.later(mix.lasts),
            most_running: 0,
            most_repeated: 0,
            is_traced: false,
        };
        for index in 0..world.partitions.len() {
            world.assign(index);
        }
        world.plan_records(&mut Chance::new(seed));
        for outage in &mix.outages {
            world.wake_all(BEGINNING.later(outage.from));
            if outage.weather == Weather::Away {
                world.at(BEGINNING.later(outage.from), Event::Dies);
            }
        }
        if let Some(every) = mix.rebalance {
            let mut at = BEGINNING.later(every);
            let mut index = 0;
            while at < world.last {
                world.at(at, Event::Rebalances(index % world.partitions.len()));
                (at, index) = (at.later(every), index + 1);
            }
        }
        world
    }

    fn plan_records(&mut self, chance: &mut Chance) {
        let mix = self.mix;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds between two records")]
        let pause = (1e6 / mix.rate) as u64;
        let mut at = Duration::ZERO;
        let mut planned: Vec<(Duration, usize, Nature, Option<u64>)> = Vec::new();
        let offset = chance.index(1_000);
        let mut number = 0;
        while at < mix.lasts {
            let bad = mix.shares.iter().find(|share| (number + offset) % share.one_in == share.one_in / 2);
            planned.push((at, chance.index(mix.partitions), bad.map_or(Nature::Healthy, |share| share.nature), None));
            at += Duration::from_micros(chance.between(pause / 2, pause + pause / 2).max(1));
            number += 1;
        }
        // A few healthy records come after all the others: while only failing records arrive, nobody can tell that it is not an outage.
        let after =
            (0..mix.afterwards).map(|second| (mix.lasts + s(second), chance.index(mix.partitions), Nature::Healthy, None));
        planned.extend(after);
        for run in &mix.runs {
            let key = run.is_of_one_key.then_some(u64::MAX);
            planned.extend((0..run.count).map(|_| (run.at, run.partition, run.nature, key)));
        }
        planned.sort_by_key(|(at, ..)| *at);
        for (at, partition, nature, key) in planned {
            let sent = BEGINNING.later(at);
            let way = Way {
                healthy: matches!(nature, Nature::Healthy | Nature::FailsOnce),
                partition,
                sent,
                arrived: None,
                done: None,
                attempts: 0,
                dead: false,
                calls: 0,
            };
            let key = key.unwrap_or(self.records.len() as u64);
            self.records.push(Record { nature, key, failed_before: None, way });
            self.at(sent, Event::Comes(self.records.len() - 1));
        }
    }

    fn at(&mut self, at: LocalTime, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((at, self.next_event, event)));
    }

    fn assign(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        partition.lane = Some(self.next_lane);
        self.dispatches[partition.worker].open_lane(self.next_lane, partition.kind);
        self.next_lane += 1;
    }

    fn go(&mut self) {
        let mut steps = 0;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            steps = if at > self.now { 0 } else { steps + 1 };
            assert!(steps < MOST_STEPS_AT_ONCE, "endless loop");
            if at > self.last.later(DRAIN) {
                break;
            }
            self.now = at;
            self.take_event(event);
            self.turn();
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Comes(record) => {
                let partition = self.records[record].way.partition;
                self.partitions[partition].log.push_back(record);
            }
            Event::Redelivered(record) => {
                let partition = self.records[record].way.partition + self.mix.partitions;
                self.partitions[partition].log.push_back(record);
            }
            Event::CallEnds(number) => self.end_call(number),
            Event::Committed(worker, kind) => {
                self.dispatches[worker].release(if kind == 0 { Kind::Source } else { Kind::Redeliver }, 1);
            }
            Event::Dies => self.die(Duration::ZERO),
            Event::Rebalances(index) => {
                let partition = &mut self.partitions[index];
                if let Some(lane) = partition.lane.take() {
                    self.dispatches[partition.worker].close_lane(lane);
                    partition.worker = (partition.worker + 1) % self.dispatches.len();
                    self.at(self.now.later(ms(300)), Event::Assigned(index));
                }
            }
            Event::Assigned(index) => self.assign(index),
            Event::Wake(worker) => self.woken_at[worker] = None,
        }
    }

    fn die(&mut self, revival: Duration) {
        for number in self.handler.die(self.now, revival) {
            if let Some(running) = &mut self.calls[number] {
                running.outcome = CallOutcome::Trouble(Trouble::LostConnections, None);
                running.kills = false;
                self.at(self.now.later(ms(number as u64 % 3)), Event::CallEnds(number));
            }
        }
    }

    fn end_call(&mut self, number: usize) {
        // It may have been lost before its answer.
        let Some(running) = self.calls[number].take() else { return };
        self.handler.ended(number);
        self.dispatches[running.worker].ended(running.call, running.record, running.outcome, self.now);
        let record = &mut self.records[running.record];
        match running.outcome {
            CallOutcome::Good(_) => {
                record.way.done.get_or_insert(self.now);
            }
            CallOutcome::Trouble(kind, _) => record.failed_before = Some(kind),
            CallOutcome::NotMade | CallOutcome::InCompany(_) => {}
        }
        if running.kills {
            self.die(self.mix.revival);
        }
    }

    fn turn(&mut self) {
        for worker in 0..self.dispatches.len() {
            loop {
                self.settle(worker);
                self.feed(worker);
                let Some(begun) = self.dispatches[worker].next(self.now) else { break };
                self.begin(worker, begun.call, begun.job);
            }
            self.settle(worker);
            if let Some(at) = self.dispatches[worker].wake_at(self.now)
                && self.woken_at[worker].is_none_or(|woken| at < woken)
            {
                let at = at.max(self.now.later(Duration::from_micros(1)));
                self.woken_at[worker] = Some(at);
                self.at(at, Event::Wake(worker));
            }
        }
    }

    fn wake_all(&mut self, at: LocalTime) {
        (0..self.dispatches.len()).for_each(|worker| self.at(at, Event::Wake(worker)));
    }

    fn begin(&mut self, worker: usize, call: CallId, record: usize) {
        self.most_running = self.most_running.max(self.dispatches[worker].running());
        self.most_repeated = self.most_repeated.max(self.dispatches[worker].occupied());
        let number = self.calls.len();
        let nature = self.records[record].nature;
        let first = self.records[record].way.attempts == 0;
        let nature = if nature == Nature::FailsOnce && !first { Nature::Healthy } else { nature };
        let answer = self.handler.call(self.mix, number, nature, self.now);
        if self.is_traced {
            let (at, dispatch) = (self.now.since(BEGINNING).as_secs_f64(), &self.dispatches[worker]);
            let (standing, running, suspects) = (dispatch.standing(), dispatch.running(), dispatch.suspects());
            println!(
                "{at:8.3} s: {worker}: record {record} {nature:?}, {:?}; {standing:?}, {running} run, {suspects} suspects",
                answer.outcome
            );
        }
        let way = &mut self.records[record].way;
        way.calls += 1;
        if answer.reached {
            way.arrived.get_or_insert(self.now);
        }
        self.calls.push(Some(Running { worker, call, record, outcome: answer.outcome, kills: answer.kills }));
        self.at(answer.at, Event::CallEnds(number));
    }

    /// Takes as many records from Kafka as there is room for.
    fn feed(&mut self, worker: usize) {
        for index in 0..self.partitions.len() {
            while let Partition { lane: Some(lane), log, worker: owner, .. } = &mut self.partitions[index]
                && *owner == worker
                && self.dispatches[worker].has_room(*lane)
                && let Some(record) = log.pop_front()
            {
                let known = &self.records[record];
                let ticket = Ticket {
                    lane: *lane,
                    partition: known.way.partition as u64,
                    record: record as u64,
                    key: known.key,
                    failed_before: known.failed_before.filter(|_| known.way.attempts > 0),
                    count_start: false,
                };
                self.dispatches[worker].arrive(ticket, record);
            }
        }
    }

    fn settle(&mut self, worker: usize) {
        for over in self.dispatches[worker].take_over() {
            if let Some(kind) = over.place {
                self.at(self.now.later(self.mix.commit), Event::Committed(worker, kind as usize));
            }
            let record = &mut self.records[over.job];
            if over.fate == Departure::Postponed {
                self.at(self.now.later(self.mix.tiers[0]), Event::Redelivered(over.job));
                continue;
            }
            if over.fate == Departure::Dropped {
                // The partition's next owner has it.
                let came_back = record.way.attempts > 0;
                let index = record.way.partition + if came_back { self.mix.partitions } else { 0 };
                self.partitions[index].log.push_front(over.job);
                continue;
            }
            record.way.attempts += 1;
            if record.way.done.is_some() || record.nature == Nature::Rejected {
                continue;
            }
            let made = record.way.attempts as usize;
            match self.mix.tiers.get(made - 1) {
                Some(delay) => self.at(self.now.later(*delay), Event::Redelivered(over.job)),
                None => record.way.dead = true,
            }
        }
    }
}
