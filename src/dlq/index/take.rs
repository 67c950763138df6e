//! Adds records from the topics to the index.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::core::dead_letter::{DeadLetterEntry, LetterState};
use crate::dlq::filter::words;
use crate::dlq::groups::{group_id, hash, shape};
use crate::dlq::index::{GroupRow, Index, IndexError, MOST_GROUPS, MOST_TOPICS, OTHER, OTHER_TOPIC, derive, schema};
use crate::dlq::letter::Letter;

/// A parsed record of a topic.
pub enum Taken {
    /// A dead letter.
    Letter(Box<Entered>),
    /// A record of the state topic, and its position.
    Entry(Box<DeadLetterEntry>, Spot),
}

/// A position in the state topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A letter prepared for the index by the reading thread, since the database has only one thread.
pub struct Entered {
    letter: Letter,
    shape: String,
    group: String,
    key_hash: Option<i64>,
    id_hash: Option<i64>,
    headers: Option<Vec<u8>>,
    tokens: String,
}

impl Taken {
    /// A dead letter.
    #[must_use]
    pub fn letter(letter: Letter) -> Self {
        let shape = shape(letter.message.as_deref().unwrap_or_default());
        let group = group_id(letter.class.as_deref().unwrap_or_default(), letter.reason.unwrap_or_default(), &shape);
        Self::Letter(Box::new(Entered {
            key_hash: letter.key.as_deref().map(hash),
            id_hash: letter.id.as_deref().map(|id| hash(id.as_bytes())),
            headers: packed(&letter.headers),
            tokens: tokens(&letter),
            letter,
            shape,
            group,
        }))
    }
}

/// Maximum number of words of a letter that are indexed.
const MOST_WORDS: usize = 200;

/// Numbers of groups and topics seen in a batch. Not kept longer: other processes write in between, and unused ones are
/// removed.
#[derive(Default)]
struct Numbers {
    groups: HashMap<String, (i64, bool)>,
    topics: HashMap<String, i64>,
    /// Number of groups, once counted.
    count: Option<i64>,
}

/// What a letter's state derives from: redrives, state, last action, hash of its id, and the id that it was sent with.
type StateColumns = (u32, i64, Option<i64>, Option<i64>, Option<String>);

impl Index {
    /// Adds a batch, and the positions of the topics after it. Records already in the index are skipped. Returns the number of new
    /// letters.
    ///
    /// # Errors
    /// The database fails, or has another letter at the position of one of these.
    pub fn take(&mut self, batch: &[Taken], positions: &[(String, i32, i64)]) -> Result<usize, IndexError> {
        // Polls mostly find nothing.
        if batch.is_empty() && self.kept == positions {
            return Ok(0);
        }
        let wrong = self.wrong();
        // Prevents other writers until this batch is in. By hand, since it spans calls that borrow the
        // whole index.
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(&wrong)?;
        match self.take_open(batch, positions) {
            Ok(new) => {
                self.db.execute_batch("COMMIT").map_err(&wrong)?;
                self.kept = positions.to_vec();
                Ok(new)
            }
            Err(error) => {
                let _ = self.db.execute_batch("ROLLBACK");
                Err(error)
            }
        }
    }

    fn take_open(&mut self, batch: &[Taken], positions: &[(String, i32, i64)]) -> Result<usize, IndexError> {
        let wrong = self.wrong();
        let mut new = 0;
        // Another process may have written since, but cannot while this transaction is open.
        self.has_fates = self.db.query_row("SELECT EXISTS (SELECT 1 FROM fate)", [], |row| row.get(0)).map_err(&wrong)?;
        let mut numbers = Numbers::default();
        let has_entries = batch.iter().any(|taken| matches!(taken, Taken::Entry(..)));
        let positions_before = if has_entries { self.positions()? } else { Vec::new() };
        let read: BTreeMap<(&str, i32), i64> =
            positions_before.iter().map(|(topic, partition, next)| ((topic.as_str(), *partition), *next)).collect();
        for taken in batch {
            match taken {
                Taken::Letter(letter) => new += usize::from(self.take_letter(letter, &mut numbers)?),
                // Another process has read further meanwhile: this entry is older than the indexed one.
                Taken::Entry(_, at) if read.get(&(&*at.topic, at.partition)).is_some_and(|next| at.offset < *next) => {}
                Taken::Entry(entry, _) => self.take_entry(entry).map_err(&wrong)?,
            }
        }
        for (topic, partition, next) in positions {
            let sql = "INSERT INTO position VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET next = MAX(next, ?3)";
            self.db.prepare_cached(sql).and_then(|mut asked| asked.execute(params![topic, partition, next])).map_err(&wrong)?;
        }
        Ok(new)
    }

    fn take_letter(&mut self, entered: &Entered, numbers: &mut Numbers) -> Result<bool, IndexError> {
        let wrong = self.wrong();
        let letter = &entered.letter;
        let number = schema::number(letter.at.partition, letter.at.offset);
        let appended = letter.at.appended.as_millis();
        let known = |db: &Connection| -> rusqlite::Result<Option<i64>> {
            db.prepare_cached("SELECT appended FROM letter WHERE n = ?1")?.query_row([number], |row| row.get(0)).optional()
        };
        if let Some(known) = known(&self.db).map_err(&wrong)? {
            return if known == appended { Ok(false) } else { Err(IndexError::MadeAnew) };
        }
        let (group, is_other) = self.group_of(entered, numbers).map_err(&wrong)?;
        let topic = letter.origin.topic.as_deref().map(|name| self.topic_of(name, numbers)).transpose().map_err(&wrong)?;
        let insert = |db: &Connection| -> rusqlite::Result<()> {
            let sql = "INSERT INTO letter VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
            let state = if letter.redrives >= self.park_after { LetterState::Parked } else { LetterState::Open };
            db.prepare_cached(sql)?.execute(params![
                number,
                appended,
                group,
                schema::state_number(state),
                letter.tier,
                topic,
                letter.origin.partition,
                letter.origin.offset,
                letter.attempts,
                letter.redrives,
                letter.status,
                entered.key_hash,
                entered.id_hash,
                letter.bytes.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
                letter.first_failed.map(crate::core::time::Timestamp::as_millis),
            ])?;
            db.prepare_cached("INSERT INTO detail VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
                number,
                letter.key,
                letter.id,
                letter.message,
                entered.headers,
                letter.class.as_ref().filter(|_| is_other),
                letter.origin.topic.as_ref().filter(|_| topic == Some(OTHER_TOPIC)),
            ])?;
            db.prepare_cached("INSERT INTO words (rowid, t) VALUES (?1, ?2)")?.execute(params![number, entered.tokens])?;
            Ok(())
        };
        insert(&self.db).map_err(&wrong)?;
        if self.has_fates {
            self.derive_again(number).map_err(&wrong)?;
        }
        if let Some(id_hash) = entered.id_hash.filter(|_| letter.redrives > 0) {
            self.derive_all(id_hash).map_err(&wrong)?;
        }
        Ok(true)
    }

    /// The group of a letter, and whether it is a merged one.
    fn group_of(&self, entered: &Entered, numbers: &mut Numbers) -> rusqlite::Result<(i64, bool)> {
        if let Some(known) = numbers.groups.get(&entered.group) {
            return Ok(*known);
        }
        let letter = &entered.letter;
        let row = GroupRow {
            id: entered.group.clone(),
            class: letter.class.clone(),
            reason: letter.reason.map(str::to_owned),
            shape: entered.shape.clone(),
            is_other: false,
        };
        let known = match self.group_number(&row.id)? {
            Some(number) => (number, false),
            None if self.count_groups(numbers)? < MOST_GROUPS => {
                numbers.count = numbers.count.map(|count| count + 1);
                (self.add_group(&row, letter)?, false)
            }
            None => {
                let row = GroupRow {
                    id: group_id("", letter.reason.unwrap_or_default(), "\0other"),
                    class: None,
                    shape: OTHER.to_owned(),
                    is_other: true,
                    ..row
                };
                let known = self.group_number(&row.id)?;
                (known.map_or_else(|| self.add_group(&row, letter), Ok)?, true)
            }
        };
        numbers.groups.insert(entered.group.clone(), known);
        Ok(known)
    }

    fn count_groups(&self, numbers: &mut Numbers) -> rusqlite::Result<i64> {
        if let Some(count) = numbers.count {
            return Ok(count);
        }
        let count = self.db.query_row("SELECT COUNT(*) FROM grp", [], |row| row.get(0))?;
        numbers.count = Some(count);
        Ok(count)
    }

    fn group_number(&self, id: &str) -> rusqlite::Result<Option<i64>> {
        self.db.prepare_cached("SELECT n FROM grp WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()
    }

    fn add_group(&self, row: &GroupRow, letter: &Letter) -> rusqlite::Result<i64> {
        let sql = "INSERT INTO grp (id, class, reason, shape, first_seen, other) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let given = params![row.id, row.class, row.reason, row.shape, letter.at.appended.as_millis(), row.is_other];
        self.db.prepare_cached(sql)?.execute(given)?;
        Ok(self.db.last_insert_rowid())
    }

    fn topic_of(&self, name: &str, numbers: &mut Numbers) -> rusqlite::Result<i64> {
        if let Some(number) = numbers.topics.get(name) {
            return Ok(*number);
        }
        let known =
            self.db.prepare_cached("SELECT n FROM topic WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()?;
        let number = match known {
            Some(number) => number,
            None if self.db.query_row("SELECT COUNT(*) FROM topic", [], |row| row.get::<_, i64>(0))? < MOST_TOPICS => {
                self.db.execute("INSERT INTO topic (name) VALUES (?1)", [name])?;
                self.db.last_insert_rowid()
            }
            None => OTHER_TOPIC,
        };
        numbers.topics.insert(name.to_owned(), number);
        Ok(number)
    }

    fn take_entry(&mut self, entry: &DeadLetterEntry) -> rusqlite::Result<()> {
        match entry {
            DeadLetterEntry::Fate(letter, fate) => {
                let (number, appended) = (schema::number(letter.partition, letter.offset), letter.appended.as_millis());
                if let Some(fate) = fate {
                    self.has_fates = true;
                    let json = serde_json::to_string(fate).unwrap_or_default();
                    let state = schema::state_number(fate.state);
                    let sql = "INSERT OR REPLACE INTO fate VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                    self.db.prepare_cached(sql)?.execute(params![number, appended, state, fate.job, fate.id, json])?;
                } else {
                    let sql = "DELETE FROM fate WHERE n = ?1 AND appended = ?2";
                    self.db.prepare_cached(sql)?.execute([number, appended])?;
                }
                self.derive_again(number)
            }
            DeadLetterEntry::Outcome(id, outcome) => {
                let id_hash = hash(id.as_bytes());
                match outcome {
                    Some(outcome) => self
                        .db
                        .prepare_cached("INSERT OR REPLACE INTO outcome VALUES (?1, ?2, ?3)")?
                        .execute(params![id_hash, id, outcome.redrives])?,
                    None => self
                        .db
                        .prepare_cached("DELETE FROM outcome WHERE id_hash = ?1 AND id = ?2")?
                        .execute(params![id_hash, id])?,
                };
                self.derive_all(id_hash)
            }
            DeadLetterEntry::Job(id, Some(job)) => {
                let json = serde_json::to_string(job).unwrap_or_default();
                self.db.prepare_cached("INSERT OR REPLACE INTO job VALUES (?1, ?2, ?3)")?.execute(params![id, job.at, json])?;
                Ok(())
            }
            DeadLetterEntry::Job(id, None) => self.db.execute("DELETE FROM job WHERE id = ?1", [id]).map(drop),
            // The process that runs the job reads it from the topic.
            DeadLetterEntry::Wish(..) => Ok(()),
            DeadLetterEntry::Lease(lease) => {
                let json = lease.as_ref().and_then(|lease| serde_json::to_string(lease).ok());
                self.db.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('lease', ?1)")?.execute([json]).map(drop)
            }
        }
    }

    fn derive_all(&self, id_hash: i64) -> rusqlite::Result<()> {
        let numbers: Vec<i64> = {
            let mut asked = self.db.prepare_cached("SELECT n FROM letter WHERE id_hash = ?1")?;
            asked.query_map([id_hash], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        numbers.into_iter().try_for_each(|number| self.derive_again(number))
    }

    /// The current state of a letter.
    fn derive_again(&self, number: i64) -> rusqlite::Result<()> {
        let sql = "SELECT l.redrives, l.state, f.state, l.id_hash, f.id FROM letter l
                   LEFT JOIN fate f ON f.n = l.n AND f.appended = l.appended WHERE l.n = ?1";
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<StateColumns> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        };
        let Some(columns) = self.db.prepare_cached(sql)?.query_row([number], read).optional()? else { return Ok(()) };
        let (redrives, before, fate, mut id_hash, sent_as) = columns;
        // A letter of another framework has no id until it was sent back.
        if let Some(id) = sent_as.filter(|id| id_hash != Some(hash(id.as_bytes()))) {
            id_hash = Some(hash(id.as_bytes()));
            self.db.prepare_cached("UPDATE letter SET id_hash = ?1 WHERE n = ?2")?.execute(params![id_hash, number])?;
            self.db.prepare_cached("UPDATE detail SET id = ?1 WHERE n = ?2")?.execute(params![id, number])?;
        }
        let fate = fate.map(schema::state_of);
        let (mut has_younger, mut done_at) = (false, None);
        if let Some(id_hash) = id_hash.filter(|_| fate == Some(LetterState::Redriven)) {
            let sql = "SELECT EXISTS (SELECT 1 FROM letter l JOIN detail d USING (n) WHERE l.id_hash = ?1 AND l.redrives > ?2
                       AND d.id = (SELECT id FROM detail WHERE n = ?3))";
            has_younger = self.db.prepare_cached(sql)?.query_row(params![id_hash, redrives, number], |row| row.get(0))?;
            let sql = "SELECT MAX(redrives) FROM outcome WHERE id_hash = ?1 AND id = (SELECT id FROM detail WHERE n = ?2)";
            done_at = self.db.prepare_cached(sql)?.query_row([id_hash, number], |row| row.get::<_, Option<u32>>(0))?;
        }
        let now = schema::state_number(derive(fate, redrives, has_younger, done_at, self.park_after));
        if now != before {
            self.db.prepare_cached("UPDATE letter SET state = ?1 WHERE n = ?2")?.execute([now, number])?;
        }
        Ok(())
    }
}

/// Headers as one value: each name and value with a length prefix; −1 for null.
pub(super) fn packed(headers: &[(Vec<u8>, Option<Vec<u8>>)]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    let mut put = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(bytes.unwrap_or_default());
    };
    for (name, value) in headers {
        put(Some(name));
        put(value.as_deref());
    }
    Some(out)
}

/// Reverses [`packed`].
pub(super) fn unpacked(mut bytes: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut take = || -> Option<Option<Vec<u8>>> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = i32::from_le_bytes(*length);
        let taken = usize::try_from(length).ok().map(|n| n.min(rest.len()));
        bytes = &rest[taken.unwrap_or(0)..];
        Some(taken.map(|n| rest[..n].to_vec()))
    };
    let mut out = Vec::new();
    while let (Some(name), Some(value)) = (take(), take()) {
        out.push((name.unwrap_or_default(), value));
    }
    out
}

/// An indexed token: a word, or a header with its value. Different tokens may have the same hash.
pub(super) struct Token(char, i64);

impl Token {
    /// A word in lower case.
    pub(super) fn word(word: &str) -> Self {
        Self('w', hash(word.as_bytes()))
    }

    /// A header with a text value.
    pub(super) fn header(name: &[u8], value: &str) -> Self {
        Self('h', hash(name) ^ hash(value.as_bytes()).rotate_left(17))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:x}", self.0, self.1 & 0xffff_ffff)
    }
}

/// Token of a letter with more words or headers than are indexed.
pub(super) const MANY: &str = "many";

fn tokens(letter: &Letter) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(200);
    let key = letter.key.as_deref().map(String::from_utf8_lossy);
    let texts = [letter.message.as_deref(), letter.class.as_deref(), key.as_deref()];
    let mut count = 0;
    for word in texts.into_iter().flatten().flat_map(words).take(MOST_WORDS) {
        let _ = write!(out, "{} ", Token::word(&word));
        count += 1;
    }
    for (name, value) in letter.headers.iter().take(MOST_WORDS) {
        if let Some(value) = value {
            let _ = write!(out, "{} ", Token::header(name, &String::from_utf8_lossy(value)));
        }
    }
    if count == MOST_WORDS || letter.headers.len() > MOST_WORDS {
        out.push_str(MANY);
    }
    out
}
