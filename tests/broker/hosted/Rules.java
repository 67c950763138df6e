import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.errors.PolicyViolationException;
import org.apache.kafka.server.policy.CreateTopicPolicy;

/** What a hosted cluster allows of new topics: a closed list of settings, and no large messages. */
public class Rules implements CreateTopicPolicy {
  static final Set<String> ALLOWED =
      Set.of("cleanup.policy", "max.message.bytes", "message.timestamp.type", "retention.bytes", "retention.ms");
  static final long MOST_BYTES = 2_000_000;

  @Override
  public void configure(Map<String, ?> settings) {}

  @Override
  public void validate(RequestMetadata topic) {
    if (topic.topic().startsWith("__")) return;
    for (Map.Entry<String, String> setting : topic.configs().entrySet()) {
      if (!ALLOWED.contains(setting.getKey()))
        throw new PolicyViolationException("Config " + setting.getKey() + " cannot be set on this cluster");
      if (setting.getKey().equals("max.message.bytes") && Long.parseLong(setting.getValue()) > MOST_BYTES)
        throw new PolicyViolationException(
            "Config max.message.bytes has value " + setting.getValue() + " but must be at most " + MOST_BYTES);
    }
  }

  @Override
  public void close() {}
}
