//! Queries of the index.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Row as SqlRow, params_from_iter};

use crate::core::dead_letter::{Fate, LetterKey, LetterState};
use crate::core::time::Timestamp;
use crate::dlq::filter::{Filter, LetterFields};
use crate::dlq::index::take::unpacked;
use crate::dlq::index::{GroupRow, Index, IndexError, OTHER, OTHER_TOPIC, schema, time};

/// The order of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Youngest first.
    Newest,
    /// Oldest first.
    Oldest,
}

/// A letter in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterRow {
    /// Its position.
    pub at: LetterKey,
    /// Its current state.
    pub state: LetterState,
    /// Its reason.
    pub reason: Option<String>,
    /// Class of the last error.
    pub class: Option<String>,
    /// Message of the last error.
    pub message: Option<String>,
    /// HTTP status of the last error.
    pub status: Option<u16>,
    /// Attempts made.
    pub attempts: Option<u32>,
    /// Number of earlier redrives.
    pub redrives: u32,
    /// The tier of its last wait.
    pub tier: Option<u32>,
    /// Its origin topic.
    pub origin_topic: Option<String>,
    /// Its origin partition.
    pub origin_partition: Option<i32>,
    /// Its origin offset.
    pub origin_offset: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its group.
    pub group: String,
    /// Its idempotency key.
    pub id: Option<String>,
    /// Time of its first failed attempt.
    pub first_failed: Option<Timestamp>,
    /// Headers other than kladder's and other frameworks'.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Size of its value in bytes; `None` for null.
    pub bytes: Option<u64>,
    /// The last action on it.
    pub fate: Option<Fate>,
}

/// A group of similar letters.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterGroup {
    /// Its id.
    pub id: String,
    /// Their class.
    pub class: Option<String>,
    /// Their reason.
    pub reason: Option<String>,
    /// The shape of their messages.
    pub shape: String,
    /// Number of letters.
    pub count: u64,
    /// Number by state.
    pub states: BTreeMap<LetterState, u64>,
    /// Number by the tier of their last wait; 0 for none.
    pub tiers: BTreeMap<u32, u64>,
    /// Number by origin topic; the empty name if unknown.
    pub origins: BTreeMap<String, u64>,
    /// When the first one arrived.
    pub first: Timestamp,
    /// When the last one arrived.
    pub last: Timestamp,
    /// Number of arrivals in each twelfth of the requested time.
    pub trend: [u64; TREND],
    /// The youngest letter.
    pub sample: LetterKey,
}

/// Number of parts of a trend.
pub const TREND: usize = 12;

/// Counts of the whole index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// All letters.
    pub letters: u64,
    /// Open ones, including parked.
    pub open: u64,
    /// When the oldest open one arrived.
    pub oldest_open: Option<Timestamp>,
    /// Open ones that retention deletes within a day.
    pub at_risk: u64,
    /// Groups whose first letter arrived within the last hour.
    pub new_groups: u64,
}

const COLUMNS: &str = "l.n, l.appended, l.grp, l.state, l.tier, l.topic, l.origin_partition, l.origin_offset, l.attempts, l.redrives, \
                       l.status, l.bytes, l.first_failed, d.key, d.id, d.message, d.headers, f.json, g.id, COALESCE(d.class, g.class), \
                       g.reason, COALESCE(d.origin, t.name)";

const FROM: &str = "letter l JOIN detail d ON d.n = l.n LEFT JOIN fate f ON f.n = l.n AND f.appended = l.appended \
                    LEFT JOIN grp g ON g.n = l.grp LEFT JOIN topic t ON t.n = l.topic";

impl LetterRow {
    /// Whether it matches a filter.
    #[must_use]
    pub fn fits(&self, filter: &Filter, now: Timestamp) -> bool {
        let facts = LetterFields {
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
    /// Letters that match a filter.
    ///
    /// # Errors
    /// When the database fails.
    pub fn list(&self, filter: &Filter, now: Timestamp, order: Order, most: usize) -> Result<Vec<LetterRow>, IndexError> {
        let direction = if order == Order::Newest { "DESC" } else { "ASC" };
        let by = format!("ORDER BY l.appended {direction}, l.n {direction}");
        let mut rows = Vec::new();
        self.each(filter, now, &by, Some(most), |row, _| {
            rows.push(row);
            rows.len() < most
        })?;
        Ok(rows)
    }

    /// One letter.
    ///
    /// # Errors
    /// When the database fails.
    pub fn letter(&self, partition: i32, offset: i64) -> Result<Option<LetterRow>, IndexError> {
        let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE l.n = ?1");
        let mut asked = self.db.prepare_cached(&sql).map_err(self.wrong())?;
        let mut rows = asked.query([schema::number(partition, offset)]).map_err(self.wrong())?;
        match rows.next().map_err(self.wrong())? {
            Some(row) => read_row(row).map(Some).map_err(self.wrong()),
            None => Ok(None),
        }
    }

    /// Number of letters that match a filter.
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
        self.each(filter, now, "", None, |_, _| {
            count += 1;
            true
        })?;
        Ok(count)
    }

    /// The letters below these offsets that match a filter, ordered by partition and offset.
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
        self.each(filter, now, "ORDER BY l.n", None, |row, _| {
            if is_below(row.at) {
                chosen.push(row.at);
            }
            true
        })?;
        Ok(chosen)
    }

    /// Iterates over the letters that match a filter, until the callback stops it.
    fn each(
        &self,
        filter: &Filter,
        now: Timestamp,
        order: &str,
        most: Option<usize>,
        mut visit: impl FnMut(LetterRow, One) -> bool,
    ) -> Result<(), IndexError> {
        let condition = self.condition(filter, now)?;
        // With a limit, the database need not sort all of them.
        let limit =
            most.filter(|most| condition.is_exact && *most < usize::MAX).map(|most| format!(" LIMIT {most}")).unwrap_or_default();
        let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE {} {order}{limit}", condition.sql);
        let mut asked = self.db.prepare_cached(&sql).map_err(self.wrong())?;
        let mut rows = asked.query(params_from_iter::<Vec<Value>>(condition.given)).map_err(self.wrong())?;
        while let Some(row) = rows.next().map_err(self.wrong())? {
            let one = One::read(row).map_err(self.wrong())?;
            let row = read_row(row).map_err(self.wrong())?;
            if (condition.is_exact || row.fits(filter, now)) && !visit(row, one) {
                break;
            }
        }
        Ok(())
    }

    /// The groups of the letters that match a filter, largest first. The trend covers the given span, or the time since the first
    /// letter.
    ///
    /// # Errors
    /// When the database fails.
    pub fn groups(&self, filter: &Filter, now: Timestamp, span: Option<Duration>) -> Result<Vec<LetterGroup>, IndexError> {
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
        if condition.is_exact {
            let read = || -> rusqlite::Result<()> {
                let sql = format!(
                    "SELECT l.n, l.appended, l.grp, l.state, l.tier, l.topic FROM letter l WHERE {} ORDER BY l.grp, l.appended",
                    condition.sql
                );
                let mut asked = self.db.prepare_cached(&sql)?;
                let mut rows = asked.query(params_from_iter(condition.given))?;
                while let Some(row) = rows.next()? {
                    let one = One::read(row)?;
                    gathered.entry(one.group).or_default().add(&one, start, width);
                }
                Ok(())
            };
            read().map_err(self.wrong())?;
        } else {
            self.each(filter, now, "", None, |_, one| {
                gathered.entry(one.group).or_default().add(&one, start, width);
                true
            })?;
        }
        let rows: BTreeMap<i64, GroupRow> = self.group_rows()?.into_iter().collect();
        let topics: BTreeMap<i64, String> = self.topic_names()?.into_iter().collect();
        let mut groups: Vec<LetterGroup> = gathered
            .into_iter()
            .filter_map(|(number, gathered)| Some(gathered.into_group(rows.get(&number)?, &topics)))
            .collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| b.last.cmp(&a.last)).then_with(|| a.id.cmp(&b.id)));
        Ok(groups)
    }

    /// All groups, by number.
    pub(super) fn group_rows(&self) -> Result<Vec<(i64, GroupRow)>, IndexError> {
        let read = || -> rusqlite::Result<Vec<(i64, GroupRow)>> {
            let mut asked = self.db.prepare_cached("SELECT n, id, class, reason, shape, other FROM grp")?;
            let row = |row: &SqlRow<'_>| {
                let (id, class, reason) = (row.get(1)?, row.get(2)?, row.get(3)?);
                Ok((row.get(0)?, GroupRow { id, class, reason, shape: row.get(4)?, is_other: row.get(5)? }))
            };
            asked.query_map([], row)?.collect()
        };
        read().map_err(self.wrong())
    }

    /// The origin topics, by number.
    pub(super) fn topic_names(&self) -> Result<Vec<(i64, String)>, IndexError> {
        let read = || -> rusqlite::Result<Vec<(i64, String)>> {
            let mut asked = self.db.prepare_cached("SELECT n, name FROM topic")?;
            asked.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().map_err(self.wrong())
    }

    /// The counts, given the retention of the topic.
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

/// A letter from [`COLUMNS`].
fn read_row(row: &SqlRow<'_>) -> rusqlite::Result<LetterRow> {
    Ok(LetterRow {
        at: schema::key(row.get(0)?, row.get(1)?),
        state: schema::state_of(row.get(3)?),
        reason: row.get(20)?,
        class: row.get(19)?,
        message: row.get(15)?,
        status: row.get(10)?,
        attempts: row.get(8)?,
        redrives: row.get(9)?,
        tier: row.get(4)?,
        origin_topic: row.get(21)?,
        origin_partition: row.get(6)?,
        origin_offset: row.get(7)?,
        key: row.get(13)?,
        group: row.get::<_, Option<String>>(18)?.unwrap_or_default(),
        id: row.get(14)?,
        first_failed: row.get::<_, Option<i64>>(12)?.map(time),
        headers: row.get::<_, Option<Vec<u8>>>(16)?.map(|bytes| unpacked(&bytes)).unwrap_or_default(),
        bytes: row.get::<_, Option<i64>>(11)?.and_then(|n| u64::try_from(n).ok()),
        fate: row.get::<_, Option<String>>(17)?.and_then(|json| serde_json::from_str(&json).ok()),
    })
}

/// The fields of a letter that groups need.
struct One {
    n: i64,
    appended: i64,
    group: i64,
    state: i64,
    tier: Option<i64>,
    topic: Option<i64>,
}

impl One {
    /// From the first [`COLUMNS`].
    fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        let (n, appended, group) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Self { n, appended, group, state: row.get(3)?, tier: row.get(4)?, topic: row.get(5)? })
    }
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
    fn add(&mut self, one: &One, start: i64, width: i64) {
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

    fn into_group(self, row: &GroupRow, topics: &BTreeMap<i64, String>) -> LetterGroup {
        let name = |number: i64| match number {
            OTHER_TOPIC => OTHER.to_owned(),
            number => topics.get(&number).cloned().unwrap_or_default(),
        };
        let states = LetterState::ALL.into_iter().zip(self.states).filter(|(_, count)| *count > 0).collect();
        LetterGroup {
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
