//! Batches over HTTP: deliveries as one request body, and the answer that says what became of each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use http::header::HeaderMap;
use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::core::batch::BatchFormat;
use crate::core::envelope::cut;
use crate::core::failure::{Disposition, ErrorInfo, Failure};
use crate::core::fnv;
use crate::core::headers::Headers;
use crate::worker::delivery::Delivery;
use crate::worker::http_request::{given_content_type, put_delivery};

/// Maximum size of an answer that says what became of each record; a longer one is unreadable.
pub(super) const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Maximum size of a message of it.
const MESSAGE_BYTES: usize = 1024;

/// The body of a batch, and its content type.
pub(super) fn body(format: BatchFormat, batch: &[Delivery]) -> (HeaderValue, Bytes) {
    match format {
        BatchFormat::CloudEvents => {
            let events: Vec<CloudEvent<'_>> = batch.iter().map(CloudEvent).collect();
            (HeaderValue::from_static("application/cloudevents-batch+json; charset=utf-8"), json(&events).into())
        }
        BatchFormat::Ndjson => {
            let mut lines = Vec::new();
            for delivery in batch {
                lines.extend_from_slice(&json(&Line(delivery)));
                lines.push(b'\n');
            }
            (HeaderValue::from_static("application/x-ndjson"), lines.into())
        }
        BatchFormat::Multipart => multipart(batch),
    }
}

fn json(what: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(what).expect("text and numbers can be written as JSON")
}

/// An event of a batch in the JSON format of CloudEvents 1.0.2 (JSON batch format, section 4).
///
/// Attributes of an event that the record is, by the binary mode of the Kafka binding (headers `ce_…`), are passed on, except its id, which
/// becomes `ceid`: the id is that by which the answer names the record.
struct CloudEvent<'a>(&'a Delivery);

impl Serialize for CloudEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let delivery = self.0;
        let user = delivery.headers();
        let mut attributes: BTreeMap<String, String> = BTreeMap::new();
        if user.last("ce_specversion").is_some() {
            for (name, value) in user.iter().filter_map(text_header) {
                let Some(name) = name.strip_prefix("ce_").filter(|name| is_attribute(name)) else { continue };
                match name {
                    "specversion" | "data" | "datacontenttype" => {}
                    "id" => drop(attributes.insert("ceid".to_owned(), value.to_owned())),
                    _ => drop(attributes.insert(name.to_owned(), value.to_owned())),
                }
            }
        }
        let topic = delivery.topic();
        attributes.entry("source".to_owned()).or_insert_with(|| format!("/kafka/{topic}"));
        attributes.entry("type".to_owned()).or_insert_with(|| "kladder.delivery".to_owned());
        attributes.entry("time".to_owned()).or_insert_with(|| delivery.timestamp().to_rfc3339_millis());
        for (name, value) in user.iter().filter_map(text_header) {
            if ["traceparent", "tracestate"].contains(&name) {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        }
        // The record's key is the one that counts.
        if delivery.key().is_some() {
            attributes.remove("partitionkey");
        }
        let mut event = serializer.serialize_map(None)?;
        event.serialize_entry("specversion", "1.0")?;
        event.serialize_entry("id", delivery.id())?;
        for (name, value) in &attributes {
            event.serialize_entry(name, value)?;
        }
        event.serialize_entry("kladdertopic", topic)?;
        event.serialize_entry("kladderpartition", &delivery.partition())?;
        // An integer of CloudEvents has 32 bits.
        event.serialize_entry("kladderoffset", &delivery.offset().to_string())?;
        event.serialize_entry("kladderattempt", &delivery.attempt())?;
        event.serialize_entry("kladderattemptsleft", &delivery.attempts_left())?;
        if let Some(tier) = delivery.tier() {
            event.serialize_entry("kladdertier", &tier)?;
        }
        match delivery.key().map(|key| (key, std::str::from_utf8(key))) {
            Some((_, Ok(key))) => event.serialize_entry("partitionkey", key)?,
            Some((key, Err(_))) => event.serialize_entry("kladderkeybase64", &BASE64.encode(key))?,
            None => {}
        }
        if !user.is_empty() {
            // An attribute is no object, so it is JSON as text.
            let headers = serde_json::to_string(&AllHeaders(user)).map_err(serde::ser::Error::custom)?;
            event.serialize_entry("kladderheaders", &headers)?;
        }
        match (delivery.value(), content_type(user)) {
            (None, _) => {}
            (Some(value), content_type) => {
                if let Some(raw) = raw_json(value, content_type) {
                    event.serialize_entry("datacontenttype", content_type.unwrap_or("application/json"))?;
                    event.serialize_entry("data", raw)?;
                } else {
                    event.serialize_entry("datacontenttype", content_type.unwrap_or("application/octet-stream"))?;
                    event.serialize_entry("data_base64", &BASE64.encode(value))?;
                }
            }
        }
        event.end()
    }
}

/// A record as one line of JSON.
struct Line<'a>(&'a Delivery);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let delivery = self.0;
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("id", delivery.id())?;
        line.serialize_entry("topic", delivery.topic())?;
        line.serialize_entry("partition", &delivery.partition())?;
        line.serialize_entry("offset", &delivery.offset())?;
        line.serialize_entry("timestamp", &delivery.timestamp().as_millis())?;
        line.serialize_entry("attempt", &delivery.attempt())?;
        line.serialize_entry("attempts_left", &delivery.attempts_left())?;
        if let Some(tier) = delivery.tier() {
            line.serialize_entry("tier", &tier)?;
        }
        match delivery.key().map(|key| (key, std::str::from_utf8(key))) {
            Some((_, Ok(key))) => line.serialize_entry("key", key)?,
            Some((key, Err(_))) => line.serialize_entry("key_base64", &BASE64.encode(key))?,
            None => line.serialize_entry("key", &())?,
        }
        if !delivery.headers().is_empty() {
            line.serialize_entry("headers", &AllHeaders(delivery.headers()))?;
        }
        match delivery.value() {
            None => line.serialize_entry("value", &())?,
            // Its meaning is kept, whatever white space it has: a line has no line breaks.
            Some(value) => {
                match raw_json(value, content_type(delivery.headers())).filter(|raw| !raw.get().contains(['\n', '\r'])) {
                    Some(raw) => line.serialize_entry("value", raw)?,
                    None => line.serialize_entry("value_base64", &BASE64.encode(value))?,
                }
            }
        }
        line.end()
    }
}

/// `[["name", "value"], …]`, in order and with duplicates; a value that is no text is `{"base64": "…"}`, a null one is null.
struct AllHeaders<'a>(&'a Headers);

impl Serialize for AllHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(name, value)| (String::from_utf8_lossy(name), HeaderText(value))))
    }
}

struct HeaderText<'a>(Option<&'a [u8]>);

impl Serialize for HeaderText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.map(|value| (value, std::str::from_utf8(value))) {
            None => serializer.serialize_none(),
            Some((_, Ok(text))) => serializer.serialize_str(text),
            Some((value, Err(_))) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64.encode(value))?;
                map.end()
            }
        }
    }
}

/// A value as it stands, if it is JSON: by its content type, or without one by its bytes, if they are an object or an array.
fn raw_json<'a>(value: &'a [u8], content_type: Option<&str>) -> Option<&'a RawValue> {
    let may_be = match content_type {
        Some(content_type) => {
            let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            essence == "application/json" || essence.ends_with("+json")
        }
        None => matches!(value.trim_ascii_start().first(), Some(b'{' | b'[')),
    };
    may_be.then(|| serde_json::from_slice(value).ok()).flatten()
}

fn content_type(user: &Headers) -> Option<&str> {
    given_content_type(user).and_then(|value| std::str::from_utf8(value).ok())
}

fn text_header<'a>((name, value): (&'a [u8], Option<&'a [u8]>)) -> Option<(&'a str, &'a str)> {
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value?).ok()?))
}

/// CloudEvents 1.0.2, section 3: lower-case letters and digits. Those of kladder are its own.
fn is_attribute(name: &str) -> bool {
    !name.is_empty() && !name.starts_with("kladder") && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// A part for each record, with the headers and the body of a single delivery (RFC 2046, section 5.1).
fn multipart(batch: &[Delivery]) -> (HeaderValue, Bytes) {
    let boundary = boundary(batch);
    let mut body = BytesMut::new();
    for delivery in batch {
        let mut headers = HeaderMap::new();
        let value = put_delivery(&mut headers, delivery);
        body.put_slice(b"--");
        body.put_slice(boundary.as_bytes());
        body.put_slice(b"\r\n");
        for (name, text) in headers.iter().filter(|(name, _)| !["user-agent", "accept-encoding"].contains(&name.as_str())) {
            body.put_slice(name.as_str().as_bytes());
            body.put_slice(b": ");
            body.put_slice(text.as_bytes());
            body.put_slice(b"\r\n");
        }
        body.put_slice(b"\r\n");
        body.put_slice(&value);
        body.put_slice(b"\r\n");
    }
    body.put_slice(b"--");
    body.put_slice(boundary.as_bytes());
    body.put_slice(b"--\r\n");
    let content_type = format!("multipart/mixed; boundary={boundary}");
    (HeaderValue::from_str(&content_type).expect("a boundary is hexadecimal"), body.freeze())
}

/// A text that is in none of the values.
fn boundary(batch: &[Delivery]) -> String {
    let first = batch.first().map_or("", Delivery::id);
    let mut boundary = String::new();
    for turn in 0_u32.. {
        boundary.clear();
        let _ = write!(boundary, "kladder-{:016x}{turn:04x}", fnv::fnv(fnv::OFFSET, first.as_bytes()));
        let is_in = |value: &[u8]| value.windows(boundary.len()).any(|window| window == boundary.as_bytes());
        if !batch.iter().any(|delivery| delivery.value().is_some_and(is_in)) {
            break;
        }
    }
    boundary
}

/// An answer with 2xx that says what became of each.
#[derive(Deserialize)]
struct Answer {
    failures: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: String,
    verdict: Option<String>,
    retry_after: Option<RetryAfter>,
    error_class: Option<String>,
    error_message: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RetryAfter {
    Seconds(u64),
    Text(String),
}

/// The records that have failed, by their number in the batch. Without a body all are done, and also with one that is no JSON object:
/// servers answer "OK".
///
/// # Errors
/// Nothing is known to be done: the body is JSON without `failures`, or they name a record that is not in the batch, or one
/// twice.
pub(super) fn failures(body: &[u8], batch: &[Delivery]) -> Result<Vec<(usize, Failure)>, String> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    // A list is no answer, but whoever writes one means failures.
    if !matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Ok(Vec::new());
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("the answer's body must be empty, or {{\"failures\": […]}}: {error}"))?;
    let mut numbers: BTreeMap<&str, usize> = batch.iter().enumerate().map(|(number, delivery)| (delivery.id(), number)).collect();
    let mut failures = Vec::with_capacity(answer.failures.len());
    for named in answer.failures {
        let Some(number) = numbers.remove(named.id.as_str()) else {
            return Err(format!("the answer's failures name {:?}, which is not in the batch, or was named before", named.id));
        };
        failures.push((number, failure(named)?));
    }
    Ok(failures)
}

fn failure(named: Named) -> Result<Failure, String> {
    let after = match named.retry_after {
        None => None,
        Some(RetryAfter::Seconds(seconds)) => Some(Duration::from_secs(seconds)),
        Some(RetryAfter::Text(text)) => Some(delay(&text)?),
    };
    let disposition = match named.verdict.as_deref().unwrap_or("retry") {
        "retry" => Disposition::Retry { after },
        "reject" => Disposition::Reject,
        other => return Err(format!("the answer's verdict {other:?} is neither \"retry\" nor \"reject\"")),
    };
    let class = named.error_class.filter(|class| !class.is_empty()).unwrap_or_else(|| "failed in batch".to_owned());
    let message = named.error_message.map(|message| cut(&message, MESSAGE_BYTES).to_owned());
    Ok(Failure::new(disposition, ErrorInfo { class, message, ..ErrorInfo::default() }))
}

/// `30s`, or seconds, as in `Retry-After`.
fn delay(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    humantime::parse_duration(text).map_err(|error| format!("the answer's retry_after {text:?} is no duration: {error}"))
}

#[cfg(test)]
#[path = "http_batch_tests.rs"]
mod tests;
