//! The clocks of the brokers, as far as this process knows them.

use std::collections::HashMap;

use crate::core::leader_clock::{LeaderClock, LocalTime};
use crate::core::time::Timestamp;
use crate::kafka::producer::ClockReading;

/// What is known of the brokers' clocks.
#[derive(Debug, Default)]
pub struct Leaders {
    by_broker: HashMap<i32, LeaderClock>,
    /// Of whichever broker confirmed a write last: what is presumed of one that has not yet.
    any: LeaderClock,
    last_reading: Option<LocalTime>,
}

impl Leaders {
    /// A record was fetched.
    pub fn fetched(&mut self, broker: i32, appended: Timestamp, now: LocalTime) {
        self.by_broker.entry(broker).or_default().fetched(appended, now);
    }

    /// A write was confirmed.
    pub fn read(&mut self, reading: &ClockReading) {
        self.by_broker.entry(reading.broker).or_default().written(reading.sent, reading.appended, reading.confirmed);
        self.any.written(reading.sent, reading.appended, reading.confirmed);
        self.last_reading = Some(reading.confirmed);
    }

    /// When a broker's clock was last read.
    #[must_use]
    pub fn last_reading(&self) -> Option<LocalTime> {
        self.last_reading
    }

    /// Leader minus worker, in microseconds: never more than it is, so that nobody is early by the leader's clock.
    #[must_use]
    pub fn offset(&self, broker: i32, now: LocalTime) -> i64 {
        let own = self.by_broker.get(&broker);
        own.and_then(|clock| clock.offset(now)).unwrap_or_else(|| {
            // A record that was appended "in the future" proves that its leader is ahead; one from the past proves nothing.
            let known = self.any.offset(now).unwrap_or(0);
            own.and_then(|clock| clock.lower_at(now)).map_or(known, |lower| lower.max(known))
        })
    }

    /// The broker's time now, in epoch microseconds.
    #[must_use]
    pub fn now(&self, broker: i32, now: LocalTime) -> i64 {
        now.as_micros() + self.offset(broker, now)
    }

    /// The offset that is furthest from zero, in microseconds.
    #[must_use]
    pub fn furthest_offset(&self, now: LocalTime) -> i64 {
        self.by_broker.values().filter_map(|clock| clock.offset(now)).max_by_key(|o| o.abs()).unwrap_or(0)
    }
}
