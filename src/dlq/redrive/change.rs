//! What is sent of a letter: its record as it is, or as somebody has changed it.

use std::collections::BTreeMap;

use crate::core::dead_letter::LetterKey;
use crate::core::time::Timestamp;
use crate::kafka::consumer::Record;

/// A record without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// When the broker appended it.
    pub appended: Timestamp,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, all of them.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What was changed, as a diff.
    pub diff: Option<String>,
}

impl Content {
    /// A copy of a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self {
            appended: record.timestamp(),
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
            headers: record.headers().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
            diff: None,
        }
    }

    /// How long it is, headers left out.
    pub(super) fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// The value that a letter's becomes, with a diff, or why it cannot.
pub type Changed = Result<(Option<Vec<u8>>, Option<String>), String>;

/// A change of values.
type Transform = Box<dyn FnMut(&Content) -> Changed>;

/// What letters become before they are sent.
#[derive(Default)]
pub struct Change {
    transform: Option<Transform>,
    brought: Option<BTreeMap<LetterKey, Content>>,
    only: Option<Vec<LetterKey>>,
}

impl Change {
    /// They go as they are.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Each value goes through this.
    #[must_use]
    pub fn transform(transform: impl FnMut(&Content) -> Changed + 'static) -> Self {
        Self { transform: Some(Box::new(transform)), ..Self::default() }
    }

    /// Only these letters, as they are brought along.
    #[must_use]
    pub fn brought(letters: BTreeMap<LetterKey, Content>) -> Self {
        Self { only: Some(letters.keys().copied().collect()), brought: Some(letters), transform: None }
    }

    /// The letters that it is for, where it is not for all that a job has chosen.
    pub(super) fn only(&self) -> Option<&[LetterKey]> {
        self.only.as_deref()
    }

    pub(super) fn brings(&self, letter: &LetterKey) -> bool {
        self.brought.as_ref().is_some_and(|brought| brought.contains_key(letter))
    }

    pub(super) fn take(&mut self, letter: LetterKey) -> Option<Content> {
        self.brought.as_ref()?.get(&letter).cloned()
    }

    pub(super) fn apply(&mut self, mut content: Content) -> Result<Content, String> {
        if let Some(transform) = &mut self.transform {
            (content.value, content.diff) = transform(&content)?;
        }
        Ok(content)
    }
}
