//! Bodies of JSON Schema: JSON after the frame.
//!
//! A changed body is **not** validated against its schema: crates that implement all of JSON Schema are larger than the rest of
//! this directory, and one that implements a part would accept what consumers refuse. The consumer's deserializer validates if
//! configured to.

use serde_json::Value;

use crate::dlq::payload::json_text::{self, JsonText};

/// Decodes a body.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(body: &[u8]) -> Result<JsonText, String> {
    json_text::read(body).ok_or_else(|| "the body is not JSON".to_owned())
}

/// Encodes a body: compact, with sorted keys.
pub(super) fn encode(json: &Value) -> Vec<u8> {
    json.to_string().into_bytes()
}
