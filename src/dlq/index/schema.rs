//! The tables of the index.
//!
//! Scanned columns (`letter`) are separate from those that are only shown or compared (`detail`), so that a million letters are about
//! 60 MB to scan. A letter's number combines partition and offset, which makes partitions and offsets ranges of the primary key.

use std::time::Duration;

use rusqlite::Connection;

use crate::core::dead_letter::{LetterKey, LetterState};
use crate::core::time::Timestamp;

/// Version of the tables; an index of another version is rebuilt.
const VERSION: i64 = 3;

/// Bits of a letter's number for the offset.
const OFFSET_BITS: u32 = 44;

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE position (topic TEXT, partition INTEGER, next INTEGER, PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE grp (n INTEGER PRIMARY KEY, id TEXT UNIQUE, class TEXT, reason TEXT, shape TEXT, first_seen INTEGER, other INTEGER);
CREATE TABLE topic (n INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE letter (
  n INTEGER PRIMARY KEY, appended INTEGER, grp INTEGER, state INTEGER, tier INTEGER, topic INTEGER, origin_partition INTEGER,
  origin_offset INTEGER, attempts INTEGER, redrives INTEGER, status INTEGER, key_hash INTEGER, id_hash INTEGER, bytes INTEGER,
  first_failed INTEGER);
CREATE TABLE detail (n INTEGER PRIMARY KEY, key BLOB, id TEXT, message TEXT, headers BLOB, class TEXT, origin TEXT);
CREATE TABLE fate (n INTEGER, appended INTEGER, state INTEGER, job TEXT, id TEXT, json TEXT, PRIMARY KEY (n, appended)) WITHOUT ROWID;
CREATE TABLE outcome (id_hash INTEGER, id TEXT, redrives INTEGER, PRIMARY KEY (id_hash, id)) WITHOUT ROWID;
CREATE TABLE job (id TEXT PRIMARY KEY, at INTEGER, json TEXT) WITHOUT ROWID;
CREATE INDEX letter_appended ON letter (appended);
CREATE INDEX letter_group ON letter (grp, appended, state, tier, topic);
CREATE INDEX letter_topic ON letter (topic);
CREATE INDEX letter_key ON letter (key_hash);
CREATE INDEX letter_id ON letter (id_hash);
CREATE INDEX letter_state ON letter (state, appended) WHERE state <> 0;
CREATE INDEX fate_job ON fate (job);
CREATE VIRTUAL TABLE words USING fts5 (t, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii');
";

/// How long to wait for another process, which writes one batch at a time.
const PATIENCE: Duration = Duration::from_secs(30);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Number of free pages from which they are returned to the system, and how many at a time.
const MANY_FREE: i64 = 256;
const GIVEN_BACK: i64 = 4_096;

/// Creates missing tables, and recreates those of another version, which is returned. Several processes may do so at once: the second one
/// finds the tables of the first.
pub(super) fn settle(db: &Connection) -> rusqlite::Result<bool> {
    db.busy_timeout(PATIENCE)?;
    // For a file without tables; it must precede any write.
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // Records that a killed process had not written are read again. Without WAL, readers and writers would block each other.
    patiently(|| db.pragma_update(None, "journal_mode", "WAL"))?;
    // A killed process leaves the file intact. After a machine crash it may be broken, and is then rebuilt from the topic.
    db.pragma_update(None, "synchronous", "OFF")?;
    db.pragma_update(None, "wal_autocheckpoint", 8_000)?;
    db.pragma_update(None, "cache_size", -131_072)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    let was_another = patiently(|| make(db))?;
    if was_another {
        // So that the file can shrink from now on. Fails if others use it.
        let _ = db.execute_batch("VACUUM");
    }
    Ok(was_another)
}

fn make(db: &Connection) -> rusqlite::Result<bool> {
    let tx = rusqlite::Transaction::new_unchecked(db, rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == VERSION {
        return Ok(false);
    }
    let tables: Vec<String> = {
        // The tables behind a virtual table are dropped with it.
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
                   AND (sql LIKE 'CREATE VIRTUAL%' OR name NOT LIKE 'words%')";
        let mut asked = tx.prepare(sql)?;
        asked.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    for table in &tables {
        tx.execute_batch(&format!("DROP TABLE \"{}\"", table.replace('"', "\"\"")))?;
    }
    create(&tx)?;
    tx.commit()?;
    Ok(!tables.is_empty())
}

/// The busy timeout does not cover everything: changing the journal mode fails at once if another process is active.
fn patiently<T>(mut work: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let mut tries = 0;
    loop {
        match work() {
            Err(error) if is_busy(&error) && BUSY_PAUSE * tries < PATIENCE => {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

/// Returns the file's free pages to the system if there are many.
pub(super) fn shrink(db: &Connection) -> rusqlite::Result<()> {
    let free = || db.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
    let mut left = free()?;
    if left < MANY_FREE {
        return Ok(());
    }
    while left > 0 {
        // One page per step.
        let mut asked = db.prepare(&format!("PRAGMA incremental_vacuum({GIVEN_BACK})"))?;
        let mut rows = asked.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        let now = free()?;
        if now >= left {
            break;
        }
        left = now;
    }
    // The truncation is first recorded in the WAL. If there are readers, the next checkpoint does it.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

pub(super) fn be_small(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "cache_size", -4_096)
}

pub(super) fn create(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(TABLES)?;
    // Words are collected in memory before they are written: with runs of a megabyte, the default, merging would never stop.
    db.execute("INSERT INTO words(words, rank) VALUES ('hashsize', 16777216)", [])?;
    db.pragma_update(None, "user_version", VERSION)
}

pub(super) fn clear(db: &Connection) -> rusqlite::Result<()> {
    let tx = db.unchecked_transaction()?;
    for table in ["meta", "position", "grp", "topic", "letter", "detail", "fate", "outcome", "job"] {
        tx.execute(&format!("DELETE FROM {table}"), [])?;
    }
    tx.execute("INSERT INTO words(words) VALUES ('delete-all')", [])?;
    tx.commit()?;
    shrink(db)
}

pub(super) fn number(partition: i32, offset: i64) -> i64 {
    (i64::from(partition) << OFFSET_BITS) | offset
}

pub(super) fn key(number: i64, appended: i64) -> LetterKey {
    LetterKey {
        partition: i32::try_from(number >> OFFSET_BITS).unwrap_or(i32::MAX),
        offset: number & ((1 << OFFSET_BITS) - 1),
        appended: Timestamp::from_millis(appended),
    }
}

pub(super) fn state_number(state: LetterState) -> i64 {
    let position = LetterState::ALL.iter().position(|s| *s == state);
    position.and_then(|n| i64::try_from(n).ok()).unwrap_or(0)
}

pub(super) fn state_of(number: i64) -> LetterState {
    usize::try_from(number).ok().and_then(|n| LetterState::ALL.get(n).copied()).unwrap_or(LetterState::Open)
}
