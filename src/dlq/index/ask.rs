//! What can be asked of the index.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Row as SqlRow, params_from_iter};

use crate::core::dead_letter::{Fate, LetterKey, LetterState};
use crate::core::time::Timestamp;
use crate::dlq::filter::{Facts, Filter};
use crate::dlq::index::take::unpacked;
use crate::dlq::index::{GroupRow, Index, IndexError, schema, time};

/// Which letters come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The youngest.
    Newest,
    /// The oldest.
    Oldest,
}

/// A letter as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub at: LetterKey,
    /// What it is now.
    pub state: LetterState,
    /// Why it is dead.
    pub reason: Option<String>,
    /// The class of the last error.
    pub class: Option<String>,
    /// Its message.
    pub message: Option<String>,
    /// Its HTTP status.
    pub status: Option<u16>,
    /// The attempts that were made.
    pub attempts: Option<u32>,
    /// How often it was sent back before.
    pub redrives: u32,
    /// The tier that it last waited in.
    pub tier: Option<u32>,
    /// The topic that it first came from.
    pub origin_topic: Option<String>,
    /// The partition.
    pub origin_partition: Option<i32>,
    /// The offset.
    pub origin_offset: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its group.
    pub group: String,
    /// Its idempotency key.
    pub id: Option<String>,
    /// When its first attempt failed.
    pub first_failed: Option<Timestamp>,
    /// The headers that are neither kladder's nor another framework's.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// How long its value is, in bytes; `None` where it is null.
    pub bytes: Option<u64>,
    /// What was done with it last.
    pub fate: Option<Fate>,
}

/// Letters that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub id: String,
    /// Their class.
    pub class: Option<String>,
    /// Their reason.
    pub reason: Option<String>,
    /// What their messages have in common.
    pub shape: String,
    /// How many there are.
    pub count: u64,
    /// How many in each state.
    pub states: BTreeMap<LetterState, u64>,
    /// How many by the tier that they last waited in; 0 where that was none.
    pub tiers: BTreeMap<u32, u64>,
    /// How many by origin; the empty name where none is told.
    pub origins: BTreeMap<String, u64>,
    /// When the first of them came.
    pub first: Timestamp,
    /// When the last of them came.
    pub last: Timestamp,
    /// How many came in each twelfth of the time asked for.
    pub trend: [u64; TREND],
    /// The youngest of them.
    pub sample: LetterKey,
}

/// The time of groups is cut into so many parts.
pub const TREND: usize = 12;

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// All letters.
    pub letters: u64,
    /// Those that are open, parked ones included.
    pub open: u64,
    /// When the oldest open one came.
    pub oldest_open: Option<Timestamp>,
    /// Open ones that retention takes within a day.
    pub at_risk: u64,
    /// Groups whose first letter came within the last hour.
    pub new_groups: u64,
}

const COLUMNS: &str = "l.n, l.appended, l.grp, l.state, l.tier, l.topic, l.origin_partition, l.origin_offset, l.attempts, l.redrives, \
                       l.status, l.bytes, l.first_failed, d.key, d.id, d.message, d.headers, f.json";

const FROM: &str = "letter l JOIN detail d ON d.n = l.n LEFT JOIN fate f ON f.n = l.n AND f.appended = l.appended";

impl Row {
    /// Whether a filter holds for it.
    #[must_use]
    pub fn fits(&self, filter: &Filter, now: Timestamp) -> bool {
        let facts = Facts {
            reason: self.reason.as_deref(),
            class: self.class.as_deref(),
            message: self.message.as_deref(),
            topic: self.origin_topic.as_deref(),
            key: self.key.as_deref(),
            group: &self.group,
            job: self.fate.as_ref().map(|fate| fate.job.as_str()),
            headers: &self.headers,
            state: self.state,
            partition: self.at.partition,
            offset: self.at.offset,
            attempts: self.attempts,
            redrives: self.redrives,
            status: self.status,
            tier: self.tier,
            origin_partition: self.origin_partition,
            origin_offset: self.origin_offset,
            appended: self.at.appended,
        };
        filter.matches(&facts, now)
    }
}

impl Index {
    /// Letters for which a filter holds.
    ///
    /// # Errors
    /// When the database fails.
    pub fn list(&self, filter: &Filter, now: Timestamp, order: Order, most: usize) -> Result<Vec<Row>, IndexError> {
        let direction = if order == Order::Newest { "DESC" } else { "ASC" };
        let by = format!("ORDER BY l.appended {direction}, l.n {direction}");
        let mut rows = Vec::new();
        self.each(filter, now, &by, Some(most), |row| {
            rows.push(row);
            rows.len() < most
        })?;
        Ok(rows)
    }

    /// One letter.
    ///
    /// # Errors
    /// When the database fails.
    pub fn letter(&self, partition: i32, offset: i64) -> Result<Option<Row>, IndexError> {
        let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE l.n = ?1");
        let mut asked = self.db.prepare_cached(&sql).map_err(self.wrong())?;
        let mut rows = asked.query([schema::number(partition, offset)]).map_err(self.wrong())?;
        match rows.next().map_err(self.wrong())? {
            Some(row) => self.row(row).map(Some).map_err(self.wrong()),
            None => Ok(None),
        }
    }

    /// How many letters there are for which a filter holds.
    ///
    /// # Errors
    /// When the database fails.
    pub fn count(&self, filter: &Filter, now: Timestamp) -> Result<u64, IndexError> {
        let condition = self.condition(filter, now)?;
        if condition.is_exact {
            let sql = format!("SELECT COUNT(*) FROM letter l WHERE {}", condition.sql);
            let mut asked = self.db.prepare_cached(&sql).map_err(self.wrong())?;
            return asked.query_row(params_from_iter(condition.given), |row| row.get(0)).map_err(self.wrong());
        }
        let mut count = 0;
        self.each(filter, now, "", None, |_| {
            count += 1;
            true
        })?;
        Ok(count)
    }

    /// The letters below these offsets for which a filter holds, by partition and offset.
    ///
    /// # Errors
    /// When the database fails.
    pub fn select(&self, filter: &Filter, below: &[(i32, i64)], now: Timestamp) -> Result<Vec<LetterKey>, IndexError> {
        let condition = self.condition(filter, now)?;
        let is_below = |at: LetterKey| below.iter().any(|(partition, end)| at.partition == *partition && at.offset < *end);
        let mut chosen = Vec::new();
        if condition.is_exact {
            let sql = format!("SELECT l.n, l.appended FROM letter l WHERE {} ORDER BY l.n", condition.sql);
            let read = |chosen: &mut Vec<LetterKey>| -> rusqlite::Result<()> {
                let mut asked = self.db.prepare_cached(&sql)?;
                for row in asked.query_map(params_from_iter(condition.given), |row| Ok(schema::key(row.get(0)?, row.get(1)?)))? {
                    chosen.push(row?);
                }
                Ok(())
            };
            read(&mut chosen).map_err(self.wrong())?;
            chosen.retain(|at| is_below(*at));
            return Ok(chosen);
        }
        self.each(filter, now, "ORDER BY l.n", None, |row| {
            if is_below(row.at) {
                chosen.push(row.at);
            }
            true
        })?;
        Ok(chosen)
    }

    /// Goes through the letters for which a filter holds, until it is told to stop.
    fn each(
        &self,
        filter: &Filter,
        now: Timestamp,
        order: &str,
        most: Option<usize>,
        mut visit: impl FnMut(Row) -> bool,
    ) -> Result<(), IndexError> {
        let condition = self.condition(filter, now)?;
        // With a limit the database knows that it need not sort all of them.
        let limit =
            most.filter(|most| condition.is_exact && *most < usize::MAX).map(|most| format!(" LIMIT {most}")).unwrap_or_default();
        let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE {} {order}{limit}", condition.sql);
        let mut asked = self.db.prepare_cached(&sql).map_err(self.wrong())?;
        let mut rows = asked.query(params_from_iter::<Vec<Value>>(condition.given)).map_err(self.wrong())?;
        while let Some(row) = rows.next().map_err(self.wrong())? {
            let row = self.row(row).map_err(self.wrong())?;
            if (condition.is_exact || row.fits(filter, now)) && !visit(row) {
                break;
            }
        }
        Ok(())
    }

    fn row(&self, row: &SqlRow<'_>) -> rusqlite::Result<Row> {
        let group = self.groups.all.get(&row.get(2)?);
        let topic: Option<i64> = row.get(5)?;
        let name = |number: i64| self.topics.names.get(usize::try_from(number - 1).ok()?).cloned();
        Ok(Row {
            at: schema::key(row.get(0)?, row.get(1)?),
            state: schema::state_of(row.get(3)?),
            reason: group.and_then(|group| group.reason.clone()),
            class: group.and_then(|group| group.class.clone()),
            message: row.get(15)?,
            status: row.get(10)?,
            attempts: row.get(8)?,
            redrives: row.get(9)?,
            tier: row.get(4)?,
            origin_topic: topic.and_then(name),
            origin_partition: row.get(6)?,
            origin_offset: row.get(7)?,
            key: row.get(13)?,
            group: group.map(|group| group.id.clone()).unwrap_or_default(),
            id: row.get(14)?,
            first_failed: row.get::<_, Option<i64>>(12)?.map(time),
            headers: row.get::<_, Option<Vec<u8>>>(16)?.map(|bytes| unpacked(&bytes)).unwrap_or_default(),
            bytes: row.get::<_, Option<i64>>(11)?.and_then(|n| u64::try_from(n).ok()),
            fate: row.get::<_, Option<String>>(17)?.and_then(|json| serde_json::from_str(&json).ok()),
        })
    }

    /// The groups of those letters for which a filter holds, the largest first. The trend is over the time since the first of them, or
    /// the span that is given.
    ///
    /// # Errors
    /// When the database fails.
    pub fn groups(&self, filter: &Filter, now: Timestamp, span: Option<Duration>) -> Result<Vec<Group>, IndexError> {
        let condition = self.condition(filter, now)?;
        let start = match span {
            Some(span) => (now - span).as_millis(),
            None => self
                .db
                .query_row("SELECT MIN(appended) FROM letter", [], |row| row.get::<_, Option<i64>>(0))
                .map_err(self.wrong())?
                .unwrap_or_else(|| now.as_millis()),
        };
        let width = ((now.as_millis() - start) / i64::try_from(TREND).unwrap_or(12)).max(1);
        let mut gathered: BTreeMap<i64, Gathered> = BTreeMap::new();
        let mut gather = |number: i64, one: One| gathered.entry(number).or_default().add(one, start, width);
        if condition.is_exact {
            let read = |gather: &mut dyn FnMut(i64, One)| -> rusqlite::Result<()> {
                let sql = format!(
                    "SELECT l.grp, l.appended, l.state, l.tier, l.topic, l.n FROM letter l WHERE {} ORDER BY l.grp, l.appended",
                    condition.sql
                );
                let mut asked = self.db.prepare_cached(&sql)?;
                let mut rows = asked.query(params_from_iter(condition.given))?;
                while let Some(row) = rows.next()? {
                    let one =
                        One { appended: row.get(1)?, state: row.get(2)?, tier: row.get(3)?, topic: row.get(4)?, n: row.get(5)? };
                    gather(row.get(0)?, one);
                }
                Ok(())
            };
            read(&mut gather).map_err(self.wrong())?;
        } else {
            self.each(filter, now, "", None, |row| {
                let one = One {
                    appended: row.at.appended.as_millis(),
                    state: schema::state_number(row.state),
                    tier: row.tier.map(i64::from),
                    topic: row.origin_topic.as_ref().and_then(|name| self.topics.numbers.get(name).copied()),
                    n: schema::number(row.at.partition, row.at.offset),
                };
                if let Some(number) = self.groups.numbers.get(&row.group) {
                    gather(*number, one);
                }
                true
            })?;
        }
        let mut groups: Vec<Group> = gathered
            .into_iter()
            .filter_map(|(number, gathered)| Some(gathered.into_group(self.groups.all.get(&number)?, &self.topics.names)))
            .collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| b.last.cmp(&a.last)).then_with(|| a.id.cmp(&b.id)));
        Ok(groups)
    }

    /// How much there is, with the time for which the topic keeps its records.
    ///
    /// # Errors
    /// When the database fails.
    pub fn sizes(&self, now: Timestamp, retention: Duration) -> Result<Sizes, IndexError> {
        let (open, parked) = (schema::state_number(LetterState::Open), schema::state_number(LetterState::Parked));
        let risk_before = (now - retention.saturating_sub(Duration::from_secs(86_400))).as_millis();
        let read = || -> rusqlite::Result<Sizes> {
            let letters = self.db.query_row("SELECT COUNT(*) FROM letter", [], |row| row.get(0))?;
            let not_open = "SELECT COUNT(*) FROM letter WHERE state <> 0 AND state <> ?1";
            let not_open: u64 = self.db.query_row(not_open, [parked], |row| row.get(0))?;
            let oldest = "SELECT appended FROM letter WHERE state IN (?1, ?2) ORDER BY appended LIMIT 1";
            let oldest: Option<i64> =
                rusqlite::OptionalExtension::optional(self.db.query_row(oldest, [open, parked], |row| row.get(0)))?;
            let at_risk = "SELECT COUNT(*) FROM letter WHERE appended < ?1 AND state IN (?2, ?3)";
            let at_risk = self.db.query_row(at_risk, [risk_before, open, parked], |row| row.get(0))?;
            let hour_ago = (now - Duration::from_secs(3_600)).as_millis();
            let new_groups =
                self.db.query_row("SELECT COUNT(*) FROM grp WHERE first_seen >= ?1", [hour_ago], |row| row.get(0))?;
            Ok(Sizes { letters, open: letters - not_open, oldest_open: oldest.map(time), at_risk, new_groups })
        };
        read().map_err(self.wrong())
    }
}

/// What a group is made of.
struct One {
    appended: i64,
    state: i64,
    tier: Option<i64>,
    topic: Option<i64>,
    n: i64,
}

struct Gathered {
    count: u64,
    states: [u64; LetterState::ALL.len()],
    tiers: BTreeMap<i64, u64>,
    topics: BTreeMap<i64, u64>,
    first: i64,
    last: i64,
    trend: [u64; TREND],
    sample: i64,
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            count: 0,
            states: [0; LetterState::ALL.len()],
            tiers: BTreeMap::new(),
            topics: BTreeMap::new(),
            first: i64::MAX,
            last: i64::MIN,
            trend: [0; TREND],
            sample: 0,
        }
    }
}

impl Gathered {
    fn add(&mut self, one: One, start: i64, width: i64) {
        self.count += 1;
        if let Some(count) = usize::try_from(one.state).ok().and_then(|state| self.states.get_mut(state)) {
            *count += 1;
        }
        *self.tiers.entry(one.tier.unwrap_or(0)).or_default() += 1;
        *self.topics.entry(one.topic.unwrap_or(0)).or_default() += 1;
        self.first = self.first.min(one.appended);
        if one.appended >= self.last {
            (self.last, self.sample) = (one.appended, one.n);
        }
        if one.appended >= start {
            let slot = usize::try_from((one.appended - start) / width).unwrap_or(0).min(TREND - 1);
            self.trend[slot] += 1;
        }
    }

    fn into_group(self, row: &GroupRow, topics: &[String]) -> Group {
        let name = |number: i64| usize::try_from(number - 1).ok().and_then(|n| topics.get(n)).cloned().unwrap_or_default();
        let states = LetterState::ALL.into_iter().zip(self.states).filter(|(_, count)| *count > 0).collect();
        Group {
            id: row.id.clone(),
            class: row.class.clone(),
            reason: row.reason.clone(),
            shape: row.shape.clone(),
            count: self.count,
            states,
            tiers: self.tiers.into_iter().map(|(tier, count)| (u32::try_from(tier).unwrap_or(0), count)).collect(),
            origins: self.topics.into_iter().map(|(topic, count)| (name(topic), count)).collect(),
            first: time(self.first),
            last: time(self.last),
            trend: self.trend,
            sample: schema::key(self.sample, self.last),
        }
    }
}
