//! What is sent of a letter: its record as it is, or as somebody has changed it.

use std::collections::BTreeMap;

use crate::core::dead_letter::LetterKey;
use crate::dlq::content::{Body, Content};
use crate::kafka::consumer::Record;

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

    /// What is sent of a letter, of which this was fetched; `None` where it is gone and was not brought along.
    pub(super) fn body(&mut self, letter: LetterKey, fetched: Option<Record>) -> Result<Body, String> {
        let brought = self.brought.as_ref().and_then(|brought| brought.get(&letter));
        let mut content = match (brought, &self.transform, fetched) {
            (Some(content), ..) => content.clone(),
            (None, _, None) => return Err("gone from the topic".to_owned()),
            (None, None, Some(record)) => return Ok(Body::Fetched(record)),
            (None, Some(_), Some(record)) => Content::of(&record),
        };
        if let Some(transform) = &mut self.transform {
            (content.value, content.diff) = transform(&content)?;
        }
        Ok(Body::Made(content))
    }
}
