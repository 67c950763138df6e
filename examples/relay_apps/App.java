// An application that consumes orders itself and passes failed ones to a relay ladder.
//
// usage: java -cp 'kafka-clients and what it needs' App.java BROKERS LADDER GROUP SOURCE          (Java 17, kafka-clients 4)
//
// An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails N times.

import static java.nio.charset.StandardCharsets.UTF_8;

import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import java.util.concurrent.Future;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class App {
    /** Why an order cannot be handled now, or ever. */
    static class OrderException extends Exception {
        final String kind;

        OrderException(String kind, String message) {
            super(message);
            this.kind = kind;
        }
    }

    static void handle(byte[] value, int attempt) throws OrderException {
        if (value == null) {
            return;
        }
        String json = new String(value, UTF_8);
        if (number(json, "order").isEmpty()) {
            throw new OrderException("InvalidOrder", "no order");
        }
        if (attempt <= number(json, "fail").orElse(0)) {
            throw new OrderException("OutOfStock", "not in stock");
        }
    }

    /** A number of a flat JSON object: Java brings no parser along, and a real application has one. */
    static OptionalInt number(String json, String name) {
        var found = Pattern.compile("\"" + name + "\"\\s*:\\s*(\\d+)").matcher(json);
        return found.find() ? OptionalInt.of(Integer.parseInt(found.group(1))) : OptionalInt.empty();
    }

    static int attempt(ConsumerRecord<byte[], byte[]> record) {
        Header made = record.headers().lastHeader("kladder-attempts");
        return made == null ? 1 : Integer.parseInt(new String(made.value(), UTF_8)) + 1;
    }

    /** The record for the inbox: all that it had, where it was consumed first, and what went wrong. */
    static ProducerRecord<byte[], byte[]> failed(
            ConsumerRecord<byte[], byte[]> record, String ladder, boolean redelivered, OrderException error) {
        Map<String, String> told = new LinkedHashMap<>();
        told.put("kladder-error-class", error.kind);
        told.put("kladder-error-message", error.getMessage());
        if (!redelivered) {
            told.put("kladder-ladder", ladder);
            told.put("kladder-origin-topic", record.topic());
            told.put("kladder-origin-partition", String.valueOf(record.partition()));
            told.put("kladder-origin-offset", String.valueOf(record.offset()));
            told.put("kladder-origin-timestamp", String.valueOf(record.timestamp()));
        }
        var relayed = new ProducerRecord<>(ladder + ".inbox", record.key(), record.value());
        Headers headers = relayed.headers();
        for (Header header : record.headers()) {
            // Services copy headers: kladder's headers on a source record belong to another record.
            if (redelivered || !header.key().startsWith("kladder-")) {
                headers.add(header);
            }
        }
        told.forEach((name, value) -> headers.remove(name).add(name, value.getBytes(UTF_8)));
        return relayed;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 4) {
            System.err.println("usage: java App.java BROKERS LADDER GROUP SOURCE");
            System.exit(2);
        }
        String brokers = arguments[0];
        String ladder = arguments[1];
        String group = arguments[2];
        String source = arguments[3];
        // read_committed: records that the ladder has not committed are not redelivered yet. Offsets are committed explicitly, below.
        Map<String, Object> reading = Map.of(
                "bootstrap.servers", brokers, "group.id", group, "isolation.level", "read_committed",
                "enable.auto.commit", false, "auto.offset.reset", "earliest");
        // An idempotent producer with acks=all is the client's default.
        Map<String, Object> writing = Map.of("bootstrap.servers", brokers);
        Thread main = Thread.currentThread();
        try (var consumer = new KafkaConsumer<>(reading, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                var producer = new KafkaProducer<>(writing, new ByteArraySerializer(), new ByteArraySerializer())) {
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                consumer.wakeup();
                try {
                    main.join(20_000);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }));
            consumer.subscribe(List.of(source, ladder + ".redeliver"));
            while (true) {
                var records = consumer.poll(Duration.ofMillis(200));
                List<Future<RecordMetadata>> inbox = new ArrayList<>();
                for (var record : records) {
                    boolean redelivered = !record.topic().equals(source);
                    int attempt = redelivered ? attempt(record) : 1;
                    try {
                        handle(record.value(), attempt);
                        System.out.printf("order %s attempt=%d done%n", text(record.value()), attempt);
                    } catch (OrderException error) {
                        System.out.printf("order %s attempt=%d failed: %s%n", text(record.value()), attempt, error.kind);
                        inbox.add(producer.send(failed(record, ladder, redelivered, error)));
                    }
                }
                // The offset is committed only after the inbox has acknowledged the record.
                for (var confirmed : inbox) {
                    confirmed.get();
                }
                if (!records.isEmpty()) {
                    consumer.commitSync();
                }
            }
        } catch (WakeupException stopped) {
            // Records polled but not committed are consumed again after the next start.
        }
    }

    static String text(byte[] value) {
        return value == null ? "null" : new String(value, UTF_8);
    }
}
