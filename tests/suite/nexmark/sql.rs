//! The published SQL of each query, translated to SQLite: windows by arithmetic, prices in thousandths, ties as docs/nexmark.md says, and the
//! columns of a whole auction or bid in the order of their names.

use onceflow::cli::nexmark::Query;

/// The SQL whose rows are what a query is to give.
pub(super) fn of(query: Query) -> String {
    match query {
        Query::Q0 => Q0.to_owned(),
        Query::Q1 => Q1.to_owned(),
        Query::Q2 => Q2.to_owned(),
        Query::Q3 => Q3.to_owned(),
        Query::Q4 => Q4.to_owned(),
        Query::Q5 => Q5.to_owned(),
        Query::Q6 => Q6.to_owned(),
        Query::Q7 => Q7.to_owned(),
        Query::Q8 => Q8.to_owned(),
        Query::Q9 => Q9.to_owned(),
        Query::Q10 => Q10.to_owned(),
        Query::Q11 => Q11.to_owned(),
        Query::Q12 => Q12.to_owned(),
        Query::Q13 => Q13.to_owned(),
        Query::Q14 => Q14.to_owned(),
        Query::Q15 => bands(
            "strftime('%Y-%m-%d', date_time / 1000, 'unixepoch') AS day",
            "",
            "day",
        ),
        Query::Q16 => bands(
            "channel, strftime('%Y-%m-%d', date_time / 1000, 'unixepoch') AS day",
            "max(strftime('%H:%M', date_time / 1000, 'unixepoch')),",
            "channel, day",
        ),
        Query::Q17 => Q17.to_owned(),
        Query::Q18 => Q18.to_owned(),
        Query::Q19 => Q19.to_owned(),
        Query::Q20 => Q20.to_owned(),
        Query::Q21 => Q21.to_owned(),
        Query::Q22 => Q22.to_owned(),
    }
}

/// Counts in all and in three bands of prices: of bids, of bidders, of auctions.
fn bands(columns: &str, more: &str, group: &str) -> String {
    let bands = [
        "",
        "FILTER (WHERE price < 10000)",
        "FILTER (WHERE price >= 10000 AND price < 1000000)",
        "FILTER (WHERE price >= 1000000)",
    ];
    let counts: Vec<String> = ["*", "DISTINCT bidder", "DISTINCT auction"]
        .iter()
        .flat_map(|of| bands.map(|band| format!("count({of}) {band}")))
        .collect();
    let counts = counts.join(", ");
    format!("SELECT {columns}, {more} {counts} FROM bid GROUP BY {group}")
}

const Q0: &str = "SELECT auction, bidder, price, date_time, extra FROM bid";
const Q1: &str = "SELECT auction, bidder, 908 * price, date_time, extra FROM bid";
const Q2: &str = "SELECT auction, price FROM bid WHERE auction % 123 = 0";
const Q3: &str = "
    SELECT P.name, P.city, P.state, A.id
    FROM auction AS A INNER JOIN person AS P ON A.seller = P.id
    WHERE A.category = 10 AND (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA')";
const Q4: &str = "
    SELECT category, sum(final) / count(*)
    FROM (
        SELECT max(B.price) AS final, A.category
        FROM auction A, bid B
        WHERE A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires
        GROUP BY A.id, A.category
    )
    GROUP BY category";
const Q5: &str = "
    WITH steps(step) AS (VALUES (0), (1), (2), (3), (4)),
    counts AS (
        SELECT auction, count(*) AS num, (date_time / 2000 - step) * 2000 AS starttime
        FROM bid, steps GROUP BY auction, starttime
    )
    SELECT auction, num
    FROM counts JOIN (SELECT max(num) AS maxn, starttime FROM counts GROUP BY starttime) USING (starttime)
    WHERE num >= maxn";
const Q6: &str = "
    WITH finals AS (
        SELECT A.id, A.seller, A.expires, max(B.price) AS price
        FROM auction A, bid B
        WHERE A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires
        GROUP BY A.id
    )
    SELECT seller, sum(price) OVER last_ten / count(*) OVER last_ten
    FROM finals
    WINDOW last_ten AS (PARTITION BY seller ORDER BY expires, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)";
const Q7: &str = "
    SELECT B.auction, B.bidder, B.price, B.date_time, B.extra
    FROM bid B
    JOIN (
        SELECT max(price) AS maxprice, (date_time / 10000 + 1) * 10000 AS window_end
        FROM bid GROUP BY window_end
    ) B1 ON B.price = B1.maxprice
    WHERE B.date_time BETWEEN B1.window_end - 10000 AND B1.window_end";
const Q8: &str = "
    SELECT P.id, P.name, P.starttime
    FROM (
        SELECT id, name, date_time / 10000 * 10000 AS starttime FROM person GROUP BY id, name, starttime
    ) P
    JOIN (
        SELECT seller, date_time / 10000 * 10000 AS starttime FROM auction GROUP BY seller, starttime
    ) A ON P.id = A.seller AND P.starttime = A.starttime";
const Q9: &str = "
    SELECT category, date_time, description, expires, extra, id, initial_bid, item_name, reserve, seller,
        bidder, price, bid_time, bid_extra
    FROM (
        SELECT A.*, B.bidder, B.price, B.date_time AS bid_time, B.extra AS bid_extra,
            row_number() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.date_time, B.bidder) AS rownum
        FROM auction A, bid B
        WHERE A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires
    )
    WHERE rownum <= 1";
const Q10: &str = "
    SELECT auction, bidder, price, date_time, extra,
        strftime('%Y-%m-%d', date_time / 1000, 'unixepoch'), strftime('%H:%M', date_time / 1000, 'unixepoch')
    FROM bid";
const Q11: &str = "
    WITH gaps AS (
        SELECT bidder, date_time,
            coalesce(date_time - lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time) > 10000, 1) AS is_first
        FROM bid
    ),
    sessions AS (
        SELECT bidder, date_time,
            sum(is_first) OVER (PARTITION BY bidder ORDER BY date_time ROWS UNBOUNDED PRECEDING) AS session
        FROM gaps
    )
    SELECT bidder, count(*), min(date_time), max(date_time) + 10000 FROM sessions GROUP BY bidder, session";
/// The windows of q12 depend on the run, and the sums of a bidder do not.
const Q12: &str = "SELECT bidder, count(*) FROM bid GROUP BY bidder";
const Q13: &str = "
    SELECT auction, bidder, price, date_time, value FROM bid JOIN side_input ON auction % 10000 = key";
const Q14: &str = "
    SELECT auction, bidder, 908 * price,
        CASE
            WHEN hour >= 8 AND hour <= 18 THEN 'dayTime'
            WHEN hour <= 6 OR hour >= 20 THEN 'nightTime'
            ELSE 'otherTime'
        END,
        date_time, extra, length(extra) - length(replace(extra, 'c', ''))
    FROM (SELECT *, CAST(strftime('%H', date_time / 1000, 'unixepoch') AS INTEGER) AS hour FROM bid)
    WHERE 908 * price > 1000000000 AND 908 * price < 50000000000";
const Q17: &str = "
    SELECT auction, strftime('%Y-%m-%d', date_time / 1000, 'unixepoch') AS day, count(*),
        count(*) FILTER (WHERE price < 10000), count(*) FILTER (WHERE price >= 10000 AND price < 1000000),
        count(*) FILTER (WHERE price >= 1000000),
        min(price), max(price), sum(price) / count(*), sum(price)
    FROM bid GROUP BY auction, day";
const Q18: &str = "
    SELECT auction, bidder, price, channel, url, date_time, extra
    FROM (
        SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC) AS rank_number
        FROM bid
    )
    WHERE rank_number <= 1";
const Q19: &str = "
    SELECT auction, bidder, channel, date_time, extra, price, url, rank_number
    FROM (
        SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS rank_number
        FROM bid
    )
    WHERE rank_number <= 10";
const Q20: &str = "
    SELECT B.auction, B.bidder, B.channel, B.date_time, B.extra, B.price, B.url,
        A.category, A.date_time, A.description, A.expires, A.extra, A.id, A.initial_bid, A.item_name, A.reserve, A.seller
    FROM bid AS B INNER JOIN auction AS A ON B.auction = A.id
    WHERE A.category = 10";
const Q21: &str = "
    SELECT auction, bidder, price, channel,
        CASE
            WHEN lower(channel) = 'apple' THEN '0'
            WHEN lower(channel) = 'google' THEN '1'
            WHEN lower(channel) = 'facebook' THEN '2'
            WHEN lower(channel) = 'baidu' THEN '3'
            ELSE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2)
        END
    FROM bid
    WHERE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) IS NOT NULL
        OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')";
const Q22: &str = "
    SELECT auction, bidder, price, channel,
        split_index(url, '/', 3), split_index(url, '/', 4), split_index(url, '/', 5)
    FROM bid";
