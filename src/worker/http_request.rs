//! A delivery as an HTTP request.
//!
//! Kafka headers may be any bytes. Only what is a header of HTTP without doubt goes on: names that are tokens, values of printable
//! ASCII; the rest is left out, for a handler that needs such bytes has them in the value. Everything that comes from a record is
//! bounded, since servers refuse large heads (Tomcat and Jetty from 8 KiB, Node from 16 KiB) and a refusal would look like a
//! rejected record.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Full;

use crate::core::headers::Headers;
use crate::worker::delivery::Delivery;

const TOPIC: HeaderName = HeaderName::from_static("kladder-topic");
const PARTITION: HeaderName = HeaderName::from_static("kladder-partition");
const OFFSET: HeaderName = HeaderName::from_static("kladder-offset");
const TIMESTAMP: HeaderName = HeaderName::from_static("kladder-timestamp");
const KEY: HeaderName = HeaderName::from_static("kladder-key");
const KEY_ENCODING: HeaderName = HeaderName::from_static("kladder-key-encoding");
const VALUE: HeaderName = HeaderName::from_static("kladder-value");
const ATTEMPT: HeaderName = HeaderName::from_static("kladder-attempt");
const ATTEMPTS_LEFT: HeaderName = HeaderName::from_static("kladder-attempts-left");
const TIER: HeaderName = HeaderName::from_static("kladder-tier");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const AGENT: HeaderValue = HeaderValue::from_static(concat!("kladder/", env!("CARGO_PKG_VERSION")));
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// How many user headers go on at most; servers commonly take 100 in all.
const USER_COUNT: usize = 64;
/// How many bytes they have at most, names included.
const USER_BYTES: usize = 6 * 1024;
/// How long a key may be; a longer one is left out and `Kladder-Key-Encoding: omitted` says so.
const KEY_BYTES: usize = 1024;

/// User headers that go on under their own names: W3C trace context.
const AS_THEY_ARE: [&[u8]; 2] = [b"traceparent", b"tracestate"];

/// The request for a delivery.
pub(super) fn build(delivery: &Delivery, uri: &Uri) -> Request<Full<Bytes>> {
    let user = delivery.headers();
    let mut headers = HeaderMap::with_capacity(16 + user.len().min(USER_COUNT));
    headers.insert(USER_AGENT, AGENT);
    headers.insert(IDEMPOTENCY_KEY, quoted(delivery.id()));
    if let Some(topic) = plain(delivery.topic().as_bytes()) {
        headers.insert(TOPIC, topic);
    }
    headers.insert(PARTITION, delivery.partition().into());
    headers.insert(OFFSET, delivery.offset().into());
    headers.insert(TIMESTAMP, delivery.timestamp().as_millis().into());
    headers.insert(ATTEMPT, delivery.attempt().into());
    headers.insert(ATTEMPTS_LEFT, delivery.attempts_left().into());
    if let Some(tier) = delivery.tier() {
        headers.insert(TIER, tier.into());
    }
    if let Some(key) = delivery.key() {
        put_key(&mut headers, key);
    }
    headers.insert(CONTENT_TYPE, content_type(user).unwrap_or(OCTETS));
    put_user_headers(&mut headers, user);
    let value = delivery.value_bytes().unwrap_or_else(|| {
        headers.insert(VALUE, HeaderValue::from_static("null"));
        Bytes::new()
    });
    // hyper leaves it out where the body is empty, and some servers refuse a POST without it (411).
    headers.insert(CONTENT_LENGTH, value.len().into());
    let mut request = Request::new(Full::new(value));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    request
}

/// A value that arrives as it is: printable ASCII, without blanks at its ends, which HTTP would take away.
fn plain(value: &[u8]) -> Option<HeaderValue> {
    let printable = value.iter().all(|b| matches!(b, 0x20..=0x7e));
    let bare = value.first() != Some(&b' ') && value.last() != Some(&b' ');
    (printable && bare).then(|| HeaderValue::from_bytes(value).ok()).flatten()
}

fn put_key(headers: &mut HeaderMap, key: &[u8]) {
    let value = if key.len() > KEY_BYTES {
        headers.insert(KEY_ENCODING, HeaderValue::from_static("omitted"));
        return;
    } else if let Some(value) = plain(key) {
        value
    } else {
        headers.insert(KEY_ENCODING, HeaderValue::from_static("base64"));
        HeaderValue::from_maybe_shared(Bytes::from(BASE64.encode(key))).expect("base64 is printable")
    };
    headers.insert(KEY, value);
}

/// A string of RFC 8941: quoted, `"` and `\` escaped. What it cannot hold is percent-encoded: only a foreign id has such bytes.
fn quoted(text: &str) -> HeaderValue {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    out.put_u8(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x20..=0x7e => out.put_u8(byte),
            _ => percent(&mut out, byte),
        }
    }
    out.put_u8(b'"');
    HeaderValue::from_maybe_shared(out.freeze()).expect("only printable ASCII was put in")
}

fn percent(out: &mut BytesMut, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// The last `content-type` of the record, whatever its case.
fn content_type(user: &Headers) -> Option<HeaderValue> {
    let given = user.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-type")).last();
    given.and_then(|(_, value)| plain(value.filter(|v| !v.is_empty())?))
}

/// `Kladder-Header-<name>` for each, in order, doubled ones doubled; `ce_<name>` as `ce-<name>` of an event in the binary
/// mode of CloudEvents.
fn put_user_headers(headers: &mut HeaderMap, user: &Headers) {
    if user.is_empty() {
        return;
    }
    let cloud_event = user.last("ce_specversion").is_some();
    let mut name = Vec::with_capacity(64);
    let (mut count, mut bytes) = (0, 0);
    for (given, value) in user.iter() {
        let Some(value) = value else { continue };
        if given.eq_ignore_ascii_case(b"content-type") {
            continue;
        }
        name.clear();
        let attribute = if cloud_event { given.strip_prefix(b"ce_") } else { None };
        let value = if let Some(attribute) = attribute {
            name.extend_from_slice(b"ce-");
            name.extend_from_slice(attribute);
            cloud_event_value(value)
        } else {
            if !AS_THEY_ARE.iter().any(|n| given.eq_ignore_ascii_case(n)) {
                name.extend_from_slice(b"kladder-header-");
            }
            name.extend_from_slice(given);
            plain(value)
        };
        // Behind the prefix even an empty name would be a token.
        let (Some(value), false, Ok(name)) = (value, given.is_empty(), HeaderName::from_bytes(&name)) else { continue };
        count += 1;
        bytes += name.as_str().len() + value.len();
        if count > USER_COUNT || bytes > USER_BYTES {
            return;
        }
        headers.append(name, value);
    }
}

/// As the HTTP binding of CloudEvents (3.1.3.2) wants it: UTF-8, and what is not visible ASCII, `"` and `%` percent-encoded.
fn cloud_event_value(value: &[u8]) -> Option<HeaderValue> {
    std::str::from_utf8(value).ok()?;
    let mut out = BytesMut::with_capacity(value.len());
    for &byte in value {
        match byte {
            b'"' | b'%' => percent(&mut out, byte),
            0x21..=0x7e => out.put_u8(byte),
            _ => percent(&mut out, byte),
        }
    }
    HeaderValue::from_maybe_shared(out.freeze()).ok()
}

#[cfg(test)]
#[path = "http_request_tests.rs"]
mod tests;
