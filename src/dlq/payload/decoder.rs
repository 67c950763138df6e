//! From bytes to what a person sees, and back.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::dlq::payload::avro::AvroSchema;
use crate::dlq::payload::protobuf::ProtobufSchema;
use crate::dlq::payload::registry::{Registered, Registry, SchemaType};
use crate::dlq::payload::{framing, hex, json_schema, json_text};
use crate::kafka::clock::Clock;

/// For so long a registry that did not answer is not asked again: with a thousand payloads to show, each wait would add up.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Payloads name the ids, and hostile ones any number of them.
const MOST_SCHEMAS: usize = 10_000;

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// No value: a tombstone.
    Null,
    /// JSON as it is.
    Json,
    /// UTF-8 without control characters.
    Text,
    /// Any other bytes.
    Binary,
    /// Framed Avro.
    Avro,
    /// Framed JSON.
    JsonSchema,
    /// Framed Protobuf.
    Protobuf,
}

impl Format {
    /// Its name, for people and machines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Json => "json",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Avro => "avro",
            Self::JsonSchema => "json-schema",
            Self::Protobuf => "protobuf",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A payload, as it is shown and changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What it is.
    pub format: Format,
    /// Its JSON, where it has one.
    pub json: Option<Value>,
    /// What a person sees: JSON laid out, the text, or a hex dump; `null` for none. Without characters that a terminal obeys.
    pub text: String,
    /// The schema that it names, where the registry knows it.
    pub schema: Option<SchemaRef>,
    /// What a person should know: why it could not be decoded, or what would become of it when it is encoded again.
    pub note: Option<String>,
    original: Vec<u8>,
    /// Why a changed JSON cannot be encoded.
    loss: Option<String>,
}

/// The schema of a framed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRef {
    /// Its id in the registry.
    pub id: u32,
    /// A subject that it is registered under; there may be several.
    pub subject: Option<String>,
    /// Its version there.
    pub version: Option<u32>,
    /// The full name of the record or message.
    pub name: Option<String>,
    /// All bytes that stood before the body, for it to be framed in the same way again.
    pub framing: Vec<u8>,
}

impl fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schema {}", self.id)?;
        if let (Some(subject), Some(version)) = (&self.subject, self.version) {
            write!(f, " ({subject} v{version})")?;
        }
        Ok(())
    }
}

/// Why JSON could not be turned into a payload.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The payload was never JSON.
    #[error("a payload that is {0} has no JSON to change")]
    NoJson(Format),
    /// The payload holds what its JSON does not.
    #[error("a change would lose something: {0}")]
    WouldLose(String),
    /// The JSON does not fit the schema.
    #[error("the JSON does not fit {schema}: {why}")]
    DoesNotFit {
        /// Which schema.
        schema: String,
        /// Where, and why.
        why: String,
    },
    /// The schema is not to be had any more.
    #[error("{0}")]
    NoSchema(String),
}

/// Decodes payloads and encodes them again; keeps the schemas that it has met. Its calls block while the registry is asked.
#[derive(Debug)]
pub struct Decoder {
    registry: Option<Registry>,
    schemas: HashMap<u32, Entry>,
    away: Option<Away>,
    clock: Clock,
}

#[derive(Debug)]
struct Away {
    until: Duration,
    why: String,
}

#[derive(Debug)]
enum Entry {
    Known(Arc<Schema>),
    Unknown { until: Duration, why: String },
}

#[derive(Debug)]
struct Schema {
    registered_as: Option<(String, u32)>,
    /// A schema that cannot be compiled will not be compiled the next time.
    compiled: Result<Compiled, String>,
}

#[derive(Debug)]
enum Compiled {
    Avro(AvroSchema),
    Json,
    Protobuf(ProtobufSchema),
}

/// A decoded body, before it is laid out.
struct Body<'a> {
    format: Format,
    name: Option<String>,
    json: Value,
    pretty: Option<String>,
    note: Option<String>,
    loss: Option<String>,
    bytes: &'a [u8],
}

impl Decoder {
    /// A decoder; without a registry framed payloads are shown as bytes.
    #[must_use]
    pub fn new(registry: Option<Registry>) -> Self {
        Self::with_clock(registry, Clock::system())
    }

    /// The same with another clock, for tests.
    #[must_use]
    pub fn with_clock(registry: Option<Registry>, clock: Clock) -> Self {
        Self { registry, schemas: HashMap::new(), away: None, clock }
    }

    /// What the bytes are. Never fails: what cannot be decoded is text or bytes, with a note.
    pub fn decode(&mut self, bytes: Option<&[u8]>) -> Decoded {
        let Some(bytes) = bytes else {
            return plain(Format::Null, "null".to_owned(), &[]);
        };
        let Some((id, rest)) = framing::split(bytes) else { return unframed(bytes) };
        let schema = match self.schema(id) {
            Ok(schema) => schema,
            Err(why) => return Decoded { note: Some(why), ..unframed(bytes) },
        };
        let (subject, version) = schema.registered_as.clone().unzip();
        let mut reference = SchemaRef { id, subject, version, name: None, framing: bytes[..bytes.len() - rest.len()].to_vec() };
        match decode_body(&schema, rest) {
            Ok(body) => {
                reference.name = body.name;
                reference.framing = bytes[..bytes.len() - body.bytes.len()].to_vec();
                Decoded {
                    format: body.format,
                    text: body.pretty.unwrap_or_else(|| json_text::pretty(&body.json)),
                    json: Some(body.json),
                    schema: Some(reference),
                    note: body.note,
                    original: bytes.to_vec(),
                    loss: body.loss,
                }
            }
            Err(why) => Decoded { note: Some(format!("{reference}: {why}")), schema: Some(reference), ..unframed(bytes) },
        }
    }

    /// A payload of this JSON in the format, the schema and the frame of `like`. JSON that is that of `like` gives its very bytes.
    ///
    /// Changed JSON is written compactly, with sorted keys.
    ///
    /// # Errors
    /// When `like` has no JSON or holds what JSON does not, or the JSON does not fit the schema.
    pub fn encode(&mut self, like: &Decoded, json: &Value) -> Result<Vec<u8>, EncodeError> {
        let Some(before) = &like.json else { return Err(EncodeError::NoJson(like.format)) };
        if json == before {
            return Ok(like.original.clone());
        }
        if let Some(loss) = &like.loss {
            return Err(EncodeError::WouldLose(loss.clone()));
        }
        let Some(reference) = &like.schema else { return Ok(json_schema::encode(json)) };
        let mut bytes = reference.framing.clone();
        let schema = self.schema(reference.id).map_err(EncodeError::NoSchema)?;
        let body = match schema.compiled.as_ref().map_err(|why| EncodeError::NoSchema(format!("{reference}: {why}")))? {
            Compiled::Json => Ok(json_schema::encode(json)),
            Compiled::Avro(avro) => avro.encode(json),
            Compiled::Protobuf(protobuf) => {
                let after_id = framing::split(&bytes).and_then(|(_, rest)| framing::message_indexes(rest));
                let (indexes, _) = after_id.ok_or_else(|| EncodeError::NoSchema(format!("{reference}: {NO_WAY}")))?;
                protobuf.encode(&indexes, json)
            }
        };
        bytes.extend(body.map_err(|why| EncodeError::DoesNotFit { schema: reference.to_string(), why })?);
        Ok(bytes)
    }

    /// The schema of an id, or why there is none.
    fn schema(&mut self, id: u32) -> Result<Arc<Schema>, String> {
        let Some(registry) = &self.registry else {
            return Err(format!("it begins like a payload with schema {id} of a registry; name that below [schema_registry]"));
        };
        let now = self.clock.monotonic();
        match self.schemas.get(&id) {
            Some(Entry::Known(schema)) => return Ok(Arc::clone(schema)),
            Some(Entry::Unknown { until, why }) if now < *until => return Err(why.clone()),
            _ => {}
        }
        if let Some(away) = self.away.as_ref().filter(|away| now < away.until) {
            return Err(format!("schema {id}: {}", away.why));
        }
        let entry = match registry.schema(id) {
            Ok(registered) => Entry::Known(Arc::new(compile(registered))),
            Err(error) => {
                let until = self.clock.monotonic() + ASK_AGAIN_AFTER;
                let why = format!("schema {id}: {error}");
                if error.is_away() {
                    self.away = Some(Away { until, why: error.to_string() });
                    return Err(why);
                }
                Entry::Unknown { until, why }
            }
        };
        self.away = None;
        if self.schemas.len() >= MOST_SCHEMAS {
            self.schemas.clear();
        }
        let found = match &entry {
            Entry::Known(schema) => Ok(Arc::clone(schema)),
            Entry::Unknown { why, .. } => Err(why.clone()),
        };
        self.schemas.insert(id, entry);
        found
    }
}

const NO_WAY: &str = "no way to a message stands before the body";

fn compile(registered: Registered) -> Schema {
    let references: Vec<(&str, &str)> = registered.references.iter().map(|r| (r.name.as_str(), r.text.as_str())).collect();
    let compiled = match registered.schema_type {
        SchemaType::Json => Ok(Compiled::Json),
        SchemaType::Avro => {
            let texts: Vec<&str> = references.iter().map(|(_, text)| *text).collect();
            AvroSchema::parse(&registered.text, &texts).map(Compiled::Avro)
        }
        SchemaType::Protobuf => ProtobufSchema::compile(&registered.text, &references).map(Compiled::Protobuf),
    };
    let compiled = compiled.map_err(|why| format!("it cannot be understood: {why}"));
    Schema { registered_as: registered.registered_as, compiled }
}

fn decode_body<'a>(schema: &Schema, bytes: &'a [u8]) -> Result<Body<'a>, String> {
    const OTHERWISE: &str = "written by an encoder that lays bytes out in another way; a change writes all of it anew";
    match schema.compiled.as_ref()? {
        Compiled::Json => {
            let read = json_schema::decode(bytes)?;
            let (json, pretty, loss) = (read.value, Some(read.pretty), read.loss);
            Ok(Body { format: Format::JsonSchema, name: None, json, pretty, note: loss_note(loss.as_deref()), loss, bytes })
        }
        Compiled::Avro(avro) => {
            let body = avro.decode(bytes)?;
            let is_same = avro.encode(&body.json).is_ok_and(|again| again == bytes);
            let note = loss_note(body.loss.as_deref()).or_else(|| (!is_same).then(|| OTHERWISE.to_owned()));
            let (name, json, loss) = (avro.name().map(str::to_owned), body.json, body.loss);
            Ok(Body { format: Format::Avro, name, json, pretty: None, note, loss, bytes })
        }
        Compiled::Protobuf(protobuf) => {
            let (indexes, bytes) = framing::message_indexes(bytes).ok_or(NO_WAY)?;
            let body = protobuf.decode(&indexes, bytes)?;
            let note = loss_note(body.loss.as_deref()).or_else(|| body.is_laid_out_otherwise.then(|| OTHERWISE.to_owned()));
            let (name, json, loss) = (Some(body.name), body.json, body.loss);
            Ok(Body { format: Format::Protobuf, name, json, pretty: None, note, loss, bytes })
        }
    }
}

fn loss_note(loss: Option<&str>) -> Option<String> {
    loss.map(|loss| format!("cannot be changed without a loss: {loss}"))
}

fn unframed(bytes: &[u8]) -> Decoded {
    if let Some(read) = json_text::read(bytes) {
        return Decoded {
            json: Some(read.value),
            note: loss_note(read.loss.as_deref()),
            loss: read.loss,
            ..plain(Format::Json, read.pretty, bytes)
        };
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) => {
            plain(Format::Text, text.to_owned(), bytes)
        }
        _ => plain(Format::Binary, hex::dump(bytes), bytes),
    }
}

fn plain(format: Format, text: String, original: &[u8]) -> Decoded {
    Decoded { format, json: None, text, schema: None, note: None, original: original.to_vec(), loss: None }
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
