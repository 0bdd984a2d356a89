// The queries of Nexmark as Flink SQL on JSON in Apache Kafka, exactly once, in a mini cluster in this process: see ../README.md.
//
// Arguments: bootstrap, query, state (rocksdb or heap), end of the name of the topic of results, parallelism; without any, the plans.
// Prints how many seconds lie between the start of the first task that reads and the end of the job, its last commit included.

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.execution.ExecutionState;
import org.apache.flink.runtime.executiongraph.AccessExecutionGraph;
import org.apache.flink.runtime.executiongraph.AccessExecutionJobVertex;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.functions.ScalarFunction;

public final class Nexmark {
    // How often a letter occurs (q14).
    public static final class CountLetter extends ScalarFunction {
        public Long eval(String text, String letter) {
            return text.chars().filter(it -> it == letter.charAt(0)).count();
        }
    }

    // The side input of q13, 10,000 rows of a number and itself as text, in memory: no lookup costs less.
    public static final class SideInput extends ScalarFunction {
        private transient String[] rows;

        public String eval(Long key) {
            if (rows == null) {
                rows = new String[10_000];
                for (int i = 0; i < rows.length; i++) {
                    rows[i] = Integer.toString(i);
                }
            }
            return rows[key.intValue()];
        }
    }

    private static final String AUCTION_COLUMNS = "category BIGINT, date_time BIGINT, description STRING, expires BIGINT, extra STRING,"
            + " id BIGINT, initial_bid BIGINT, item_name STRING, reserve BIGINT, seller BIGINT";
    private static final String BID_COLUMNS =
            "auction BIGINT, bidder BIGINT, channel STRING, date_time BIGINT, extra STRING, price BIGINT, url STRING";
    private static final String DAY = "DATE_FORMAT(ts, 'yyyy-MM-dd')";

    // A query: the columns of its rows, those of its key if rows change, and its SQL.
    private record Query(String columns, String key, String sql) {}

    // Counts in all and in three bands of prices: of bids, bidders and auctions.
    private static String bands(String of) {
        return "count(" + of + "), count(" + of + ") FILTER (WHERE price < 10000),"
                + " count(" + of + ") FILTER (WHERE price >= 10000 AND price < 1000000),"
                + " count(" + of + ") FILTER (WHERE price >= 1000000)";
    }

    private static String bandColumns() {
        StringBuilder columns = new StringBuilder();
        for (String of : new String[] {"bids", "bidders", "auctions"}) {
            for (int band = 0; band < 4; band++) {
                columns.append(", ").append(of).append(band).append(" BIGINT");
            }
        }
        return columns.toString();
    }

    private static Map<String, Query> queries() {
        Map<String, Query> all = new TreeMap<>();
        String bid = "auction BIGINT, bidder BIGINT, price BIGINT, date_time BIGINT, extra STRING";
        all.put("q0", new Query(bid, null, "SELECT auction, bidder, price, date_time, extra FROM bid"));
        all.put("q1", new Query(bid, null, "SELECT auction, bidder, 908 * price, date_time, extra FROM bid"));
        all.put("q2", new Query("auction BIGINT, price BIGINT", null, "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0"));
        all.put("q3", new Query("name STRING, city STRING, state STRING, id BIGINT", null,
                "SELECT P.name, P.city, P.state, A.id FROM auction A JOIN person P ON A.seller = P.id"
                        + " WHERE A.category = 10 AND P.state IN ('OR', 'ID', 'CA')"));
        all.put("q4", new Query("category BIGINT, average BIGINT", "category",
                "SELECT category, AVG(top_price) FROM (SELECT MAX(B.price) AS top_price, A.category FROM auction A, bid B"
                        + " WHERE A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires GROUP BY A.id, A.category)"
                        + " GROUP BY category"));
        String hops = "SELECT auction, count(*) AS num, window_start, window_end FROM"
                + " TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))"
                + " GROUP BY auction, window_start, window_end";
        all.put("q5", new Query("auction BIGINT, num BIGINT", null,
                "SELECT A.auction, A.num FROM (" + hops + ") A JOIN (SELECT MAX(num) AS most, window_start, window_end FROM ("
                        + hops + ") GROUP BY window_start, window_end) M ON A.window_start = M.window_start"
                        + " AND A.window_end = M.window_end AND A.num = M.most"));
        all.put("q7", new Query(bid, null,
                "SELECT B.auction, B.bidder, B.price, B.date_time, B.extra FROM bid B JOIN (SELECT MAX(price) AS price,"
                        + " window_time AS w FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))"
                        + " GROUP BY window_start, window_end, window_time) M ON B.price = M.price"
                        + " AND B.ts BETWEEN M.w - INTERVAL '9.999' SECOND(1, 3) AND M.w + INTERVAL '0.001' SECOND(1, 3)"));
        all.put("q8", new Query("id BIGINT, name STRING, starttime BIGINT", null,
                "SELECT P.id, P.name, 1000 * UNIX_TIMESTAMP(DATE_FORMAT(P.window_start, 'yyyy-MM-dd HH:mm:ss')) FROM (SELECT id, name, window_start, window_end"
                        + " FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(ts), INTERVAL '10' SECOND))"
                        + " GROUP BY id, name, window_start, window_end) P JOIN (SELECT seller, window_start, window_end"
                        + " FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(ts), INTERVAL '10' SECOND))"
                        + " GROUP BY seller, window_start, window_end) A"
                        + " ON P.id = A.seller AND P.window_start = A.window_start AND P.window_end = A.window_end"));
        all.put("q9", new Query(AUCTION_COLUMNS + ", bidder BIGINT, price BIGINT, bid_time BIGINT, bid_extra STRING", "id",
                "SELECT category, date_time, description, expires, extra, id, initial_bid, item_name, reserve, seller,"
                        + " bidder, price, bid_time, bid_extra FROM (SELECT A.*, B.bidder, B.price, B.date_time AS bid_time,"
                        + " B.extra AS bid_extra, ROW_NUMBER() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.date_time, B.bidder)"
                        + " AS n FROM auction A, bid B WHERE A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires)"
                        + " WHERE n <= 1"));
        all.put("q11", new Query("bidder BIGINT, bids BIGINT, starttime BIGINT, endtime BIGINT", null,
                "SELECT bidder, count(*), MIN(date_time), MAX(date_time) + 10000 FROM"
                        + " TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '10' SECOND))"
                        + " GROUP BY bidder, window_start, window_end"));
        all.put("q12", new Query("bidder BIGINT, bids BIGINT, starttime STRING, endtime STRING", null,
                "SELECT bidder, count(*), CAST(window_start AS STRING), CAST(window_end AS STRING) FROM"
                        + " TABLE(TUMBLE((SELECT bidder, PROCTIME() AS p FROM bid), DESCRIPTOR(p), INTERVAL '10' SECOND))"
                        + " GROUP BY bidder, window_start, window_end"));
        all.put("q13", new Query("auction BIGINT, bidder BIGINT, price BIGINT, date_time BIGINT, side STRING", null,
                "SELECT auction, bidder, price, date_time, side_input(MOD(auction, 10000)) FROM bid"));
        all.put("q14", new Query("auction BIGINT, bidder BIGINT, price BIGINT, kind STRING, date_time BIGINT, extra STRING, c BIGINT",
                null, "SELECT auction, bidder, 908 * price, CASE WHEN HOUR(ts) BETWEEN 8 AND 18 THEN 'dayTime'"
                        + " WHEN HOUR(ts) <= 6 OR HOUR(ts) >= 20 THEN 'nightTime' ELSE 'otherTime' END, date_time, extra,"
                        + " count_letter(extra, 'c') FROM bid WHERE 908 * price > 1000000000 AND 908 * price < 50000000000"));
        all.put("q15", new Query("d STRING" + bandColumns(), "d", "SELECT " + DAY + ", " + bands("*") + ", "
                + bands("DISTINCT bidder") + ", " + bands("DISTINCT auction") + " FROM bid GROUP BY " + DAY));
        all.put("q16", new Query("channel STRING, d STRING, m STRING" + bandColumns(), "channel, d",
                "SELECT channel, " + DAY + ", MAX(DATE_FORMAT(ts, 'HH:mm')), " + bands("*") + ", " + bands("DISTINCT bidder")
                        + ", " + bands("DISTINCT auction") + " FROM bid GROUP BY channel, " + DAY));
        all.put("q17", new Query("auction BIGINT, d STRING, b0 BIGINT, b1 BIGINT, b2 BIGINT, b3 BIGINT, least BIGINT, most BIGINT,"
                + " average BIGINT, total BIGINT", "auction, d", "SELECT auction, " + DAY + ", " + bands("*")
                + ", MIN(price), MAX(price), AVG(price), SUM(price) FROM bid GROUP BY auction, " + DAY));
        all.put("q18", new Query("auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, date_time BIGINT,"
                + " extra STRING", "auction, bidder", "SELECT auction, bidder, price, channel, url, date_time, extra FROM (SELECT *,"
                + " ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC) AS n FROM bid) WHERE n <= 1"));
        all.put("q19", new Query(BID_COLUMNS + ", n BIGINT", "auction, n", "SELECT auction, bidder, channel, date_time, extra, price,"
                + " url, n FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS n"
                + " FROM bid) WHERE n <= 10"));
        all.put("q20", new Query(BID_COLUMNS + ", category BIGINT, a_time BIGINT, description STRING, expires BIGINT, a_extra STRING,"
                + " id BIGINT, initial_bid BIGINT, item_name STRING, reserve BIGINT, seller BIGINT", null,
                "SELECT B.auction, B.bidder, B.channel, B.date_time, B.extra, B.price, B.url, A.category, A.date_time, A.description,"
                        + " A.expires, A.extra, A.id, A.initial_bid, A.item_name, A.reserve, A.seller"
                        + " FROM bid B JOIN auction A ON B.auction = A.id WHERE A.category = 10"));
        String page = "REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2)";
        String hot = "lower(channel) IN ('apple', 'google', 'facebook', 'baidu')";
        all.put("q21", new Query("auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, channel_id STRING", null,
                "SELECT auction, bidder, price, channel, CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1'"
                        + " WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3' ELSE " + page + " END FROM bid WHERE " + page
                        + " IS NOT NULL OR " + hot));
        all.put("q22", new Query("auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, d1 STRING, d2 STRING, d3 STRING", null,
                "SELECT auction, bidder, price, channel, SPLIT_INDEX(url, '/', 3), SPLIT_INDEX(url, '/', 4), SPLIT_INDEX(url, '/', 5)"
                        + " FROM bid"));
        return all;
    }

    private static void createInput(StreamTableEnvironment tables, String bootstrap) {
        tables.executeSql("CREATE TABLE events (Person ROW<id BIGINT, name STRING, email_address STRING, credit_card STRING, city STRING,"
                + " state STRING, date_time BIGINT, extra STRING>, Auction ROW<" + AUCTION_COLUMNS + ">, Bid ROW<" + BID_COLUMNS + ">,"
                + " ts AS TO_TIMESTAMP_LTZ(COALESCE(Bid.date_time, Auction.date_time, Person.date_time), 3),"
                + " WATERMARK FOR ts AS ts - INTERVAL '4' SECOND) WITH ('connector' = 'kafka', 'topic' = 'nexmark-events',"
                + " 'properties.bootstrap.servers' = '" + bootstrap + "', 'properties.group.id' = 'flink',"
                + " 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset', 'format' = 'json')");
        tables.executeSql("CREATE VIEW bid AS SELECT Bid.auction, Bid.bidder, Bid.price, Bid.channel, Bid.url, Bid.date_time, Bid.extra,"
                + " ts FROM events WHERE Bid IS NOT NULL");
        tables.executeSql("CREATE VIEW auction AS SELECT Auction.id, Auction.item_name, Auction.description, Auction.initial_bid,"
                + " Auction.reserve, Auction.date_time, Auction.expires, Auction.seller, Auction.category, Auction.extra, ts"
                + " FROM events WHERE Auction IS NOT NULL");
        tables.executeSql("CREATE VIEW person AS SELECT Person.id, Person.name, Person.city, Person.state, ts FROM events"
                + " WHERE Person IS NOT NULL");
        tables.createTemporarySystemFunction("count_letter", CountLetter.class);
        tables.createTemporarySystemFunction("side_input", SideInput.class);
    }

    private static void createOutput(StreamTableEnvironment tables, String bootstrap, Query query, String topic) {
        String key = query.key() == null ? "" : ", PRIMARY KEY (" + query.key() + ") NOT ENFORCED";
        String form = query.key() == null
                ? "'connector' = 'kafka', 'format' = 'json'"
                : "'connector' = 'upsert-kafka', 'key.format' = 'json', 'value.format' = 'json'";
        // Flink's own transaction timeout is an hour, more than a broker allows.
        tables.executeSql("CREATE TABLE results (" + query.columns() + key + ") WITH (" + form + ", 'topic' = '" + topic + "',"
                + " 'properties.bootstrap.servers' = '" + bootstrap + "', 'properties.transaction.timeout.ms' = '600000',"
                + " 'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '" + topic + "')");
    }

    private static Configuration configuration(String state, int parallelism, Path folder) {
        Configuration configuration = new Configuration();
        configuration.setString("state.backend.type", state.equals("heap") ? "hashmap" : "rocksdb");
        configuration.setString("state.backend.incremental", "true");
        configuration.setString("execution.checkpointing.interval", "1 s");
        configuration.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
        configuration.setString("execution.checkpointing.dir", folder.toUri().toString());
        configuration.setString("parallelism.default", Integer.toString(parallelism));
        // A copy of each record between tasks of one chain is left out.
        configuration.setString("pipeline.object-reuse", "true");
        configuration.setString("table.local-time-zone", "UTC");
        configuration.setString("taskmanager.memory.managed.size", "512m");
        configuration.setString("taskmanager.memory.network.min", "128m");
        configuration.setString("taskmanager.memory.network.max", "128m");
        configuration.setString("rest.bind-port", "0");
        return configuration;
    }

    // Runs a query to its end; returns the seconds between the start of its first reader and its end.
    private static double run(String[] arguments, String topic) throws Exception {
        Query query = queries().get(arguments[1]);
        int parallelism = Integer.parseInt(arguments[4]);
        Path folder = Files.createTempDirectory(Path.of("."), "checkpoints").toAbsolutePath();
        Configuration configuration = configuration(arguments[2], parallelism, folder);
        var environment = StreamExecutionEnvironment.getExecutionEnvironment(configuration);
        StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
        createInput(tables, arguments[0]);
        createOutput(tables, arguments[0], query, topic);
        tables.createStatementSet().addInsertSql("INSERT INTO results " + query.sql()).attachAsDataStream();
        var graph = environment.getStreamGraph();
        JobID job = graph.getJobID();
        var cluster = new MiniClusterConfiguration.Builder()
                .setConfiguration(configuration)
                .setNumTaskManagers(1)
                .setNumSlotsPerTaskManager(parallelism)
                .build();
        try (MiniCluster running = new MiniCluster(cluster)) {
            running.start();
            running.submitJob(graph).get();
            var result = running.requestJobResult(job).get();
            if (!result.isSuccess()) {
                throw new IOException("the query failed: " + result.getSerializedThrowable());
            }
            AccessExecutionGraph done = running.getExecutionGraph(job).get();
            long begin = Long.MAX_VALUE;
            for (AccessExecutionJobVertex vertex : done.getVerticesTopologically()) {
                for (var task : vertex.getTaskVertices()) {
                    begin = Math.min(begin, task.getStateTimestamp(ExecutionState.RUNNING));
                }
            }
            return (done.getStatusTimestamp(JobStatus.FINISHED) - begin) / 1e3;
        }
    }

    // Prints the plan of each query, or why there is none.
    private static void explain() {
        queries().forEach((name, query) -> {
            var environment = StreamExecutionEnvironment.getExecutionEnvironment();
            StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
            createInput(tables, "localhost:9092");
            createOutput(tables, "localhost:9092", query, "results");
            try {
                System.out.println(name + "\n" + tables.explainSql("INSERT INTO results " + query.sql()));
            } catch (RuntimeException refused) {
                System.out.println(name + " is refused: " + refused);
            }
        });
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 0) {
            explain();
            return;
        }
        // The just-in-time compiler sees the query once before it counts.
        run(arguments, "nexmark-warm" + arguments[3]);
        System.out.printf("%.3f%n", run(arguments, "nexmark-results" + arguments[3]));
        System.exit(0);
    }
}
