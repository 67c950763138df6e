//! A producer's client, which is recreated after a failure, and its events.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use crate::kafka::client_config;
use crate::kafka::ffi::{self, RawEventQueue, RawTopic};
use crate::kafka::statistics::Statistics;

/// The parts that are recreated. Handles must be dropped before their client.
pub(super) struct Live {
    pub(super) topics: Vec<RawTopic>,
    pub(super) events: RawEventQueue,
    pub(super) client: Arc<BaseProducer<Context>>,
    pub(super) statistics: Option<Statistics>,
    /// Delivery reports, until [`Writer::settle`] takes them.
    pub(super) reports: Vec<ffi::DeliveryReport>,
    /// Bytes that were handed over and not reported yet.
    pub(super) on_the_way: usize,
    /// Whether a connection was lost, or a request timed out, since the transaction began.
    pub(super) suspect: bool,
    /// The client's fatal error.
    pub(super) fatal: Option<(RDKafkaErrorCode, String)>,
}

impl Live {
    /// Waits for one event and handles it, then all others that are there.
    pub(super) fn serve(&mut self, timeout: Duration) {
        let mut timeout = timeout;
        loop {
            let (reports, suspect, fatal) = (&mut self.reports, &mut self.suspect, &mut self.fatal);
            let on_the_way = &mut self.on_the_way;
            let statistics = &self.statistics;
            let client = self.client.client();
            let served = self.events.serve(timeout, |event| match event {
                ffi::Event::Report(report) => {
                    *on_the_way = on_the_way.saturating_sub(report.bytes);
                    reports.push(report);
                }
                ffi::Event::Statistics(text) => {
                    if let Some(statistics) = statistics {
                        statistics.take(text);
                    }
                }
                ffi::Event::Error { code, text, is_fatal } => {
                    tracing::debug!(%code, text, "producer error");
                    *suspect = true;
                    if is_fatal {
                        // The event itself only says that there is a fatal error.
                        *fatal = Some(client.fatal_error().unwrap_or((code, text)));
                    }
                }
                ffi::Event::Log { level, facility, text } => {
                    *suspect |= tells_of_lost_request(&facility, &text);
                    client_config::log(level, &facility, &text);
                }
            });
            if !served {
                return;
            }
            timeout = Duration::ZERO;
        }
    }

    /// Whether the open transaction failed because of a denied topic. Beginning another one within it is always refused, with the
    /// error of the failed transaction if there is one.
    pub(super) fn is_denied(&self) -> bool {
        let refusal = self.client.begin_transaction().err();
        refusal.and_then(|error| error.rdkafka_error_code()) == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
    }
}

/// Whether a log line of the client says that a request may have been lost. For the client that is not an error: it sends the
/// request again by itself (`rd_kafka_broker_conn_closed`, `rd_kafka_broker_bufq_timeout_scan`). A failed connection attempt has
/// lost nothing.
fn tells_of_lost_request(facility: &str, text: &str) -> bool {
    facility == "REQTMOUT" || facility == "FAIL" && text.contains("in state UP")
}

pub(super) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, _: &DeliveryResult<'_>, _: usize) {
        // Reports are taken from the event queue; those arriving here come after a purge.
    }
}
