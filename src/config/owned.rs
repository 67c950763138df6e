//! Kafka properties that may not be configured: kladder sets them itself, or only Java clients have them.

/// Why kladder sets this property itself; takes canonical names.
pub fn reason(name: &str) -> Option<&'static str> {
    Some(match name {
        "group.id" => {
            "each worker's group follows from the ladder: `group` of the ladder for its deliverer, {ladder}.mover for its mover"
        }
        "group.instance.id" => {
            "it is the worker's instance name, so that a restarted worker gets its partitions back: set `instance` in [worker]"
        }
        "transactional.id" => {
            "it consists of ladder, worker and instance name, so that a restarted worker fences its predecessor: set `instance` in [worker]"
        }
        "enable.idempotence" => "always on: without it a retried request could duplicate a record",
        "enable.auto.commit"
        | "auto.commit.interval.ms"
        | "enable.auto.offset.store"
        | "offset.store.method"
        | "offset.store.path"
        | "offset.store.sync.interval.ms" => "kladder commits an offset only after the record's replacement is confirmed",
        "auto.offset.reset" => {
            "a lost offset stops the worker instead of skipping records; use `start` of the ladder for where a new group begins"
        }
        "isolation.level" => "always read_committed: hops are transactions",
        "partition.assignment.strategy" => "kladder depends on the assignment strategy that it sets",
        "enable.partition.eof" => "kladder needs partition EOF events to know that a tier is empty",
        "allow.auto.create.topics" => "always off: `kladder setup` creates the topics, and a misspelt name must fail",
        "acks" => "always `all`: otherwise one broker could lose a record",
        "transaction.timeout.ms" => "kept short by kladder: it is how long a killed worker delays the next one",
        "delivery.report.only.error" => "kladder waits for the confirmation of every record",
        "enable.gapless.guarantee" => "kladder aborts and retries the transaction itself",
        "max.in.flight.requests.per.connection" => "set by the idempotent producer",
        "enabled_events" | "log.queue" | "internal.termination.signal" | "group.protocol.type" => {
            "it is internal to the client library"
        }
        _ => return None,
    })
}

/// Whether the value is the one that kladder sets: then it is accepted.
pub fn is_what_kladder_sets(name: &str, value: &str) -> bool {
    match name {
        "acks" => matches!(value, "all" | "-1"),
        "enable.idempotence" | "enable.partition.eof" => value == "true",
        "enable.auto.commit" | "enable.auto.offset.store" | "delivery.report.only.error" | "allow.auto.create.topics" => {
            value == "false"
        }
        "isolation.level" => value == "read_committed",
        _ => false,
    }
}

/// What to use instead of a property that only Java clients have.
pub fn java_hint(name: &str) -> Option<&'static str> {
    Some(match name {
        "key.deserializer" | "value.deserializer" | "key.serializer" | "value.serializer" => {
            "not needed: kladder copies keys and values byte for byte"
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
            "not needed: OpenSSL negotiates the protocol; ssl.cipher.suites restricts it"
        }
        "sasl.jaas.config" => "use sasl.username and sasl.password",
        "sasl.login.callback.handler.class" | "sasl.client.callback.handler.class" | "sasl.login.class" => {
            "this build does not fetch tokens: authenticate with sasl.mechanisms = \"SCRAM-SHA-512\" (or \"PLAIN\"), sasl.username and sasl.password, or \
             with a certificate: ssl.keystore.location"
        }
        "sasl.oauthbearer.jwks.endpoint.url" | "sasl.oauthbearer.expected.audience" => "it is a broker setting",
        "max.poll.records" => "not needed: `max_in_flight` limits concurrent deliveries, queued.max.messages.kbytes the prefetch",
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
        "exclude.internal.topics" => "not needed: kladder subscribes to topics by name",
        "schema.registry.url" | "basic.auth.user.info" | "basic.auth.credentials.source" => {
            "set url, username and password in [schema_registry]"
        }
        "config.providers" => "use ${VAR} or ${file:PATH} in any string",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::client_properties::{canonical, find, names};

    /// Every property that a hint names exists.
    #[test]
    fn hints_name_what_there_is() {
        let source = include_str!("owned.rs");
        let hints = &source[source.find("pub fn java_hint").unwrap()..source.find("#[cfg(test)]").unwrap()];
        let mut names: Vec<&str> = hints.split('"').skip(1).step_by(2).collect();
        names.retain(|name| java_hint(name).is_some());
        assert!(names.len() > 40, "{names:?}");
        for name in names {
            let hint = java_hint(name).unwrap();
            let words = hint.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
            for word in words
                .map(|word| word.trim_matches('.'))
                .filter(|word| word.contains('.') && !word.starts_with(|c: char| c.is_uppercase()))
            {
                assert!(find(word).is_some(), "the hint for {name} names {word}, which does not exist");
            }
            // Properties that need a library missing from this build (cURL, for tokens) are
            // refused.
            assert!(!hint.contains("oidc"), "{name}: {hint}");
        }
    }

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
