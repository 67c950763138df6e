//! The tables of the index.
//!
//! What is scanned (`letter`) is apart from what is only shown or compared (`detail`), so that a million letters are some 60 MB to go
//! through. A letter's number is its partition and offset in one, which makes partitions and offsets ranges of the primary key.

use rusqlite::Connection;

use crate::core::dead_letter::{LetterKey, LetterState};
use crate::core::time::Timestamp;

/// Of the tables; an index of another one is made anew.
const VERSION: i64 = 1;

/// Offsets take so many bits of a letter's number.
const OFFSET_BITS: u32 = 44;

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE position (topic TEXT, partition INTEGER, next INTEGER, PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE grp (n INTEGER PRIMARY KEY, id TEXT UNIQUE, class TEXT, reason TEXT, shape TEXT, first_seen INTEGER);
CREATE TABLE topic (n INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE letter (
  n INTEGER PRIMARY KEY, appended INTEGER, grp INTEGER, state INTEGER, tier INTEGER, topic INTEGER, origin_partition INTEGER,
  origin_offset INTEGER, attempts INTEGER, redrives INTEGER, status INTEGER, key_hash INTEGER, id_hash INTEGER, bytes INTEGER,
  first_failed INTEGER);
CREATE TABLE detail (n INTEGER PRIMARY KEY, key BLOB, id TEXT, message TEXT, headers BLOB);
CREATE TABLE fate (n INTEGER, appended INTEGER, state INTEGER, job TEXT, id TEXT, json TEXT, PRIMARY KEY (n, appended)) WITHOUT ROWID;
CREATE TABLE outcome (id_hash INTEGER, id TEXT, redrives INTEGER, PRIMARY KEY (id_hash, id)) WITHOUT ROWID;
CREATE TABLE job (id TEXT PRIMARY KEY, at INTEGER, json TEXT) WITHOUT ROWID;
CREATE TABLE wish (id TEXT PRIMARY KEY, json TEXT) WITHOUT ROWID;
CREATE INDEX letter_appended ON letter (appended);
CREATE INDEX letter_group ON letter (grp, appended, state, tier, topic);
CREATE INDEX letter_key ON letter (key_hash);
CREATE INDEX letter_id ON letter (id_hash);
CREATE INDEX letter_state ON letter (state, appended) WHERE state <> 0;
CREATE INDEX fate_job ON fate (job);
CREATE VIRTUAL TABLE words USING fts5 (t, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii');
";

/// Makes the tables where there are none. Whether the index is of this version is returned.
pub(super) fn settle(db: &Connection) -> rusqlite::Result<bool> {
    // What a killed process had not written is read again. Without WAL, readers and whoever feeds would wait for one another.
    db.pragma_update(None, "journal_mode", "WAL")?;
    // A process that is killed leaves it whole. A machine that is may not, and what is broken is made again from the topic.
    db.pragma_update(None, "synchronous", "OFF")?;
    db.pragma_update(None, "wal_autocheckpoint", 8_000)?;
    db.pragma_update(None, "cache_size", -131_072)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.busy_timeout(std::time::Duration::from_secs(30))?;
    // Two processes may come at once.
    let tx = rusqlite::Transaction::new_unchecked(db, rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        create(&tx)?;
    }
    tx.commit()?;
    Ok(version == 0 || version == VERSION)
}

pub(super) fn be_small(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "cache_size", -4_096)
}

pub(super) fn create(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(TABLES)?;
    // Words are gathered in memory before they are written: sorted runs of a megabyte, the default, are merged all the time.
    db.execute("INSERT INTO words(words, rank) VALUES ('hashsize', 16777216)", [])?;
    db.pragma_update(None, "user_version", VERSION)
}

pub(super) fn clear(db: &Connection) -> rusqlite::Result<()> {
    let tx = db.unchecked_transaction()?;
    for table in ["meta", "position", "grp", "topic", "letter", "detail", "fate", "outcome", "job", "wish"] {
        tx.execute(&format!("DELETE FROM {table}"), [])?;
    }
    tx.execute("INSERT INTO words(words) VALUES ('delete-all')", [])?;
    tx.commit()
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
