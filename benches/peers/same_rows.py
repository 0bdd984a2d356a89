"""Compares the rows that two engines committed for a query of Nexmark, and prints the table of a run.

    same_rows.py QUERY OURS THEIRS     a value a line, as Kafka's console consumer prints them
    same_rows.py table RESULTS         medians by query and side, and the greatest load of the machine
"""

import collections
import json
import statistics
import sys

# How many columns, from the left, say which row a row takes the place of; of other queries rows never change.
KEYS = {"q4": [0], "q9": [5], "q15": [0], "q16": [0, 1], "q17": [0, 1], "q18": [0, 1], "q19": [0, 7]}


def flat(value):
    """The columns of a row, those of nested values in the order of their names."""
    if isinstance(value, list):
        return [column for it in value for column in flat(it)]
    if isinstance(value, dict):
        return [column for _, it in sorted(value.items()) for column in flat(it)]
    return [value]


def rows_of(query, path, is_ours):
    """The rows that stand, with how often each is there."""
    key = KEYS.get(query)
    standing, rows = {}, collections.Counter()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            text = line.rstrip("\n")
            if text == "null":
                continue
            value = json.loads(text)
            # Flink's rows are objects whose columns are in our order.
            row = flat(value) if is_ours else list(value.values())
            if key is None:
                rows[json.dumps(row)] += 1
            else:
                standing[json.dumps([row[column] for column in key])] = json.dumps(row)
    rows.update(standing.values())
    return rows


def compare(query, ours, theirs):
    ours, theirs = rows_of(query, ours, True), rows_of(query, theirs, False)
    surplus, missing = ours - theirs, theirs - ours
    print(f"{query}: {ours.total()} rows here, {theirs.total()} there, {surplus.total()} only here, {missing.total()} only there")
    for where, some in (("here", surplus), ("there", missing)):
        for row in list(some)[:3]:
            print(f"  only {where}: {row}")
    return not surplus and not missing and ours.total() > 0


def table(path):
    values, loads, sides = collections.defaultdict(list), collections.defaultdict(float), []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            it = json.loads(line)
            values[it["query"], it["side"]].append(it["value"])
            loads[it["query"]] = max(loads[it["query"]], it["load"])
            if it["side"] not in sides:
                sides.append(it["side"])
    print("| query | " + " | ".join(sides) + " | load |")
    print("|---" * (len(sides) + 2) + "|")
    for query, load in loads.items():
        medians = [statistics.median(values[query, side]) if values[query, side] else None for side in sides]
        print(f"| {query} | " + " | ".join("failed" if it is None else f"{it:.0f}" for it in medians) + f" | {load} |")


if __name__ == "__main__":
    if sys.argv[1] == "table":
        table(sys.argv[2])
    elif not compare(*sys.argv[1:]):
        sys.exit(1)
