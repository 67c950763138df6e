//! Payloads in readable and editable form: JSON, text, bytes, and formats described by a schema
//! registry.
//!
//! A payload in the wire format of Confluent's serializers begins with a zero byte and the schema id (4 bytes, big-endian), for
//! Protobuf followed by the message indexes. The schema is fetched from the registry once, the body decoded to JSON, and changed
//! JSON encoded again under the same id, after exactly the same bytes before the body.
//!
//! - **No silent loss.** JSON that was not changed gives the exact bytes that were read. If JSON cannot represent something (fields
//!   that a Protobuf schema does not have, numbers with more digits than a double), [`Decoder::encode`] refuses a change.
//! - **Decoding never fails.** Undecodable payloads are shown as text or as a hex dump, with a note that says why.
//! - **Evidence.** If a header names the schema ([`framing::named`]), the payload has no frame, even if it begins with a zero, as an Avro
//!   body does whose first field is 0 or a first union branch. Without such a header, a zero byte may begin a frame: it is taken for one if
//!   the registry knows the schema and the whole body matches it.
//!
//! For the JSON form of Avro see [`avro`]; Protobuf uses its canonical JSON mapping, see [`protobuf`]; JSON Schema is not
//! validated, see [`json_schema`].

#[cfg(feature = "schemas")]
pub mod avro;
pub mod hex;
pub mod json_schema;
pub mod json_text;
#[cfg(feature = "schemas")]
pub mod protobuf;
pub mod registry;

#[cfg(feature = "schemas")]
mod avro_schema;
mod decoder;
mod framing;

pub use decoder::{Decoded, Decoder};
#[cfg(feature = "internals")]
pub use decoder::{EncodeError, PayloadFormat};
pub use framing::{Named, PayloadPart, named};
pub use registry::Registry;
