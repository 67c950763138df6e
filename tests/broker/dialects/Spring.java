// A Spring Kafka application as it stands in many places: a listener, and a dead-letter topic behind it.
//
// usage: java -cp SPRING Spring.java BROKERS GROUP TOPIC plain|retry
//
// plain: a container with a DeadLetterPublishingRecoverer, to TOPIC-dlt. retry: retry topics, TOPIC-retry and TOPIC-dlt. A record
// whose value is "fail N" fails until kladder has counted N attempts. Each delivery that works is told on stdout: value and attempts.

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.EnableKafkaRetryTopic;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.ConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaAdmin;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.listener.ContainerProperties;
import org.springframework.kafka.listener.DeadLetterPublishingRecoverer;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.kafka.listener.KafkaMessageListenerContainer;
import org.springframework.kafka.listener.MessageListener;
import org.springframework.kafka.retrytopic.RetryTopicConfiguration;
import org.springframework.kafka.retrytopic.RetryTopicConfigurationBuilder;
import org.springframework.scheduling.TaskScheduler;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;
import org.springframework.util.backoff.FixedBackOff;

public class Spring {
    static String brokers;
    static String group;
    static String topic;

    static void handle(ConsumerRecord<byte[], byte[]> record) {
        String value = record.value() == null ? "null" : new String(record.value(), UTF_8);
        var header = record.headers().lastHeader("kladder-attempts");
        int made = header == null ? 0 : Integer.parseInt(new String(header.value(), UTF_8));
        if (value.startsWith("fail ") && made < Integer.parseInt(value.substring(5))) {
            throw new IllegalStateException("not yet: " + value);
        }
        System.out.println(value + " after " + made);
    }

    static ConsumerFactory<byte[], byte[]> consumers() {
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", brokers, "group.id", group, "auto.offset.reset", "earliest", "isolation.level", "read_committed");
        return new DefaultKafkaConsumerFactory<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static KafkaTemplate<byte[], byte[]> producers() {
        Map<String, Object> settings = Map.of("bootstrap.servers", brokers);
        return new KafkaTemplate<>(new DefaultKafkaProducerFactory<>(settings, new ByteArraySerializer(), new ByteArraySerializer()));
    }

    static void plain() {
        var properties = new ContainerProperties(topic);
        properties.setMessageListener((MessageListener<byte[], byte[]>) Spring::handle);
        var container = new KafkaMessageListenerContainer<>(consumers(), properties);
        var recoverer = new DeadLetterPublishingRecoverer(
                producers(), (record, exception) -> new TopicPartition(topic + "-dlt", record.partition()));
        // Each record is tried twice in place.
        container.setCommonErrorHandler(new DefaultErrorHandler(recoverer, new FixedBackOff(0L, 1L)));
        container.start();
    }

    @Configuration(proxyBeanMethods = false)
    @EnableKafka
    @EnableKafkaRetryTopic
    static class Retrying {
        @Bean
        ConcurrentKafkaListenerContainerFactory<byte[], byte[]> kafkaListenerContainerFactory() {
            var factory = new ConcurrentKafkaListenerContainerFactory<byte[], byte[]>();
            factory.setConsumerFactory(consumers());
            return factory;
        }

        @Bean
        KafkaTemplate<byte[], byte[]> kafkaTemplate() {
            return producers();
        }

        @Bean
        KafkaAdmin kafkaAdmin() {
            return new KafkaAdmin(Map.of("bootstrap.servers", brokers));
        }

        @Bean
        TaskScheduler taskScheduler() {
            return new ThreadPoolTaskScheduler();
        }

        @Bean
        RetryTopicConfiguration retryTopics(KafkaTemplate<byte[], byte[]> template) {
            return RetryTopicConfigurationBuilder.newInstance()
                    .fixedBackOff(100)
                    .maxAttempts(2)
                    .useSingleTopicForSameIntervals()
                    .autoCreateTopicsWith(2, (short) 1)
                    // Nobody but kladder reads the dead-letter topic.
                    .autoStartDltHandler(false)
                    .create(template);
        }

        @Bean
        Listener listener() {
            return new Listener();
        }
    }

    static class Listener {
        @KafkaListener(topics = "${app.topic}", groupId = "${app.group}")
        void listen(ConsumerRecord<byte[], byte[]> record) {
            handle(record);
        }
    }

    public static void main(String[] arguments) {
        brokers = arguments[0];
        group = arguments[1];
        topic = arguments[2];
        System.setProperty("app.topic", topic);
        System.setProperty("app.group", group);
        if (arguments[3].equals("plain")) {
            plain();
        } else {
            new AnnotationConfigApplicationContext(Retrying.class);
        }
    }
}
