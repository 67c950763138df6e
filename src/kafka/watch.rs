//! What librdkafka reports beside its calls. A refused login makes no call fail with that reason: the call just times out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::client_config;
use crate::topology::ClusterError;

/// A client context that remembers why there is no connection; clones share what they remember.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>);

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down says less than why the last of them went.
        if seen.is_none() || code != RDKafkaErrorCode::AllBrokersDown {
            *seen = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Watch {}

impl Watch {
    /// The refusal that no amount of waiting mends, when there was one.
    pub fn refusal(&self, brokers: &str) -> Option<ClusterError> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (code, reason) = seen.as_ref()?;
        let (brokers, reason) = (brokers.to_owned(), reason.clone());
        match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(ClusterError::Authentication { brokers, reason })
            }
            RDKafkaErrorCode::SSL => Some(ClusterError::Tls { brokers, reason }),
            _ => None,
        }
    }

    /// Why nobody answered.
    pub fn nobody(&self, brokers: &str, within: Duration) -> ClusterError {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, reason)| reason.clone());
        self.refusal(brokers).unwrap_or_else(|| ClusterError::NoBroker { brokers: brokers.to_owned(), within, reason })
    }
}
