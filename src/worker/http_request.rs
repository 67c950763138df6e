//! A delivery as an HTTP request.
//!
//! Kafka headers may be any bytes. Only unambiguous HTTP headers are passed on: names that are tokens, values of printable ASCII;
//! others are dropped, since a handler that needs such bytes has them in the value. Everything that comes from a record is
//! bounded, since servers refuse large heads (Tomcat and Jetty from 8 KiB, Node from 16 KiB) and a refusal would look like a
//! rejected record.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri};
use http_body_util::Full;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode, percent_encode_byte};

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
const OMITTED_HEADERS: HeaderName = HeaderName::from_static("kladder-omitted-headers");
const BATCH: HeaderName = HeaderName::from_static("kladder-batch");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const AGENT: HeaderValue = HeaderValue::from_static(concat!("kladder/", env!("CARGO_PKG_VERSION")));
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Maximum number of user headers; servers commonly accept 100 in total.
const USER_COUNT: usize = 64;
/// Their maximum size in bytes, names included.
const USER_BYTES: usize = 6 * 1024;
/// Maximum size of a key; a longer one is dropped and `Kladder-Key-Encoding: omitted` says so.
const KEY_BYTES: usize = 1024;

/// User headers passed on under their own names: W3C trace context.
const AS_THEY_ARE: [&[u8]; 2] = [b"traceparent", b"tracestate"];

/// What all requests to a handler have in common.
pub(super) struct RequestLine {
    /// The path, with the query.
    target: Uri,
    host: HeaderValue,
    address: String,
}

impl RequestLine {
    /// Of this URL, which has a host.
    pub(super) fn new(url: &Uri) -> Self {
        let target = url.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        let address = url.authority().map_or("", Authority::as_str).to_owned();
        // Without the scheme's own port, as clients usually send it (RFC 9110, 7.2).
        let own = if url.scheme() == Some(&Scheme::HTTPS) { ":443" } else { ":80" };
        let host = HeaderValue::from_str(address.strip_suffix(own).unwrap_or(&address)).expect("a host is visible ASCII");
        Self { target, host, address }
    }

    /// Host and port, for messages.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The request for a batch of this many records.
    pub(super) fn of_batch(&self, (content_type, body): (HeaderValue, Bytes), records: usize) -> Request<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(CONTENT_LENGTH, body.len().into());
        headers.insert(BATCH, records.into());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = headers;
        request
    }

    /// The request for a delivery.
    pub(super) fn of(&self, delivery: &Delivery) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        let user = delivery.headers();
        let mut headers = HeaderMap::with_capacity(16 + user.len().min(USER_COUNT));
        headers.insert(HOST, self.host.clone());
        *request.body_mut() = Full::new(put_delivery(&mut headers, delivery));
        *request.headers_mut() = headers;
        request
    }
}

/// Puts a delivery's headers, and returns its body.
pub(super) fn put_delivery(headers: &mut HeaderMap, delivery: &Delivery) -> Bytes {
    let user = delivery.headers();
    headers.insert(USER_AGENT, AGENT);
    // Without this header, any coding of the answer would be allowed (RFC 9110, 12.5.3), and its text
    // would be unreadable.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
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
        put_key(headers, key);
    }
    headers.insert(CONTENT_TYPE, content_type(user).unwrap_or(OCTETS));
    put_user_headers(headers, user);
    let value = delivery.value_bytes().unwrap_or_else(|| {
        headers.insert(VALUE, HeaderValue::from_static("null"));
        Bytes::new()
    });
    // hyper omits it if the body is empty, and some servers refuse a POST without it (411).
    headers.insert(CONTENT_LENGTH, value.len().into());
    value
}

/// A value that arrives unchanged: printable ASCII, without leading or trailing blanks, which HTTP would
/// strip.
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

/// A string of RFC 8941: quoted, `"` and `\` escaped. Other characters are percent-encoded: only a foreign id has such bytes.
fn quoted(text: &str) -> HeaderValue {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    out.put_u8(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x20..=0x7e => out.put_u8(byte),
            _ => out.put_slice(percent_encode_byte(byte).as_bytes()),
        }
    }
    out.put_u8(b'"');
    HeaderValue::from_maybe_shared(out.freeze()).expect("only printable ASCII was put in")
}

fn content_type(user: &Headers) -> Option<HeaderValue> {
    given_content_type(user).and_then(plain)
}

/// The last `content-type` of the record, case-insensitive; an empty one is none.
pub(super) fn given_content_type(user: &Headers) -> Option<&[u8]> {
    let given = user.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-type")).last();
    given.and_then(|(_, value)| value).filter(|value| !value.is_empty())
}

/// `Kladder-Header-<name>` for each, in order, with duplicates; `ce_<name>` becomes `ce-<name>` of a CloudEvents binary
/// mode event.
///
/// Headers over the limit are dropped one by one, the least important first: a stack trace in a header must not cost the trace context.
/// The number of dropped ones is passed on.
fn put_user_headers(headers: &mut HeaderMap, user: &Headers) {
    if user.is_empty() {
        return;
    }
    let cloud_event = user.last("ce_specversion").is_some();
    let mut name = Vec::with_capacity(64);
    let (mut count, mut bytes, mut omitted) = (0, 0, 0_usize);
    for turn in Rank::IN_ORDER {
        for (given, value) in user.iter().filter(|(given, _)| Rank::of(given, cloud_event) == Some(turn)) {
            // Names are not converted if there is no room anyway: there may be very many.
            let fits = count < USER_COUNT && value.is_some_and(|value| bytes + given.len() + value.len() <= USER_BYTES);
            let made = value.filter(|_| fits).and_then(|value| user_header(&mut name, given, value, cloud_event));
            match made.filter(|(name, value)| bytes + name.as_str().len() + value.len() <= USER_BYTES) {
                Some((name, value)) => {
                    count += 1;
                    bytes += name.as_str().len() + value.len();
                    headers.append(name, value);
                }
                None => omitted += 1,
            }
        }
    }
    if omitted > 0 {
        headers.insert(OMITTED_HEADERS, omitted.into());
    }
}

/// The order of the record's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    Trace,
    /// Required for a valid event.
    EventContext,
    EventAttribute,
    Idempotency,
    Other,
}

impl Rank {
    const IN_ORDER: [Self; 5] = [Self::Trace, Self::EventContext, Self::EventAttribute, Self::Idempotency, Self::Other];

    /// `None` for the content type, which becomes that of the request.
    fn of(name: &[u8], cloud_event: bool) -> Option<Self> {
        let is = |known: &[&[u8]]| known.iter().any(|known| name.eq_ignore_ascii_case(known));
        Some(match name {
            _ if name.eq_ignore_ascii_case(b"content-type") => return None,
            _ if is(&AS_THEY_ARE) => Self::Trace,
            _ if cloud_event && is(&[b"ce_specversion", b"ce_id", b"ce_source", b"ce_type"]) => Self::EventContext,
            _ if cloud_event && name.starts_with(b"ce_") => Self::EventAttribute,
            _ if is(&[b"idempotency-key", b"idempotency_key"]) => Self::Idempotency,
            _ => Self::Other,
        })
    }
}

/// A record's header as an HTTP header, if possible; `buffer` is for its name.
fn user_header(buffer: &mut Vec<u8>, given: &[u8], value: &[u8], cloud_event: bool) -> Option<(HeaderName, HeaderValue)> {
    buffer.clear();
    let attribute = if cloud_event { given.strip_prefix(b"ce_") } else { None };
    let value = if let Some(attribute) = attribute {
        buffer.extend_from_slice(b"ce-");
        buffer.extend_from_slice(attribute);
        cloud_event_value(value)
    } else {
        if !AS_THEY_ARE.iter().any(|n| given.eq_ignore_ascii_case(n)) {
            buffer.extend_from_slice(b"kladder-header-");
        }
        buffer.extend_from_slice(given);
        plain(value)
    };
    // After the prefix even an empty name would be a token.
    let name = HeaderName::from_bytes(buffer).ok().filter(|_| !given.is_empty());
    name.zip(value)
}

/// As the HTTP binding of CloudEvents (3.1.3.2) requires: UTF-8, with everything but visible ASCII, `"` and `%`
/// percent-encoded.
fn cloud_event_value(value: &[u8]) -> Option<HeaderValue> {
    const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
    std::str::from_utf8(value).ok()?;
    let mut out = BytesMut::with_capacity(value.len());
    percent_encode(value, ENCODED).for_each(|piece| out.put_slice(piece.as_bytes()));
    HeaderValue::from_maybe_shared(out.freeze()).ok()
}

#[cfg(test)]
#[path = "http_request_tests.rs"]
mod tests;
