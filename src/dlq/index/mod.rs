//! The index of one dead-letter topic: a `SQLite` database beside it, which can be deleted at any time and is made again.
//!
//! The topics are the store of record: letters are in the DLQ, and what became of them is in the state topic. The index holds what can
//! be asked for (what the headers say, key, group, state, when), and payloads stay in Kafka. It is fed in batches, each with the
//! offsets up to which it has come, in one database transaction. So after a crash it goes on where it was, and several processes may
//! feed and ask one file: whoever comes second passes over what is there.
//!
//! What a letter *is* follows from what was read, in whatever order (see [`LetterState`]): its fate, whether a younger letter has its
//! id, and whether a worker has reported that the redriven record is done.
//!
//! Words, header values and keys are looked up by hashes, and every hit is compared with the text itself before it counts.

mod ask;
mod schema;
mod superset;
mod take;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use thiserror::Error;

use crate::core::dead_letter::{Fate, Job, Lease, LetterKey, LetterState, Wish};
use crate::core::time::Timestamp;
use crate::dlq::groups::hash;
pub use crate::dlq::index::ask::{Group, Order, Row, Sizes};
pub use crate::dlq::index::take::{Entered, Spot, Taken};

/// Why the index cannot be used.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The database failed.
    #[error("index of dead letters at {}: {source}; it may be deleted, and is made again from the topic", .path.display())]
    Database {
        /// The file; `:memory:` where there is none.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The folder cannot be made.
    #[error("state directory {}: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The topic is not the one that was indexed.
    #[error("the topic was made anew since it was indexed")]
    MadeAnew,
}

/// An open index.
pub struct Index {
    db: Connection,
    path: PathBuf,
    park_after: u32,
    groups: Groups,
    topics: Names,
    has_fates: bool,
    /// The positions that were written last.
    kept: Vec<(String, i32, i64)>,
}

/// Names that are many times the same, by number.
#[derive(Default)]
struct Names {
    numbers: HashMap<String, i64>,
    names: Vec<String>,
}

/// The groups that were seen, by number.
#[derive(Default)]
struct Groups {
    numbers: HashMap<String, i64>,
    all: BTreeMap<i64, GroupRow>,
}

/// What the letters of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupRow {
    id: String,
    class: Option<String>,
    reason: Option<String>,
    shape: String,
}

impl Index {
    /// Opens the index in this file, or makes it. One of another version, or one that is broken, is made anew.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(path: &Path, park_after: u32) -> Result<Self, IndexError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| IndexError::Folder { path: folder.to_owned(), source })?;
        }
        match Self::try_open(path, park_after) {
            Ok(Some(index)) => return Ok(index),
            Err(IndexError::Database { source, .. }) if is_broken(&source) => {
                tracing::warn!(path = %path.display(), error = %source, "index of dead letters is broken and is made anew");
            }
            Ok(None) => tracing::info!(path = %path.display(), "index of dead letters is of another version and is made anew"),
            Err(error) => return Err(error),
        }
        for end in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            let _ = std::fs::remove_file(PathBuf::from(name));
        }
        Self::try_open(path, park_after)?.ok_or(IndexError::MadeAnew)
    }

    /// An index that lives no longer than this process.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn in_memory(park_after: u32) -> Result<Self, IndexError> {
        let path = PathBuf::from(":memory:");
        let wrong = |source| IndexError::Database { path: path.clone(), source };
        let db = Connection::open_in_memory().map_err(wrong)?;
        schema::create(&db).map_err(wrong)?;
        Ok(Self::of(db, path, park_after))
    }

    fn try_open(path: &Path, park_after: u32) -> Result<Option<Self>, IndexError> {
        let wrong = |source| IndexError::Database { path: path.to_owned(), source };
        let db = Connection::open(path).map_err(wrong)?;
        if !schema::settle(&db).map_err(wrong)? {
            return Ok(None);
        }
        let mut index = Self::of(db, path.to_owned(), park_after);
        index.load()?;
        Ok(Some(index))
    }

    fn of(db: Connection, path: PathBuf, park_after: u32) -> Self {
        Self { db, path, park_after, groups: Groups::default(), topics: Names::default(), has_fates: false, kept: Vec::new() }
    }

    fn wrong(&self) -> impl Fn(rusqlite::Error) -> IndexError + use<> {
        let path = self.path.clone();
        move |source| IndexError::Database { path: path.clone(), source }
    }

    /// For a process that runs for long and asks little: the memory of what was read is small.
    ///
    /// # Errors
    /// When the database fails.
    pub fn be_small(&self) -> Result<(), IndexError> {
        schema::be_small(&self.db).map_err(self.wrong())
    }

    /// What another process may have added.
    fn load(&mut self) -> Result<(), IndexError> {
        let wrong = self.wrong();
        self.try_load().map_err(wrong)
    }

    fn try_load(&mut self) -> rusqlite::Result<()> {
        let known = self.groups.all.keys().next_back().copied().unwrap_or(0);
        let mut asked = self.db.prepare_cached("SELECT n, id, class, reason, shape FROM grp WHERE n > ?1")?;
        let rows = asked.query_map([known], |row| {
            let group = GroupRow { id: row.get(1)?, class: row.get(2)?, reason: row.get(3)?, shape: row.get(4)? };
            Ok((row.get::<_, i64>(0)?, group))
        })?;
        for row in rows {
            let (number, group) = row?;
            self.groups.numbers.insert(group.id.clone(), number);
            self.groups.all.insert(number, group);
        }
        let known = i64::try_from(self.topics.names.len()).unwrap_or(i64::MAX);
        let mut asked = self.db.prepare_cached("SELECT n, name FROM topic WHERE n > ?1 ORDER BY n")?;
        for row in asked.query_map([known], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))? {
            let (number, name) = row?;
            self.topics.numbers.insert(name.clone(), number);
            self.topics.names.push(name);
        }
        self.has_fates = self.db.query_row("SELECT EXISTS (SELECT 1 FROM fate)", [], |row| row.get(0))?;
        Ok(())
    }

    /// Where reading goes on, by topic and partition; a partition that was never read is absent.
    ///
    /// # Errors
    /// When the database fails.
    pub fn positions(&self) -> Result<Vec<(String, i32, i64)>, IndexError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let mut asked = self.db.prepare_cached("SELECT topic, partition, next FROM position")?;
            asked.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        };
        read().map_err(self.wrong())
    }

    /// The youngest letter of a partition.
    ///
    /// # Errors
    /// When the database fails.
    pub fn last_letter(&self, partition: i32) -> Result<Option<LetterKey>, IndexError> {
        let (from, to) = (schema::number(partition, 0), schema::number(partition + 1, 0));
        let mut asked = self
            .db
            .prepare_cached("SELECT n, appended FROM letter WHERE n >= ?1 AND n < ?2 ORDER BY n DESC LIMIT 1")
            .map_err(self.wrong())?;
        let found = asked.query_row([from, to], |row| Ok(schema::key(row.get(0)?, row.get(1)?))).optional();
        found.map_err(self.wrong())
    }

    /// Everything is forgotten, to be read again.
    ///
    /// # Errors
    /// When the database fails.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        schema::clear(&self.db).map_err(self.wrong())?;
        (self.groups, self.topics, self.has_fates) = (Groups::default(), Names::default(), false);
        self.kept.clear();
        Ok(())
    }

    /// Forgets the letters of a partition below an offset, which retention has taken. How many there were is returned.
    ///
    /// # Errors
    /// When the database fails.
    pub fn forget_below(&mut self, partition: i32, offset: i64) -> Result<usize, IndexError> {
        let (from, to) = (schema::number(partition, 0), schema::number(partition, offset));
        let forget = || -> rusqlite::Result<usize> {
            if !self
                .db
                .query_row("SELECT EXISTS (SELECT 1 FROM letter WHERE n >= ?1 AND n < ?2)", [from, to], |row| row.get(0))?
            {
                return Ok(0);
            }
            let tx = self.db.unchecked_transaction()?;
            tx.execute("DELETE FROM words WHERE rowid >= ?1 AND rowid < ?2", [from, to])?;
            tx.execute("DELETE FROM detail WHERE n >= ?1 AND n < ?2", [from, to])?;
            let forgotten = tx.execute("DELETE FROM letter WHERE n >= ?1 AND n < ?2", [from, to])?;
            tx.commit()?;
            Ok(forgotten)
        };
        forget().map_err(self.wrong())
    }

    /// The fates below these offsets, whose letters retention has taken, for their records to be forgotten too. At most so many, and of
    /// letters that were sent back none that is as young as `since`, in epoch milliseconds.
    ///
    /// # Errors
    /// When the database fails.
    pub fn fates_below(&self, below: &[(i32, i64)], since: i64, most: usize) -> Result<Vec<(LetterKey, Fate)>, IndexError> {
        let mut gone: Vec<(LetterKey, Fate)> = Vec::new();
        let read = |(partition, offset): (i32, i64), most: usize| -> rusqlite::Result<Vec<(LetterKey, String)>> {
            let mut asked = self.db.prepare_cached(
                "SELECT n, appended, json FROM fate WHERE n >= ?1 AND n < ?2 AND (state <> ?3 OR json_extract(json, '$.at') < ?4)
                 LIMIT ?5",
            )?;
            let (from, to) = (schema::number(partition, 0), schema::number(partition, offset));
            let sent = schema::state_number(LetterState::Redriven);
            let bounds = params![from, to, sent, since, i64::try_from(most).unwrap_or(0)];
            asked.query_map(bounds, |row| Ok((schema::key(row.get(0)?, row.get(1)?), row.get(2)?)))?.collect()
        };
        for bound in below {
            let found = read(*bound, most - gone.len()).map_err(self.wrong())?;
            gone.extend(found.into_iter().filter_map(|(key, json)| Some((key, serde_json::from_str(&json).ok()?))));
        }
        Ok(gone)
    }

    /// Whether there is a letter of the record with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn has_letter_of(&self, id: &str) -> Result<bool, IndexError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM letter WHERE id_hash = ?1)";
        let mut asked = self.db.prepare_cached(sql).map_err(self.wrong())?;
        asked.query_row([hash(id.as_bytes())], |row| row.get(0)).map_err(self.wrong())
    }

    /// What was done with a letter last.
    ///
    /// # Errors
    /// When the database fails.
    pub fn fate(&self, letter: LetterKey) -> Result<Option<Fate>, IndexError> {
        let number = schema::number(letter.partition, letter.offset);
        let json =
            self.text("SELECT json FROM fate WHERE n = ?1 AND appended = ?2", params![number, letter.appended.as_millis()])?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// All jobs, the youngest first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn jobs(&self) -> Result<Vec<Job>, IndexError> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut asked = self.db.prepare_cached("SELECT json FROM job ORDER BY at DESC, id DESC")?;
            asked.query_map([], |row| row.get(0))?.collect()
        };
        Ok(read().map_err(self.wrong())?.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
    }

    /// A job by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn job(&self, id: &str) -> Result<Option<Job>, IndexError> {
        let json = self.text("SELECT json FROM job WHERE id = ?1", [id])?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// What is asked of a job.
    ///
    /// # Errors
    /// When the database fails.
    pub fn wish(&self, job: &str) -> Result<Option<Wish>, IndexError> {
        let json = self.text("SELECT json FROM wish WHERE id = ?1", [job])?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Who redrives.
    ///
    /// # Errors
    /// When the database fails.
    pub fn lease(&self) -> Result<Option<Lease>, IndexError> {
        let json = self.text("SELECT value FROM meta WHERE name = 'lease'", [])?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    fn text(&self, sql: &str, given: impl rusqlite::Params) -> Result<Option<String>, IndexError> {
        let mut asked = self.db.prepare_cached(sql).map_err(self.wrong())?;
        asked.query_row(given, |row| row.get(0)).optional().map_err(self.wrong())
    }
}

/// What a letter is, from all that is known of it.
fn derive(fate: Option<LetterState>, redrives: u32, has_younger: bool, done_at: Option<u32>, park_after: u32) -> LetterState {
    match fate {
        Some(LetterState::Redriven) if has_younger => LetterState::FailedAgain,
        Some(LetterState::Redriven) if done_at.is_some_and(|done| done > redrives) => LetterState::Succeeded,
        Some(state) if state != LetterState::Open => state,
        _ if redrives >= park_after => LetterState::Parked,
        _ => LetterState::Open,
    }
}

/// A time as the database has it.
fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn is_broken(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
