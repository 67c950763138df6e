//! Kafka properties that do not belong into the configuration: kladder sets them itself, or only Java clients have them.

/// Why kladder sets this property itself; takes canonical names.
pub fn reason(name: &str) -> Option<&'static str> {
    Some(match name {
        "group.id" => {
            "each worker's group follows from the ladder: `group` of the ladder for its deliverer, {ladder}.mover for its mover"
        }
        "group.instance.id" => {
            "it is the worker's instance, so that a restarted worker takes its partitions back: set `instance` below [worker]"
        }
        "transactional.id" => {
            "it is made of ladder, worker and instance, so that a restarted worker fences itself: set `instance` below [worker]"
        }
        "enable.idempotence" => "always on: without it a retried request could double a hop",
        "enable.auto.commit"
        | "auto.commit.interval.ms"
        | "enable.auto.offset.store"
        | "offset.store.method"
        | "offset.store.path"
        | "offset.store.sync.interval.ms" => "kladder commits an offset only after what replaces its record is confirmed",
        "auto.offset.reset" => {
            "a lost offset stops the worker instead of skipping records; where a new group begins is `start` of the ladder"
        }
        "isolation.level" => "always read_committed: hops are transactions",
        "partition.assignment.strategy" => "kladder's ownership of partitions rests on the strategy that it chooses",
        "enable.partition.eof" => "kladder needs to see the end of each partition to tell whether a tier is empty",
        "acks" => "always `all`: a hop that one broker can lose is no hop",
        "transaction.timeout.ms" => "kept short by kladder: it is how long a killed worker holds up the next one",
        "delivery.report.only.error" => "kladder waits for the confirmation of every record",
        "enable.gapless.guarantee" => "kladder aborts and repeats the transaction itself",
        "max.in.flight.requests.per.connection" => "the idempotent producer decides it",
        "enabled_events" | "log.queue" | "internal.termination.signal" | "group.protocol.type" => {
            "it belongs to the client library's inside"
        }
        _ => return None,
    })
}

/// Whether the value is what kladder sets anyway: then there is nothing to refuse.
pub fn is_what_kladder_sets(name: &str, value: &str) -> bool {
    match name {
        "acks" => matches!(value, "all" | "-1"),
        "enable.idempotence" | "enable.partition.eof" => value == "true",
        "enable.auto.commit" | "enable.auto.offset.store" | "delivery.report.only.error" => value == "false",
        "isolation.level" => value == "read_committed",
        _ => false,
    }
}

/// What to write instead of a property that only Java clients have.
pub fn java_hint(name: &str) -> Option<&'static str> {
    Some(match name {
        "key.deserializer" | "value.deserializer" | "key.serializer" | "value.serializer" => {
            "not needed: kladder carries keys and values byte for byte"
        }
        "ssl.truststore.location" | "ssl.truststore.certificates" | "ssl.truststore.type" => {
            "use ssl.ca.location (or ssl.ca.pem) with the CA certificates as PEM: keytool -exportcert -rfc"
        }
        "ssl.truststore.password" => "not needed: ssl.ca.location is a PEM file, which has no password",
        "ssl.keystore.type" => {
            "not needed: ssl.keystore.location takes PKCS#12; convert a JKS with keytool -importkeystore -deststoretype pkcs12"
        }
        "ssl.keystore.key" => "use ssl.key.pem or ssl.key.location",
        "ssl.keystore.certificate.chain" => "use ssl.certificate.pem or ssl.certificate.location",
        "ssl.enabled.protocols" | "ssl.protocol" | "ssl.provider" | "ssl.trustmanager.algorithm" | "ssl.keymanager.algorithm" => {
            "not needed: OpenSSL negotiates the protocol; ssl.cipher.suites narrows it"
        }
        "sasl.jaas.config" => "use sasl.username and sasl.password",
        "sasl.login.callback.handler.class" | "sasl.client.callback.handler.class" | "sasl.login.class" => {
            "use sasl.oauthbearer.method = \"oidc\" with sasl.oauthbearer.client.id, .client.secret and .token.endpoint.url"
        }
        "sasl.oauthbearer.jwks.endpoint.url" | "sasl.oauthbearer.expected.audience" => "only brokers need it",
        "max.poll.records" => {
            "not needed: `max_in_flight` of the handler bounds what is worked on, queued.max.messages.kbytes what is fetched ahead"
        }
        "default.api.timeout.ms" => "use socket.timeout.ms",
        "buffer.memory" => "use queue.buffering.max.kbytes",
        "max.block.ms" => "use message.timeout.ms",
        "max.request.size" => "use message.max.bytes",
        "send.buffer.bytes" => "use socket.send.buffer.bytes",
        "receive.buffer.bytes" => "use socket.receive.buffer.bytes",
        "fetch.max.wait.ms" => "use fetch.wait.max.ms",
        "reconnect.backoff.max" => "use reconnect.backoff.max.ms",
        "partitioner.class" => "not needed: a record goes to its source partition modulo the target's count",
        "interceptor.classes" | "metric.reporters" | "metrics.recording.level" | "metrics.num.samples" => {
            "not needed: kladder serves its own metrics, see [health]"
        }
        "exclude.internal.topics" => "not needed: kladder subscribes to its topics by name",
        "schema.registry.url" | "basic.auth.user.info" | "basic.auth.credentials.source" => {
            "write url, username and password below [schema_registry]"
        }
        "config.providers" => "use ${VAR} or ${file:PATH} in any string",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::properties::{canonical, find, names};

    #[test]
    fn hints_are_for_properties_that_librdkafka_does_not_know() {
        for name in names() {
            assert_eq!(java_hint(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_owned_exists() {
        for name in
            ["group.id", "transactional.id", "enable.auto.commit", "auto.offset.reset", "acks", "log.queue", "offset.store.path"]
        {
            assert!(find(name).is_some() && reason(canonical(name)).is_some(), "{name}");
        }
    }
}
