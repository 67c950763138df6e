//! The content to send for a letter: its record unchanged, or changed.

use std::collections::BTreeMap;

use serde_json::json;

use crate::core::dead_letter::LetterKey;
use crate::dlq::content::{Body, Content};
use crate::dlq::payload::{Decoder, PayloadPart, named};
use crate::dlq::transform::Transform;
use crate::kafka::consumer::ConsumerRecord;

/// The new value with a diff, or why there is none.
pub type Changed = Result<(Option<Vec<u8>>, Option<String>), String>;

/// A function that changes values.
type Changing = Box<dyn FnMut(&Content) -> Changed>;

/// How letters are changed before they are sent.
#[derive(Default)]
pub struct LetterChange {
    transform: Option<Changing>,
    brought: Option<BTreeMap<LetterKey, Content>>,
    only: Option<Vec<LetterKey>>,
}

impl LetterChange {
    /// No change.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Changes each value.
    #[must_use]
    pub fn transform(transform: impl FnMut(&Content) -> Changed + 'static) -> Self {
        Self { transform: Some(Box::new(transform)), ..Self::default() }
    }

    /// Changes each value by a jq program.
    #[must_use]
    pub fn by_program(program: Transform, mut decoder: Decoder) -> Self {
        Self::transform(move |content| {
            let after = changed(&program, &mut decoder, content)?;
            let is_other = content.value.as_deref() != Some(after.as_slice());
            Ok((Some(after), is_other.then(|| format!("jq: {}", program.program()))))
        })
    }

    /// Only these letters, with the given content.
    #[must_use]
    pub fn brought(letters: BTreeMap<LetterKey, Content>) -> Self {
        Self { only: Some(letters.keys().copied().collect()), brought: Some(letters), transform: None }
    }

    /// The letters to send, if not all that a job has selected.
    pub(super) fn only(&self) -> Option<&[LetterKey]> {
        self.only.as_deref()
    }

    pub(super) fn brings(&self, letter: &LetterKey) -> bool {
        self.brought.as_ref().is_some_and(|brought| brought.contains_key(letter))
    }

    /// The content to send for a fetched letter; an error if the record no longer exists and no content was
    /// given.
    pub(super) fn body(&mut self, letter: LetterKey, fetched: Option<ConsumerRecord>) -> Result<Body, String> {
        let brought = self.brought.as_ref().and_then(|brought| brought.get(&letter));
        let mut content = match (brought, &self.transform, fetched) {
            (Some(content), ..) => content.clone(),
            (None, _, None) => return Err("no longer in the topic".to_owned()),
            // It would be sent without those headers, unnoticed.
            (None, _, Some(record)) if record.header_fault().is_some() => {
                return Err(record.header_fault().map_or_else(String::new, |fault| fault.to_string()));
            }
            (None, None, Some(record)) => return Ok(Body::Fetched(record)),
            (None, Some(_), Some(record)) => Content::of(&record),
        };
        if let Some(transform) = &mut self.transform {
            (content.value, content.diff) = transform(&content)?;
        }
        Ok(Body::Made(content))
    }
}

/// The result of a program for a value; a value that names a schema is changed as JSON, and encoded again under the same
/// schema.
///
/// # Errors
/// The program fails, or its result does not fit the schema.
pub fn changed(transform: &Transform, decoder: &mut Decoder, content: &Content) -> Result<Vec<u8>, String> {
    let value = content.value.as_deref();
    let apply = |value: Option<&[u8]>| transform.apply(value, &known(content)).map_err(|error| error.to_string());
    let decoded = decoder.decode(value, named(&content.headers, PayloadPart::Value).as_ref());
    let (Some(_), Some(json)) = (&decoded.schema, &decoded.json) else { return apply(value) };
    let after = apply(Some(json.to_string().as_bytes()))?;
    let after = serde_json::from_slice(&after).map_err(|error| error.to_string())?;
    decoder.encode(&decoded, &after).map_err(|error| error.to_string())
}

/// The `$letter` of a program.
fn known(content: &Content) -> serde_json::Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: serde_json::Map<String, serde_json::Value> =
        content.headers.iter().map(|(name, value)| (text(name), json!(value.as_deref().map(text)))).collect();
    json!({ "key": content.key.as_deref().map(text), "timestamp_ms": content.appended.as_millis(), "headers": headers })
}
