// A job with much state in Kafka Streams, exactly once, and what `../restart` needs around it: see ../README.md.
//
//   fill BOOTSTRAP TOPIC KEYS FROM TO RATE    numbers FROM to TO, keyed by their rest modulo KEYS; RATE a second, 0 for at once
//   watch BOOTSTRAP TOPIC                     a line for each poll that found committed records: milliseconds of the wall clock, records so far
//   job BOOTSTRAP IN OUT FOLDER TRANSACTIONAL texts of 1 KiB, the last one of each key; those that begin with A go to OUT

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.Cache;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;
import org.rocksdb.WriteBufferManager;

public final class Restart {
    private static final String LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    private static final int VALUE_BYTES = 1024;

    // All stores together have as much memory as our job has: 512 MiB, memtables included.
    public static final class Bounded implements RocksDBConfigSetter {
        private static final Cache CACHE = new LRUCache(512L << 20);
        private static final WriteBufferManager BUFFERS = new WriteBufferManager(128L << 20, CACHE);

        @Override
        public void setConfig(String store, Options options, Map<String, Object> configs) {
            BlockBasedTableConfig tables = (BlockBasedTableConfig) options.tableFormatConfig();
            tables.setBlockCache(CACHE);
            tables.setCacheIndexAndFilterBlocks(true);
            options.setWriteBufferManager(BUFFERS);
            options.setTableFormatConfig(tables);
        }

        @Override
        public void close(String store, Options options) {}
    }

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "fill" -> fill(arguments);
            case "watch" -> watch(arguments[1], arguments[2]);
            case "job" -> job(arguments);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    // Text that is another one for each number, and does not compress (splitmix64 in base 64), as our job makes it.
    private static String text(long number) {
        byte[] text = new byte[VALUE_BYTES];
        long state = number;
        for (int at = 0; at < VALUE_BYTES; ) {
            state += 0x9e3779b97f4a7c15L;
            long z = (state ^ (state >>> 30)) * 0xbf58476d1ce4e5b9L;
            z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
            for (int i = 0; i < 8; i++, at++) {
                text[at] = (byte) LETTERS.charAt((int) (z >>> (6 * i)) & 0x3f);
            }
        }
        return new String(text, StandardCharsets.ISO_8859_1);
    }

    private static void fill(String[] arguments) throws Exception {
        long keys = Long.parseLong(arguments[3]);
        long from = Long.parseLong(arguments[4]);
        long to = Long.parseLong(arguments[5]);
        long rate = Long.parseLong(arguments[6]);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[1]);
        properties.put("linger.ms", "20");
        properties.put("batch.size", "131072");
        var bytes = new ByteArraySerializer();
        long begin = System.nanoTime();
        try (var producer = new KafkaProducer<>(properties, bytes, bytes)) {
            for (long number = from; number < to; number++) {
                long due = rate == 0 ? 0 : begin + (number - from) * 1_000_000_000L / rate - System.nanoTime();
                if (due > 10_000_000L) {
                    Thread.sleep(due / 1_000_000L);
                }
                producer.send(new ProducerRecord<>(arguments[2], ascii(number % keys), ascii(number)));
            }
        }
    }

    private static byte[] ascii(long number) {
        return Long.toString(number).getBytes(StandardCharsets.US_ASCII);
    }

    private static void watch(String bootstrap, String topic) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("isolation.level", "read_committed");
        properties.put("fetch.max.wait.ms", "20");
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(properties, bytes, bytes)) {
            List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(info -> new TopicPartition(topic, info.partition()))
                    .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long seen = 0;
            while (true) {
                int count = consumer.poll(Duration.ofMillis(1000)).count();
                if (count > 0) {
                    seen += count;
                    System.out.println(System.currentTimeMillis() + " " + seen);
                }
            }
        }
    }

    private static void job(String[] arguments) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, "streams-" + arguments[3]);
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[1]);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put("enable.transactional.statestores", arguments[5]);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, "100");
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, "2");
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, "0");
        properties.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, Bounded.class);
        properties.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        // A member of its own name takes its partitions up again at once; one without waits for the end of its last session.
        properties.put(StreamsConfig.consumerPrefix("group.instance.id"), "one");
        properties.put(StreamsConfig.consumerPrefix("session.timeout.ms"), "6000");
        StreamsBuilder builder = new StreamsBuilder();
        Materialized<String, String, KeyValueStore<Bytes, byte[]>> texts = Materialized.as("texts");
        builder.stream(arguments[2], Consumed.with(Serdes.String(), Serdes.String()))
                .groupByKey()
                .aggregate(() -> "", (key, number, last) -> text(Long.parseLong(number)), texts.withKeySerde(Serdes.String()).withValueSerde(Serdes.String()))
                .toStream()
                .filter((key, text) -> text.startsWith("A"))
                .mapValues(text -> (long) text.length())
                .to(arguments[3], Produced.with(Serdes.String(), Serdes.Long()));
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        streams.setUncaughtExceptionHandler(failure -> {
            failure.printStackTrace();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
        });
        streams.start();
    }
}
