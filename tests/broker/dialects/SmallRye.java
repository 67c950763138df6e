// A SmallRye application as it stands in many places (Quarkus has the same inside): a channel, and a dead-letter topic behind it.
//
// usage: java -cp SMALLRYE SmallRye BROKERS GROUP TOPIC plain|delayed RETRY_TOPICS
//
// plain: `dead-letter-queue`, to TOPIC-dlt. delayed: `delayed-retry-topic`, by these topics to TOPIC-dlt. A record whose value is
// "fail N" fails until kladder has counted N attempts. Each delivery that works is told on stdout: value and attempts.

import static java.nio.charset.StandardCharsets.UTF_8;

import io.smallrye.reactive.messaging.kafka.api.IncomingKafkaRecordMetadata;
import jakarta.enterprise.context.ApplicationScoped;
import jakarta.enterprise.inject.se.SeContainerInitializer;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CompletionStage;
import org.eclipse.microprofile.reactive.messaging.Incoming;
import org.eclipse.microprofile.reactive.messaging.Message;

@ApplicationScoped
public class SmallRye {
    @Incoming("orders")
    public CompletionStage<Void> handle(Message<byte[]> message) {
        String value = message.getPayload() == null ? "null" : new String(message.getPayload(), UTF_8);
        var headers = message.getMetadata(IncomingKafkaRecordMetadata.class).orElseThrow().getHeaders();
        var header = headers.lastHeader("kladder-attempts");
        int made = header == null ? 0 : Integer.parseInt(new String(header.value(), UTF_8));
        if (value.startsWith("fail ") && made < Integer.parseInt(value.substring(5))) {
            return message.nack(new IllegalStateException("not yet: " + value));
        }
        System.out.println(value + " after " + made);
        return message.ack();
    }

    static void set(String name, String value) {
        System.setProperty("mp.messaging.incoming.orders." + name, value);
    }

    public static void main(String[] arguments) throws Exception {
        set("connector", "smallrye-kafka");
        set("bootstrap.servers", arguments[0]);
        set("group.id", arguments[1]);
        set("topic", arguments[2]);
        set("auto.offset.reset", "earliest");
        set("isolation.level", "read_committed");
        set("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        set("dead-letter-queue.topic", arguments[2] + "-dlt");
        if (arguments[3].equals("plain")) {
            set("failure-strategy", "dead-letter-queue");
            set("dead-letter-queue.value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        } else {
            set("failure-strategy", "delayed-retry-topic");
            set("delayed-retry-topic.topics", arguments[4]);
        }
        // The container looks for beans where this file is.
        Path here = Path.of(System.getProperty("java.class.path").split(File.pathSeparator)[0]).resolve("META-INF");
        Files.createDirectories(here);
        Files.writeString(here.resolve("beans.xml"), "<beans xmlns=\"https://jakarta.ee/xml/ns/jakartaee\" bean-discovery-mode=\"all\"/>");
        SeContainerInitializer.newInstance().initialize();
        Thread.currentThread().join();
    }
}
