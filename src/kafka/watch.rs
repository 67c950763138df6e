//! What librdkafka reports beside its calls. A refused login makes no call fail with that reason: the call just times out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::client_config;
use crate::topology::ClusterError;

/// A client context that remembers why there is no connection; clones share what they remember.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<Mutex<Option<Trouble>>>);

/// What is wrong with the connection, worst last.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// Nobody there, or not for long.
    Connection(String),
    /// No amount of waiting mends it.
    Tls(String),
    /// No amount of waiting mends it.
    Login(String),
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        let reason = reason.to_owned();
        let trouble = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => Trouble::Login(reason),
            Some(RDKafkaErrorCode::SSL) => Trouble::Tls(reason),
            // A peer that hangs up in the handshake is told as any other lost connection.
            Some(_) if reason.contains("SSL handshake failed") => Trouble::Tls(reason),
            // That all brokers are down says less than why the last of them went.
            Some(RDKafkaErrorCode::AllBrokersDown) | None => return,
            Some(_) => Trouble::Connection(reason),
        };
        let mut seen = self.seen();
        *seen = seen.take().max(Some(trouble));
    }
}

impl ConsumerContext for Watch {}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal that no amount of waiting mends, when there was one.
    pub fn refusal(&self, brokers: &str) -> Option<ClusterError> {
        let brokers = brokers.to_owned();
        match self.seen().clone()? {
            Trouble::Login(reason) => Some(ClusterError::Authentication { brokers, reason }),
            Trouble::Tls(reason) => Some(ClusterError::Tls { brokers, reason }),
            Trouble::Connection(_) => None,
        }
    }

    /// Why nobody answered.
    pub fn nobody(&self, brokers: &str, within: Duration) -> ClusterError {
        let reason = match self.seen().clone() {
            Some(Trouble::Connection(reason)) => Some(reason),
            _ => None,
        };
        self.refusal(brokers).unwrap_or_else(|| ClusterError::NoBroker { brokers: brokers.to_owned(), within, reason })
    }
}
