//! Payloads as a person reads and changes them: JSON, text, bytes, and what a schema registry describes.
//!
//! A payload in the wire format of Confluent's serializers begins with a zero byte and the id of its schema (4 bytes, big-endian);
//! for Protobuf the indexes of the message in its file follow. The schema is fetched from the registry once, the body decoded to
//! JSON, and a changed JSON encoded again under the same id, behind exactly the bytes that stood before the body.
//!
//! - **Nothing is lost unsaid.** JSON that was not changed gives the very bytes that were read. What JSON cannot carry (fields that
//!   a Protobuf schema does not know, numbers of more digits than a double has) makes [`Decoder::encode`] refuse a change.
//! - **Looking never fails.** What cannot be decoded is shown as text or as a hex dump, with a note that says why.
//! - **Not read**: the newer form, in which the schema's GUID stands in a record header (`__value_schema_id`, `__key_schema_id`)
//!   and the payload has no frame. Such a payload looks like plain JSON or like bytes.
//!
//! How Avro is written as JSON stands in [`avro`]; Protobuf follows its own canonical JSON mapping, see [`protobuf`]; JSON Schema
//! does not validate, see [`json_schema`].

pub mod avro;
pub mod hex;
pub mod json_schema;
pub mod json_text;
pub mod protobuf;
pub mod registry;

mod avro_schema;
mod decoder;
mod framing;

pub use decoder::{Decoded, Decoder, EncodeError, Format, SchemaRef};
pub use registry::{Registry, RegistryError};
