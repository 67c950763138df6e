//! The index of one dead-letter topic: a `SQLite` database, which can be deleted at any time and is rebuilt.
//!
//! The topics are the store of record: letters are in the DLQ, their states in the state topic. The index holds what can be searched
//! for (header fields, key, group, state, time); payloads stay in Kafka. It is updated in batches, each with the offsets that it
//! reaches, in one database transaction. So after a crash it continues where it was, and several processes may update and query one
//! file: a batch that is already there is skipped.
//!
//! The state of a letter follows from what was read, in any order (see [`LetterState`]): its last action, whether a younger letter
//! has its id, and whether a worker has reported that the redriven record is done.
//!
//! Words, header values and keys are looked up by hash, and every hit is compared with the actual text.
//!
//! Only query results are kept in memory. Groups and origin topics are removed with their last letter; their number is limited, and
//! further ones are merged (`MOST_GROUPS`, `MOST_TOPICS`), since both come from text that others have written.

mod ask;
mod schema;
mod superset;
mod take;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use thiserror::Error;

use crate::core::dead_letter::{Fate, Job, Lease, LetterKey, LetterState};
use crate::core::time::Timestamp;
use crate::dlq::groups::hash;
pub use crate::dlq::index::ask::{LetterGroup, LetterRow, Order, Sizes};
pub use crate::dlq::index::take::{Spot, Taken};
use crate::dlq::private;

/// Why the index cannot be used.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The database failed.
    #[error("index of dead letters at {}: {source}; it can be deleted and is rebuilt from the topic", .path.display())]
    Database {
        /// The file; `:memory:` without one.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The directory cannot be created.
    #[error("state directory {}: {source}", .path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The topic was recreated since it was indexed.
    #[error("the topic was recreated since it was indexed")]
    MadeAnew,
}

/// An open index.
pub struct Index {
    db: Connection,
    path: PathBuf,
    park_after: u32,
    has_fates: bool,
    /// The positions written last.
    kept: Vec<(String, i32, i64)>,
}

/// Maximum number of groups; letters of further ones share one group per reason. Each group costs as much as a letter, and a user who lists
/// groups wants few.
pub(super) const MOST_GROUPS: i64 = 10_000;

/// Maximum number of origin topics with a number.
pub(super) const MOST_TOPICS: i64 = 1_000;

/// The number of all further topics.
const OTHER_TOPIC: i64 = -1;

/// The name shown for merged groups and topics.
const OTHER: &str = "(other)";

/// The fields that the letters of a group share.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupRow {
    id: String,
    class: Option<String>,
    reason: Option<String>,
    shape: String,
    /// The merged group of a reason, whose letters have different classes.
    is_other: bool,
}

/// The additional files of a `SQLite` database.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

impl Index {
    /// Opens or creates the index in this file. An index of another version, or a broken one, is rebuilt.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &Path, park_after: u32) -> Result<Self, IndexError> {
        if let Some(folder) = path.parent() {
            private::make_folder(folder).map_err(|source| IndexError::Folder { path: folder.to_owned(), source })?;
        }
        match Self::try_open(path, park_after) {
            Err(IndexError::Database { source, .. }) if is_broken(&source) => {
                tracing::warn!(path = %path.display(), error = %source, "index of dead letters is broken: rebuilding it");
            }
            outcome => return outcome,
        }
        for end in ["", BESIDE[0], BESIDE[1]] {
            let _ = std::fs::remove_file(beside(path, end));
        }
        Self::try_open(path, park_after)
    }

    /// An index in memory, for this process only.
    ///
    /// # Errors
    /// Out of memory.
    pub fn in_memory(park_after: u32) -> Result<Self, IndexError> {
        let path = PathBuf::from(":memory:");
        let wrong = |source| IndexError::Database { path: path.clone(), source };
        let db = Connection::open_in_memory().map_err(wrong)?;
        schema::create(&db).map_err(wrong)?;
        Ok(Self::of(db, path, park_after))
    }

    fn try_open(path: &Path, park_after: u32) -> Result<Self, IndexError> {
        let wrong = |source| IndexError::Database { path: path.to_owned(), source };
        // SQLite creates its additional files with the mode of the database. If the file cannot be
        // created, SQLite reports that.
        let _ = private::append_to_file(path);
        for end in BESIDE {
            private::close_file(&beside(path, end));
        }
        let db = Connection::open(path).map_err(wrong)?;
        if schema::settle(&db).map_err(wrong)? {
            tracing::info!(path = %path.display(), "index of dead letters has another version: rebuilding it");
        }
        Ok(Self::of(db, path.to_owned(), park_after))
    }

    fn of(db: Connection, path: PathBuf, park_after: u32) -> Self {
        Self { db, path, park_after, has_fates: false, kept: Vec::new() }
    }

    fn wrong(&self) -> impl Fn(rusqlite::Error) -> IndexError + use<> {
        let path = self.path.clone();
        move |source| IndexError::Database { path: path.clone(), source }
    }

    /// For a process that runs long and queries little: a small page cache.
    ///
    /// # Errors
    /// When the database fails.
    pub fn be_small(&self) -> Result<(), IndexError> {
        schema::be_small(&self.db).map_err(self.wrong())
    }

    /// The positions where reading continues, by topic and partition; without partitions that were
    /// never read.
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

    /// Removes everything, to be read again.
    ///
    /// # Errors
    /// When the database fails.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        schema::clear(&self.db).map_err(self.wrong())?;
        self.kept.clear();
        Ok(())
    }

    /// Removes the letters of a partition below an offset, which retention has deleted. Returns their number.
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
            tx.execute("DELETE FROM grp WHERE NOT EXISTS (SELECT 1 FROM letter l WHERE l.grp = grp.n)", [])?;
            tx.execute("DELETE FROM topic WHERE NOT EXISTS (SELECT 1 FROM letter l WHERE l.topic = topic.n)", [])?;
            if !tx.query_row("SELECT EXISTS (SELECT 1 FROM letter)", [], |row| row.get(0))? {
                // Otherwise each letter would leave a deletion marker.
                tx.execute("INSERT INTO words(words) VALUES ('delete-all')", [])?;
            }
            tx.commit()?;
            schema::shrink(&self.db)?;
            Ok(forgotten)
        };
        forget().map_err(self.wrong())
    }

    /// States below these offsets, of deleted letters, whose records can be removed too. At most `most`, and for redriven letters none
    /// younger than `since`, in epoch milliseconds.
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

    /// The last action on a letter.
    ///
    /// # Errors
    /// When the database fails.
    pub fn fate(&self, letter: LetterKey) -> Result<Option<Fate>, IndexError> {
        let number = schema::number(letter.partition, letter.offset);
        let json =
            self.text("SELECT json FROM fate WHERE n = ?1 AND appended = ?2", params![number, letter.appended.as_millis()])?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// All jobs, youngest first.
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

    /// A job by name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn job(&self, id: &str) -> Result<Option<Job>, IndexError> {
        let json = self.text("SELECT json FROM job WHERE id = ?1", [id])?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// The current lease.
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

/// The state of a letter, derived from everything known.
fn derive(fate: Option<LetterState>, redrives: u32, has_younger: bool, done_at: Option<u32>, park_after: u32) -> LetterState {
    match fate {
        Some(LetterState::Redriven) if has_younger => LetterState::FailedAgain,
        Some(LetterState::Redriven) if done_at.is_some_and(|done| done > redrives) => LetterState::Succeeded,
        Some(state) if state != LetterState::Open => state,
        _ if redrives >= park_after => LetterState::Parked,
        _ => LetterState::Open,
    }
}

/// A time from the database.
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
