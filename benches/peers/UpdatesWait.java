// Reads a topic at read_committed until it has seen so many records, and says how long they took from the first to the last.

import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public final class UpdatesWait {
    // Arguments: bootstrap, topic, records. Prints seconds.
    public static void main(String[] arguments) {
        long expected = Long.parseLong(arguments[2]);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("isolation.level", "read_committed");
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(properties, bytes, bytes)) {
            List<TopicPartition> partitions = consumer.partitionsFor(arguments[1]).stream()
                    .map(info -> new TopicPartition(arguments[1], info.partition()))
                    .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long seen = 0;
            long first = 0;
            while (seen < expected) {
                seen += consumer.poll(Duration.ofMillis(50)).count();
                if (seen > 0 && first == 0) {
                    first = System.nanoTime();
                }
            }
            System.out.printf("%.3f%n", (System.nanoTime() - first) / 1e9);
        }
    }
}
