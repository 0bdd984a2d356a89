// The Java client as a peer: see ../README.md.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public final class Peer {
    private final Map<String, String> options = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        Peer peer = new Peer();
        for (int i = 1; i + 1 < arguments.length; i += 2) {
            peer.options.put(arguments[i].substring(2), arguments[i + 1]);
        }
        switch (arguments[0]) {
            case "write" -> peer.write();
            case "read" -> peer.read();
            case "live" -> peer.live();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private Properties properties(String... more) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        for (int i = 0; i < more.length; i += 2) {
            properties.put(more[i], more[i + 1]);
        }
        // Any other option is a setting of the client.
        options.forEach((name, value) -> {
            if (name.contains(".")) {
                properties.put(name, value);
            }
        });
        return properties;
    }

    private KafkaProducer<String, String> producer(String... more) {
        return new KafkaProducer<>(properties(more), new StringSerializer(), new StringSerializer());
    }

    private void write() throws Exception {
        String prefix = options.get("prefix");
        int count = Integer.parseInt(options.get("count"));
        for (String codec : options.get("codecs").split(",")) {
            String topic = prefix + "-" + codec;
            try (var plain = producer("compression.type", codec, "linger.ms", "20")) {
                send(plain, topic, "p", count);
                transact(topic, codec, prefix, count);
                plain.send(new ProducerRecord<>(topic, 0, null, "end")).get();
            }
        }
    }

    /** A transactional producer that does what each line says, and answers "ok" or the error. */
    private void live() throws Exception {
        var topic = new TopicPartition(options.get("topic"), 0);
        try (var producer = producer("transactional.id", options.get("id"), "linger.ms", "0");
                var in = new java.io.BufferedReader(new java.io.InputStreamReader(System.in))) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                String[] words = line.split(" ");
                String answer = "ok";
                try {
                    switch (words[0]) {
                        case "init" -> producer.initTransactions();
                        case "begin" -> producer.beginTransaction();
                        case "send" -> producer.send(new ProducerRecord<>(topic.topic(), 0, null, words[1])).get();
                        case "offsets" -> producer.sendOffsetsToTransaction(
                                Map.of(topic, new OffsetAndMetadata(Long.parseLong(words[1]))),
                                new ConsumerGroupMetadata(options.get("id")));
                        case "commit" -> producer.commitTransaction();
                        case "abort" -> producer.abortTransaction();
                        default -> throw new IllegalArgumentException(line);
                    }
                } catch (Exception error) {
                    Throwable cause = error instanceof java.util.concurrent.ExecutionException ? error.getCause() : error;
                    answer = cause.toString().replace('\n', ' ');
                }
                System.out.println(answer);
                System.out.flush();
            }
        }
    }

    private void transact(String topic, String codec, String prefix, int count) throws Exception {
        var id = "java-" + topic;
        try (var producer = producer("compression.type", codec, "linger.ms", "20", "transactional.id", id)) {
            producer.initTransactions();
            int offset = 0;
            for (String phase : List.of("c", "a", "d")) {
                offset += 1;
                producer.beginTransaction();
                send(producer, topic, phase, count);
                producer.sendOffsetsToTransaction(
                        Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(offset)),
                        new ConsumerGroupMetadata(prefix + "-offsets"));
                if (phase.equals("a")) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
    }

    private static void send(KafkaProducer<String, String> producer, String topic, String phase, int count)
            throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            var record = new ProducerRecord<>(topic, 0, "k" + i, phase + "-" + i);
            record.headers().add("h", phase.getBytes(StandardCharsets.UTF_8));
            sent.add(producer.send(record));
        }
        producer.flush();
        for (Future<RecordMetadata> future : sent) {
            future.get();
        }
    }

    private void read() {
        List<String> topics = List.of(options.get("topics").split(","));
        String group = options.get("group");
        Properties properties = properties(
                "isolation.level", options.get("isolation"),
                "auto.offset.reset", "earliest",
                "enable.auto.commit", "false");
        if (group != null) {
            properties.put("group.id", group);
        }
        Set<String> open = new HashSet<>(topics);
        StringBuilder out = new StringBuilder();
        try (var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            if (group != null) {
                consumer.subscribe(topics);
            } else {
                var partitions = topics.stream().map(topic -> new TopicPartition(topic, 0)).toList();
                consumer.assign(partitions);
                consumer.seekToBeginning(partitions);
            }
            while (!open.isEmpty()) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    out.append(json(record)).append('\n');
                    if (record.value().equals("end")) {
                        open.remove(record.topic());
                    }
                }
            }
            if (group != null) {
                consumer.commitSync();
            }
        }
        System.out.print(out);
        System.out.flush();
    }

    private static String json(ConsumerRecord<String, String> record) {
        Header header = record.headers().lastHeader("h");
        return "{\"topic\":" + quoted(record.topic()) + ",\"offset\":" + record.offset()
                + ",\"key\":" + quoted(record.key()) + ",\"value\":" + quoted(record.value())
                + ",\"header\":" + quoted(header == null ? null : new String(header.value(), StandardCharsets.UTF_8))
                + "}";
    }

    private static String quoted(String text) {
        return text == null ? "null" : '"' + text + '"';
    }
}
