//! Deserialises the raw structs and finds every unknown key and wrong type, not only the first.
//!
//! serde stops at the first mistake. So the mistake is recorded, its node removed from the table, and the rest read again until it
//! succeeds: a loop over a small table, and every check stays where serde makes it. (`serde_ignored` would find unknown keys
//! only.)

use toml::{Table, Value};

use crate::config::document::kind;
use crate::config::keys;
use crate::config::mistake::Mistakes;
use crate::config::nearest::nearest;
use crate::config::path::{Path, Segment};
use crate::config::raw::{OF_ONE_LADDER, RawConfig};

/// Reads what can be read; mistakes are recorded.
pub fn read(table: Table, mistakes: &mut Mistakes) -> RawConfig {
    let mut root = Value::Table(table);
    for key in OF_ONE_LADDER {
        let path = Path::of("defaults").key(key);
        if remove(&mut root, path.segments()).is_some() {
            mistakes.note(&path, "does not belong here", Some("set it in each ladder".to_owned()));
        }
    }
    loop {
        let error = match serde_path_to_error::deserialize::<_, RawConfig>(root.clone()) {
            Ok(raw) => return raw,
            Err(error) => error,
        };
        let path = Path::from(error.path());
        let Some(removed) = remove(&mut root, path.segments()) else {
            // Not reached as long as serde names existing nodes; the alternative would be an endless loop.
            mistakes.note(&path, error.inner().message().to_owned(), None);
            return RawConfig::default();
        };
        let (what, hint) = explain(&path, error.inner().message(), &removed);
        mistakes.note(&path, what, hint);
    }
}

fn explain(path: &Path, message: &str, removed: &Value) -> (String, Option<String>) {
    if message.starts_with("unknown field") {
        return unknown_key(path, message);
    }
    let hint = keys::hint(path).map(str::to_owned);
    match message.split_once("expected ") {
        // serde quotes the value, which may be a secret; the collector shows it if it is not.
        Some((_, expected)) => {
            let expected = if expected.trim() == "a map" { "a table" } else { expected.trim() };
            let found = kind(removed);
            let what = if found == "a string" { format!("is not {expected}") } else { format!("is {found}, not {expected}") };
            (what, hint)
        }
        None => (message.trim().to_owned(), hint),
    }
}

fn unknown_key(path: &Path, message: &str) -> (String, Option<String>) {
    let key = path.last_key();
    if keys::is_later(path) {
        return ("is not implemented in this version".to_owned(), Some("remove it; it would have no effect".to_owned()));
    }
    if let Some(hint) = keys::misplaced(path) {
        return ("does not belong here".to_owned(), Some(hint.to_owned()));
    }
    // In "unknown field `x`, expected one of `a`, `b`" every other piece between backticks is a
    // name.
    let mut known: Vec<&str> = message.split('`').skip(1).step_by(2).skip(1).collect();
    if matches!(path.segments(), [Segment::Key(first), _] if first == "defaults") {
        known.retain(|key| !OF_ONE_LADDER.contains(key));
    }
    let hint = match nearest(key, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    ("is not a key that kladder knows".to_owned(), Some(hint))
}

fn remove(root: &mut Value, path: &[Segment]) -> Option<Value> {
    // An element of the wrong type removes its whole list: otherwise the indexes of the others
    // would change.
    let last = path.iter().rposition(|segment| matches!(segment, Segment::Key(_)))?;
    let Segment::Key(key) = &path[last] else { return None };
    let parent = path[..last].iter().try_fold(root, |value, segment| match segment {
        Segment::Key(key) => value.as_table_mut()?.get_mut(key),
        Segment::Index(index) => value.as_array_mut()?.get_mut(*index),
    })?;
    let removed = parent.as_table_mut()?.remove(key)?;
    path[last + 1..].iter().try_fold(removed, |value, segment| match (value, segment) {
        (Value::Array(elements), Segment::Index(index)) => elements.into_iter().nth(*index),
        _ => None,
    })
}
