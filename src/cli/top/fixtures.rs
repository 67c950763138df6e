//! Observations of a ladder that the tests of the picture share.

use std::time::Duration;

use crate::cli::top::observation::{DeadLetters, HoldSeen, LadderSeen, MemberSeen, QueueSeen, TierSeen, TopObservation};
use crate::core::ladder::Mode;
use crate::core::time::Timestamp;
use crate::observe::{HandlerSeen, HealthSeen, Lateness, TroubleSeen};

/// 2026-01-31T12:00:00Z
pub const NOON: Timestamp = Timestamp::from_millis(1_769_860_800_000);

pub fn queue(topic: &str, done: i64, ends: i64) -> QueueSeen {
    QueueSeen { topic: topic.to_owned(), waiting: ends - done, ends, done }
}

fn tier(ladder: &str, delay: (&str, u64), queue_at: (i64, i64), due_in: Option<i64>, late: Option<(u64, u64)>) -> TierSeen {
    let millis = |late: u64| Duration::from_millis(late);
    TierSeen {
        queue: queue(&format!("{ladder}.retry-{}", delay.0), queue_at.0, queue_at.1),
        delay: Duration::from_secs(delay.1),
        due: i64::from(due_in.is_some_and(|due_in| due_in <= 0)),
        next_due: due_in.map(|due_in| Timestamp::from_millis(NOON.as_millis() + due_in)),
        lateness: late.map(|(p50, p99)| Lateness { p50: millis(p50), p99: millis(p99) }),
    }
}

fn member(worker: &str, role: &'static str, partitions: &[(&str, &[i32])]) -> MemberSeen {
    MemberSeen {
        worker: worker.to_owned(),
        host: "/10.0.0.7".to_owned(),
        role,
        partitions: partitions.iter().map(|(topic, p)| ((*topic).to_owned(), p.iter().copied().collect())).collect(),
    }
}

/// A handler with 64 delivery slots.
pub fn handler(health: HealthSeen) -> HandlerSeen {
    let (deliveries_allowed, trouble) = match health {
        HealthSeen::Up => (64, Vec::new()),
        HealthSeen::Degraded => (12, Vec::new()),
        HealthSeen::InDoubt | HealthSeen::Down => (0, vec![TroubleSeen { kind: "errors", calls: 43 }]),
    };
    HandlerSeen { health, deliveries_allowed, trouble, stands_aside: false }
}

/// A push ladder with records waiting everywhere.
pub fn ladder(name: &str) -> LadderSeen {
    let topic = |end: &str| format!("{name}.{end}");
    LadderSeen {
        name: name.to_owned(),
        mode: Mode::Push,
        group: "billing".to_owned(),
        hold: HoldSeen::Running,
        dead_letters_held: None,
        handler: Some(handler(HealthSeen::Up)),
        handlers_down: Vec::new(),
        sources: vec![queue("orders", 9_400, 9_412)],
        inbox: None,
        tiers: vec![
            tier(name, ("5s", 5), (310, 322), Some(-40), Some((3, 12))),
            tier(name, ("1m", 60), (80, 151), Some(3_200), Some((4, 40))),
            tier(name, ("10m", 600), (20, 24), Some(415_000), None),
        ],
        redeliver: Some(queue(&topic("redeliver"), 410, 413)),
        dead_letters: Some(DeadLetters { records: 40, ends: 44, open: Some(38) }),
        members: Some(vec![
            member("worker-1", "deliverer", &[("orders", &[0, 1, 2]), (&topic("redeliver"), &[0, 2])]),
            member("worker-2", "deliverer", &[("orders", &[3, 4, 5]), (&topic("redeliver"), &[1])]),
            member("worker-1", "mover", &[(&topic("retry-5s"), &[0, 1, 2]), (&topic("retry-1m"), &[0])]),
        ]),
        notes: Vec::new(),
    }
}

/// An observation of that ladder, made now.
pub fn look(name: &str) -> TopObservation {
    TopObservation { at: NOON, ladders: vec![ladder(name)], worker: Some("127.0.0.1:9646".to_owned()) }
}

/// The same ladder four seconds before, with smaller counts.
pub fn look_before(name: &str) -> TopObservation {
    let mut look = look(name);
    look.at = NOON - Duration::from_secs(4);
    let seen = &mut look.ladders[0];
    seen.sources[0] = queue("orders", 9_000, 9_012);
    seen.tiers[0].queue.ends -= 40;
    seen.tiers[0].queue.done -= 38;
    seen.dead_letters = Some(DeadLetters { records: 38, ends: 42, open: Some(36) });
    look
}
