//! A span for each hop of a record and each call of its handler, so that a trace shows the ladder.
//!
//! The records' own headers are never rewritten, and the handler is given the `traceparent` that its record came with. So the spans of
//! one record are children of that, beside each other, in the order of their times. Only what is committed becomes a span.
//!
//! They go out by OTLP over HTTP where kladder was built with the feature `otlp` and the environment names an endpoint, as the
//! OpenTelemetry specification has it (`OTEL_EXPORTER_OTLP_ENDPOINT` and its kin). Without the feature nothing of it is there.

use std::time::Duration;

use crate::core::envelope::{self, Envelope};
use crate::core::ladder::Ladder;
use crate::core::time::Timestamp;
use crate::core::trace_context::TraceContext;

/// A span that has ended.
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

/// A record's header, as it is.
type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// The parent that the headers name, or that the record's id makes.
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
    /// Where the record first stood.
    pub origin: (&'a str, i32, i64),
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// The class of the failure, where it was one.
    pub error: Option<&'a str>,
    /// When it began.
    pub began: Timestamp,
    /// How long it took.
    pub took: Duration,
}

/// A call of the handler. `headers` are the record's own.
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

/// A failed record's way into a tier or a dead-letter topic. `headers` are the record's own.
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

/// The time in a tier, from the append there until the record is moved on. `headers` are those that it is moved with.
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
    /// The same, as having ended then.
    #[must_use]
    pub fn until(mut self, now: Timestamp) -> Self {
        self.took = now.since(self.began);
        self
    }
}

pub use export::{Exporter, are_made, end, install};

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

    /// Exports until it is dropped, which sends what is left.
    pub struct Exporter(SdkTracerProvider);

    /// Begins to make spans where the environment names an endpoint; `None` where it does not, or says `OTEL_SDK_DISABLED=true`.
    ///
    /// An endpoint that is away holds nobody up: spans wait in a queue of bounded length (`OTEL_BSP_MAX_QUEUE_SIZE`), and what does not
    /// fit is dropped.
    ///
    /// # Errors
    /// When the endpoint cannot be used.
    pub fn install() -> Result<Option<Exporter>, ExporterBuildError> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_disabled = given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| given("OTEL_EXPORTER_OTLP_ENDPOINT"));
        if is_disabled || endpoint.is_none() {
            return Ok(None);
        }
        // The library leaves this variable to whoever uses it.
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

    /// Whether spans are made at all: cheap to ask.
    #[must_use]
    pub fn are_made() -> bool {
        TRACER.get().is_some()
    }

    /// A span has ended; it is exported some time.
    pub fn end(span: Option<Span>) {
        let (Some(span), Some(tracer)) = (span, TRACER.get()) else { return };
        let Span { name, kind, parent, state, began, took, attributes, error } = span;
        let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace_id, span_id) = (TraceId::from_bytes(parent.trace_id), SpanId::from_bytes(parent.span_id));
        // One that is malformed is worth less than the trace.
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
