// Transactions of one record each, by several producers at once, with the Java client: transactions a second.

import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public final class TransactionRate {
    // Arguments: bootstrap, topic, producers, seconds. Prints one number.
    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0];
        String topic = arguments[1];
        int producers = Integer.parseInt(arguments[2]);
        long nanos = Long.parseLong(arguments[3]) * 1_000_000_000L;
        List<KafkaProducer<String, String>> all = new ArrayList<>();
        for (int i = 0; i < producers; i++) {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", bootstrap);
            properties.put("transactional.id", topic + "-" + i);
            properties.put("linger.ms", "0");
            var producer = new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
            producer.initTransactions();
            commit(producer, topic, i);
            all.add(producer);
        }
        AtomicLong committed = new AtomicLong();
        var pool = Executors.newFixedThreadPool(producers);
        List<Callable<Void>> work = new ArrayList<>();
        long start = System.nanoTime();
        for (int i = 0; i < producers; i++) {
            int own = i;
            work.add(() -> {
                while (System.nanoTime() - start < nanos) {
                    commit(all.get(own), topic, own);
                    committed.incrementAndGet();
                }
                return null;
            });
        }
        for (Future<Void> done : pool.invokeAll(work)) {
            done.get();
        }
        double seconds = (System.nanoTime() - start) / 1e9;
        pool.shutdown();
        System.out.printf("%.1f%n", committed.get() / seconds);
        for (var producer : all) {
            producer.close();
        }
    }

    private static void commit(KafkaProducer<String, String> producer, String topic, int own) {
        producer.beginTransaction();
        producer.send(new ProducerRecord<>(topic, "k" + own, "one record of a transaction"));
        producer.commitTransaction();
    }
}
