//! What is read from the topics goes into the index.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::core::dead_letter::{Entry, LetterState};
use crate::dlq::filter::words;
use crate::dlq::groups::{group_id, hash, shape};
use crate::dlq::index::{GroupRow, Index, IndexError, derive, schema};
use crate::dlq::letter::Letter;

/// One record of a topic, read.
pub enum Taken {
    /// A dead letter.
    Letter(Box<Entered>),
    /// What the state topic says, and where it stands.
    Entry(Box<Entry>, Spot),
}

/// A place in the state topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A letter with all that is made of it for the index: made where it is read, since the database has one thread.
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

/// No more words of a letter are looked up by than these.
const MOST_WORDS: usize = 200;

/// What is known of a letter: redrives, state, its fate, the hash of its id, and the id that it was sent with.
type Known = (u32, i64, Option<i64>, Option<i64>, Option<String>);

impl Index {
    /// Takes a batch in, and the positions up to which the topics are read with it. What is there already is passed over. How many
    /// letters were new is returned.
    ///
    /// # Errors
    /// When the database fails, or holds another letter at the place of one of these.
    pub fn take(&mut self, batch: &[Taken], positions: &[(String, i32, i64)]) -> Result<usize, IndexError> {
        self.load()?;
        // Whoever feeds it asks again and again, and mostly for nothing.
        if batch.is_empty() && self.kept == positions {
            return Ok(0);
        }
        let wrong = self.wrong();
        // Nobody else feeds it until this is in. By hand, since it spans calls that borrow the whole index.
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(&wrong)?;
        match self.take_open(batch, positions) {
            Ok(new) => {
                self.db.execute_batch("COMMIT").map_err(&wrong)?;
                self.kept = positions.to_vec();
                Ok(new)
            }
            Err(error) => {
                let _ = self.db.execute_batch("ROLLBACK");
                (self.groups, self.topics) = Default::default();
                self.load()?;
                Err(error)
            }
        }
    }

    fn take_open(&mut self, batch: &[Taken], positions: &[(String, i32, i64)]) -> Result<usize, IndexError> {
        let wrong = self.wrong();
        let mut new = 0;
        let has_entries = batch.iter().any(|taken| matches!(taken, Taken::Entry(..)));
        let positions_before = if has_entries { self.positions()? } else { Vec::new() };
        let read: BTreeMap<(&str, i32), i64> =
            positions_before.iter().map(|(topic, partition, next)| ((topic.as_str(), *partition), *next)).collect();
        for taken in batch {
            match taken {
                Taken::Letter(letter) => new += usize::from(self.take_letter(letter)?),
                // Another process has read on meanwhile: what this one brings is older than what is there.
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

    fn take_letter(&mut self, entered: &Entered) -> Result<bool, IndexError> {
        let wrong = self.wrong();
        let letter = &entered.letter;
        let number = schema::number(letter.at.partition, letter.at.offset);
        let appended = letter.at.appended.as_millis();
        let group = self.group_of(entered).map_err(&wrong)?;
        let topic = letter.origin.topic.as_deref().map(|name| self.topic_of(name)).transpose().map_err(&wrong)?;
        let insert = |db: &Connection| -> rusqlite::Result<bool> {
            let sql = "INSERT OR IGNORE INTO letter VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
            let state = if letter.redrives >= self.park_after { LetterState::Parked } else { LetterState::Open };
            let inserted = db.prepare_cached(sql)?.execute(params![
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
            if inserted == 0 {
                return Ok(false);
            }
            db.prepare_cached("INSERT INTO detail VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
                number,
                letter.key,
                letter.id,
                letter.message,
                entered.headers,
            ])?;
            db.prepare_cached("INSERT INTO words (rowid, t) VALUES (?1, ?2)")?.execute(params![number, entered.tokens])?;
            Ok(true)
        };
        if !insert(&self.db).map_err(&wrong)? {
            let known: i64 =
                self.db.query_row("SELECT appended FROM letter WHERE n = ?1", [number], |row| row.get(0)).map_err(&wrong)?;
            return if known == appended { Ok(false) } else { Err(IndexError::MadeAnew) };
        }
        if self.has_fates {
            self.derive_again(number).map_err(&wrong)?;
        }
        if let Some(id_hash) = entered.id_hash.filter(|_| letter.redrives > 0) {
            self.derive_all(id_hash).map_err(&wrong)?;
        }
        Ok(true)
    }

    fn group_of(&mut self, entered: &Entered) -> rusqlite::Result<i64> {
        if let Some(number) = self.groups.numbers.get(&entered.group) {
            return Ok(*number);
        }
        let (letter, id, shape) = (&entered.letter, entered.group.clone(), entered.shape.clone());
        let (class, reason) = (letter.class.clone(), letter.reason.map(str::to_owned));
        let sql = "INSERT INTO grp (id, class, reason, shape, first_seen) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.db.execute(sql, params![id, class, reason, shape, letter.at.appended.as_millis()])?;
        let number = self.db.last_insert_rowid();
        self.groups.numbers.insert(id.clone(), number);
        self.groups.all.insert(number, GroupRow { id, class, reason, shape });
        Ok(number)
    }

    fn topic_of(&mut self, name: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.topics.numbers.get(name) {
            return Ok(*number);
        }
        self.db.execute("INSERT INTO topic (name) VALUES (?1)", [name])?;
        let number = self.db.last_insert_rowid();
        self.topics.numbers.insert(name.to_owned(), number);
        self.topics.names.push(name.to_owned());
        Ok(number)
    }

    fn take_entry(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        match entry {
            Entry::Fate(letter, fate) => {
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
            Entry::Outcome(id, outcome) => {
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
            Entry::Job(id, Some(job)) => {
                let json = serde_json::to_string(job).unwrap_or_default();
                self.db.prepare_cached("INSERT OR REPLACE INTO job VALUES (?1, ?2, ?3)")?.execute(params![id, job.at, json])?;
                Ok(())
            }
            Entry::Job(id, None) => self.db.execute("DELETE FROM job WHERE id = ?1", [id]).map(drop),
            Entry::Wish(id, Some(wish)) => {
                let json = serde_json::to_string(wish).unwrap_or_default();
                self.db.execute("INSERT OR REPLACE INTO wish VALUES (?1, ?2)", params![id, json]).map(drop)
            }
            Entry::Wish(id, None) => self.db.execute("DELETE FROM wish WHERE id = ?1", [id]).map(drop),
            Entry::Lease(lease) => {
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

    /// What a letter is now.
    fn derive_again(&self, number: i64) -> rusqlite::Result<()> {
        let sql = "SELECT l.redrives, l.state, f.state, l.id_hash, f.id FROM letter l
                   LEFT JOIN fate f ON f.n = l.n AND f.appended = l.appended WHERE l.n = ?1";
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Known> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        };
        let Some(known) = self.db.prepare_cached(sql)?.query_row([number], read).optional()? else { return Ok(()) };
        let (redrives, before, fate, mut id_hash, sent_as) = known;
        // One of another framework had no id until it was sent back.
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

/// Headers in one value: for each its name and value, each behind its length; −1 for null.
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

/// What [`packed`] has made.
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

/// What letters are looked up by: a word, or a header with its value. Two may have one hash.
pub(super) struct Token(char, i64);

impl Token {
    /// Of a word in lower case.
    pub(super) fn word(word: &str) -> Self {
        Self('w', hash(word.as_bytes()))
    }

    /// Of a header with a value, as text.
    pub(super) fn header(name: &[u8], value: &str) -> Self {
        Self('h', hash(name) ^ hash(value.as_bytes()).rotate_left(17))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:x}", self.0, self.1 & 0xffff_ffff)
    }
}

/// What a letter is looked up by that has more words or headers than are kept.
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
