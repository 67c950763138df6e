//! Converts payload bytes to readable form, and back.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

#[cfg(feature = "schemas")]
use crate::dlq::payload::avro::AvroSchema;
use crate::dlq::payload::framing::{Named, SchemaName};
#[cfg(feature = "schemas")]
use crate::dlq::payload::protobuf::ProtobufSchema;
use crate::dlq::payload::registry::{Registered, Registry, SchemaType};
use crate::dlq::payload::{framing, hex, json_schema, json_text};
use crate::kafka::clock::Clock;

/// An unreachable registry is asked again after this time: with a thousand payloads to show, the waits would add up.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Limit of the cache: payloads name the ids, and hostile ones any number of them.
const MOST_SCHEMAS: usize = 10_000;

/// The format of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadFormat {
    /// No value: a tombstone.
    Null,
    /// JSON as it is.
    Json,
    /// UTF-8 without control characters.
    Text,
    /// Any other bytes.
    Binary,
    /// Framed Avro.
    #[cfg(feature = "schemas")]
    Avro,
    /// Framed JSON.
    JsonSchema,
    /// Framed Protobuf.
    #[cfg(feature = "schemas")]
    Protobuf,
}

impl PayloadFormat {
    /// Its name, in text and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Json => "json",
            Self::Text => "text",
            Self::Binary => "binary",
            #[cfg(feature = "schemas")]
            Self::Avro => "avro",
            Self::JsonSchema => "json-schema",
            #[cfg(feature = "schemas")]
            Self::Protobuf => "protobuf",
        }
    }
}

impl fmt::Display for PayloadFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A payload in readable form.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Its format.
    pub format: PayloadFormat,
    /// Its JSON, if it has one.
    pub json: Option<Value>,
    /// The readable text: pretty-printed JSON, the text, or a hex dump; `null` for no value. Contains no control characters.
    pub text: String,
    /// Its schema, if the registry knows it.
    pub schema: Option<SchemaRef>,
    /// A note for the user: why it could not be decoded, or what encoding it again would change.
    pub note: Option<String>,
    original: Vec<u8>,
    /// The Protobuf message indexes given in a header.
    indexes: Option<Vec<usize>>,
    /// Why changed JSON cannot be encoded.
    loss: Option<String>,
}

/// The schema of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRef {
    /// Its id in the registry.
    pub id: SchemaName,
    /// A subject that it is registered under; there may be several.
    pub subject: Option<String>,
    /// Its version there.
    pub version: Option<u32>,
    /// The full name of the record or message.
    pub name: Option<String>,
    /// The bytes before the body, to be kept when it is encoded again; empty if a header names the schema.
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

/// Why JSON could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The payload was not JSON.
    #[error("a payload that is {0} has no JSON to change")]
    NoJson(PayloadFormat),
    /// The payload contains something that its JSON does not.
    #[error("a change would lose something: {0}")]
    WouldLose(String),
    /// The JSON does not match the schema.
    #[error("the JSON does not fit {schema}: {why}")]
    DoesNotFit {
        /// The schema.
        schema: String,
        /// Where, and why.
        why: String,
    },
    /// The schema is no longer available.
    #[error("{0}")]
    NoSchema(String),
}

/// Decodes and encodes payloads, and caches their schemas. Calls block while the registry is asked.
#[derive(Debug)]
pub struct Decoder {
    registry: Option<Registry>,
    schemas: HashMap<SchemaName, CachedSchema>,
    away: Option<Away>,
    clock: Clock,
}

#[derive(Debug)]
struct Away {
    until: Duration,
    why: String,
}

#[derive(Debug)]
enum CachedSchema {
    Known(Arc<Schema>),
    Unknown { until: Duration, why: String },
}

#[derive(Debug)]
struct Schema {
    subject_version: Option<(String, u32)>,
    /// A schema that does not compile will not compile the next time.
    compiled: Result<Compiled, String>,
}

#[derive(Debug)]
enum Compiled {
    #[cfg(feature = "schemas")]
    Avro(AvroSchema),
    Json,
    #[cfg(feature = "schemas")]
    Protobuf(ProtobufSchema),
}

/// A decoded body, before pretty-printing.
struct Body<'a> {
    format: PayloadFormat,
    name: Option<String>,
    json: Value,
    pretty: Option<String>,
    note: Option<String>,
    loss: Option<String>,
    bytes: &'a [u8],
}

impl Decoder {
    /// A decoder; without a registry, framed payloads are shown as bytes.
    #[must_use]
    pub fn new(registry: Option<Registry>) -> Self {
        Self::with_clock(registry, Clock::system())
    }

    /// With another clock, for tests.
    #[must_use]
    pub fn with_clock(registry: Option<Registry>, clock: Clock) -> Self {
        Self { registry, schemas: HashMap::new(), away: None, clock }
    }

    /// Decodes a payload, with what a header says about its schema ([`framing::named`]). Never fails: undecodable payloads are text or
    /// bytes, with a note.
    pub fn decode(&mut self, bytes: Option<&[u8]>, named: Option<&Named>) -> Decoded {
        let Some(bytes) = bytes else {
            return plain(PayloadFormat::Null, "null".to_owned(), &[]);
        };
        let split = || framing::split(bytes).map(|(id, rest)| (SchemaName::Id(id), rest));
        let Some((id, rest)) = named.map(|named| (named.schema, bytes)).or_else(split) else { return unframed(bytes) };
        let schema = match self.schema(id) {
            Ok(schema) => schema,
            Err(why) => return Decoded { note: Some(why), ..unframed(bytes) },
        };
        let (subject, version) = schema.subject_version.clone().unzip();
        let mut reference = SchemaRef { id, subject, version, name: None, framing: bytes[..bytes.len() - rest.len()].to_vec() };
        // If the header does not say, the first message of the file is meant.
        let indexes = named.map(|named| named.indexes.clone().unwrap_or_else(|| vec![0]));
        match decode_body(&schema, rest, indexes.as_deref()) {
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
                    indexes,
                    loss: body.loss,
                }
            }
            Err(why) => {
                let note =
                    if named.is_some() { format!("a header names {reference}: {why}") } else { format!("{reference}: {why}") };
                Decoded { note: Some(note), schema: Some(reference), ..unframed(bytes) }
            }
        }
    }

    /// Encodes JSON in the format, schema and frame of `like`. If it equals the JSON of `like`, the result is `like`'s exact
    /// bytes.
    ///
    /// Changed JSON is written compactly, with sorted keys.
    ///
    /// # Errors
    /// `like` has no JSON or contains what JSON does not, or the JSON does not match the schema.
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
            #[cfg(feature = "schemas")]
            Compiled::Avro(avro) => avro.encode(json),
            #[cfg(feature = "schemas")]
            Compiled::Protobuf(protobuf) => {
                let after_id = || Some(framing::message_indexes(framing::split(&bytes)?.1)?.0);
                let indexes = like.indexes.clone().or_else(after_id);
                let indexes = indexes.ok_or_else(|| EncodeError::NoSchema(format!("{reference}: {NO_WAY}")))?;
                protobuf.encode(&indexes, json)
            }
        };
        bytes.extend(body.map_err(|why| EncodeError::DoesNotFit { schema: reference.to_string(), why })?);
        Ok(bytes)
    }

    /// The schema of this name, or why there is none.
    fn schema(&mut self, id: SchemaName) -> Result<Arc<Schema>, String> {
        let Some(registry) = &self.registry else {
            return Err(match id {
                SchemaName::Id(_) => {
                    format!("it begins like a payload with schema {id} of a registry; configure it in [schema_registry]")
                }
                SchemaName::Guid(_) => format!("a header names schema {id} of a registry; configure it in [schema_registry]"),
            });
        };
        let now = self.clock.monotonic();
        match self.schemas.get(&id) {
            Some(CachedSchema::Known(schema)) => return Ok(Arc::clone(schema)),
            Some(CachedSchema::Unknown { until, why }) if now < *until => return Err(why.clone()),
            _ => {}
        }
        if let Some(away) = self.away.as_ref().filter(|away| now < away.until) {
            return Err(format!("schema {id}: {}", away.why));
        }
        let entry = match registry.schema(id) {
            Ok(registered) => CachedSchema::Known(Arc::new(compile(registered))),
            Err(error) => {
                let until = self.clock.monotonic() + ASK_AGAIN_AFTER;
                let why = format!("schema {id}: {error}");
                if error.is_away() {
                    self.away = Some(Away { until, why: error.to_string() });
                    return Err(why);
                }
                CachedSchema::Unknown { until, why }
            }
        };
        self.away = None;
        if self.schemas.len() >= MOST_SCHEMAS {
            self.schemas.clear();
        }
        let found = match &entry {
            CachedSchema::Known(schema) => Ok(Arc::clone(schema)),
            CachedSchema::Unknown { why, .. } => Err(why.clone()),
        };
        self.schemas.insert(id, entry);
        found
    }
}

#[cfg(feature = "schemas")]
const NO_WAY: &str = "there are no message indexes before the body";

fn compile(registered: Registered) -> Schema {
    Schema { compiled: compiled(&registered), subject_version: registered.subject_version }
}

/// A build without the compilers of schemas still shows what is JSON.
#[cfg(not(feature = "schemas"))]
fn compiled(registered: &Registered) -> Result<Compiled, String> {
    let language = match registered.schema_type {
        SchemaType::Json => return Ok(Compiled::Json),
        SchemaType::Avro => "Avro",
        SchemaType::Protobuf => "Protobuf",
    };
    Err(format!("this kladder was built without support for {language}: build it with `--features schemas`"))
}

#[cfg(feature = "schemas")]
fn compiled(registered: &Registered) -> Result<Compiled, String> {
    let references: Vec<(&str, &str)> = registered.references.iter().map(|r| (r.name.as_str(), r.text.as_str())).collect();
    let compiled = match registered.schema_type {
        SchemaType::Json => Ok(Compiled::Json),
        SchemaType::Avro => {
            let texts: Vec<&str> = references.iter().map(|(_, text)| *text).collect();
            AvroSchema::parse(&registered.text, &texts).map(Compiled::Avro)
        }
        SchemaType::Protobuf => ProtobufSchema::compile(&registered.text, &references).map(Compiled::Protobuf),
    };
    compiled.map_err(|why| format!("it cannot be compiled: {why}"))
}

fn decode_json(bytes: &[u8]) -> Result<Body<'_>, String> {
    let read = json_schema::decode(bytes)?;
    let (json, pretty, loss) = (read.value, Some(read.pretty), read.loss);
    Ok(Body { format: PayloadFormat::JsonSchema, name: None, json, pretty, note: loss_note(loss.as_deref()), loss, bytes })
}

#[cfg(not(feature = "schemas"))]
fn decode_body<'a>(schema: &Schema, bytes: &'a [u8], _indexes: Option<&[usize]>) -> Result<Body<'a>, String> {
    match schema.compiled.as_ref()? {
        Compiled::Json => decode_json(bytes),
    }
}

#[cfg(feature = "schemas")]
fn decode_body<'a>(schema: &Schema, bytes: &'a [u8], indexes: Option<&[usize]>) -> Result<Body<'a>, String> {
    const OTHERWISE: &str = "written by an encoder with another byte layout; a change encodes all of it anew";
    match schema.compiled.as_ref()? {
        Compiled::Json => decode_json(bytes),
        Compiled::Avro(avro) => {
            let body = avro.decode(bytes)?;
            let is_same = avro.encode(&body.json).is_ok_and(|again| again == bytes);
            let note = loss_note(body.loss.as_deref()).or_else(|| (!is_same).then(|| OTHERWISE.to_owned()));
            let (name, json, loss) = (avro.name().map(str::to_owned), body.json, body.loss);
            Ok(Body { format: PayloadFormat::Avro, name, json, pretty: None, note, loss, bytes })
        }
        Compiled::Protobuf(protobuf) => {
            let (indexes, bytes) = match indexes {
                Some(indexes) => (indexes.to_vec(), bytes),
                None => framing::message_indexes(bytes).ok_or(NO_WAY)?,
            };
            let body = protobuf.decode(&indexes, bytes)?;
            let note = loss_note(body.loss.as_deref()).or_else(|| body.is_laid_out_otherwise.then(|| OTHERWISE.to_owned()));
            let (name, json, loss) = (Some(body.name), body.json, body.loss);
            Ok(Body { format: PayloadFormat::Protobuf, name, json, pretty: None, note, loss, bytes })
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
            ..plain(PayloadFormat::Json, read.pretty, bytes)
        };
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) => {
            plain(PayloadFormat::Text, text.to_owned(), bytes)
        }
        _ => plain(PayloadFormat::Binary, hex::dump(bytes), bytes),
    }
}

fn plain(format: PayloadFormat, text: String, original: &[u8]) -> Decoded {
    Decoded { format, json: None, text, schema: None, note: None, original: original.to_vec(), indexes: None, loss: None }
}

#[cfg(feature = "schemas")]
#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
