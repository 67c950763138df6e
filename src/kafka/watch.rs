//! Collects librdkafka's connection errors. A failed authentication makes no call fail with that reason: the call just
//! times out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::core::leader_clock::LocalTime;
use crate::kafka::client_config;
use crate::kafka::clock::Clock;
use crate::topology::ClusterError;

/// How long a problem explains why there is no answer. librdkafka tries a connection that is needed again within 10 s, unless
/// `reconnect.backoff.max.ms` says otherwise, so an older problem is over, or of a broker that is not asked.
const FRESH: Duration = Duration::from_secs(60);

/// A client context that stores why there is no connection; clones share it.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<Mutex<ConnectionProblems>>);

#[derive(Default)]
struct ConnectionProblems {
    worst: Option<(ConnectionProblem, LocalTime)>,
    /// The last broker that was unreachable at its advertised address.
    advertised: Option<(AdvertisedBroker, LocalTime)>,
}

impl ConnectionProblems {
    fn note(&mut self, problem: ConnectionProblem, now: LocalTime) {
        if problem.kind == ProblemKind::Connection
            && let Some(broker) = AdvertisedBroker::of(&problem.reason)
        {
            self.advertised = Some((broker, now));
        }
        // The last of the worst kind: its words are of now, and it counts from now.
        if self.worst(now).is_none_or(|known| known.kind <= problem.kind) {
            self.worst = Some((problem, now));
        }
    }

    fn worst(&self, now: LocalTime) -> Option<&ConnectionProblem> {
        fresh(self.worst.as_ref(), now)
    }

    fn advertised(&self, now: LocalTime) -> Option<&AdvertisedBroker> {
        fresh(self.advertised.as_ref(), now)
    }
}

fn fresh<T>(noted: Option<&(T, LocalTime)>, now: LocalTime) -> Option<&T> {
    noted.filter(|(_, at)| now.since(*at) < FRESH).map(|(what, _)| what)
}

/// A broker at its advertised address, not the configured one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AdvertisedBroker {
    id: i32,
    address: String,
    reason: String,
}

impl AdvertisedBroker {
    /// Parses a librdkafka line, which begins with the broker: `host:9092/1: Failed to resolve …`. Configured brokers have `bootstrap`
    /// as their number until the cluster has reported it.
    fn of(line: &str) -> Option<Self> {
        let (broker, reason) = line.split_once(": ")?;
        let (address, id) = broker.rsplit_once('/')?;
        let address = address.split_once("://").map_or(address, |(_, address)| address);
        // The loss of an established connection does not concern the address.
        let is_of_address = reason.contains("in state CONNECT") || reason.contains("resolve");
        let id = id.parse().ok().filter(|_| is_of_address)?;
        Some(Self { id, address: address.to_owned(), reason: reason.to_owned() })
    }
}

/// A problem with the connection.
#[derive(Clone)]
struct ConnectionProblem {
    kind: ProblemKind,
    reason: String,
}

/// Most severe last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ProblemKind {
    /// Nobody answers, or the connection was lost.
    Connection,
    /// Waiting does not help.
    Tls,
    /// Waiting does not help.
    Login,
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        let kind = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => ProblemKind::Login,
            Some(RDKafkaErrorCode::SSL) => ProblemKind::Tls,
            // A peer that closes the connection during the handshake is reported like any lost
            // connection.
            Some(_) if reason.contains("SSL handshake failed") => ProblemKind::Tls,
            // "All brokers down" says less than why the last of them failed.
            Some(RDKafkaErrorCode::AllBrokersDown) | None => return,
            Some(_) => ProblemKind::Connection,
        };
        let problem = ConnectionProblem { kind, reason: reason.to_owned() };
        self.problems().note(problem, Clock::system().now());
    }
}

impl ConsumerContext for Watch {}

impl Watch {
    fn problems(&self) -> MutexGuard<'_, ConnectionProblems> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worst(&self) -> Option<ConnectionProblem> {
        self.problems().worst(Clock::system().now()).cloned()
    }

    /// The permanent error, if there was one.
    pub fn refusal(&self, brokers: &str) -> Option<ClusterError> {
        let (ConnectionProblem { kind, reason }, brokers) = (self.worst()?, brokers.to_owned());
        match kind {
            ProblemKind::Login => Some(ClusterError::Authentication { brokers, reason }),
            ProblemKind::Tls => Some(ClusterError::Tls { brokers, reason }),
            ProblemKind::Connection => None,
        }
    }

    /// The broker that was unreachable at its advertised address, if there was one.
    pub fn advertised(&self, action: &str, brokers: &str) -> Option<ClusterError> {
        let AdvertisedBroker { id, address, reason } = self.problems().advertised(Clock::system().now()).cloned()?;
        Some(ClusterError::Advertised { action: action.to_owned(), brokers: brokers.to_owned(), id, address, reason })
    }

    /// Why no broker answered.
    pub fn nobody(&self, brokers: &str, within: Duration) -> ClusterError {
        let reason = self.worst().filter(|worst| worst.kind == ProblemKind::Connection).map(|worst| worst.reason);
        self.refusal(brokers).unwrap_or_else(|| ClusterError::NoBroker { brokers: brokers.to_owned(), within, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_problem_counts_until_it_is_over() {
        let mut problems = ConnectionProblems::default();
        let at = |seconds: u64| LocalTime::from_micros(0).later(Duration::from_secs(seconds));
        let problem = |kind, reason: &str| ConnectionProblem { kind, reason: reason.to_owned() };
        let lost = || problem(ProblemKind::Connection, "kafka:9092/1: Connect failed (after 2ms in state CONNECT)");
        let kind = |problems: &ConnectionProblems, now| problems.worst(now).map(|worst| worst.kind);
        problems.note(problem(ProblemKind::Login, "no"), at(0));
        problems.note(lost(), at(30));
        assert_eq!(kind(&problems, at(59)), Some(ProblemKind::Login));
        assert_eq!(problems.advertised(at(89)).map(|broker| broker.id), Some(1));
        assert!(problems.worst(at(60)).is_none() && problems.advertised(at(90)).is_none());
        problems.note(lost(), at(100));
        assert_eq!(kind(&problems, at(101)), Some(ProblemKind::Connection));
    }

    #[test]
    fn a_problem_that_goes_on_in_other_words_goes_on() {
        let mut problems = ConnectionProblems::default();
        let at = |seconds: u64| LocalTime::from_micros(0).later(Duration::from_secs(seconds));
        for (reason, seconds) in [("wrong password (after 9ms)", 0), ("wrong password (after 10ms)", 50)] {
            problems.note(ConnectionProblem { kind: ProblemKind::Login, reason: reason.to_owned() }, at(seconds));
        }
        assert_eq!(problems.worst(at(109)).map(|worst| worst.reason.as_str()), Some("wrong password (after 10ms)"));
    }

    #[test]
    fn a_broker_that_is_not_where_it_says_is_told_from_one_of_the_configuration() {
        let of = |line: &str| AdvertisedBroker::of(line).map(|e| (e.id, e.address));
        let resolve = "Failed to resolve 'kafka:9092': Name or service not known (after 2ms in state CONNECT)";
        assert_eq!(of(&format!("kafka:9092/1: {resolve}")), Some((1, "kafka:9092".to_owned())));
        let refused = "Connect to ipv4#10.0.0.1:9093 failed: Connection refused (after 0ms in state CONNECT)";
        assert_eq!(of(&format!("sasl_ssl://[::1]:9093/12: {refused}")), Some((12, "[::1]:9093".to_owned())));
        assert_eq!(of(&format!("kafka:9092/bootstrap: {resolve}")), None);
        assert_eq!(of("kafka:9092/1: Disconnected (after 6000ms in state UP)"), None);
        assert_eq!(of("2/2 brokers are down"), None);
    }
}
