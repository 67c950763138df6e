//! A span for each hop of a record and each handler call, so that a trace shows the ladder.
//!
//! The records' headers are never rewritten, and the handler receives the record's original `traceparent`. So the spans of one record
//! are children of that, side by side, in the order of their times. Only committed hops become spans.
//!
//! They are exported by OTLP over HTTP if kladder was built with the feature `otlp` and the environment names an endpoint, as
//! the OpenTelemetry specification defines it (`OTEL_EXPORTER_OTLP_ENDPOINT` and related variables). Without the feature, no
//! spans exist.

use std::time::Duration;

use crate::core::envelope::{self, Envelope};
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;
use crate::core::trace_context::TraceContext;

/// A finished span.
#[derive(Debug, Clone)]
pub struct Span {
    name: &'static str,
    kind: Kind,
    parent: TraceContext,
    state: String,
    began: Timestamp,
    took: Duration,
    attributes: Vec<(&'static str, Value)>,
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Client,
    Producer,
}

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Number(i64),
}

/// A record's header, unchanged.
type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// The parent named by the headers, or derived from the record's id.
fn parent<'a>(headers: impl Iterator<Item = Header<'a>>, id: Option<&str>) -> Option<(TraceContext, String)> {
    let (mut context, mut state, mut own_id) = (None, String::new(), id.map(str::to_owned));
    for (name, value) in headers {
        let Some(value) = value else { continue };
        if name.eq_ignore_ascii_case(b"traceparent") {
            context = TraceContext::parse(value);
        } else if name.eq_ignore_ascii_case(b"tracestate") {
            state = String::from_utf8_lossy(value).into_owned();
        } else if own_id.is_none() && name == envelope::ID.as_bytes() {
            own_id = Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    match context {
        Some(context) => Some((context, state)),
        None => Some((TraceContext::of_record(&own_id?), String::new())),
    }
}

/// A call of the handler.
pub struct Call<'a> {
    /// The record's idempotency key.
    pub id: &'a str,
    /// The record's origin.
    pub origin: (&'a str, i32, i64),
    /// The attempt, from 1.
    pub attempt: u32,
    /// The class of the failure, if it failed.
    pub error: Option<&'a str>,
    /// When it began.
    pub began: Timestamp,
    /// How long it took.
    pub took: Duration,
}

/// The span of a handler call. `headers` are the record's own.
#[must_use]
pub fn delivery<'a>(ladder: &Ladder, call: &Call<'_>, headers: impl Iterator<Item = Header<'a>>) -> Option<Span> {
    let (parent, state) = parent(headers, Some(call.id))?;
    let (topic, partition, offset) = call.origin;
    let mut attributes = common(ladder, "process");
    attributes.extend([
        ("messaging.destination.name", Value::Text(topic.to_owned())),
        ("messaging.destination.partition.id", Value::Text(partition.to_string())),
        ("messaging.kafka.offset", Value::Number(offset)),
        ("kladder.attempt", Value::Number(i64::from(call.attempt))),
    ]);
    let error = call.error.map(str::to_owned);
    Some(Span { name: "deliver", kind: Kind::Client, parent, state, began: call.began, took: call.took, attributes, error })
}

/// The span of a failed record's hop to a tier or a dead-letter topic. `headers` are the record's
/// own.
#[must_use]
pub fn hop<'a>(
    ladder: &Ladder,
    envelope: &Envelope,
    headers: impl Iterator<Item = Header<'a>>,
    topic: &str,
    now: Timestamp,
) -> Option<Span> {
    let (parent, state) = parent(headers, Some(&envelope.id))?;
    let began = envelope.last_failed_at.filter(|failed| *failed <= now).unwrap_or(now);
    let mut attributes = common(ladder, "send");
    attributes.extend([
        ("messaging.destination.name", Value::Text(topic.to_owned())),
        ("kladder.attempts", Value::Number(i64::from(envelope.attempts))),
    ]);
    attributes.extend(envelope.tier.map(|tier| ("kladder.tier", Value::Number(i64::from(tier)))));
    attributes.extend(envelope.reason.map(|reason| ("kladder.reason", Value::Text(reason.as_str().to_owned()))));
    let name = if envelope.reason.is_some() { "dead-letter" } else { "hop" };
    let error = envelope.error.as_ref().map(|error| error.class.clone());
    Some(Span { name, kind: Kind::Producer, parent, state, began, took: now.since(began), attributes, error })
}

/// The span of the wait in a tier, from the append to the hop out of it. `headers` are those of the moved record.
#[must_use]
pub fn wait<'a>(
    ladder: &Ladder,
    headers: impl Iterator<Item = Header<'a>>,
    from: (&str, i32, i64),
    appended: Timestamp,
    to: &str,
) -> Option<Span> {
    let (parent, state) = parent(headers, None)?;
    let (topic, partition, offset) = from;
    let mut attributes = common(ladder, "send");
    attributes.extend([
        ("messaging.destination.name", Value::Text(to.to_owned())),
        ("kladder.source.name", Value::Text(topic.to_owned())),
        ("kladder.source.partition.id", Value::Text(partition.to_string())),
        ("kladder.source.offset", Value::Number(offset)),
    ]);
    Some(Span {
        name: "wait",
        kind: Kind::Producer,
        parent,
        state,
        began: appended,
        took: Duration::ZERO,
        attributes,
        error: None,
    })
}

/// By the semantic conventions for messaging (<https://opentelemetry.io/docs/specs/semconv/messaging/kafka/>).
fn common(ladder: &Ladder, operation: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("messaging.system", Value::Text("kafka".to_owned())),
        ("messaging.operation.type", Value::Text(operation.to_owned())),
        ("messaging.consumer.group.name", Value::Text(ladder.group().to_owned())),
        ("kladder.ladder", Value::Text(ladder.name().to_owned())),
    ]
}

impl Span {
    /// Sets the end.
    #[must_use]
    pub fn until(mut self, now: Timestamp) -> Self {
        self.took = now.since(self.began);
        self
    }
}

pub use export::{are_made, end, install};

mod export {
    use std::sync::OnceLock;
    use std::time::{Duration, SystemTime};

    use opentelemetry::trace::{
        Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
        TracerProvider,
    };
    use opentelemetry::{Context, KeyValue};
    use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

    use super::{Kind, Span, Value};
    use crate::core::time::Timestamp;

    static TRACER: OnceLock<SdkTracer> = OnceLock::new();

    /// Exports spans until it is dropped; dropping it sends the remaining ones.
    pub struct Exporter(SdkTracerProvider);

    /// Starts exporting if the environment names an endpoint; `None` if it does not, or if `OTEL_SDK_DISABLED=true`.
    ///
    /// An unreachable endpoint blocks nothing: spans wait in a bounded queue (`OTEL_BSP_MAX_QUEUE_SIZE`), and further ones are dropped.
    ///
    /// # Errors
    /// The endpoint is invalid.
    pub fn install() -> Result<Option<Exporter>, ExporterBuildError> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_disabled = given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| given("OTEL_EXPORTER_OTLP_ENDPOINT"));
        if is_disabled || endpoint.is_none() {
            return Ok(None);
        }
        // The library does not read this variable itself.
        let protocol = given("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| given("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let protocol = if protocol.as_deref() == Some("http/json") { Protocol::HttpJson } else { Protocol::HttpBinary };
        let exporter = SpanExporter::builder().with_http().with_protocol(protocol).build()?;
        let mut resource = Resource::builder();
        if given("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("kladder");
        }
        let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
        let _ = TRACER.set(provider.tracer("kladder"));
        Ok(Some(Exporter(provider)))
    }

    impl Drop for Exporter {
        fn drop(&mut self) {
            if let Err(error) = self.0.shutdown_with_timeout(Duration::from_secs(5)) {
                tracing::warn!(%error, "not all spans could be exported");
            }
        }
    }

    /// Whether spans are recorded at all: a cheap check.
    #[must_use]
    pub fn are_made() -> bool {
        TRACER.get().is_some()
    }

    /// Ends a span; it is exported later.
    pub fn end(span: Option<Span>) {
        let (Some(span), Some(tracer)) = (span, TRACER.get()) else { return };
        let Span { name, kind, parent, state, began, took, attributes, error } = span;
        let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace_id, span_id) = (TraceId::from_bytes(parent.trace_id), SpanId::from_bytes(parent.span_id));
        // A malformed state is dropped rather than the trace.
        let state = state.parse::<TraceState>().unwrap_or_default();
        let context = Context::new().with_remote_span_context(SpanContext::new(trace_id, span_id, flags, true, state));
        let kind = match kind {
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
        };
        let began = at(began);
        let mut attributes: Vec<KeyValue> = attributes
            .into_iter()
            .map(|(name, value)| match value {
                Value::Text(text) => KeyValue::new(name, text),
                Value::Number(number) => KeyValue::new(name, number),
            })
            .collect();
        if let Some(class) = &error {
            attributes.push(KeyValue::new("error.type", class.clone()));
        }
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(began).with_attributes(attributes);
        let mut span = tracer.build_with_context(builder, &context);
        if let Some(class) = error {
            span.set_status(Status::error(class));
        }
        span.end_with_timestamp(began + took);
    }

    fn at(moment: Timestamp) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(moment.as_millis()).unwrap_or(0))
    }
}
