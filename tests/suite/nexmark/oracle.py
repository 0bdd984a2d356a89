"""The oracle of the Nexmark tests: SQLite runs the published SQL, translated, on the same events.

    oracle.py load DATABASE < events.jsonl     makes the tables
    oracle.py ask DATABASE < query.sql         prints each row as a JSON array
"""

import json
import re
import sqlite3
import sys

TABLES = {
    "person": "id name email_address credit_card city state date_time extra",
    "auction": "id item_name description initial_bid reserve date_time expires seller category extra",
    "bid": "auction bidder price channel url date_time extra",
}


def regexp_extract(text, pattern, group):
    found = re.search(pattern, text)
    return found and found.group(group)


def split_index(text, separator, index):
    parts = text.split(separator)
    return parts[index] if index < len(parts) else None


def load(database, lines):
    rows = {table: [] for table in TABLES}
    for line in lines:
        ((kind, event),) = json.loads(line).items()
        table = kind.lower()
        rows[table].append([event[column] for column in TABLES[table].split()])
    for table, columns in TABLES.items():
        columns = columns.split()
        database.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
        marks = ", ".join("?" * len(columns))
        database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[table])
    database.execute("CREATE TABLE side_input (key, value)")
    database.executemany("INSERT INTO side_input VALUES (?, ?)", ((i, str(i)) for i in range(10_000)))
    for index in ["person (id)", "auction (id)", "bid (auction)", "bid (price)", "side_input (key)"]:
        name = re.sub(r"\W", "_", index)
        database.execute(f"CREATE INDEX {name} ON {index}")
    database.commit()


def ask(database, query):
    database.create_function("regexp_extract", 3, regexp_extract)
    database.create_function("split_index", 3, split_index)
    for row in database.execute(query):
        print(json.dumps(row))


if __name__ == "__main__":
    command, path = sys.argv[1:]
    connection = sqlite3.connect(path)
    if command == "load":
        load(connection, sys.stdin)
    else:
        ask(connection, sys.stdin.read())
