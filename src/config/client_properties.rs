//! The names of librdkafka's properties: which exist, for which clients, and which are aliases.
//!
//! Taken from librdkafka's CONFIGURATION.md (2.12.1), without the properties that only code can set. A list of our own, because
//! librdkafka cannot suggest a name for a misspelt one, nor say which client a property is for; a test of the Kafka layer keeps
//! the two in step.

/// The clients that a property is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Both.
    Any,
    /// Consumers.
    Consumer,
    /// Producers.
    Producer,
}

use Client::{Any, Consumer, Producer};

/// The clients of a property; `None` for a name that librdkafka does not know.
#[must_use]
pub fn find(name: &str) -> Option<Client> {
    PROPERTIES.binary_search_by_key(&name, |(known, _)| known).ok().map(|at| PROPERTIES[at].1)
}

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROPERTIES.iter().map(|(name, _)| *name)
}

/// The canonical name of an alias.
#[must_use]
pub fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical)
}

/// The property within `[kafka]`, `[kafka.producer]` or `[kafka.consumer]`: no property begins with those
/// words.
pub(crate) fn without_kind(name: &str) -> &str {
    name.strip_prefix("producer.").or_else(|| name.strip_prefix("consumer.")).unwrap_or(name)
}

const ALIASES: &[(&str, &str)] = &[
    ("auto.commit.enable", "enable.auto.commit"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

const PROPERTIES: &[(&str, Client)] = &[
    ("acks", Producer),
    ("allow.auto.create.topics", Any),
    ("api.version.fallback.ms", Any),
    ("api.version.request", Any),
    ("api.version.request.timeout.ms", Any),
    ("auto.commit.enable", Consumer),
    ("auto.commit.interval.ms", Consumer),
    ("auto.offset.reset", Consumer),
    ("batch.num.messages", Producer),
    ("batch.size", Producer),
    ("bootstrap.servers", Any),
    ("broker.address.family", Any),
    ("broker.address.ttl", Any),
    ("broker.version.fallback", Any),
    ("check.crcs", Consumer),
    ("client.dns.lookup", Any),
    ("client.id", Any),
    ("client.rack", Any),
    ("compression.codec", Producer),
    ("compression.level", Producer),
    ("compression.type", Producer),
    ("connections.max.idle.ms", Any),
    ("consume.callback.max.messages", Consumer),
    ("coordinator.query.interval.ms", Consumer),
    ("debug", Any),
    ("delivery.report.only.error", Producer),
    ("delivery.timeout.ms", Producer),
    ("enable.auto.commit", Consumer),
    ("enable.auto.offset.store", Consumer),
    ("enable.gapless.guarantee", Producer),
    ("enable.idempotence", Producer),
    ("enable.metrics.push", Any),
    ("enable.partition.eof", Consumer),
    ("enable.random.seed", Any),
    ("enable.sasl.oauthbearer.unsecure.jwt", Any),
    ("enable.ssl.certificate.verification", Any),
    ("enabled_events", Any),
    ("fetch.error.backoff.ms", Consumer),
    ("fetch.max.bytes", Consumer),
    ("fetch.message.max.bytes", Consumer),
    ("fetch.min.bytes", Consumer),
    ("fetch.queue.backoff.ms", Consumer),
    ("fetch.wait.max.ms", Consumer),
    ("group.id", Consumer),
    ("group.instance.id", Consumer),
    ("group.protocol", Consumer),
    ("group.protocol.type", Consumer),
    ("group.remote.assignor", Consumer),
    ("heartbeat.interval.ms", Consumer),
    ("https.ca.location", Any),
    ("https.ca.pem", Any),
    ("internal.termination.signal", Any),
    ("isolation.level", Consumer),
    ("linger.ms", Producer),
    ("log.connection.close", Any),
    ("log.queue", Any),
    ("log.thread.name", Any),
    ("log_level", Any),
    ("max.in.flight", Any),
    ("max.in.flight.requests.per.connection", Any),
    ("max.partition.fetch.bytes", Consumer),
    ("max.poll.interval.ms", Consumer),
    ("message.copy.max.bytes", Any),
    ("message.max.bytes", Any),
    ("message.send.max.retries", Producer),
    ("message.timeout.ms", Producer),
    ("metadata.broker.list", Any),
    ("metadata.max.age.ms", Any),
    ("metadata.recovery.rebootstrap.trigger.ms", Any),
    ("metadata.recovery.strategy", Any),
    ("offset.store.method", Consumer),
    ("offset.store.path", Consumer),
    ("offset.store.sync.interval.ms", Consumer),
    ("partition.assignment.strategy", Consumer),
    ("partitioner", Producer),
    ("plugin.library.paths", Any),
    ("produce.offset.report", Producer),
    ("queue.buffering.backpressure.threshold", Producer),
    ("queue.buffering.max.kbytes", Producer),
    ("queue.buffering.max.messages", Producer),
    ("queue.buffering.max.ms", Producer),
    ("queued.max.messages.kbytes", Consumer),
    ("queued.min.messages", Consumer),
    ("queuing.strategy", Producer),
    ("receive.message.max.bytes", Any),
    ("reconnect.backoff.jitter.ms", Any),
    ("reconnect.backoff.max.ms", Any),
    ("reconnect.backoff.ms", Any),
    ("request.required.acks", Producer),
    ("request.timeout.ms", Producer),
    ("retries", Producer),
    ("retry.backoff.max.ms", Any),
    ("retry.backoff.ms", Any),
    ("sasl.kerberos.keytab", Any),
    ("sasl.kerberos.kinit.cmd", Any),
    ("sasl.kerberos.min.time.before.relogin", Any),
    ("sasl.kerberos.principal", Any),
    ("sasl.kerberos.service.name", Any),
    ("sasl.mechanism", Any),
    ("sasl.mechanisms", Any),
    ("sasl.oauthbearer.assertion.algorithm", Any),
    ("sasl.oauthbearer.assertion.claim.aud", Any),
    ("sasl.oauthbearer.assertion.claim.exp.seconds", Any),
    ("sasl.oauthbearer.assertion.claim.iss", Any),
    ("sasl.oauthbearer.assertion.claim.jti.include", Any),
    ("sasl.oauthbearer.assertion.claim.nbf.seconds", Any),
    ("sasl.oauthbearer.assertion.claim.sub", Any),
    ("sasl.oauthbearer.assertion.file", Any),
    ("sasl.oauthbearer.assertion.jwt.template.file", Any),
    ("sasl.oauthbearer.assertion.private.key.file", Any),
    ("sasl.oauthbearer.assertion.private.key.passphrase", Any),
    ("sasl.oauthbearer.assertion.private.key.pem", Any),
    ("sasl.oauthbearer.client.credentials.client.id", Any),
    ("sasl.oauthbearer.client.credentials.client.secret", Any),
    ("sasl.oauthbearer.client.id", Any),
    ("sasl.oauthbearer.client.secret", Any),
    ("sasl.oauthbearer.config", Any),
    ("sasl.oauthbearer.extensions", Any),
    ("sasl.oauthbearer.grant.type", Any),
    ("sasl.oauthbearer.metadata.authentication.type", Any),
    ("sasl.oauthbearer.method", Any),
    ("sasl.oauthbearer.scope", Any),
    ("sasl.oauthbearer.token.endpoint.url", Any),
    ("sasl.password", Any),
    ("sasl.username", Any),
    ("security.protocol", Any),
    ("session.timeout.ms", Consumer),
    ("socket.blocking.max.ms", Any),
    ("socket.connection.setup.timeout.ms", Any),
    ("socket.keepalive.enable", Any),
    ("socket.max.fails", Any),
    ("socket.nagle.disable", Any),
    ("socket.receive.buffer.bytes", Any),
    ("socket.send.buffer.bytes", Any),
    ("socket.timeout.ms", Any),
    ("ssl.ca.certificate.stores", Any),
    ("ssl.ca.location", Any),
    ("ssl.ca.pem", Any),
    ("ssl.certificate.location", Any),
    ("ssl.certificate.pem", Any),
    ("ssl.cipher.suites", Any),
    ("ssl.crl.location", Any),
    ("ssl.curves.list", Any),
    ("ssl.endpoint.identification.algorithm", Any),
    ("ssl.engine.id", Any),
    ("ssl.engine.location", Any),
    ("ssl.key.location", Any),
    ("ssl.key.password", Any),
    ("ssl.key.pem", Any),
    ("ssl.keystore.location", Any),
    ("ssl.keystore.password", Any),
    ("ssl.providers", Any),
    ("ssl.sigalgs.list", Any),
    ("statistics.interval.ms", Any),
    ("sticky.partitioning.linger.ms", Producer),
    ("topic.blacklist", Any),
    ("topic.metadata.propagation.max.ms", Any),
    ("topic.metadata.refresh.fast.cnt", Any),
    ("topic.metadata.refresh.fast.interval.ms", Any),
    ("topic.metadata.refresh.interval.ms", Any),
    ("topic.metadata.refresh.sparse", Any),
    ("transaction.timeout.ms", Producer),
    ("transactional.id", Producer),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_sorted_for_the_search() {
        assert!(PROPERTIES.is_sorted_by_key(|(name, _)| name));
    }

    #[test]
    fn aliases_lead_from_known_names_to_known_names() {
        for (alias, canonical) in ALIASES {
            assert_eq!(find(alias), find(canonical), "{alias}");
            assert!(find(alias).is_some(), "{alias}");
        }
    }
}
