// A listener of Spring for Apache Kafka that posts each record and waits for the answer, with a thread for each partition. What fails
// goes to a retry topic (@RetryableTopic), and comes back after half a second.

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Map;

import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.BackOff;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.annotation.RetryableTopic;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaAdmin;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.retrytopic.RetryTopicConfigurationSupport;
import org.springframework.scheduling.TaskScheduler;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;

public class Peer {
    static final String BROKERS = System.getenv("PEER_BROKERS");
    static final URI HANDLER = URI.create(System.getenv("PEER_URL"));
    static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    public static void main(String[] arguments) throws InterruptedException {
        boolean retry = Boolean.parseBoolean(System.getenv("PEER_RETRY"));
        Class<?> listening = retry ? Retrying.class : Plain.class;
        new AnnotationConfigApplicationContext(Clients.class, listening).registerShutdownHook();
        Thread.currentThread().join();
    }

    static void post(ConsumerRecord<byte[], byte[]> record) throws IOException, InterruptedException {
        String id = "\"" + record.topic() + "/" + record.partition() + "/" + record.offset() + "\"";
        HttpRequest request = HttpRequest.newBuilder(HANDLER)
                .timeout(Duration.ofSeconds(30))
                .header("Content-Type", "application/octet-stream")
                .header("Idempotency-Key", id)
                .POST(HttpRequest.BodyPublishers.ofByteArray(record.value()))
                .build();
        int status = CLIENT.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
        if (status / 100 != 2) {
            throw new IOException("the handler answered " + status);
        }
    }

    @Configuration
    public static class Clients {
        @Bean
        public ConcurrentKafkaListenerContainerFactory<byte[], byte[]> kafkaListenerContainerFactory() {
            var factory = new ConcurrentKafkaListenerContainerFactory<byte[], byte[]>();
            factory.setConsumerFactory(new DefaultKafkaConsumerFactory<>(Map.of(
                    ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, BROKERS,
                    ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
                    ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class,
                    ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class)));
            return factory;
        }

        @Bean
        public KafkaTemplate<byte[], byte[]> defaultRetryTopicKafkaTemplate() {
            return new KafkaTemplate<>(new DefaultKafkaProducerFactory<>(Map.of(
                    ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, BROKERS,
                    ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class,
                    ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class)));
        }

        @Bean
        public KafkaAdmin kafkaAdmin() {
            return new KafkaAdmin(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, BROKERS));
        }

        @Bean
        public TaskScheduler taskScheduler() {
            return new ThreadPoolTaskScheduler();
        }
    }

    @Configuration
    @EnableKafka
    public static class Plain {
        @KafkaListener(topics = "${PEER_TOPIC}", groupId = "${PEER_GROUP}", concurrency = "${PEER_PARTITIONS}")
        public void listen(ConsumerRecord<byte[], byte[]> record) throws IOException, InterruptedException {
            post(record);
        }
    }

    @Configuration
    @EnableKafka
    public static class Retrying extends RetryTopicConfigurationSupport {
        // By default the rest of what was polled is fetched again after each record that failed.
        @Override
        protected void configureCustomizers(CustomizersConfigurer customizers) {
            customizers.customizeErrorHandler(handler -> handler.setSeekAfterError(false));
        }

        @RetryableTopic(attempts = "3", backOff = @BackOff(delay = 500), numPartitions = "${PEER_PARTITIONS}")
        @KafkaListener(topics = "${PEER_TOPIC}", groupId = "${PEER_GROUP}", concurrency = "${PEER_PARTITIONS}")
        public void listen(ConsumerRecord<byte[], byte[]> record) throws IOException, InterruptedException {
            post(record);
        }
    }
}
