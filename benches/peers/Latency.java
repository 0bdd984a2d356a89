// One record after the other, each sent, acknowledged and read before the next: what Kafka's EndToEndLatency does, in microseconds.

import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Latency {
    // Arguments: bootstrap, topic of one partition, records, bytes a record. Prints p50, p99 and p99.9 in milliseconds.
    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[2]);
        int warm = count / 2;
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("acks", "all");
        properties.put("linger.ms", "0");
        // A fetch that finds nothing is answered at once, as in Kafka's tool: no waiting is measured.
        properties.put("fetch.max.wait.ms", "0");
        byte[] value = new byte[Integer.parseInt(arguments[3])];
        long[] nanos = new long[count];
        var bytes = new ByteArrayDeserializer();
        try (var producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
                var consumer = new KafkaConsumer<>(properties, bytes, bytes)) {
            var partition = new TopicPartition(arguments[1], 0);
            consumer.assign(List.of(partition));
            consumer.seekToEnd(List.of(partition));
            consumer.position(partition);
            for (int i = -warm; i < count; i++) {
                long begin = System.nanoTime();
                producer.send(new ProducerRecord<>(arguments[1], value)).get();
                int seen = 0;
                while (seen == 0) {
                    seen = consumer.poll(Duration.ofSeconds(10)).count();
                }
                if (i >= 0) {
                    nanos[i] = System.nanoTime() - begin;
                }
            }
        }
        Arrays.sort(nanos);
        System.out.printf("%.3f %.3f %.3f%n", nanos[count / 2] / 1e6, nanos[count * 99 / 100] / 1e6, nanos[count / 1000 * 999] / 1e6);
    }
}
