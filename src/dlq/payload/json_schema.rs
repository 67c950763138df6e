//! Bodies of JSON Schema: JSON behind the frame.
//!
//! A changed body is **not** validated against its schema: the crates that know JSON Schema whole weigh more than the rest of this
//! folder, and one that knows a part would pass what consumers refuse. The consumer's deserializer validates, where it is told to.

use serde_json::Value;

use crate::dlq::payload::json_text::{self, JsonText};

/// Reads a body.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(body: &[u8]) -> Result<JsonText, String> {
    json_text::read(body).ok_or_else(|| "the body is no JSON".to_owned())
}

/// Writes a body: compact, with sorted keys.
pub(super) fn encode(json: &Value) -> Vec<u8> {
    json.to_string().into_bytes()
}
